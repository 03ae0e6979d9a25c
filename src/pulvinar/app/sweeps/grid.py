"""The file of `pulvinar sweep`: a grid of settings, every cell of which is a run folder.

method = "troi"
data = "world/"            # or a list: one more axis
target = "all"             # or a subject, or a list of them: each in turn is the new one (default: the data's own)
out = "sweeps/budgets"
controls = false           # score the selection only
[set]                      # the same in every cell
epochs = 40
[grid]                     # every combination
n_voxels = [100, 200, 400]
seed = [0, 1, 2]
[[cell]]                   # or named cells instead of, or times, the grid
name = "without low-pass"
low_pass = "none"          # a cell may also have its own `method`

Settings of the pretrained run: a table [set.pretrained], or a quoted axis "pretrained.epochs" = [20, 40]; or a finished run to
start from, `pretrained = "RUN"` under [set], in a cell or as an axis. Relative paths are relative to the working directory, not
to the grid file. A table [slurm] has what `--on slurm` asks the cluster for (engines/slurm.py).
"""

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulvinar.app import registry
from pulvinar.core.config import suggest
from pulvinar.core.errors import ConfigError
from pulvinar.learning.runs import FORMERLY

KEYS = ("method", "data", "target", "out", "controls", "set", "grid", "cell", "slurm")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep: its folder's name, its method and data, and what differs from the defaults."""

    name: str
    method: str
    data: str
    settings: dict[str, Any]
    target: str | None = None

    @property
    def pretrained(self) -> str | None:
        """The finished run to start from, if one is named."""
        given = self.settings.get("pretrained")
        if given is None:
            return None
        if not isinstance(given, str):
            raise ConfigError(f"pretrained: the folder of a finished run is needed, or a table of settings; {given!r} came")
        return given

    @property
    def own_settings(self) -> dict[str, Any]:
        """The settings, without the finished run to start from."""
        a_run = self.pretrained is not None
        return {key: value for key, value in self.settings.items() if key != "pretrained" or not a_run}

    @property
    def assignments(self) -> list[str]:
        """The settings as key=value."""
        return [f"{key}={value}" for key, value in self.own_settings.items()]


def cells(grid: dict[str, Any]) -> list[Cell]:
    """Every cell of a grid; `ConfigError` lists what is wrong with the grid."""
    mistakes = [f"'{key}' is not part of a grid{suggest(key, KEYS)}" for key in grid if key not in KEYS]
    mistakes += [f"'{key}' is missing" for key in ("data", "out") if key not in grid]
    mistakes += [
        f"{key}: text is needed, {grid[key]!r} came" for key in ("method", "out") if not isinstance(grid.get(key, ""), str)
    ]
    given = grid.get("data", "")
    sources: list[Any] = given if isinstance(given, list) else [given]
    if not sources or not all(isinstance(source, str) for source in sources):
        mistakes.append(f"data: a path or a list of paths is needed, {given!r} came")
    if not isinstance(grid.get("controls", True), bool):
        mistakes.append(f"controls: true or false is needed, {grid['controls']!r} came")
    targets = _targets(grid, mistakes)
    axes, shared, own = grid.get("grid", {}), grid.get("set", {}), grid.get("cell", [])
    tables = {"grid": axes, "set": shared, "slurm": grid.get("slurm", {})}
    mistakes += [f"[{name}]: a table is needed" for name, part in tables.items() if not isinstance(part, dict)]
    if not isinstance(own, list) or not all(isinstance(cell, dict) for cell in own):
        mistakes.append("[[cell]]: tables are needed, with two brackets")
    elif "method" not in grid and not (own and all("method" in cell for cell in own)):
        mistakes.append("'method' is missing: one for all, or one in every [[cell]]")
    if isinstance(axes, dict):
        axes = _flat(axes)
        mistakes += [
            f"grid.{key}: a list of values is needed" for key, part in axes.items() if not isinstance(part, list) or not part
        ]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    made = [
        _cell(
            {"method": grid.get("method"), **cell},
            source,
            shared,
            dict(zip(axes, values, strict=True)),
            target,
            several=(len(sources) > 1, len(targets) > 1),
        )
        for cell in own or [{}]
        for source, target, values in itertools.product(sources, targets, itertools.product(*axes.values()))
    ]
    twice = [name for name, count in Counter(cell.name for cell in made).items() if count > 1]
    if twice:
        raise ConfigError(f"cells of the same name: {', '.join(twice)}; give each [[cell]] a name of its own")
    return made


def _targets(grid: dict[str, Any], mistakes: list[str]) -> list[str | None]:
    """The new subjects, None for the data's own."""
    given = grid.get("target")
    targets: list[Any] = given if isinstance(given, list) else [given]
    if not targets or not all(target is None or isinstance(target, str) for target in targets):
        mistakes.append(f"target: a subject, a list of them, or 'all' is needed, {given!r} came")
    return targets


def _cell(
    own: dict[str, Any],
    source: str,
    shared: dict[str, Any],
    axes: dict[str, Any],
    target: str | None,
    *,
    several: tuple[bool, bool],
) -> Cell:
    settings = _flat({key: value for key, value in own.items() if key not in ("name", "method")})
    words = [str(own["name"])] if "name" in own else [f"{key}={value}" for key, value in settings.items()]
    words += [Path(source).name] if several[0] else []
    words += [str(target)] if several[1] else []
    words += [f"{key}={value}" for key, value in axes.items()]
    name = ",".join(words).replace("/", "_").replace(" ", "_").lstrip(".") or "cell"
    all_settings = _in_todays_words(str(own["method"]), {**_flat(shared), **settings, **axes})
    return Cell(name=name, method=str(own["method"]), data=source, settings=all_settings, target=target)


def _in_todays_words(method: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of the pretrained run, or that run, by today's name, also where an older one is given."""
    if registry.method(method).pretrained is None:
        return settings
    words = {key: key.partition(".") for key in settings}
    return {f"pretrained{dot}{name}" if table == FORMERLY else key: settings[key] for key, (table, dot, name) in words.items()}


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """{"pretrained": {"epochs": 3}} as {"pretrained.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in _flat(value).items()})
        else:
            flat[key] = value
    return flat
