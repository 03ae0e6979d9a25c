"""Volumes (NIfTI) and surface meshes (GIFTI), read whole, so that a truncated or damaged file shows at once.

nibabel stops at the last value that it needs, before the checksum at the end of a compressed stream. Files that may be
compressed are therefore opened here (`open_image`), and their streams read to the end.
"""

import contextlib
import gzip
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pulvinar.core import checksums
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.limits import allowed_in_passing, require_plausible
from pulvinar.core.progress import warn
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.cifti_sizes import require_plausible_cifti
from pulvinar.data.gifti_sizes import require_plausible_gifti

VOLUME_SUFFIXES = (".nii", ".nii.gz")
SURFACE_SUFFIXES = (".gii",)
COMPRESSED_SUFFIXES = (".gz", ".mgz")
STEP = 2**20  # bytes read at once to the end of a stream
AFFINE_TOLERANCE = 1e-3  # mm; headers store single precision, and tools round differently
UNITS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}  # of the fourth axis, in s; others are no time


def load_image(path: Path, what: str) -> Any:
    """An image of nibabel's, from its header; `FileError` for whatever is wrong with it."""
    import nibabel

    with reading(path, what):
        require_plausible_cifti(path)
        return nibabel.load(path)


@contextlib.contextmanager
def open_image(path: Path, what: str) -> Iterator[Any]:
    """An image of nibabel's, to be read inside the block; if compressed, its stream is then read to the end, for its checksum.

    `FileError` for whatever nibabel, zlib or the checksum find wrong.
    """
    with reading(path, what):
        image = load_image(path, what)
        sides = [int(side) for side in image.shape]  # MGH has them as int32, whose product can come round to a small number
        if min(sides, default=0) < 0:
            raise FileError(f"{path}: its header states the shape {tuple(sides)}; damaged, or not {what}")
        require_plausible(path, math.prod(sides) * max(8, image.get_data_dtype().itemsize))  # scaled to float64
        if path.suffix.lower() not in COMPRESSED_SUFFIXES:
            yield image
            return
        with gzip.open(path) as stream:
            yield type(image).from_stream(stream)
            read_to_end(stream, path)


def require_whole(path: Path, what: str) -> None:
    """Read a compressed file to its end, for its checksum, unless that was done before; `FileError` if it is damaged."""

    def check() -> None:
        with reading(path, what), gzip.open(path) as stream:
            read_to_end(stream, path)

    if path.suffix.lower() in COMPRESSED_SUFFIXES:
        checksums.once(path, "gzip", check)


def read_to_end(stream: IO[bytes] | gzip.GzipFile, path: Path) -> None:
    """Read what is left, for the checksum at the end; `FileError` where that is more than the file can hold."""
    largest = allowed_in_passing(path.stat().st_size)
    while stream.read(STEP):
        if stream.tell() > largest:
            require_plausible(path, stream.tell())


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """A NIfTI file: stored values (x, y, z) or (x, y, z, time); value = slope * stored + intercept; affine voxel -> mm."""

    path: Path
    stored: np.ndarray
    slope: float
    intercept: float
    affine: np.ndarray

    @property
    def grid(self) -> tuple[int, ...]:
        """Size of the spatial grid (x, y, z)."""
        return self.stored.shape[:3]

    def scaled(self, stored: np.ndarray) -> np.ndarray:
        """Stored values as float32 values in the file's unit."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored.astype(np.float32)
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)


@reads("NIfTI")
def read_volume(path: str | os.PathLike[str]) -> Volume:
    """A `.nii` or `.nii.gz` file of three or four axes.

    Raises `FileError` if it is missing, truncated or another format, `InputError` for other axes or values than numbers.
    """
    path = require_file(path, "volume")
    refuse_no_volume(path)
    with open_image(path, "NIfTI") as image:
        refuse_no_volume(path, image)
        stored = np.asanyarray(image.dataobj.get_unscaled())
        say_where_unknown(path, image.header)
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        affine = np.asarray(image.affine, float)
    if stored.dtype.kind not in "biuf":
        raise InputError(f"{path}: numbers are needed, {stored.dtype} came")
    stored = stored.reshape(four_axes(stored.shape))
    if stored.ndim not in (3, 4) or 0 in stored.shape:
        raise InputError(f"{path}: a volume (x, y, z) or (x, y, z, trial) is needed, one of shape {stored.shape} came")
    return Volume(path=path, stored=stored, slope=slope, intercept=intercept, affine=affine)


def say_where_unknown(path: Path, header: Any) -> None:
    """A header whose sform and qform both have the code 0 does not say where its voxels lie (nifti1.h, method 1)."""
    if int(header["sform_code"]) == int(header["qform_code"]) == 0:
        warn(
            f"{path}: its header does not say where the voxels lie (sform and qform codes are 0); their size alone counts, and "
            "left and right are taken on trust",
            once=True,
        )


def four_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape without axes of one entry behind the third, where there are five or more: (x, y, z, 1, trial) is AFNI's."""
    behind = [side for side in shape[3:] if side != 1]
    return shape if len(shape) <= 4 else (*shape[:3], *(behind or [1]))


