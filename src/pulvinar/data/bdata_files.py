"""BData files (bdpy, BrainDecoderToolbox2): one table (sample, column), and rows of metadata that say what each column is.

HDF5: `/dataSet` or `/dataset`, `/metaData` or `/metadata` with `key`, `value` (key, column). MATLAB 5: `dataSet`, and the
struct `metaData` with `key` and `value`. A key selects the columns where its row is 1; NaN is "does not apply", and so not 1.
Labels of samples and voxels stand side by side, in any order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array, refuse_fill
from pulvinar.core.storage import reading, require_file
from pulvinar.data.matlab_files import matlab_version, read_matlab, read_matlab_structs

TABLES, METADATA = ("dataSet", "dataset"), ("metaData", "metadata")


@dataclass(frozen=True, kw_only=True, eq=False)
class BData:
    """An open table: metadata (key -> (column,)), and its values, which stay in the file where that is HDF5."""

    path: Path
    n_samples: int
    n_columns: int
    stored: np.dtype
    metadata: dict[str, np.ndarray]
    table: str = ""
    values: np.ndarray | None = None

    def columns(self, key: str) -> np.ndarray:
        """Numbers of the columns where the row of a key is 1; `NotFoundError` lists the keys that are there."""
        return np.flatnonzero(is_one(self._row(key)))

    def facts(self, key: str, columns: np.ndarray) -> np.ndarray:
        """What the row of a key says of some columns, such as voxel_x."""
        return self._row(key)[columns]

    def label(self, *keys: str) -> np.ndarray:
        """The label column of the first of these keys that is there: (sample,). `InputError` unless it is one column."""
        key = next((name for name in keys if name in self.metadata), keys[0])
        columns = self.columns(key)
        if len(columns) != 1:
            raise InputError(f"{self.path}: '{key}' is a label of samples, one column; {len(columns)} came")
        return self.read(np.arange(self.n_samples), columns)[:, 0]

    def read(self, samples: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Values (sample, column) of some samples and columns, in the stored type; of HDF5 the rows between them are read."""
        if self.values is not None:
            return self.values[np.ix_(samples, columns)]
        low, high = int(samples.min()), int(samples.max()) + 1
        first, last = int(columns.min()), int(columns.max()) + 1
        with open_hdf5(self.path) as file, reading(self.path, f"HDF5, dataset '{self.table}'"):
            return file[self.table][low:high, first:last][np.ix_(samples - low, columns - first)]

    def _row(self, key: str) -> np.ndarray:
        if key not in self.metadata:
            raise NotFoundError(f"{self.path}: no metadata '{key}'{suggest(key, list(self.metadata))}")
        return self.metadata[key]


def is_one(row: np.ndarray) -> np.ndarray:
    """Which columns a row of metadata selects: those where it is 1 (`bool(nan)` would be true)."""
    return row == 1


def open_bdata(path: Path) -> BData:
    """A `.h5` or `.mat` file of this form, checked; `FileError`, `NotFoundError` or `InputError` says what is wrong in it."""
    path = require_file(path, "BData file")
    if path.suffix.lower() == ".mat":
        return _from_matlab(path)
    with open_hdf5(path) as file:
        table = next((name for name in TABLES if isinstance(file.get(name), h5py.Dataset)), None)
        group = next((name for name in METADATA if isinstance(file.get(name), h5py.Group)), None)
        if table is None or group is None:
            raise NotFoundError(f"{path}: no dataSet and metaData, as bdpy writes them; there are: {', '.join(file) or 'none'}")
        keys = [str(key) for key in np.asarray(read_hdf5_array(file, f"{group}/key")).astype(str)]
        rows, values = read_hdf5_array(file, f"{group}/value"), file[table]
        refuse_fill(str(path), table, values)
        offset = values.id.get_offset()
        if offset is not None and path.stat().st_size < offset + values.nbytes:
            raise FileError(f"{path}: truncated: its values need {offset + values.nbytes} bytes")
        metadata = _metadata(path, keys, rows, values.shape, values.dtype)
        return BData(
            path=path,
            n_samples=values.shape[0],
            n_columns=values.shape[1],
            stored=np.dtype(values.dtype),
            metadata=metadata,
            table=table,
        )


def _from_matlab(path: Path) -> BData:
    if matlab_version(path) != "5":
        raise InputError(
            f"{path}: BData is read from .h5 files and MATLAB version 5; this one is 7.3. Save it with bdpy as .h5"
        )
    arrays = read_matlab(path)
    if "dataSet" not in arrays:
        raise NotFoundError(f"{path}: no dataSet; there are: {', '.join(arrays) or 'none'}")
    (head,) = read_matlab_structs(path, "metaData", ["key", "value"])
    values = arrays["dataSet"]
    keys = ["".join(np.ravel(key).astype(str).tolist()).strip() for key in np.ravel(head["key"])]
    rows = head["value"]
    if rows.dtype == object:
        with reading(path, "MATLAB 5 file"):
            rows = np.stack([np.ravel(row).astype(float) for row in np.ravel(rows)])
    metadata = _metadata(path, keys, rows, values.shape, values.dtype)
    n_samples, n_columns = values.shape
    return BData(path=path, n_samples=n_samples, n_columns=n_columns, stored=values.dtype, metadata=metadata, values=values)


def _metadata(
    path: Path, keys: Sequence[str], rows: np.ndarray, shape: tuple[int, ...], kind: np.dtype
) -> dict[str, np.ndarray]:
    if len(shape) != 2 or kind.kind != "f":
        raise InputError(f"{path}: dataSet is floating-point (sample, column), {kind} {shape} came")
    if rows.shape != (len(keys), shape[1]) or rows.dtype.kind not in "biuf":
        raise InputError(f"{path}: metadata are numbers ({len(keys)} keys, {shape[1]} columns), {rows.dtype} {rows.shape} came")
    if len(set(keys)) < len(keys):
        raise InputError(f"{path}: a key of the metadata stands there twice")
    return dict(zip(keys, np.asarray(rows, np.float64), strict=True))
