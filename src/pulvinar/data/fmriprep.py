"""Trial responses from fMRIPrep outputs: a simple estimate, for data that has no single-trial betas yet.

Each run is detrended (linear) and z-scored per voxel over all its volumes (nilearn.signal.clean), and the response to a
trial is the mean of the volumes acquired in a window after its onset, 4 to 8 s by default, around the peak of the
haemodynamic response to a brief stimulus. When a volume was acquired, data/volume_times.py says; what a run showed,
data/events.py; which files belong together, data/bids.py.

What it is not: responses of neighbouring trials overlap and are not pulled apart, no confounds are regressed out, the shape
of the haemodynamic response is not fitted, and a run's mean, trend and spread come from all of its trials, test trials too.
Single-trial betas of GLMsingle (Prince et al. 2022) do better on each of these counts; use them where you can.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import track, warn
from pulvinar.core.sampling import blocks_of
from pulvinar.data import bids
from pulvinar.data.bids import OF_DERIVATIVES, find_events, of_scan, visible_files
from pulvinar.data.brain_files import AFFINE_TOLERANCE, Mask, read_mask, require_same_grid
from pulvinar.data.events import Rows, StimulusEvents
from pulvinar.data.sessions import session_numbers
from pulvinar.data.tables import Trials
from pulvinar.data.volume_series import read_series
from pulvinar.data.volume_times import VolumeTimes, volume_times

BOLD_SUFFIXES, MASK_SUFFIXES = ("_bold.nii.gz", "_bold.nii"), ("_mask.nii.gz", "_mask.nii")
PREPROCESSED, BRAIN = "preproc", "brain"  # values of `desc`
WINDOW_S = (4.0, 8.0)
FAR_BEYOND = 10  # run lengths: an onset beyond them is in another unit
MARGIN_S = 1e-4  # by which a volume may miss the window: rounding of a repetition time, over hundreds of volumes
VOXELS_AT_ONCE = 20_000  # float64 copies of nilearn: 300 volumes of this many voxels are 48 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run: its files, its session label, and for every trial the stimulus as the events name it and the volumes to average.

    A trial in a pause of the run has no volumes; `trials_of` refuses it. onsets: of these trials, in s.
    """

    bold: Path
    mask: Path
    events: Path
    session: str
    stimulus_ids: Sequence[str]
    onsets: np.ndarray
    volumes: Sequence[np.ndarray]


def find_runs(
    folder: Path,
    *,
    events: Path,
    space: str | None = None,
    task: str | None = None,
    window_s: tuple[float, float] = WINDOW_S,
    stimulus_column: str | None = None,
    trial_type: Sequence[str] = (),
    type_column: str | None = None,
    entities: Mapping[str, str] | None = None,
    repetition_time: float | None = None,
    drop_unmeasured_trials: bool = False,
) -> list[Run]:
    """The runs of one subject's fMRIPrep folder (`sub-01`), in order of file name, with their trials.

    `events` is the folder under which the BIDS `*_events.tsv` of the subject lie (tables in the folders above hold too, as
    BIDS lets them inherit). `space`, `task` and `entities` (such as res or desc; desc is preproc without it) choose where there
    are several forms or tasks. `stimulus_column`, `trial_type` and `type_column`: see data/events.py's `Rows`.
    `repetition_time`: in s, where files do not say it or contradict each other.

    A trial before the run, or whose window is not over before the run ends, is left out with a warning. One whose window holds
    no volume because the run paused is refused by `trials_of`, or left out with `drop_unmeasured_trials`.

    Raises `FileError`, `InputError` or `NotFoundError` when a file is missing, unusable, or one of two that claim the same
    run, naming it and what was looked for.
    """
    rows = Rows(stimulus_column=stimulus_column, trial_type=tuple(trial_type), type_column=type_column)
    named = {"space": space, "task": task}
    wanted = {**(entities or {}), **{key: value for key, value in named.items() if value is not None}}
    bolds = choose_series(folder, {"desc": PREPROCESSED, **wanted})
    tables = find_events(events)
    table_of = {bold: tables.of(bold.name) for bold in bolds}
    _say_shared(table_of)
    shown = {path: rows.read(path) for path in dict.fromkeys(table_of.values())}
    rows.require_one_type_each(list(shown.values()))
    times = {bold: volume_times(bold, raw=events, repetition_time=repetition_time) for bold in bolds}
    return [_run(bold, shown[table_of[bold]], times[bold], window_s, drop_unmeasured_trials) for bold in bolds]


def trials_of(runs: Sequence[Run]) -> Trials:
    """The trial table of all runs together; runs are numbered from 0, sessions by their label ('ses-02' is 2).

    Raises `InputError` naming the trials for which there is no volume.
    """
    for run in runs:
        _refuse_unmeasured(run)
    labels = [run.session for run in runs]
    numbers = session_numbers(labels, "session", str(runs[0].bold.parent))
    if len(set(numbers.tolist())) < len(set(labels)):
        present = ", ".join(sorted(set(labels)))
        raise InputError(f"{runs[0].bold.parent}: are sessions {present} one? Their names are the same number")
    counts = [len(run.stimulus_ids) for run in runs]
    return Trials(
        origin=f"events of {runs[0].bold.parent}",
        stimulus_ids=[name for run in runs for name in run.stimulus_ids],
        sessions=np.repeat(numbers, counts),
        runs=np.repeat(np.arange(len(runs)), counts),
    )


