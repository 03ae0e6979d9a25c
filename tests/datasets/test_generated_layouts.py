"""Planted worlds in the layouts of Algonauts 2023 and NOD: official files, read back by the readers, scored, submitted."""

import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from pulvinar.cli import main
from pulvinar.core.errors import FileError
from pulvinar.data.restricted_unpickling import read_mapping
from pulvinar.datasets import algonauts2023, nod
from pulvinar.encoding.data import open_subject
from pulvinar.encoding.encoder import EncoderSettings
from pulvinar.scores.encoding import correlations


def simulate(layout: str, out: Path, **settings: object) -> Path:
    pairs = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    assert main(["data", "simulate", "--layout", layout, "--out", str(out), *pairs, "--quiet"]) == 0
    return out


@pytest.fixture(scope="module")
def challenge(tmp_path_factory) -> Path:
    settings = {"n_vertices": 300, "n_images": 60, "n_test_images": 12, "image_size": 32, "pixels": 48}
    return simulate("algonauts2023", tmp_path_factory.mktemp("algonauts") / "challenge", **settings)


@pytest.fixture(scope="module")
def objects(tmp_path_factory) -> Path:
    return simulate(
        "nod", tmp_path_factory.mktemp("nod") / "ds", n_vertices=300, n_trials=20, image_size=32, n_runs=2, n_subjects=2
    )


@pytest.mark.long
def test_challenge_files_have_official_names_and_types(challenge):
    """Oracle: numpy on the files, as a participant reads them."""
    subject = challenge / "subj02"
    left = np.load(subject / "training_split/training_fmri/lh_training_fmri.npy")
    names = sorted(path.name for path in (subject / "training_split/training_images").iterdir())
    assert left.dtype == np.float32
    assert len(left) == len(names) == 60
    assert names[0].startswith("train-0001_nsd-")
    assert Image.open(subject / "training_split/training_images" / names[0]).size == (48, 48)
    assert sorted(path.name for path in (subject / "test_split/test_images").iterdir())[0].startswith("test-0001_nsd-")
    whole = np.load(subject / "roi_masks/lh.all-vertices_fsaverage_space.npy")
    assert whole.shape == (163842,)
    assert whole.sum() == left.shape[1]
    assert np.flatnonzero(whole).max() < 10242
    for kind in algonauts2023.MAPPINGS:
        labels = np.load(subject / f"roi_masks/lh.{kind}_challenge_space.npy")
        spread = np.load(subject / f"roi_masks/lh.{kind}_fsaverage_space.npy")
        np.testing.assert_array_equal(spread[whole > 0], labels)
        assert read_mapping(subject / f"roi_masks/mapping_{kind}.npy")[0] == "Unknown"


def test_challenge_is_read_back_with_its_areas(challenge):
    """Planted truth: ROIs are the planted areas, and the outer split keeps a photograph on one side."""
    experiment = algonauts2023.load(f"{challenge}?test_share=0.3")
    responses, known = experiment.subjects["subj01"], dict(np.load(challenge / "truth/subj01.npz"))
    area = np.concatenate([known["lh_area"], known["rh_area"]])
    early = responses.rois["lh.V1v"] | responses.rois["lh.V1d"] | responses.rois["rh.V1v"] | responses.rois["rh.V1d"]
    np.testing.assert_array_equal(early, area == 1)
    assert responses.geometry.template == "fsaverage"
    source = dict(zip(experiment.stimuli.ids, experiment.stimuli.sources, strict=True))
    sides = [{source[name] for name in part} for part in (experiment.split.train, experiment.split.test)]
    assert not sides[0] & sides[1]
    shared = set(experiment.subjects["subj01"].stimulus_ids) & set(experiment.subjects["subj02"].stimulus_ids)
    assert len(shared) == 6


