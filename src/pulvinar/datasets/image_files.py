"""Your own images: an .npz of arrays, or a folder of pictures with or without classes.

FILE.npz          x_train (image, height, width, 3) uint8; optional y_train, x_test, y_test (whole numbers), class_names (text)
FOLDER/train/CLASS/*.png, FOLDER/test/CLASS/*.png   (or val/ for test/)
FOLDER/train/*.png                                  without labels, for training alone
FOLDER/*.png                                        likewise

After the path, options: `FOLDER?size=96&skip_corrupt=true&cache=DIR` (data/image_folder.py says what they do).
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.config import setting
from pulvinar.data.image_folder import open_folder
from pulvinar.data.image_set import ImageSet
from pulvinar.data.source_options import parse_source
from pulvinar.errors import ConfigError, FileError, NotFoundError
from pulvinar.storage import read_arrays

ARRAYS = ("x_train", "y_train", "x_test", "y_test", "class_names")


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a folder is read; given after it as ?name=value&name=value."""

    size: int | None = setting(None, "pixels a side: shorter side to it, central square; none: images must have one size")
    skip_corrupt: bool = setting(False, "leave out files that cannot be read instead of refusing them")
    cache: str | None = setting(None, "folder for the decoded pixels; none: they are held in memory")

    def problems(self) -> list[str]:
        """What is out of range."""
        return [] if self.size is None or self.size > 0 else [f"image_files.size is 1 or more, not {self.size}"]


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set at a path, an .npz or a folder, with options after a question mark (module docstring)."""
    place, options = parse_source(str(path), Options, name="image_files")
    if place.is_dir():
        return open_folder(place, size=options.size, skip_corrupt=options.skip_corrupt, cache=options.cache)
    if options != Options():
        raise ConfigError(f"{place}: options are for folders of images; leave them out")
    if not place.exists():
        raise FileError(f"{place}: no such file or folder")
    return read_npz(place)


def read_npz(path: str | os.PathLike[str]) -> ImageSet:
    """An image set from named arrays; `NotFoundError` lists what is there when x_train is not."""
    arrays = read_arrays(path)
    if "x_train" not in arrays:
        raise NotFoundError(
            f"{path}: no array 'x_train'; there are: {', '.join(arrays) or 'none'}; read are {', '.join(ARRAYS)}"
        )
    train = arrays["x_train"]
    return ImageSet(
        name=Path(path).stem,
        train=train,
        test=arrays.get("x_test", np.zeros((0, *train.shape[1:]), np.uint8)),
        train_labels=arrays.get("y_train"),
        test_labels=arrays.get("y_test") if "x_test" in arrays else None,
        class_names=tuple(str(name) for name in arrays.get("class_names", ())),
    )
