"""Every bound of every setting. Oracle: the value next to the bound, on either side, given through `build`."""

import dataclasses
import importlib
import inspect
import math
import typing
from collections.abc import Iterator
from typing import Any

import pytest

from pulvinar.app import registry
from pulvinar.core.config import ANY, Bounds, build, describe, setting
from pulvinar.core.errors import ConfigError
from pulvinar.data.pictures import PictureOptions
from pulvinar.gating.settings import ScoreSettings

UNBOUNDED = {  # numbers that may be anything finite, or whose bounds depend on what they stand for (in `problems`)
    "gate_bias", "n_voxels", "stages", "mean", "std", "sets", "layouts",
}  # fmt: skip


def classes() -> dict[str, type[Any]]:
    """Name -> every class of settings that a person fills in."""
    found: dict[str, type[Any]] = {"evaluate": ScoreSettings, "pictures": PictureOptions}
    for name in registry.names("methods"):
        found[name] = registry.method(name).config
    for name in registry.names("datasets"):
        for kind in ("Config", "Options", "Generated"):
            module = importlib.import_module(f"pulvinar.datasets.{name}")
            if hasattr(module, kind):
                found[f"{name}.{kind}"] = getattr(module, kind)
    return found


CLASSES = classes()


def numbers(hint: Any) -> set[type]:
    """int, float or both, of a hint of numbers, of lists of them or of none."""
    parts = typing.get_args(hint) or (hint,)
    return {part for part in parts if part in (int, float)}.union(*(numbers(p) for p in parts if typing.get_args(p)))


def edges(bounds: Bounds, whole: bool) -> Iterator[tuple[float, bool]]:
    """Values at and beside each bound, and whether they fit."""
    step = bounds.multiple_of or (1.0 if whole else 0.0)
    if bounds.multiple_of:
        yield 10 * bounds.multiple_of + 1, False
    for bound, inside, up in (
        (bounds.above, False, True), (bounds.at_least, True, True), (bounds.below, False, False), (bounds.at_most, True, False)
    ):  # fmt: skip
        if bound is not None:
            yield bound, inside
            within = bound + step if up else bound - step
            beyond = bound - step if up else bound + step
            yield (within if whole else math.nextafter(bound, math.inf if up else -math.inf)), True
            yield (beyond if whole else math.nextafter(bound, -math.inf if up else math.inf)), False


CASES = [
    pytest.param(name, field, value, fits, id=f"{name}.{field.name}={value}")
    for name, config in CLASSES.items()
    for field in dataclasses.fields(config)
    for kind in [numbers(typing.get_type_hints(config)[field.name])]
    if kind
    for value, fits in edges(field.metadata.get("bounds", ANY), whole=float not in kind)
]


def said(config: type[Any], name: str, values: dict[str, Any]) -> str:
    try:
        build(config, values, name=name)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "field", "value", "fits"), CASES)
def test_a_value_beyond_a_bound_is_refused_and_one_at_it_is_not(name, field, value, fits):
    config = CLASSES[name]
    hint = typing.get_type_hints(config)[field.name]
    value = int(value) if float not in numbers(hint) else value
    listed = (value,) if typing.get_origin(hint) is tuple else value
    bounds = field.metadata["bounds"]
    refused = f"m.{field.name} {'lies' if str(bounds).startswith('in') else 'is'} {bounds}" in said(
        config, "m", {field.name: listed}
    )
    assert refused != fits


@pytest.mark.parametrize("name", CLASSES)
def test_every_number_has_a_bound_that_is_shown(name):
    config, shown = CLASSES[name], {row[0]: row[1] for row in describe(CLASSES[name])}
    for field in dataclasses.fields(config):
        if numbers(typing.get_type_hints(config)[field.name]) and field.name not in UNBOUNDED:
            bounds = field.metadata["bounds"]
            assert str(bounds), f"{name}.{field.name} has no bound"
            assert shown[field.name].endswith(str(bounds))


def redeclared() -> Iterator[Any]:
    """Every setting that a class declares anew, with the declaration of the nearest base that has it."""
    for name, config in CLASSES.items():
        for number, part in enumerate(config.__mro__):
            for field in inspect.get_annotations(part):
                bases = [base for base in config.__mro__[number + 1 :] if field in getattr(base, "__dataclass_fields__", {})]
                if field in getattr(config, "__dataclass_fields__", {}) and bases:
                    new, old = part.__dataclass_fields__[field], bases[0].__dataclass_fields__[field]
                    yield pytest.param(new, old, id=f"{name}.{field}")


@pytest.mark.parametrize(("new", "old"), list(redeclared()))
def test_a_setting_declared_anew_keeps_its_bounds_and_what_it_counts_with(new, old):
    ignored = {"help": "", "heading": ""}  # where it stands in the list is said where it was first declared
    assert {**new.metadata, **ignored} == {**old.metadata, **ignored}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Texts that have to be whole numbers."""

    sizes: tuple[str, ...] = setting((), "sizes", reads=int)
    size: str | None = setting(None, "size", reads=int)


def test_texts_that_cannot_be_read_are_named_and_none_need_not_be():
    assert said(Texts, "m", {}) == said(Texts, "m", {"sizes": ("1", "2"), "size": "3"}) == ""
    assert said(Texts, "m", {"sizes": ("1", "two")}) == "m.sizes: invalid literal for int() with base 10: 'two'"
    assert said(Texts, "m", {"size": "three"}).startswith("m.size: invalid literal")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lists:
    """A list that may not be empty, and numbers that may be none or true."""

    rates: tuple[float, ...] = setting((1.0,), "rates", above=0, filled=True)
    limit: float | None = setting(None, "limit", above=0)


def test_lists_are_checked_value_by_value_and_may_have_to_be_filled():
    assert "m.rates is above 0, not [1.0, 0.0]" in said(Lists, "m", {"rates": (1.0, 0.0)})
    assert "m.rates has one value or more, not []" in said(Lists, "m", {"rates": ()})
    assert said(Lists, "m", {"rates": (2.0,), "limit": None}) == ""
    assert said(Lists, "m", {"limit": 0}) == "m.limit is above 0, or none, not 0.0"
    assert said(Lists, "m", {"limit": math.inf}) == "m.limit is finite, not inf"
