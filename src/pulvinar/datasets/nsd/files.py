"""Files of the Natural Scenes Dataset as they lie on disk: design tables, label volumes, sessions of betas.

What differs from file to file, and is settled here once:

- Tables (`nsd_expdesign.mat`) count from 1; here trials, images and subjects' columns count from 0.
- HDF5 betas are (trial, z, y, x) as h5py sees them, NIfTI betas (x, y, z, trial); both int16, percent signal change x 300.
  Surface betas (.mgh) are (vertex, 1, 1, trial) float32 in percent signal change.
- ROI files hold -1 (not cortex), 0 (no label), 1, 2, ... (labels): inside is `> 0`.

Voxels are given as places in the grid (voxel, 3) in NIfTI axes, sessions come back as (trial, voxel).
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.brain_files import AFFINE_TOLERANCE, open_image, read_volume
from pulvinar.data.matlab_files import read_matlab
from pulvinar.data.volume_series import open_series

TRIALS_PER_SESSION = 750
N_SUBJECTS = 8
N_IMAGES = 73_000
N_SHARED = 1000  # the first columns of `subjectim`: the images that every subject was to see
SHARED_CLUSTERS = (
    "NSD's usual split shares clusters of images between training and test (Shirakawa et al. 2024, arXiv:2405.10078), so that "
    "a score on it flatters; split=leakage_free has none on both sides."
)
FIRST_INDEX = 1  # MATLAB's tables count from 1
STEPS_PER_PERCENT = 300  # int16 betas are percent signal change times 300
HEMISPHERES = ("lh", "rh")
LARGEST_SLAB = 2**27  # bytes of an HDF5 session read at once


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """`nsd_expdesign.mat`, counted from 0: order (trial,) of columns, images (subject, column) -> row of the stimuli.

    Trial t (0-based over all sessions) of subject s showed image `images[s, order[t]]`; it is one of the shared images where
    `order[t] < 1000`.
    """

    path: Path
    order: np.ndarray
    images: np.ndarray

    def images_of(self, subject: int, trials: np.ndarray) -> np.ndarray:
        """Rows (0-based) of the stimuli that a subject (1 to 8) saw on these trials."""
        return self.images[subject - 1, self.order[trials]]

    def is_shared(self, trials: np.ndarray) -> np.ndarray:
        """Whether these trials showed one of the 1,000 shared images."""
        return self.order[trials] < N_SHARED


@reads("a table of NSD's design")
def read_design(path: Path) -> Design:
    """The trial tables, checked: three arrays, 1-based and in range, the first 1,000 columns the same for all subjects."""
    path = require_file(path, "table of the experiment's design")
    tables = read_matlab(path)
    missing = [name for name in ("masterordering", "subjectim", "sharedix") if name not in tables]
    if missing:
        raise FileError(
            f"{path}: no variable {', '.join(missing)}; nsd_expdesign.mat holds masterordering, subjectim, sharedix"
        )
    order, images, shared = tables["masterordering"].ravel(), tables["subjectim"], tables["sharedix"].ravel()
    if images.ndim != 2 or images.shape[1] < N_SHARED:
        raise FileError(f"{path}: subjectim is (subject, 10000), {images.shape} came")
    for name, values, last in (("masterordering", order, images.shape[1]), ("subjectim", images, N_IMAGES)):
        _require_one_based(path, name, values, last)
    twice = [number for number, own in enumerate(images, start=1) if len(np.unique(own)) < len(own)]
    if len(images) != N_SUBJECTS or twice:
        why = f"a subject ({twice[0]}) sees an image in two columns" if twice else f"{len(images)} rows came"
        raise FileError(f"{path}: subjectim has a row of different images for each of the {N_SUBJECTS} subjects; {why}")
    first = images[:, :N_SHARED]
    if (first != first[:1]).any() or set(first[0].tolist()) != set(shared.tolist()):
        raise FileError(
            f"{path}: the first {N_SHARED} columns of subjectim must be the shared images (sharedix) for every subject"
        )
    return Design(path=path, order=order.astype(np.int64) - FIRST_INDEX, images=images.astype(np.int64) - FIRST_INDEX)


def _require_one_based(path: Path, name: str, values: np.ndarray, last: int) -> None:
    if values.dtype.kind not in "iuf" or not values.size or (values != np.floor(values)).any():
        raise FileError(f"{path}: {name} must hold whole numbers, {values.dtype} {values.shape} came")
    low, high = int(values.min()), int(values.max())
    if low < 1 or high > last:
        hint = "; a table that counts from 0 is not NSD's" if low == 0 else ""
        raise FileError(f"{path}: {name} counts from 1 to {last}, {low} to {high} came{hint}")


def subject_name(name: str) -> str:
    """'subj01' for '1' or 'subj01'; `InputError` for what is none of the eight."""
    digits = name.removeprefix("subj")
    if not digits.isdecimal() or not 1 <= int(digits) <= N_SUBJECTS:
        raise InputError(f"subjects are 1 to {N_SUBJECTS}, not {name!r}")
    return f"subj{int(digits):02d}"


def stimulus_id(row: int) -> str:
    """The id of a row (0-based) of the stimulus file: nsd00000 to nsd72999."""
    return f"nsd{row:05d}"


@reads("a table with nsdId and cocoId")
def read_photographs(path: Path, design: Design) -> dict[int, str]:
    """Row of the stimulus file -> COCO photograph, from nsd_stim_info_merged.csv; empty without the file.

    `FileError` unless it has each of the 73,000 images once and calls those shared that the design does.
    """
    if not path.is_file():
        return {}
    with reading(path, "a table with nsdId and cocoId"), path.open(newline="", encoding="utf-8-sig") as file:
        lines = list(csv.DictReader(file))
        rows = [int(line["nsdId"]) for line in lines]
        photographs = [int(line["cocoId"]) for line in lines]
        shared = {row for row, line in zip(rows, lines, strict=True) if line.get("shared1000", "").lower() in ("true", "1")}
    if sorted(rows) != list(range(N_IMAGES)):
        came = f"{len(rows)} lines, {min(rows)} to {max(rows)}, {len(set(rows))} different" if rows else "no line"
        raise FileError(f"{path}: nsdId counts each image once, 0 to {N_IMAGES - 1}; {came} came")
    if shared and shared != set(design.images[0, :N_SHARED].tolist()):
        raise FileError(f"{path}: its shared images (shared1000) are not those of {design.path.name}")
    return {row: f"coco{photograph}" for row, photograph in zip(rows, photographs, strict=True)}


# --- volumes and labels -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The volume grid of a subject: side lengths (x, y, z), affine, and the file that stated it first.

    check_affine: whether the other files must have the same affine (to 0.001 mm), not only the same sides.
    """

    path: Path
    shape: tuple[int, ...]
    affine: np.ndarray
    check_affine: bool = True

    def require(self, path: Path, shape: Sequence[int], affine: np.ndarray | None = None) -> None:
        """`InputError` naming both files where another file has another grid: it is of another subject or space."""
        if tuple(shape) != self.shape:
            reordered = sorted(shape) == sorted(self.shape)
            why = "the axes are in another order" if reordered else "another subject's file, or another space?"
            raise InputError(f"{path}: grid {tuple(shape)} (x, y, z), but {self.path} has {self.shape}; {why}")
        differs = affine is not None and not np.allclose(affine, self.affine, rtol=0, atol=AFFINE_TOLERANCE)
        if affine is not None and differs and self.check_affine:
            raise InputError(
                f"{path}: affine {np.round(affine, 3).tolist()}, but {self.path} has {np.round(self.affine, 3).tolist()}; "
                "another subject's file, or another space? If the files are right, read them with check_affine=false"
            )


