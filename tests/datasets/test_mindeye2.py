"""MindEye2's files, written here with h5py and tarfile. Oracle: the arrays written, indexed by behav.npy's columns 0 and 5."""

import io
import tarfile
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from pulvinar.core.errors import FileError, InputError, LeakError
from pulvinar.data.conversion import convert
from pulvinar.data.experiment import load as load_folder
from pulvinar.datasets.mindeye2 import load

N_VOXELS = 7


def write_tar(path: Path, images: np.ndarray, rows: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number, (image, row) in enumerate(zip(images, rows, strict=True)):
            behav = np.full((1, 17), -5.0)
            behav[0, 0], behav[0, 5] = image, row
            for kind, values in (("behav", behav), ("past_behav", behav + 1), ("future_behav", behav + 2)):
                content = io.BytesIO()
                np.save(content, values)
                entry = tarfile.TarInfo(f"sample{number:09d}.{kind}.npy")
                entry.size = content.tell()
                content.seek(0)
                archive.addfile(entry, content)


def write_subject(root: Path, subject: str, generator: np.random.Generator) -> dict:
    """Two sessions: every tenth trial shows one of 75 test images, twice over both; the rest are the subject's own."""
    rows = generator.permutation(1500)
    shown = np.empty(1500, np.int64)
    test = np.sort(rows[:150])
    shown[test] = np.tile(np.arange(100, 175), 2)
    train = np.sort(rows[150:])
    shown[train] = 1000 + 2000 * int(subject[-1]) + np.arange(1350)
    betas = generator.normal(size=(1500, N_VOXELS)).astype(np.float32)
    with h5py.File(root / f"betas_all_{subject}_fp32_renorm.hdf5", "w") as file:
        file["betas"] = betas
    for session in range(2):
        own = generator.permutation(train[train // 750 == session])
        write_tar(root / "wds" / subject / "train" / f"{session}.tar", shown[own], own)
    write_tar(root / "wds" / subject / "new_test" / "0.tar", shown[test], test)
    write_tar(root / "wds" / subject / "test" / "0.tar", shown[test[:100]], test[:100])
    inside = np.zeros((4, 3, 5), np.uint8)
    inside.ravel()[generator.choice(60, N_VOXELS, replace=False)] = 1
    nibabel.save(nibabel.Nifti1Image(inside, np.diag([1.8, 1.8, 1.8, 1])), root / f"{subject}.nii.gz")
    return {"betas": betas, "shown": shown, "test": test, "train": train, "inside": inside}


def write_files(root: Path) -> dict[str, dict]:
    """Two subjects and the images, in the layout; what was written, by subject."""
    generator = np.random.default_rng(0)
    with h5py.File(root / "coco_images_224_float16.hdf5", "w") as file:
        images = file.create_dataset("images", (73_000, 3, 224, 224), np.float16, chunks=(1, 3, 224, 224))
        images[100] = np.stack([np.full((224, 224), level) for level in (0.0, 0.5, 1.0)])
        images[100, 0, 3, 7] = 0.2  # red, row 3, column 7
    return {subject: write_subject(root, subject, generator) for subject in ("subj01", "subj02")}


@pytest.fixture
def files(tmp_path):
    return tmp_path, write_files(tmp_path)


@pytest.mark.long
def test_rows_images_and_sessions_are_those_of_the_tars(files):
    root, written = files
    experiment = load(str(root))
    for subject, truth in written.items():
        responses = experiment.subjects[subject]
        np.testing.assert_array_equal(responses.read(np.arange(1500)), truth["betas"])
        assert responses.stimulus_ids == [f"nsd{row:05d}" for row in truth["shown"]]
        np.testing.assert_array_equal(responses.sessions, np.arange(1500) // 750 + 1)
        np.testing.assert_array_equal(responses.read(np.array([5, 3]), np.array([1, 0])), truth["betas"][[5, 3]][:, [1, 0]])
    assert set(experiment.split.test) == {f"nsd{row:05d}" for row in range(100, 175)}
    assert len(experiment.split.train) == 2 * 1350
    assert "transductive" in experiment.facts["scaling of the files"]
    pixels = experiment.stimuli.image(experiment.stimuli.ids.index("nsd00100"))
    assert pixels.shape == (224, 224, 3)
    assert pixels[0, 0].tolist() == [0, 128, 255]
    assert pixels[3, 7].tolist() == [51, 128, 255]


@pytest.mark.long
def test_first_session_and_older_test(files):
    root, written = files
    truth = written["subj01"]
    responses = load(f"{root}?subjects=1&sessions=1&test=test").subjects["subj01"]
    kept = np.sort(np.concatenate([truth["train"][truth["train"] < 750], truth["test"][:100]]))
    np.testing.assert_array_equal(responses.read(np.arange(responses.n_trials)), truth["betas"][kept])


@pytest.mark.long
def test_the_mask_says_where_voxels_are_and_must_fit(files):
    root, written = files
    geometry = load(f"{root}?mask={root}/{{subject}}.nii.gz").subjects["subj02"].geometry
    np.testing.assert_array_equal(geometry.index, np.argwhere(written["subj02"]["inside"]))
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 3, 5), np.uint8), np.eye(4)), root / "subj01.nii.gz")
    with pytest.raises(InputError, match=r"60 voxels above 0, but .* has 7; another subject's mask"):
        load(f"{root}?mask={root}/{{subject}}.nii.gz")


@pytest.mark.long
def test_without_a_mask_the_missing_places_are_said(files, capsys):
    load(f"{files[0]}?subjects=1")
    assert "low_pass=none" in capsys.readouterr().err


@pytest.mark.long
def test_conversion_keeps_every_value(files, tmp_path):
    root, written = files
    load_folder(convert(load(f"{root}?images=false"), tmp_path / "folder"))
    responses = load_folder(tmp_path / "folder").subjects["subj01"]
    np.testing.assert_array_equal(responses.values, written["subj01"]["betas"])


@pytest.mark.long
def test_files_that_do_not_fit(files):
    root, _ = files
    tar = root / "wds" / "subj01" / "train" / "0.tar"
    content = tar.read_bytes()
    tar.unlink()
    with pytest.raises(FileError, match=r"0\.tar: no such tar"):
        load(str(root))
    tar.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"0\.tar: cannot be read as a webdataset tar"):
        load(str(root))
    write_tar(tar, np.array([5]), np.array([1500]))
    with pytest.raises(InputError, match="1500 trials, but the tars of subj01 name row 1500"):
        load(str(root))
    write_tar(tar, np.array([73_000]), np.array([0]))
    with pytest.raises(InputError, match=r"images .column 0. are 0 to 72999"):
        load(str(root))
    write_tar(tar, np.array([100]), np.array([0]))
    with pytest.raises(LeakError, match="nsd00100"):
        load(str(root))
    with pytest.raises(FileError, match="no betas_all_subj0S"):
        load(str(root / "wds"))


@pytest.mark.long
def test_a_tar_that_is_there_twice_is_refused(files):
    root, _ = files
    train = root / "wds" / "subj01" / "train"
    (train / "1.tar").write_bytes((train / "0.tar").read_bytes())
    with pytest.raises(InputError, match=r"wds/subj01: \d+ rows of the betas stand in two samples of the tars"):
        load(f"{root}?subjects=1")
