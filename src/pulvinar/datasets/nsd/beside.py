"""Sessions beside NSD that serve as another kind of test: NSD-synthetic (284 artificial pictures) and NSD-imagery (12 targets).

What is established of their files stands here; what is not is asked for, or left out:

- `nsdsynthetic…/betas_nsdsynthetic` has 744 trials, 8 runs of 93. `masterordering` of nsdsynthetic_expdesign.mat counts
  pictures from 1 to 284: the first 220 are in nsdsynthetic_stimuli.hdf5, the others are each subject's own colour pictures
  (nsdsynthetic_colorstimuli_subjAA.hdf5). A number twice in a row is the one-back task (`one_back`). The pictures are stored
  linear, for a screen with a gamma; what was seen is said to be sqrt(x / 255) * 255 (`gamma=sqrt`).
- `nsdimagery…/betas_nsdimagery` has 720 betas, in the order of `BLOCKS`. Rows of nsdimagery_subjAA_RUN.tsv are the betas of a
  block, their CONDITION the target. Whether the two betas of an attention trial alternate is not known, so these are left out;
  conceptual targets (set C) have no single picture and are left out too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log
from pulvinar.data.hdf5_images import HDF5Images
from pulvinar.data.image_files import ImageFiles
from pulvinar.data.matlab_files import read_matlab
from pulvinar.data.split_choice import SPLIT_FACT
from pulvinar.data.tables import read_table
from pulvinar.datasets.nsd import files as nsd_files
from pulvinar.datasets.nsd.files import FIRST_INDEX, HEMISPHERES
from pulvinar.datasets.nsd.spaces import Space, SurfaceSpace

BesideName = Literal["synthetic", "imagery", "imagery_vision"]
OneBack = Literal["drop", "keep"]
Gamma = Literal["stored", "sqrt"]

SESSION = 99  # the number that a session beside NSD has here, behind all of NSD's
N_SYNTHETIC, N_SYNTHETIC_RUNS = 744, 8
N_GREY, N_COLOUR = 220, 64
SYNTHETIC_DESIGN = "nsddata/experiments/nsdsynthetic/nsdsynthetic_expdesign.mat"
SYNTHETIC_STIMULI = "nsddata_stimuli/stimuli/nsdsynthetic"
TRIALS_PER_RUN, N_IMAGERY = 48, 720
BLOCKS = {  # run -> betas; an attention trial has two
    **{"visA": 48, "attA": 96, "imgA_1": 48, "visB": 48, "attB": 96, "imgB_1": 48},
    **{"visC": 48, "attC": 96, "imgC_1": 48, "imgA_2": 48, "imgB_2": 48, "imgC_2": 48},
}
STIMULI_INFO = "stimuli_info.csv"
OF_TEST = {"imagery": ("imgA_1", "imgB_1", "imgA_2", "imgB_2"), "imagery_vision": ("visA", "visB")}
TARGETS = ("nsddata/experiments/nsdimagery", "nsddata_stimuli/stimuli/nsdimagery")  # where rawtargetimages is looked for


@dataclass(frozen=True, kw_only=True, eq=False)
class Beside:
    """The trials of a subject's session beside NSD that are the test: their rows in the file, ids and runs."""

    subject: str
    kind: str
    rows: np.ndarray
    ids: list[str]
    runs: np.ndarray

    @property
    def n_betas(self) -> int:
        """Trials (or betas) of the whole file."""
        return N_SYNTHETIC if self.kind == "nsdsynthetic" else N_IMAGERY

    def read(self, space: Space) -> np.ndarray:
        """(trial, voxel) of these trials on the voxels of a space, in its own type and scale."""
        folder = space.place.betas_folder.parent / f"{self.kind}{space.place.betas}"
        if isinstance(space, SurfaceSpace):
            paths = [folder / f"{side}.betas_{self.kind}.mgh" for side in HEMISPHERES]
            return nsd_files.read_mgh_session(paths, space.vertices, space.n_vertices, n_trials=self.n_betas)[self.rows]
        path = folder / f"betas_{self.kind}.hdf5"
        if path.is_file():
            return nsd_files.read_hdf5_session(path, space.index, space.grid, n_trials=self.n_betas)[self.rows]
        path = folder / f"betas_{self.kind}.nii.gz"
        if not path.is_file():
            raise FileError(f"{path}: no such file, nor betas_{self.kind}.hdf5; fetch it, or test on NSD's own images")
        return nsd_files.read_nifti_session(path, space.index, space.grid, n_trials=self.n_betas)[self.rows]


