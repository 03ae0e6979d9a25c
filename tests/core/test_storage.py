"""Storage. Oracles: hashlib, h5py and json read back, and faults planted while writing."""

import datetime
import errno
import hashlib
import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.core import hdf5, storage
from pulvinar.core.errors import FileError, InputError, NotFoundError


def test_a_file_appears_whole(tmp_path):
    target = tmp_path / "new" / "file.txt"
    storage.write_text(target, "Grüße")
    assert target.read_text(encoding="utf-8") == "Grüße"
    storage.write_text(target, "second")
    assert target.read_text() == "second"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "file.txt"
    storage.write_text(target, "old")
    with pytest.raises(ZeroDivisionError), storage.atomic_path(target) as temporary:
        temporary.write_text(f"half{1 / 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_said_in_one_line(tmp_path):
    with (
        pytest.raises(FileError, match=r"file\.txt: cannot be written: the disk is full; nothing was left"),
        storage.atomic_path(tmp_path / "file.txt"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_appears_whole_and_replaces_nothing(tmp_path):
    target = tmp_path / "run"
    with storage.atomic_folder(target) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a").write_text("1")
        assert not target.exists()
    assert (target / "inner" / "a").read_text() == "1"
    with pytest.raises(FileError, match="exists already"), storage.atomic_folder(target):
        pass
    with pytest.raises(RuntimeError), storage.atomic_folder(tmp_path / "other"):
        raise RuntimeError
    assert list(tmp_path.iterdir()) == [target]


def test_json_holds_arrays_paths_and_no_nan(tmp_path):
    value = {1: np.float32(0.5), "nan": float("nan"), "array": np.arange(3), "path": Path("a/b"), "set": (np.int64(4), np.inf)}
    value["day"] = datetime.date(2026, 11, 20)
    storage.write_json(tmp_path / "x.json", value)
    wanted = {"1": 0.5, "nan": None, "array": [0, 1, 2], "path": "a/b", "set": [4, None], "day": "2026-11-20"}
    assert json.loads((tmp_path / "x.json").read_text()) == wanted
    assert storage.read_json(tmp_path / "x.json") == wanted


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe{}"])
def test_broken_json_names_the_file(tmp_path, content):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.json: cannot be read as JSON"):
        storage.read_json(tmp_path / "x.json")


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n", b"\x93NUMPY\x01\x00", b"PK\x03\x04 cut short"])
def test_an_npz_that_is_none_is_not_called_a_pickle(tmp_path, content):
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(FileError, match=r"x\.npz: cannot be read as an \.npz archive: it is none") as caught:
        storage.read_arrays(tmp_path / "x.npz")
    assert "pickle" not in str(caught.value)


def test_missing_files_say_so(tmp_path):
    with pytest.raises(FileError, match="no such mask"):
        storage.require_file(tmp_path / "x", "mask")
    with pytest.raises(FileError, match=r"x: no such run$"):
        storage.require_folder(tmp_path / "x", "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file: no such folder \(it is a file\); make one"):
        storage.require_folder(tmp_path / "file", hint="; make one")
    with pytest.raises(FileError, match="it is a folder"):
        storage.require_file(tmp_path)
    with pytest.raises(FileError, match="no such file"):
        storage.checksum(tmp_path / "x")


def test_reading_turns_any_parser_error_into_ours(tmp_path):
    for raised in (EOFError(), MemoryError("4 PiB"), SyntaxError("broken PNG")):
        with pytest.raises(FileError, match=r"x\.bin: cannot be read as bits \(truncated"), storage.reading("x.bin", "bits"):
            raise raised
    with pytest.raises(InputError, match="kept"), storage.reading("x.bin", "bits"):
        raise InputError("kept")


def write_hdf5(path: Path) -> np.ndarray:
    values = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["plain"] = values
        file.create_dataset("chunked", data=values, chunks=(2, 5), compression="gzip")
        file.create_dataset("other_end", data=values.astype(">f4"))
        file.create_dataset("empty", data=np.zeros((0, 5), np.float32))
        file.create_dataset("text", data=["a", "ü"], dtype=h5py.string_dtype())
        file.create_dataset("texts", data=np.array([["a", "ü"]], dtype=object), dtype=h5py.string_dtype())
        file.create_group("group")
    return values


def test_hdf5_arrays_are_mapped_where_they_can_be(tmp_path):
    values = write_hdf5(tmp_path / "x.h5")
    mapped = hdf5.map_hdf5_array(tmp_path / "x.h5", "plain")
    assert isinstance(mapped, np.memmap)
    assert np.array_equal(mapped, values)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1
    for name in ("chunked", "other_end"):
        assert np.array_equal(hdf5.map_hdf5_array(tmp_path / "x.h5", name), values)
    assert hdf5.map_hdf5_array(tmp_path / "x.h5", "empty").shape == (0, 5)
    assert hdf5.map_hdf5_array(tmp_path / "x.h5", "texts").tolist() == [["a", "ü"]]  # pointers are never mapped


def test_hdf5_names_what_is_there(tmp_path):
    write_hdf5(tmp_path / "x.h5")
    with pytest.raises(NotFoundError, match="no dataset 'group'; there are: chunked"):
        hdf5.map_hdf5_array(tmp_path / "x.h5", "group")
    with hdf5.open_hdf5(tmp_path / "x.h5") as file:
        assert hdf5.read_hdf5_array(file, "text").tolist() == ["a", "ü"]
        with pytest.raises(NotFoundError, match="no dataset 'x'"):
            hdf5.read_hdf5_array(file, "x")


def test_a_truncated_hdf5_file_is_refused_at_every_length(tmp_path):
    write_hdf5(tmp_path / "x.h5")
    whole = (tmp_path / "x.h5").read_bytes()
    for length in range(0, len(whole), len(whole) // 40):
        (tmp_path / "cut.h5").write_bytes(whole[:length])
        with pytest.raises(FileError, match=r"cut\.h5"):
            hdf5.map_hdf5_array(tmp_path / "cut.h5", "plain")


def test_text_that_is_not_utf8_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("id", data=[b"\xff\xfe"], dtype=h5py.string_dtype())
    with hdf5.open_hdf5(tmp_path / "x.h5") as file, pytest.raises(FileError, match="dataset 'id'"):
        hdf5.read_hdf5_array(file, "id")


def test_checksum_and_fingerprint(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 1000)
    assert storage.checksum(tmp_path / "x") == hashlib.sha256(b"abc" * 1000).hexdigest()
    array = np.arange(12.0).reshape(3, 4)
    same = storage.fingerprint(array, "a", ("b", 1))
    assert same == storage.fingerprint(np.asfortranarray(array), "a", ("b", 1))
    for other in ((array.T, "a"), (array + 1e-12, "a"), (array.astype(np.float32), "a"), (array, "b"), (array.ravel(), "a")):
        assert storage.fingerprint(*other, ("b", 1)) != same
    assert storage.fingerprint("ab", "c") != storage.fingerprint("a", "bc")
    assert storage.fingerprint(np.array(["a", None], object)) != storage.fingerprint(np.array(["a", "b"], object))


def test_tests_have_a_cache_of_their_own():
    assert storage.cache_folder().parent.name.startswith("pulvinar-tests-")


def test_text_with_a_byte_order_mark_is_read(tmp_path):
    """Notepad and Excel put it there. Oracle: the same without it."""
    from pulvinar.core.config import read_toml

    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf" + b'{"RepetitionTime": 2.0}')
    (tmp_path / "a.toml").write_bytes(b"\xef\xbb\xbf" + b"epochs = 3\n")
    assert storage.read_json(tmp_path / "a.json") == {"RepetitionTime": 2.0}
    assert read_toml(tmp_path / "a.toml") == {"epochs": 3}


def test_toml_that_takes_memory_with_its_square_is_refused(tmp_path):
    from pulvinar.core.config import read_toml

    for text in (".".join(["a"] * 20_000) + " = 1", "x = " + "[" * 20_000):
        (tmp_path / "a.toml").write_text(text)
        with pytest.raises(FileError, match=r"a\.toml: not valid TOML"):
            read_toml(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("x = [" + "0.5, " * 500 + "]\n")
    assert len(read_toml(tmp_path / "a.toml")["x"]) == 500
