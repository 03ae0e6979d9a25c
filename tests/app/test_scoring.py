"""`pulvinar evaluate` of a self-supervised run: its own images, others, and scored another way; nothing is overwritten."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from pulvinar.app.evaluate import evaluate, scoring_settings
from pulvinar.app.fit import Prepared, fit, fit_from
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError
from pulvinar.core.progress import warn
from pulvinar.core.storage import read_arrays, read_json, write_json
from pulvinar.gating.methods import distillation
from pulvinar.learning.runs import RunFolder
from pulvinar.report import run_folder
from pulvinar.report.findings import cautions

EMPTY = {"config_toml": "", "data": {"name": "made up", "path": "own.npz", "fingerprint": ""}}


def write_images(path: Path, *, size: int, classes: int, seed: int = 0) -> Path:
    """40 training and 20 test images; the class is a brighter colour."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 150, (60, size, size, 3)).astype(np.uint8)
    labels = np.arange(60) % classes
    for label in range(classes):
        images[labels == label, :, :, label] += 100
    arrays = {"x_train": images[:40], "y_train": labels[:40], "x_test": images[40:], "y_test": labels[40:]}
    np.savez(path, **arrays, class_names=np.array([f"colour {n}" for n in range(classes)]))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scoring")
    images = write_images(folder / "own.npz", size=16, classes=2)
    settings = ["epochs=1", "batch_size=16", "width=0.125", "projector_width=32", "budget=0.6"]
    fit("dual_gating", data=str(images), out=str(folder / "run"), assignments=settings)
    evaluate(str(folder / "run"))
    return folder / "run"


@pytest.mark.long
def test_the_runs_own_evaluation_stands_in_the_run(run):
    stored = read_json(run / "evaluation.json")
    assert stored["own_images"]
    assert stored["changed"] == {}
    assert stored["class_names"] == ["colour 0", "colour 1"]
    features = read_arrays(run / "predictions" / "features.npz")
    assert features["gated"].shape == features["dense"].shape == (20, 64)
    assert set(features["label"]) == {0, 1}


@pytest.mark.slow
def test_other_images_and_other_scoring_are_kept_beside(run, capsys):
    other = write_images(run.parent / "larger set.npz", size=24, classes=3, seed=1)
    before = (run / "evaluation.json").read_bytes()
    main(["evaluate", str(run), "--data", str(other), "--json", "--set", "k=3", "metric=cosine"])
    printed = json.loads(capsys.readouterr().out)
    folder = run / "evaluations" / "larger_set,k=3,metric=cosine"
    stored = read_json(folder / "evaluation.json")
    assert not stored["own_images"]
    assert stored["changed"] == {"k": 3, "metric": "cosine"}
    assert stored["rows"][0]["linear"] == pytest.approx(printed["linear_gated"])
    assert len(stored["class_names"]) == 3
    assert {row["branch"] for row in stored["rows"]} >= {"gated", "dense", "pixels", "static", "random_gates"}
    assert read_arrays(folder / "predictions" / "correct.npz")["knn_gated"].shape == (20,)
    main(["evaluate", str(run), "--data", str(other), "--only-selection", "--set", "k=3", "metric=cosine"])
    assert "k=3, metric=cosine, controls=False; kept in" in capsys.readouterr().out
    assert read_json(folder / "evaluation.json") == stored
    main(["evaluate", str(run), "--only-selection", "--set", "probe_seeds=2"])
    assert "own: probe_seeds=2; kept in" in capsys.readouterr().out
    assert read_json(run / "evaluations" / "own,probe_seeds=2" / "evaluation.json")["own_images"]
    main(["evaluate", str(run), "--only-selection"])
    assert "own: controls=False; kept in" in capsys.readouterr().out
    assert len(read_json(run / "evaluations" / "own,controls=False" / "evaluation.json")["rows"]) == 2
    assert (run / "evaluation.json").read_bytes() == before


@pytest.mark.long
def test_what_may_be_set_is_listed_and_mistakes_are_named(run, capsys):
    names = [row[0] for row in scoring_settings(str(run))]
    assert names[:3] == ["k", "metric", "normalised"]
    main(["evaluate", str(run), "--settings"])
    assert "nearest training images that vote" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'metric'") as caught:
        evaluate(str(run), assignments=["metrik=cosine", "crops=true"])
    assert "set linear=faithful too" in str(caught.value)


def test_a_method_that_is_scored_in_one_way_says_so(tmp_path):
    (tmp_path / "run.json").write_text('{"method": "ridge_encoding", "status": "finished", "seed": 0, "data": {}}')
    (tmp_path / "config.toml").write_text("")
    assert [row[0] for row in scoring_settings(str(tmp_path))] == ["device"]
    with pytest.raises(ConfigError, match="ridge_encoding is scored in one way; leave out k"):
        evaluate(str(tmp_path), assignments=["k=2"])


def test_a_student_has_the_cautions_of_every_run_that_it_learns_from(tmp_path):
    """Planted: what training and scoring of the teacher warned of, and what its page says of it (a budget that was missed)."""
    teacher, gates = (RunFolder.create(tmp_path / name, method="dual_gating", seed=0, **EMPTY) for name in ("teacher", "gates"))
    for one, text in ((teacher, "epoch 1: collapsing"), (gates, "epoch 2: rising")):
        facts = {**one.facts, "status": "finished", "cautions": [text], "evaluation_cautions": ["few test images"]}
        write_json(one.path / "run.json", facts | {"budget": {"asked": 0.01}})
    rows = [{"name": "dual_gating", "branch": "gated", "mac_share": 0.5}]
    write_json(teacher.path / "evaluation.json", {"rows": rows})
    student = RunFolder.create(tmp_path / "student", method="distillation", seed=0, **EMPTY)
    taught = []
    method = dataclasses.replace(distillation.METHOD, fit=lambda *given: (warn("the loss rose"), taught.append(given)))
    config = distillation.Config(gates=str(gates.path))
    fit_from(method, config, Prepared(None, []), student, teacher.path)
    assert len(taught) == 1
    said = read_json(student.path / "run.json")["cautions"]
    assert {"pretrained: epoch 1: collapsing", "pretrained: few test images", "gates: epoch 2: rising", "the loss rose"} <= set(
        said
    )
    assert any(text.startswith("pretrained: The budget was not met: 1.0") for text in said)
    assert set(said) <= set(cautions(run_folder.read(student.path)))
