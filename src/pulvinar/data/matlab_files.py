"""MATLAB's .mat files of both kinds: version 5 (scipy) and version 7.3 (HDF5, whose axes lie reversed).

Everything here is in MATLAB's axis order, as `size(x)` shows it: what MATLAB calls 15 x 92 x 92 is (15, 92, 92), though in a
version 7.3 file h5py sees (92, 92, 15). The kind is told from the content, never from the name.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.hdf5 import create_hdf5, hdf5_values, open_hdf5, read_hdf5_array
from pulvinar.core.storage import atomic_path, reading, reads, require_file
from pulvinar.core.untrusted import require_readable

MATLAB_SUFFIXES = (".mat",)
HEADER_BYTES, USER_BLOCK_BYTES = 128, 512
HEADER_5, HEADER_7_3 = b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"
REFERENCES = "#refs#"  # the group where MATLAB keeps the values that its references point to
CLASSES = {"float64": "double", "float32": "single", "bool": "logical"}  # the others are called alike
NUMERIC = "biuf"

Struct = Mapping[str, Any]


@reads("a MATLAB file")
def matlab_version(path: str | os.PathLike[str]) -> str:
    """'5' or '7.3', from the content; `FileError` says what the file is instead, or that it is cut short."""
    path = require_file(path, "MATLAB file")
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    if h5py.is_hdf5(path):
        return "7.3"
    if header.startswith(HEADER_7_3):
        raise FileError(f"{path}: its header says MATLAB 7.3, but no HDF5 follows (truncated, or damaged)")
    if header.startswith(HEADER_5):
        if len(header) < HEADER_BYTES:
            raise FileError(f"{path}: truncated: {len(header)} bytes, the header alone has {HEADER_BYTES}")
        return "5"
    raise FileError(
        f"{path}: neither MATLAB version 5 nor 7.3 (it begins with {header[:8]!r}); save it in MATLAB with -v7 or -v7.3"
    )


@reads("a MATLAB file")
def read_matlab(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The numeric arrays of a .mat file by name, axes in MATLAB's order. Text, cells and structs are left out.

    Raises `FileError` for a file that is missing, truncated or of another format.
    """
    if matlab_version(path) == "5":
        return {name: values for name, values in _load_version_5(path).items() if values.dtype.kind in NUMERIC}
    with open_hdf5(path) as file:
        with reading(path, "MATLAB 7.3 file"):
            numeric = [name for name, node in file.items() if isinstance(node, h5py.Dataset) and node.dtype.kind in NUMERIC]
        return {name: _values(file, name) for name in numeric if _matlab_class(file[name]) != "char"}


@reads("a MATLAB file")
def read_matlab_array(path: str | os.PathLike[str], name: str | None = None) -> np.ndarray:
    """One numeric array of a .mat file, axes in MATLAB's order (`size(x)`), of both versions; the only one without a name.

    Raises `NotFoundError` for a name that is not there or is text, a cell, a struct or complex, `InputError` where one of
    several must be named.
    """
    if matlab_version(path) == "5":
        arrays = read_matlab(path)
        return arrays[_named_array(path, list(arrays), name)]
    with open_hdf5(path) as file:
        with reading(path, "MATLAB 7.3 file"):
            nodes = {key: node for key, node in file.items() if isinstance(node, h5py.Dataset)}
            present = [key for key, node in nodes.items() if node.dtype.kind in NUMERIC and _matlab_class(node) != "char"]
        return _values(file, _named_array(path, present, name))


def _named_array(path: str | os.PathLike[str], present: Sequence[str], name: str | None) -> str:
    listed = ", ".join(present) or "none"
    if name is None and len(present) != 1:
        raise InputError(f"{path}: holds {len(present)} numeric arrays ({listed}); name one: {{ file = ..., array = ... }}")
    if name is not None and name not in present:
        others = left_out_of_matlab(path)
        kind = " (it is text, a cell, a struct, sparse or complex)" if name in others else ""
        raise NotFoundError(f"{path}: no numeric array '{name}'{kind}; there are: {listed}")
    return name or present[0]


@reads("a MATLAB file")
def left_out_of_matlab(path: str | os.PathLike[str]) -> list[str]:
    """Names of the variables that `read_matlab` leaves out: text, cells and structs."""
    read = read_matlab(path)
    if matlab_version(path) == "5":
        return [name for name in _load_version_5(path) if name not in read]
    with open_hdf5(path) as file:
        return [name for name in file if name not in read and name != REFERENCES]


