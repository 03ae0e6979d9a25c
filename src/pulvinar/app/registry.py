"""The folders are the registry: methods are in the files of `methods/` in every wing, selectors are those of
`selection/selectors/`, data sets the files of `datasets/`, or packages. They are listed without importing them.

A file of `methods/` has one METHOD, named and described as the file (its name, the first line of its docstring), or several
METHODS, each named and described where it is made (`name`, `summary`).
"""

import ast
import functools
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
    """Name -> what it is in a line, of every method, selector or dataset."""
    return {name: line for name, (_, line) in _entries(kind).items()}


def list_methods() -> dict[str, str]:
    """Name -> one line, of every method that can be fitted."""
    return names("methods")


def list_datasets() -> dict[str, str]:
    """Name -> one line, of every data set that can be opened as `name:path`."""
    return names("datasets")


def method(name: str) -> "Method":
    """A method by its name, or the one that a selector is; `NotFoundError` suggests the nearest one."""
    if name in selectors.files():
        from pulvinar.decoding.selector_runs import method_of

        return method_of(name)
    module = _module("methods", name)
    return next((found for found in getattr(module, "METHODS", ()) if found.name == name), None) or module.METHOD


def dataset(name: str) -> Dataset:
    """A dataset by its name; `NotFoundError` suggests the nearest one."""
    return _module("datasets", name).DATASET


def _module(kind: str, name: str) -> ModuleType:
    entries = _entries(kind)
    if name not in entries:
        known = [*entries, *(selectors.files() if kind == "methods" else ())]
        raise NotFoundError(f"'{name}' is not one of the {kind}{suggest(name, known)}")
    parts = entries[name][0].relative_to(ROOT.parent).with_suffix("").parts
    return importlib.import_module(".".join(parts[:-1] if parts[-1] == "__init__" else parts))


def _entries(kind: str) -> dict[str, tuple[Path, str]]:
    """Name -> file that opens it (a module's own, a package's `__init__.py`) and line, by name."""
    if kind == "selectors":
        paths = list(selectors.files().values())
    else:
        paths = [path for pattern in FILES[kind] for path in ROOT.glob(pattern)]
    found = {name: (path, line) for path in paths for name, line in _entries_of(path)}
    return {name: entry for name, entry in sorted(found.items()) if name not in FILES}


@functools.cache
def _entries_of(path: Path) -> list[tuple[str, str]]:
    """Name and line of all that a file has."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    several = [node.value for node in tree.body if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHODS"]
    if not several:
        name = path.parent.name if path.stem == "__init__" else path.stem
        return [(name, (ast.get_docstring(tree) or "").partition("\n")[0])]
    written = [{given.arg: given.value for given in getattr(made, "keywords", ())} for made in getattr(several[0], "elts", ())]
    return [(ast.literal_eval(made["name"]), ast.literal_eval(made["summary"])) for made in written]
