"""Arrays of numbers from .npy, .npz and HDF5 files: memory-mapped where the file allows it, never unpickled."""

import math
import os
from pathlib import Path
from zipfile import is_zipfile

import h5py
import numpy as np

from pulvinar.config import suggest
from pulvinar.data.tables import read_table
from pulvinar.errors import FileError, InputError, NotFoundError
from pulvinar.storage import map_hdf5_array, open_hdf5, open_npz, read_hdf5_array, reading, require_file

HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npy", ".npz", *HDF5_SUFFIXES)
GLMSINGLE_BETAS = "betasmd"
ID_KEYS = ("id", "ids", "image_ids", "stimulus_ids")  # arrays that name the rows
ID_COLUMNS = ("id", "file")  # the same of a .csv beside

PICKLE_REFUSED = """{path}: holds Python objects (a pickle), which are never opened here: unpickling a file can run any code.
GLMsingle writes such a file unless its option is opt['wanthdf5'] = 1. Run it so, or re-save a file that you trust as HDF5:
    import h5py, numpy
    betas = numpy.load({path_text!r}, allow_pickle=True).item()['betasmd']
    with h5py.File({hdf5_text!r}, 'w') as file:
        file.create_dataset('betasmd', data=betas)"""


def read_array(path: str | os.PathLike[str], array: str | None = None) -> np.ndarray:
    """Numbers from `.npy`, `.npz` or `.h5`/`.hdf5`, as stored; read-only memory map for .npy and contiguous HDF5.

    `array` names one of several arrays in .npz and HDF5. Without it the file must hold a single array (one named `id` is
    not counted: it holds stimulus ids), or GLMsingle's `betasmd`.

    Raises `FileError` for a missing, truncated, foreign or pickled file, `NotFoundError` for an array that is not there,
    `InputError` for values that are not numbers.
    """
    path = require_file(path)
    if path.suffix.lower() == ".npy":
        values = _read_npy(path, array)
    elif path.suffix.lower() == ".npz":
        values = _read_npz(path, _choose(path, _names_in_npz(path), array))
    elif path.suffix.lower() in HDF5_SUFFIXES:
        values = map_hdf5_array(path, _choose(path, _names_in_hdf5(path), array))
    else:
        raise FileError(f"{path}: arrays are read from {', '.join(ARRAY_SUFFIXES)}, not from '{path.suffix or path.name}'")
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "biuf":
        raise InputError(f"{path}: numbers are needed, {getattr(values, 'dtype', 'an empty dataset')} came")
    return values


def read_ids(path: str | os.PathLike[str]) -> list[str] | None:
    """The names of a file's rows: its array `id` (or `ids`, `image_ids`, `stimulus_ids`), or those of the .csv beside it.

    That is a table of the same name with a column `id` or `file`, one line per row, as `predict` and `data embed`
    write it beside a .npy. None if there are no names.
    """
    path = require_file(path)
    ids, where = None, path
    if path.suffix.lower() == ".npz":
        key = _id_key(_names_in_npz(path), path)
        ids = None if key is None else _read_npz(path, key)
    elif path.suffix.lower() in HDF5_SUFFIXES:
        with open_hdf5(path) as file:
            key = _id_key(list(file), path)
            ids = None if key is None else read_hdf5_array(file, key)
    if ids is None:
        return _ids_beside(path)
    return as_names(ids, f"{where}: '{key}'")


def as_names(ids: np.ndarray, what: str) -> list[str]:
    """Names, such as stimulus ids, from an array of text or whole numbers; `InputError` for anything else."""
    if ids.ndim != 1 or ids.dtype.kind not in "OSUiu":
        raise InputError(f"{what} must be a list of names, an array of {ids.dtype} and shape {ids.shape} came")
    try:
        return [name.decode() if isinstance(name, bytes) else str(name) for name in ids.tolist()]
    except UnicodeDecodeError as error:
        raise InputError(f"{what} holds text that is not UTF-8: {error.object!r}") from error


def _id_key(names: list[str], path: Path) -> str | None:
    found = [name for name in names if name in ID_KEYS]
    if len(found) > 1:
        raise InputError(f"{path}: names of the rows stand in {' and '.join(found)}; keep one of them")
    return found[0] if found else None


