"""The three tables of a subject of THINGS-fMRI: responses (voxel, trial), what each trial showed, what each voxel is.

The responses are a data frame as pandas writes it in its fixed format, read here without pandas: `ResponseData/block0_values`
(voxel, trial), `block1_values` (voxel, 1) the voxels' numbers, `block0_items` the columns' names. These names are pickled; they
are not unpickled, but their numbers are taken out of the pickle's instructions and compared with the trials' (see `_labels`).
"""

import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array, refuse_fill
from pulvinar.core.progress import warn
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.tables import Table, read_table

KEY = "ResponseData"
VALUES, ITEMS, NUMBERS = f"{KEY}/block0_values", f"{KEY}/block0_items", f"{KEY}/block1_values"
LARGEST_SLAB = 2**27  # bytes read at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """Where the tables of a subject lie."""

    responses: Path
    stimuli: Path
    voxels: Path


@dataclass(frozen=True, kw_only=True, eq=False)
class Trials:
    """What each trial showed, in the order of the responses' columns: file name, session, run, whether it is a test trial."""

    stimuli: Sequence[str]
    sessions: np.ndarray
    runs: np.ndarray
    is_test: np.ndarray


def find_files(root: Path, subject: str) -> Files:
    """The tables as figshare has them (in the folder or its `betas_csv`), or as OpenNeuro has them; `FileError` for neither."""
    for folder in (root, root / "betas_csv"):
        if (folder / f"{subject}_ResponseData.h5").is_file():
            return Files(
                responses=folder / f"{subject}_ResponseData.h5",
                stimuli=folder / f"{subject}_StimulusMetadata.csv",
                voxels=folder / f"{subject}_VoxelMetadata.csv",
            )
    for folder in root.glob(f"**/ICA-betas/{subject}/voxel-metadata"):
        stem = f"{subject}_task-things_"
        return Files(
            responses=folder / f"{stem}voxel-wise-responses.h5",
            stimuli=folder / f"{stem}stimulus-metadata.tsv",
            voxels=folder / f"{stem}voxel-metadata.tsv",
        )
    raise FileError(f"{root}: no {subject}_ResponseData.h5 there or in betas_csv/, nor ICA-betas/{subject}/voxel-metadata")


@reads("a table of trials")
def read_trials(path: Path) -> Trials:
    """The table of trials, in the order of `trial_id` (0, 1, ...); `InputError` where a trial is missing or there twice."""
    table = read_table(path)
    _require(list(table.columns), path, ("trial_type", "session", "run", "trial_id", "stimulus"))
    numbers = _whole(table, path, "trial_id")
    if sorted(numbers.tolist()) != list(range(len(numbers))):
        twice = next((n for n in numbers.tolist() if (numbers == n).sum() > 1), None)
        why = f"trial {twice} stands there twice" if twice is not None else f"{numbers.min()} to {numbers.max()} came"
        raise InputError(f"{path}: trial_id counts the {len(numbers)} trials from 0; {why}")
    order = np.argsort(numbers)
    kinds = np.array(table.columns["trial_type"])
    if strange := sorted(set(kinds.tolist()) - {"train", "test"}):
        raise InputError(f"{path}: trial_type is train or test, '{strange[0]}' came")
    names = table.columns["stimulus"]
    sides = {kind: {name for name, own in zip(names, kinds.tolist(), strict=True) if own == kind} for kind in ("train", "test")}
    both = sides["train"] & sides["test"]
    if both:
        raise InputError(f"{path}: {len(both)} pictures are shown as train and as test, e.g. {sorted(both)[0]}")
    return Trials(
        stimuli=[names[row] for row in order],
        sessions=_whole(table, path, "session")[order],
        runs=_whole(table, path, "run")[order],
        is_test=(kinds == "test")[order],
    )


def read_voxels(path: Path) -> dict[str, np.ndarray]:
    """Columns of numbers of the table of voxels, in its order: voxel_id, voxel_x, voxel_y, voxel_z, ceilings, regions."""
    import pandas as pd

    path = require_file(path, "table of voxels")
    with reading(path, "a table"), path.open(encoding="utf-8-sig") as file:  # 222 columns of 200,000 rows: no lists of text
        header = file.readline()
        file.seek(0)
        frame = pd.read_csv(file, sep="," if "," in header else "\t", low_memory=False)
    _require(list(frame.columns), path, ("voxel_id", "voxel_x", "voxel_y", "voxel_z", "nc_singletrial", "nc_testset"))
    texts = [name for name in frame.columns if frame[name].dtype.kind not in "biuf" and name != "subject_id"]
    if texts:
        raise InputError(f"{path}: column '{texts[0]}' holds text; numbers are needed")
    found = {str(name): frame[name].to_numpy() for name in frame.columns if name != "subject_id"}
    for name in ("voxel_id", "voxel_x", "voxel_y", "voxel_z"):
        if not np.array_equal(found[name], np.floor(found[name])):
            raise InputError(f"{path}: column '{name}' holds whole numbers; others came")
    if len(np.unique(found["voxel_id"])) != len(found["voxel_id"]):
        raise InputError(f"{path}: a voxel_id stands there twice")
    return found