def read_responses(
    runs: Sequence[Run], *, within: Mask | None = None, tolerance: float = AFFINE_TOLERANCE
) -> tuple[np.ndarray, Mask]:
    """Responses (trial, voxel) float32, and the mask: voxels inside the brain mask of every run (and inside `within`).

    tolerance: by how much (mm) entries of the affines may differ from those of the first mask.
    A voxel that is constant in a run has response 0 there; one that is not finite in a run has response NaN there.
    """
    masks = [read_mask(path, tolerance=tolerance) for path in dict.fromkeys(run.mask for run in runs)]
    masks += [within] if within is not None else []
    for mask in masks[1:]:
        require_same_grid(masks[0], mask.path, mask.inside.shape, mask.affine)
    common = replace(masks[0], inside=np.logical_and.reduce([mask.inside for mask in masks]))
    if not common.n_voxels:
        raise InputError(f"{runs[0].bold.parent}: no voxel is inside all of its {len(masks)} masks")
    for run in runs:
        _refuse_unmeasured(run)
    out, start = memory.empty((sum(len(run.volumes) for run in runs), common.n_voxels), np.float32), 0
    for run in track(runs, "averaging volumes", len(runs)):
        series, scale = read_series(run.bold, common)
        for voxels in blocks_of(common.n_voxels, VOXELS_AT_ONCE):
            cleaned = detrended_zscores(series[:, voxels].astype(np.float32) * np.float32(scale))
            for trial, volumes in enumerate(run.volumes, start):
                out[trial, voxels] = cleaned[volumes].mean(0)
            memory.release(series)
        start += len(run.volumes)
        memory.release(out)
    return out, common


def detrended_zscores(series: np.ndarray) -> np.ndarray:
    """Series (time, voxel) without their linear trend, divided by their standard deviation (ddof 1): float32.

    A constant series is 0; one with a value that is not finite is NaN throughout.
    """
    import nilearn.signal

    cleaned = np.zeros(series.shape, np.float32)
    finite = np.isfinite(series).all(0)
    cleaned[:, ~finite] = np.nan
    good = np.flatnonzero(finite & (series != series[0]).any(0))
    for part in blocks_of(len(good), VOXELS_AT_ONCE):
        voxels = good[part]
        block = series[:, voxels].astype(np.float64)
        cleaned[:, voxels] = nilearn.signal.clean(block, detrend=True, standardize="zscore_sample", filter=False)
    return cleaned


def _way_in_description(key: str) -> str:
    """How a description (TOML) chooses one value of an entity."""
    return f"{key if key in ('space', 'task') else f'entities.{key}'} = ..."


def choose_series(
    folder: Path,
    wanted: Mapping[str, str | None],
    *,
    way: Callable[[str], str] = _way_in_description,
    keep: Callable[[Path], bool] = lambda path: True,
) -> list[Path]:
    """One series per run of a subject's folder, sorted; which of several forms of a run is meant has to be said.

    wanted: entity -> value; `desc` None: series that have none (raw ones). way: how a person chooses the value of an entity,
    for messages. keep: which files are looked at at all. Raises `FileError` where there is no series, `NotFoundError` or
    `InputError` naming what is there.
    """
    found = _series(folder, wanted.get("desc"), way, keep)
    for key in ("space", "task", *(key for key in wanted if key not in ("space", "task", "desc"))):
        having = {path: bids.entities(path.name).get(key, "none") for path in found}
        present = sorted(set(having.values()))
        chosen = wanted.get(key)
        value = None if chosen is None else bids.entities(f"{key}-{chosen}").get(key)
        if value is None and len(present) > 1:
            raise InputError(f"{folder}: there are several of '{key}': {', '.join(present)}; choose one with {way(key)}")
        found = [path for path in found if value in (None, having[path])]
        if not found:
            raise NotFoundError(f"{folder}: no series with {key} '{value}'; there are: {', '.join(present)}")
    _refuse_several_forms(folder, found, way)
    return found


def _series(folder: Path, desc: str | None, way: Callable[[str], str], keep: Callable[[Path], bool]) -> list[Path]:
    """The series of one `desc` in a subject's folder, without single echoes (they stand beside their combination)."""
    patterns = [f"{place}/*{suffix}" for place in ("func", "ses-*/func") for suffix in BOLD_SUFFIXES]
    every = sorted(path for pattern in patterns for path in visible_files(folder, pattern) if keep(path))
    own = {path: bids.entities(path.name) for path in every}
    found = [path for path in every if own[path].get("desc") == desc and "echo" not in own[path]]
    if not found:
        present = sorted({entities.get("desc", "none") for entities in own.values()})
        single = " of single echoes; combine them first" if any("echo" in entities for entities in own.values()) else ""
        form = "" if desc is None else f"_desc-{desc}"
        raise FileError(
            f"{folder}: no func/*{form}_bold.nii.gz and no ses-*/func/*{form}_bold.nii.gz"
            + (f" (there are desc {', '.join(present)}{single}); choose with {way('desc')}" if present else "")
            + ("; is this a subject's folder of fMRIPrep?" if desc else "")
        )
    return found


