"""Raw binary files of labels and pixels: records of both, or planes of pixels alone."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reading, reads, require_file


def find_folder(
    path: str | os.PathLike[str], folder: str, first_file: str, *, name: str, url: str, foreign: Sequence[str] = ()
) -> Path:
    """The folder that holds `first_file`: the path itself, or `folder` inside it.

    foreign: files by which another version of the download is recognised, so that the error can say what is needed instead.
    """
    path = Path(path)
    for place in (path, path / folder):
        if (place / first_file).is_file():
            return place
    siblings = [path, *(inside for inside in sorted(path.glob("*")) if inside.is_dir())] if path.is_dir() else []
    other = next((place / file for place in siblings for file in foreign if (place / file).is_file()), None)
    if other is not None:
        raise FileError(f"{other}: another version of {name}; the binary version is read: {url}, unpacked to {folder}/")
    reason = "no such folder" if not path.is_dir() else f"no {first_file}, directly or in {folder}/"
    raise FileError(f"{path}: {reason}; {name} is read from its binary version: {url}")


@reads("records of images")
def read_records(path: str | os.PathLike[str], *, n_classes: Sequence[int], side: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (image, side, side, 3) and labels int64 (image, kind of label) of a file of records.

    A record is a byte for each kind of label, 0 to its `n_classes` - 1, then the pixels colour by colour, row by row.
    `FileError` if there is no whole number of them, `InputError` for a label that is none of these.
    """
    n_labels = len(n_classes)
    length = n_labels + 3 * side * side
    content = read_bytes(path)
    if not len(content) or len(content) % length:
        raise FileError(
            f"{path}: {len(content)} bytes, not a whole number of records of {length} (cut short, or another format)"
        )
    records = content.reshape(-1, length)
    pixels = records[:, n_labels:].reshape(-1, 3, side, side).transpose(0, 2, 3, 1)
    labels = records[:, :n_labels].astype(np.int64)
    for own, n in zip(labels.T, n_classes, strict=True):
        require_classes(path, own, first=0, last=n - 1)
    return np.ascontiguousarray(pixels), labels


@reads("planes of images")
def read_planes(path: str | os.PathLike[str], *, side: int) -> np.ndarray:
    """Images uint8 (image, side, side, 3) of a file of pixels, colour by colour and column by column. Memory-mapped."""
    path = require_file(path)
    n_bytes, length = path.stat().st_size, 3 * side * side
    if not n_bytes or n_bytes % length:
        raise FileError(f"{path}: {n_bytes} bytes, not a whole number of images of {length} (cut short, or another format)")
    planes = np.memmap(path, dtype=np.uint8, mode="r", shape=(n_bytes // length, 3, side, side))
    return planes.transpose(0, 3, 2, 1)  # (image, colour, column, row) -> (image, row, column, colour)


@reads("bytes")
def read_bytes(path: str | os.PathLike[str], *, n_expected: int | None = None) -> np.ndarray:
    """A file as uint8 (byte,); `FileError` if it does not have the expected number of bytes."""
    path = require_file(path)
    with reading(path, "bytes"):
        content = np.fromfile(path, dtype=np.uint8)
    if n_expected is not None and len(content) != n_expected:
        raise FileError(f"{path}: {len(content)} labels for {n_expected} images")
    return content


def require_classes(path: str | os.PathLike[str], labels: np.ndarray, *, first: int, last: int) -> None:
    """`InputError` naming the file unless its labels are `first` to `last`."""
    strange = np.flatnonzero((labels < first) | (labels > last))
    if len(strange):
        raise InputError(f"{path}: labels are {first} to {last}; record {strange[0] + 1} has label {labels[strange[0]]}")


@reads("names of classes")
def read_class_names(path: str | os.PathLike[str], *, n_classes: int) -> tuple[str, ...]:
    """One name a line; empty lines are left out. Without the file: the numbers as text."""
    if not Path(path).is_file():
        return tuple(str(number) for number in range(n_classes))
    with reading(path, "text"):
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != n_classes:
        raise InputError(f"{path}: {len(names)} names for {n_classes} classes")
    return names
