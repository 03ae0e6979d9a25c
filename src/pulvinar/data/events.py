"""Events tables: which stimuli a run showed, and when.

A row shows a stimulus where the column of stimuli is filled. `n/a`, `nan`, nothing and their like mean that it does not.
Some tables repeat the stimulus on rows of responses or fixations; those must not become trials: rows are chosen by their
type, and a stimulus on rows of several types is refused until they are.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import log, warn
from pulvinar.data.tables import Table, is_none, read_table

STIMULUS_COLUMNS = ("stimulus", "stim_file")
TYPE_COLUMNS = ("trial_type", "event_type")
LIKELY_TYPE_COLUMNS = ("type", "event", "condition")  # where their words are few and no numbers
CHOOSE = "trial_type (and type_column) choose rows"
SAME_TRIAL_S = 0.1  # two rows of one stimulus nearer than this are one trial
CLOSE_S = 2.0  # two rows of one stimulus nearer than this are hardly two trials of an fMRI run


@dataclass(frozen=True, kw_only=True, eq=False)
class StimulusEvents:
    """What one run showed: names of the stimuli as the table writes them, onsets in s (trial,), and the type of each row.

    durations: in s (trial,), NaN where the table does not say. others: the same as `types` of further columns that may say what
    kind of row it is -> type of each row. left_out: type -> how many rows of the table are no trials.
    """

    path: Path
    names: Sequence[str]
    onsets: np.ndarray
    durations: np.ndarray
    types: Sequence[str]
    others: Mapping[str, Sequence[str]]
    left_out: Mapping[str, int]

    def take(self, trials: np.ndarray) -> "StimulusEvents":
        """The same with some of the trials (indices)."""
        rows = trials.tolist()
        return replace(
            self,
            names=[self.names[row] for row in rows],
            onsets=self.onsets[trials],
            durations=self.durations[trials],
            types=[self.types[row] for row in rows],
            others={name: [kinds[row] for row in rows] for name, kinds in self.others.items()},
        )


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Which rows of an events table are trials, and where their stimulus stands.

    stimulus_column: 'stimulus' or 'stim_file' without it. trial_type: the types that are trials; all without it.
    type_column: where the types stand; without it the first of `_type_columns`. block_gap_s: rows of one stimulus that follow
    each other, with less than so many seconds from the end of one to the onset of the next, are one trial.
    """

    stimulus_column: str | None = None
    trial_type: Sequence[str] = ()
    type_column: str | None = None
    block_gap_s: float | None = None

    def read(self, path: Path) -> StimulusEvents:
        """The trials of one table; `InputError` or `NotFoundError` naming the line or column that does not fit."""
        table = read_table(path)
        type_column = self._type_column(table)
        types = [""] * len(table) if type_column is None else table.column(type_column)
        if self.trial_type and not set(types) & set(self.trial_type):
            raise NotFoundError(
                f"{path}: no row has one of the types {', '.join(self.trial_type)}; there are: {', '.join(sorted(set(types)))}"
            )
        column = self._stimulus_column(table)
        names, onsets, kept, left_out = [], [], [], Counter[str]()
        cells = zip(table.lines, table.column(column), table.column("onset"), types, strict=True)
        for row, (line, name, onset, kind) in enumerate(cells):
            if (self.trial_type and kind not in self.trial_type) or is_none(name):
                left_out[kind] += 1
                continue
            names.append(name)
            onsets.append(_seconds(onset, path, line))
            kept.append(row)
        if not names:
            raise InputError(f"{path}: no row has a stimulus in column '{column}'")
        others = [name for name in _type_columns(table) if name not in (type_column, column)]
        shown = StimulusEvents(
            path=path,
            names=names,
            onsets=np.array(onsets),
            durations=_durations(table)[kept],
            types=[types[row] for row in kept],
            others={name: [table.column(name)[row] for row in kept] for name in others if self.type_column is None},
            left_out=left_out,
        )
        if self.block_gap_s is not None:
            shown = _blocks(shown, self.block_gap_s)
        _refuse_repeated_rows(shown)
        return shown

    def read_others(self, path: Path, kinds: Sequence[str]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Type -> onsets and durations, s (row,), of the rows that have one of these types, whether they show a stimulus or
        not.

        Raises `InputError` naming a line whose onset is no time, `NotFoundError` where the table has no column of types.
        """
        table = read_table(path)
        column = self._type_column(table)
        if column is None:
            raise NotFoundError(
                f"{path}: no column of types ({', '.join(TYPE_COLUMNS)}); there are: {', '.join(table.columns)}"
            )
        found, durations = {}, _durations(table)
        for kind in kinds:
            rows = [row for row, own in enumerate(table.column(column)) if own == kind]
            if rows:
                onsets = [_seconds(table.column("onset")[row], path, table.lines[row], "is modelled") for row in rows]
                found[kind] = (np.array(onsets), durations[rows])
        return found

    def _stimulus_column(self, table: Table) -> str:
        column = self.stimulus_column or next((name for name in STIMULUS_COLUMNS if table.has(name)), None)
        if column is None:
            raise NotFoundError(
                f"{table.path}: no column 'stimulus' or 'stim_file'; there are: {', '.join(table.columns)}. "
                "Name the one that holds the stimulus ids: stimulus_column = ..."
            )
        return column

    def _type_column(self, table: Table) -> str | None:
        """Where the types stand; None where the table has none and none is asked for."""
        type_column = next(iter(_type_columns(table)), None)
        return self.type_column or (type_column or TYPE_COLUMNS[0] if self.trial_type else type_column)

    def require_one_type_each(self, runs: Sequence[StimulusEvents]) -> None:
        """`InputError` where a stimulus stands on rows of several types and nobody said which of them are trials.

        The same for every other column that may say what kind of row it is, unless `type_column` says which one counts.
        """
        if not self.trial_type:
            _refuse_several_types(runs, {shown.path: shown.types for shown in runs}, "")
        for column in dict.fromkeys(name for shown in runs for name in shown.others):
            types = {shown.path: shown.others.get(column, [""] * len(shown.names)) for shown in runs}
            _refuse_several_types(runs, types, f"type_column = '{column}' and ")
        counts = Counter(kind for shown in runs for kind in shown.types)
        if len(counts) > 1:
            by_type = ", ".join(f"{kind or 'none'} {count}" for kind, count in counts.items())
            log(f"{runs[0].path.parent}: trials by type: {by_type}")


def _type_columns(table: Table) -> list[str]:
    """Columns that may say what kind of row it is, the usual ones first."""
    likely = {name: set(table.column(name)) for name in LIKELY_TYPE_COLUMNS if table.has(name)}
    few = [name for name, kinds in likely.items() if 2 * len(kinds) <= len(table) and not all(map(_is_code, kinds))]
    return [*(name for name in TYPE_COLUMNS if table.has(name)), *few]


def _is_code(cell: str) -> bool:
    return is_none(cell) or cell.lstrip("+-").replace(".", "", 1).isdecimal()


def _refuse_several_types(runs: Sequence[StimulusEvents], types: Mapping[Path, Sequence[str]], column: str) -> None:
    """column: what to set beside trial_type, where the types are not those of the usual column."""
    types_of: dict[str, dict[str, Path]] = {}
    for shown in runs:
        for name, kind in zip(shown.names, types[shown.path], strict=True):
            types_of.setdefault(name, {}).setdefault(kind, shown.path)
    several = {name: found for name, found in types_of.items() if len(found) > 1}
    if several:
        name, found = next(iter(several.items()))
        kinds = list(dict.fromkeys(kind for own in several.values() for kind in own))
        raise InputError(
            f"{next(iter(found.values()))}: '{name}' stands on rows of the types {', '.join(map(repr, found))} "
            f"({len(several)} stimuli do); are all of them trials? Say which: {column}trial_type = {kinds[:1]} or {kinds}"
        )


def _seconds(cell: str, path: Path, line: int, why: str = "shows a stimulus") -> float:
    seconds = _number(cell)
    if not np.isfinite(seconds):
        raise InputError(f"{path}: onset {cell!r} in line {line} is not a time in seconds, but the row {why}")
    return seconds


def _number(cell: str) -> float:
    try:
        return float(cell) if cell.isascii() and "_" not in cell else float("nan")
    except ValueError:
        return float("nan")


def _durations(table: Table) -> np.ndarray:
    """Durations in s (row,); NaN where a row, or the table, does not say."""
    if not table.has("duration"):
        return np.full(len(table), np.nan)
    seconds = np.array([_number(cell) for cell in table.column("duration")])
    return np.where(np.isfinite(seconds) & (seconds >= 0), seconds, np.nan)


def _blocks(shown: StimulusEvents, gap_s: float) -> StimulusEvents:
    """Rows of one stimulus that follow each other closely as one trial, from the first onset to the last end; in time order."""
    if not np.isfinite(shown.durations).all():
        raise InputError(f"{shown.path}: rows are joined to blocks by their ends, but {_without_duration(shown)}")
    order = np.argsort(shown.onsets, kind="stable").tolist()
    ends = shown.onsets + shown.durations
    firsts: list[int] = []
    last: list[float] = []  # end of each block so far
    for row in order:
        joins = firsts and shown.names[firsts[-1]] == shown.names[row] and shown.onsets[row] - last[-1] < gap_s
        if joins:
            last[-1] = max(last[-1], float(ends[row]))
        else:
            firsts.append(row)
            last.append(float(ends[row]))
    blocks = shown.take(np.array(firsts))
    return replace(blocks, durations=np.array(last) - blocks.onsets)


def _without_duration(shown: StimulusEvents) -> str:
    unknown = np.flatnonzero(~np.isfinite(shown.durations))
    where = f"the first at {shown.onsets[unknown[0]]:g} s"
    return f"{len(unknown)} of {len(shown.durations)} rows have no duration in seconds ({where})"


def require_durations(shown: StimulusEvents, given: float | None, way: str) -> np.ndarray:
    """Durations in s (trial,): the one given for all, or those of the table; `InputError` with the way where one is not
    known."""
    if given is not None:
        return np.full(len(shown.names), given)
    if not np.isfinite(shown.durations).all():
        raise InputError(f"{shown.path}: {_without_duration(shown)}; say it for all with {way}")
    return shown.durations


def _refuse_repeated_rows(shown: StimulusEvents) -> None:
    """One trial is one row; rows of one stimulus close to each other, and of two stimuli at one time, are said."""
    close, at_once = 0, 0
    order = np.argsort(shown.onsets, kind="stable")
    last: dict[str, float] = {}
    for row, earlier in zip(order.tolist(), [-1, *order.tolist()], strict=False):
        name, onset = shown.names[row], float(shown.onsets[row])
        gap = onset - last.get(name, -np.inf)
        if gap < SAME_TRIAL_S:
            when = f"{onset:g}" if gap == 0 else f"{last[name]:g} and {onset:g}"
            raise InputError(f"{shown.path}: two rows show '{name}' at {when} s; one trial is one row")
        close += gap < CLOSE_S
        at_once += earlier >= 0 and onset - shown.onsets[earlier] < SAME_TRIAL_S
        last[name] = onset
    if close:
        warn(f"{shown.path}: {close} rows show the stimulus of a row less than {CLOSE_S:g} s before; are both trials? {CHOOSE}")
    if at_once:
        warn(f"{shown.path}: {at_once} rows show another stimulus at the time of a row before; are both trials? {CHOOSE}")
