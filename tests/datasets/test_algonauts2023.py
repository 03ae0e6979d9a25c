"""Algonauts 2023: a folder in the official layout, written here, read, scored, and its submission checked."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.config import build
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.data.restricted_unpickling import read_mapping
from pulvinar.datasets import algonauts2023 as algonauts

N_VERTICES = {"lh": 60, "rh": 50}
N_TRAINING, N_TEST = 30, 8


def write_subject(root: Path, subject: str, ids: list[int], test_ids: list[int], seed: int) -> dict[str, np.ndarray]:
    """One subject in the official layout; returns its responses."""
    rng = np.random.default_rng(seed)
    for split, word, numbers in (("training", "train", ids), ("test", "test", test_ids)):
        folder = root / subject / f"{split}_split" / f"{split}_images"
        folder.mkdir(parents=True)
        for place, number in enumerate(numbers, start=1):
            pixels = np.random.default_rng(number).integers(0, 255, (12, 12, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{word}-{place:04d}_nsd-{number:05d}.png")
    masks, fmri = root / subject / "roi_masks", root / subject / "training_split" / "training_fmri"
    masks.mkdir()
    fmri.mkdir()
    written = {}
    for side, count in N_VERTICES.items():
        written[side] = rng.standard_normal((len(ids), count)).astype(np.float32)
        np.save(fmri / f"{side}_training_fmri.npy", written[side])
        everywhere = np.zeros(algonauts.FSAVERAGE_VERTICES, np.int32)
        everywhere[rng.choice(algonauts.FSAVERAGE_VERTICES, count, replace=False)] = 1
        np.save(masks / f"{side}.all-vertices_fsaverage_space.npy", everywhere)
        for kind, names in algonauts.MAPPINGS.items():
            np.save(masks / f"{side}.{kind}_challenge_space.npy", np.arange(count, dtype=np.int32) % (len(names) + 1))
            np.save(masks / f"mapping_{kind}.npy", {0: "Unknown", **names}, allow_pickle=True)
    return written


def write_challenge(root: Path) -> dict[str, tuple[np.ndarray, list[int]]]:
    """Two subjects who share ten training pictures; subject 2 saw one of subject 1's test pictures in training.

    By subject what was written: responses of both hemispheres (picture, vertex), and the pictures' numbers.
    """
    tests, written = list(range(100, 100 + N_TEST)), {}
    shown = {"subj01": list(range(N_TRAINING)), "subj02": [*range(20, 20 + N_TRAINING - 1), 100]}
    for seed, (subject, numbers) in enumerate(shown.items(), start=1):
        halves = write_subject(root, subject, numbers, tests[seed - 1 :], seed)
        written[subject] = np.hstack([halves["lh"], halves["rh"]]), numbers
    return written


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_challenge(tmp_path)
    return tmp_path


def test_the_layout_is_read_as_written(root):
    """Oracle: the arrays that were written, and their file names."""
    experiment = algonauts.load(str(root))
    left, right = (np.load(root / f"subj01/training_split/training_fmri/{side}_training_fmri.npy") for side in ("lh", "rh"))
    responses = experiment.subjects["subj01"]
    np.testing.assert_array_equal(responses.read(np.arange(N_TRAINING)), np.hstack([left, right]))
    np.testing.assert_array_equal(
        responses.read(np.array([3, 1]), np.array([0, 59, 60])), np.hstack([left, right])[[3, 1]][:, [0, 59, 60]]
    )
    assert responses.stimulus_ids[:2] == ["nsd-00000", "nsd-00001"]
    labels = np.load(root / "subj01/roi_masks/rh.floc-faces_challenge_space.npy")
    np.testing.assert_array_equal(np.flatnonzero(responses.rois["rh.FFA-1"]), 60 + np.flatnonzero(labels == 2))
    assert len(responses.rois) == 2 * sum(map(len, algonauts.MAPPINGS.values()))
    row = experiment.stimuli.row_of["nsd-00025"]
    np.testing.assert_array_equal(
        experiment.stimuli.image(row), np.random.default_rng(25).integers(0, 255, (12, 12, 3)).astype(np.uint8)
    )
    vertices = np.flatnonzero(np.load(root / "subj01/roi_masks/rh.all-vertices_fsaverage_space.npy"))
    np.testing.assert_array_equal(responses.geometry.coordinates[60:, 1], vertices)


def test_test_pictures_are_in_nobodys_training(root):
    """The share is of all pictures with responses; challenge test pictures are stimuli, on neither side."""
    experiment = algonauts.load(f"{root}?test_share=0.2&target=2")
    sides = set(experiment.split.train) | set(experiment.split.test)
    assert len(experiment.split.test) == round(0.2 * len(sides))
    assert not sides & {f"nsd-{number:05d}" for number in range(100, 100 + N_TEST)}
    assert "nsd-00107" in experiment.stimuli.ids
    assert experiment.target == "subj02"
    assert algonauts.load(f"{root}?test_share=0.2").split == experiment.split


def test_mapping_constants_are_those_of_the_files(root):
    for kind, names in algonauts.MAPPINGS.items():
        assert read_mapping(root / f"subj01/roi_masks/mapping_{kind}.npy") == {0: "Unknown", **names}


class _Harmful:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize("content", [_Harmful(), {1: _Harmful()}, {1: 2.5}, {"a": "b"}, [1, 2], {1: ["V1"]}, {True: "V1"}])
def test_only_a_dict_of_numbers_and_names_is_unpickled(tmp_path, content):
    np.save(
        tmp_path / "mapping.npy",
        np.array(content, dtype=object) if isinstance(content, _Harmful) else content,
        allow_pickle=True,
    )
    with pytest.raises(FileError, match=r"mapping\.npy"):
        read_mapping(tmp_path / "mapping.npy")


def test_a_bare_pickle_and_a_truncated_file_are_refused(tmp_path):
    (tmp_path / "bare.npy").write_bytes(pickle.dumps({1: "V1"}))
    np.save(tmp_path / "cut.npy", {1: "V1"}, allow_pickle=True)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-20])
    for name in ("bare.npy", "cut.npy"):
        with pytest.raises(FileError, match=name):
            read_mapping(tmp_path / name)


def test_masks_and_responses_of_another_length_are_refused(root):
    mask = root / "subj01/roi_masks/lh.streams_challenge_space.npy"
    np.save(mask, np.zeros(59, np.int32))
    with pytest.raises(InputError, match=r"lh.streams.*\(59,\).*60"):
        algonauts.load(f"{root}?subjects=1")
    np.save(mask, np.zeros(60, np.int32))
    np.save(root / "subj01/roi_masks/rh.all-vertices_fsaverage_space.npy", np.ones(algonauts.FSAVERAGE_VERTICES, np.int32))
    with pytest.raises(InputError, match=r"163842 vertices.*50"):
        algonauts.load(f"{root}?subjects=1")
    fmri = root / "subj02/training_split/training_fmri/lh_training_fmri.npy"
    np.save(fmri, np.load(fmri)[:-1])
    with pytest.raises(InputError, match="29 rows for the 30"):
        algonauts.load(f"{root}?subjects=2")


def test_missing_and_unreadable_files_are_named(root):
    images = root / "subj01/training_split/training_images"
    (images / "train-0004_nsd-00003.png").unlink()
    with pytest.raises(FileError, match="number 4 is missing"):
        algonauts.load(f"{root}?subjects=1")
    (root / "subj02/training_split/training_fmri/rh_training_fmri.npy").rename(root / "elsewhere.npy")
    with pytest.raises(FileError, match="rh_training_fmri"):
        algonauts.load(f"{root}?subjects=2")
    (root / "elsewhere.npy").rename(root / "subj02/training_split/training_fmri/rh_training_fmri.npy")
    (root / "subj02/training_split/training_images/train-0001_nsd-00020.png").write_bytes(b"not an image")
    experiment = algonauts.load(f"{root}?subjects=2")
    with pytest.raises(FileError, match="train-0001_nsd-00020"):
        experiment.stimuli.image(experiment.stimuli.row_of["nsd-00020"])


def test_a_mapping_that_disagrees_is_refused(root):
    np.save(root / "subj01/roi_masks/mapping_floc-places.npy", {0: "Unknown", 1: "PPA", 2: "OPA", 3: "RSC"}, allow_pickle=True)
    with pytest.raises(InputError, match="mapping_floc-places"):
        algonauts.load(f"{root}?subjects=1")


def test_score_is_the_mean_over_all_vertices():
    """Hand-worked: two hemispheres of unequal size; a perfect vertex 100 at NC 1, one without variance 0, r = -1 gives 0."""
    ramp = np.arange(5.0)[:, None]
    measured = {"subj01/lh": np.hstack([ramp, ramp, ramp]), "subj01/rh": ramp}
    predicted = {"subj01/lh": np.hstack([ramp, -ramp, 0 * ramp]), "subj01/rh": 2 * ramp + 1}
    ceilings = {"subj01/lh": np.ones(3), "subj01/rh": np.array([0.5])}
    found = algonauts.score(predicted, measured, ceilings)
    assert found == pytest.approx({"subj01/lh": 100 / 3, "subj01/rh": 100, "mean": 50})
    with pytest.raises(NotFoundError, match="subj01/rh"):
        algonauts.score({"subj01/lh": predicted["subj01/lh"]}, measured, ceilings)
    with pytest.raises(InputError, match=r"outside \[0, 1\]"):
        algonauts.score(predicted, measured, ceilings | {"subj01/rh": np.array([50.0])})


def test_submission_is_the_official_zip(root, tmp_path):
    """Oracle: zipfile and np.load, as the challenge's server reads it."""
    rng = np.random.default_rng(0)
    predictions = {f"subj01/{side}": rng.standard_normal((N_TEST, count)) for side, count in N_VERTICES.items()}
    path = algonauts.write_submission(tmp_path / "submission.zip", predictions, root)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["subj01/lh_pred_test.npy", "subj01/rh_pred_test.npy"]
        with archive.open("subj01/lh_pred_test.npy") as file:
            np.testing.assert_array_equal(np.load(file, allow_pickle=False), predictions["subj01/lh"].astype(np.float32))
    found = algonauts.read_submission(path)
    assert set(found) == set(predictions)
    assert len(algonauts.challenge_stimuli(root, "subj01")) == N_TEST
    with pytest.raises(InputError, match=r"\(8, 60\).*\(7, 60\)"):
        algonauts.write_submission(tmp_path / "other.zip", {"subj01/lh": predictions["subj01/lh"][1:]}, root)
    with pytest.raises(InputError, match="subj01/left"):
        algonauts.write_submission(tmp_path / "other.zip", {"subj01/left": predictions["subj01/lh"]})
    assert not (tmp_path / "other.zip").exists()


def test_settings_are_checked_together():
    with pytest.raises(ConfigError) as error:
        build(algonauts.Options, {"subjects": "9", "test_share": "1.5", "subject": "1"}, name="algonauts2023")
    assert all(word in str(error.value) for word in ("'9'", "test_share", "did you mean 'subjects'"))
