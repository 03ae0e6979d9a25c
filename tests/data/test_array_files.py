"""Array files. Oracle: the array that was written; damaged files end in our own errors, whatever the damage."""

import contextlib
import re
import shutil
from zipfile import ZipFile

import h5py
import numpy as np
import pytest

from pulvinar.core.errors import FileError, InputError, NotFoundError, PulvinarError
from pulvinar.data.array_files import read_array, read_ids

VALUES = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)


def write_all(folder) -> None:
    np.save(folder / "x.npy", VALUES)
    np.savez(folder / "x.npz", betas=VALUES, id=np.array(["a", "b"]))
    np.savez_compressed(folder / "packed.npz", betas=VALUES)
    with h5py.File(folder / "x.h5", "w") as file:
        file["betas"] = VALUES
        file["id"] = ["ä", "b"]
    with h5py.File(folder / "packed.hdf5", "w") as file:
        file.create_dataset("inner/betas", data=VALUES, compression="gzip", chunks=(5, 7))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz", "x.h5", "packed.hdf5"])
def test_every_kind_of_file_gives_the_array_back(tmp_path, name):
    write_all(tmp_path)
    values = read_array(tmp_path / name)
    assert np.array_equal(values, VALUES)
    assert isinstance(values, np.memmap) == (name in ("x.npy", "x.h5"))
    if isinstance(values, np.memmap):
        assert values.mode == "r"


def test_one_of_several_arrays_is_named(tmp_path):
    np.savez(tmp_path / "x.npz", first=VALUES, second=VALUES + 1)
    assert np.array_equal(read_array(tmp_path / "x.npz", "second"), VALUES + 1)
    with pytest.raises(InputError, match=r"x\.npz: holds 2 arrays \(first, second\); name one"):
        read_array(tmp_path / "x.npz")
    with pytest.raises(NotFoundError, match="no array 'frst'; did you mean 'first'"):
        read_array(tmp_path / "x.npz", "frst")
    np.save(tmp_path / "x.npy", VALUES)
    with pytest.raises(InputError, match="holds one array without a name"):
        read_array(tmp_path / "x.npy", "betas")


def test_glmsingle_betas_are_found_among_the_other_results(tmp_path):
    with h5py.File(tmp_path / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["betasmd"], file["R2"], file["noisepool"] = VALUES, VALUES[0], h5py.Empty("f")
    assert np.array_equal(read_array(tmp_path / "TYPED_FITHRF_GLMDENOISE_RR.hdf5"), VALUES)
    with pytest.raises(InputError, match="numbers are needed, "):
        read_array(tmp_path / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "noisepool")


def test_a_pickle_is_refused_with_a_way_out_that_works(tmp_path, monkeypatch):
    path = tmp_path / "TYPED_FITHRF_GLMDENOISE_RR.npy"
    np.save(path, {"betasmd": VALUES.reshape(20, 1, 1, 7), "R2": VALUES[0]})  # as GLMsingle writes it
    with pytest.raises(FileError, match="holds Python objects") as caught:
        read_array(path)
    message = str(caught.value)
    assert "opt['wanthdf5'] = 1" in message
    snippet = "\n".join(line[4:] for line in message.splitlines() if line.startswith("    "))
    exec(snippet, {})
    assert np.array_equal(read_array(path.with_suffix(".hdf5")), VALUES.reshape(20, 1, 1, 7))


def test_ids_beside_the_rows(tmp_path):
    write_all(tmp_path)
    assert read_ids(tmp_path / "x.npz") == ["a", "b"]
    assert read_ids(tmp_path / "x.h5") == ["ä", "b"]
    assert read_ids(tmp_path / "x.npy") is None
    assert read_ids(tmp_path / "packed.hdf5") is None
    np.savez(tmp_path / "numbers.npz", id=np.array([7, 3]))
    assert read_ids(tmp_path / "numbers.npz") == ["7", "3"]
    np.savez(tmp_path / "numbers.npz", id=np.array(["7", "3"], object))
    with pytest.raises(FileError, match=r"numbers\.npz: array 'id' holds Python objects.*dtype=str"):
        read_ids(tmp_path / "numbers.npz")
    np.savez(tmp_path / "bad.npz", id=np.array([[7, 3]]))
    with pytest.raises(InputError, match="must be a list of names"):
        read_ids(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.npy", b"", r"x\.npy: not a \.npy file"),
        ("x.npy", b"x,y\n1,2\n", r"x\.npy: not a \.npy file"),
        ("x.npz", b"", r"x\.npz: cannot be read as an \.npz archive"),
        ("x.h5", b"nothing", r"x\.h5: cannot be read as HDF5"),
        ("x.mat", b"MATLAB", r"arrays are read from \.npy, \.npz, \.h5, \.hdf5, not from '\.mat'"),
    ],
)
def test_foreign_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_array(tmp_path / name)


