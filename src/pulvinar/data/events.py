"""Events tables: which stimuli a run showed, and when.

A row shows a stimulus where the column of stimuli is filled. `n/a`, `nan`, nothing and their like mean that it does not.
Some tables repeat the stimulus on rows of responses or fixations; those must not become trials: rows are chosen by their
type, and a stimulus on rows of several types is refused until they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.data.tables import Table, is_none, read_table
from pulvinar.errors import InputError, NotFoundError
from pulvinar.progress import log

STIMULUS_COLUMNS = ("stimulus", "stim_file")
TYPE_COLUMNS = ("trial_type", "event_type")


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """What one run showed: names of the stimuli as the table writes them, onsets in s (trial,), and the type of each row."""

    path: Path
    names: Sequence[str]
    onsets: np.ndarray
    types: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows of an events table are trials, and where their stimulus stands.

    stimulus_column: 'stimulus' or 'stim_file' without it. trial_type: the types that are trials; all without it.
    type_column: where the types stand; 'trial_type' or 'event_type' without it.
    """

    stimulus_column: str | None = None
    trial_type: Sequence[str] = ()
    type_column: str | None = None

    def read(self, path: Path) -> Shown:
        """The trials of one table; `InputError` or `NotFoundError` naming the line or column that does not fit."""
        table = read_table(path)
        types = self._types(table)
        if self.trial_type and not set(types) & set(self.trial_type):
            raise NotFoundError(
                f"{path}: no row has one of the types {', '.join(self.trial_type)}; there are: {', '.join(sorted(set(types)))}"
            )
        column = self._stimulus_column(table)
        names, onsets, kept = [], [], []
        cells = zip(table.lines, table.column(column), table.column("onset"), types, strict=True)
        for line, name, onset, kind in cells:
            if (self.trial_type and kind not in self.trial_type) or is_none(name):
                continue
            names.append(name)
            onsets.append(_seconds(onset, path, line))
            kept.append(kind)
        if not names:
            raise InputError(f"{path}: no row has a stimulus in column '{column}'")
        shown = Shown(path=path, names=names, onsets=np.array(onsets), types=kept)
        _refuse_repeated_rows(shown)
        return shown

    def _stimulus_column(self, table: Table) -> str:
        column = self.stimulus_column or next((name for name in STIMULUS_COLUMNS if table.has(name)), None)
        if column is None:
            raise NotFoundError(
                f"{table.path}: no column 'stimulus' or 'stim_file'; there are: {', '.join(table.columns)}. "
                "Name the one that holds the stimulus ids: stimulus_column = ..."
            )
        return column

    def _types(self, table: Table) -> list[str]:
        """The type of every row; '' for all where the table has none."""
        there = next((name for name in TYPE_COLUMNS if table.has(name)), None)
        column = self.type_column or (there or TYPE_COLUMNS[0] if self.trial_type else there)
        return [""] * len(table) if column is None else table.column(column)

    def require_one_type_each(self, runs: Sequence[Shown]) -> None:
        """`InputError` where a stimulus stands on rows of several types and nobody said which of them are trials."""
        counts: dict[str, int] = {}
        types_of: dict[str, dict[str, Path]] = {}
        for shown in runs:
            for name, kind in zip(shown.names, shown.types, strict=True):
                counts[kind] = counts.get(kind, 0) + 1
                types_of.setdefault(name, {}).setdefault(kind, shown.path)
        several = {name: found for name, found in types_of.items() if len(found) > 1}
        if several and not self.trial_type:
            name, found = next(iter(several.items()))
            kinds = list(dict.fromkeys(kind for own in several.values() for kind in own))
            raise InputError(
                f"{next(iter(found.values()))}: '{name}' stands on rows of the types {', '.join(map(repr, found))} "
                f"({len(several)} stimuli do); are all of them trials? Say which: trial_type = {kinds[:1]} or {kinds}"
            )
        if len(counts) > 1:
            said = ", ".join(f"{kind or 'none'} {count}" for kind, count in counts.items())
            log(f"{runs[0].path.parent}: trials by type: {said}")


def _seconds(cell: str, path: Path, line: int) -> float:
    try:
        seconds = float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        seconds = float("nan")
    if not np.isfinite(seconds):
        raise InputError(f"{path}: onset {cell!r} in line {line} is not a time in seconds, but the row shows a stimulus")
    return seconds


def _refuse_repeated_rows(shown: Shown) -> None:
    seen: set[tuple[str, float]] = set()
    for name, onset in zip(shown.names, shown.onsets.tolist(), strict=True):
        if (name, onset) in seen:
            raise InputError(f"{shown.path}: two rows show '{name}' at {onset:g} s; one trial is one row")
        seen.add((name, onset))
