"""RDM files of rsatoolbox: what it writes is read, what we write it reads, and a pickle is not opened."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rsatoolbox

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.rsa.rsatoolbox_files import (
    NAMING_DESCRIPTORS,
    StoredRDMs,
    from_matrices,
    pattern_names,
    read_rdm_file,
    write_rdm_file,
)


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


def named(**descriptors) -> StoredRDMs:
    arrays = {name: np.asarray(values) for name, values in descriptors.items()}
    return StoredRDMs(dissimilarities=np.arange(6.0).reshape(2, 3), pattern_descriptors=arrays)


def test_a_descriptor_of_a_usual_name_names_the_images() -> None:
    """Before any other text, whatever the order in the file; where it does not tell the images apart it is none."""
    for name in NAMING_DESCRIPTORS:
        found = pattern_names(named(aaa=["x", "y", "z"], **{name: ["p", "q", "r"]}, zzz=["u", "v", "w"]))
        assert found == ["p", "q", "r"], name
        assert pattern_names(named(**{name: ["p", "q", "p"]}, zzz=["u", "v", "w"])) == ["u", "v", "w"], name
    assert pattern_names(named(label=["a", "b", "c"], conds=["d", "e", "f"])) == ["d", "e", "f"]


def test_names_are_text_however_they_are_written() -> None:
    """Bytes, bytes that are no UTF-8, numbers, and whole numbers that were written as fractions."""
    cases = {
        "bytes": (np.array([b"a", "\u00e9".encode(), b"c"]), ["a", "\u00e9", "c"]),
        "broken": (np.array([b"a\xff", b"b", b"c"]), ["a\\xff", "b", "c"]),
        "numbers": (np.array([10, 2, 3]), ["10", "2", "3"]),
        "fractions": (np.array([1.0, 2.0, 2.5]), ["1", "2", "2.5"]),
        "single": (np.float32([4, 5, 0.5]), ["4", "5", "0.5"]),
        "mixed": (np.array([7.0, "b", None], dtype=object), ["7", "b", "None"]),
    }
    for case, (values, names) in cases.items():
        assert pattern_names(named(conds=values)) == names, case


def test_text_that_could_name_the_images_does_where_there_is_one_alone() -> None:
    """Numbers name nothing unless they are called a name; nor do texts that are numbers."""
    numbers = {"a": np.array([1.5, -2, 3]), "b": ["+1", "-2.5", "0.25"], "index": [0, 1, 2]}
    assert pattern_names(named(**numbers)) is None
    assert pattern_names(named()) is None
    assert pattern_names(named(**numbers, picture=["x", "1", "2"])) == ["x", "1", "2"]
    assert pattern_names(named(version=["1.2.3", "1.2.4", "1.3.0"])) == ["1.2.3", "1.2.4", "1.3.0"]
    for names in (["1-", "2-", "3-"], ["X1", "X2", "X3"]):
        assert pattern_names(named(marked=names)) == names
    with pytest.raises(InputError, match="one, two could each name the rows; call the right one 'conds'"):
        pattern_names(named(one=["a", "b", "c"], two=["d", "e", "f"], index=[0, 1, 2]))
    assert pattern_names(named(index=np.array([0.0, 1, 2]))) is None
    for index in ([2, 0, 1], [1, 2, 3]):
        with pytest.raises(InputError, match=rf"another order \(index {index[0]}, {index[1]}, {index[2]}, \.\.\.\)"):
            pattern_names(named(index=index))


def test_text_of_any_shape_and_case_of_a_suffix_come_back(tmp_path: Path) -> None:
    pairs = np.array([["a", "b"], ["c", "d"]])
    written = StoredRDMs(
        dissimilarities=np.arange(6, dtype=np.uint8).reshape(2, 3),
        measure="crossnobis",
        descriptors={"text": "one", "nothing": None, "number": 3},
        rdm_descriptors={"pair": pairs, "object": pairs.astype(object), "other": np.array([["\u00e9", "b"], ["c", "d"]])},
    )
    found = read_rdm_file(write_rdm_file(tmp_path / "one.HDF5", written))
    assert (found.measure, found.descriptors["text"], found.descriptors["nothing"]) == ("crossnobis", "one", None)
    assert int(found.descriptors["number"]) == 3
    for name in ("pair", "object", "other"):
        np.testing.assert_array_equal(found.rdm_descriptors[name], written.rdm_descriptors[name])
    np.testing.assert_array_equal(found.dissimilarities, written.dissimilarities)
    condensed = from_matrices(np.stack([np.array([[0, 1, 2], [1, 0, 3], [2, 3, 0.0]]) * k for k in (1, 2)]))
    np.testing.assert_array_equal(condensed.dissimilarities, [[1, 2, 3], [2, 4, 6]])


def test_refused_by_name_and_by_kind(tmp_path: Path) -> None:
    for name, start in (("rdms.PKL", b"text"), ("rdms.pickle", b""), ("rdms.h5", b"\x80\x04")):
        (tmp_path / name).write_bytes(start)
        with pytest.raises(FileError, match="a pickle, which is never opened here"):
            read_rdm_file(tmp_path / name)
    for kind in (bool, complex, "S3"):
        with pytest.raises(InputError, match=rf"needed, \(2, 10\) {np.dtype(kind)} came"):
            StoredRDMs(dissimilarities=np.zeros((2, 10), kind))
    with h5py.File(tmp_path / "nested.h5", "w") as file:
        file["dissimilarities"] = np.zeros((2, 10))
        file.create_group("rdm_descriptors/subject")
    with pytest.raises(InputError, match="'/rdm_descriptors/subject' is a group"):
        read_rdm_file(tmp_path / "nested.h5")
    with pytest.raises(InputError, match="RDM 1: the diagonal must be zero"):
        from_matrices(np.stack([np.arange(3.0)[:, None] + np.arange(3) - np.diag([0.0, 2, 4]), np.eye(3)]))
