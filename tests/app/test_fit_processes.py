"""`fit --devices N`: one run of several processes, refusals, and that all end when one does."""

import json
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_methods import tiny_experiment

from pulvinar.app import fit_processes
from pulvinar.app.fit import fit
from pulvinar.cli import main
from pulvinar.core import devices
from pulvinar.core.errors import ConfigError, PulvinarError, SaidError
from pulvinar.core.storage import read_arrays, read_json
from pulvinar.data import experiment
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.learning.runs import RunFolder

FAILS = "import os, sys, time; os.environ['RANK'] == '1' and sys.exit('no room left'); time.sleep(60)"


@pytest.mark.parametrize(
    ("method", "n", "settings", "said"),
    [
        ("ridge_encoding", 2, {}, "ridge_encoding is trained on one device; on several are: .*distillation.*dual_gating.*troi"),
        ("anova", 2, {}, "anova is trained on one device"),
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


@pytest.mark.parametrize("late", [0, 1])
def test_what_every_process_refuses_is_said_once(late, monkeypatch, capfd, tmp_path):
    """The first process says it on the terminal, whichever is the later one."""
    wait = f"import os, sys, time; time.sleep(0.5 * (os.environ['RANK'] == '{late}'))"
    start, command = (
        fit_processes._start,
        [sys.executable, "-c", f"{wait}; sys.stderr.write('error: no such folder'); sys.exit(2)"],
    )
    monkeypatch.setattr(fit_processes, "_start", lambda _, logs: start(command, logs))
    assert main(["fit", "troi", "--devices", "2", "--data", "nowhere", "--out", str(tmp_path / "run")]) == 2
    assert capfd.readouterr().err.strip() == "error: no such folder"
    with pytest.raises(SaidError, match=r"^no such folder$"):
        fit_processes.fit(2, "troi", data="nowhere", out=str(tmp_path / "run"))


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


TINY_TROI = {
    "device": "cpu",
    "precision": "float32",
    "epochs": 2,
    "n_voxels": 12,
    "n_rounds": 2,
    "epochs_per_round": 1,
    "n_folds": 3,
    "pretrained.epochs": 2,
    "pretrained.hidden": 16,
}


@pytest.mark.slow
def test_troi_on_two_processes_is_that_of_one(tmp_path, monkeypatch):
    """Its pretrained run too, which the first process makes inside it; resumed by one process after the second was killed."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    experiment.save(tiny_experiment(), tmp_path / "data")
    given = {"data": str(tmp_path / "data"), "assignments": TINY_TROI}
    fit("troi", out=str(tmp_path / "one"), **given)
    fit_processes.fit(2, "troi", out=str(tmp_path / "two"), **given)
    for place in (Path(), Path("pretrained")):
        one, two = (RunFolder.reopen(tmp_path / name / place) for name in ("one", "two"))
        assert two.finished
        assert_close(two.read("decoder"), one.read("decoder"))
        ours, theirs = ([json.loads(line) for line in (run.path / "metrics.jsonl").open()] for run in (two, one))
        assert [record["loss"] for record in ours] == pytest.approx([record["loss"] for record in theirs], rel=1e-5)
    maps = [read_arrays(tmp_path / name / "artifacts" / "maps.npz") for name in ("one", "two")]
    assert np.array_equal(maps[0]["selected"], maps[1]["selected"])


@pytest.mark.slow
def test_a_killed_process_ends_the_fit_and_any_number_goes_on_with_it(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    experiment.save(tiny_experiment(), tmp_path / "data")
    given = {"data": str(tmp_path / "data"), "assignments": TINY_TROI | {"pretrained.epochs": 100_000}}
    start, started = fit_processes._start, []
    monkeypatch.setattr(fit_processes, "_start", lambda *command: started.extend(start(*command)) or started)
    kept = tmp_path / "run" / "pretrained" / "checkpoints" / "latest.safetensors"

    def kill_second() -> None:
        while not kept.is_file() and started and started[0].poll() is None:
            time.sleep(0.1)
        started[1].kill()

    killer = threading.Timer(1.0, kill_second)
    killer.start()
    with pytest.raises(PulvinarError, match="ended with"):
        fit_processes.fit(2, "troi", out=str(tmp_path / "run"), **given)
    killer.join()
    assert all(process.poll() is not None for process in started)
    reached = RunFolder.reopen(tmp_path / "run" / "pretrained").read("latest")
    assert reached is not None
    assert reached["epoch"] > 0
    monkeypatch.setattr(DecoderTrainer, "run_epoch", lambda trainer: interrupt_after(trainer, reached["epoch"]))
    with pytest.raises(KeyboardInterrupt):
        fit("troi", out=str(tmp_path / "run"), resume=True, **given)


def interrupt_after(trainer: DecoderTrainer, epoch: int) -> None:
    """In place of an epoch: it goes on where the killed one stood."""
    assert trainer.epoch == epoch
    raise KeyboardInterrupt


def assert_close(ours, theirs) -> None:
    """Checkpoints of the same form whose numbers differ by rounding."""
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            assert_close(ours[name], value)
    elif isinstance(theirs, torch.Tensor):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    else:
        assert ours == theirs
