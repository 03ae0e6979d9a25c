"""Tables of text: CSV and TSV files, and the trial table of one subject (which stimulus was shown on which trial)."""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.sessions import session_numbers

TABLE_SUFFIXES = (".csv", ".tsv")
ATTRIBUTES = ("source", "label", "split")
NONE_WORDS = frozenset(  # in lower case; what tables write for nothing: pandas' list, MATLAB's words, and a dash
    (
        *("", "n/a", "na", "#n/a", "#n/a n/a", "#na", "<na>", "nan", "-nan", "1.#ind", "-1.#ind", "1.#qnan", "-1.#qnan"),
        *("none", "null", "<missing>", "<undefined>", "[]", "-"),
    )
)
SEPARATOR_LINE = re.compile(r"sep=(.)[;,\t ]*(?:\n|$)", re.IGNORECASE)  # of spreadsheets
BLANKS = " \t\n\v\f\u00a0\u2007\u202f\u3000\ufeff"


def is_none(cell: str) -> bool:
    """Whether a cell says that there is nothing: empty, `n/a`, `NaN`, `null`, in any case."""
    return cell.strip().casefold() in NONE_WORDS


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text by name, all of one length; `lines` are the line numbers in the file, for messages."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def name_of(self, name: str) -> str | None:
        """The column's name as the header writes it; upper and lower case do not count. None if there is no such column."""
        if name in self.columns:
            return name
        return next((other for other in self.columns if other.casefold() == name.casefold()), None)

    def has(self, name: str) -> bool:
        """Whether there is such a column."""
        return self.name_of(name) is not None

    def column(self, name: str) -> list[str]:
        """One column; `NotFoundError` lists the columns that are there."""
        written = self.name_of(name)
        if written is None:
            raise NotFoundError(f"{self.path}: no column '{name}'{suggest(name, list(self.columns))}")
        return list(self.columns[written])

    def full_column(self, name: str) -> list[str]:
        """One column in which every cell is filled; `InputError` names the first line where it is not (`is_none`)."""
        cells = self.column(name)
        empty = [(line, cell) for line, cell in zip(self.lines, cells, strict=True) if is_none(cell)]
        if empty:
            line, cell = empty[0]
            came = f" ('{cell}')" if cell else ""
            raise InputError(f"{self.path}: column '{name}' is empty in {len(empty)} rows, first in line {line}{came}")
        return cells

    def optional_column(self, name: str) -> list[str]:
        """One column with '' where a cell says that there is nothing."""
        return ["" if is_none(cell) else cell for cell in self.column(name)]


@reads("a table")
def read_table(path: str | os.PathLike[str]) -> Table:
    """A .csv or .tsv file with a header line; cells stripped of blanks, in composed Unicode (NFC).

    Cells are parted by commas, semicolons or tabs, whichever gives rows of one length; a first line `sep=;` says so itself.
    Text is UTF-8, or UTF-16 with its mark. Any line ends; rows without a filled cell, empty cells past the header, and a
    counting column without a name (of pandas) are left out.
    Raises `FileError` if it is missing or not such a file, `InputError` if it is empty or its rows differ in length.
    """
    path = require_file(path, "table")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise FileError(f"{path}: tables are read from {' and '.join(TABLE_SUFFIXES)}, not from '{path.suffix or path.name}'")
    text = unicodedata.normalize("NFC", _decoded(path)).replace("\r\n", "\n").replace("\r", "\n")
    stated = SEPARATOR_LINE.match(text)
    if stated is not None:
        rows = _rows(path, "\n" + text[stated.end() :], stated[1])
    else:
        rows = _rows(path, text, _separator(path, text))
    if len(rows) < 2:
        raise InputError(f"{path}: the table is empty; a header line and one row or more are needed")
    rows = _without_padding(rows)
    header = rows[0][1]
    repeated = sorted({name for name in header if sum(name.casefold() == other.casefold() for other in header) > 1})
    if repeated:
        odd = any(not name or name.replace(".", "").isdecimal() for name in header)
        hint = "; is the header line missing, or does a title stand above it?" if odd else ""
        raise InputError(f"{path}: column names stand twice in the header: {repeated}{hint}")
    for line, row in rows[1:]:
        if row == header:
            raise InputError(f"{path}: line {line} repeats the header; leave it out (were tables put one after the other?)")
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} cells, the header has {len(header)}")
    columns = {name: [row[place] for _, row in rows[1:]] for place, name in enumerate(header)}
    return Table(path=path, columns=columns, lines=[line for line, _ in rows[1:]])


