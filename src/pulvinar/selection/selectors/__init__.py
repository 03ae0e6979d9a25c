"""Selectors of voxels; the folder is the registry: a file is a selector, `SELECTOR`, listed without importing it."""

import importlib
from pathlib import Path

from pulvinar.core.config import suggest
from pulvinar.core.errors import NotFoundError
from pulvinar.selection.selector import Selector

__all__ = ["every", "files", "selector"]


def files() -> dict[str, Path]:
    """Name -> file of every selector."""
    found = {path.stem: path for folder in __path__ for path in Path(folder).glob("*.py") if path.stem != "__init__"}
    return dict(sorted(found.items()))


def selector(name: str) -> Selector:
    """A selector by its name; `NotFoundError` suggests the nearest one.

    >>> import pulvinar
    >>> pulvinar.selectors.selector("anova").label
    'ANOVA'
    """
    if name not in files():
        raise NotFoundError(f"'{name}' is not one of the selectors{suggest(name, list(files()))}")
    return importlib.import_module(f"{__name__}.{name}").SELECTOR


def every() -> list[Selector]:
    """All of them, in the order of tables.

    >>> import pulvinar
    >>> [one.name for one in pulvinar.selectors.every() if one.oracle]
    ['ceiling_oracle', 'true_voxels', 'true_best']
    """
    return sorted(map(selector, files()), key=lambda one: (one.place is None, one.place or 0, one.name))
