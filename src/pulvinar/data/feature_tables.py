"""Embeddings with one row per image of a whole stimulus set, of which only some rows are used."""

from pathlib import Path

import h5py
import numpy as np

from pulvinar.errors import FileError, InputError, NotFoundError
from pulvinar.storage import open_hdf5, reading, require_file

SUFFIXES = (".npy", ".h5", ".hdf5")


def read_rows(place: str, rows: np.ndarray, *, n_rows: int) -> tuple[str, np.ndarray]:
    """Name (the file's, or the dataset's) and float32 (row, ...) of some rows of an .npy file, or of a dataset `file.h5:name`.

    n_rows: how many the file must have. Only the rows asked for are read.
    """
    text, name = _split_dataset(place)
    path = require_file(text, "file of features")
    if path.suffix == ".npy":
        with reading(path, "npy array"):
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        _require_rows(path, table, n_rows)
        return path.stem, np.asarray(table[rows], np.float32)
    if path.suffix not in SUFFIXES:
        raise FileError(f"{path}: features are read from {', '.join(SUFFIXES)}")
    with open_hdf5(path) as file:
        there = [key for key in file if isinstance(file[key], h5py.Dataset)]
        chosen = name or (there[0] if len(there) == 1 else "")
        if chosen not in there:
            raise NotFoundError(f"{path}: name one of its datasets, {path.name}:NAME; there are: {', '.join(there) or 'none'}")
        dataset = file[chosen]
        _require_rows(path, dataset, n_rows)
        unique, back = np.unique(rows, return_inverse=True)  # HDF5 wants increasing rows
        with reading(path, f"HDF5, dataset '{chosen}'"):
            return name or path.stem, np.asarray(dataset[unique], np.float32)[back]


def _split_dataset(place: str) -> tuple[str, str]:
    head, colon, tail = place.rpartition(":")
    return (head, tail) if colon and Path(head).suffix in SUFFIXES else (place, "")


def _require_rows(path: Path, table: "np.ndarray | h5py.Dataset", n_rows: int) -> None:
    if table.dtype.kind not in "biuf" or table.ndim < 2:
        raise InputError(f"{path}: numbers (image, dim) are needed, {table.dtype} {table.shape} came")
    if table.shape[0] != n_rows:
        raise InputError(f"{path}: {table.shape[0]} rows; one for each of the {n_rows} images of the stimulus file is needed")
