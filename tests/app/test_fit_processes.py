"""`fit --devices N`: one run of several processes, refusals, and that all end when one does."""

import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pulvinar.app import fit_processes
from pulvinar.app.fit import fit
from pulvinar.core import devices
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.storage import read_json

FAILS = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit('no room left'); time.sleep(60)"


@pytest.mark.parametrize(
    ("method", "n", "settings", "said"),
    [
        ("troi", 2, {}, "troi is trained on one device; on several are: .*dual_gating"),
        ("dense_ssl", 2, {"device": "cuda:1"}, "device=cuda:1: is one; with --devices 2 say cuda"),
        ("dense_ssl", 3, {"device": "cuda"}, "--devices 3: 1 GPUs are here; give 1 or device=cpu"),
        ("dense_ssl", 0, {}, "--devices: 1 or more, 0 came"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(method, n, settings, said, monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "available", lambda: ["cpu", "cuda:0"])
    with pytest.raises(ConfigError, match=said):
        fit_processes.fit(n, method, data="nowhere", out=str(tmp_path / "run"), assignments=settings)
    assert not list(tmp_path.iterdir())


def test_a_failed_process_ends_the_others_and_its_last_words_are_told(tmp_path):
    said = [tmp_path / f"{rank}.log" for rank in range(3)]
    started = fit_processes._start([sys.executable, "-c", FAILS], said)
    began = time.monotonic()
    failed = fit_processes._first_that_failed(started)
    fit_processes._end(started)
    assert failed == 1
    assert time.monotonic() - began < 30
    assert [process.returncode for process in started] == [-signal.SIGTERM, 1, -signal.SIGTERM]
    with pytest.raises(PulvinarError, match=r"process 1 of the fit ended with exit code 1; .*\n  no room left"):
        fit_processes._raise(1, 1, said[1])


@pytest.mark.slow
def test_two_processes_make_one_run(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (40, 16, 16, 3)).astype(np.uint8)
    labels = np.arange(40) % 2
    arrays = {"x_train": pixels[:32], "y_train": labels[:32], "x_test": pixels[32:], "y_test": labels[32:]}
    np.savez(tmp_path / "own.npz", **arrays, class_names=np.array(["one", "two"]))
    settings = {"epochs": 2, "batch_size": 16, "width": 0.125, "projector_width": 32, "precision": "float32", "device": "cpu"}
    out = str(tmp_path / "run")
    result = fit_processes.fit(2, "dense_ssl", data=str(tmp_path / "own.npz"), out=out, assignments=settings)
    assert result["status"] == "finished"
    assert len((Path(out) / "metrics.jsonl").read_text().splitlines()) == 2
    assert read_json(Path(out) / "environment.json")["device"] == "cpu"
    again = fit_processes.fit(2, "dense_ssl", data=str(tmp_path / "own.npz"), out=out, assignments=settings, resume=True)
    assert again["seconds"] == result["seconds"]
    with pytest.raises(PulvinarError, match="exists already"):
        fit("dense_ssl", data=str(tmp_path / "own.npz"), out=out, assignments=settings)