def open_beside(root: Path, subject: str, test: BesideName, *, one_back: OneBack) -> Beside:
    """The test trials of a subject; `FileError` or `InputError` names a table that is missing or holds what it should not."""
    return _synthetic(root, subject, one_back) if test == "synthetic" else _imagery(root, subject, test)


# --- NSD-synthetic ----------------------------------------------------------------------------------------------------


def _synthetic(root: Path, subject: str, one_back: OneBack) -> Beside:
    order = _read_order(root / SYNTHETIC_DESIGN)
    runs = np.repeat(np.arange(1, N_SYNTHETIC_RUNS + 1), N_SYNTHETIC // N_SYNTHETIC_RUNS)
    again = np.concatenate([[False], (order[1:] == order[:-1]) & (runs[1:] == runs[:-1])])
    rows = np.flatnonzero(~again) if one_back == "drop" else np.arange(len(order))
    ids = [synthetic_id(int(order[row]), subject) for row in rows]
    return Beside(subject=subject, kind="nsdsynthetic", rows=rows, ids=ids, runs=runs[rows])


def synthetic_id(number: int, subject: str) -> str:
    """Id of a picture (from 0): the same for all subjects, but for the colour pictures, which are each subject's own.

    >>> synthetic_id(3, "subj02"), synthetic_id(220, "subj02")
    ('nsdsynthetic003', 'nsdsynthetic220_subj02')
    """
    return f"nsdsynthetic{number:03d}" + (f"_{subject}" if number >= N_GREY else "")


def _read_order(path: Path) -> np.ndarray:
    """Pictures of the 744 trials, from 0."""
    tables = read_matlab(path)
    if "masterordering" not in tables:
        raise FileError(f"{path}: no variable masterordering; there are: {', '.join(tables) or 'none'}")
    order, last = tables["masterordering"].ravel(), N_GREY + N_COLOUR
    if len(order) != N_SYNTHETIC or order.dtype.kind not in "iuf" or (order != np.floor(order)).any():
        raise FileError(f"{path}: masterordering has a whole number for {N_SYNTHETIC} trials, {order.dtype} {order.shape} came")
    if order.min() < 1 or order.max() > last:
        raise FileError(f"{path}: masterordering counts from 1 to {last}, {int(order.min())} to {int(order.max())} came")
    return order.astype(np.int64) - FIRST_INDEX


class _SyntheticImages:
    """Pictures of NSD-synthetic by id, each from the file that it is in."""

    def __init__(self, root: Path, ids: Sequence[str], *, size: int | None, gamma: Gamma) -> None:
        self.gamma, self._place = gamma, {}
        rows: dict[str, list[int]] = {}
        for one in ids:
            number, _, subject = one.removeprefix("nsdsynthetic").partition("_")
            name = f"nsdsynthetic_colorstimuli_{subject}" if subject else "nsdsynthetic_stimuli"
            own = rows.setdefault(name, [])
            self._place[one] = (name, len(own))
            own.append(int(number) - (N_GREY if subject else 0))
        folder = root / SYNTHETIC_STIMULI
        self._files = {name: HDF5Images(folder / f"{name}.hdf5", "imgBrick", own, size=size) for name, own in rows.items()}

    def __call__(self, stimulus: str) -> np.ndarray:
        name, place = self._place[stimulus]
        pixels = self._files[name](place)
        if self.gamma == "stored":
            return pixels
        return np.rint(np.sqrt(pixels / 255) * 255).astype(np.uint8)


# --- NSD-imagery ------------------------------------------------------------------------------------------------------


def _imagery(root: Path, subject: str, test: BesideName) -> Beside:
    first = dict(zip(BLOCKS, np.cumsum([0, *BLOCKS.values()]).tolist(), strict=False))
    rows: list[int] = []
    ids: list[str] = []
    runs: list[int] = []
    set_of: dict[str, str] = {}
    for number, run in enumerate(BLOCKS, start=1):
        if run not in OF_TEST[test]:
            continue
        path = root / "nsddata" / "bdata" / "nsdimagery" / f"nsdimagery_{subject}_{run}.tsv"
        shown = read_table(path).full_column("CONDITION")
        if len(shown) != TRIALS_PER_RUN:
            raise InputError(f"{path}: {len(shown)} rows; a run of NSD-imagery has {TRIALS_PER_RUN} trials")
        for one in shown:
            if set_of.setdefault(one, run[3]) != run[3]:
                raise InputError(f"{path}: condition {one} is of set {set_of[one]} too; which target is it?")
        rows += range(first[run], first[run] + TRIALS_PER_RUN)
        ids += [f"nsdimagery_{one}" for one in shown]
        runs += [number] * TRIALS_PER_RUN
    return Beside(subject=subject, kind="nsdimagery", rows=np.array(rows), ids=ids, runs=np.array(runs))


def _target_images(root: Path, ids: Sequence[str]) -> ImageFiles:
    """The pictures of conditions, by stimuli_info.csv (condition, file_name) of rawtargetimages."""
    found = [path for place in TARGETS for path in sorted((root / place).glob("**/rawtargetimages"))]
    if len(found) != 1:
        said = " and ".join(map(str, found[:2])) if found else "no folder rawtargetimages"
        raise FileError(f"{root}: {said} below {' or '.join(TARGETS)}; one is needed for the pictures (or images=false)")
    places = [place / STIMULI_INFO for place in (found[0], found[0].parent)]
    path = next((path for path in places if path.is_file()), places[0])
    table = read_table(path)
    conditions, names = table.full_column("condition"), table.full_column("file_name")
    if len(set(conditions)) < len(conditions):
        raise InputError(f"{path}: a condition stands there twice; which picture is it?")
    known = dict(zip(conditions, names, strict=True))
    missing = [one for one in ids if one.removeprefix("nsdimagery_") not in known]
    if missing:
        raise InputError(f"{path}: no condition {missing[0].removeprefix('nsdimagery_')}; there are {', '.join(conditions)}")
    return ImageFiles([found[0] / known[one.removeprefix("nsdimagery_")] for one in ids])


# --- pictures of both -------------------------------------------------------------------------------------------------


class JoinedImages:
    """Row of the stimuli -> pixels: NSD's own first, then those of the session beside it."""

    def __init__(self, first: Callable[[int], np.ndarray], n_first: int, second: Callable[[int], np.ndarray]) -> None:
        self.first, self.n_first, self.second = first, n_first, second

    def __call__(self, row: int) -> np.ndarray:
        """Pixels uint8 (height, width, 3)."""
        return self.first(row) if row < self.n_first else self.second(row - self.n_first)


def images_of(
    root: Path, test: BesideName, ids: Sequence[str], *, size: int | None, gamma: Gamma
) -> Callable[[int], np.ndarray] | None:
    """The pictures of these ids by their row; None, said, where NSD-synthetic's files are not there."""
    if test != "synthetic":
        return _target_images(root, ids)
    if not (root / SYNTHETIC_STIMULI).is_dir():
        log(f"{root / SYNTHETIC_STIMULI} is not there; going on without images")
        return None
    read = _SyntheticImages(root, ids, size=size, gamma=gamma)
    return lambda row: read(ids[row])


def said_of(test: BesideName, one_back: OneBack, gamma: Gamma) -> dict[str, Any]:
    """What a result has to say of such a test."""
    if test == "synthetic":
        return {
            SPLIT_FACT: "ood: NSD-synthetic, a session of its own; trained on NSD",
            "one_back": f"repetitions in a row: {one_back}",
            "pictures": "as stored, linear" if gamma == "stored" else "sqrt(x / 255) * 255 of what is stored",
        }
    what = "imagined" if test == "imagery" else "seen (their letter cue may belong to another target)"
    return {SPLIT_FACT: f"NSD-imagery, targets of sets A and B, {what}; trained on NSD"}
