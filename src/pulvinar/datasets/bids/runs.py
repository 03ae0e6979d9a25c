"""The runs of a subject: which series, which events, when volumes were acquired, and what its trials showed."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import log, warn
from pulvinar.data import bids
from pulvinar.data.events import LIKELY_TYPE_COLUMNS, TYPE_COLUMNS, Rows, StimulusEvents, require_durations
from pulvinar.data.fmriprep import brain_mask_of, choose_series
from pulvinar.data.sessions import session_numbers
from pulvinar.data.tables import Table, is_none, read_table
from pulvinar.data.volume_times import VolumeTimes, volume_times
from pulvinar.datasets.bids.folders import Folders
from pulvinar.datasets.bids.settings import Options

LEAST_AFTER_S = 4.0  # of a run after a trial's onset: less has hardly a response in it
FAR_BEYOND = 10  # run lengths: an onset beyond them is in another unit
REST = frozenset(
    (
        "rest",
        "baseline",
        "fixation",
        "fix",
        "cross",
        "null",
        "blank",
        "iti",
        "isi",
        "break",
        "pause",
        "none",
        "button",
        "response",
    )
)  # words for what shows nothing, where types are the labels of what is shown


@dataclass(frozen=True, kw_only=True, eq=False)
class BidsRun:
    """One run. mask: fMRIPrep's, None where it is computed. shown: its trials, in the order of the table. times: of volumes.

    session: the number of its `ses`. key: what is told of it, such as ses-1_run-2. durations: s (trial,), NaN where a window is
    averaged and no duration needed. others: events that are no trials but in the model, type -> onsets, durations.
    """

    bold: Path
    mask: Path | None
    shown: StimulusEvents
    times: VolumeTimes
    session: int
    key: str
    number: int | None
    durations: np.ndarray
    others: Mapping[str, tuple[np.ndarray, np.ndarray]]
    labels_shown: bool


def find_runs(folders: Folders, subject: str, options: Options, *, estimate: str) -> list[BidsRun]:
    """The runs of a subject, by session, task and number; every mistake names the file and the option that chooses."""
    bolds = sorted(_series(folders, subject, options), key=_order)
    tables = _tables(folders, subject, bolds, options)
    bolds = [bold for bold in bolds if bold in tables]
    labels = _labels_shown([read_table(path) for path in dict.fromkeys(tables.values())], options)
    rows = _rows(tables, options, labels)
    shown = {path: rows.read(path) for path in dict.fromkeys(tables.values())}
    if labels:
        _refuse_rest(list(shown.values()), options)
    else:
        rows.require_one_type_each(list(shown.values()))
    _say_left_out(subject, list(shown.values()), options)
    sessions = session_numbers(
        [bids.entities(bold.name).get("ses", "0") for bold in bolds], "session", str(folders.series / subject)
    )
    several_tasks = len({bids.entities(bold.name).get("task") for bold in bolds}) > 1
    found = []
    for bold, session in zip(bolds, sessions.tolist(), strict=True):
        own = bids.entities(bold.name)
        times = volume_times(bold, raw=folders.raw / subject, repetition_time=options.repetition_time)
        run = BidsRun(
            bold=bold,
            mask=brain_mask_of(bold) if _brain(folders, options) == "fmriprep" else None,
            shown=shown[tables[bold]],
            times=times,
            session=session,
            key=_key(own, several_tasks),
            number=int(own["run"]) if own.get("run", "").isdecimal() else None,
            durations=np.empty(0),
            others={},
            labels_shown=labels,
        )
        found.append(_with_trials_inside(run, options, estimate, rows))
    twice = [key for key, count in Counter(run.key for run in found).items() if count > 1]
    if twice:
        raise InputError(f"{folders.series / subject}: {twice[0]} is the name of two runs; choose one with entities=...")
    return found


def _brain(folders: Folders, options: Options) -> str:
    return options.brain or ("computed" if folders.is_raw else "fmriprep")


def _series(folders: Folders, subject: str, options: Options) -> list[Path]:
    further = {key: value for key, _, value in (one.partition("-") for one in options.entities)}
    named = {"space": options.space, "res": options.res, "task": options.task}
    wanted = {**further, **{key: value for key, value in named.items() if value is not None}}
    sessions = {_plain(name.removeprefix("ses-")) for name in options.sessions}

    def keep(path: Path) -> bool:
        own = bids.entities(path.name)
        in_session = not sessions or _plain(own.get("ses", "")) in sessions
        return in_session and (not options.runs or (own.get("run", "").isdecimal() and int(own["run"]) in options.runs))

    def way(key: str) -> str:
        return f"{key}=..." if key in ("space", "res", "desc", "task") else f"entities={key}-..."

    desc = None if folders.is_raw else options.desc
    place = folders.series / subject
    if (sessions or options.runs) and not any(keep(path) for path in place.glob("**/func/*_bold.nii*")):
        there = sorted({_key(bids.entities(path.name), True) for path in place.glob("**/func/*_bold.nii*")})
        raise NotFoundError(
            f"{place}: no series of the sessions and runs that are asked for; there are: {', '.join(there[:12])}"
        )
    return choose_series(place, {"desc": desc, **wanted}, way=way, keep=keep)


def _plain(name: str) -> str:
    return name.lstrip("0") or "0" if name.isdecimal() else name


def _order(bold: Path) -> tuple[tuple[int, str], str, int, str]:
    """Sessions, then tasks, then runs, by their numbers: run-2 before run-10."""
    own = bids.entities(bold.name)
    session = own.get("ses", "")
    return ((int(session), "") if session.isdecimal() else (-1, session)), own.get("task", ""), int(
        own["run"] if own.get("run", "").isdecimal() else 0
    ), bold.name  # fmt: skip


def _key(own: Mapping[str, str], several_tasks: bool) -> str:
    """What a run is called: session, task where there are several, number."""
    kept = ["ses", *(["task"] if several_tasks else []), "run"]
    return "_".join(f"{key}-{own[key]}" for key in kept if key in own) or f"task-{own.get('task', '')}"


def _tables(folders: Folders, subject: str, bolds: Sequence[Path], options: Options) -> dict[Path, Path]:
    """Series -> its table of events; a run without one is refused, or left out and said."""
    files, found = bids.find_events(folders.raw / subject), {}
    for bold in bolds:
        try:
            found[bold] = files.of(bold.name)
        except FileError as error:
            if options.missing == "refuse":
                raise FileError(
                    f"{error}; missing=skip goes on without the run, sessions=... and runs=... choose runs"
                ) from error
            log(f"{bold.name}: no events; going on without it")
    if not found:
        raise FileError(f"{folders.raw / subject}: no run has events")
    return found


# --- what is shown ----------------------------------------------------------------------------------------------------


def _labels_shown(tables: Sequence[Table], options: Options) -> bool:
    """Whether trials show labels alone: no table names a stimulus in any row."""
    if options.shown is not None:
        return options.shown == "labels"
    columns = [options.stimulus_column] if options.stimulus_column else ["stimulus", "stim_file"]
    naming = [
        table
        for table in tables
        for name in columns
        if table.has(name) and not all(is_none(cell) for cell in table.column(name))
    ]
    if naming or options.stimulus_column:
        return False
    if not any(_type_column(table, options) for table in tables):
        table = tables[0]
        raise NotFoundError(
            f"{table.path}: neither names what was shown (stimulus, stim_file) nor has types (trial_type); there are: "
            f"{', '.join(table.columns)}. Name the column with stimulus_column=..., or type_column=... for labels alone"
        )
    return True


def _type_column(table: Table, options: Options) -> str | None:
    if options.type_column:
        return options.type_column
    return next((name for name in (*TYPE_COLUMNS, *LIKELY_TYPE_COLUMNS) if table.has(name)), None)


def _rows(tables: Mapping[Path, Path], options: Options, labels: bool) -> Rows:
    """Which rows are trials; labels stand where the types do."""
    column = options.stimulus_column
    if labels:
        column = _type_column(read_table(next(iter(tables.values()))), options)
    return Rows(
        stimulus_column=column,
        trial_type=options.trial_type,
        type_column=(options.type_column or column) if labels else options.type_column,
        block_gap_s=options.block_gap_s,
    )


def _refuse_rest(runs: Sequence[StimulusEvents], options: Options) -> None:
    kinds = list(dict.fromkeys(name for shown in runs for name in shown.names))
    resting = [kind for kind in kinds if kind.casefold() in REST]
    if resting and not options.trial_type:
        shown = ",".join(kind for kind in kinds if kind not in resting)
        raise InputError(
            f"{runs[0].path}: rows of the type {', '.join(map(repr, resting))} show nothing, by their name; say which types "
            f"are trials: "
            f"trial_type={shown or '...'}"
        )


def _say_left_out(subject: str, runs: Sequence[StimulusEvents], options: Options) -> None:
    counts: Counter[str] = Counter()
    for shown in runs:
        counts.update(shown.left_out)
    left = {kind: count for kind, count in counts.items() if kind not in options.nuisance}
    if left:
        said = ", ".join(f"{kind or 'none'} {count}" for kind, count in left.items())
        log(f"{subject}: rows of events that are no trials, and not in the model (nuisance=... puts them in): {said}")


# --- which trials were measured ---------------------------------------------------------------------------------------


def _with_trials_inside(run: BidsRun, options: Options, estimate: str, rows: Rows) -> BidsRun:
    """The run with the trials whose response is in it; others are refused, or left out and counted."""
    shown, end = run.shown, run.times.end
    if estimate != "glmsingle":
        needed = options.window_to_s if estimate == "window" else LEAST_AFTER_S
        first = min(float(run.times.times[0]), 0.0)
        inside = (shown.onsets >= first) & (shown.onsets + needed <= end + 1e-6)
        if not inside.all():
            _refuse_outside(run, inside, needed, options)
            warn(f"{shown.path}: {int((~inside).sum())} of {len(inside)} trials are left out; they are not inside the run")
            shown = shown.take(np.flatnonzero(inside))
    is_model = estimate in ("lss", "lsa")
    durations = require_durations(shown, options.duration_s, "duration_s=...") if is_model else shown.durations
    others = {}
    if is_model and options.nuisance:
        for kind, (onsets, lengths) in rows.read_others(shown.path, options.nuisance).items():
            if not np.isfinite(lengths).all():
                raise InputError(
                    f"{shown.path}: rows of the type '{kind}' have no duration in seconds; leave it out of nuisance"
                )
            if kind in shown.types:
                raise InputError(f"{shown.path}: rows of the type '{kind}' are trials, and cannot be nuisance too")
            others[kind] = (onsets, lengths)
    return replace(run, shown=shown, durations=durations, others=others)


def _refuse_outside(run: BidsRun, inside: np.ndarray, needed: float, options: Options) -> None:
    shown, end = run.shown, run.times.end
    far = shown.onsets.max() > FAR_BEYOND * end
    if options.drop_unmeasured_trials and inside.any() and not far:
        return
    hint = "are onsets in seconds?" if far else "is it the table of this run? drop_unmeasured_trials=true leaves them out"
    outside = ", ".join(f"{onset:g}" for onset in shown.onsets[~inside][:3])
    raise InputError(
        f"{shown.path}: {int((~inside).sum())} of {len(inside)} trials (onsets {outside} s) do not begin inside the run of "
        f"{run.bold.name} with {needed:g} s after them: it ends at {end:g} s ({len(run.times.times)} volumes); {hint}"
    )
