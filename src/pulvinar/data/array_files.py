"""Arrays of numbers from .npy, .npz and HDF5 files: memory-mapped where the file allows it, never unpickled."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from zipfile import is_zipfile

import h5py
import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import map_hdf5_array, open_hdf5, read_hdf5_array
from pulvinar.core.storage import open_npz, read_npy_header, reading, reads, require_file
from pulvinar.data.tables import TABLE_SUFFIXES, Table, read_table

HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npy", ".npz", *HDF5_SUFFIXES)
GLMSINGLE_BETAS = "betasmd"
ID_KEYS = ("id", "ids", "image_ids", "stimulus_ids")  # arrays that name the rows
ID_COLUMNS = ("id", "file")  # the same of a table beside
TEXT = "SUO"  # kinds of dtypes that can be names

PICKLE_REFUSED = """{path}: holds Python objects (a pickle), which are never opened here: unpickling a file can run any code.
GLMsingle writes such a file unless its option is opt['wanthdf5'] = 1. Run it so, or re-save a file that you trust as HDF5:
    import h5py, numpy
    betas = numpy.load({path_text!r}, allow_pickle=True).item()['betasmd']
    with h5py.File({hdf5_text!r}, 'w') as file:
        file.create_dataset('betasmd', data=betas)"""


@reads("an array")
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


@reads("an array with names")
def read_ids(path: str | os.PathLike[str], n_rows: int | None = None) -> list[str] | None:
    """The names of a file's rows: its array `id` (or `ids`, `image_ids`, `stimulus_ids`), or those of the table beside it.

    That is a .csv or .tsv of the same name with a column `id` or `file`, one line per row, as `predict` and `data embed`
    write it beside a .npy. Where nothing is called so, the only texts that are as many as the rows and all different are the
    names (`only_names`). None if there are no names. n_rows: how many rows there are, where their number is not that of the
    first axis of an array in the file.
    """
    path = require_file(path)
    held = _held(path)
    counts = {shape[0] for shape, kind in held.values() if shape and kind not in TEXT} if n_rows is None else {n_rows}
    key = _id_key([name for name in held if name], path)
    if key is None:
        fitting = [name for name, (shape, kind) in held.items() if kind in TEXT and len(shape) == 1 and shape[0] in counts]
        key = only_names({name: as_names(_read_named(path, name), f"{path}: '{name}'") for name in fitting}, str(path), "ids")
    return _ids_beside(path, counts) if key is None else as_names(_read_named(path, key), f"{path}: '{key}'")


def only_names(texts: Mapping[str, Sequence[str]], origin: str, usual: str) -> str | None:
    """Which of several lists of texts names the rows: the only one whose texts are all different and not all numbers.

    None if there is none. `InputError` where several could; usual: what the right one should be called.
    """
    fitting = [key for key, names in texts.items() if len(set(names)) == len(names) > 1 and not all(map(_is_number, names))]
    if len(fitting) > 1:
        raise InputError(f"{origin}: {', '.join(fitting)} could each name the rows; call the right one '{usual}'")
    return fitting[0] if fitting else None


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return not text
    return True


def _held(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and kind of dtype of the arrays of a file by name ('' in a .npy), as far as they are told without their values."""
    suffix = path.suffix.lower()
    if suffix == ".npz":
        with open_npz(path) as archive, reading(path, "an .npz archive"):
            return {name: (shape, dtype.kind) for name in archive for shape, dtype in [archive.header(name)]}
    if suffix in HDF5_SUFFIXES:
        with open_hdf5(path) as file, reading(path, "HDF5"):
            nodes = {name: node for name, node in file.items() if isinstance(node, h5py.Dataset)}
            return {name: (node.shape or (), _hdf5_kind(node.dtype)) for name, node in nodes.items()}
    if suffix == ".npy":
        with reading(path, "a .npy array"), path.open("rb") as file:
            shape, dtype = read_npy_header(file)
            return {"": (shape, dtype.kind)}
    return {}


@reads("an array")
def texts_in(path: Path) -> set[str]:
    """Names of the arrays of a file that hold text, not numbers."""
    return {name for name, (_, kind) in _held(path).items() if kind in TEXT}


