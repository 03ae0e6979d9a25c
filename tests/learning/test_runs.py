"""Oracles: what was written; the state before a kill; package versions from importlib."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.places import TEMPORARY, temporary_name
from pulvinar.learning import runs
from pulvinar.learning.runs import RunFolder


@pytest.fixture
def run(tmp_path) -> RunFolder:
    return RunFolder.create(
        tmp_path / "run",
        method="troi",
        config_toml="seed = 7\nlow_pass = 'none'\n",
        seed=7,
        data={"name": "world", "path": "here"},
        published=[{"method": "TROI", "value": 93.6}],
    )


def test_a_new_run_holds_settings_environment_and_facts(run):
    assert {path.name for path in run.path.iterdir()} == {"run.json", "config.toml", "environment.json", "published.json"}
    facts = json.loads((run.path / "run.json").read_text())
    assert facts == {
        "method": "troi",
        "topic": "decoding",
        "status": "running",
        "seed": 7,
        "seconds": 0.0,
        "data": {"name": "world", "path": "here"},
    }
    assert run.settings() == {"seed": 7, "low_pass": "none"}
    environment = json.loads((run.path / "environment.json").read_text())
    assert environment["torch"] == version("torch")
    assert environment["threads"] == torch.get_num_threads()
    assert not run.finished
    assert run.method == "troi"
    assert run.load() is None


def test_an_existing_folder_is_refused(run):
    with pytest.raises(FileError, match="exists already"):
        RunFolder.create(run.path, method="troi", config_toml="", seed=0, data={})
    assert run.settings()["seed"] == 7


def test_metrics_go_back_to_the_checkpoint(run):
    run.log(epoch=1, loss=0.5)
    run.save({"weights": torch.arange(3), "epoch": 1})
    run.log(epoch=2, loss=0.4)  # the run is killed before this is saved
    again = RunFolder.reopen(run.path)
    state = again.load()
    assert torch.equal(state["weights"], torch.arange(3))
    assert state["epoch"] == 1
    assert "records" not in state
    again.log(epoch=2, loss=0.3)
    again.save({"epoch": 2})
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.3}]


def test_every_line_of_the_metrics_is_strict_json(run):
    run.log(loss=float("nan"))
    run.save({})
    assert json.loads((run.path / "metrics.jsonl").read_text(), parse_constant=pytest.fail) == {"loss": None}


def test_checkpoints_have_names(run):
    run.save({"epoch": 1}, name="decoder")
    assert run.load() is None
    assert run.read("decoder") == {"epoch": 1}


def test_reopening_removes_what_a_killed_run_left(run):
    run.save({"epoch": 1})
    (run.path / "checkpoints" / f"{TEMPORARY}latest-1").write_bytes(b"half")
    (run.path / f"{TEMPORARY}pretrained-1").mkdir()
    (run.path / f"{TEMPORARY}pretrained-1" / f"{TEMPORARY}run.json").write_text("{}")
    again = RunFolder.reopen(run.path)
    assert len(list(run.path.rglob(f"{TEMPORARY}*"))) > 0  # looking at a run changes nothing
    again.remove_leftovers()
    assert not list(run.path.rglob(f"{TEMPORARY}*"))
    assert again.load() == {"epoch": 1}
    assert again.settings()["seed"] == 7


def test_holding_removes_what_a_killed_evaluation_left_and_not_what_another_writes(run):
    """A process of ours that has ended, and this one, which lives."""
    run.finish()
    (run.path / "artifacts").mkdir(exist_ok=True)
    name = "from pathlib import Path; from pulvinar.core.places import temporary_name; print(temporary_name(Path('voxels')))"
    ended = subprocess.run([sys.executable, "-c", name], capture_output=True, text=True, check=True).stdout.strip()
    written = temporary_name(run.path / "artifacts" / "table.csv")
    for path in (run.path / "artifacts" / ended, written):
        path.write_bytes(b"half")
    with RunFolder.reopen(run.path).held():
        assert list(run.path.rglob(f"{TEMPORARY}*")) == [written]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    (tmp_path / TEMPORARY).mkdir()
    with pytest.raises(FileError, match="not a run folder"):
        RunFolder.reopen(tmp_path)
    (tmp_path / "notes.txt").write_text("no run")
    with pytest.raises(FileError, match=r"notes\.txt: not a run folder \(it is a file\)"):
        RunFolder.reopen(tmp_path / "notes.txt")
    with pytest.raises(FileError, match=r"none: not a run folder \(no such folder\)"):
        RunFolder.reopen(tmp_path / "none")
    assert (tmp_path / TEMPORARY).is_dir()  # nothing of a stranger's folder is removed


def test_finishing_marks_the_run_and_keeps_its_facts(run):
    with pytest.raises(InputError, match="a finished run of troi is needed; this is a running troi"):
        run.require(method="troi")
    run.finish(n_voxels=280)
    again = RunFolder.reopen(run.path)
    assert again.finished
    assert again.facts["n_voxels"] == 280
    assert again.facts["seed"] == 7
    assert again.require(method="troi") is again
    with pytest.raises(InputError, match="finished run of cross_subject_decoder is needed; this is a finished troi"):
        again.require(method="cross_subject_decoder")


def test_seconds_go_on_counting_after_a_resume(run, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(runs.time, "monotonic", lambda: clock[0])
    first = RunFolder.reopen(run.path)
    clock[0] += 30
    assert first.due()
    first.save({})
    assert not first.due()
    assert first.facts["seconds"] == 30
    clock[0] += 500  # nobody is working
    second = RunFolder.reopen(run.path)
    clock[0] += 5
    second.finish()
    assert second.facts["seconds"] == 35


def test_a_resumed_run_computes_with_the_recorded_threads(run, capsys):
    now = torch.get_num_threads()
    path = run.path / "environment.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "threads": now + 1}))
    try:
        run.use_recorded_threads()
        assert torch.get_num_threads() == now + 1
        assert f"began with {now + 1} threads" in capsys.readouterr().err
    finally:
        torch.set_num_threads(now)
