"""Settings: a frozen dataclass, filled from a TOML file and `key=value` pairs; every mistake is reported at once.

A method's `Config` is a frozen keyword-only dataclass whose type hints say what fits. Supported hints: bool, int, float,
str, `Literal[...]`, `tuple[X, ...]`, and `X | None`. Field help is the string under each field's `metadata["help"]`; a setting
that does nothing beside some values of others says so in `counts`, and `build` refuses to have it set there.
"""

import dataclasses
import difflib
import functools
import inspect
import json
import math
import os
import re
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pulvinar.core.errors import ConfigError, FileError
from pulvinar.core.progress import warn
from pulvinar.core.storage import require_file

ConfigType = TypeVar("ConfigType")
LARGEST_SEED = 2**48  # several are derived from one


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What values a number may have; of a list every one of its numbers, and with `filled` there is one or more."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None
    multiple_of: int | None = None
    filled: bool = False

    def mistake(self, value: Any) -> str | None:
        """What a value is instead of fitting, such as 'is above 0'; None where it fits. None itself and texts always fit."""
        values = value if isinstance(value, tuple) else (value,)
        if self.filled and not values:
            return "has one value or more"
        return None if all(self._fits(one) for one in values) else f"{'lies' if self._two_sided else 'is'} {self}"

    def _fits(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return True
        return not (
            (self.above is not None and not value > self.above)
            or (self.at_least is not None and not value >= self.at_least)
            or (self.below is not None and not value < self.below)
            or (self.at_most is not None and not value <= self.at_most)
            or (self.multiple_of is not None and value % self.multiple_of)
        )

    @property
    def _two_sided(self) -> bool:
        lower, upper = (self.above, self.at_least), (self.below, self.at_most)
        return lower != (None, None) and upper != (None, None)

    def __str__(self) -> str:
        multiple = f"a multiple of {self.multiple_of}" if self.multiple_of else ""
        return ", ".join(part for part in (self._range, multiple) if part)

    @property
    def _range(self) -> str:
        if self._two_sided:
            left = f"({_number(self.above)}" if self.above is not None else f"[{_number(self.at_least)}"
            right = f"{_number(self.below)})" if self.below is not None else f"{_number(self.at_most)}]"
            return f"in {left}, {right}"
        if self.at_least is not None:
            return f"{_number(self.at_least)} or more"
        words = (("above", self.above), ("below", self.below), ("at most", self.at_most))
        return next((f"{word} {_number(value)}" for word, value in words if value is not None), "")


ANY = Bounds()


def _number(value: float | None) -> str:
    return "2^48" if value == LARGEST_SEED else str(value)


def setting(
    default: Any,
    help: str,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    at_most: float | None = None,
    multiple_of: int | None = None,
    filled: bool = False,
    counts: str = "",
    reads: Callable[[Any], object] | None = None,
    heading: str = "",
    formerly: Mapping[str, str] = types.MappingProxyType({}),
) -> Any:
    """A dataclass field with a default, one line that says what it does, its unit and source, and the values that fit.

    above, at_least, below, at_most, multiple_of, filled: see `Bounds`; checked by `build`, shown wherever settings are listed.
    counts: with which values of other settings it does anything, such as "epochs>0 and prior!=linear or train=all"; empty:
    always. `and` binds tighter than `or`; what a method has no setting for holds.
    reads: what reads a text, of a list each of its texts, and raises ValueError where it cannot.
    heading: of the group that begins with this setting, where the settings of a method are listed.
    formerly: an older name of the setting, or of one of its values -> today's; both are still read, so that older runs open.
    """
    bounds = Bounds(above=above, at_least=at_least, below=below, at_most=at_most, multiple_of=multiple_of, filled=filled)
    told = {"help": help, "bounds": bounds, "counts": counts, "reads": reads, "heading": heading, "formerly": formerly}
    return dataclasses.field(default=default, metadata=told)


MOST_PARTS = 100  # of a dotted key; the time and memory that tomllib takes grow with their square
_LONG_KEY = re.compile(rf"(?:[^.,=\[\]{{}}#\n]*+\.){{{MOST_PARTS}}}")
_CONDITION = re.compile(r"(\w+)(!=|=|>|<)(\S+)")


_hints: Callable[[Any], dict[str, Any]] = functools.cache(typing.get_type_hints)  # read often, and slow to work out


def holds(condition: str, config: Any) -> bool:
    """Whether a condition of `setting` is true of a config."""
    return any(all(_holds(part, config) for part in each.split(" and ")) for each in condition.split(" or "))


def _holds(part: str, config: Any) -> bool:
    found = _CONDITION.fullmatch(part)
    if found is None:
        raise ValueError(f"'{part}' is no condition; one looks like train=all, weight>0 or measures!=()")
    name, sign, text = found.groups()
    if not hasattr(config, name):
        return True
    value = getattr(config, name)
    if sign in "<>":
        return value is not None and (value > float(text) if sign == ">" else value < float(text))
    return (value == convert(text, _hints(type(config))[name])) == (sign == "=")


def idle_settings(config: Any) -> dict[str, str]:
    """Settings that do nothing beside the others -> why. A config may add some by `idle(self)`."""
    conditions = {field.name: field.metadata.get("counts", "") for field in dataclasses.fields(config)}
    found = {
        name: f"it counts with {condition} only"
        for name, condition in conditions.items()
        if condition and not holds(condition, config)
    }
    return found | getattr(config, "idle", dict)()


def _without_effect(config: Any, given: Collection[str], elsewhere: Mapping[str, str], name: str) -> list[str]:
    """A line for every given setting that does nothing. Where all are given (a run's config.toml), defaults are no choice."""
    default = {field.name: field.default for field in dataclasses.fields(config)}
    is_record = set(default) <= set(given)
    return [
        f"{name}.{key}={getattr(config, key)} does nothing here: {why}{elsewhere.get(key, '')}"
        for key, why in idle_settings(config).items()
        if key in given and not (is_record and getattr(config, key) == default[key])
    ]


def mistakes_of(config: Any, name: str) -> list[str]:
    """A line for every setting beyond its bounds, infinite or unreadable, then each of the config's own `problems()`."""
    wrong, hints = [], _hints(type(config))
    for field in dataclasses.fields(config):
        value, bounds = getattr(config, field.name), field.metadata.get("bounds", ANY)
        if value in (math.inf, -math.inf):
            wrong.append(f"{name}.{field.name} is finite, not {value}")
        elif mistake := bounds.mistake(value):
            or_none = ", or none" if type(None) in typing.get_args(hints[field.name]) else ""
            wrong.append(f"{name}.{field.name} {mistake}{or_none}, not {list(value) if isinstance(value, tuple) else value}")
        elif unread := _unread(value, field.metadata.get("reads")):
            wrong.append(f"{name}.{field.name}: {unread}")
    return wrong + [f"{name}.{problem}" for problem in getattr(config, "problems", list)()]


def _unread(value: Any, reads: Callable[[Any], object] | None) -> str | None:
    """Why a text, or one of a list, cannot be read; None where all can."""
    try:
        for one in value if isinstance(value, tuple) else (value,):
            if reads is not None and one is not None:
                reads(one)
    except ValueError as error:
        return str(error)
    return None


def suggest(name: str, known: Sequence[str]) -> str:
    """'; did you mean X?' when something close is known, else the list of what is."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; there are: {', '.join(known)}"


def _describe(hint: Any) -> str:
    if typing.get_origin(hint) is typing.Literal:
        return "one of " + ", ".join(repr(choice) for choice in typing.get_args(hint))
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " or ".join("none" if part is type(None) else _describe(part) for part in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"a list of {_describe(typing.get_args(hint)[0])}"
    return {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, str(hint))


def convert(value: Any, hint: Any) -> Any:
    """The value as the hint wants it, from TOML or from command-line text; ValueError if it does not fit."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, typing.get_args(hint))
    if origin is typing.Literal:
        for choice in typing.get_args(hint):
            if value == choice or str(value) == str(choice):
                return choice
        raise ValueError
    if origin is tuple:
        inner = typing.get_args(hint)[0]
        return tuple(convert(part, inner) for part in (_parts(value) if isinstance(value, str) else list(value)))
    return _convert_plain(value, hint)


def _parts(text: str) -> list[str]:
    """`[a, "b"]`, `(a, b)` or `a, b` as its parts, without brackets, quotes and blanks."""
    return [part.strip().strip("\"'") for part in text.strip().strip("[]()").split(",") if part.strip()]


def _convert_union(value: Any, hints: Sequence[Any]) -> Any:
    if type(None) in hints and (value is None or (isinstance(value, str) and value.lower() in ("none", "null", ""))):
        return None
    if type(value) in hints:  # a TOML 1.0 stays a share where a whole number would be a count
        return value
    for hint in hints:
        if hint is not type(None):
            try:
                return convert(value, hint)
            except (ValueError, TypeError):
                continue
    raise ValueError


def _convert_plain(value: Any, hint: Any) -> Any:
    if hint is bool:
        words = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.lower() in words:
            return words[value.lower()]
        raise ValueError
    if hint is int:
        if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
            raise ValueError
        return int(value)
    if hint is float:
        if isinstance(value, bool) or math.isnan(float(value)):
            raise ValueError
        return float(value)
    if hint is str:
        if not isinstance(value, str):
            raise ValueError
        return value
    raise TypeError(f"no conversion to {hint}")


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """A TOML file as a dict; `FileError` if it is missing or malformed."""
    path = require_file(path, "configuration file")
    try:
        text = path.read_text(encoding="utf-8-sig")
        if _LONG_KEY.search(text):
            raise ValueError(f"a key of more than {MOST_PARTS} parts")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not valid TOML: {error}") from error


def parse_assignments(pairs: Sequence[str], *, refuse_repeated: bool = False) -> dict[str, str]:
    """`["a=1", "b=2"]` as a dict; `ConfigError` lists every pair without an equals sign.

    Of several values of a key the last counts and the others are said, or, with `refuse_repeated`, are refused.
    """
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        raise ConfigError("settings are given as key=value; these are not: " + ", ".join(repr(pair) for pair in wrong))
    values: dict[str, list[str]] = {}
    for key, value in (pair.split("=", 1) for pair in pairs):
        values.setdefault(key.strip(), []).append(value.strip())
    for key, found in values.items():
        if len(set(found)) > 1:
            several = f"'{key}' is given as {' and '.join(found)}"
            if refuse_repeated:
                raise ConfigError(f"{several}; keep one of them")
            warn(f"{several}; the last counts (a list is written {key}=a,b)", once=True)
    return {key: found[-1] for key, found in values.items()}


Given = Sequence[str] | Mapping[str, Any]  # settings as a person gives them: `["a=1"]`, or names and values


def values_of(given: Given) -> dict[str, Any]:
    """Settings as a dict of raw values, from `key=value` pairs (`parse_assignments`) or from a mapping."""
    return dict(given) if isinstance(given, Mapping) else dict(parse_assignments(given))


def build(
    config_class: type[ConfigType],
    values: Mapping[str, Any],
    *,
    name: str,
    given: Collection[str] = (),
    elsewhere: Mapping[str, str] = types.MappingProxyType({}),
) -> ConfigType:
    """The config from a mapping of raw values. `ConfigError` lists unknown keys, wrong types and failed checks together.

    A config class may have `problems(self) -> list[str]` for what concerns several settings, each beginning with one of them;
    `build` adds these lines. given: names that a person chose: one that does nothing beside the others is a mistake too, and
    `elsewhere` says where it would count.
    """
    hints = _hints(config_class)
    mistakes, kept = [], {}
    values, given = in_todays_words(config_class, values), in_todays_words(config_class, dict.fromkeys(given))
    for key, raw in values.items():
        if key not in hints:
            mistakes.append(f"'{key}' is not a setting of {name}{suggest(key, list(hints))}")
            continue
        try:
            kept[key] = convert(raw, hints[key])
        except (ValueError, TypeError):
            mistakes.append(f"{name}.{key} is {_describe(hints[key])}, not {raw!r}")
    try:
        config = config_class(**kept)
    except ConfigError as error:
        raise ConfigError("\n".join([*mistakes, str(error)])) from error
    mistakes += mistakes_of(config, name)
    mistakes += _without_effect(config, given, elsewhere, name)
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return config


def in_todays_words(config_class: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Raw values under the names that settings and their values have now (`formerly` of `setting`)."""
    fields = {field.name: field.metadata.get("formerly", {}) for field in dataclasses.fields(config_class)}
    names = {old: name for name, formerly in fields.items() for old, now in formerly.items() if now == name}
    found: dict[str, Any] = {}
    for key, raw in values.items():
        name = names.get(key, key)
        if name != key and name in values:
            raise ConfigError(f"'{key}' is called {name} now, and both are given; keep {name}")
        found[name] = fields.get(name, {}).get(raw, raw) if isinstance(raw, str) else raw
    return found


def load(
    config_class: type[ConfigType],
    *,
    name: str,
    file: str | os.PathLike[str] | None = None,
    assignments: Sequence[str] = (),
) -> ConfigType:
    """The config of method `name`: defaults, then a TOML file, then `key=value` pairs (which win)."""
    values: dict[str, Any] = dict(read_toml(file)) if file is not None else {}
    values |= parse_assignments(assignments)
    return build(config_class, values, name=name, given=values)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")  # a TOML basic string is a JSON string
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return repr(value)


def table_to_toml(values: Mapping[str, Any]) -> str:
    """Settings as TOML text, which `read_toml` reads back; the name of one in a table has a dot. None is the text "none"."""
    return "".join(f"{name} = {_toml_value('none' if value is None else value)}\n" for name, value in values.items())


def to_toml(config: Any) -> str:
    """A config as TOML text with every setting, defaults too; `build` reads it back to an equal config.

    A setting that is None is written as the text "none", which `build` reads as None.
    """
    lines = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if help_line := field.metadata.get("help"):
            lines.append(f"# {help_line}")
        lines.append(f"{field.name} = {_toml_value('none' if value is None else value)}")
    return "\n".join(lines) + "\n"


Described = tuple[str, str, Any, str]  # a setting: name, what fits, default, help


def describe(config_class: type[Any]) -> list[Described]:
    """Rows (name, what fits, default, help) of a config class, for help texts."""
    hints = _hints(config_class)
    return [
        (field.name, _what_fits(field, hints[field.name]), field.default, _help_of(field, hints))
        for field in dataclasses.fields(config_class)
    ]


def described_in_groups(config_class: type[Any]) -> dict[str, list[Described]]:
    """The rows of `describe` under the headings of their settings; of a class without one, under what the class is."""
    rows = {row[0]: row for row in describe(config_class)}
    groups: dict[str, list[Described]] = {}
    for declaring in reversed([found for found in config_class.__mro__ if dataclasses.is_dataclass(found)]):
        heading = (declaring.__doc__ or "").partition(".")[0]
        own = {field.name: field for field in dataclasses.fields(declaring)}
        for name in inspect.get_annotations(declaring):
            heading = own[name].metadata.get("heading") or heading
            if name in rows:
                groups.setdefault(heading, []).append(rows.pop(name))
    return groups


def _what_fits(field: "dataclasses.Field[Any]", hint: Any) -> str:
    bounds = str(field.metadata.get("bounds", ANY))
    return f"{_describe(hint)}, {bounds}" if bounds else _describe(hint)


def _help_of(field: "dataclasses.Field[Any]", known: Collection[str]) -> str:
    """The line of a setting, with what it counts with where that is a setting of the same method."""
    counts = field.metadata.get("counts", "")
    concerns = any(name in known for name, _, _ in _CONDITION.findall(counts))
    return field.metadata.get("help", "") + (f" [counts with {counts}]" if concerns else "")
