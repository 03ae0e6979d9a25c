"""Stimulus images from a folder; `data.image_ids` has the rule of their ids."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.data.image_ids import ImageNames
from pulvinar.errors import FileError, InputError
from pulvinar.progress import warn
from pulvinar.storage import reading, require_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def find_images(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Stimulus id -> file, sorted by id, for the .png, .jpg and .jpeg of a folder; ids by the rule of `data.image_ids`.

    Read are the images directly in the folder, or, where there are none, those of the folders inside it.
    Raises `FileError` if there is no such folder or no image in it, `InputError` where folders inside it hold images of the
    same names as those directly in it.
    """
    names, paths = list_images(folder)
    return dict(sorted(zip(names.ids, paths, strict=True)))


def list_images(folder: str | os.PathLike[str]) -> tuple[ImageNames, list[Path]]:
    """The names of a folder's images, as paths below it, and their files; as `find_images`, sorted by path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of images")
    below = [path for path in sorted(folder.rglob("*")) if _is_image(path.relative_to(folder)) and path.is_file()]
    loose = [path for path in below if path.parent == folder]
    if loose and len(loose) < len(below):
        inner = next(path for path in below if path.parent != folder)
        stems = {path.stem for path in loose}
        twice = next((path for path in below if path.parent != folder and path.stem in stems), None)
        if twice is not None:
            raise InputError(
                f"{folder}: {twice.relative_to(folder)} and an image directly in the folder are both named '{twice.stem}'; "
                "keep one of them, or put all images into folders"
            )
        warn(f"{folder}: {len(below) - len(loose)} images in folders inside it are left out, e.g. {inner.relative_to(folder)}")
    paths = loose or below
    if not paths:
        raise FileError(f"{folder}: no image; {', '.join(IMAGE_SUFFIXES)} files are read, directly or in folders inside it")
    return ImageNames([path.relative_to(folder).as_posix() for path in paths], str(folder)), paths


def _is_image(path: Path) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in IMAGE_SUFFIXES and not hidden


def read_image(path: str | os.PathLike[str]) -> np.ndarray:
    """Pixels uint8 (height, width, 3) as stored; grey becomes three equal channels, transparency is dropped.

    Raises `FileError` if the file is missing, truncated, no image, or has more than 8 bits per channel.
    """
    from PIL import Image

    path = require_file(path, "image")
    with reading(path, "an image"), Image.open(path) as image:
        mode = image.mode
        pixels = np.asarray(image.convert("RGB")) if not mode.startswith(("I", "F")) else None
    if pixels is None:
        raise FileError(f"{path}: images of 8 bits per channel are read; this one has Pillow mode '{mode}'")
    return pixels


class ImageFiles:
    """Reads the image of a row when asked: row -> uint8 (height, width, 3)."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __call__(self, row: int) -> np.ndarray:
        """The picture of this row: uint8 (height, width, 3)."""
        return read_image(self.paths[row])
