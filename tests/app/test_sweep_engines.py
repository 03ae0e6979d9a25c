"""Engines of a sweep. Oracle of every table: the same grid, one cell after the other in this process."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

import pulvinar
from pulvinar.app.sweeps import status
from pulvinar.app.sweeps.engines.slurm import Config, Slurm, megabytes_of, minutes_of
from pulvinar.app.sweeps.jobs import Job, Journal, keeping_journal
from pulvinar.app.sweeps.sweep import sweep
from pulvinar.cli import main
from pulvinar.core.config import read_toml, table_to_toml
from pulvinar.core.errors import InputError
from pulvinar.core.locks import holding

GRID = """
method = "troi"
data = "{world}"
out = "{out}"
controls = false
[set]
n_voxels = 20
epochs = 2
n_rounds = 2
epochs_per_round = 1
n_folds = 2
[set.pretrained]
epochs = 2
hidden = 16
seed = 0
[grid]
seed = [0, 1, 2, 3]
"""


def write(folder: Path, world: Path, *changes: tuple[str, str]) -> Path:
    folder.mkdir(exist_ok=True)
    text = GRID
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "grid.toml").write_text(text.replace("{world}", str(world)).replace("{out}", str(folder / "out")))
    return folder / "grid.toml"


@pytest.fixture(scope="module")
def serial(world, tmp_path_factory):
    """The table of the grid, and its folder."""
    folder = tmp_path_factory.mktemp("serial")
    assert main(["sweep", str(write(folder, world)), "--quiet"]) == 0
    return folder / "out"


@pytest.mark.slow
def test_a_worker_gives_the_rows_of_this_process_and_keeps_what_its_cells_say(serial, world, tmp_path):
    grid = write(tmp_path, world, ("seed = [0, 1, 2, 3]", "seed = [0]"))
    rows = sweep(str(grid), workers=1, threads=1)["rows"]
    wanted = [
        line for line in (serial / "table.csv").read_text().splitlines() if not line.startswith("seed=") or "seed=0," in line
    ]
    assert (tmp_path / "out" / "table.csv").read_text().splitlines() == wanted
    assert [row["cell"] for row in rows] == ["seed=0"]
    said = (tmp_path / "out" / "jobs" / "seed=0.log").read_text()
    assert "finished in" in said


def kill_the_first_worker(out: Path, killed: list[int]) -> None:
    """SIGKILL to the first process that says it runs a cell."""
    while not killed:
        for path in (out / "jobs").glob("seed=*.json"):
            journal = Journal.read(path)
            if journal.state == "running":
                os.kill(journal.process, signal.SIGKILL)
                killed.append(journal.process)
                return
        time.sleep(0.01)


@pytest.mark.slow
def test_a_killed_worker_loses_its_cell_only_and_another_does_it_again(serial, world, tmp_path, capfd):
    grid, killed = write(tmp_path, world), []
    thread = threading.Thread(target=kill_the_first_worker, args=(tmp_path / "out", killed))
    thread.start()
    result = sweep(str(grid), workers=2)
    thread.join()
    assert "its worker was killed (signal 9); it is done again by another" in capfd.readouterr().err
    assert [row["cell"] for row in result["rows"]] == [f"seed={seed}" for seed in range(4)]
    assert (tmp_path / "out" / "table.csv").read_bytes() == (serial / "table.csv").read_bytes()
    journals = [Journal.read(path) for path in (tmp_path / "out" / "jobs").glob("*.json")]
    assert {journal.state for journal in journals} == {"finished"}
    assert len(journals) == 5  # the pretrained run too
    assert {
        json.loads((tmp_path / "out" / f"seed={seed}" / "environment.json").read_text())["threads"] for seed in range(4)
    } == {1}
    assert status.status(str(grid))["counts"] == {"finished": 4}
    assert not list((tmp_path / "out").rglob(".partial-*"))


@pytest.mark.long
def test_a_failed_cell_is_listed_left_and_done_again_with_retry(serial, world, tmp_path, capsys):
    grid, out = write(tmp_path, world), tmp_path / "out"
    out.mkdir()
    (out / "seed=1").symlink_to(tmp_path / "gone")  # a run cannot be made there
    assert main(["sweep", str(grid), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "1 of 4 cells are not finished; the others stand in" in said
    assert f"seed=1: failed\n    {out / 'seed=1'}: is a link to what does not exist" in said
    assert len((out / "table.csv").read_text().splitlines()) == 1 + 3
    counts = status.status(str(grid))
    assert counts["counts"] == {"finished": 3, "failed": 1}
    assert "is a link to what does not exist" in counts["failed"][0]["said"]
    (out / "seed=1").unlink()
    assert main(["sweep", str(grid), "--quiet"]) == 2  # it is not tried by itself
    assert not (out / "seed=1").exists()
    assert main(["sweep", str(grid), "--quiet", "--retry"]) == 0
    assert (out / "table.csv").read_bytes() == (serial / "table.csv").read_bytes()


@pytest.mark.long
def test_a_second_sweep_is_refused_while_the_first_lives(world, serial, capsys):
    with holding(serial):
        assert main(["sweep", str(serial.parent / "grid.toml"), "--quiet"]) == 2
    assert f"{serial}: in use by process {os.getpid()} on " in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--on", "dask"], "the address of the scheduler is needed"),
        (["--scheduler", "tcp://x:1"], "--on local: these are for another engine: --scheduler"),
        (["--partition", "gpu"], "--on local: these are for another engine: --partition"),
        (["--on", "slurm", "--workers", "2"], "--on slurm: these are for another engine: --workers"),
        (["--on", "dask", "--workers", "2"], "--on dask: these are for another engine: --workers"),
        (["--workers", "0"], "1 or more is needed"),
        (["--cancel"], "only jobs on a cluster go on by themselves"),
        (["--on", "slurm", "--time", "soon"], "a time is minutes"),
        (["--on", "slurm", "--memory", "8"], "memory is a number with its unit"),
        (["--on", "slurm", "--gpus", "-1"], "slurm.gpus is 0 or more"),
    ],
)
def test_options_that_do_not_fit_are_refused_before_anything_starts(options, expected, world, tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path, world)), "--quiet", *options]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_of_the_cluster_is_checked(world, tmp_path, capsys):
    assert main(["sweep", str(write(tmp_path, world, ("[grid]", '[slurm]\npartion = "gpu"\n[grid]'))), "--quiet"]) == 2
    assert "'partion' is not a setting of slurm; did you mean 'partition'?" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "1:30", "1-2", "x", "1:2:3:4"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="a time is minutes"):
        minutes_of(text)


def test_memory_needs_a_unit():
    with pytest.raises(ValueError, match="with its unit"):
        megabytes_of("8")


def test_settings_come_back_from_their_file(tmp_path):
    settings = {"a": 1, "b.c": 2.5, "b.d": 'x"y', "e": [1, 2], "f": None, "g": True, "h": ("p", "q")}
    (tmp_path / "x.toml").write_text(table_to_toml(settings))
    wanted = {"a": 1, "b": {"c": 2.5, "d": 'x"y'}, "e": [1, 2], "f": "none", "g": True, "h": ["p", "q"]}
    assert read_toml(tmp_path / "x.toml") == wanted


def test_a_journal_says_how_work_ended(tmp_path):
    path = tmp_path / "j.json"
    for error, state, said in (
        (None, "finished", ""),
        (InputError("not so"), "failed", "not so"),
        (KeyboardInterrupt(), "interrupted", ""),
    ):
        try:
            with keeping_journal(path):
                assert Journal.read(path).state == "running"
                if error:
                    raise error
        except (InputError, KeyboardInterrupt):
            pass
        assert (Journal.read(path).state, Journal.read(path).said) == (state, said)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    own = json.loads(path.read_text())
    path.write_text(json.dumps({**own, "state": "running", "process": dead.pid}))
    assert Journal.read(path).state == "interrupted"
    assert Journal.read(tmp_path / "none").state == "waiting"


@pytest.mark.slow
def test_an_interrupted_sweep_saves_what_its_workers_do_and_goes_on(world, tmp_path, capsys):
    changes = ("epochs = 2\nn_rounds", "epochs = 4000\nn_rounds"), ("seed = [0, 1, 2, 3]", "seed = [0, 1]")
    grid, out = write(tmp_path, world, *changes), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(pulvinar.__file__).parents[1])}
    command = [sys.executable, "-m", "pulvinar.cli", "sweep", str(grid), "--workers", "2"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not all("stage 2: " in _text(out / "jobs" / f"seed={seed}.log") for seed in (0, 1)):  # a line every ten seconds
        assert process.poll() is None, process.communicate()
        time.sleep(0.2)
    process.terminate()
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143, err
    assert "0 of 2 cells are finished. Those that ran keep their last checkpoints. Continue with the same command" in err
    assert [Journal.read(out / "jobs" / f"seed={seed}.json").state for seed in (0, 1)] == ["interrupted"] * 2
    assert main(["sweep", str(grid), "--workers", "2"]) == 0
    assert "resumed after" in _text(out / "jobs" / "seed=0.log")


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


@pytest.mark.slow
def test_workers_end_at_once_when_who_started_them_is_killed(world, tmp_path):
    grid, out = write(tmp_path, world, ("epochs = 2\nn_rounds", "epochs = 4000\nn_rounds")), tmp_path / "out"
    environment = {**os.environ, "PYTHONPATH": str(Path(pulvinar.__file__).parents[1])}
    command = [sys.executable, "-m", "pulvinar.cli", "sweep", str(grid), "--workers", "2", "--quiet"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    path = out / "jobs" / "seed=0.json"
    while Journal.read(path).state != "running":
        assert process.poll() is None
        time.sleep(0.1)
    worker = Journal.read(path).process
    process.kill()
    process.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    assert Journal.read(path).state == "interrupted"
    with holding(out):
        pass


@pytest.mark.slow
def test_cells_on_a_dask_scheduler(serial, world, tmp_path, capfd):
    distributed = pytest.importorskip("distributed")
    grid = write(tmp_path, world)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        assert main(["sweep", str(grid), "--on", "dask", "--scheduler", cluster.scheduler_address]) == 0
    assert (tmp_path / "out" / "table.csv").read_bytes() == (serial / "table.csv").read_bytes()
    assert torch.get_num_threads() >= 1
    assert main(["sweep", str(write(tmp_path / "other", world)), "--on", "dask", "--scheduler", "tcp://127.0.0.1:9"]) == 2
    assert "no Dask scheduler answers there" in capfd.readouterr().err


def test_more_jobs_than_an_array_of_slurm_may_have_are_several_arrays(tmp_path, monkeypatch):
    """SLURM's usual MaxArraySize is 1001. Oracle: each job once, and those that others wait for first."""
    engine, arrays = object.__new__(Slurm), []
    engine._sweep, engine._config, engine._ids = tmp_path, Config(), tmp_path / "slurm.json"

    def array(self, jobs, after):
        arrays.append((len(jobs), list(after)))
        return {job.name: f"{len(arrays)}_{row}" for row, job in enumerate(jobs)}

    monkeypatch.setattr(Slurm, "_array", array)
    cells = [Job(name=f"c{row}", method="troi", data="d", sweep="s", after=("first",)) for row in range(2500)]
    engine._submit([*cells, Job(name="first", method="troi", data="d", sweep="s")], known={})
    assert arrays == [(1, []), (1000, ["1_0"]), (1000, ["1_0"]), (500, ["1_0"])]
    assert len(set(engine.ids().values())) == 2501
