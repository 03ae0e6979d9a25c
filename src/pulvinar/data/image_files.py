"""Stimulus images from a folder; `data.image_ids` has the rule of their ids, `data.pictures` how a file is read."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import reads
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.pictures import SUFFIXES, Notes, PictureOptions, decode, find_pictures, look_into, say_left_out
from pulvinar.data.source_options import parse_source


def find_images(folder: str | os.PathLike[str]) -> dict[str, Path]:
    """Stimulus id -> file, sorted by id, for the pictures of a folder; ids by the rule of `data.image_ids`.

    Read are the images directly in the folder, or, where there are none, those of the folders inside it; what else is there is
    said. Raises `FileError` if there is no such folder or no image in it, `InputError` where folders inside it hold images of
    the same names as those directly in it.
    """
    names, paths = list_images(folder)
    return dict(sorted(zip(names.ids, paths, strict=True)))


def list_images(folder: str | os.PathLike[str]) -> tuple[ImageNames, list[Path]]:
    """The names of a folder's images, as paths below it, and their files; as `find_images`, sorted by path."""
    folder = Path(folder)
    content, (below, left_out) = look_into(folder), find_pictures(folder)
    loose, inner = list(content.pictures), [path for path in below if path.parent != folder]
    if loose and inner:
        _require_other_names(folder, loose, inner)
        warn(f"{folder}: {len(inner)} images in folders inside it are left out, e.g. {inner[0].relative_to(folder)}")
    if not below:
        raise FileError(f"{folder}: no image; {', '.join(SUFFIXES)} files are read, directly or in folders inside it")
    say_left_out(content.left_out() if loose else left_out)
    paths = loose or below
    return ImageNames([path.relative_to(folder).as_posix() for path in paths], str(folder)), paths


def _require_other_names(folder: Path, loose: Sequence[Path], inner: Sequence[Path]) -> None:
    stems = {path.stem for path in loose}
    twice = next((path for path in inner if path.stem in stems), None)
    if twice is not None:
        raise InputError(
            f"{folder}: {twice.relative_to(folder)} and an image directly in the folder are both named '{twice.stem}'; "
            "keep one of them, or put all images into folders"
        )


def open_images(source: str) -> tuple[ImageNames, list[Path], PictureOptions]:
    """`list_images`, and how the files are read, of `FOLDER?name=value&name=value` (`PictureOptions`)."""
    folder, options = parse_source(source, PictureOptions, name="images")
    return *list_images(folder), options


@reads("an image")
def read_image(path: str | os.PathLike[str], options: PictureOptions | None = None) -> np.ndarray:
    """Pixels uint8 (height, width, 3) of a file, as `pictures.decode` reads it."""
    return decode(path, options).pixels


class ImageFiles:
    """Reads the image of a row when asked: row -> uint8 (height, width, 3). `notes`: what was done to those read so far."""

    def __init__(self, paths: Sequence[Path], options: PictureOptions | None = None) -> None:
        self.paths, self.options, self.notes = list(paths), options, Notes()

    def __call__(self, row: int) -> np.ndarray:
        """The picture of this row: uint8 (height, width, 3). Says what was done to it, once for all pictures."""
        picture = decode(self.paths[row], self.options)
        for note in self.notes.add(self.paths[row], picture.notes):
            log(f"{self.paths[row]}: {note} (said once for all images)")
        return picture.pixels
