"""The one file in the field that cannot be read without unpickling: a .npy that holds a dict of numbers to names.

Unpickling runs code by looking up names, nests without end and sets aside what it is told to. So nothing is unpickled here: the
few operations that such a file consists of are taken one by one, in numbers and texts, and every other one is refused. Three
names of numpy, which any such file mentions, stand for nothing.
"""

import io
import os
import pickletools
from typing import Any

from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_npy_header, reading, reads, require_file

LARGEST_BYTES = 2**20  # a mapping of some names is under a kilobyte
LARGEST_NAME = 1000  # letters
MOST_OPERATIONS = 200_000
DEEPEST = 8  # containers inside each other; numpy's frame around the dict takes four
STAND_INS = {
    (module, name)
    for module, name in (
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    )
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS_AND_TEXT = ("BININT", "BININT1", "BININT2", "INT", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "UNICODE")
_BYTES = ("BINBYTES", "SHORT_BINBYTES", "SHORT_BINSTRING", "BINSTRING", "STRING")  # the last three: text of Python 2
VALUES = (*_NUMBERS_AND_TEXT, *_BYTES)
EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
KEPT = ("BINPUT", "LONG_BINPUT", "PUT")
AGAIN = ("BINGET", "LONG_BINGET", "GET")
IGNORED = ("PROTO", "FRAME")


class _Inert:
    """Stands for numpy's array, its type and their names: keeps the state it is given, and does nothing."""

    def __init__(self) -> None:
        self.state: Any = None
        self.depth = 1


class _Mark:
    """Where the values of a container begin."""


@reads("a mapping (.npy of a dict)")
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
    shape, dtype = read_npy_header(file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"an array of {dtype} {shape} is in it, not a dict")
    array = _Operations().run(content[file.tell() :])
    state = array.state if isinstance(array, _Inert) else None
    return state[4][0] if isinstance(state, tuple) and len(state) == 5 and isinstance(state[4], list) and state[4] else None


class _Operations:
    """A stack, and what was kept of it by number."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.kept: dict[int, Any] = {}
        self.depths: dict[int, int] = {}  # of containers, by their identity; all of them live as long as this does
        self.alive: list[Any] = []

    def run(self, content: bytes) -> Any:
        """What the operations leave."""
        for number, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if number > MOST_OPERATIONS:
                raise ValueError(f"more than {MOST_OPERATIONS} operations")
            if operation.name == "STOP":
                return self.stack.pop()
            self._take(operation.name, argument)
        raise ValueError("it does not end")

    def _take(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(_value(argument))
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in EMPTY:
            self._push(EMPTY[name](), ())
        elif name in TUPLES:
            parts = [self.stack.pop() for _ in range(TUPLES[name])][::-1]
            self._push(tuple(parts), parts)
        elif name == "MARK":
            self.stack.append(_Mark())
        elif name in KEPT or name == "MEMOIZE":
            self.kept[len(self.kept) if name == "MEMOIZE" else int(argument)] = self.stack[-1]
        elif name in AGAIN:
            self.stack.append(self.kept[int(argument)])
        elif name not in IGNORED:
            self._combine(name, argument)

    def _combine(self, name: str, argument: Any) -> None:
        if name in ("GLOBAL", "STACK_GLOBAL"):
            found = tuple(argument.split(" ", 1)) if name == "GLOBAL" else (self.stack.pop(-2), self.stack.pop())
            if found not in STAND_INS:
                raise ValueError(f"it asks for {'.'.join(map(str, found))}, which a mapping of numbers to names does not need")
            self.stack.append(_Inert())
        elif name == "REDUCE":
            self.stack.pop()
            if not isinstance(self.stack.pop(), _Inert):
                raise ValueError("it calls something")
            self.stack.append(_Inert())
        elif name == "BUILD":
            state = self.stack.pop()
            if not isinstance(self.stack[-1], _Inert):
                raise ValueError("it gives a state to something")
            self.stack[-1].state = state
        elif name in ("TUPLE", "APPEND", "APPENDS", "SETITEM", "SETITEMS"):
            self._fill(name)
        else:
            raise ValueError(f"it holds {name}, which a mapping of numbers to names does not need")

    def _fill(self, name: str) -> None:
        n = {"APPEND": 1, "SETITEM": 2}.get(name)
        parts = [self.stack.pop() for _ in range(n)][::-1] if n else self._since_mark()
        if name == "TUPLE":
            self._push(tuple(parts), parts)
            return
        container = self.stack[-1]
        if name.startswith("APPEND") and isinstance(container, list):
            container.extend(parts)
        elif name.startswith("SETITEM") and isinstance(container, dict) and len(parts) % 2 == 0:
            if any(type(key) is not int for key in parts[::2]):
                raise ValueError("a key that is no whole number")
            container.update(zip(parts[::2], parts[1::2], strict=True))
        else:
            raise ValueError(f"{name} on a {type(container).__name__}")
        self._deepen(container, parts)

    def _since_mark(self) -> list[Any]:
        parts = []
        while not isinstance(self.stack[-1], _Mark):
            parts.append(self.stack.pop())
        self.stack.pop()
        return parts[::-1]

    def _push(self, container: Any, parts: Any) -> None:
        self.stack.append(container)
        self._deepen(container, parts)

    def _deepen(self, container: Any, parts: Any) -> None:
        """Containers stand inside each other a few times only; one that holds itself is endless."""
        self.alive.append(container)
        depth = 1 + max((self.depths.get(id(part), 0) for part in parts), default=0)
        if depth > DEEPEST or any(part is container for part in parts):
            raise ValueError(f"containers stand inside each other more than {DEEPEST} times")
        self.depths[id(container)] = max(depth, self.depths.get(id(container), 0))


def _value(value: Any) -> Any:
    if isinstance(value, str | bytes) and len(value) > LARGEST_NAME:
        raise ValueError(f"a text of {len(value)} letters; a name has at most {LARGEST_NAME}")
    return value