@reads("a MATLAB file")
def read_matlab_structs(path: str | os.PathLike[str], name: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    """The elements of a struct array, each a dict of these fields: text as str, numbers as arrays in MATLAB's order.

    Raises `FileError` for a file that cannot be read, `NotFoundError` naming what is there instead of the struct or a field.
    """
    if matlab_version(path) == "5":
        return _structs_5(path, name, fields)
    with open_hdf5(path) as file:
        with reading(path, "MATLAB 7.3 file"):
            group = file.get(name)
        if not isinstance(group, h5py.Group):
            raise NotFoundError(f"{path}: no struct '{name}'; there are: {', '.join(key for key in file if key != REFERENCES)}")
        _require_fields(path, name, fields, list(group))
        with reading(path, f"MATLAB 7.3 file, struct '{name}'"):
            columns = [_field_7_3(file, group[field]) for field in fields]
            return [dict(zip(fields, row, strict=True)) for row in zip(*columns, strict=True)]


def _require_fields(path: str | os.PathLike[str], name: str, fields: Sequence[str], present: Sequence[str]) -> None:
    missing = [field for field in fields if field not in present]
    if missing:
        raise NotFoundError(f"{path}: struct '{name}' has no field {missing[0]!r}; it has: {', '.join(present) or 'none'}")


# --- version 5 --------------------------------------------------------------------------------------------------------


def _load_version_5(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    import scipy.io

    require_readable(path, "mat")
    with reading(path, "MATLAB version 5 file"), Path(path).open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("error", scipy.io.matlab.MatReadWarning)  # one name twice: which of them?
        return {name: values for name, values in scipy.io.loadmat(file).items() if isinstance(values, np.ndarray)}


def _structs_5(path: str | os.PathLike[str], name: str, fields: Sequence[str]) -> list[dict[str, Any]]:
    present = _load_version_5(path)
    if name not in present or present[name].dtype.names is None:
        raise NotFoundError(f"{path}: no struct '{name}'; there are: {', '.join(present) or 'none'}")
    elements = present[name].ravel(order="F")
    _require_fields(path, name, fields, elements.dtype.names or ())
    return [{field: _text_or_array(element[field]) for field in fields} for element in elements]


def _text_or_array(value: np.ndarray) -> Any:
    return "".join(value.ravel()) if value.dtype.kind == "U" else value


# --- version 7.3: reading ---------------------------------------------------------------------------------------------


def _matlab_class(node: h5py.Dataset | h5py.Group) -> str:
    value = node.attrs.get("MATLAB_class", b"")
    return value.decode() if isinstance(value, bytes) else str(value)


def _values(file: h5py.File, name: str) -> np.ndarray:
    """A dataset with its axes turned back to MATLAB's order; of an empty array MATLAB stores the shape in place of values."""
    if file[name].attrs.get("MATLAB_empty", 0):
        shape = [int(size) for size in np.ravel(read_hdf5_array(file, name))]
        if 0 not in shape:
            raise FileError(f"{file.filename}: '{name}' is marked as empty, but its shape is {shape}")
        return np.zeros(shape)
    return read_hdf5_array(file, name).T


def _value_7_3(node: h5py.Dataset) -> Any:
    values = hdf5_values(node).T
    if _matlab_class(node) == "char":
        return "" if node.attrs.get("MATLAB_empty", 0) else "".join(chr(code) for code in values.ravel(order="F"))
    return values


def _field_7_3(file: h5py.File, node: h5py.Dataset) -> list[Any]:
    """One field of all elements: references in a struct array, the value itself in a single struct."""
    if h5py.check_ref_dtype(node.dtype) is None:
        return [_value_7_3(node)]
    return [_value_7_3(file[reference]) for reference in hdf5_values(node).T.ravel(order="F")]


# --- version 7.3: writing ---------------------------------------------------------------------------------------------


def write_matlab_7_3(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    structs: Mapping[str, Sequence[Struct]] | None = None,
) -> None:
    """Write numeric arrays and 1 x n struct arrays (of text and numbers) as MATLAB 7.3 does, atomically.

    HDF5 with MATLAB's 512-byte user block and class attributes, axes reversed; the elements of a struct array are object
    references into `#refs#`. The header carries no date, so the same content gives the same bytes.
    """
    for name, values in arrays.items():
        if np.asarray(values).dtype.kind not in NUMERIC:
            raise InputError(f"{path}: array '{name}' holds {np.asarray(values).dtype}; numbers are needed")
    with atomic_path(path) as temporary:
        with create_hdf5(temporary, userblock_size=USER_BLOCK_BYTES, libver=("earliest", "v110")) as file:
            for name, values in arrays.items():
                _write_value(file, name, np.asarray(values))
            for name, elements in (structs or {}).items():
                _write_structs(file, name, elements)
        with temporary.open("r+b") as raw:
            raw.write(_header())


def _header() -> bytes:
    """MATLAB's 128 bytes: 116 of text, 8 of nothing, the version 0x0200, and the byte order mark."""
    text = HEADER_7_3 + b", Platform: pulvinar, Created on: no date HDF5 schema 1.00 ."
    return text.ljust(116) + bytes(8) + (0x0200).to_bytes(2, "little") + b"IM"


def _write_value(group: h5py.Group, name: str, value: Any) -> h5py.Dataset:
    if isinstance(value, str):
        codes = np.array([[ord(letter)] for letter in value], np.uint16).reshape(-1, 1)
        node = group.create_dataset(name, data=codes)
        node.attrs["MATLAB_class"] = np.bytes_("char")
        node.attrs["MATLAB_int_decode"] = np.int32(2)
        return node
    values = np.atleast_2d(np.asarray(value))
    stored = values.astype(np.uint8) if values.dtype == bool else values
    node = group.create_dataset(name, data=np.ascontiguousarray(stored.T))
    node.attrs["MATLAB_class"] = np.bytes_(CLASSES.get(str(values.dtype), str(values.dtype)))
    if values.dtype == bool:
        node.attrs["MATLAB_int_decode"] = np.int32(1)
    return node


def _write_structs(file: h5py.File, name: str, elements: Sequence[Struct]) -> None:
    group, references = file.create_group(name), file.require_group(REFERENCES)
    group.attrs["MATLAB_class"] = np.bytes_("struct")
    fields = list(elements[0])
    letters = np.empty(len(fields), dtype=object)
    letters[:] = [np.array([letter.encode() for letter in field], "S1") for field in fields]
    group.attrs.create("MATLAB_fields", letters, dtype=h5py.vlen_dtype(np.dtype("S1")))
    for field in fields:
        column = group.create_dataset(field, (len(elements), 1), dtype=h5py.ref_dtype)
        for row, element in enumerate(elements):
            column[row, 0] = _write_value(references, f"{name}_{field}_{row}", element[field]).ref
