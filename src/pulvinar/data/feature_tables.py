"""Embeddings in files of their own: a row per image of a stimulus set, pooled (image, dim) or tokens (image, token, dim).

.npy, .npz, .h5/.hdf5 and .safetensors; where a file holds several arrays, FILE:NAME says which. Uncompressed ones are read as
memory maps, so that only the rows asked for are in memory. `pulvinar data embed` writes such files, with what they were made
from in a .json beside (with the checksum that the file is compared with when it is opened), and the ids of the rows in a .csv.
"""

import functools
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core import checksums
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import map_hdf5_array, open_hdf5
from pulvinar.core.progress import warn
from pulvinar.core.storage import fingerprint, open_npz, read_json, reading, reads, require_file
from pulvinar.data.array_files import ID_KEYS, read_ids, texts_in
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.stimuli import Stimuli

SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".safetensors")
LABEL = "label"  # the feature that is made of the labels, of stimuli that have nothing else
SAFETENSORS_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "|i1",
    "U8": "|u1",
}


def is_table(place: str) -> bool:
    """Whether this is the name of such a file (or FILE:NAME), and not that of a feature."""
    return Path(_split_name(place)[0]).suffix.lower() in SUFFIXES


@reads("a table of embeddings")
def open_table(place: str, *, ids: Sequence[str]) -> np.ndarray:
    """The array (image, dim) or (image, token, dim) of a file, a row per id, a memory map wherever the file allows.

    Rows are found by the names that stand in the file or in the table beside it (`array_files.read_ids`). Without any, the
    .json of `pulvinar data embed` says whether the rows are those of these ids in this order; without that, the order is taken
    on trust, with a warning. Raises `InputError` for another number of rows, or rows of other images, `NotFoundError` for an
    unknown NAME or ids without a row.
    """
    text, name = _split_name(place)
    path = require_file(text, "file of embeddings")
    expected = made_from(place).get("sha256")
    if isinstance(expected, str):
        checksums.require(path, expected, written_in=path.with_suffix(".json").name)
    stamp = path.stat()
    table = _opened(str(path), name, stamp.st_mtime_ns, stamp.st_size)
    names = read_ids(path, len(table))
    if names is not None:
        _require_rows(path, table, len(names), "names beside them")
        rows = ImageNames(names, str(path)).rows(ids, origin="these data", what="stimuli", different=True)
        return table if np.array_equal(rows, np.arange(len(table))) else np.asarray(table[rows])
    _require_rows(path, table, len(ids), "stimuli")
    known = made_from(place).get("stimuli")
    if known is None:
        warn(f"{path}: holds no names; its rows are taken in the order of the stimuli, on trust", once=True)
    elif known != fingerprint(*ids):
        raise InputError(f"{place}: embeddings of other images, or in another order; make them from these data")
    return table


@reads("a table of embeddings")
def read_rows(place: str, rows: np.ndarray, *, n_rows: int, ids: Sequence[str] = ()) -> tuple[str, np.ndarray]:
    """Name (the file's, or the array's in it) and float32 (row, ...) of some rows of a file's table.

    rows: places in a table of a whole stimulus set of `n_rows` images. ids: their names, by which the rows are found where the
    file holds names.
    """
    text, name = _split_name(place)
    path = require_file(text, "file of features")
    names = read_ids(path) if ids else None
    if names is not None:
        own = ImageNames(names, str(path))
        rows, n_rows = own.rows(ids, origin="these data", what="stimuli", different=True), len(own)
    elif ids:
        warn(f"{path}: holds no names; its rows are taken by their number in the stimulus file, on trust", once=True)
    if path.suffix.lower() not in (".h5", ".hdf5"):
        stamp = path.stat()
        table = _opened(str(path), name, stamp.st_mtime_ns, stamp.st_size)
        _require_rows(path, table, n_rows, "images of the stimulus file")
        return name or path.stem, np.asarray(table[rows], np.float32)
    with open_hdf5(path) as file:  # also of chunked, compressed datasets only the rows that are asked for
        dataset = file[_chosen(path, [key for key in file if isinstance(file[key], h5py.Dataset)], name)]
        _require_rows(path, dataset, n_rows, "images of the stimulus file")
        unique, back = np.unique(rows, return_inverse=True)  # HDF5 wants increasing rows
        with reading(path, f"HDF5, dataset '{dataset.name}'"):
            return name or path.stem, np.asarray(dataset[unique], np.float32)[back]


@reads("the notes beside a table of embeddings")
def made_from(place: str) -> dict[str, object]:
    """What the .json beside a file says it was made from; empty without one."""
    sidecar = Path(_split_name(place)[0]).with_suffix(".json")
    found = read_json(sidecar) if sidecar.is_file() else {}
    return found if isinstance(found, dict) else {}


