"""The one file in the field that cannot be read without unpickling: a .npy that holds a dict. Admits dict, int and str alone.

Unpickling runs code by looking up names. Here three names of numpy, which any such file mentions, become inert stand-ins, and
every other name is refused, so that nothing is called.
"""

import io
import os
import pickle
from typing import Any

import numpy as np

from pulvinar.core.errors import FileError
from pulvinar.core.storage import reading, require_file

LARGEST_BYTES = 2**20  # a mapping of some names is under a kilobyte


class _Inert:
    """Stands in for numpy's array and dtype: keeps the state it is given, and does nothing."""

    def __init__(self, *_: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


STAND_INS = {
    (module, name)
    for module, name in (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in STAND_INS:
            return _Inert
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a mapping of numbers to names does not need")

    def persistent_load(self, _: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside itself")


def read_mapping(path: str | os.PathLike[str]) -> dict[int, str]:
    """Number -> name from a .npy file of a dict; `FileError` if it holds anything but int and str, or asks for any code."""
    path = require_file(path, "mapping")
    if path.stat().st_size > LARGEST_BYTES:
        raise FileError(f"{path}: {path.stat().st_size} bytes; a mapping of numbers to names is far smaller")
    with reading(path, "a mapping (.npy of a dict)"):
        found = _read(path.read_bytes())
    plain = isinstance(found, dict) and all(type(key) is int and type(name) is str for key, name in found.items())
    if not plain:
        raise FileError(f"{path}: a dict of whole numbers and texts is needed, other things came")
    return found


def _read(content: bytes) -> Any:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"an array of {dtype} {shape} is in it, not a dict")
    array = _Unpickler(file).load()
    state = array.state if isinstance(array, _Inert) else None
    return state[4][0] if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list) and state[4] else None
