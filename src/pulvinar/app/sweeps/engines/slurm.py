"""Jobs as arrays of a SLURM cluster, through submitit; they live on when this process ends.

A job runs `pulvinar fit …` with a file of settings: what submitit pickles is that command line, nothing of ours. Before its
time is up, or when it is preempted, a job saves a checkpoint, is put back into the queue, and goes on from there. What SLURM
knows is asked of `squeue`, which every cluster has (`sacct` needs a database).

OUT/jobs/slurm.json: the name of a job -> its id in SLURM. OUT/jobs/slurm/: scripts and output of submitit.
"""

import getpass
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulvinar.app.sweeps.engines.engine import Engine
from pulvinar.app.sweeps.engines.extra import required
from pulvinar.app.sweeps.jobs import FOLDER, Job
from pulvinar.core.config import setting
from pulvinar.core.errors import FileError, InputError, MissingDependencyError
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import read_json, write_json

SECONDS_BETWEEN_LOOKS = 5.0
LARGEST_ARRAY = 1000  # jobs; SLURM refuses more than its MaxArraySize, which is 1001 where nobody has set it
_TIME = re.compile(r"(?:(?P<days>\d+)-)?(?:(?P<hours>\d+):)?(?P<minutes>\d+)(?::(?P<seconds>\d+))?")


def minutes_of(text: str) -> int:
    """Minutes of '90', '1:30:00' or '2-00:00:00', as SLURM writes times; ValueError for anything else.

    >>> minutes_of("90"), minutes_of("1:30:00"), minutes_of("2-00:00:00"), minutes_of("1-12:00:00")
    (90, 90, 2880, 2160)
    """
    found = _TIME.fullmatch(text.strip())
    if found is None or (found["hours"] and not found["seconds"]) or (found["days"] and not found["hours"]):
        raise ValueError(f"a time is minutes ('90'), hours ('1:30:00') or days ('2-00:00:00'), not '{text}'")
    days, hours, minutes, seconds = (int(found[name] or 0) for name in ("days", "hours", "minutes", "seconds"))
    return (days * 24 + hours) * 60 + minutes + (seconds > 0)


def megabytes_of(text: str) -> int:
    """Megabytes of '4GB', '4G' or '500 MB'; ValueError for anything else.

    >>> megabytes_of("4GB"), megabytes_of("1.5 G"), megabytes_of("500M")
    (4096, 1536, 500)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])i?B?", text.strip(), re.IGNORECASE)
    if found is None:
        raise ValueError(f"memory is a number with its unit, such as 4GB or 500MB, not '{text}'")
    return round(float(found[1]) * {"M": 1, "G": 1024, "T": 1024**2}[found[2].upper()])


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the cluster is asked for, for each cell; the table [slurm] of a grid, over which the command line wins."""

    partition: str | None = setting(None, "partition; none: the cluster's own")
    time: str = setting(
        "4:00:00", "time of a cell, '90' (minutes), '1:30:00' or '2-00:00:00'; one that needs more goes on", reads=minutes_of
    )
    memory: str = setting("8GB", "memory of a cell", reads=megabytes_of)
    cpus: int = setting(1, "processors of a cell, and its threads", at_least=1)
    gpus: int = setting(0, "GPUs of a cell", at_least=0)
    constraint: str | None = setting(None, "what a node must have, as the cluster names it")
    account: str | None = setting(None, "account that pays")
    qos: str | None = setting(None, "quality of service")
    at_once: int = setting(256, "cells of an array that run at once", at_least=1)
    warned: int = setting(90, "seconds before its time is up in which a cell saves a checkpoint and is put back", at_least=10)
    requeues: int = setting(50, "how often a cell may run out of time and go on", at_least=0)
    setup: tuple[str, ...] = setting((), "lines of shell before a cell, such as 'module load python'")


@dataclass(frozen=True, kw_only=True)
class InQueue:
    """What the queue says of a job: its state as SLURM names it, its node, and how long it has run."""

    state: str
    node: str
    ran: str


def queue() -> dict[str, InQueue] | None:
    """Id -> what the queue says, of all of this user's jobs; None where it cannot be asked now."""
    command = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T|%N|%M"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    rows = [line.split("|") for line in output.splitlines() if line.count("|") == 3]
    return {row[0]: InQueue(state=row[1], node=row[2], ran=row[3]) for row in rows}


