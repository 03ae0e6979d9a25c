"""The folders are the registry: methods are the files of `methods/` in every wing, selectors those of `selection/selectors/`,
data sets the files of `datasets/`, or packages. They are listed without importing them.
"""

import ast
import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pulvinar.core.config import suggest
from pulvinar.core.errors import NotFoundError
from pulvinar.data.dataset import Dataset
from pulvinar.selection import selectors

if TYPE_CHECKING:  # a list of names needs no torch
    from pulvinar.learning.method import Method

ROOT = Path(__file__).resolve().parents[1]
FILES = {"methods": ("*/methods/*.py",), "datasets": ("datasets/*.py", "datasets/*/__init__.py")}  # a method is in its wing
KINDS = ("methods", "selectors", "datasets")


def names(kind: str) -> dict[str, str]:
    """Name -> first line of the docstring, of every method, selector or dataset."""
    found = {}
    for name, path in _files(kind).items():
        docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = docstring.partition("\n")[0]
    return found


def list_methods() -> dict[str, str]:
    """Name -> one line, of every method that can be fitted."""
    return names("methods")


def list_datasets() -> dict[str, str]:
    """Name -> one line, of every data set that can be opened as `name:path`."""
    return names("datasets")


def _files(kind: str) -> dict[str, Path]:
    """Name -> the file that opens it: a module's own, a package's `__init__.py`."""
    if kind == "selectors":
        return selectors.files()
    found = [path for pattern in FILES[kind] for path in ROOT.glob(pattern)]
    named = {path.parent.name if path.stem == "__init__" else path.stem: path for path in found}
    return {name: path for name, path in sorted(named.items()) if name not in FILES}


def method(name: str) -> "Method":
    """A method by its name, or the one that a selector is; `NotFoundError` suggests the nearest one."""
    if name in selectors.files():
        from pulvinar.decoding.selector_runs import method_of

        return method_of(name)
    return _module("methods", name).METHOD


def dataset(name: str) -> Dataset:
    """A dataset by its name; `NotFoundError` suggests the nearest one."""
    return _module("datasets", name).DATASET


def _module(kind: str, name: str) -> ModuleType:
    there = _files(kind)
    if name not in there:
        known = [*there, *(selectors.files() if kind == "methods" else ())]
        raise NotFoundError(f"'{name}' is not one of the {kind}{suggest(name, known)}")
    parts = there[name].relative_to(ROOT.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))
