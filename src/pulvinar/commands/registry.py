"""The folder is the registry: methods and datasets are the files of their folders, listed without importing them."""

import ast
import importlib
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from pulvinar.config import suggest
from pulvinar.data.dataset import Dataset
from pulvinar.errors import NotFoundError

if TYPE_CHECKING:  # a list of names needs no torch
    from pulvinar.training.method import Method

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("methods", "datasets")


def names(kind: str) -> dict[str, str]:
    """Name -> first line of the docstring, of every method or dataset."""
    found = {}
    for path in sorted((ROOT / kind).glob("*.py")):
        if path.stem != "__init__":
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            found[path.stem] = docstring.partition("\n")[0]
    return found


def method(name: str) -> "Method":
    """A method by its name; `NotFoundError` suggests the nearest one."""
    return _module("methods", name).METHOD


def dataset(name: str) -> Dataset:
    """A dataset by its name; `NotFoundError` suggests the nearest one."""
    return _module("datasets", name).DATASET


def _module(kind: str, name: str) -> ModuleType:
    there = names(kind)
    if name not in there:
        raise NotFoundError(f"'{name}' is not one of the {kind}{suggest(name, list(there))}")
    return importlib.import_module(f"pulvinar.{kind}.{name}")