def _ids_beside(path: Path) -> list[str] | None:
    table = path.with_suffix(".csv")
    if not table.is_file():
        return None
    found = read_table(table)
    column = next((name for name in ID_COLUMNS if found.has(name)), None)
    return None if column is None else found.full_column(column)


def _choose(path: Path, names: list[str], array: str | None) -> str:
    if array is not None:
        if array not in names:
            raise NotFoundError(f"{path}: no array '{array}'{suggest(array, names) if names else '; there is none'}")
        return array
    candidates = [name for name in names if name not in ID_KEYS]
    if GLMSINGLE_BETAS in candidates:
        return GLMSINGLE_BETAS
    if len(candidates) != 1:
        came = ", ".join(candidates) or "none"
        raise InputError(f"{path}: holds {len(candidates)} arrays ({came}); name one: {{ file = ..., array = ... }}")
    return candidates[0]


def _read_npy(path: Path, array: str | None) -> np.ndarray:
    if array is not None:
        raise InputError(f"{path}: a .npy file holds one array without a name; '{array}' was asked for")
    with path.open("rb") as file:
        start = file.read(512)
    if not start.startswith(b"\x93NUMPY"):
        other = ": it is a zip archive; name it .npz" if is_zipfile(path) else " (its first bytes are not those of one)"
        raise FileError(f"{path}: not a .npy file{other}")
    if b"'|O'" in start:
        hdf5_text = str(path.with_suffix(".hdf5"))
        raise FileError(PICKLE_REFUSED.format(path=path, path_text=str(path), hdf5_text=hdf5_text))
    with reading(path, "a .npy array"):
        _refuse_more_than_an_array(path)
        if _npy_shape_is_mappable(path):
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return np.load(path, allow_pickle=False)


def _npy_header(path: Path) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape and type of the array in a .npy file, and where its values start."""
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(file)
        return shape, dtype, file.tell()


def _npy_shape_is_mappable(path: Path) -> bool:
    """Whether there is a byte of data to map (an array of size 0 cannot be)."""
    return 0 not in _npy_header(path)[0]


def _refuse_more_than_an_array(path: Path) -> None:
    """Several arrays saved into one open .npy file follow each other, and numpy reads the first."""
    shape, dtype, start = _npy_header(path)
    more = path.stat().st_size - start - math.prod(shape) * dtype.itemsize
    if more > 0:
        raise ValueError(f"{more} bytes follow its array of {dtype} {shape}; several arrays belong into an .npz")


def _names_in_npz(path: Path) -> list[str]:
    with open_npz(path) as archive:
        return list(archive)


def _read_npz(path: Path, name: str) -> np.ndarray:
    with open_npz(path) as archive, reading(path, f"an .npz archive, array '{name}'"):
        return archive[name]


def _names_in_hdf5(path: Path) -> list[str]:
    names: list[str] = []

    def collect(name: str, node: h5py.Dataset | h5py.Group) -> None:
        if isinstance(node, h5py.Dataset):
            names.append(name)

    with open_hdf5(path) as file, reading(path, "HDF5"):
        file.visititems(collect)
    return names


def single_precision(values: np.ndarray, who: str) -> np.ndarray:
    """Values (trial, voxel) as float32; `InputError` where a voxel varies by too little, for its size, to be told in it.

    float32 has 24 bits: a voxel around 1e6 is kept to .06. Refused is a voxel whose step is more than a hundredth of its
    standard deviation over trials (a voxel that is constant up to float64's own rounding is constant).
    """
    single = values.astype(np.float32)
    if values.dtype.itemsize < 4 or values.dtype == np.float32 or values.ndim != 2 or len(values) < 2:
        return single
    exact = values.astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        size, spread = np.abs(exact).max(0), exact.std(0)
        lost = (spread > 1e-12 * size) & (np.spacing(size.astype(np.float32)) > 0.01 * spread)
    if lost.any():
        voxel = int(np.flatnonzero(lost)[0])
        raise InputError(
            f"{who}: {int(lost.sum())} of {len(lost)} voxels lose their differences in single precision: voxel {voxel} lies at "
            f"{size[voxel]:g} with a standard deviation of {spread[voxel]:g}. Subtract each voxel's mean before you save them"
        )
    return single
