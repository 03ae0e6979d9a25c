"""What every file in methods/ keeps: check, fit, save, resume and, where it has one, evaluate, on a tiny planted world."""

import dataclasses

import numpy as np
import pytest
import torch

from pulvinar.commands import registry
from pulvinar.config import build, to_toml
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.training import runs
from pulvinar.training.checkpoints import State
from pulvinar.training.runs import RunFolder

METHODS = registry.names("methods")
QUICK = {"epochs": 3, "hidden": 16, "n_voxels": 12, "n_rounds": 2, "epochs_per_round": 2, "n_folds": 2}


@pytest.fixture(scope="module")
def experiment() -> Experiment:
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
    stimuli = Stimuli(ids=ids, sources=ids, features={"clip": embedding})
    split = Split(train=tuple(ids[:60]), test=tuple(ids[60:]))
    return Experiment(name="tiny", stimuli=stimuli, subjects=subjects, split=split, target="new")


class _StoppedError(Exception):
    """Where a test ends a fit."""


def _open(path, method, module, experiment) -> tuple[object, RunFolder]:
    known = {field.name for field in dataclasses.fields(module.Config)}
    config = build(module.Config, {key: value for key, value in QUICK.items() if key in known}, name=method)
    facts = {"name": experiment.name, "path": "", "target": experiment.target, "fingerprint": experiment.fingerprint()}
    return config, RunFolder.create(path, method=method, config_toml=to_toml(config), seed=0, data=facts)


def _backbone(module, experiment, path) -> tuple[RunFolder, ...]:
    """What the method reads beside the experiment."""
    if not hasattr(module, "BACKBONE"):
        return ()
    backbone = registry.module("methods", module.BACKBONE)
    config, run = _open(path, module.BACKBONE, backbone, experiment)
    backbone.fit(config, experiment, run)
    return (RunFolder.reopen(path),)


def _require_equal(ours: State, theirs: State) -> None:
    assert set(ours) == set(theirs)
    for key, value in ours.items():
        if isinstance(value, dict):
            _require_equal(value, theirs[key])
        else:
            assert torch.equal(value, theirs[key]) if isinstance(value, torch.Tensor) else value == theirs[key], key


@pytest.mark.parametrize("method", METHODS)
def test_method_declares_what_it_is(method):
    module = registry.module("methods", method)
    assert METHODS[method].endswith(".")
    assert module.NEEDS
    assert isinstance(module.PUBLISHED, list)
    assert not module.Config().problems()
    assert all(field.metadata["help"] for field in dataclasses.fields(module.Config))


@pytest.mark.parametrize("method", METHODS)
def test_method_is_fitted_saved_resumed_and_evaluated(method, experiment, tmp_path, monkeypatch):
    """Oracle of the resumed fit: the uninterrupted one, bit for bit."""
    module = registry.module("methods", method)
    inputs = _backbone(module, experiment, tmp_path / "backbone")
    config, run = _open(tmp_path / "whole", method, module, experiment)
    module.check(config, experiment, *inputs)
    module.fit(config, experiment, run, *inputs)
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

    _, stopped = _open(tmp_path / "stopped", method, module, experiment)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save", save_and_stop)
        with pytest.raises(_StoppedError):
            module.fit(config, experiment, stopped, *inputs)
    module.fit(config, experiment, RunFolder.reopen(tmp_path / "stopped"), *inputs)
    resumed = RunFolder.reopen(tmp_path / "stopped")
    assert resumed.finished
    _require_equal(resumed.load(name="decoder"), whole.load(name="decoder"))
    assert (resumed.path / "metrics.jsonl").read_bytes() == (whole.path / "metrics.jsonl").read_bytes()

    if hasattr(module, "evaluate"):
        evaluation = module.evaluate(whole, experiment, config)
        assert evaluation["rows"][0]["name"] == method
        assert (whole.path / "evaluation.json").is_file()
