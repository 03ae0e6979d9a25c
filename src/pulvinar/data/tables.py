"""Tables of text: CSV and TSV files, and the trial table of one subject (which stimulus was shown on which trial)."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from pulvinar.config import suggest
from pulvinar.errors import FileError, InputError, NotFoundError
from pulvinar.progress import log
from pulvinar.storage import reading, require_file

TABLE_SUFFIXES = (".csv", ".tsv")
ATTRIBUTES = ("source", "label", "split")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Columns of text by name, all of one length; `lines` are the line numbers in the file, for messages."""

    path: Path
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def column(self, name: str) -> list[str]:
        """One column; `NotFoundError` lists the columns that are there."""
        if name not in self.columns:
            raise NotFoundError(f"{self.path}: no column '{name}'{suggest(name, list(self.columns))}")
        return list(self.columns[name])

    def full_column(self, name: str) -> list[str]:
        """One column in which every cell is filled; `InputError` names the first line where it is not."""
        cells = self.column(name)
        empty = [line for line, cell in zip(self.lines, cells, strict=True) if not cell]
        if empty:
            raise InputError(f"{self.path}: column '{name}' is empty in {len(empty)} rows, first in line {empty[0]}")
        return cells


def read_table(path: str | os.PathLike[str]) -> Table:
    """A .csv (comma or semicolon) or .tsv (tab) file in UTF-8 with a header line; cells stripped of blanks.

    Raises `FileError` if it is missing or not such a file, `InputError` if it is empty or its rows differ in length.
    """
    path = require_file(path, "table")
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise FileError(f"{path}: tables are read from {' and '.join(TABLE_SUFFIXES)}, not from '{path.suffix or path.name}'")
    with reading(path, "a UTF-8 table"):
        text = path.read_text(encoding="utf-8-sig")
        header_line = text.partition("\n")[0]
        separator = "\t" if path.suffix.lower() == ".tsv" else ";" if ";" in header_line and "," not in header_line else ","
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    rows = [(line, row) for line, row in rows if any(row)]
    if len(rows) < 2:
        raise InputError(f"{path}: the table is empty; a header line and one row or more are needed")
    header = rows[0][1]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{path}: column names stand twice in the header: {repeated}")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise InputError(f"{path}: line {line} has {len(row)} cells, the header has {len(header)}")
    columns = {name: [row[place] for _, row in rows[1:]] for place, name in enumerate(header)}
    return Table(path=path, columns=columns, lines=[line for line, _ in rows[1:]])


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

    Needs a column of stimulus ids; `session`, `run`, `source`, `label` and `split` are read where they are there. Sessions
    and runs that are not whole numbers are numbered from 0 in order of first appearance.
    """
    tables = [read_table(path) for path in paths]
    ids = [name for table in tables for name in table.full_column(stimulus_column)]
    together: dict[str, list[str]] = {}
    for name in ("session", "run", *ATTRIBUTES):
        having = [table for table in tables if name in table.columns and name != stimulus_column]
        if having and len(having) < len(tables):
            lacking = next(table.path for table in tables if table not in having)
            raise InputError(
                f"{lacking}: no column '{name}', which {having[0].path} has; all tables of a subject need the same"
            )
        if having and name in ("session", "run"):
            together[name] = [cell for table in tables for cell in table.full_column(name)]
        elif having:
            together[name] = [cell for table in tables for cell in table.column(name)]
    origin = ", ".join(str(path) for path in paths)
    return Trials(
        origin=origin,
        stimulus_ids=ids,
        sessions=_numbers(together.pop("session", ["0"] * len(ids)), "session", origin),
        runs=_numbers(together.pop("run", ["0"] * len(ids)), "run", origin),
        attributes=together,
    )


def _numbers(cells: Sequence[str], what: str, origin: str) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in cells], dtype=np.int64)
    except (ValueError, OverflowError):
        place = {name: number for number, name in enumerate(dict.fromkeys(cells))}
        shown = ", ".join(f"{name} = {number}" for name, number in list(place.items())[:4])
        log(f"{origin}: column '{what}' is not whole numbers; numbered in order: {shown}{', ...' if len(place) > 4 else ''}")
        return np.array([place[cell] for cell in cells], dtype=np.int64)


def sources_of(path: Path, ids: Sequence[str]) -> Sequence[str]:
    """The photograph of each picture, from a CSV with the columns id and source; the pictures themselves where there is none.

    Such a table lies in generated worlds, whose pictures are crops; the real data sets that have one picture each do without.
    """
    if not path.is_file():
        return ids
    table = read_table(path)
    found = dict(zip(table.full_column("id"), table.full_column("source"), strict=True))
    missing = [name for name in ids if name not in found]
    if missing:
        raise NotFoundError(f"{path}: {len(missing)} of {len(ids)} pictures have no source, e.g. {missing[:3]}")
    return [found[name] for name in ids]