def _decoded(path: Path) -> str:
    """The text of a table; `FileError` says how to save it where its encoding is not known."""
    content = path.read_bytes()
    marks = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"}
    marks |= {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}  # after UTF-32, whose mark begins like it
    encoding = next((name for mark, name in marks.items() if content.startswith(mark)), "utf-8")
    if encoding == "utf-8" and b"\0" in content:
        raise FileError(
            f"{path}: cannot be read as a UTF-8 table: it holds zero bytes (UTF-16 without its mark?); save it as UTF-8"
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise FileError(
            f"{path}: cannot be read as a UTF-8 table: byte {content[error.start]:#04x} in line {line}. Letters of an older "
            "encoding (Latin-1) cannot be told from others; save it as UTF-8 (in a spreadsheet: 'CSV UTF-8')"
        ) from error


def _rows(path: Path, text: str, separator: str) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row that has a filled cell."""
    with reading(path, "a UTF-8 table"):
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, [cell.strip(BLANKS) for cell in row]) for row in reader]
    return [(line, row) for line, row in rows if any(row)]


def _separator(path: Path, text: str) -> str:
    """What parts the cells: of the separators in the header the one that gives two columns or more and rows of one length."""
    usual = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
    header = next((line for line in text.split("\n") if line.strip()), "")
    present = [separator for separator in usual if separator in header]
    for separator in present if len(present) > 1 else ():
        try:
            rows = _without_padding(_rows(path, text, separator))
        except FileError:
            continue
        if len(rows[0][1]) > 1 and len({len(row) for _, row in rows}) == 1:
            return separator
    return present[0] if present else usual[0]


def _without_padding(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Without columns that have neither name nor cell, cells past the header that are empty, and an unnamed count of rows."""
    header = rows[0][1]
    width = max((place + 1 for place, name in enumerate(header) if name), default=0)
    if not any(any(row[width:]) for _, row in rows):
        rows = [(line, row[:width]) for line, row in rows]
    header = rows[0][1]
    if header and header[0] in ("", "Unnamed: 0") and len(header) > 1 and _is_count([row[0] for _, row in rows[1:]]):
        rows = [(line, row[1:]) for line, row in rows]
    return rows


def _is_count(cells: Sequence[str]) -> bool:
    """Whether these are 0, 1, 2, ... or 1, 2, 3, ..."""
    return any(list(cells) == [str(number) for number in range(first, first + len(cells))] for first in (0, 1))


@dataclass(frozen=True, kw_only=True)
class Trials:
    """What one subject saw: a stimulus id per trial, sessions and runs as whole numbers (trial,), and the file it is from.

    attributes: for 'source', 'label' and 'split', if the table has that column, a text per trial ('' for none).
    """

    origin: str
    stimulus_ids: Sequence[str]
    sessions: np.ndarray
    runs: np.ndarray
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)


def read_trials(paths: Sequence[Path], *, stimulus_column: str = "stimulus") -> Trials:
    """The trial table of one subject, from one file or from several in order.

    Needs a column of stimulus ids; `session`, `run`, `source`, `label` and `split` are read where they are there. What a
    session or run is called becomes a number by `session_numbers`.
    """
    tables = [read_table(path) for path in paths]
    for table in tables:
        if not table.has(stimulus_column):
            raise NotFoundError(
                f"{table.path}: no column '{stimulus_column}'{suggest(stimulus_column, list(table.columns))}. Name the one "
                "that says what was shown with stimulus_column, e.g. stimulus_column = 'image'"
            )
    ids = [name for table in tables for name in table.full_column(stimulus_column)]
    together: dict[str, list[str]] = {}
    for name in ("session", "run", *ATTRIBUTES):
        if name.casefold() == stimulus_column.casefold():
            continue
        having = [table for table in tables if table.has(name)]
        if having and len(having) < len(tables):
            lacking = next(table.path for table in tables if table not in having)
            raise InputError(
                f"{lacking}: no column '{name}', which {having[0].path} has; all tables of a subject need the same"
            )
        if having and name in ("session", "run"):
            together[name] = [cell for table in tables for cell in table.full_column(name)]
        elif having:
            together[name] = [cell for table in tables for cell in table.optional_column(name)]
    origin = ", ".join(str(path) for path in paths)
    return Trials(
        origin=origin,
        stimulus_ids=ids,
        sessions=session_numbers(together.pop("session", ["0"] * len(ids)), "session", origin),
        runs=session_numbers(together.pop("run", ["0"] * len(ids)), "run", origin),
        attributes=together,
    )


def sources_of(path: Path, ids: Sequence[str]) -> Sequence[str]:
    """The photograph of each picture, from a CSV with the columns id and source; the pictures themselves where there is none.

    Such a table lies in generated worlds, whose pictures are crops; the real data sets that have one picture each do without.
    """
    if not path.is_file():
        return ids
    table = read_table(path)
    sources = table.full_column("source")
    rows = ImageNames(table.full_column("id"), str(path)).rows(ids, origin=str(path.parent), what="pictures", different=True)
    return [sources[row] for row in rows]