def test_a_submission_scores_what_its_quality_is(challenge, tmp_path):
    """The planted test responses as prediction score the ceiling's 100; others' responses score nearly nothing."""
    known = dict(np.load(challenge / "truth/subj01.npz"))
    measured = {f"subj01/{side}": known[f"{side}_test"] for side in ("lh", "rh")}
    path = algonauts2023.write_submission(tmp_path / "submission.zip", measured, challenge)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["subj01/lh_pred_test.npy", "subj01/rh_pred_test.npy"]
    found = algonauts2023.read_submission(path)
    ceilings = {name: known[f"{name[-2:]}_noise_ceiling"] for name in measured}
    responsive = {name: known[f"{name[-2:]}_responsive"] for name in measured}
    kept = {name: values[:, responsive[name]] for name, values in found.items()}
    limits = {name: ceilings[name][responsive[name]] for name in measured}
    whole = {name: values[:, responsive[name]] for name, values in measured.items()}
    assert algonauts2023.score(kept, whole, limits)["mean"] == pytest.approx(100)
    order = np.random.default_rng(0).permutation(12)
    shuffled = {name: values[order] for name, values in kept.items()}
    assert algonauts2023.score(shuffled, whole, limits)["mean"] < 40


@pytest.mark.long
def test_nod_is_read_back_with_its_runs_and_areas(objects):
    """Planted truth: V1 of the atlas is the planted first area; runs come as written; categories are photographs."""
    experiment = nod.load(f"{objects}?atlas={objects / 'atlas.dlabel.nii'}&n_vertices=1000&zscore=vertex")
    responses = experiment.subjects["sub-01"]
    assert responses.n_trials == 80
    assert responses.sessions.tolist() == [1] * 40 + [2] * 40
    truth = dict(np.load(objects / "truth/sub-01.npz"))
    assert responses.rois["lh.V1"].sum() == (truth["area"][truth["is_left"]] == 1).sum()
    assert set(np.unique(np.sign(responses.geometry.coordinates[responses.rois["rh.V4"], 0]))) == {1}
    stem = "ses-imagenet02_task-imagenet_run-1"
    image = nibabel.load(objects / f"derivatives/ciftify/sub-01/results/{stem}/{stem}_beta.dscalar.nii")
    values = np.asarray(image.dataobj)
    assert values.shape == (20, len(truth["area"]))  # cortex alone, as the owners' betas
    names = (objects / f"derivatives/ciftify/sub-01/results/{stem}/{stem}_label.txt").read_text()
    assert not names.endswith("\n")
    assert [f"{name}.JPEG" for name in responses.stimulus_ids[40:60]] == names.split("\n")
    assert all((objects / "stimuli/imagenet" / name.split("_")[0] / name).is_file() for name in names.split("\n"))
    labels = dict(zip(experiment.stimuli.ids, experiment.stimuli.labels, strict=True))
    sources = dict(zip(experiment.stimuli.ids, experiment.stimuli.sources, strict=True))
    assert len({(labels[name], sources[name]) for name in labels}) == len(set(labels.values()))
    fewer = nod.load(f"{objects}?atlas={objects / 'atlas.dlabel.nii'}&n_vertices=5&images=false")
    assert fewer.subjects["sub-02"].n_voxels <= 40


def test_planted_responses_of_nod_follow_the_pictures(objects):
    """Planted truth: colour averages of the pictures predict V2 (the colour area) of held-out photographs."""
    experiment = nod.load(f"{objects}?atlas={objects / 'atlas.dlabel.nii'}&n_vertices=1000&zscore=vertex&test_share=0.3")
    given = open_subject(experiment, "sub-01", roi=["V2"])

    def colours(ids):
        rows = experiment.stimuli.rows(ids)
        return {"colour": np.stack([experiment.stimuli.image(row).reshape(4, 8, 4, 8, 3).mean((1, 3)).ravel() for row in rows])}

    trainer = given.trainer(colours(given.train.ids), EncoderSettings(alphas=(1e2, 1e3, 1e4, 1e5), folds=3))
    list(trainer.run())
    from pulvinar.encoding.encoder import predict

    predicted = predict(trainer.fit(), colours(given.test.ids))
    assert np.nanmean(correlations(predicted, given.test.read(given.voxels))) > 0.1


@pytest.mark.parametrize("layout", ["algonauts2023", "nod"])
def test_settings_are_checked_before_anything_is_written(layout, tmp_path, capsys):
    assert main(["data", "simulate", "--layout", layout, "--out", str(tmp_path / "x"), "--set", "n_vertices=7", "--quiet"]) == 2
    assert f"{layout}.n_vertices lies in [200, " in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
    with pytest.raises(FileError):
        (algonauts2023 if layout == "algonauts2023" else nod).load(str(tmp_path))
