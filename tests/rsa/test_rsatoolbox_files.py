"""RDM files of rsatoolbox: what it writes is read, what we write it reads, and a pickle is not opened."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rsatoolbox

from pulvinar.errors import FileError, InputError, NotFoundError
from pulvinar.rsa.rsatoolbox_files import StoredRDMs, from_matrices, read_rdm_file, write_rdm_file


@pytest.fixture
def rdms() -> rsatoolbox.rdm.RDMs:
    return rsatoolbox.rdm.RDMs(
        np.random.default_rng(0).random((3, 10)),
        dissimilarity_measure="correlation",
        descriptors={"session": "one", "radius": 2.5, "noise": None},
        rdm_descriptors={"subject": ["ann", "bob", "zoë"], "run": [1, 2, 3]},
        pattern_descriptors={"conds": ["a", "b", "c", "d", "e"]},
    )


def ascii_names(rdms: rsatoolbox.rdm.RDMs) -> rsatoolbox.rdm.RDMs:
    """rsatoolbox cannot write other letters."""
    rdms.rdm_descriptors["subject"] = ["ann", "bob", "zoe"]
    return rdms


def test_what_rsatoolbox_writes_is_read(rdms: rsatoolbox.rdm.RDMs, tmp_path: Path) -> None:
    path = tmp_path / "rdms.h5"
    ascii_names(rdms).save(str(path), file_type="hdf5")
    found = read_rdm_file(path)
    np.testing.assert_array_equal(found.dissimilarities, rdms.dissimilarities)
    np.testing.assert_array_equal(found.matrices(), rdms.get_matrices())
    assert found.measure == "correlation"
    assert found.descriptors["session"] == "one"
    assert found.descriptors["radius"] == 2.5
    assert found.descriptors["noise"] is None
    assert list(found.rdm_descriptors["subject"]) == ["ann", "bob", "zoe"]
    assert list(found.rdm_descriptors["run"]) == [1, 2, 3]
    assert list(found.pattern_descriptors["conds"]) == list("abcde")
    assert found.n_images == 5


def test_what_we_write_rsatoolbox_reads(rdms: rsatoolbox.rdm.RDMs, tmp_path: Path) -> None:
    """Round trip: rsatoolbox -> file -> ours -> file -> rsatoolbox."""
    first, second = tmp_path / "first.h5", tmp_path / "second.hdf5"
    ascii_names(rdms).save(str(first), file_type="hdf5")
    write_rdm_file(second, read_rdm_file(first))
    back = rsatoolbox.rdm.load_rdm(str(second))
    assert back == rsatoolbox.rdm.load_rdm(str(first))
    assert back.dissimilarity_measure == "correlation"
    with pytest.raises(FileError, match="exists already"):
        write_rdm_file(second, read_rdm_file(first))


def test_round_trip_of_ours_keeps_letters_and_nothing(tmp_path: Path) -> None:
    square = np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]])
    written = from_matrices(square[None], rdm_descriptors={"subject": np.array(["zoë"])})
    found = read_rdm_file(write_rdm_file(tmp_path / "one.h5", written))
    assert found.measure is None
    assert list(found.rdm_descriptors["subject"]) == ["zoë"]
    np.testing.assert_array_equal(found.matrices()[0], square)
    assert rsatoolbox.rdm.load_rdm(str(tmp_path / "one.h5")).dissimilarity_measure is None


def test_a_pickle_is_never_opened(rdms: rsatoolbox.rdm.RDMs, tmp_path: Path) -> None:
    """Whatever its name is; the message has the line that converts it."""
    for name in ("rdms.pkl", "rdms.h5"):
        path = tmp_path / name
        rdms.save(str(path), file_type="pkl")
        with pytest.raises(FileError, match="a pickle, which is never opened here") as caught:
            read_rdm_file(path)
        assert f"rsatoolbox.rdm.load_rdm('{path}', file_type='pkl').save('{path.with_suffix('.h5')}'" in str(caught.value)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        read_rdm_file(tmp_path / "none.h5")
    (tmp_path / "text.csv").write_text("1,2")
    with pytest.raises(FileError, match=r"end in \.h5 or \.hdf5"):
        read_rdm_file(tmp_path / "text.csv")
    (tmp_path / "text.h5").write_text("no HDF5 at all")
    with pytest.raises(FileError, match="cannot be read as HDF5"):
        read_rdm_file(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["betas"] = np.zeros(3)
    with pytest.raises(NotFoundError, match="no dataset 'dissimilarities'; there are: betas"):
        read_rdm_file(tmp_path / "other.h5")
    for values, message in ((np.zeros((2, 11)), "11 came"), (np.zeros(10), r"\(rdm, pair\) are needed")):
        with h5py.File(tmp_path / "wrong.h5", "w") as file:
            file["dissimilarities"] = values
            file.create_group("rdm_descriptors")["subject"] = np.arange(3)
        with pytest.raises(InputError, match=message):
            read_rdm_file(tmp_path / "wrong.h5")
    with pytest.raises(InputError, match=r"rdm_descriptors\['subject'\]: 3 values, 2 are needed"):
        StoredRDMs(dissimilarities=np.zeros((2, 10)), rdm_descriptors={"subject": np.arange(3)})
    with pytest.raises(FileError, match=r"end in \.h5"):
        write_rdm_file(tmp_path / "rdms.pkl", StoredRDMs(dissimilarities=np.zeros((2, 10))))
    with pytest.raises(InputError, match="RDM 0: the diagonal must be zero"):
        from_matrices(np.eye(3)[None])