@reads("NIfTI")
def read_grid(path: Path) -> tuple[Grid, np.ndarray]:
    """Grid and values (x, y, z) of a NIfTI file with one volume."""
    volume = read_volume(path)
    if len(volume.stored.shape) != 3:
        raise InputError(f"{path}: one volume (x, y, z) is needed, shape {volume.stored.shape} came")
    return Grid(path=volume.path, shape=volume.grid, affine=volume.affine), volume.scaled(volume.stored)


@reads("NIfTI")
def read_map(path: Path, grid: Grid) -> np.ndarray:
    """Values (x, y, z) float32 of a NIfTI file in the grid of the subject."""
    own, values = read_grid(path)
    grid.require(path, own.shape, own.affine)
    return values


def as_labels(path: Path, values: np.ndarray) -> np.ndarray:
    """Label numbers int32 of a ROI file: -1 not cortex, 0 none, 1 and above; NaN counts as -1."""
    labels = np.where(np.isnan(values), -1, values)
    if (labels != np.floor(labels)).any() or (labels < -1).any():
        raise InputError(
            f"{path}: a ROI file holds whole numbers from -1 (not cortex); {labels.min():g} to {labels.max():g} came"
        )
    return labels.astype(np.int32)


def inside(labels: np.ndarray) -> np.ndarray:
    """Which places carry a label: above 0. (`!= 0` would take what is not cortex, -1.)"""
    return labels > 0


@reads("a label table")
def read_label_names(path: Path) -> dict[int, str]:
    """Number -> name from a colour table (`.ctab`: number, name, and perhaps colours on each line); empty if it is missing."""
    if not path.is_file():
        return {}
    names = {}
    with reading(path, "a label table"):
        for line in path.read_text(encoding="utf-8-sig").splitlines():
            if found := re.match(r"\s*(\d+)\s+(\S+)", line):
                names[int(found[1])] = found[2]
    return names


# --- betas ------------------------------------------------------------------------------------------------------------


