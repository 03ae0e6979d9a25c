"""A table of scores: what each column is, and its rows as text, as CSV and as a data frame (report/ makes HTML of it).

    table = Table([Column("name", "model", lead=True), Column("r", "r", form="+.3f")], rows)
    print(table.text())

A row is a mapping. The interval of a value stands beside it, as `r_interval` or as `r_low` and `r_high`; how it was printed
elsewhere, as `r_printed`. A row that has no values says why under `unavailable`.
"""

import csv
import io
import math
import textwrap
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulvinar.core import terminal
from pulvinar.core.notebook import counted, html_table, listed
from pulvinar.scores.resampling import interval_text

if TYPE_CHECKING:
    import pandas as pd
    from rich.text import Text

Row = Mapping[str, Any]
Cells = list[str]  # a column as it is written, its two heads first

NO_BREAK = "\u00a0"
INTERVAL = f"[95{NO_BREAK}%]"  # in the head of a column with intervals
ABSENT = "–"
GAP = "  "
SHORTEST_NAME = 12  # a name is broken to fit the terminal, not into less
HEAD_RULE = "    \n    \n -- \n    \n    \n    \n    \n    \n"  # rich's form of a table with a rule below its heads


@dataclass(frozen=True)
class Column:
    """One column: where its value stands in a row, its heading and unit, how a value is written, and what it is.

    form: format of a number ('+.3f', '.1%'), whose sign becomes a real minus and whose % stands in the unit; text is written
    by `words`. definition: what a reader of the score must know, in one sentence. bounds: keys of the interval's ends, where
    they are not the value's with `_interval` or `_low` and `_high`. note: key of what stands small below the value on a page,
    put into `note_form`. lead: names the row, stands in every block. minor: left out first where a terminal is narrow.
    """

    key: str
    label: str
    unit: str = ""
    form: str = ""
    definition: str = ""
    bounds: tuple[str, str] | None = None
    words: Callable[[str], str] = str
    note: str = ""
    note_form: str = "{}"
    lead: bool = False
    minor: bool = False

    @property
    def name(self) -> str:
        """Label and unit in one: 'brain → image (top-5, %)'."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def value(self, row: Row) -> str:
        """The written value, a dash for none."""
        if printed := row.get(f"{self.key}_printed"):
            return str(printed)
        value = row.get(self.key)
        if isinstance(value, str):
            return self.words(value)
        return ABSENT if value is None or not math.isfinite(value) else self._number(value)

    def _number(self, value: Any) -> str:
        text = format(value, self.form).removesuffix("%")
        return f"−{text[1:]}" if text.startswith("-") else text

    def ends(self, row: Row) -> tuple[Any, Any] | None:
        """The ends of the value's interval; None where the row has none."""
        pair = row.get(f"{self.key}_interval")
        low, high = self.bounds or (f"{self.key}_low", f"{self.key}_high")
        if pair:
            return pair[0], pair[1]
        return (row[low], row[high]) if low in row and high in row else None

    def interval(self, row: Row) -> str:
        """The written interval ('[55.0, 67.0]'), empty for none."""
        return interval_text(self.ends(row), self._number)

    def below(self, row: Row) -> str:
        """What stands small below the value on a page: its interval or its note."""
        return self.interval(row) or (self.note_form.format(row[self.note]) if self.note and row.get(self.note) else "")

    def head(self, rows: Sequence[Row]) -> str:
        """What stands below the heading: the unit, and the level where a row has an interval."""
        return f"{self.unit} {INTERVAL}".strip() if any(self.interval(row) for row in rows) else self.unit


