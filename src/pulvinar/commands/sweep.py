"""`pulvinar sweep`: a grid of settings; every cell is a run folder, finished ones are skipped, one table over all.

method = "troi"
data = "world/"            # or a list: one more axis
out = "sweeps/budgets"
controls = false           # score the selection only
[set]                      # the same in every cell
epochs = 40
[grid]                     # every combination
n_voxels = [100, 200, 400]
seed = [0, 1, 2]
[[cell]]                   # or named cells instead of, or times, the grid
name = "without low-pass"
low_pass = "none"
"""

import csv
import io
import itertools
from pathlib import Path
from typing import Any

from pulvinar.commands import fit as fitting
from pulvinar.config import read_toml, suggest
from pulvinar.errors import ConfigError
from pulvinar.progress import log
from pulvinar.storage import fingerprint, read_json, write_json, write_text

KEYS = ("method", "data", "out", "controls", "set", "grid", "cell")


def cells(grid: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(folder name, data, settings) of every cell; `ConfigError` lists what is wrong with the grid."""
    mistakes = [f"'{key}' is not part of a grid{suggest(key, KEYS)}" for key in grid if key not in KEYS]
    mistakes += [f"'{key}' is missing" for key in ("method", "data", "out") if key not in grid]
    axes = dict(grid.get("grid", {}))
    mistakes += [f"grid.{name}: a list of values is needed" for name, values in axes.items() if not isinstance(values, list)]
    if mistakes:
        raise ConfigError("\n".join(mistakes))
    sources = grid["data"] if isinstance(grid["data"], list) else [grid["data"]]
    made = []
    for cell in grid.get("cell") or [{}]:
        own = {key: value for key, value in cell.items() if key != "name"}
        for source, values in itertools.product(sources, itertools.product(*axes.values())):
            settings = {**grid.get("set", {}), **own, **dict(zip(axes, values, strict=True))}
            words = [str(cell["name"])] if "name" in cell else [f"{key}={value}" for key, value in own.items()]
            words += [Path(source).name] if len(sources) > 1 else []
            words += [f"{key}={value}" for key, value in zip(axes, values, strict=True)]
            name = ",".join(words).replace("/", "_").replace(" ", "_") or "cell"
            made.append((name, source, settings))
    return made


def sweep(grid_file: str) -> dict[str, Any]:
    """Fit and evaluate every cell, one after the other; the table is written after each."""
    grid = read_toml(grid_file)
    todo = cells(grid)
    out, rows = Path(grid["out"]), []
    for name, _, settings in todo:  # mistakes in any cell are reported before the first one starts
        fitting.configs(grid["method"], None, _assignments(settings))
        log(f"cell {name}")
    for number, (name, source, settings) in enumerate(todo, start=1):
        folder = out / name
        log(f"cell {number} of {len(todo)}: {name}")
        if not (folder / "evaluation.json").is_file():
            backbone = _backbone(grid["method"], out, source, settings)
            fitting.fit(
                grid["method"], data=source, out=str(folder), assignments=_assignments(settings), backbone=backbone, resume=True
            )
            fitting.evaluate(str(folder), controls=bool(grid.get("controls", True)))
        for row in read_json(folder / "evaluation.json")["rows"]:
            rows.append({"cell": name, "data": source, **settings, **row})
        _write_table(out, rows)
    return {"table": str(out / "table.csv"), "rows": rows}


def _assignments(settings: dict[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in settings.items()]


def _backbone(method: str, out: Path, source: str, settings: dict[str, Any]) -> str | None:
    """One pretrained decoder for all cells that would train the same one."""
    config, backbone_config = fitting.configs(method, None, _assignments(settings))
    if backbone_config is None or not config.pretrain:
        return None
    folder = out / f"backbone-{fingerprint(source, str(backbone_config))[:8]}"
    if not (folder / "run.json").is_file() or read_json(folder / "run.json")["status"] != "finished":
        inner = [f"{key}={getattr(backbone_config, key)}" for key in vars(backbone_config)]
        fitting.fit("cross_subject_decoder", data=source, out=str(folder), assignments=inner, resume=True)
    return str(folder)


def _write_table(out: Path, rows: list[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names)
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / "table.csv", text.getvalue())
    write_json(out / "table.json", rows)