class Slurm(Engine):
    """Cells as jobs of a cluster."""

    def __init__(self, sweep: Path, config: Config) -> None:
        self._sweep, self._config = sweep, config
        self._ids = sweep / FOLDER / "slurm.json"
        required("submitit")
        if shutil.which("sbatch") is None:
            raise MissingDependencyError("--on slurm: there is no sbatch here; start it where jobs are submitted")
        if queue() is None:
            raise InputError("--on slurm: squeue does not answer; is this a machine of the cluster, and is its controller up?")

    def live(self) -> dict[str, InQueue]:
        """Name -> what the queue says, of the jobs of this sweep that are in it."""
        queued = queue()
        if queued is None:
            raise FileError("squeue does not answer; which jobs live cannot be told. Try again")
        return {name: queued[number] for name, number in self.ids().items() if number in queued}

    def ids(self) -> dict[str, str]:
        """Name -> id, of all jobs that were ever submitted."""
        return read_json(self._ids) if self._ids.is_file() else {}

    def run(self, jobs: Sequence[Job]) -> Generator[Job | None, None, None]:
        """Submit what is not in the queue yet, and give each job when it has left it; None at every look."""
        left = {job.name: job for job in jobs}
        live = self.live()
        self._submit([job for job in jobs if job.name not in live], known=live)
        ids, asked = self.ids(), True
        while left:
            time.sleep(SECONDS_BETWEEN_LOOKS)
            queued = queue()
            if queued is None and asked:
                warn("squeue does not answer; the jobs go on, and it is asked again")
            asked = queued is not None
            for name in [name for name in left if queued is not None and ids[name] not in queued]:
                yield left.pop(name)
            yield None

    def _submit(self, jobs: Sequence[Job], known: dict[str, InQueue]) -> None:
        """Arrays for all jobs that wait for the same ones; each id is on disk before the next array."""
        groups: dict[tuple[str, ...], list[Job]] = {}
        for job in jobs:
            groups.setdefault(job.after, []).append(job)
        for after in sorted(groups, key=len):  # what nobody waits for comes first
            own = groups[after]
            for part in (own[start : start + LARGEST_ARRAY] for start in range(0, len(own), LARGEST_ARRAY)):
                ids = self.ids()
                made = self._array(part, [ids[name] for name in after if name in ids])
                write_json(self._ids, ids | made)
                log(f"submitted {len(made)} jobs: {', '.join(sorted({number.partition('_')[0] for number in made.values()}))}")

    def _array(self, jobs: Sequence[Job], after: Sequence[str]) -> dict[str, str]:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.helpers import CommandFunction, FunctionSequence

        executor = SlurmExecutor(self._sweep.resolve() / FOLDER / "slurm", max_num_timeout=self._config.requeues)
        executor.update_parameters(**self._parameters(after))
        submitted = []
        try:
            with executor.batch():
                for job in jobs:
                    command = FunctionSequence()  # submitit's own; it is what is put back into the queue
                    command.add(CommandFunction([sys.executable, "-m", "pulvinar.cli", *job.arguments()], cwd=Path.cwd()))
                    submitted.append(executor.submit(command))
        except (FailedJobError, FailedSubmissionError, subprocess.SubprocessError) as error:
            raise InputError(f"--on slurm: sbatch refuses the jobs: {str(error).strip()}") from error
        return {job.name: one.job_id for job, one in zip(jobs, submitted, strict=True)}

    def _parameters(self, after: Sequence[str]) -> dict[str, Any]:
        config = self._config
        more: dict[str, Any] = {"kill_on_invalid_dep": "yes"} if after else {}
        asked = {"partition": config.partition, "constraint": config.constraint, "account": config.account, "qos": config.qos}
        return {
            **{name: value for name, value in asked.items() if value is not None},
            "job_name": f"pulvinar-{self._sweep.resolve().name}",
            "time": minutes_of(config.time),
            "mem": f"{megabytes_of(config.memory)}MB",
            "cpus_per_task": config.cpus,
            "array_parallelism": config.at_once,
            "signal_delay_s": config.warned,
            "setup": [*config.setup, f"export OMP_NUM_THREADS={config.cpus}"],
            **({"gpus_per_node": config.gpus} if config.gpus else {}),
            **({"dependency": "afterok:" + ":".join(after)} if after else {}),
            "additional_parameters": {"requeue": True, **more},
        }

    def left(self) -> str:
        """How to come back to jobs that go on, and how to end them."""
        queued = queue() or {}
        numbers = sorted({number.partition("_")[0] for number in self.ids().values() if number in queued}, key=int)
        if not numbers:
            return ""
        return f"The jobs go on in the cluster; cancel them with --cancel, or scancel {' '.join(numbers)}."

    def cancel(self, names: Sequence[str]) -> list[str]:
        """Take jobs out of the queue, running ones too."""
        live = [name for name in self.live() if name in names]
        if live:
            subprocess.run(["scancel", *(self.ids()[name] for name in live)], check=True, timeout=120)
        return live