def test_more_foreign_files(tmp_path):
    write_all(tmp_path)
    shutil.copy(tmp_path / "x.npz", tmp_path / "renamed.npy")
    with pytest.raises(FileError, match=r"it is a zip archive; name it \.npz"):
        read_array(tmp_path / "renamed.npy")
    np.save(tmp_path / "text.npy", np.array(["a", "b"]))
    with pytest.raises(InputError, match="numbers are needed, <U1 came"):
        read_array(tmp_path / "text.npy")
    np.save(tmp_path / "none.npy", np.zeros((0, 4)))
    assert read_array(tmp_path / "none.npy").shape == (0, 4)
    with pytest.raises(FileError, match="no such file"):
        read_array(tmp_path / "nobody.npy")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz", "x.h5", "packed.hdf5"])
def test_truncated_files_are_refused_at_every_length(tmp_path, name):
    write_all(tmp_path)
    whole = (tmp_path / name).read_bytes()
    damaged = tmp_path / f"cut{re.sub('.*[.]', '.', name)}"
    for length in range(0, len(whole) - 1, max(1, len(whole) // 50)):
        damaged.write_bytes(whole[:length])
        with pytest.raises(FileError):
            read_array(damaged)


@pytest.mark.long
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz", "x.h5"])
def test_flipped_bytes_never_end_in_a_foreign_error(tmp_path, name):
    write_all(tmp_path)
    whole = (tmp_path / name).read_bytes()
    damaged = tmp_path / f"flipped{re.sub('.*[.]', '.', name)}"
    generator = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 1500), 3):
            content[place] = generator.integers(256)
        damaged.write_bytes(content)
        with contextlib.suppress(PulvinarError):  # refused, or read: a flipped value is a value
            read_array(damaged)
            read_ids(damaged)


def test_damaged_compressed_chunks_are_refused(tmp_path):
    write_all(tmp_path)
    with h5py.File(tmp_path / "packed.hdf5") as file:
        places = [file["inner/betas"].id.get_chunk_info(chunk).byte_offset for chunk in range(4)]
    content = bytearray((tmp_path / "packed.hdf5").read_bytes())
    content[places[1] + 5 : places[1] + 25] = bytes(20)
    (tmp_path / "packed.hdf5").write_bytes(content)
    with pytest.raises(FileError, match=r"packed\.hdf5: cannot be read as HDF5: dataset '/inner/betas'"):
        read_array(tmp_path / "packed.hdf5")


def test_a_shape_that_the_file_cannot_hold_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("betas", shape=(2**40, 1000), dtype="f4", chunks=(1000, 1000))
    with pytest.raises(FileError, match=r"states 4e\+03 TB but holds 0 bytes"):
        read_array(tmp_path / "x.h5")


def test_hdf5_that_would_be_filled_up_is_refused(tmp_path):
    """What was never written, or lies elsewhere and is gone, HDF5 gives as 0, without a word."""
    path, values = tmp_path / "a.h5", np.ones((8, 6), np.float32)

    def refused(words: str) -> None:
        with pytest.raises(FileError, match=rf"a\.h5: dataset 'x' is not whole: .*{words}"):
            read_array(path)
        path.unlink()

    with h5py.File(path, "w") as file:
        file.create_dataset("x", (8, 6), "f4", chunks=(4, 6))[:4] = values[:4]
    refused("1 of its 2 chunks were never written")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (8, 6), "f4")
    refused("nothing was ever written")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (8, 6), "f4", external=[(str(tmp_path / "raw"), 0, values.nbytes)])[...] = values
    with pytest.raises(FileError, match=r"a\.h5: cannot be read as HDF5: the values of '/x' lie outside, in '.*raw'"):
        read_array(path)
    path.unlink()
    with h5py.File(tmp_path / "source.h5", "w") as file:
        file["x"] = values
    layout = h5py.VirtualLayout((8, 6), "f4")
    layout[:] = h5py.VirtualSource("source.h5", "x", (8, 6))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("x", layout)
    np.testing.assert_array_equal(read_array(path), values)
    (tmp_path / "source.h5").unlink()
    refused(r"source\.h5 is not there")