def _require(present: Sequence[str], path: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise NotFoundError(f"{path}: no column {', '.join(missing)}; there are: {', '.join(present[:12])}")


def _whole(table: Table, path: Path, name: str) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in table.columns[name]])
    except ValueError as error:
        raise InputError(f"{path}: column '{name}': {error}") from error


# --- responses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class ResponseTable:
    """`ResponseData` of a subject, on disk: responses of `n_trials` trials at the voxels of `numbers` (row -> voxel_id)."""

    path: Path
    n_trials: int
    numbers: np.ndarray
    stored: np.dtype

    def read(self, rows: np.ndarray, trials: np.ndarray) -> np.ndarray:
        """float32 (trial, voxel) of some rows of the file (ascending) and some trials, a slab of voxels at a time."""
        out = np.empty((len(trials), len(rows)), np.float32)
        first, last = int(trials.min()), int(trials.max()) + 1
        step = max(1, LARGEST_SLAB // ((last - first) * self.stored.itemsize))
        with open_hdf5(self.path) as file, reading(self.path, f"HDF5, dataset '{VALUES}'"):
            values = file[VALUES]
            for low in range(int(rows[0]), int(rows[-1]) + 1, step):
                inside = np.flatnonzero((rows >= low) & (rows < low + step))
                if len(inside):
                    slab = values[low : int(rows[inside[-1]]) + 1, first:last]  # (voxel, trial)
                    out[:, inside] = slab[np.ix_(rows[inside] - low, trials - first)].T
        return out


def open_responses(path: Path) -> ResponseTable:
    """The responses' shape, voxel numbers and trial labels, checked; values are read when asked for."""
    with open_hdf5(path) as file:
        group = file.get(KEY)
        if not isinstance(group, h5py.Group) or not isinstance(file.get(VALUES), h5py.Dataset):
            present = ", ".join(group) if isinstance(group, h5py.Group) else ", ".join(file)
            raise NotFoundError(f"{path}: no '{VALUES}', as pandas' fixed format has it; there are: {present or 'none'}")
        values = file[VALUES]
        if values.ndim != 2 or values.dtype.kind != "f":
            raise InputError(f"{path}: responses are floating-point (voxel, trial), {values.dtype} {values.shape} came")
        refuse_fill(str(path), VALUES, values)
        offset = values.id.get_offset()
        if offset is not None and path.stat().st_size < offset + values.nbytes:
            raise FileError(f"{path}: truncated: its responses need {offset + values.nbytes} bytes")
        numbers = read_hdf5_array(file, NUMBERS)
        if numbers.shape != (values.shape[0], 1) or numbers.dtype.kind not in "iuf":
            raise InputError(
                f"{path}: '{NUMBERS}' numbers each of the {values.shape[0]} voxels, {numbers.dtype} {numbers.shape} came"
            )
        _require_labels(path, file, values.shape[1])
        return ResponseTable(
            path=path, n_trials=values.shape[1], numbers=numbers[:, 0].astype(np.int64), stored=np.dtype(values.dtype)
        )


def _require_labels(path: Path, file: h5py.File, n_trials: int) -> None:
    """`InputError` unless the columns are called 0, 1, ...; a warning where their names cannot be told."""
    labels = _labels(path, file)
    if len(labels) != n_trials:
        warn(f"{path}: the names of its columns cannot be told; they are taken for trials 0 to {n_trials - 1}, on trust")
    elif labels != list(range(n_trials)):
        first = next(place for place, label in enumerate(labels) if label != place)
        raise InputError(f"{path}: columns are the trials 0, 1, ... in order; column {first} is called {labels[first]}")


def _labels(path: Path, file: h5py.File) -> list[int]:
    """The whole numbers in the list that `block0_items` pickles, taken from its instructions; nothing is executed."""
    node = file.get(ITEMS)
    if not isinstance(node, h5py.Dataset):
        return []
    with reading(path, f"HDF5, dataset '{ITEMS}'"):
        content = node[...] if node.shape == () else np.concatenate([np.ravel(part) for part in node[...]])
    if content.dtype.kind in "iu" and content.dtype.itemsize > 1:
        return [int(number) for number in content]
    try:
        steps = [(step.name, value) for step, value, _ in pickletools.genops(content.astype(np.uint8).tobytes())]
    except ValueError:
        return []
    marks = [place for place, (name, _) in enumerate(steps) if name == "MARK"]
    ends = [place for place, (name, _) in enumerate(steps) if name == "APPENDS"]
    numbers: list[int] = []
    for end in ends:
        start = max((place for place in marks if place < end), default=end)
        own = [value for name, value in steps[start:end] if name in ("BININT", "BININT1", "BININT2")]
        numbers += [value for value in own if isinstance(value, int)]
    return numbers