def refuse_no_volume(path: Path, image: Any = None) -> None:
    """Raise `FileError` for another suffix than those of NIfTI, `InputError` for CIFTI, if the opened image is that."""
    import nibabel

    if not path.name.lower().endswith(VOLUME_SUFFIXES):
        raise FileError(f"{path}: volumes are read from {' and '.join(VOLUME_SUFFIXES)}, not from '{path.name}'")
    if isinstance(image, nibabel.Cifti2Image):
        raise InputError(
            f"{path}: CIFTI, rows {image.shape[0]} x {image.shape[1]} greyordinates, not a volume (x, y, z). As "
            "responses it is named .dscalar.nii or .dtseries.nii, and needs no mask (docs/data.md, CIFTI)"
        )


@reads("NIfTI")
def read_series_header(path: str | os.PathLike[str]) -> tuple[int, float | None]:
    """Number of volumes of a 4-D NIfTI file, and the seconds per volume that its header states; keeps no values."""
    path = require_file(path, "volume")
    require_whole(path, "NIfTI")
    with reading(path, "NIfTI"):
        image = load_image(path, "NIfTI")
        refuse_no_volume(path, image)
        shape, seconds = four_axes(image.shape), _seconds_per_volume(image.header)
    if len(shape) != 4:
        raise InputError(f"{path}: a series (x, y, z, time) is needed, one of shape {shape} came")
    return int(shape[3]), seconds


@reads("NIfTI")
def read_grid(path: str | os.PathLike[str]) -> tuple[tuple[int, int, int], np.ndarray]:
    """The grid (x, y, z) of a NIfTI file and its affine (4, 4), from the header alone."""
    path = require_file(path, "volume")
    with reading(path, "NIfTI"):
        image = load_image(path, "NIfTI")
        refuse_no_volume(path, image)
        x, y, z = (int(side) for side in image.shape[:3])
        return (x, y, z), np.asarray(image.affine, float)


def _seconds_per_volume(header) -> float | None:
    zooms, unit = header.get_zooms(), header.get_xyzt_units()[1]
    if len(zooms) < 4 or unit not in UNITS:
        return None
    seconds = float(str(zooms[3])) * UNITS[unit]  # single precision: .8 is stored as .800000012
    return seconds if np.isfinite(seconds) and seconds > 0 else None


@dataclass(frozen=True, kw_only=True, eq=False)
class Mask:
    """The voxels of a volume that are above 0: `inside` bool (x, y, z). Voxels are listed in C order, as `array[inside]`.

    tolerance: by how much (mm) an entry of another file's affine may differ from this one's.
    """

    path: Path
    inside: np.ndarray
    affine: np.ndarray
    tolerance: float = AFFINE_TOLERANCE

    @property
    def n_voxels(self) -> int:
        """How many voxels are inside."""
        return int(self.inside.sum())


