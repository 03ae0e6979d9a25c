"""Published numbers with ours above them, a column for each metric; which metrics there are, a wing says (`PUBLISHED`).

Published numbers are written as printed. Rows hold raw values, percents as shares.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pulvinar.report.run_folder import Run
from pulvinar.report.tables import label
from pulvinar.scores.table import Column, Row, Table

LEADS = (
    Column("method", "method", note="setting", lead=True, definition="What was scored; below it on which data, asked for what, "
        "and how many candidates an image is found among."),
    Column("table", "table", lead=True, definition="Where the number is printed: paper/table, as `pulvinar reproduce --list` "
        "names them."),
)  # fmt: skip


def headings(names: Sequence[str], columns: Sequence[Column]) -> dict[str, str]:
    """Metric -> what a reader calls it."""
    known = {column.key: column.label for column in columns}
    return {name: known.get(name) or name.replace("_", " ") for name in names}


def published(
    entries: Sequence[Row],
    ours: Sequence[tuple[str, str, Row]] = (),
    *,
    columns: Sequence[Column],
    also: Sequence[str] = (),
) -> Table:
    """Published rows by metric, as printed; above them ours: (name, data, metric -> value), a dash where there is none.

    Our values may have intervals beside them, under the metric's name with `_interval`.
    columns: the wing's. also: metrics of ours alone.
    """
    metrics = list(dict.fromkeys([*(str(entry["metric"]) for entry in entries), *also]))
    grouped, digits = _grouped(entries), _digits(entries)
    wanted = {key for name in metrics for key in (name, f"{name}_interval")}
    rows: list[Row] = [
        {"method": name, "setting": data, **{key: value for key, value in values.items() if key in wanted}}
        for name, data, values in ours
    ]
    rows += [
        {"method": method, "setting": setting, "table": table, **values} for (table, setting, method), values in grouped.items()
    ]
    several = len({table for table, _, _ in grouped}) > 1
    known, called = {column.key: column for column in columns}, headings(metrics, columns)
    shown = [*LEADS[: 2 if several else 1]]
    for name in metrics:
        finest = max((count for (_, of), count in digits.items() if of == name), default=0)
        is_percent = any(entry.get("unit") == "percent" for entry in entries if entry["metric"] == name)
        unit, form = ("%", f".{max(1, finest)}%") if is_percent else ("", f".{max(3, finest)}f")
        shown.append(replace(known.get(name, Column(name, name)), label=called[name], unit=unit, form=form, minor=False))
    return Table(shown, rows, ours=range(len(ours)))


def _digits(entries: Sequence[Row]) -> dict[tuple[str, str], int]:
    """(table, metric) -> digits behind the point, as many as the longest number has: a table prints all alike."""
    found: dict[tuple[str, str], int] = {}
    for entry in entries:
        key, value = (str(entry.get("table", "")), str(entry["metric"])), entry.get("value")
        if isinstance(value, int | float):
            least = int(entry.get("unit") == "percent")
            found[key] = max(found.get(key, least), len(f"{value:.10g}".partition(".")[2]))
    return found


def _grouped(entries: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """(table, setting, method) -> metric -> value and how it is printed; what only some metrics of a row have (a gallery) does
    not split it."""
    galleries: dict[tuple[str, str, str], dict[Any, None]] = {}
    for entry in entries:
        key = (str(entry.get("table", "")), str(entry.get("setting", "")), str(entry.get("method", "")))
        galleries.setdefault(key, {})[entry.get("gallery_size")] = None
    grouped: dict[tuple[str, str, str], dict[str, Any]] = {}
    digits = _digits(entries)
    for entry in entries:
        table, setting, method = str(entry.get("table", "")), str(entry.get("setting", "")), str(entry.get("method", ""))
        sizes = [size for size in galleries[table, setting, method] if size]
        own = sizes[:1] if len(sizes) <= 1 else [entry.get("gallery_size")] if entry.get("gallery_size") else []
        gallery = f", gallery of {own[0]}" if own else ""
        values = grouped.setdefault((table, f"{setting}{gallery}", method), {})
        name, value = str(entry["metric"]), entry.get("value")
        if isinstance(value, int | float):
            values[name] = round(value / 100, 9) if entry.get("unit") == "percent" else value
            values[f"{name}_printed"] = f"{value:.{digits[table, name]}f}"
    return grouped


def published_beside(run: Run, ours: Row, columns: Sequence[Column]) -> Table:
    """The published rows that are in a run, below this run's values (metric -> value)."""
    name_of_data = str(run.facts.get("data", {}).get("name", "these data"))
    if not run.published:
        return Table((), ())
    return published(run.published, [(f"{label(run.method)}, this run", name_of_data, ours)], columns=columns)
