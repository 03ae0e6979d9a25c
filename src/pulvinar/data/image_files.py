"""Stimulus images from a folder: the id of an image is its file name without the suffix."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.errors import FileError, InputError
from pulvinar.storage import reading, require_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def find_images(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Stimulus id -> file, sorted by id, for every .png, .jpg and .jpeg directly in a folder.

    Raises `FileError` if there is no such folder or no image in it, `InputError` if two files give the same id.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of images")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stem):
        if path.suffix.lower() not in IMAGE_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise InputError(f"{folder}: {found[path.stem].name} and {path.name} give the same stimulus id '{path.stem}'")
        found[path.stem] = path
    if not found:
        raise FileError(f"{folder}: no image; {', '.join(IMAGE_SUFFIXES)} files are read, folders inside it are not")
    return found


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
