"""Published numbers, to stand beside ours: a wing's published.csv, a line for every number, as printed.

Columns: table (paper/table, as `pulvinar reproduce` names it), dataset, setting, budget (what was asked for: voxels, or a share
of the multiply-adds), method, metric (as in our tables), value, sd (over runs, where printed), unit, protocol and gallery_size
(of retrieval), note. What a paper prints as a reduction of multiply-adds stands as the share that is left. Numbers are as
printed also where a paper disagrees with itself; the note says so.
"""

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FILE = "published.csv"


def published(
    wing: str, tables: Sequence[str], *, methods: Sequence[str] = (), metrics: Sequence[str] = (), dataset: str = ""
) -> list[dict[str, Any]]:
    """Rows of these tables of a wing ('gating'), of these methods, metrics and data alone where any are named.

    Each has table, setting (data, what was asked for, how), method, metric, value, unit; budget, sd, protocol, gallery_size and
    note where there are some.
    """
    wanted = [
        row
        for row in _lines(ROOT / wing / FILE)
        if row["table"] in tables
        and (not methods or row["method"] in methods)
        and (not metrics or row["metric"] in metrics)
        and (not dataset or row["dataset"] == dataset)
    ]
    return [_entry(row) for row in wanted]


@cache
def _lines(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _entry(row: dict[str, str]) -> dict[str, Any]:
    budget = float(row["budget"]) if row["budget"] else None
    asked = "" if budget is None else f", {budget:,.0f} voxels" if budget > 1 else f", {100 * budget:.0f} % asked"
    entry: dict[str, Any] = {
        "table": row["table"],
        "setting": f"{row['dataset']}{asked}; {row['setting']}" if row["setting"] else f"{row['dataset']}{asked}",
        "method": row["method"],
        "metric": row["metric"],
        "value": float(row["value"]),
        "unit": row["unit"],
    }
    numbers = {"budget": budget, "sd": float(row["sd"]) if row["sd"] else None}
    size = int(row["gallery_size"]) if row["gallery_size"] else None
    others = {"protocol": row["protocol"], "gallery_size": size, "note": row["note"]}
    return entry | {name: value for name, value in (numbers | others).items() if value}
