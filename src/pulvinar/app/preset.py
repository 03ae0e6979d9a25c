"""Presets: settings under a name, such as those of a paper's table, for `fit … --set preset=NAME`; a file each in presets/.

    about = "one line"
    source = "which paper, and where in it"
    methods = ["gated_ssl", "dense_ssl"]     # what it is for
    [set]                                    # settings of all of them
    [of.gated_ssl]                           # of one of them alone
    [pretrained]                               # of the run that the method reads

What a person sets beside a preset wins over it. Values of a preset that do nothing beside those are no mistake.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pulvinar.core.config import read_toml, suggest
from pulvinar.core.errors import ConfigError, NotFoundError

FOLDER = Path(__file__).with_name("presets")
KEY = "preset"


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings of a method under a name, and of the pretrained run that it reads."""

    name: str
    about: str
    source: str
    settings: dict[str, Any]
    pretrained: dict[str, Any]


def names() -> dict[str, str]:
    """Name -> what it is, of every preset."""
    return {path.stem: _read(path)["about"] for path in sorted(FOLDER.glob("*.toml"))}


def of_method(method: str) -> dict[str, str]:
    """Name -> what it is, of the presets for a method."""
    found = {path.stem: _read(path) for path in sorted(FOLDER.glob("*.toml"))}
    return {name: content["about"] for name, content in found.items() if method in content["methods"]}


def load(name: str, method: str) -> Preset:
    """The preset for a method; `NotFoundError` for an unknown name, `ConfigError` where it is for other methods."""
    if name not in names():
        raise NotFoundError(f"preset: there is no '{name}'{suggest(name, list(of_method(method)) or list(names()))}")
    content = _read(FOLDER / f"{name}.toml")
    if method not in content["methods"]:
        raise ConfigError(f"preset: '{name}' is for {', '.join(content['methods'])}, not for {method}")
    settings = content.get("set", {}) | content.get("of", {}).get(method, {})
    return Preset(
        name=name,
        about=content["about"],
        source=content["source"],
        settings=settings,
        pretrained=dict(content.get("pretrained", {})),
    )


@cache
def _read(path: Path) -> dict[str, Any]:
    return read_toml(path)
