"""Trial responses from fMRIPrep outputs: a simple estimate, for data that has no single-trial betas yet.

Each run is detrended (linear) and z-scored per voxel over all its volumes (nilearn.signal.clean), and the response to a
trial is the mean of the volumes acquired in a window after its onset, 4 to 8 s by default, around the peak of the
haemodynamic response to a brief stimulus. Volume i of a run is acquired at StartTime + i * RepetitionTime (StartTime from the
JSON sidecar, 0 without one).

What it is not: responses of neighbouring trials overlap and are not pulled apart, no confounds are regressed out, the shape
of the haemodynamic response is not fitted, and a run's mean, trend and spread come from all of its trials, test trials too.
Single-trial betas of GLMsingle (Prince et al. 2022) do better on each of these counts; use them where you can.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.data.brain_files import Mask, read_mask, read_series_header, read_volume, require_same_grid, series_inside
from pulvinar.data.sessions import session_numbers
from pulvinar.data.tables import Table, Trials, is_none, read_table
from pulvinar.errors import FileError, InputError, NotFoundError
from pulvinar.progress import track, warn
from pulvinar.storage import read_json

BOLD, BRAIN_MASK, EVENTS = "_desc-preproc_bold.nii.gz", "_desc-brain_mask.nii.gz", "_events.tsv"
STIMULUS_COLUMNS = ("stimulus", "stim_file")
WINDOW_S = (4.0, 8.0)
NOT_IN_EVENTS = ("space", "res", "den", "desc", "cohort", "part")
VOXELS_AT_ONCE = 20_000  # float64 copies of nilearn: 300 volumes of this many voxels are 48 MB


@dataclass(frozen=True, kw_only=True, eq=False)
class Run:
    """One run: its files, its session label, and for every trial that is kept the stimulus id and the volumes to average."""

    bold: Path
    mask: Path
    session: str
    stimulus_ids: Sequence[str]
    volumes: Sequence[np.ndarray]


def find_runs(
    folder: Path,
    *,
    events: Path,
    space: str | None = None,
    task: str | None = None,
    window_s: tuple[float, float] = WINDOW_S,
    stimulus_column: str | None = None,
) -> list[Run]:
    """The runs of one subject's fMRIPrep folder (`sub-01`), in order of file name, with their trials.

    `events` is the folder under which the BIDS `*_events.tsv` of the subject lie. `space` and `task` choose where there are
    several. The stimulus is named in `stimulus_column` ('stimulus' or 'stim_file' without it), as the table writes it
    (`data.image_ids` makes ids of it); rows with 'n/a' there are not trials. A trial whose window is not over before the run ends is
    left out, with a warning.

    Raises `FileError` or `InputError` when a file is missing or unusable, naming it and what was looked for.
    """
    bolds = _chosen(folder, space=space, task=task)
    tables = _events_by_entities(events)
    runs = []
    for bold in bolds:
        mask = bold.with_name(bold.name.replace(BOLD, BRAIN_MASK))
        if not mask.is_file():
            raise FileError(f"{bold}: its brain mask {mask.name} is not beside it")
        runs.append(_run(bold, mask, _events_of(bold, tables, events), window_s, stimulus_column))
    return runs


def trials_of(runs: Sequence[Run]) -> Trials:
    """The trial table of all runs together; runs are numbered from 0, sessions by their label ('ses-02' is 2)."""
    sessions = session_numbers([run.session for run in runs], "session", str(runs[0].bold.parent))
    counts = [len(run.stimulus_ids) for run in runs]
    return Trials(
        origin=f"events of {runs[0].bold.parent}",
        stimulus_ids=[name for run in runs for name in run.stimulus_ids],
        sessions=np.repeat(sessions, counts),
        runs=np.repeat(np.arange(len(runs)), counts),
    )


def read_responses(runs: Sequence[Run], *, within: Mask | None = None) -> tuple[np.ndarray, Mask]:
    """Responses (trial, voxel) float32, and the mask: voxels inside the brain mask of every run (and inside `within`).

    A voxel that is constant in a run has response 0 there; one that is not finite in a run has response NaN there.
    """
    masks = [read_mask(path) for path in dict.fromkeys(run.mask for run in runs)]
    masks += [within] if within is not None else []
    for mask in masks[1:]:
        require_same_grid(masks[0], mask.path, mask.inside.shape, mask.affine)
    common = Mask(path=masks[0].path, inside=np.logical_and.reduce([mask.inside for mask in masks]), affine=masks[0].affine)
    if not common.n_voxels:
        raise InputError(f"{runs[0].bold.parent}: no voxel is inside all of its {len(masks)} masks")
    blocks = []
    for run in track(runs, "averaging volumes", len(runs)):
        volume = read_volume(run.bold)
        series, scale = series_inside(volume, common)
        cleaned = detrended_zscores(series.astype(np.float32) * np.float32(scale))
        blocks.append(np.stack([cleaned[volumes].mean(0) for volumes in run.volumes]))
    return np.concatenate(blocks), common


def detrended_zscores(series: np.ndarray) -> np.ndarray:
    """Series (time, voxel) without their linear trend, divided by their standard deviation (ddof 1): float32.

    A constant series is 0; one with a value that is not finite is NaN throughout.
    """
    import nilearn.signal

    cleaned = np.zeros(series.shape, np.float32)
    finite = np.isfinite(series).all(0)
    cleaned[:, ~finite] = np.nan
    good = np.flatnonzero(finite & (series != series[0]).any(0))
    for start in range(0, len(good), VOXELS_AT_ONCE):
        voxels = good[start : start + VOXELS_AT_ONCE]
        block = series[:, voxels].astype(np.float64)
        cleaned[:, voxels] = nilearn.signal.clean(block, detrend=True, standardize="zscore_sample", filter=False)
    return cleaned


def entities(name: str) -> dict[str, str]:
    """The key-value pairs of a BIDS file name; numbers without leading zeros, so that run-1 and run-01 agree.

    >>> entities("sub-01_task-look_run-02_events.tsv")
    {'sub': '01', 'task': 'look', 'run': '2'}
    """
    pairs = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
    return {key: value.lstrip("0") or "0" if key in ("run", "echo") else value for key, value in pairs.items()}


def _chosen(folder: Path, *, space: str | None, task: str | None) -> list[Path]:
    """The preprocessed series of one space and task, sorted."""
    found = sorted([*folder.glob(f"func/*{BOLD}"), *folder.glob(f"ses-*/func/*{BOLD}")])
    found = [path for path in found if "echo" not in entities(path.name)]  # single echoes stand beside their combination
    if not found:
        raise FileError(f"{folder}: no func/*{BOLD} and no ses-*/func/*{BOLD}; is this a subject's folder of fMRIPrep?")
    for key, wanted in (("space", space), ("task", task)):
        having = {path: entities(path.name).get(key, "none") for path in found}
        there = sorted(set(having.values()))
        if wanted is None and len(there) > 1:
            raise InputError(f"{folder}: there are several of '{key}': {', '.join(there)}; choose one with {key} = ...")
        found = [path for path in found if wanted in (None, having[path])]
        if not found:
            raise NotFoundError(f"{folder}: no preprocessed series with {key} '{wanted}'; there are: {', '.join(there)}")
    resolutions = {entities(path.name).get("res", "none") for path in found}
    if len(resolutions) > 1:
        raise InputError(
            f"{folder}: series of several resolutions (res-{', res-'.join(sorted(resolutions))}); keep one of them"
        )
    return found


def _events_by_entities(folder: Path) -> dict[frozenset, Path]:
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of events")
    return {frozenset(entities(path.name[: -len(EVENTS)]).items()): path for path in sorted(folder.rglob(f"*{EVENTS}"))}


def _events_of(bold: Path, tables: Mapping[frozenset, Path], folder: Path) -> Path:
    own = {key: value for key, value in entities(bold.name[: -len(BOLD)]).items() if key not in NOT_IN_EVENTS}
    if frozenset(own.items()) not in tables:
        wanted = "_".join(f"{key}-{value}" for key, value in own.items()) + EVENTS
        raise FileError(f"{folder}: no {wanted} for {bold.name}; there are: {[path.name for path in tables.values()][:4]}")
    return tables[frozenset(own.items())]


def _run(bold: Path, mask: Path, events: Path, window_s: tuple[float, float], stimulus_column: str | None) -> Run:
    start, step, n_volumes = _timing(bold)
    times = start + step * np.arange(n_volumes)
    ids, onsets = _shown(read_table(events), stimulus_column)
    covered = (onsets + window_s[0] >= start) & (onsets + window_s[1] <= start + step * n_volumes)
    if not covered.all():
        warn(f"{events}: {int((~covered).sum())} of {len(ids)} trials are left out; their window is not inside the run")
    if not covered.any():
        raise InputError(f"{events}: no trial has its window of {window_s[0]:g} to {window_s[1]:g} s inside the run")
    margin = 1e-6
    volumes = [
        np.flatnonzero((times >= onset + window_s[0] - margin) & (times <= onset + window_s[1] + margin))
        for onset in onsets[covered]
    ]
    if any(len(chosen) == 0 for chosen in volumes):
        raise InputError(f"{bold}: no volume within {window_s} s of some onsets; volumes are {step:g} s apart, widen window_s")
    return Run(
        bold=bold,
        mask=mask,
        session=entities(bold.name).get("ses", "0"),
        stimulus_ids=[name for name, kept in zip(ids, covered, strict=True) if kept],
        volumes=volumes,
    )


def _is_time(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and low <= value <= high


def _timing(bold: Path) -> tuple[float, float, int]:
    """Time of the first volume and seconds between volumes (sidecar before header), and the number of volumes."""
    n_volumes, from_header = read_series_header(bold)
    sidecar = bold.with_name(bold.name.replace(".nii.gz", ".json"))
    content = read_json(sidecar) if sidecar.is_file() else {}
    stated: Any = content.get("RepetitionTime", from_header) if isinstance(content, dict) else from_header
    start = content.get("StartTime", 0.0) if isinstance(content, dict) else 0.0
    if not (_is_time(stated, 0.05, 30.0) and _is_time(start, -60.0, 60.0)):
        raise InputError(
            f"{bold}: repetition time {stated!r} s, first volume at {start!r} s cannot be; "
            f"write RepetitionTime (s) into {sidecar.name}"
        )
    if from_header is not None and abs(from_header - stated) > 0.001:
        warn(f"{bold}: the header says {from_header:g} s per volume, {sidecar.name} says {stated:g}; the latter is used")
    return float(start), float(stated), n_volumes


def _shown(table: Table, stimulus_column: str | None) -> tuple[list[str], np.ndarray]:
    """Stimulus ids and onsets (trial,), in s, of the rows that show a stimulus."""
    column = stimulus_column or next((name for name in STIMULUS_COLUMNS if table.has(name)), None)
    if column is None:
        raise NotFoundError(
            f"{table.path}: no column 'stimulus' or 'stim_file'; there are: {', '.join(table.columns)}. "
            "Name the one that holds the stimulus ids: stimulus_column = ..."
        )
    ids, onsets = [], []
    for line, name, onset in zip(table.lines, table.column(column), table.column("onset"), strict=True):
        if is_none(name):
            continue
        try:
            seconds = float(onset)
        except ValueError:
            seconds = float("nan")
        if not np.isfinite(seconds):
            raise InputError(f"{table.path}: onset {onset!r} in line {line} is not a time in seconds")
        ids.append(name)
        onsets.append(seconds)
    if not ids:
        raise InputError(f"{table.path}: no row has a stimulus in column '{column}'")
    return ids, np.array(onsets)