def session_files(folder: Path, pattern: str) -> dict[int, Path]:
    """Session number -> file, for names such as `betas_session07.hdf5` (`pattern` has one group: the number).

    Raises `InputError` where two files are the same session (`session7` and `session07`).
    """
    found: dict[int, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = re.fullmatch(pattern, path.name)
        if match and found.setdefault(int(match[1]), path) != path:
            raise InputError(f"{folder}: {found[int(match[1])].name} and {path.name} are one session; keep one of them")
    return found


@reads("an HDF5 session")
def read_hdf5_session(path: Path, voxels: np.ndarray, grid: Grid, *, n_trials: int = TRIALS_PER_SESSION) -> np.ndarray:
    """int16 (trial, voxel) of an HDF5 session at voxels (voxel, 3) in NIfTI axes.

    The chunks of NSD's files hold one voxel and all trials, so only the box around the voxels is read, some planes at a time.
    """
    with open_hdf5(path) as file:
        betas = file.get("betas")
        if not isinstance(betas, h5py.Dataset):
            raise NotFoundError(f"{path}: no dataset 'betas'; there are: {', '.join(file) or 'none'}")
        if betas.ndim != 4 or betas.dtype.kind != "i" or betas.dtype.itemsize != 2:
            raise InputError(f"{path}: betas are int16 (trial, z, y, x), {betas.dtype} {betas.shape} came")
        _require_trials(path, betas.shape[0], n_trials)
        grid.require(path, betas.shape[:0:-1])
        return _read_box(path, betas, voxels)


def _read_box(path: Path, betas: h5py.Dataset, voxels: np.ndarray) -> np.ndarray:
    out = np.empty((betas.shape[0], len(voxels)), np.int16)
    low, high = voxels.min(0), voxels.max(0) + 1
    plane = betas.shape[0] * 2 * int(high[0] - low[0]) * int(high[1] - low[1])
    step = max(1, LARGEST_SLAB // plane)
    for z in range(low[2], high[2], step):
        last = min(z + step, high[2])
        rows = np.flatnonzero((voxels[:, 2] >= z) & (voxels[:, 2] < last))
        if len(rows):
            with reading(path, "HDF5, dataset 'betas'"):
                slab = betas[:, z:last, low[1] : high[1], low[0] : high[0]]  # (trial, z, y, x)
            x, y, own_z = (voxels[rows] - np.array([low[0], low[1], z])).T
            out[:, rows] = slab[:, own_z, y, x]
    return out


@reads("a NIfTI session")
def read_nifti_session(path: Path, voxels: np.ndarray, grid: Grid, *, n_trials: int = TRIALS_PER_SESSION) -> np.ndarray:
    """int16 (trial, voxel) of a NIfTI session (x, y, z, trial) at voxels (voxel, 3), one volume in memory at a time."""
    series = open_series(path)
    scale = (series.slope, series.intercept)
    if series.stored.kind != "i" or series.stored.itemsize != 2 or scale != (1, 0):
        raise InputError(
            f"{path}: betas are int16 (x, y, z, trial) without a scale in the header; {series.stored} "
            f"{(*series.grid, series.n_volumes)} with scale {series.slope:g} and offset {series.intercept:g} came"
        )
    _require_trials(path, series.n_volumes, n_trials)
    grid.require(path, series.grid, series.affine)
    return series.read_stored(voxels)


def read_mgh_session(
    paths: Sequence[Path], vertices: np.ndarray, n_vertices: Sequence[int], *, n_trials: int = TRIALS_PER_SESSION
) -> np.ndarray:
    """float32 (trial, vertex) of a session in .mgh files, left then right; right vertices are counted on from the left ones."""
    parts = []
    for path, expected in zip(paths, n_vertices, strict=True):
        values = read_mgh(path)
        if values.ndim != 2 or values.shape[0] != expected:
            raise InputError(f"{path}: (vertex, 1, 1, trial) with {expected} vertices is needed, {values.shape} came")
        _require_trials(path, values.shape[1], n_trials)
        if values.dtype.kind != "f":
            raise InputError(f"{path}: surface betas are floating-point percent signal change, {values.dtype} came")
        parts.append(values)
    stacked = np.concatenate(parts)  # (vertex, trial)
    return np.ascontiguousarray(stacked[vertices].T, dtype=np.float32)


@reads("MGH")
def mgh_shape(path: Path) -> tuple[int, ...]:
    """Side lengths that the header of an .mgh file states."""
    path = require_file(path, "surface file")
    with open_image(path, "MGH") as image:
        return tuple(int(side) for side in image.shape)


@reads("MGH")
def read_mgh(path: Path) -> np.ndarray:
    """Values (vertex,) or (vertex, trial) of an .mgh or .mgz file, in the type stored."""
    path = require_file(path, "surface file")
    with open_image(path, "MGH") as image:
        values = np.asanyarray(image.dataobj)
    if values.shape[1:3] != (1, 1):
        raise InputError(f"{path}: (vertex, 1, 1) or (vertex, 1, 1, trial) is needed, {values.shape} came")
    values = values[:, 0, 0]
    return values.astype(values.dtype.newbyteorder("="))


def _require_trials(path: Path, came: int, n_trials: int) -> None:
    if came != n_trials:
        what = "a session of NSD" if n_trials == TRIALS_PER_SESSION else "this session beside NSD"
        raise InputError(f"{path}: {came} trials; {what} has {n_trials}. Another experiment's file, or cut short?")


def runs_of_session() -> np.ndarray:
    """Run (1 to 12) of each of the 750 trials: runs with an odd number have 63 stimulus trials, those with an even one 62."""
    return np.repeat(np.arange(1, 13), [63, 62] * 6)
