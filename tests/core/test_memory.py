"""Memory as a promise: sizes, blocks, scratch files, refusals. Oracles: arithmetic, /proc, arrays that were written."""

import re

import numpy as np
import pytest

from pulvinar.core import memory
from pulvinar.core.errors import ConfigError, FileError

GB = 10**9


@pytest.fixture
def process(monkeypatch):
    """A process of 500 MB whose size does not change."""
    monkeypatch.setattr(memory, "resident", lambda: GB // 2)
    monkeypatch.setattr(memory, "peak", lambda: GB // 2)


@pytest.mark.parametrize(
    ("text", "size"), [("4GB", 4 * GB), ("4gib", 2**32), (" 500 MB", GB // 2), ("1.5GB", 3 * GB // 2), ("2TB", 2000 * GB)]
)
def test_sizes(text, size):
    assert memory.size_of(text) == size


@pytest.mark.parametrize("text", ["4", "", "GB", "-1GB", "0GB", "4 cows", "1e9", "nanGB", "4G"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ConfigError, match="a size such as 4GB, 4GiB or 500MB is needed"), memory.using(text):
        pass


def test_without_a_limit_nothing_changes(tmp_path):
    with memory.using(None):
        assert memory.limit() is None
        assert memory.block_size(1e15, most=7, what="x") == 7
        memory.require(1e18, "x")
        assert memory.room(123) == 123
        assert not isinstance(memory.empty((3, 4), np.float32), np.memmap)


def test_without_a_limit_only_what_the_machine_has_no_memory_for_goes_to_a_file(monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: GB)
    assert memory.fits(0.39 * GB)
    assert not memory.fits(0.41 * GB)
    assert isinstance(memory.empty((110, 1_000_000), np.float32), np.memmap)
    monkeypatch.setattr(memory, "available", lambda: None)  # a system that does not say
    assert memory.fits(1e15)


def test_blocks_are_what_is_left(process):
    with memory.using("2GB"):
        left = 2 * GB - GB // 2 - memory.MARGIN
        assert memory.block_size(1000, most=10**9, what="x") == left // 1000
        assert memory.block_size(1000, most=10**9, what="x", fixed=left / 2) == left // 2000
        assert memory.block_size(1000, most=5, what="x") == 5
        assert memory.room(10 * GB, held=100) == 100 + left // 2
    assert memory.limit() is None


def test_too_little_is_refused_with_the_least_that_fits(process):
    """Oracle: what the message names is taken, a megabyte less is not."""
    with pytest.raises(ConfigError, match="memory=600MB: the libraries alone take 500MB here"), memory.using("600MB"):
        pass
    with pytest.raises(ConfigError, match=r"memory=1GB: a session needs .* or more") as refused, memory.using("1GB"):
        memory.require(GB, "a session")
    least = memory.size_of(re.search(r"needs (\S+) or more", str(refused.value))[1])
    with memory.using(f"{least // 10**6}MB"):
        memory.require(GB, "a session")
    with pytest.raises(ConfigError), memory.using(f"{least // 10**6 - 11}MB"):
        memory.require(GB, "a session")


def test_a_peak_above_the_limit_is_said(process, monkeypatch, capsys):
    with memory.using("2GB"):
        monkeypatch.setattr(memory, "peak", lambda: 3 * GB)
    assert "memory: 3GB at once, more than the 2GB that may be" in capsys.readouterr().err


def test_a_large_array_goes_to_a_scratch_file_that_is_gone_with_it(process, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with memory.using("1GB"):
        made = memory.empty((1000, 90_000), np.float32)
        assert isinstance(made, np.memmap)
        assert list(tmp_path.iterdir()) == []
        made[3] = np.arange(90_000)
        memory.release(made)
        assert np.array_equal(made[3], np.arange(90_000, dtype=np.float32))
        assert not isinstance(memory.empty((10, 10), np.float32), np.memmap)


def test_arrays_are_placed_one_after_the_other_beside_what_is_reserved(process):
    """Oracle: the rule spelled out. 2 GB, of which 500 MB are in use and 1 GB is reserved."""
    with memory.using("2GB"), memory.reserving(GB, "training"):
        left = 2 * GB - GB // 2 - memory.MARGIN - GB
        share = memory.SHARE * left / 2
        assert memory.placed([share, share, 1000, left]) == (share + 1000, share + left)
        assert memory.placed([1000], beside=left) == (0, 1000)
    with memory.using("2GB"):
        assert memory.placed([share, share]) == (2 * share, 0)
        with pytest.raises(ConfigError, match="memory=2GB: training needs"), memory.reserving(2 * GB, "training"):
            pass


def test_columns_and_rows_are_those_of_indexing_and_leave_no_pages(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3000, 5000), dtype=np.float32)
    columns, rows = np.flatnonzero(rng.random(5000) < 0.9), rng.permutation(3000)[:700]
    with memory.using("64GB"):
        monkeypatch.setattr(memory, "SHARE", 0)
        before = memory.resident()
        made = memory.take_columns(values, columns)
        assert memory.resident() - before < made.nbytes / 1.5  # what is copied at once may be in memory still
        assert isinstance(made, np.memmap)
        taken = np.empty((700, len(columns)), np.float32)
        before = memory.resident()
        memory.take_rows(made, rows, taken)
        assert memory.resident() - before < taken.nbytes + 2e7
        assert np.array_equal(memory.take_rows(values, rows), values[rows])
    assert np.array_equal(taken, values[:, columns][rows])


def test_a_full_disk_is_said_before_anything_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    memory.require_scratch(10**6)
    with pytest.raises(FileError, match=r"no room for 1e\+09GB of scratch \(TMPDIR names another folder\): .* are free"):
        memory.require_scratch(1e18)


def test_released_pages_do_not_count_and_are_there_again(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(2**24, dtype=np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    with memory.using("64GB"):
        before = memory.resident()
        total = float(mapped.sum(dtype=np.float64))
        assert memory.resident() - before > 6e7
        memory.release(mapped[5:].reshape(-1, 1))  # a view of it
        assert memory.resident() - before < 1e7
        assert float(mapped.sum(dtype=np.float64)) == total
        changed[0] = 7.0
        memory.release(changed)
        assert changed[0] == 7.0
