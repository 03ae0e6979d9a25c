"""A dict of numbers to names in a .npy is read without unpickling. Oracle: numpy's own reading of what is harmless."""

import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from pulvinar.core.errors import FileError
from pulvinar.data.restricted_unpickling import read_mapping

NAMES = {0: "Unknown", 1: "V1v", 300: "é", 70_000: "far"}


def write(path, content, protocol=None):
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|O", "fortran_order": False, "shape": ()})
        if isinstance(content, bytes):
            file.write(content)
        else:
            pickle.dump(np.array(content, dtype=object), file, protocol=protocol)


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_every_protocol_of_today_is_read(protocol, tmp_path):
    many = NAMES | {number: f"area {number}" for number in range(1000, 3000)}
    write(tmp_path / "a.npy", many, protocol)
    assert read_mapping(tmp_path / "a.npy") == many == np.load(tmp_path / "a.npy", allow_pickle=True).item()


def test_what_numpy_writes_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array(NAMES, dtype=object), allow_pickle=True)
    assert read_mapping(tmp_path / "a.npy") == NAMES


class Call:
    def __reduce__(self):
        return print, ("run",)


OTHERS = [
    {"a": "b"},
    {1: 2},
    {1: ["a"]},
    [1],
    {(1, (2,)): "a"},
    {1: {2: {3: {4: {5: {6: {7: "a"}}}}}}},
    {1: "x" * 2000},
    {1: Call()},
]


@pytest.mark.parametrize("content", OTHERS, ids=[str(number) for number in range(len(OTHERS))])
def test_everything_else_is_refused(content, tmp_path, capsys):
    write(tmp_path / "a.npy", content, 4)
    with pytest.raises(FileError, match=r"a\.npy"):
        read_mapping(tmp_path / "a.npy")
    assert capsys.readouterr().out == ""


HOSTILE = {
    "a deep tuple": b"\x80\x02)" + b"\x85" * 100_000 + b".",
    "a deep tuple as a key": b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.",
    "kept under a large number": b"\x80\x02]r\xff\xff\xff\x7f.",
    "a text that is not there": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "two gigabytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**31) + b"abc.",
    "code": b"cos\nsystem\n(S'true'\ntR.",
    "code by its name on the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "marks alone": b"\x80\x02" + b"(" * 100_000 + b".",
    "doubled again and again": b"\x80\x02]q\x00" + b"h\x00h\x00\x86q\x00" * 1000 + b".",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "nothing": b"",
    "no end": b"\x80\x02}",
    "an empty stack": b"\x80\x020.",
    "five thousand digits": b"I" + b"9" * 5000 + b"\n.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ones_take_neither_memory_nor_the_process(name, tmp_path):
    write(tmp_path / "a.npy", HOSTILE[name])
    tracemalloc.start()
    with pytest.raises(FileError, match=r"a\.npy"):
        read_mapping(tmp_path / "a.npy")
    largest = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest < 50e6
