"""Published numbers with ours above them, a column for each metric; which metrics there are, a wing says (`PUBLISHED`).

Values are text as printed, ours in the same unit.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pulvinar.report.run_folder import Run
from pulvinar.report.tables import absent, label, percent
from pulvinar.scores.table import NO_BREAK, Column, Row, Table

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
    """Published rows by metric; above them ours: (name, data, metric -> value), a dash where there is no such value.

    Our values may have intervals beside them, under the metric's name with `_interval`.
    columns: the wing's. also: metrics of ours alone.
    """
    metrics = list(dict.fromkeys([*(str(entry["metric"]) for entry in entries), *also]))
    grouped = _grouped(entries)
    rows: list[Row] = [
        {"method": name, "setting": data, **{key: text for wanted in metrics for key, text in _ours(values, entries, wanted)}}
        for name, data, values in ours
    ]
    rows += [
        {"method": method, "setting": setting, "table": table, **dict.fromkeys(also, "–"), **values}
        for (table, setting, method), values in grouped.items()
    ]
    several = len({table for table, _, _ in grouped}) > 1
    known, called = {column.key: column for column in columns}, headings(metrics, columns)
    shown = [*LEADS[: 2 if several else 1]]
    for name in metrics:
        form = ".1f" if _is_percent(entries, name) else ".3g"
        shown.append(replace(known.get(name, Column(name, name)), label=called[name], unit="", form=form, minor=False))
    return Table(shown, rows, ours=range(len(ours)))


def _grouped(entries: Sequence[Row]) -> dict[tuple[str, str, str], dict[str, str]]:
    """(table, setting, method) -> metric -> as written; what only some metrics of a row have (a gallery) does not split it."""
    galleries: dict[tuple[str, str, str], dict[Any, None]] = {}
    for entry in entries:
        key = (str(entry.get("table", "")), str(entry.get("setting", "")), str(entry.get("method", "")))
        galleries.setdefault(key, {})[entry.get("gallery_size")] = None
    grouped: dict[tuple[str, str, str], dict[str, str]] = {}
    for entry in entries:
        table, setting, method = str(entry.get("table", "")), str(entry.get("setting", "")), str(entry.get("method", ""))
        sizes = [size for size in galleries[table, setting, method] if size]
        own = sizes[:1] if len(sizes) <= 1 else [entry.get("gallery_size")] if entry.get("gallery_size") else []
        gallery = f", gallery of {own[0]}" if own else ""
        grouped.setdefault((table, f"{setting}{gallery}", method), {})[str(entry["metric"])] = _published_value(entry)
    return grouped


def published_beside(run: Run, ours: Row, columns: Sequence[Column]) -> Table:
    """The published rows that are in a run, below this run's values (metric -> value)."""
    name_of_data = str(run.facts.get("data", {}).get("name", "these data"))
    if not run.published:
        return Table((), ())
    return published(run.published, [(f"{label(run.method)}, this run", name_of_data, ours)], columns=columns)


def _published_value(row: Row) -> str:
    value = row.get("value")
    if not isinstance(value, int | float):
        return "–"
    if row.get("unit") != "percent":
        return f"{value:g}"
    return f"{value:.1f}{NO_BREAK}%" if float(f"{value:.1f}") == value else f"{value:g}{NO_BREAK}%"  # as printed, not rounded


def _is_percent(published: Sequence[Row], name: str) -> bool:
    return any(entry.get("unit") == "percent" for entry in published if entry["metric"] == name)


def _ours(row: Row, published: Sequence[Row], name: str) -> list[tuple[str, Any]]:
    """Our value of a published metric, retrieval scores as percents, others as they are; and its interval in the same unit."""
    value, bounds = row.get(name), row.get(f"{name}_interval")
    if not isinstance(value, int | float) or absent(value):
        return [(name, "–")]
    as_percent = _is_percent(published, name)
    written = [(name, percent(value, 1) if as_percent else f"{value:.3g}")]
    if bounds is None or any(map(absent, bounds)):
        return written
    return [*written, (f"{name}_interval", tuple(100 * end if as_percent else end for end in bounds))]
