"""`pulvinar sweep`: a grid of settings; every cell is a run folder, finished ones are skipped, one table over all.

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

Settings of the backbone: a table [set.backbone], or a quoted axis "backbone.epochs" = [20, 40]; or a finished run to build on,
`backbone = "RUN"` under [set], in a cell or as an axis. Relative paths are relative to the working directory, not to the grid
file.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulvinar.app import fit as fitting
from pulvinar.app import registry
from pulvinar.app.data import absolute, open_data
from pulvinar.app.stability import stability_rows
from pulvinar.core.config import read_toml, suggest
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.progress import log
from pulvinar.core.storage import fingerprint, read_json, write_json, write_text
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.table import csv_text

KEYS = ("method", "data", "target", "out", "controls", "set", "grid", "cell")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep: its folder's name, its method and data, and what differs from the defaults."""

    name: str
    method: str
    data: str
    settings: dict[str, Any]
    target: str | None = None

    @property
    def backbone(self) -> str | None:
        """A finished run to build on, if one is named; none where `backbone` is a setting of the method."""
        given = self.settings.get("backbone")
        if given is None or fitting.is_setting(registry.method(self.method), "backbone"):
            return None
        if not isinstance(given, str):
            raise ConfigError(f"backbone: the folder of a finished run is needed, or a table of settings; {given!r} came")
        return given

    @property
    def assignments(self) -> list[str]:
        """The settings as key=value."""
        a_run = self.backbone is not None
        return [f"{key}={value}" for key, value in self.settings.items() if key != "backbone" or not a_run]


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
    mistakes += [
        f"[{name}]: a table is needed" for name, part in (("grid", axes), ("set", shared)) if not isinstance(part, dict)
    ]
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
    all_settings = {**_flat(shared), **settings, **axes}
    return Cell(name=name, method=str(own["method"]), data=source, settings=all_settings, target=target)


