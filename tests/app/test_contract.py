"""What every file in methods/ keeps: check, fit, save, resume and, where it has one, evaluate, on tiny data."""

import dataclasses
import functools
from collections.abc import Callable

import pytest
import torch
from tiny_methods import METHODS, TINY, begin, pretrained_run

from pulvinar.app import registry
from pulvinar.core.config import mistakes_of
from pulvinar.learning import runs
from pulvinar.learning.checkpoints import State
from pulvinar.learning.method import Data
from pulvinar.learning.runs import RunFolder
from pulvinar.report import page

LONG = (
    "contrastive_encoding",
    "cross_fitted",
    "distillation",
    "dual_gating",
    "gated_ssl",
    "picture_decoder",
    "random",
    "regression_tuning",
)  # over 7 s; `pytest -m slow` has them


@pytest.fixture(scope="module")
def data_of() -> Callable[[str], Data]:
    """Kind of data -> the tiny data of that kind, made once."""
    return functools.cache(lambda kind: TINY[kind]())


class _StoppedError(Exception):
    """Where a test ends a fit."""


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
    assert method.table is not None or method.topic == "decoding"  # whose table `evaluate` prints itself
    assert all({"table", "setting", "method", "metric", "value", "unit"} <= set(row) for row in method.published)
    assert not mistakes_of(method.config(), name)
    settings = {field.name for field in dataclasses.fields(method.config)}
    assert all(field.metadata["help"] for field in dataclasses.fields(method.config))
    assert {*method.scoring, *method.of_pretrained} <= settings
    assert (method.join is None) == (method.pretrained is None)
    assert method.pretrained is None or method.pretrained in METHODS
    assert not (method.scoring and method.scored_by)


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in METHODS])
def test_method_is_fitted_saved_resumed_and_evaluated(name, data_of, tmp_path, monkeypatch):
    """Oracle of the resumed fit: the uninterrupted one, bit for bit."""
    method = registry.method(name)
    data = data_of(method.data)
    pretrained = pretrained_run(method, data, tmp_path / "pretrained")
    config, run = begin(tmp_path / "whole", method, data)
    method.train(config, data, run, pretrained)
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

    _, stopped = begin(tmp_path / "stopped", method, data)
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "save", save_and_stop)
        with pytest.raises(_StoppedError):
            method.train(config, data, stopped, pretrained)
    method.train(config, data, RunFolder.reopen(tmp_path / "stopped"), pretrained)
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
