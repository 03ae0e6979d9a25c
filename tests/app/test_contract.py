"""What every file in methods/ keeps: check, fit, save, resume and, where it has one, evaluate, on tiny data."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from pulvinar.app import registry
from pulvinar.core.config import build, mistakes_of, to_toml
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_set import ImageSet
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning import runs
from pulvinar.learning.checkpoints import State
from pulvinar.learning.method import Data
from pulvinar.learning.runs import RunFolder
from pulvinar.report import page

FITTED = ("cross_fitted", "random")  # of the selectors, which are fitted alike
METHODS = registry.names("methods") | {name: line for name, line in registry.names("selectors").items() if name in FITTED}
LONG = ("contrastive_encoding", "dual_gating", "gated_ssl", "picture_decoder")  # over 15 s; `pytest -m slow` has them
QUICK = {  # settings that make a fit on the tiny data short; each method takes those it has
    "experiment": {
        "epochs": 3,
        "hidden": 16,
        "n_voxels": 12,
        "n_rounds": 2,
        "epochs_per_round": 2,
        "n_folds": 2,
        "picture_size": 16,
        "low_level_epochs": 2,
        "prior_epochs": 2,
        "voxels_per_block": 20,
    },
    "images": {"epochs": 2, "batch_size": 16, "width": 0.125, "projector_width": 32, "warmup_epochs": 1},
    "dissimilarities": {"epochs": 2, "roi": "evc", "backbone": "squeezenet1_0", "image_size": 64, "n_repeats": 1, "n_folds": 3},
}


def tiny_experiment() -> Experiment:
    """Two subjects to learn from and a new one: 60 voxels, the first 12 linear in the embedding."""
    generator = np.random.default_rng(0)
    ids = [f"image-{number}" for number in range(90)]
    embedding = generator.normal(size=(90, 8)).astype(np.float32)
    subjects = {}
    for name in ("one", "two", "new"):
        values = generator.normal(size=(90, 60)).astype(np.float32)
        values[:, :12] += embedding @ generator.normal(size=(8, 12)).astype(np.float32)
        subjects[name] = Responses(
            subject=name,
            values=values,
            stimulus_ids=ids,
            geometry=Geometry.from_points(np.argwhere(np.ones((5, 4, 3))).astype(float)),
            rois=ROIs({"annotated": np.arange(60) < 20}, n_voxels=60),
        )
    pixels = generator.integers(0, 255, (90, 24, 24, 3)).astype(np.uint8)
    stimuli = Stimuli(ids=ids, sources=ids, features={"clip": embedding}, read_image=pixels.__getitem__)
    split = Split(train=tuple(ids[:60]), test=tuple(ids[60:]))
    return Experiment(name="tiny", stimuli=stimuli, subjects=subjects, split=split, target="new")


def tiny_images() -> ImageSet:
    """40 training and 20 test images of 16 pixels: a bright corner says the class."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (60, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(60) % 2
    images[labels == 1, :8, :8] += 120
    return ImageSet(
        name="tiny",
        train=images[:40],
        test=images[40:],
        train_labels=labels[:40],
        test_labels=labels[40:],
        class_names=("plain", "corner"),
    )


