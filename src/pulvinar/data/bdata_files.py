"""BData files (bdpy, BrainDecoderToolbox2): one table (sample, column), and rows of metadata that say what each column is.

HDF5: `/dataSet` or `/dataset`, `/metaData` or `/metadata` with `key`, `value` (key, column). MATLAB 5: `dataSet`, and the
struct `metaData` with `key` and `value`. A key selects the columns where its row is 1; NaN is "does not apply", and so not 1.
Labels of samples and voxels stand side by side, in any order. What the numbers of a label mean stands in `/vmap/KEY/NUMBER`, of
that file alone: every file numbers its own.

A picture of ImageNet is a number too (`stimulus_id`): the synset before the point, the picture in six decimals after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import create_hdf5, open_hdf5, read_hdf5_array, refuse_fill
from pulvinar.core.storage import reading, require_file
from pulvinar.data.matlab_files import matlab_version, read_matlab, read_matlab_structs

DECIMALS = 6  # of a stimulus_id: the picture's number
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
    vmap: dict[str, dict[float, str]] = field(default_factory=dict)

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

    def names(self, key: str) -> list[str]:
        """What the label of every sample is called, by the file's own numbers of it (`vmap`).

        `NotFoundError` where the file does not say it, `InputError` for a number that is not among them.
        """
        if not self.vmap.get(key):
            raise NotFoundError(f"{self.path}: no vmap/{key}, which says what the numbers of '{key}' are called")
        numbers, known = self.label(key), self.vmap[key]
        strange = [number for number in np.unique(numbers).tolist() if number not in known]
        if strange:
            raise InputError(f"{self.path}: {key} {strange[0]:g} is not among the {len(known)} numbers of vmap/{key}")
        return [known[number] for number in numbers.tolist()]

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


def picture_name(number: float) -> str:
    """'n01443537_22563' for 1443537.022563: the synset before the point, the picture in six decimals after it.

    >>> picture_name(1621127.01902), picture_name(1639765.0476809999)
    ('n01621127_19020', 'n01639765_47681')
    """
    synset, _, picture = f"{number:.{DECIMALS}f}".partition(".")
    return f"n{int(synset):08d}_{int(picture)}"


def require_pictures(file: BData, numbers: np.ndarray) -> None:
    """`InputError` unless these numbers name pictures of ImageNet, kept in a type that holds their six decimals."""
    if file.stored.itemsize < 8:
        raise InputError(f"{file.path}: {file.stored} cannot hold a stimulus_id with its six decimals; float64 can")
    if not np.isfinite(numbers).all() or (numbers < 1).any() or (np.rint(numbers % 1 * 10**DECIMALS) == 0).any():
        raise InputError(f"{file.path}: a stimulus_id is SYNSET.PICTURE, such as 1443537.022563; {numbers[0]} came")


def write_bdata(
    path: Path,
    table: np.ndarray,
    metadata: Mapping[str, np.ndarray],
    vmap: Mapping[str, Mapping[float, str]] | None = None,
    *,
    names: tuple[str, str] = ("dataSet", "metaData"),
) -> None:
    """A file of this form: float64 (sample, column), a row of metadata for each key, and what numbers of labels are called.

    names: of table and metadata; bdpy writes ("dataset", "metadata") today.
    """
    with create_hdf5(path) as file:
        file.create_dataset(names[0], data=np.asarray(table, np.float64))
        file.create_dataset(f"{names[1]}/key", data=np.array(list(metadata), "S"))
        file.create_dataset(f"{names[1]}/description", data=np.array([f"1 = {key}" for key in metadata], "S"))
        file.create_dataset(f"{names[1]}/value", data=np.stack(list(metadata.values())))
        for key, known in (vmap or {}).items():
            for number, text in known.items():
                file.create_dataset(f"vmap/{key}/{number}", data=np.bytes_(text))


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
            vmap=_vmap(path, file),
        )


def _vmap(path: Path, file: h5py.File) -> dict[str, dict[float, str]]:
    """Key -> number -> what it is called, of every label that the file explains."""
    group, found = file.get("vmap"), {}
    with reading(path, "BData, vmap"):
        for key in group if isinstance(group, h5py.Group) else ():
            if isinstance(group[key], h5py.Group):
                found[str(key)] = {float(number): _text(read_hdf5_array(group[key], number)) for number in group[key]}
    return found


def _text(value: np.ndarray) -> str:
    content = value.item()
    return content.decode() if isinstance(content, bytes) else str(content)


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
