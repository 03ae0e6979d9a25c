"""Series of volumes in NIfTI files: some voxels of every volume, read in one pass.

A compressed file cannot be read from its middle, so volumes are taken one after the other, one in memory at a time, and the
stream is read to its end, where its checksum stands. `read_series` gives all trials, `blocks` some of them at a time.
"""

import contextlib
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.limits import require_plausible
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.array_files import PrecisionCheck
from pulvinar.data.brain_files import (
    Mask,
    four_axes,
    load_image,
    read_to_end,
    refuse_no_volume,
    require_same_grid,
    say_where_unknown,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class VolumeSeries:
    """What the header of a file states: grid (x, y, z), number of volumes, stored type, value = slope * stored + intercept."""

    path: Path
    grid: tuple[int, int, int]
    n_volumes: int
    stored: np.dtype
    slope: float
    intercept: float
    offset: int
    affine: np.ndarray

    def read_stored(self, index: np.ndarray) -> np.ndarray:
        """Stored values (volume, voxel) at grid places `index` (voxel, 3), in the stored type.

        `FileError` where the file is cut short, damaged, or longer than its header states.
        """
        out = self.room(len(index), self.stored.newbyteorder("="))
        for number, volume in enumerate(self.volumes(index)):
            out[number] = volume
            memory.release(out)
        return out

    def read(self, index: np.ndarray) -> np.ndarray:
        """Values float32 (volume, voxel) at grid places `index` (voxel, 3), slope and intercept applied."""
        out = self.room(len(index), np.dtype(np.float32))
        for number, volume in enumerate(self.volumes(index)):
            out[number] = self._scaled(volume)
            memory.release(out)
        return out

    def blocks(self, index: np.ndarray, *, most: int = 64) -> Iterator[np.ndarray]:
        """The values of `read`, as many volumes at a time as memory allows, at most so many."""
        each, fixed = 8 * len(index), self.bytes_of_volume + 16 * len(index)  # a row twice; a volume and the places in it
        size = memory.block_size(each, most=most, what=f"a volume of {self.path}", fixed=fixed)
        rows: list[np.ndarray] = []
        for volume in self.volumes(index):
            rows.append(self._scaled(volume))
            if len(rows) >= size:
                yield np.stack(rows)
                rows = []
        if rows:
            yield np.stack(rows)

    def first(self) -> np.ndarray:
        """Values float32 (x, y, z) of the first volume."""
        with self._stream() as file:
            return self._scaled(self._volume(file, 0)).reshape(self.grid, order="F")

    @property
    def bytes_of_volume(self) -> int:
        """Of one volume, as stored."""
        return math.prod(self.grid) * self.stored.itemsize

    def is_int16(self) -> bool:
        """Whether the values are 16-bit whole numbers times a scale, which stay as they are stored."""
        return self.stored.kind == "i" and self.stored.itemsize == 2 and self.intercept == 0 and self.slope > 0

    def exact(self, stored: np.ndarray) -> np.ndarray:
        """Stored values with slope and intercept, in float64 where there are any."""
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored
        return stored.astype(np.float64) * self.slope + self.intercept

    def _scaled(self, stored: np.ndarray) -> np.ndarray:
        return self.exact(stored).astype(np.float32)

    def room(self, n_voxels: int, dtype: np.dtype) -> np.ndarray:
        """An array (volume, voxel) to be filled; `FileError` where the file cannot hold so many values."""
        n_bytes = self.n_volumes * n_voxels * self.stored.itemsize
        require_plausible(self.path, n_bytes, in_passing=memory.limit() is not None)
        memory.require(2 * self.bytes_of_volume + 24 * n_voxels, f"a volume of {self.path}")
        return memory.empty((self.n_volumes, n_voxels), dtype)

    def volumes(self, index: np.ndarray) -> Iterator[np.ndarray]:
        """Stored values (voxel,) of one volume after the other; at last the stream is read to its end."""
        place = np.ravel_multi_index(tuple(index.T), self.grid, order="F")
        with self._stream() as file:
            for number in range(self.n_volumes):
                yield self._volume(file, number)[place]
            read_to_end(file, self.path)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        is_packed = self.path.suffix.lower() == ".gz"
        with reading(self.path, "NIfTI"), gzip.open(self.path) if is_packed else self.path.open("rb") as file:
            file.read(self.offset)
            yield file  # type: ignore[misc]  # a GzipFile reads as a file of bytes does

    def _volume(self, file: IO[bytes], number: int) -> np.ndarray:
        content = file.read(self.bytes_of_volume)
        if len(content) < self.bytes_of_volume:
            raise FileError(f"{self.path}: truncated: trial {number} of {self.n_volumes} is not whole")
        return np.frombuffer(content, self.stored)


@reads("NIfTI")
def open_series(path: Path, what: str = "session of betas", *, place_counts: bool = False) -> VolumeSeries:
    """The header of a `.nii` or `.nii.gz` file (x, y, z, volume) of numbers; values are read when asked for.

    Axes of one entry behind the third are left out where there are five or more; (x, y, z) is one volume. place_counts: say so
    where the header does not tell where the voxels lie.
    """
    path = require_file(path, what)
    refuse_no_volume(path)
    with reading(path, "NIfTI"):
        image = load_image(path, "NIfTI")
        refuse_no_volume(path, image)
        shape, proxy, affine = four_axes(image.shape), image.dataobj, np.asarray(image.affine, float)
        stored, slope, intercept, offset = np.dtype(proxy.dtype), float(proxy.slope), float(proxy.inter), int(proxy.offset)
        if place_counts:
            say_where_unknown(path, image.header)
    shape = (*shape, 1) if len(shape) == 3 else shape
    if len(shape) != 4 or min(shape) < 1 or stored.kind not in "biuf":
        raise InputError(f"{path}: numbers (x, y, z, trial) are needed, {stored} {shape} came")
    require_plausible(path, max(offset, math.prod(shape[:3]) * stored.itemsize), what="a volume of it")
    return VolumeSeries(
        path=path,
        grid=(int(shape[0]), int(shape[1]), int(shape[2])),
        n_volumes=int(shape[3]),
        stored=stored,
        slope=slope,
        intercept=intercept,
        offset=offset,
        affine=affine,
    )


@reads("NIfTI")
def read_series(path: Path, mask: Mask, what: str = "volume") -> tuple[np.ndarray, float]:
    """Values (time, voxel) on the voxels of the mask, and their scale.

    16-bit whole numbers without an intercept stay as stored, with the file's slope as scale; all else becomes float32.
    `InputError` where a voxel varies by too little, for its size, to be told in float32.
    """
    series = open_series(path, what, place_counts=True)
    require_same_grid(mask, series.path, series.grid, series.affine)
    index = np.argwhere(mask.inside)
    if series.is_int16():
        return series.read_stored(index), series.slope
    out, check = series.room(len(index), np.dtype(np.float32)), PrecisionCheck()
    for number, volume in enumerate(series.volumes(index)):
        exact = series.exact(volume)
        check.see(exact[np.newaxis])
        out[number] = exact
        memory.release(out)
    check.require_told(str(series.path))
    return out, 1.0