@dataclass(frozen=True)
class Table:
    """Columns and rows. ours: places of the rows that are this run's, which a page sets off.

    elsewhere: where the minor columns stand that a narrow terminal leaves out ('On the page of the run'); empty: none are.
    """

    columns: Sequence[Column]
    rows: Sequence[Row]
    ours: Collection[int] = ()
    elsewhere: str = ""

    def __repr__(self) -> str:
        heads = listed(column.name for column in self.shown)
        return f"Table of {counted(len(self.rows), 'row')}: {heads} (.text() prints it, .frame() is a data frame)"

    def _repr_html_(self) -> str:
        shown = self.shown
        cells = [[f"{column.value(row)} {column.interval(row)}".strip() for column in shown] for row in self.rows]
        heads = [f"{column.label} {column.head(self.rows)}".strip() for column in shown]
        return html_table(heads, cells, left=sum(column.lead for column in shown))

    @property
    def shown(self) -> list[Column]:
        """The columns in which at least one row has a value."""
        return [column for column in self.columns if any(row.get(column.key) is not None for row in self.rows)]

    @property
    def defined(self) -> list[Column]:
        """The shown columns that say what they are."""
        return [column for column in self.shown if column.definition]

    def records(self) -> list[dict[str, Any]]:
        """A plain entry for each row: raw values by key, each with its note and, where any row has one, its interval."""
        with_ends = {column.key for column in self.columns if any(column.ends(row) for row in self.rows)}
        made: list[dict[str, Any]] = []
        for row in self.rows:
            entry: dict[str, Any] = {}
            for column in self.columns:
                entry[column.key] = row.get(column.key)
                entry |= {column.note: row.get(column.note)} if column.note else {}
                entry |= {f"{column.key}_interval": column.ends(row)} if column.key in with_ends else {}
            made.append(entry)
        return made

    def csv(self) -> str:
        """The records as CSV, raw values under the columns' keys."""
        return csv_text(self.records())

    def frame(self) -> "pd.DataFrame":
        """The records as a pandas data frame."""
        return frame_of(self.records())

    def text(self, width: float | int | None = None) -> str:
        """Aligned columns, the reasons of unavailable rows below them.

        width: in characters (None: the terminal's, with styles where it may have them; infinite: one block). What does not fit
        into one block is told in several, each led by the names of the rows; minor columns are then left out, and a line says
        where they stand.
        """
        has_styles, width = width is None and terminal.styled(), terminal.width() if width is None else width
        available = [row for row in self.rows if not row.get("unavailable")]
        shown = self.shown
        blocks = list(self._blocks(shown, available, width))
        left_out = [column for column in shown if column.minor] if self.elsewhere and len(blocks) > 1 else []
        if left_out:
            blocks = list(self._blocks([column for column in shown if not column.minor], available, width))
        n_leads = sum(column.lead for column in shown)
        drawn = (_drawn(block, n_leads, width, self._strong(), has_styles=has_styles) for block in blocks)
        parts = ["\n\n".join(drawn)]
        if left_out:
            parts.append(f"{self.elsewhere}: {'; '.join(column.name for column in left_out)}.")
        name = self.columns[0]
        parts += [f"{name.value(row)}: not available: {row['unavailable']}" for row in self.rows if row.get("unavailable")]
        return "\n".join([parts[0], *(_filled(part, width) for part in parts[1:])])

    def _strong(self) -> set[int]:
        """Places of this run's rows among those that are available."""
        available = [place for place, row in enumerate(self.rows) if not row.get("unavailable")]
        return {number for number, place in enumerate(available) if place in self.ours}

    def _blocks(self, columns: Sequence[Column], rows: Sequence[Row], width: float | int) -> Iterator[list[Cells]]:
        """The written columns in as many blocks as the width asks for, each led by the leading columns."""
        leads = [self._cells(column, rows) for column in columns if column.lead]
        block = leads
        for cells in (self._cells(column, rows) for column in columns if not column.lead):
            if len(block) > len(leads) and sum(map(_width, [*block, cells])) + len(GAP) * len(block) > width:
                yield block
                block = leads
            block = [*block, cells]
        yield block

    def _cells(self, column: Column, rows: Sequence[Row]) -> Cells:
        written = (f"{column.value(row)} {column.interval(row)}".strip() for row in rows)
        return [column.label, column.head(self.rows), *written]


def _width(cells: Cells) -> int:
    return max(map(len, cells))


def _drawn(block: Sequence[Cells], n_leads: int, width: float | int, strong: Collection[int], *, has_styles: bool) -> str:
    """Columns side by side, the leading ones to the left, the others to the right, a rule below the heads.

    Names that do not fit are broken; numbers never are.
    """
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as Drawing
    from rich.text import Text

    drawing = Drawing(box=Box(HEAD_RULE, ascii=True), show_edge=False, pad_edge=False, padding=(0, 0, 0, len(GAP) - 1))
    two_heads = any(cells[1] for cells in block)
    for n, (label, head, *_) in enumerate(block):
        heads = Text(f"{label}\n{head}" if two_heads else label)
        is_lead = n < n_leads
        drawing.add_column(heads, justify="left" if is_lead else "right", no_wrap=not is_lead, overflow="fold")
    for place, line in enumerate(zip(*(cells[2:] for cells in block), strict=True)):
        drawing.add_row(*map(_cell, line), style="bold" if place in strong else None)
    gaps, widths = len(GAP) * (len(block) - 1), [_width(cells) for cells in block]
    least = sum(min(own, SHORTEST_NAME) if n < n_leads else own for n, own in enumerate(widths))
    columns = gaps + int(max(min(width - gaps, sum(widths)), least))
    text = io.StringIO()
    console = Console(
        file=text,
        width=columns,
        force_terminal=has_styles,
        force_jupyter=False,  # it would show the table below the cell, and write nothing here
        color_system="standard" if has_styles else None,
        highlight=False,
    )
    console.print(drawing)
    return text.getvalue().rstrip("\n")


def _cell(written: str) -> "Text":
    """A value, its interval dim."""
    from rich.text import Text

    value, bracket, interval = written.partition(" [")
    return Text.assemble(value, (bracket + interval, "dim"))


def _filled(text: str, width: float | int) -> str:
    return text if width == math.inf else textwrap.fill(text, int(width), break_long_words=False, break_on_hyphens=False)


def csv_text(entries: Sequence[Row]) -> str:
    """Entries as CSV with a header; columns in the order in which they first come. Intervals say their level in their names.

    A pair `score_interval` becomes the columns `score_low_95` and `score_high_95`, and so are `score_low`, `score_high` named.
    """
    entries = [_with_levels(entry) for entry in entries]
    names = list(dict.fromkeys(name for entry in entries for name in entry))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(entries)
    return text.getvalue()


def frame_of(entries: Sequence[Row]) -> "pd.DataFrame":
    """Entries as a pandas data frame, with the columns of `csv_text`."""
    import pandas as pd

    return pd.DataFrame([_with_levels(entry) for entry in entries])


def _with_levels(entry: Row) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in entry.items():
        if name.endswith("_interval"):
            low, high = value or (None, None)
            stem = name.removesuffix("_interval")
            found |= {f"{stem}_low_95": low, f"{stem}_high_95": high}
        else:
            found[f"{name}_95" if name.rpartition("_")[2] in ("low", "high") else name] = value
    return found
