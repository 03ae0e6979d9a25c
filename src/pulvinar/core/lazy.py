"""Names of a module that are imported when they are asked for, so that importing the module itself costs nothing."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy(module: str, places: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a module. places: name -> `module:name`, or a module that is the value itself."""

    def get(name: str) -> Any:
        if name not in places:
            from pulvinar.core.config import suggest

            raise AttributeError(f"module {module!r} has no attribute {name!r}{suggest(name, list(places))}")
        place, _, inside = places[name].partition(":")
        found = importlib.import_module(place)
        return getattr(found, inside) if inside else found

    return get, lambda: sorted(places)
