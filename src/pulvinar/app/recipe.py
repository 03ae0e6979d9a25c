"""Recipes: the tables and figures of the papers, as grids of settings; a file for each paper in recipes/.

What stands at the head of a file holds for every recipe in it: paper, wing (whose published.csv has the numbers), kind of
data, data (the paper's sets), needs (what has to be had), differs (from the paper), presets (data set -> preset), size (what
memory and hours are estimated for), set, and [small], which is put over a recipe at scale small (`of`: method -> what is set
for its cells alone). A [[recipe]] has name, title, methods and, as in a sweep's grid, target, cell, grid and set; after: what
is done with every run; figures: pictures of every run that stand on the page, without suffix; published: tables (default: its
name); small, which is put over [small].
"""

import copy
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pulvinar.core.config import read_toml, suggest
from pulvinar.core.errors import NotFoundError
from pulvinar.scores.published import published

FOLDER = Path(__file__).with_name("recipes")
Scale = Literal["full", "small"]
EVERY_SUBJECT = "@subjects"  # in a recipe: the names of all subjects of the data


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A table or figure of a paper: what is run, on what, and what was published."""

    name: str
    title: str
    paper: str
    wing: str
    kind: str
    data: tuple[str, ...]
    methods: tuple[str, ...]
    needs: tuple[str, ...]
    tables: tuple[str, ...]
    after: tuple[str, ...]
    figures: tuple[str, ...]
    presets: dict[str, str]
    size: dict[str, Any]
    content: dict[str, Any]
    small: dict[str, Any]
    common: dict[str, Any]

    def published(self) -> list[dict[str, Any]]:
        """The printed numbers."""
        return published(self.wing, self.tables)

    def differs(self, scale: Scale) -> list[str]:
        """What is known to differ from the paper, in words."""
        parts = [self.common, self.content, *([self.common.get("small", {}), self.small] if scale == "small" else [])]
        return [text for part in parts for text in part.get("differs", ())]

    def layout(self) -> tuple[str, list[str]]:
        """Layout and settings of the data that are made where none are given (scale small)."""
        small = self.common["small"]
        return small["layout"], list(small.get("layout_set", ()))

    def cells(self, scale: Scale, dataset: str) -> list[dict[str, Any]]:
        """The cells as a sweep takes them: all settings in the cell, in the order paper, recipe, cell, scale, method."""
        found = self._part("cell", scale) or [{}]
        return [self._cell(cell, scale, dataset) for cell in found]

    @staticmethod
    def assignments(cell: dict[str, Any]) -> list[str]:
        """A cell's settings as key=value, without what only the data can say."""
        return [
            f"{key}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
            for key, value in cell.items()
            if key not in ("method", "name") and value != EVERY_SUBJECT
        ]

    def grid(self, scale: Scale) -> dict[str, list[Any]]:
        """Axes that every cell is crossed with."""
        return copy.deepcopy(self._part("grid", scale) or {})

    def targets(self, scale: Scale) -> list[str]:
        """New subjects, one after the other; empty: the data's own."""
        return list(self._part("target", scale) or ())

    def _part(self, key: str, scale: Scale) -> Any:
        if scale == "small" and key in self.small:
            return self.small[key]
        return self.content.get(key)

    def _cell(self, cell: dict[str, Any], scale: Scale, dataset: str) -> dict[str, Any]:
        method = cell.get("method", self.methods[0])
        preset = self.presets.get(dataset) or next(iter(self.presets.values()), None)
        layers = [{"preset": preset} if preset else {}, self.common.get("set", {}), self.content.get("set", {}), cell]
        if scale == "small":
            shared = {} if "set" in self.small else self.common["small"].get("set", {})
            layers += [shared, self.common["small"].get("of", {}).get(method, {}), self.small.get("set", {})]
            layers += [self.small.get("of", {}).get(method, {})]
        made: dict[str, Any] = {}
        for layer in layers:
            made |= layer
        if made.get("preset") == "none":
            del made["preset"]
        return {"name": method, "method": method} | {key: value for key, value in made.items() if key not in self.grid(scale)}


def recipes() -> dict[str, Recipe]:
    """Name -> recipe, paper by paper."""
    return {recipe.name: recipe for path in sorted(FOLDER.glob("*.toml")) for recipe in _read(path)}


def recipe(name: str) -> Recipe:
    """A recipe by its name; `NotFoundError` suggests the nearest one."""
    known = recipes()
    if name not in known:
        raise NotFoundError(f"'{name}' is not a recipe{suggest(name, list(known))}")
    return known[name]


@functools.cache
def _read(path: Path) -> tuple[Recipe, ...]:
    common = read_toml(path)
    return tuple(_recipe(content, common) for content in common.pop("recipe"))


def _recipe(content: dict[str, Any], common: dict[str, Any]) -> Recipe:
    return Recipe(
        name=content["name"],
        title=content["title"],
        paper=common["paper"],
        wing=common["wing"],
        kind=common["kind"],
        data=tuple(common["data"]),
        methods=tuple(content["methods"]),
        needs=(*common.get("needs", ()), *([content["labelled"]] if "labelled" in content else ())),
        tables=tuple(content.get("published", [content["name"]])),
        after=tuple(content.get("after", ())),
        figures=tuple(content.get("figures", ())),
        presets=content.get("presets", common.get("presets", {})),
        size=common.get("size", {}),
        content=content,
        small=content.get("small", {}),
        common=common,
    )
