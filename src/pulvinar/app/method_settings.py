"""Settings as a person gives them, of a method and of the pretrained run that it starts from: a file, key=value, a preset."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pulvinar.app import preset as presets
from pulvinar.app import registry
from pulvinar.app.preset import Preset
from pulvinar.core.config import Given, build, idle_settings, in_todays_words, read_toml, values_of
from pulvinar.core.errors import ConfigError
from pulvinar.learning.method import Method
from pulvinar.learning.runs import FORMERLY, RunFolder

PRETRAINED_PREFIX = "pretrained."
TABLES = ("pretrained", FORMERLY)

SHARED_WITH_PRETRAINED = (
    "seed",
    "device",
    "feature",
    "centre",
    "scaling",
    "drop_bad_voxels",
    "precision",
    "micro_batches",
    "roi",
)


@dataclasses.dataclass
class Part:
    """A method whose settings were given: all of its raw values, those that a person chose, and where else one would count."""

    method: Method
    values: dict[str, Any]
    given: dict[str, Any]
    elsewhere: dict[str, str] = dataclasses.field(default_factory=dict)


def configs(method: str, file: str | None, assignments: Given, *, refuse_idle: bool = True) -> tuple[Any, Any]:
    """The method's config and, if it starts from a pretrained run, that one's. All mistakes of both at once.

    Settings of the pretrained run stand in a TOML table [pretrained], or are given as pretrained.key=value; without a value of
    its own, its seed, device, feature, centre, scaling, drop_bad_voxels, precision, micro_batches and roi are the method's.
    What is given wins over a `preset`. refuse_idle: a setting that does nothing beside the others is a mistake too.
    """
    found = registry.method(method)
    given, given_inner, preset = given_settings(found, file, assignments)
    values, inner = given, given_inner
    if preset is not None:
        values, inner = preset.settings | given, preset.pretrained | given_inner
    mistakes, built = [], {}
    if given_inner and found.pretrained is None:
        mistakes.append(f"{method} starts from no pretrained run; these are not settings of it: {', '.join(given_inner)}")
    own = Part(found, values, given=given)
    parts = [own]
    if found.pretrained is not None:
        other = registry.method(found.pretrained)
        shared: dict[str, Any] = {
            key: values[key] for key in SHARED_WITH_PRETRAINED if key in values and is_setting(other, key)
        }
        parts.append(Part(other, {**shared, **inner}, given=given_inner))
        own.elsewhere = {
            field.name: f"; that of the {other.name} it reads is {PRETRAINED_PREFIX}{field.name}"
            for field in dataclasses.fields(other.config)
        }
    for part in parts:
        chosen = part.given if refuse_idle else ()
        try:
            name = part.method.name
            built[name] = build(part.method.config, part.values, name=name, given=chosen, elsewhere=part.elsewhere)
        except ConfigError as error:
            mistakes += str(error).splitlines()
    if mistakes:
        raise ConfigError("\n".join(dict.fromkeys(mistakes)))
    return built[method], built.get(found.pretrained or "")


def given_settings(
    method: Method, file: str | None, assignments: Given
) -> tuple[dict[str, Any], dict[str, Any], Preset | None]:
    """What a person set, as raw values of the method and of the run it reads, and the preset that they named."""
    values: dict[str, Any] = dict(read_toml(file)) if file else {}
    table = _table_of(values)
    inner = values.pop(table, {})
    if not isinstance(inner, dict):
        raise ConfigError(f"{file}: {table} is a table of settings: [pretrained]")
    for key, value in values_of(assignments).items():
        prefix, dot, name = key.partition(".")
        if dot and prefix in TABLES:
            inner[name] = value
        else:
            values[key] = value
    preset = values.pop(presets.KEY, None)
    values = in_todays_words(method.config, values)
    return values, inner, None if preset is None else presets.load(str(preset), method.name)


def _table_of(values: Mapping[str, Any]) -> str:
    """Under which name a file's settings of the pretrained run stand in it; `pretrained` where there are none."""
    return next((name for name in TABLES if isinstance(values.get(name), dict)), "pretrained")


def settings_of_pretrained(file: str | None, assignments: Given) -> list[str]:
    """How the settings of a pretrained run were given, such as ["pretrained.epochs", "[pretrained]"]."""
    found = [name for name in values_of(assignments) if name.partition(".")[0] in TABLES and "." in name]
    values = read_toml(file) if file else {}
    return found + ([f"[{_table_of(values)}]"] if _table_of(values) in values else [])


def idle(method: str, config: Any, pretrained_config: Any) -> dict[str, str]:
    """Settings that do nothing beside the others -> why; those of the pretrained run prefixed: all, where none is trained."""
    found = idle_settings(config)
    if pretrained_config is not None and not registry.method(method).reads_pretrained(config):
        return found | {PRETRAINED_PREFIX + name: "pretrain=false trains no pretrained run" for name in vars(pretrained_config)}
    inner = {} if pretrained_config is None else idle_settings(pretrained_config)
    return found | {PRETRAINED_PREFIX + name: why for name, why in inner.items()}


def is_setting(method: Method, name: str) -> bool:
    """Whether a method has a setting of this name."""
    return name in {field.name for field in dataclasses.fields(method.config)}


def refuse_useless_pretrained(
    method: Method, config: Any, pretrained: str | None, config_file: str | None, assignments: Given
) -> None:
    """Refuse what would have no effect: a pretrained run or settings of one, where none is read or trained."""
    settings = settings_of_pretrained(config_file, assignments)
    if pretrained is not None and method.pretrained is None:
        hint = f"; its network is a setting: network={pretrained}" if is_setting(method, "network") else ""
        raise ConfigError(f"pretrained: {method.name} starts from no pretrained run{hint}")
    if not method.reads_pretrained(config) and (pretrained is not None or settings):
        raise ConfigError(
            f"pretrain=false trains no pretrained run and starts from none; leave out {', '.join(settings) or 'pretrained'}"
        )
    if pretrained is not None and settings:
        raise ConfigError(f"pretrained {pretrained} has its settings already; leave out {', '.join(settings)}")
    if pretrained is not None:
        _refuse_settings_of_pretrained(method, config, pretrained, config_file, assignments)


def _refuse_settings_of_pretrained(
    method: Method, config: Any, pretrained: str, config_file: str | None, assignments: Given
) -> None:
    """Settings that the pretrained run was trained with (`of_pretrained` of a method), given otherwise than it has them."""
    names = method.of_pretrained
    values, _, preset = given_settings(method, config_file, assignments)
    given = set(values) | set(preset.settings if preset else ())
    recorded = RunFolder.reopen(pretrained).settings() if names else {}
    is_record = {field.name for field in dataclasses.fields(config)} <= given
    wrong = [
        f"{method.name}.{name}={getattr(config, name)} does nothing here: {pretrained} was trained with {name}={recorded[name]}"
        for name in names
        if name in given and name in recorded and getattr(config, name) != recorded[name]
    ]
    if wrong and not (is_record and all(getattr(config, name) == getattr(type(config), name) for name in names)):
        raise ConfigError("\n".join(wrong))