@reads("NIfTI")
def read_mask(path: str | os.PathLike[str], *, tolerance: float = AFFINE_TOLERANCE) -> Mask:
    """A mask from a NIfTI file: the voxels above 0 (NaN counts as outside); `InputError` if there is none.

    See `above_0` for masks of shares and of labels. tolerance: see `Mask`.
    """
    volume = read_volume(path)
    inside = above_0(_single(volume), str(volume.path))
    if not inside.any():
        raise InputError(f"{volume.path}: the mask is empty; no voxel is above 0")
    return Mask(path=volume.path, inside=inside, affine=volume.affine, tolerance=tolerance)


def above_0(values: np.ndarray, who: str) -> np.ndarray:
    """Which voxels are inside a mask or ROI, bool: those above 0. Shares (a probability map) and several labels are said."""
    inside = np.nan_to_num(values, nan=0.0) > 0
    found = np.unique(values[inside])
    if len(found) > 1:
        what = (
            "shares between 0 and 1"
            if found[0] < 1
            else f"{len(found)} values above 0 ({found[0]:g} to {found[-1]:g}; labels?)"
        )
        warn(f"{who}: holds {what}; every voxel above 0 is inside, {int(inside.sum())} of {inside.size}")
    return inside


def _single(volume: Volume) -> np.ndarray:
    """Values (x, y, z) of a file that holds one volume."""
    if volume.stored.ndim == 4 and volume.stored.shape[3] != 1:
        raise InputError(f"{volume.path}: one volume is needed, {volume.stored.shape[3]} came")
    return volume.scaled(volume.stored.reshape(volume.grid))


def require_same_grid(mask: Mask, path: Path, grid: Sequence[int], affine: np.ndarray | None = None) -> None:
    """Raise `InputError` naming both files if their grids, or their affines by more than the mask's tolerance, differ."""
    if tuple(grid) != mask.inside.shape:
        raise InputError(
            f"{path} and {mask.path} are not on the same grid: {tuple(grid)} and {mask.inside.shape} voxels. "
            "Resample one of them to the other."
        )
    if affine is not None and not np.allclose(affine, mask.affine, rtol=0, atol=mask.tolerance):
        raise InputError(
            f"{path} and {mask.path} are not in the same place: affines {np.round(affine, 4).tolist()} and "
            f"{np.round(mask.affine, 4).tolist()} differ by up to {np.abs(affine - mask.affine).max():.3g}, and "
            f"{mask.tolerance:g} is allowed. Resample one of them to the other, or set affine_tolerance if they are one grid."
        )


def values_inside(volume: Volume, mask: Mask) -> np.ndarray:
    """Values (voxel,) float32 of a file that holds one volume, on the voxels of the mask."""
    require_same_grid(mask, volume.path, volume.grid, volume.affine)
    return _single(volume)[mask.inside]


def read_surface(paths: Sequence[Path]) -> tuple[np.ndarray, np.ndarray]:
    """Vertex coordinates (vertex, 3) in mm and faces (face, 3) of one GIFTI mesh, or of several one after the other.

    With several (left and right hemisphere), the vertices of the second are counted on from those of the first.
    """
    points, faces, count = [], [], 0
    for path in paths:
        own_points, own_faces = _read_mesh(path)
        points.append(own_points)
        faces.append(own_faces + count)
        count += len(own_points)
    return np.concatenate(points), np.concatenate(faces)


@reads("GIFTI")
def _read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import nibabel

    path = require_file(path, "surface")
    if path.suffix.lower() not in SURFACE_SUFFIXES:
        raise FileError(f"{path}: surfaces are read from .surf.gii (GIFTI), not from '{path.name}'")
    with reading(path, "GIFTI"):
        require_plausible_gifti(path)
        image: Any = nibabel.load(path)
        parts = {name: [array.data for array in image.get_arrays_from_intent(name)] for name in ("pointset", "triangle")}
    for name, found in parts.items():
        if len(found) != 1 or found[0].ndim != 2 or found[0].shape[1] != 3:
            shapes = [array.shape for array in found]
            raise InputError(f"{path}: one '{name}' array of shape (n, 3) is needed, as in a .surf.gii; {shapes} came")
    return np.asarray(parts["pointset"][0], float), np.asarray(parts["triangle"][0], np.int64)
