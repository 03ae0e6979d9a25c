"""The scores beside their controls as text: whole, or as wide as a terminal."""

import textwrap
from collections.abc import Iterator, Sequence

from pulvinar.report.run_folder import SCORE
from pulvinar.report.tables import VERDICTS, Column, Row, columns, label, told_columns, verdict

KEY_COLUMNS = ("n_voxels", SCORE, "image_to_brain_top1", "precision")  # and the difference from the run
GAP = "  "

Cells = list[str]  # a column as it is written, its head first


def as_text(rows: Sequence[Row], method: str, width: int | None = None) -> str:
    """The table in aligned columns, reasons of unavailable rows below it.

    width: of a terminal; what does not fit into one block is told in several, the columns that matter alone, and a line says
    where the others stand. None: all in one block, heads in one line.
    """
    available = [row for row in rows if not row.get("unavailable")]
    every = columns(rows, method) if width is None else told_columns(rows, method)
    key = [column for column in every if column.key in (*KEY_COLUMNS, f"difference_to_{method}")]
    names = [label(row["name"]) for row in available]
    against = [VERDICTS[verdict(row, method)] for row in available]
    if width is None:
        heads = [f"{column.heading} {column.head(rows)}".strip() for column in every]
        cells = [[head, *_cells(column, available)] for head, column in zip(heads, every, strict=True)]
        text = _aligned([["", *names], *cells, [f"against {label(method)}", *against]], n_heads=1)
    else:
        last = ["against", label(method), *against]
        whole, short = (
            list(_blocks(["", "", *names], [*(_headed(column, rows, available) for column in chosen), last], width))
            for chosen in (every, key)
        )
        text = "\n\n".join(_aligned(block, n_heads=2) for block in (whole if len(whole) == 1 else short))
        if len(whole) > 1 and len(every) > len(key):
            left = "; ".join(f"{column.heading} ({column.unit})".removesuffix(" ()") for column in every if column not in key)
            text += "\n" + _filled(f"On the page of the run and in its scores.csv: {left}.", width)
    reasons = [f"{label(row['name'])}: not available: {row['unavailable']}" for row in rows if row.get("unavailable")]
    return "\n".join([text, *(_filled(reason, width) for reason in reasons)]) + "\n"


def _headed(column: Column, rows: Sequence[Row], available: Sequence[Row]) -> Cells:
    return [column.heading, column.head(rows), *_cells(column, available)]


def _cells(column: Column, rows: Sequence[Row]) -> Cells:
    return [f"{column.value(row)} {column.interval(row)}".strip() for row in rows]


def _blocks(first: Cells, every: Sequence[Cells], width: int) -> Iterator[list[Cells]]:
    """The columns in as many blocks as the width asks for, each led by the first column."""
    block = [first]
    for cells in every:
        if len(block) > 1 and sum(map(_width, [*block, cells])) + len(GAP) * len(block) > width:
            yield block
            block = [first]
        block.append(cells)
    yield block


def _width(cells: Cells) -> int:
    return max(map(len, cells))


def _aligned(block: Sequence[Cells], *, n_heads: int) -> str:
    """Columns side by side, the first to the left, the others to the right, a rule below the heads."""
    widths = [_width(cells) for cells in block]
    lines = [
        GAP.join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))])
        for line in zip(*block, strict=True)
    ]
    return "\n".join([*lines[:n_heads], "-" * len(lines[0]), *lines[n_heads:]])


def _filled(text: str, width: int | None) -> str:
    return text if width is None else textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
