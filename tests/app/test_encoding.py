"""`pulvinar encoding` from data on disk to results in the run and on its page; bad input is one line that says what fits."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.cli import main
from pulvinar.core.storage import write_arrays
from pulvinar.data.experiment import Experiment, save
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

N_IMAGES, N_TEST, N_VOXELS = 70, 24, 24
SETTINGS = ["alphas=10,1000", "n_permutations=20", "folds=2", "baseline=none", "subjects=one,two"]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Two subjects whose voxels follow the mean colour of the left and right half of the pictures; two ridge runs."""
    folder, rng = tmp_path_factory.mktemp("encoding"), np.random.default_rng(0)
    ids = [f"image-{row:02d}" for row in range(N_IMAGES)]
    pixels = np.kron(rng.integers(0, 255, (N_IMAGES, 4, 4, 3)), np.ones((1, 8, 8, 1))).astype(np.uint8)
    halves = np.concatenate([pixels[:, :, :16].mean((1, 2)), pixels[:, :, 16:].mean((1, 2))], axis=1)
    halves = (halves - halves.mean(0)) / halves.std(0)
    points = np.argwhere(np.ones((4, 3, 2), bool))
    affine = np.eye(4)
    affine[0, 3] = -1.5
    left = points[:, 0] < 2
    subjects = {}
    for name in ("one", "two"):
        signal = halves @ rng.standard_normal((6, N_VOXELS))
        values = (signal / signal.std(0) + 0.4 * rng.standard_normal(signal.shape)).astype(np.float32)
        rois = ROIs({"lh.V1": left, "rh.V1": ~left}, n_voxels=N_VOXELS)
        geometry = Geometry.from_index(points, shape=(4, 3, 2), affine=affine)
        subjects[name] = Responses(subject=name, values=values, stimulus_ids=ids, geometry=geometry, rois=rois)
    stimuli = Stimuli(ids=ids, sources=ids, read_image=pixels.__getitem__)
    split = Split(train=tuple(ids[N_TEST:]), test=tuple(ids[:N_TEST]))
    save(Experiment(name="halves", stimuli=stimuli, subjects=subjects, split=split, target="one"), folder / "world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULVINAR_CACHE", str(folder / "cache"))
        for seed, out in ((0, "first"), (1, "second"), (2, "third")):
            chosen = [*SETTINGS, "network=squeezenet1_1", "image_size=32", "n_stages=2", "pool=4", f"seed={seed}"]
            pairs = [part for pair in chosen for part in ("--set", pair)]
            assert (
                main(["fit", "ridge_encoding", "--data", str(folder / "world"), "--out", str(folder / out), *pairs, "--quiet"])
                == 0
            )
            assert main(["evaluate", str(folder / out), "--quiet"]) == 0
        yield folder


def run(capsys, *arguments: object) -> dict:
    capsys.readouterr()
    assert main(["encoding", *map(str, arguments), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def refuse(capsys, *arguments: object) -> str:
    assert main(["encoding", *map(str, arguments), "--quiet"]) == 2
    return capsys.readouterr().err


@pytest.mark.slow
def test_transfer_between_runs(root, capsys):
    found = run(capsys, "transfer", root / "second", root / "third", "--untuned", root / "first")
    assert found["models"] == ["second", "third"]
    assert {(cell["model"], cell["subject"]) for cell in found["cells"]} == {
        (model, subject) for model in ("second", "third") for subject in ("one", "two")
    }
    assert (root / "second" / "artifacts" / "transfer.json").is_file()
    assert "--untuned" in refuse(capsys, "transfer", root / "second")
    one = run(capsys, "transfer", root / "second", "--untuned", root / "first", "--data", root / "world", "--subject", "two",
              "--roi", "V1")  # fmt: skip
    assert one["subjects"] == ["two"]


@pytest.mark.slow
def test_information_of_every_region(root, capsys):
    """Planted truth: responses follow the pictures; what is shared is above the null, and never above log K."""
    found = run(capsys, "information", root / "first", "--permutations", 20)
    assert {(row["subject"], row["roi"], row["hemisphere"]) for row in found["rows"]} >= {
        ("one", "all", "both"),
        ("two", "V1", "rh"),
    }
    whole = found["rows"][0]
    assert whole["null_percentile_95"] < whole["nats"] < np.log(12)


@pytest.mark.long
def test_classes_and_landscape(root, capsys):
    rng = np.random.default_rng(1)
    labels = np.repeat([0, 1], 12)
    images = rng.integers(0, 120, (24, 32, 32, 3)).astype(np.uint8)
    images[labels == 1, :, :, 0] += 100
    write_arrays(root / "images.npz", x_train=images, y_train=labels, x_test=images[::3] + 1, y_test=labels[::3])
    found = run(capsys, "classify", root / "first", root / "second", root / "third", "--images", root / "images.npz")
    assert [row["name"] for row in found["rows"]] == ["first", "second", "third"]
    assert found["rows"][0]["accuracy"] > 0.7
    assert len(found["landscape"]["coordinates"]) == 3
    alone = run(capsys, "classify", root / "second", "--images", root / "images.npz")
    assert alone["landscape"] is None


@pytest.mark.long
def test_salience_of_hemispheres(root, capsys, tmp_path):
    found = run(capsys, "salience", root / "first", "--subject", "two", "--roi", "V1")
    assert found["n_images"] + found["n_left_out"] == N_TEST
    assert -1 <= found["low"] <= found["index"] <= found["high"] <= 1
    for number in range(6):
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (40, 30, 3)).astype(np.uint8)).save(
            tmp_path / f"{number}.png"
        )
    own = run(capsys, "salience", root / "first", "--other", root / "second", "--images", tmp_path)
    assert own["n_images"] + own["n_left_out"] == 6
    assert "no encoded voxel is in an ROI 'V9'" in refuse(capsys, "salience", root / "first", "--roi", "V9")
    assert "--subject: three" in refuse(capsys, "salience", root / "first", "--subject", "three")


def test_comparison_over_subjects(root, capsys):
    found = run(capsys, "compare", root / "first", root / "second")
    rows = {(row["run"], row["roi"], row["hemisphere"]): row for row in found["rows"]}
    row, reference = rows["second", "V1", "lh"], rows["first", "V1", "lh"]
    assert row["difference"] == pytest.approx(row["mean"] - reference["mean"])
    assert row["p_value"] == 0.5  # two subjects cannot say more
    assert found["whole"]["second"]["low"] <= found["whole"]["second"]["difference"] <= found["whole"]["second"]["high"]


@pytest.mark.slow
def test_the_page_shows_them(root, capsys):
    for name in ("first", "second"):
        assert main(["report", str(root / name), "--quiet"]) == 0
    text = (root / "first" / "report.html").read_text()
    for words in ("Images told apart", "Salience", "Over subjects", "Information"):
        assert words in text
    assert "Transfer" in (root / "second" / "report.html").read_text()
    capsys.readouterr()


def test_runs_that_do_not_fit_are_named(root, capsys):
    assert "not a run folder" in refuse(capsys, "information", root / "world")
    (root / "first" / "predictions" / "one.npz").rename(root / "kept.npz")
    try:
        assert "pulvinar evaluate" in refuse(capsys, "information", root / "first")
    finally:
        (root / "kept.npz").rename(root / "first" / "predictions" / "one.npz")
