"""Four-dimensional NIfTI files that do not fit into memory: some voxels of every volume, read in one pass.

A compressed file cannot be read from its middle, so volumes are taken one after the other, one in memory at a time, and the
stream is read to its end, where its checksum stands.
"""

import contextlib
import gzip
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.limits import require_plausible
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.brain_files import read_to_end


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
        require_plausible(self.path, self.n_volumes * len(index) * self.stored.itemsize)
        place = np.ravel_multi_index(tuple(index.T), self.grid, order="F")
        out = np.empty((self.n_volumes, len(index)), self.stored.newbyteorder("="))
        with self._stream() as file:
            for number in range(self.n_volumes):
                out[number] = self._volume(file, number)[place]
            read_to_end(file, self.path)
        return out

    def read(self, index: np.ndarray) -> np.ndarray:
        """Values float32 (volume, voxel) at grid places `index` (voxel, 3), slope and intercept applied."""
        return self._scaled(self.read_stored(index))

    def first(self) -> np.ndarray:
        """Values float32 (x, y, z) of the first volume."""
        with self._stream() as file:
            return self._scaled(self._volume(file, 0)).reshape(self.grid, order="F")

    def _scaled(self, stored: np.ndarray) -> np.ndarray:
        if self.slope == 1.0 and self.intercept == 0.0:
            return stored.astype(np.float32)
        return (stored.astype(np.float64) * self.slope + self.intercept).astype(np.float32)

    @contextlib.contextmanager
    def _stream(self) -> Iterator[IO[bytes]]:
        is_packed = self.path.suffix.lower() == ".gz"
        with reading(self.path, "NIfTI"), gzip.open(self.path) if is_packed else self.path.open("rb") as file:
            file.read(self.offset)
            yield file  # type: ignore[misc]  # a GzipFile reads as a file of bytes does

    def _volume(self, file: IO[bytes], number: int) -> np.ndarray:
        n_bytes = int(np.prod(self.grid)) * self.stored.itemsize
        content = file.read(n_bytes)
        if len(content) < n_bytes:
            raise FileError(f"{self.path}: truncated: trial {number} of {self.n_volumes} is not whole")
        return np.frombuffer(content, self.stored)


@reads("NIfTI")
def open_series(path: Path, what: str = "session of betas") -> VolumeSeries:
    """The header of a `.nii` or `.nii.gz` file (x, y, z, volume) of numbers; values are read when asked for."""
    import nibabel

    path = require_file(path, what)
    with reading(path, "NIfTI"):
        image: Any = nibabel.load(path)
        shape, proxy, affine = image.shape, image.dataobj, np.asarray(image.affine, float)
        stored, slope, intercept, offset = np.dtype(proxy.dtype), float(proxy.slope), float(proxy.inter), int(proxy.offset)
    if len(shape) != 4 or 0 in shape or stored.kind not in "iuf":
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