def _hdf5_kind(dtype: np.dtype) -> str:
    """Kind of an HDF5 dtype: text has that of fixed-length text, whatever else is stored as objects (references) has 'V'."""
    if h5py.check_string_dtype(dtype):
        return "S"
    return "V" if dtype.hasobject else dtype.kind


def _read_named(path: Path, name: str) -> np.ndarray:
    """An array of names of an .npz or HDF5 file."""
    if path.suffix.lower() == ".npz":
        return _read_npz(path, name)
    with open_hdf5(path) as file:
        return read_hdf5_array(file, name)


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


def _ids_beside(path: Path, counts: set[int]) -> list[str] | None:
    """Names in the table of the same name. counts: how many rows there may be; empty: any number."""
    for table in (path.with_suffix(suffix) for suffix in TABLE_SUFFIXES):
        if table.is_file() and (column := _naming_column(found := read_table(table), counts)) is not None:
            return found.full_column(column)
    return None


def _naming_column(table: Table, counts: set[int]) -> str | None:
    usual = next((name for name in ID_COLUMNS if table.has(name)), None)
    if usual is not None or (counts and not {len(table), len(table) + 1} & counts):
        return usual
    column = only_names(table.columns, str(table.path), ID_COLUMNS[0])
    if column is not None and counts and len(table) not in counts:
        raise InputError(f"{table.path}: {len(table)} rows under '{column}' for {len(table) + 1}; is its header line missing?")
    return column


def _choose(path: Path, names: list[str], array: str | None) -> str:
    if array is not None:
        if array not in names:
            raise NotFoundError(f"{path}: no array '{array}'{suggest(array, names) if names else '; there is none'}")
        return array
    candidates = [name for name in names if name not in ID_KEYS and name not in texts_in(path)]
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


def _npy_shape_is_mappable(path: Path) -> bool:
    """Whether there is a byte of data to map (an array of size 0 cannot be)."""
    with path.open("rb") as file:
        return 0 not in read_npy_header(file)[0]


def _refuse_more_than_an_array(path: Path) -> None:
    """Several arrays saved into one open .npy file follow each other, and numpy reads the first."""
    with path.open("rb") as file:
        shape, dtype = read_npy_header(file)
        more = path.stat().st_size - file.tell() - math.prod(shape) * dtype.itemsize
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


class PrecisionCheck:
    """Whether float32 tells the values of every voxel apart, over all trials that are shown to it, some at a time.

    float32 has 24 bits: a voxel around 1e6 is kept to .06. Refused is a voxel whose step is more than a hundredth of its
    standard deviation over trials (a voxel that is constant up to float64's own rounding is constant).
    """

    def __init__(self) -> None:
        self._first: np.ndarray | None = None
        self._n = 0

    def see(self, block: np.ndarray) -> None:
        """More trials (trial, voxel), in the type that they come in."""
        if block.dtype.itemsize < 4 or block.dtype == np.float32:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            if self._first is None:
                self._first = block[0].astype(np.float64)
                self._size, self._sum, self._square = np.zeros((3, len(self._first)))
            self._n += len(block)
            for trial in block:
                value = trial.astype(np.float64)
                np.maximum(self._size, np.abs(value), out=self._size)
                value -= self._first
                self._sum += value
                self._square += value * value

    def require_told(self, who: str) -> None:
        """Raise `InputError` naming the first voxel that loses its differences, if there is one."""
        if self._first is None or self._n < 2:
            return
        with np.errstate(invalid="ignore", over="ignore"):
            spread = np.sqrt(np.maximum(self._square / self._n - (self._sum / self._n) ** 2, 0.0))
            lost = (spread > 1e-12 * self._size) & (np.spacing(self._size.astype(np.float32)) > 0.01 * spread)
        if lost.any():
            voxel = int(np.flatnonzero(lost)[0])
            raise InputError(
                f"{who}: {int(lost.sum())} of {len(lost)} voxels lose their differences in single precision: voxel {voxel} "
                f"lies at {self._size[voxel]:g} with a standard deviation of {spread[voxel]:g}. Subtract each voxel's mean "
                "before you save them"
            )


def single_precision(values: np.ndarray, who: str) -> np.ndarray:
    """Values (trial, voxel) as float32; `InputError` where a voxel varies by too little, for its size, to be told in it."""
    if values.ndim == 2:
        check = PrecisionCheck()
        check.see(values)
        check.require_told(who)
    return values.astype(np.float32)
