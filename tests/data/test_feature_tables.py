"""Oracle: the array that was written."""

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.feature_tables import is_table, open_table, read_rows

IDS = list("abcdefghi")
POOLED = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
TOKENS = np.random.default_rng(1).standard_normal((9, 3, 4)).astype(np.float16)


@pytest.fixture
def files(tmp_path):
    np.save(tmp_path / "a.npy", TOKENS)
    np.savez(tmp_path / "a.npz", pooled=POOLED, tokens=TOKENS)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["pooled"], file["tokens"] = POOLED, TOKENS
    save_file({"pooled": POOLED, "tokens": TOKENS}, tmp_path / "a.safetensors")
    return tmp_path


@pytest.mark.parametrize("suffix", ["npz", "h5", "safetensors"])
def test_arrays_are_found_by_name(files, suffix):
    for name, expected in (("pooled", POOLED), ("tokens", TOKENS)):
        table = open_table(f"{files}/a.{suffix}:{name}", ids=IDS)
        assert table.dtype == expected.dtype
        np.testing.assert_array_equal(table, expected)
        assert suffix == "npz" or isinstance(table, np.memmap)
        found, rows = read_rows(f"{files}/a.{suffix}:{name}", np.array([7, 0, 7]), n_rows=9)
        assert found == name
        np.testing.assert_array_equal(rows, expected[[7, 0, 7]].astype(np.float32))


def test_a_npy_file_is_a_memory_map_of_float16_tokens(files):
    table = open_table(f"{files}/a.npy", ids=IDS)
    assert isinstance(table, np.memmap)
    np.testing.assert_array_equal(table[[3, 1]], TOKENS[[3, 1]])


def test_a_file_that_has_changed_is_read_anew(files):
    open_table(f"{files}/a.npy", ids=IDS)
    np.save(files / "b.npy", TOKENS[:4] + 1)
    (files / "b.npy").replace(files / "a.npy")
    np.testing.assert_array_equal(open_table(f"{files}/a.npy", ids=IDS[:4]), TOKENS[:4] + 1)


def test_names_of_files_are_told_from_names_of_features():
    assert [is_table(name) for name in ("clip", "x/clip.npy", "a.h5:clip", "clip.v2", "a.safetensors")] == [0, 1, 1, 0, 1]


def test_what_cannot_be_read_is_named(files):
    with pytest.raises(InputError, match="9 rows; one for each of the 8 stimuli"):
        open_table(f"{files}/a.npy", ids=IDS[:8])
    with pytest.raises(NotFoundError, match=r"name one of its datasets, a\.npz:NAME; there are: pooled, tokens"):
        open_table(f"{files}/a.npz", ids=IDS)
    with pytest.raises(NotFoundError, match="there are: pooled, tokens"):
        open_table(f"{files}/a.safetensors:clip", ids=IDS)
    with pytest.raises(FileError, match="no such file"):
        open_table(f"{files}/none.npy", ids=IDS)
    whole = (files / "a.safetensors").read_bytes()
    (files / "a.safetensors").write_bytes(whole[:-10])
    with pytest.raises(FileError, match="cut short"):
        open_table(f"{files}/a.safetensors:tokens", ids=IDS)
    (files / "a.safetensors").write_bytes(whole[:4])
    with pytest.raises(FileError, match="cannot be read as safetensors"):
        open_table(f"{files}/a.safetensors:tokens", ids=IDS)
    np.save(files / "vector.npy", np.zeros(9))
    with pytest.raises(InputError, match=r"\(image, dim\) or \(image, token, dim\) are needed"):
        open_table(f"{files}/vector.npy", ids=IDS)


@pytest.mark.parametrize("suffix", ["npy", "safetensors"])
def test_rows_are_found_by_the_names_in_the_table_beside(tmp_path, suffix):
    order = [3, 8, 1, 0, 2, 7, 5, 6, 4]
    if suffix == "npy":
        np.save(tmp_path / "x.npy", POOLED[order])
    else:
        save_file({"pooled": POOLED[order]}, tmp_path / "x.safetensors")
    (tmp_path / "x.csv").write_text("image\n" + "".join(f"{IDS[row]}.png\n" for row in order))
    np.testing.assert_array_equal(open_table(f"{tmp_path}/x.{suffix}", ids=IDS), POOLED)
    _, rows = read_rows(f"{tmp_path}/x.{suffix}", np.array([4, 2, 4]), n_rows=9, ids=[IDS[4], IDS[2], IDS[4]])
    np.testing.assert_array_equal(rows, POOLED[[4, 2, 4]])