@pytest.mark.parametrize("options", [{}, {"chunks": True}])
def test_hdf5_with_a_scale_in_its_attributes_is_refused(tmp_path, options):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        stored = file.create_dataset("x", data=np.arange(12, dtype=np.int16).reshape(3, 4), **options)
        stored.attrs["scale_factor"], stored.attrs["add_offset"] = 1.0, np.zeros(1)
    assert read_array(tmp_path / "a.h5").sum() == 66
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"].attrs["scale_factor"] = 0.5
    with pytest.raises(FileError, match=r"a\.h5: dataset 'x' has the attributes scale_factor = 0\.5, which are not applied"):
        read_array(tmp_path / "a.h5")


def test_more_than_one_array_in_one_place_is_refused(tmp_path):
    with (tmp_path / "two.npy").open("wb") as file:
        np.save(file, np.arange(6.0))
        np.save(file, np.arange(6.0) * 2)
    with pytest.raises(FileError, match=r"two\.npy.*176 bytes follow its array of float64 \(6,\)"):
        read_array(tmp_path / "two.npy")
    np.savez(tmp_path / "one.npz", x=np.arange(3))
    with ZipFile(tmp_path / "one.npz") as archive:
        content = archive.read("x.npy")
    with ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("x.npy", content)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("x.npy", content)
    with pytest.raises(FileError, match=r"twice\.npz.*arrays of one name stand in it twice"):
        read_array(tmp_path / "twice.npz")


@pytest.mark.parametrize("key", ["image_names", "labels", "id"])
def test_names_under_any_key_are_found(tmp_path, key):
    names, layers = [f"img{row}" for row in range(20)], ["a", "b"]
    np.savez(tmp_path / "x.npz", betas=VALUES, layers=layers, kind=["cat", "dog"] * 10, **{key: np.array(names)})
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["betas"], file["layers"], file[key] = VALUES, layers, names
    for name in ("x.npz", "x.h5"):
        assert read_ids(tmp_path / name) == names
        assert np.array_equal(read_array(tmp_path / name), VALUES)


def test_names_that_could_be_two_lists_are_refused(tmp_path):
    names = [f"img{row}" for row in range(20)]
    np.savez(tmp_path / "x.npz", betas=VALUES, shown=names, seen=names[::-1])
    with pytest.raises(InputError, match=r"x\.npz: shown, seen could each name the rows; call the right one 'ids'"):
        read_ids(tmp_path / "x.npz")


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("x.csv", "number,stimulus\n{}"),
        ("x.tsv", "id\tstimulus\n{}"),
        ("x.csv", "score,kind\n{}"),
    ],
)
def test_a_table_beside_names_the_rows_under_any_header(tmp_path, table, found):
    np.save(tmp_path / "x.npy", VALUES)
    unnamed = "kind" in found
    cells = [("cat" if unnamed else f"img{row}") for row in range(20)]
    separator = "\t" if table.endswith("tsv") else ","
    rows = "".join(f"{cell if 'id' in found and not unnamed else row}{separator}{cell}\n" for row, cell in enumerate(cells))
    (tmp_path / table).write_text(found.format(rows))
    assert read_ids(tmp_path / "x.npy") == (None if unnamed else cells)
    (tmp_path / "x.tsv").unlink(missing_ok=True)
    (tmp_path / "x.csv").write_text("".join(f"img{row}\n" for row in range(20)))
    with pytest.raises(InputError, match=r"x\.csv: 19 rows under 'img0' for 20; is its header line missing"):
        read_ids(tmp_path / "x.npy")
