"""Oracles: what was written, read by scipy, numpy and zipfile alone, and by our reader."""

import io
import zipfile

import numpy as np
import pytest
import scipy.io

from pulvinar.core.errors import DegenerateError, FileError, InputError, NotFoundError
from pulvinar.data.matlab_files import write_matlab_7_3
from pulvinar.datasets.algonauts2019.submission import OFFICIAL_OF, read_submission, submission_files, write_submission


def random_rdm(seed: int, n: int = 6) -> np.ndarray:
    values = np.triu(np.random.default_rng(seed).random((n, n)), 1)
    return values + values.T


RDMS = {target: random_rdm(seed) for seed, target in enumerate(("evc", "it", "meg_early", "meg_late"))}


def test_files_are_those_the_challenge_takes(tmp_path):
    paths = write_submission(tmp_path / "out", RDMS, n_images=6)
    assert sorted(path.name for path in paths) == ["submit_fmri.mat", "submit_fmri.zip", "submit_meg.mat", "submit_meg.zip"]
    fmri, meg = (scipy.io.loadmat(tmp_path / "out" / f"submit_{track}.mat") for track in ("fmri", "meg"))
    assert np.array_equal(fmri["EVC_RDMs"], RDMS["evc"])
    assert np.array_equal(fmri["IT_RDMs"], RDMS["it"])
    assert np.array_equal(meg["MEG_RDMs_early"], RDMS["meg_early"])
    assert np.array_equal(meg["MEG_RDMs_late"], RDMS["meg_late"])
    with zipfile.ZipFile(tmp_path / "out" / "submit_meg.zip") as archive:
        assert archive.namelist() == ["submit_meg.mat"]
        assert archive.read("submit_meg.mat") == (tmp_path / "out" / "submit_meg.mat").read_bytes()


def test_npy_is_indexed_by_the_challenges_names_without_pickle():
    content = submission_files(RDMS, file_format="npy")["submit_fmri.npy"]
    table = np.load(io.BytesIO(content), allow_pickle=False)
    assert np.array_equal(table["EVC_RDMs"], RDMS["evc"])
    assert np.array_equal(table["IT_RDMs"], RDMS["it"])


@pytest.mark.parametrize("file_format", ["mat", "npy"])
def test_the_reader_gives_back_what_was_written(tmp_path, file_format):
    write_submission(tmp_path / "out", RDMS, file_format=file_format)
    for path, targets in {
        "": list(RDMS),
        f"submit_fmri.{file_format}": ["evc", "it"],
        "submit_meg.zip": ["meg_early", "meg_late"],
    }.items():
        read = read_submission(tmp_path / "out" / path)
        assert sorted(read) == sorted(targets)
        assert all(np.array_equal(read[target], RDMS[target]) for target in targets)
    for file in (tmp_path / "out").glob(f"*.{file_format}"):
        file.unlink()
    assert sorted(read_submission(tmp_path / "out")) == sorted(RDMS)  # from the .zip files alone


def test_official_names_npz_and_single_targets_are_read(tmp_path):
    np.savez(tmp_path / "one.npz", MEG_RDMs_late=RDMS["meg_late"], remark=np.array("of another kind"))
    assert list(read_submission(tmp_path / "one.npz")) == ["meg_late"]
    official = {OFFICIAL_OF[target]: rdm for target, rdm in RDMS.items()}
    assert submission_files(official) == submission_files(RDMS)  # the same bytes, too: no date


def test_bad_predictions_are_refused_by_name(tmp_path):
    rdm = RDMS["evc"]
    for change, error, text in (
        (lambda x: x[:, :4], InputError, "square"),
        (lambda x: x + np.triu(x, 1), InputError, "not symmetric"),
        (lambda x: np.where(np.eye(6) > 0, 1.0, x), InputError, "diagonal must be zero"),
        (lambda x: np.where(x == x.max(), np.nan, x), InputError, "not finite"),
        (lambda x: 1.0 - np.eye(6), DegenerateError, "same dissimilarity"),
        (lambda x: x[None], InputError, r"\(image, image\) is needed"),
        (lambda x: random_rdm(0, 5), InputError, "over 5 images, 6 are needed"),
    ):
        with pytest.raises(error, match=text):
            write_submission(tmp_path / "out", {"it": change(rdm), "evc": rdm}, n_images=6)
    with pytest.raises(InputError, match="the fmri track needs evc and it; only it came"):
        submission_files({"it": rdm})
    with pytest.raises(NotFoundError, match="'v1' is no target"):
        submission_files({"v1": rdm})
    with pytest.raises(InputError, match="two predictions came for evc"):
        submission_files({"evc": rdm, "EVC_RDMs": rdm})
    with pytest.raises(InputError, match="none came"):
        submission_files({})
    with pytest.raises(InputError, match="mat, npy"):
        submission_files(RDMS, file_format="csv")
    assert not (tmp_path / "out").exists()


def test_bad_files_are_refused_by_name(tmp_path):
    with pytest.raises(FileError, match="no submission in this folder"):
        read_submission(tmp_path)
    np.save(tmp_path / "plain.npy", RDMS["evc"])
    with pytest.raises(InputError, match="structured one"):
        read_submission(tmp_path / "plain.npy")
    np.savez(tmp_path / "other.npz", rdm=RDMS["evc"])
    with pytest.raises(InputError, match="there are: rdm"):
        read_submission(tmp_path / "other.npz")
    (tmp_path / "a.zip").write_bytes(submission_files(RDMS)["submit_meg.zip"][:200])
    with pytest.raises(FileError, match=r"a\.zip"):
        read_submission(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("submit_fmri.mat", b"MATLAB 7.3 MAT-file")
    with pytest.raises(FileError, match=r"b\.zip/submit_fmri\.mat.*7\.3"):
        read_submission(tmp_path / "b.zip")
    (tmp_path / "x.txt").write_text("")
    with pytest.raises(FileError, match=r"a folder or a \.mat"):
        read_submission(tmp_path / "x.txt")
    write_submission(tmp_path / "twice", RDMS)
    np.savez(tmp_path / "twice" / "submit_more.npz", evc=RDMS["evc"])
    with pytest.raises(InputError, match="evc stand in another file"):
        read_submission(tmp_path / "twice")


def test_names_in_a_matlab_file_are_not_passed_over(tmp_path):
    rdm, names = random_rdm(0), [f"img{row}" for row in range(6)]
    for key, refused in (("ids", True), ("names", True), ("remark", False)):
        scipy.io.savemat(tmp_path / "submit_fmri.mat", {"EVC_RDMs": rdm, "IT_RDMs": rdm, key: np.array(names, object)})
        write_matlab_7_3(tmp_path / "new.mat", {"EVC_RDMs": rdm, "IT_RDMs": rdm}, {key: [{"name": name} for name in names]})
        for path in (tmp_path / "submit_fmri.mat", tmp_path / "new.mat"):
            if refused:
                with pytest.raises(
                    InputError, match=f"{path.name}: '{key}' names the images, but text of .mat files is not read"
                ):
                    read_submission(path)
            else:
                assert set(read_submission(path)) == {"evc", "it"}
