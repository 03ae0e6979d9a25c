"""What CONTRIBUTING.md says that adding one costs: each of its changes to a file is made in a copy of the package, and used."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pulvinar.data import experiment as folders
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
DATASET = "src/pulvinar/datasets/two_arrays.py"
CHANGES = dict(re.findall(r"^```diff\n--- (\S+)\n(.*?)^```$", PAGE, re.M | re.S))
NEW = {DATASET: next(text for text in re.findall(r"^```python\n(.*?)^```$", PAGE, re.M | re.S) if "DATASET" in text)}


def changed(text: str, change: str) -> str:
    """The text with every hunk made; a hunk says what stands there once (' ', '-') and what is to (' ', '+')."""
    for hunk in re.split(r"^@@.*\n", change, flags=re.M):
        lines = hunk.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(before) == 1, before
        text = text.replace(before, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


@pytest.fixture
def run_changed(tmp_path):
    """Make the change of a file, or a new one, in a copy of the package; run commands of that copy, in one process."""

    def run(path: str, *commands: list[str]) -> str:
        shutil.copytree(ROOT / "src", tmp_path / "src")
        file = tmp_path / path
        text = NEW[path] if path in NEW else changed(file.read_text("utf-8"), CHANGES[path])
        file.write_text(text, "utf-8")
        program = f"import sys; from pulvinar.cli import main; sys.exit(max(main(command) for command in {list(commands)!r}))"
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_change_is_tried():
    assert set(CHANGES) == {"src/pulvinar/gating/objectives.py", "src/pulvinar/encoding/scores.py"}


@pytest.mark.slow
def test_a_new_objective_is_a_change_of_one_file(run_changed, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (16, 16, 16, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images)
    settings = ["objective=uniformity", "uniformity_weight=2", "epochs=1", "batch_size=8", "width=0.0625", "projector_width=16"]
    said = run_changed(
        "src/pulvinar/gating/objectives.py",
        ["fit", "gated_ssl", "--settings"],
        ["fit", "gated_ssl", "--data", "images.npz", "--out", "run", "--quiet", "--set", *settings],
    )
    assert "uniformity_weight = 1" in said
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()[0])
    assert np.isfinite([record["alignment"], record["uniformity"]]).all()
    assert 0 <= record["alignment"] <= 4


@pytest.mark.slow
def test_a_new_encoding_score_is_a_change_of_one_file(run_changed, tmp_path):
    """Oracle: the score from the predictions that the run keeps."""
    rng = np.random.default_rng(0)
    ids = [f"image-{number}" for number in range(60)]
    embedding = rng.standard_normal((60, 5)).astype(np.float32)
    values = embedding @ rng.standard_normal((5, 8)).astype(np.float32) + rng.standard_normal((60, 8)).astype(np.float32)
    responses = Responses(
        subject="one", values=values, stimulus_ids=ids, geometry=Geometry.from_points(rng.standard_normal((8, 3)))
    )
    stimuli = Stimuli(ids=ids, sources=ids, features={"clip": embedding})
    split = Split(train=tuple(ids[:40]), test=tuple(ids[40:]))
    folders.save(
        Experiment(name="tiny", stimuli=stimuli, subjects={"one": responses}, split=split, target="one"), tmp_path / "world"
    )
    settings = ["n_permutations=20", "alphas=1,10"]
    said = run_changed(
        "src/pulvinar/encoding/scores.py",
        ["fit", "ridge_encoding", "--data", "world", "--out", "run", "--quiet", "--set", *settings],
        ["evaluate", "run", "--quiet"],
        ["report", "run", "--quiet"],
    )
    assert "R^2" in said
    row = json.loads((tmp_path / "run" / "evaluation.json").read_text("utf-8"))["rows"][0]
    with np.load(tmp_path / "run" / "predictions" / "one.npz") as kept:
        residual = np.square(kept["measured"] - kept["predicted"]).sum(0)
        total = np.square(kept["measured"] - kept["measured"].mean(0)).sum(0)
    assert row["r2"] == pytest.approx(float((1 - residual / total).mean()), rel=1e-5)
    assert "variance explained on the test images" in (tmp_path / "run" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_a_new_data_set_is_one_file(run_changed, tmp_path):
    """Oracle: the counts of what was written."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "mine"
    folder.mkdir()
    shown = {"id": [f"picture-{n}" for n in range(30)], "embedding": rng.normal(size=(30, 4)), "is_test": np.arange(30) >= 24}
    np.savez(folder / "pictures.npz", **shown)
    for name, n_voxels in (("one", 7), ("two", 9)):
        seen = {"responses": rng.normal(size=(30, n_voxels)).astype(np.float32), "picture": np.arange(30)}
        np.savez(folder / f"sub-{name}.npz", **seen, xyz=rng.normal(size=(n_voxels, 3)))
    settings = ["n_permutations=20", "alphas=1,10"]
    said = run_changed(
        DATASET,
        ["list"],
        ["data", "inspect", "two_arrays:mine"],
        ["fit", "ridge_encoding", "--data", "two_arrays:mine", "--out", "run", "--quiet", "--set", *settings],
        ["evaluate", "run", "--quiet"],
    )
    assert "Two arrays: a laboratory's own layout" in " ".join(said.split())
    assert re.search(r"sub-one +30 .* 7\b", said)
    assert re.search(r"sub-two +30 .* 9\b", said)
    with np.load(tmp_path / "run" / "predictions" / "sub-two.npz") as kept:
        assert kept["predicted"].shape == (6, 9)