@functools.lru_cache(maxsize=4)
def _opened(text: str, name: str, _changed: int, _size: int) -> np.ndarray:
    path = Path(text)
    suffix = path.suffix.lower()
    if suffix == ".npy":
        with reading(path, "npy array"):
            return np.load(path, mmap_mode="r", allow_pickle=False)
    if suffix == ".npz":
        return _from_npz(path, name)
    if suffix == ".safetensors":
        return _from_safetensors(path, name)
    if suffix in (".h5", ".hdf5"):
        with open_hdf5(path) as file:
            names = [key for key in file if isinstance(file[key], h5py.Dataset)]
        return map_hdf5_array(path, _chosen(path, names, name))
    raise FileError(f"{path}: features are read from {', '.join(SUFFIXES)}")


def _from_npz(path: Path, name: str) -> np.ndarray:
    with open_npz(path) as archive:
        return archive[_chosen(path, list(archive), name)]


def _from_safetensors(path: Path, name: str) -> np.ndarray:
    """A memory map: the format is eight bytes of length, a JSON header, and the plain bytes of the arrays."""
    with reading(path, "safetensors"), path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > path.stat().st_size:
            raise FileError(
                f"{path}: a header of {length} bytes in a file of {path.stat().st_size}; not safetensors, or cut short"
            )
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    entry = header[_chosen(path, list(header), name)]
    if entry["dtype"] not in SAFETENSORS_TYPES:
        raise InputError(f"{path}: numbers of type {entry['dtype']}; {', '.join(SAFETENSORS_TYPES)} are read")
    start, end = entry["data_offsets"]
    if 8 + length + end > path.stat().st_size:
        raise FileError(f"{path}: cut short: {8 + length + end} bytes are needed, {path.stat().st_size} there")
    kind, shape = np.dtype(SAFETENSORS_TYPES[entry["dtype"]]), tuple(entry["shape"])
    return np.memmap(path, dtype=kind, mode="r", offset=8 + length + start, shape=shape)


def _chosen(path: Path, names: list[str], name: str) -> str:
    names = [key for key in names if key not in ID_KEYS and key not in texts_in(path)]
    chosen = name or (names[0] if len(names) == 1 else "")
    if chosen not in names:
        raise NotFoundError(f"{path}: name one of its datasets, {path.name}:NAME; there are: {', '.join(names) or 'none'}")
    return chosen


def _split_name(place: str) -> tuple[str, str]:
    head, colon, tail = place.rpartition(":")
    return (head, tail) if colon and Path(head).suffix.lower() in SUFFIXES else (place, "")


def _require_rows(path: Path, table: "np.ndarray | h5py.Dataset", n_rows: int, what: str) -> None:
    if table.dtype.kind not in "biuf" or table.ndim not in (2, 3):
        raise InputError(
            f"{path}: numbers (image, dim) or (image, token, dim) are needed, {table.dtype} {tuple(table.shape)} came"
        )
    if table.shape[0] != n_rows:
        raise InputError(f"{path}: {table.shape[0]} rows; one for each of the {n_rows} {what} is needed")


def is_of_labels(stimuli: Stimuli, name: str) -> bool:
    """Whether the feature of this name is made of the labels, and not one that came with the stimuli."""
    return name == LABEL and LABEL not in stimuli.features


def one_hot_labels(stimuli: Stimuli) -> np.ndarray:
    """(stimulus, label) float32, 1 where a stimulus has a label (in order of the alphabet); `InputError` where one has none."""
    labels = list(stimuli.labels or [""] * len(stimuli))
    without = [name for name, label in zip(stimuli.ids, labels, strict=True) if not label]
    if without:
        raise InputError(f"feature={LABEL}: {len(without)} of {len(labels)} stimuli have no label, e.g. {without[0]}")
    names = sorted(set(labels))
    if len(names) < 2:
        raise InputError(f"feature={LABEL}: two labels or more are needed, all stimuli have '{names[0]}'")
    return np.eye(len(names), dtype=np.float32)[[names.index(label) for label in labels]]


def feature_values(stimuli: Stimuli, name: str) -> np.ndarray:
    """The embedding (stimulus, ...) of this name: one of the stimuli's, of their labels, or a file with a row per stimulus."""
    if is_of_labels(stimuli, name):
        return one_hot_labels(stimuli)
    if name not in stimuli.features and is_table(name):
        return open_table(name, ids=stimuli.ids)
    return stimuli.feature(name)


def choose_feature(stimuli: Stimuli, name: str | None) -> str:
    """The feature to decode: the one named, or the only one there is, or the labels where there is none."""
    names = list(stimuli.features)
    if name is not None:
        feature_values(stimuli, name)
        return name
    if len(names) == 1:
        return names[0]
    if not names:
        if stimuli.labels is not None:
            warn(
                f"the stimuli have no embedding; their {len(set(stimuli.labels))} labels are decoded, one number for each "
                f"(feature={LABEL}), which says nothing of how alike they are",
                once=True,
            )
            return LABEL
        raise NotFoundError(
            "the stimuli have no feature (embedding) to decode; make one with `pulvinar data embed` and name its file with "
            "feature=FILE, or give one per stimulus, e.g. [stimuli] features.clip = 'clip.npy' in the description for "
            "`pulvinar data convert`"
        )
    raise InputError(f"the stimuli have several features ({', '.join(names)}); choose one with feature=NAME")
