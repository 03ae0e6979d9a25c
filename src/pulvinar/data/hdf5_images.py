"""Images inside one HDF5 file, read one at a time when asked for."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5, refuse_fill
from pulvinar.core.storage import reading
from pulvinar.data.pixels import from_unit_range


class HDF5Images:
    """Reads images from a dataset uint8 (image, height, width, 3), or floating (image, 3, height, width) in [0, 1].

    rows: the row in the file of each stimulus. size: pixels along each edge to reduce or enlarge to; None keeps the file's.
    Raises when it is made: `InputError` if the file has too few images or another form; and when an image is read that does not
    lie in [0, 1], or was never written.
    """

    def __init__(self, path: Path, name: str, rows: Sequence[int], *, size: int | None = None) -> None:
        self.path, self.name, self.rows, self.size = Path(path), name, [int(row) for row in rows], size
        with open_hdf5(self.path) as file:
            images = file.get(name)
            if not isinstance(images, h5py.Dataset):
                raise NotFoundError(f"{path}: no dataset '{name}'; there are: {', '.join(file) or 'none'}")
            refuse_fill(str(path), name, images, rows=())
            shape: tuple[int, ...] = images.shape or ()
            kind = images.dtype
        bytes_last = len(shape) == 4 and shape[3] == 3 and shape[1] != 3 and kind == np.uint8
        self.channels_first = len(shape) == 4 and shape[1] == 3 and shape[3] != 3 and kind.kind == "f"
        if not bytes_last and not self.channels_first:
            raise InputError(
                f"{path}: '{name}' must be uint8 (image, height, width, 3) or floating (image, 3, height, width); "
                f"{kind} {shape} came"
            )
        if self.rows and max(self.rows) >= shape[0]:
            raise InputError(f"{path}: '{name}' has {shape[0]} images, but image {max(self.rows)} (from 0) was shown")

    def __call__(self, row: int) -> np.ndarray:
        """Pixels uint8 (height, width, 3) of a stimulus."""
        with open_hdf5(self.path) as file, reading(self.path, f"HDF5, dataset '{self.name}'"):
            refuse_fill(str(self.path), self.name, file[self.name], rows=[self.rows[row]])
            pixels = file[self.name][self.rows[row]]
        if self.channels_first:
            where = f"{self.path}: '{self.name}', image {self.rows[row]} (from 0)"
            pixels = from_unit_range(pixels, where).transpose(1, 2, 0)
        return pixels if self.size in (None, pixels.shape[0]) else self._resized(pixels)

    def _resized(self, pixels: np.ndarray) -> np.ndarray:
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).resize((self.size, self.size), Image.Resampling.BICUBIC))  # type: ignore[arg-type]
