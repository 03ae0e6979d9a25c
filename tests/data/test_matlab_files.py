"""Oracles: scipy (version 5, and its refusal of 7.3), h5py with its axes turned by hand, what was written."""

import h5py
import numpy as np
import pytest
import scipy.io

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.data.matlab_files import matlab_version, read_matlab, read_matlab_structs, write_matlab_7_3

RNG = np.random.default_rng(0)
RDMS = RNG.random((2, 3, 4, 5))
PICTURES = [{"names": f"image_{n}.jpg", "pixels": RNG.integers(0, 255, (4, 5, 3)).astype(np.uint8)} for n in range(3)]


@pytest.fixture
def files(tmp_path):
    """The same content in both versions, the names hiding which is which."""
    new, old = tmp_path / "a.mat", tmp_path / "b.mat"
    write_matlab_7_3(new, {"RDMs": RDMS, "flag": np.array([[True, False]])}, {"visual_stimuli": PICTURES})
    structs = np.array([tuple(row.values()) for row in PICTURES], dtype=[("names", object), ("pixels", object)])[None]
    scipy.io.savemat(old, {"RDMs": RDMS, "flag": np.array([[True, False]]), "visual_stimuli": structs})
    return {"7.3": new, "5": old}


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_both_versions_give_the_same_arrays_in_matlabs_axis_order(files, version):
    assert matlab_version(files[version]) == version
    arrays = read_matlab(files[version])
    assert sorted(arrays) == ["RDMs", "flag"]
    assert np.array_equal(arrays["RDMs"], RDMS)
    assert arrays["flag"].tolist() == [[1, 0]]
    for read, written in zip(read_matlab_structs(files[version], "visual_stimuli", ["names", "pixels"]), PICTURES, strict=True):
        assert read["names"] == written["names"]
        assert np.array_equal(read["pixels"], written["pixels"])


def test_a_written_file_is_laid_out_as_matlab_does(files):
    raw = files["7.3"].read_bytes()
    assert raw.startswith(b"MATLAB 7.3 MAT-file")
    assert raw[124:128] == b"\x00\x02IM"
    assert raw[512:520] == b"\x89HDF\r\n\x1a\n"
    with pytest.raises(NotImplementedError):  # scipy knows the header, and that it cannot read what follows
        scipy.io.loadmat(files["7.3"])
    with h5py.File(files["7.3"]) as file:
        assert file["RDMs"].shape == (5, 4, 3, 2)
        assert np.array_equal(np.transpose(file["RDMs"][...]), RDMS)
        assert file["RDMs"].attrs["MATLAB_class"] == b"double"
        names, pixels = file["visual_stimuli/names"], file["visual_stimuli/pixels"]
        assert names.shape == (3, 1)  # MATLAB's 1 x 3
        assert "".join(map(chr, file[names[1, 0]][:, 0])) == "image_1.jpg"
        assert file[pixels[2, 0]].shape == (3, 5, 4)


def test_the_same_content_is_the_same_bytes(files, tmp_path):
    again = tmp_path / "again.mat"
    write_matlab_7_3(again, {"RDMs": RDMS, "flag": np.array([[True, False]])}, {"visual_stimuli": PICTURES})
    assert again.read_bytes() == files["7.3"].read_bytes()


def test_a_single_struct_and_plain_hdf5_are_read(tmp_path):
    path = tmp_path / "plain.mat"
    with h5py.File(path, "w") as file:
        file["RDMs"] = RDMS.T
        group = file.create_group("one")
        group["pixels"] = PICTURES[0]["pixels"].T
    assert np.array_equal(read_matlab(path)["RDMs"], RDMS)
    assert np.array_equal(read_matlab_structs(path, "one", ["pixels"])[0]["pixels"], PICTURES[0]["pixels"])


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_a_truncated_file_is_refused_by_name(files, version, share):
    raw = files[version].read_bytes()
    files[version].write_bytes(raw[: int(share * len(raw))])
    with pytest.raises(FileError, match=files[version].name):
        read_matlab_structs(files[version], "visual_stimuli", ["pixels"])


def test_other_files_and_missing_parts_are_named(files, tmp_path):
    other = tmp_path / "other.mat"
    np.savez(other.with_suffix(".npz"), RDMs=RDMS)
    other.with_suffix(".npz").rename(other)
    with pytest.raises(FileError, match=r"neither MATLAB version 5 nor 7\.3.*PK"):
        read_matlab(other)
    with pytest.raises(FileError, match="no such"):
        read_matlab(tmp_path / "none.mat")
    for path in files.values():
        with pytest.raises(NotFoundError, match="no struct 'stimuli'"):
            read_matlab_structs(path, "stimuli", ["names"])
        with pytest.raises(NotFoundError, match="no field 'label'; it has: names, pixels"):
            read_matlab_structs(path, "visual_stimuli", ["label"])
    with pytest.raises(InputError, match="numbers are needed"):
        write_matlab_7_3(tmp_path / "text.mat", {"a": np.array(["x"])})


def test_an_empty_array_of_version_7_3_has_no_values(tmp_path):
    """MATLAB stores its shape in place of values."""
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["x"] = np.array([0, 3], np.uint64)
        file["x"].attrs["MATLAB_class"], file["x"].attrs["MATLAB_empty"] = np.bytes_("double"), np.uint8(1)
    assert read_matlab(tmp_path / "a.mat")["x"].shape == (0, 3)


def test_a_name_that_stands_twice_in_version_5_is_refused(tmp_path):
    for number in (1, 2):
        scipy.io.savemat(tmp_path / f"{number}.mat", {"x": np.full((2, 2), number)})
    (tmp_path / "a.mat").write_bytes((tmp_path / "1.mat").read_bytes() + (tmp_path / "2.mat").read_bytes()[128:])
    with pytest.raises(FileError, match=r"a\.mat.*Duplicate variable name"):
        read_matlab(tmp_path / "a.mat")