def tiny_dissimilarities() -> Dissimilarities:
    """RDMs of four subjects over 18 images: the distance of their mean colours, with noise of each subject."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 255, (18, 1, 1, 3)) + generator.integers(-20, 20, (18, 64, 64, 3))
    images = pixels.clip(0, 255).astype(np.uint8)
    colours = images.mean((1, 2)) / 255
    distance = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    noise = 0.1 * generator.random((4, 18, 18))
    rdms = distance + (noise + noise.transpose(0, 2, 1)) * (1 - np.eye(18))
    ids = [f"image-{number:02d}" for number in range(18)]
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: images[row])
    return Dissimilarities(name="tiny", stimuli=stimuli, targets={"evc": SubjectRDMs(name="evc", rdms=rdms)})


TINY = {"experiment": tiny_experiment, "images": tiny_images, "dissimilarities": tiny_dissimilarities}


@pytest.fixture(scope="module")
def data_of() -> Callable[[str], Data]:
    """Kind of data -> the tiny data of that kind, made once."""
    return functools.cache(lambda kind: TINY[kind]())


class _StoppedError(Exception):
    """Where a test ends a fit."""


def _open(path, method, data) -> tuple[object, RunFolder]:
    known = {field.name for field in dataclasses.fields(method.config)}
    quick = {key: value for key, value in QUICK[method.data].items() if key in known}
    config = build(method.config, quick, name=method.name)
    target = data.target if isinstance(data, Experiment) else None
    facts = {"name": data.name, "path": "", "target": target, "fingerprint": data.fingerprint()}
    return config, RunFolder.create(
        path,
        method=method.name,
        config_toml=to_toml(config),
        seed=0,
        data=facts,
        published=method.published,
        topic=method.topic,
    )


def _backbone(method, data, path) -> RunFolder | None:
    """What the method reads beside the data."""
    if method.backbone is None:
        return None
    backbone = registry.method(method.backbone)
    inner = _backbone(backbone, data, path.with_name(f"{path.name}-of"))
    config, run = _open(path, backbone, data)
    backbone.train(config, data, run, inner)
    return RunFolder.reopen(path)


def _require_equal(ours: State, theirs: State) -> None:
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        if isinstance(value, dict):
            _require_equal(value, theirs[key])
        else:
            assert torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key], key


@pytest.mark.parametrize("name", METHODS)
def test_method_declares_what_it_is(name):
    method = registry.method(name)
    assert method.name == name
    assert METHODS[name].endswith(".")
    assert method.needs
    assert method.data in TINY
    assert method.topic in page.PAGES
    assert all({"table", "setting", "method", "metric", "value", "unit"} <= set(row) for row in method.published)
    assert not mistakes_of(method.config(), name)
    settings = {field.name for field in dataclasses.fields(method.config)}
    assert all(field.metadata["help"] for field in dataclasses.fields(method.config))
    assert {*method.scoring, *method.of_backbone} <= settings
    assert (method.join is None) == (method.backbone is None)
    assert method.backbone is None or method.backbone in METHODS
    assert not (method.scoring and method.scored_by)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in METHODS])
def test_method_is_fitted_saved_resumed_and_evaluated(name, data_of, tmp_path, monkeypatch):
    """Oracle of the resumed fit: the uninterrupted one, bit for bit."""
    method = registry.method(name)
    data = data_of(method.data)
    backbone = _backbone(method, data, tmp_path / "backbone")
    config, run = _open(tmp_path / "whole", method, data)
    method.train(config, data, run, backbone)
    whole = RunFolder.reopen(tmp_path / "whole")
    assert whole.finished

    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    save = RunFolder.save
    n_saved = 0

    def save_and_stop(self, state, *, name="latest"):
        nonlocal n_saved
        save(self, state, name=name)
        n_saved += 1
        if n_saved == 2:
            raise _StoppedError

    _, stopped = _open(tmp_path / "stopped", method, data)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save", save_and_stop)
        with pytest.raises(_StoppedError):
            method.train(config, data, stopped, backbone)
    method.train(config, data, RunFolder.reopen(tmp_path / "stopped"), backbone)
    resumed = RunFolder.reopen(tmp_path / "stopped")
    assert resumed.finished
    results = {path.stem for path in (whole.path / "checkpoints").iterdir()} - {"latest"}
    assert results
    for result in results:
        _require_equal(resumed.read(result), whole.read(result))
    assert (resumed.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()

    if method.evaluate is not None:
        evaluation = method.evaluate(whole, data, config)
        assert evaluation["rows"][0]["name"] == name
        assert (whole.path / "evaluation.json").is_file()
        html = page.build(whole.path).read_text(encoding="utf-8")
        assert "<img" in html
        assert "not evaluated" not in html