def _refuse_several_forms(folder: Path, found: Sequence[Path], way: Callable[[str], str]) -> None:
    """Two files of one scan, of several subjects, or of several grids are not put together."""
    known = {path: bids.entities(path.name) for path in found}
    scans: dict[tuple[tuple[str, str], ...], Path] = {}
    for path, own in known.items():
        other = scans.setdefault(tuple(sorted(of_scan(own).items())), path)
        if other != path:
            keys = [key for key in OF_DERIVATIVES if own.get(key) != known[other].get(key)]
            choice = f"choose one with {way(keys[0])}" if keys else "keep one of them"
            raise InputError(
                f"{folder}: {other.relative_to(folder)} and {path.relative_to(folder)} are two series of one run; {choice}"
            )
    for key in ("sub", *OF_DERIVATIVES):
        present = sorted({own.get(key, "none") for own in known.values()})
        if len(present) > 1:
            raise InputError(f"{folder}: there are several of '{key}': {', '.join(present)}; choose one with {way(key)}")


def brain_mask_of(bold: Path) -> Path:
    """The brain mask beside a series: the file with the same entities and `desc-brain`."""
    own = bids.entities(bold.name) | {"desc": BRAIN}
    found = [path for suffix in MASK_SUFFIXES for path in visible_files(bold.parent, f"*{suffix}")]
    found = [path for path in found if bids.entities(path.name) == own]
    if len(found) != 1:
        name = bold.name.partition("_desc-")[0] + "_desc-brain_mask.nii.gz"
        present = f"; there are {', '.join(path.name for path in found)}" if found else ""
        raise FileError(f"{bold}: its brain mask {name} is not beside it{present}")
    return found[0]


def _run(bold: Path, shown: StimulusEvents, volumes: VolumeTimes, window_s: tuple[float, float], drop_unmeasured: bool) -> Run:
    first, last = shown.onsets + window_s[0], shown.onsets + window_s[1]
    inside = (shown.onsets >= min(volumes.times[0], 0.0)) & (first >= volumes.times[0]) & (last <= volumes.end)
    if not inside.any() or shown.onsets.max() > FAR_BEYOND * volumes.end:
        raise InputError(
            f"{shown.path}: {int(inside.sum())} of {len(inside)} trials have their window of {window_s[0]:g} to "
            f"{window_s[1]:g} s inside the run, which ends at {volumes.end:g} s; the last onset is {shown.onsets.max():g}. Are "
            "onsets in seconds?"
        )
    _say_left_out(shown, ~inside, "they are not inside the run")
    within = (volumes.times >= first[:, None] - MARGIN_S) & (volumes.times <= last[:, None] + MARGIN_S)  # (trial, volume)
    measured = within.any(1)
    if drop_unmeasured and (inside & measured).any():
        _say_left_out(shown, inside & ~measured, "the run paused in their window")
        inside &= measured
    trials = np.flatnonzero(inside).tolist()
    return Run(
        bold=bold,
        mask=brain_mask_of(bold),
        events=shown.path,
        session=bids.entities(bold.name).get("ses", "0"),
        stimulus_ids=[shown.names[trial] for trial in trials],
        onsets=shown.onsets[trials],
        volumes=[np.flatnonzero(within[trial]) for trial in trials],
    )


def _say_shared(table_of: Mapping[Path, Path]) -> None:
    """Two series of one run number (other acq, dir, ...) with one table are said: BIDS lets a table hold for both."""
    seen: dict[tuple[Path, tuple[str | None, ...]], Path] = {}
    for bold, table in table_of.items():
        own = bids.entities(bold.name)
        other = seen.setdefault((table, tuple(own.get(key) for key in ("sub", "ses", "task", "run"))), bold)
        if other != bold:
            warn(
                f"{table}: holds for both {other.name} and {bold.name}, which are taken for two runs; choose one with "
                "entities if they are one"
            )


def _say_left_out(shown: StimulusEvents, out: np.ndarray, why: str) -> None:
    if out.any():
        warn(f"{shown.path}: {int(out.sum())} of {len(out)} trials are left out; {why}")


def _refuse_unmeasured(run: Run) -> None:
    without = [f"{onset:g}" for onset, volumes in zip(run.onsets, run.volumes, strict=True) if not len(volumes)]
    if without:
        raise InputError(
            f"{run.events}: no volume of {run.bold.name} was acquired in the window of {len(without)} of {len(run.onsets)} "
            f"trials (onsets {', '.join(without[:3])} s); widen window_s, or leave them out with drop_unmeasured_trials = true"
        )
