"""Sweeps on a real SLURM: one node, started in a temporary folder and stopped at the end. `uv run pytest -m slurm`, as root."""

import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import pulvinar
from pulvinar.app.sweeps import status
from pulvinar.app.sweeps.engines import slurm
from pulvinar.cli import main

NEEDED = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scancel", "scontrol")
MISSING = [name for name in NEEDED if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)} here (Debian: slurm-wlm, munge)"),
    pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="a SLURM of our own is started by root only"),
]
CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdTimeout=30
KillWait=10
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PreemptMode=REQUEUE
"""


class OneNode:
    """slurmctld, slurmd and munged of a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.conf = folder, folder / "slurm.conf"
        for name in ("state", "spool", "log", "run"):
            (folder / name).mkdir(parents=True)
        ports = {"controller_port": _free_port(), "node_port": _free_port()}
        self.conf.write_text(CONF.format(host=socket.gethostname(), folder=folder, cpus=os.cpu_count(), **ports))
        (folder / "munge.key").write_bytes(os.urandom(1024))
        (folder / "munge.key").chmod(0o400)

    def start(self) -> None:
        run = self.folder / "run"
        munged = ["munged", "--force", f"--key-file={self.folder / 'munge.key'}", f"--socket={run / 'munge.sock'}"]
        munged += [f"--pid-file={run / 'munged.pid'}", f"--log-file={self.folder / 'log' / 'munged.log'}"]
        subprocess.run([*munged, f"--seed-file={run / 'munge.seed'}"], check=True, capture_output=True)
        os.environ["SLURM_CONF"] = str(self.conf)
        subprocess.run(["slurmctld", "-f", str(self.conf), "-c"], check=True, capture_output=True)
        self.start_node()
        self.wait_until_idle()

    def start_node(self) -> None:
        subprocess.run(["slurmd", "-f", str(self.conf)], check=True, capture_output=True)

    def wait_until_idle(self) -> None:
        for _ in range(240):
            if "idle" in subprocess.run(["sinfo", "-h"], capture_output=True, text=True, check=False).stdout:
                return
            time.sleep(0.5)
        pytest.fail((self.folder / "log" / "slurmctld.log").read_text()[-3000:])

    def kill_node(self) -> None:
        """As if the machine had gone: slurmd and what it runs, by their process ids."""
        for pid in (_pid(self.folder / "run" / "slurmd.pid"), *_steps(self.folder)):
            _kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        subprocess.run(["scancel", "--user=root"], check=False, capture_output=True)
        for _ in range(60):
            if not slurm.queue():
                break
            time.sleep(0.5)
        subprocess.run(["scontrol", "shutdown"], check=False, capture_output=True)
        time.sleep(2)
        for file in (self.folder / "run").glob("*.pid"):
            _kill(_pid(file), signal.SIGTERM)
        for pid in _steps(self.folder):
            _kill(pid, signal.SIGKILL)
        del os.environ["SLURM_CONF"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _pid(file: Path) -> int:
    return int(file.read_text()) if file.is_file() and file.read_text().strip() else 0


def _kill(pid: int, number: int) -> None:
    if pid:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return


def _steps(folder: Path) -> list[int]:
    """Processes of jobs of this cluster: those whose environment names its configuration, and that SLURM has started."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            environment = (place / "environ").read_bytes()
        except OSError:
            continue
        if f"SLURM_CONF={folder / 'slurm.conf'}".encode() in environment and b"SLURM_JOB_ID=" in environment:
            found.append(int(place.name))
    return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    made = OneNode(tmp_path_factory.mktemp("slurm"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def _grid(folder: Path, world: Path, cells: list[dict], time_limit: int, warned: int) -> Path:
    """Cells of troi; those with pretraining share one pretrained run."""
    lines = ['method = "troi"', f'data = "{world}"', f'out = "{folder / "out"}"', "controls = false", "[set]"]
    lines += ["n_voxels = 20", "n_rounds = 2", "epochs_per_round = 1", "n_folds = 2"]
    if any(cell.get("pretrain", True) for cell in cells):
        lines += ["[set.pretrained]", "epochs = 2", "hidden = 16", "seed = 0"]
    lines += ["[slurm]", f'time = "{time_limit}"', f"warned = {warned}", 'memory = "100MB"', "cpus = 1"]
    for cell in cells:
        lines += ["[[cell]]", *(f"{name} = {json.dumps(value)}" for name, value in cell.items())]
    (folder / "grid.toml").write_text("\n".join(lines) + "\n")
    return folder / "grid.toml"


@pytest.fixture
def start():
    """Start a sweep in a process of its own; what still lives at the end is killed."""
    processes = []

    def started(grid: Path) -> subprocess.Popen:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(pulvinar.__file__).parents[1])}
        command = [sys.executable, "-m", "pulvinar.cli", "sweep", str(grid), "--on", "slurm"]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield started
    for process in processes:
        process.kill()
        process.communicate()


def _rows(table: Path) -> list[dict]:
    with table.open() as file:
        return list(csv.DictReader(file))


def _output_of_jobs(folder: Path) -> str:
    return "".join(path.read_text() for path in sorted((folder / "out" / "jobs" / "slurm").glob("*.err")))


def test_cells_survive_scancel_and_a_time_out_and_stand_in_the_table_once(cluster, world, tmp_path, start):
    """SLURM_TEST_CELLS: how many (default 6). Oracle of the table: the same grid, one cell after the other in here."""
    n_cells = int(os.environ.get("SLURM_TEST_CELLS", "6"))
    cells = [{"name": "long", "seed": 1, "epochs": 3000, "pretrain": False}]
    cells += [
        {"name": f"c{number}", "seed": number, "epochs": 2, **({"pretrain": False} if number % 2 else {})}
        for number in range(n_cells - 1)
    ]
    grid = _grid(tmp_path, world, cells, time_limit=60, warned=60)
    generator, cancelled, shortened, ends = random.Random(0), [], [], []
    for _ in range(6):
        process = start(grid)
        while process.poll() is None:
            time.sleep(generator.uniform(2, 8))
            live = _live(tmp_path)
            _end_the_time_of_long_once(tmp_path, live, shortened)
            others = [name for name in live if name.startswith("c")]
            if others and len(ends) < 2 and len(cancelled) < max(2, n_cells // 8):
                cancelled.append(generator.choice(others))
                subprocess.run(["scancel", live[cancelled[-1]]], check=True)
        _, err = process.communicate()
        ends.append(process.returncode)
        if process.returncode == 0:
            break
        assert process.returncode == 2, err
        assert "The same command goes on with what was interrupted or cancelled" in err
    assert ends[-1] == 0
    assert len(ends) > 1
    rows = _rows(tmp_path / "out" / "table.csv")
    assert [row["cell"] for row in rows] == [cell["name"] for cell in cells]
    said = _output_of_jobs(tmp_path)
    assert said.count("Caught signal SIGUSR2") == 1  # "this job is preempted": submitit counts from the hour it asked for
    # wherever its time was up: a busy node is still at its first phase, a quick one at the evaluation
    assert re.search(": resumed after |this run is finished; nothing to resume", said), said
    assert status.status(str(grid))["counts"] == {"finished": n_cells}
    facts = {"cells": n_cells, "cancelled": cancelled, "sweeps": len(ends), "time-outs": said.count("Caught signal SIGUSR2")}
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    serial = tmp_path / "serial"
    serial.mkdir()
    assert main(["sweep", str(_grid(serial, world, cells, time_limit=60, warned=60)), "--quiet"]) == 0
    assert (serial / "out" / "table.csv").read_bytes() == (tmp_path / "out" / "table.csv").read_bytes()


def _live(folder: Path) -> dict[str, str]:
    """Name -> id of the jobs in the queue."""
    there = slurm.queue() or {}
    return {name: number for name, number in _ids(folder).items() if number in there}


def _end_the_time_of_long_once(folder: Path, live: dict[str, str], shortened: list[str]) -> None:
    """Give the long cell one to two minutes more, once it has a checkpoint; an hour again once it is back in the queue.

    Warned a minute before its end, it has to last for that: less, and SLURM would end it unwarned.
    """
    if "long" not in live or (queued := (slurm.queue() or {}).get(live["long"])) is None:
        return
    state = queued.state
    if not shortened and state == "RUNNING" and (folder / "out" / "long" / "checkpoints" / "latest.safetensors").is_file():
        minutes = int(queued.ran.split(":")[-2])  # of M:SS; it takes no hour
        subprocess.run(["scontrol", "update", f"JobId={live['long']}", f"TimeLimit={minutes + 2}"], check=True)
        shortened.append("shorter")
    elif shortened == ["shorter"] and state == "PENDING":
        subprocess.run(["scontrol", "update", f"JobId={live['long']}", "TimeLimit=60"], check=True)
        shortened.append("longer")


def test_an_interrupted_sweep_leaves_its_jobs_and_says_how_to_come_back_or_cancel(cluster, world, tmp_path, capsys, start):
    grid = _grid(tmp_path, world, [{"name": name, "seed": 1, "epochs": 100_000} for name in ("a", "b", "c")], 60, 60)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = start(grid)
    signal.signal(signal.SIGINT, before)
    for _ in range(600):
        time.sleep(0.5)
        if any(row["says"] or row["node"] for row in (status.status(str(grid))["running"] if _ids(tmp_path) else [])):
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "0 of 3 cells are finished. The jobs go on in the cluster; cancel them with --cancel, or scancel " in err
    assert main(["sweep", str(grid), "--status"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("3 cells: 0 finished, ")
    assert socket.gethostname() in said
    assert all(len(line) <= 80 for line in said.splitlines())
    assert main(["sweep", str(grid), "--on", "slurm", "--cancel"]) == 0
    for _ in range(240):
        if not _live(tmp_path):
            break
        time.sleep(0.5)
    assert set(status.status(str(grid))["counts"]) <= {"finished", "waiting", "interrupted"}


def _ids(folder: Path) -> dict:
    file = folder / "out" / "jobs" / "slurm.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def test_a_node_that_is_gone_gives_its_cells_back(cluster, world, tmp_path, start):
    grid = _grid(tmp_path, world, [{"name": "a", "seed": 1, "epochs": 2_000, "pretrain": False}], 60, 60)
    process = start(grid)
    while not (tmp_path / "out" / "a" / ".lock.json").is_file():
        assert process.poll() is None
        time.sleep(0.5)
    cluster.kill_node()
    time.sleep(1)
    cluster.start_node()
    _, err = process.communicate(timeout=900)
    if process.returncode == 2:  # SLURM took the job for ended, and not for one to put back
        assert main(["sweep", str(grid), "--on", "slurm"]) == 0, err
    assert [row["cell"] for row in _rows(tmp_path / "out" / "table.csv")] == ["a"]


def test_a_failed_cell_is_listed_with_what_it_said_and_done_again_with_retry(cluster, world, tmp_path, capsys):
    grid = _grid(tmp_path, world, [{"name": "good", "pretrain": False, "epochs": 1}], 60, 60)
    assert main(["sweep", str(grid), "--on", "slurm"]) == 0
    evaluated, job = tmp_path / "out" / "good" / "evaluation.json", tmp_path / "out" / "jobs" / "good.json"
    evaluated.unlink()
    job.write_text(json.dumps({**json.loads(job.read_text()), "state": "failed", "said": "it did not work"}))
    assert main(["sweep", str(grid), "--on", "slurm"]) == 2
    assert "good: failed\n    it did not work" in capsys.readouterr().err
    assert not evaluated.is_file()
    assert main(["sweep", str(grid), "--on", "slurm", "--retry"]) == 0
    assert evaluated.is_file()


def test_what_the_cluster_refuses_is_said(cluster, world, tmp_path, capsys):
    grid = _grid(tmp_path, world, [{"name": "a", "pretrain": False}], 60, 60)
    assert main(["sweep", str(grid), "--on", "slurm", "--partition", "nowhere"]) == 2
    assert "sbatch refuses the jobs" in capsys.readouterr().err
    assert not _ids(tmp_path)