def _flat(table: dict[str, Any]) -> dict[str, Any]:
    """{"backbone": {"epochs": 3}} as {"backbone.epochs": 3}."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in _flat(value).items()})
        else:
            flat[key] = value
    return flat


def sweep(grid_file: str) -> dict[str, Any]:
    """Fit and evaluate every cell, one after the other; the table is written after each."""
    grid = read_toml(grid_file)
    todo = _counting(cells(_with_all_targets(grid)))
    out, rows = Path(grid["out"]), []
    _check(out, todo)
    for number, cell in enumerate(todo, start=1):
        folder = out / cell.name
        log(f"cell {number} of {len(todo)}: {cell.name}")
        if not (folder / "evaluation.json").is_file():
            _run(out, cell, controls=grid.get("controls", True))
        for row in read_json(folder / "evaluation.json")["rows"]:
            subject = {"target": cell.target} if cell.target else {}
            rows.append({"cell": cell.name, "method": cell.method, "data": cell.data, **subject, **cell.settings, **row})
        _write_table(out, rows)
    stable = stability_rows([(cell.data, cell.target, cell.settings, out / cell.name) for cell in todo])
    if stable:
        write_text(out / "stability.csv", csv_text(stable))
    return {"table": str(out / "table.csv"), "rows": rows, "stability": stable}


def _counting(todo: list[Cell]) -> list[Cell]:
    """The cells without the settings that do nothing in them; `ConfigError` for one that does nothing in any of its cells."""
    vain: list[dict[str, str]] = []
    for cell in todo:
        try:
            vain.append(fitting.idle(cell.method, *fitting.configs(cell.method, None, cell.assignments, refuse_idle=False)))
        except PulvinarError:  # said with all others' mistakes by the check
            return todo
    names = dict.fromkeys(name for cell in todo for name in cell.settings)
    mistakes = []
    for name in names:
        why = [idle.get(name) for cell, idle in zip(todo, vain, strict=True) if name in cell.settings]
        if all(why):
            mistakes.append(f"'{name}' does nothing in any cell: {why[0]}")
        elif any(why):
            log(f"'{name}' counts in {why.count(None)} of {len(why)} cells; in the others it is left out")
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    return [
        replace(cell, settings={name: value for name, value in cell.settings.items() if name not in idle})
        for cell, idle in zip(todo, vain, strict=True)
    ]


def _with_all_targets(grid: dict[str, Any]) -> dict[str, Any]:
    """target = "all" as the list of the subjects, which all the data must have."""
    if grid.get("target") != "all" or not isinstance(grid.get("data", ""), str | list):
        return grid
    given = grid.get("data", [])
    sources = [given] if isinstance(given, str) else [source for source in given if isinstance(source, str)]
    lists = [list(open_data("experiment", source).subjects) for source in sources]
    if any(names != lists[0] for names in lists):
        raise ConfigError(f"target: the data have other subjects each ({'; '.join(', '.join(names) for names in lists)})")
    return {**grid, "target": lists[0]} if lists else grid


def _check(out: Path, todo: list[Cell]) -> None:
    """Mistakes in any cell, all at once, before the first one starts."""
    methods = {name: registry.method(name) for name in dict.fromkeys(cell.method for cell in todo)}
    mistakes: dict[str, str] = {}
    for name, method in methods.items():
        if method.evaluate is None:
            raise ConfigError(f"method: a run of {name} has no evaluation of its own, so there is no table to make")
    sources = dict.fromkeys((methods[cell.method].data, cell.data, cell.target) for cell in todo)
    opened = {(kind, source, target): open_data(kind, source, target=target) for kind, source, target in sources}
    for cell in todo:
        method = methods[cell.method]
        try:
            config, backbone_config = fitting.configs(cell.method, None, cell.assignments)
            data = opened[method.data, cell.data, cell.target]
            _refuse_changed(out, cell, config, backbone_config, data)
            if cell.backbone is None or not method.reads_backbone(config):
                method.prepare(config, data)
            else:
                fitting.refuse_useless_backbone(method, config, cell.backbone, None, cell.assignments)
                plan = fitting.backbone_plan(method, config, backbone_config, cell.backbone)
                fitting.prepare(method, config, data, plan, out / cell.name)
        except PulvinarError as error:
            mistakes.setdefault(str(error), cell.name)
    if mistakes:
        raise ConfigError("\n".join(f"cell {name}: {text}" for text, name in mistakes.items()))


def _refuse_changed(out: Path, cell: Cell, config: Any, backbone_config: Any, opened: fitting.Data) -> None:
    """A cell that was begun with other settings or data must not stand in the table under these."""
    folder = out / cell.name
    if not folder.exists():
        return
    run = RunFolder.reopen(folder)
    changed = fitting.changed_settings(run, config, backbone_config)
    backbone = run.facts.get("backbone", {}).get("path")
    if backbone is not None:
        same = Path(backbone).name == _backbone_folder(out, cell, backbone_config).name
        if cell.backbone is not None:
            same = Path(backbone) == Path(cell.backbone).resolve()
        changed += [] if same else ["backbone"]
    if changed:
        raise ConfigError(f"{folder} was made with other settings ({', '.join(changed)}); choose another out, or remove it")
    if not fitting.is_same_data(run, opened):
        raise ConfigError(f"{folder} was made from other data ({run.facts['data']['path']}); choose another out, or remove it")


def _run(out: Path, cell: Cell, *, controls: bool) -> None:
    folder, backbone = out / cell.name, _backbone(out, cell)
    own = [pair for pair in cell.assignments if not pair.startswith(fitting.BACKBONE_PREFIX)]
    fitting.fit(
        cell.method, data=cell.data, target=cell.target, out=str(folder), assignments=own, backbone=backbone, resume=True
    )
    fitting.evaluate(str(folder), data=cell.data, controls=controls)


def _backbone_folder(out: Path, cell: Cell, backbone_config: Any) -> Path:
    return out / f"backbone-{fingerprint(absolute(cell.data), str(cell.target), str(backbone_config))[:8]}"


def _backbone(out: Path, cell: Cell) -> str | None:
    """The run that is named, or one pretrained decoder for all cells that would train the same one."""
    method = registry.method(cell.method)
    config, backbone_config = fitting.configs(cell.method, None, cell.assignments)
    if method.backbone is None or not method.reads_backbone(config):
        return None
    if cell.backbone is not None:
        return cell.backbone
    folder = _backbone_folder(out, cell, backbone_config)
    if not (folder / "run.json").is_file() or not RunFolder.reopen(folder).finished:
        inner = [f"{key}={value}" for key, value in vars(backbone_config).items()]
        fitting.fit(method.backbone, data=cell.data, target=cell.target, out=str(folder), assignments=inner, resume=True)
    return str(folder)


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    write_text(out / "table.csv", csv_text(rows))
    write_json(out / "table.json", rows)
