"""Selectors of voxels; the folder is the registry: a file is a selector, `SELECTOR`, listed without importing it."""

import importlib
import pkgutil
from pathlib import Path

from pulvinar.core.config import suggest
from pulvinar.core.errors import NotFoundError
from pulvinar.selection.selector import Selector


def files() -> dict[str, Path]:
    """Name -> file of every selector."""
    found = pkgutil.iter_modules(__path__)
    return {part.name: Path(part.module_finder.path) / f"{part.name}.py" for part in sorted(found, key=lambda part: part.name)}


def selector(name: str) -> Selector:
    """A selector by its name; `NotFoundError` suggests the nearest one."""
    if name not in files():
        raise NotFoundError(f"'{name}' is not one of the selectors{suggest(name, list(files()))}")
    return importlib.import_module(f"{__name__}.{name}").SELECTOR


def every() -> list[Selector]:
    """All of them, in the order of tables."""
    return sorted(map(selector, files()), key=lambda one: (one.place is None, one.place or 0, one.name))
