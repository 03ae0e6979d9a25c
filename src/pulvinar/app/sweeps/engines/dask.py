"""Jobs on the workers of a Dask scheduler; they live on when this process ends.

Each thread of a Dask worker keeps a process of ours (worker.py), in which jobs run one after the other, so that libraries are
imported once. What goes to the scheduler is the name of a function and plain text. The folders have to be reachable from the
workers under the same names.
"""

import queue
import threading
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulvinar.app.sweeps.engines.engine import Engine
from pulvinar.app.sweeps.engines.extra import required
from pulvinar.app.sweeps.engines.worker import Worker, WorkerDiedError
from pulvinar.app.sweeps.jobs import Job
from pulvinar.core.errors import InputError
from pulvinar.core.storage import fingerprint

SECONDS_TO_CONNECT = 20
N_TRIES = 3  # of a job over which workers die
_own = threading.local()


def in_own_process(job: Mapping[str, Any], cwd: str, threads: int, *after: object) -> str:
    """Called by Dask on one of its workers: do a job in this thread's process. after: what had to end first."""
    if not hasattr(_own, "worker"):
        _own.worker = Worker(threads)
    for number in range(1, N_TRIES + 1):
        try:
            return _own.worker.perform(Job.from_plain(dict(job)), cwd)
        except WorkerDiedError:
            if number == N_TRIES:
                raise
    return "failed"


class Dask(Engine):
    """Cells as tasks of a scheduler."""

    def __init__(self, sweep: Path, scheduler: str, threads: int) -> None:
        required("distributed")
        from distributed import Client

        self._sweep, self._threads = sweep, threads
        try:
            self._client = Client(scheduler, timeout=SECONDS_TO_CONNECT, set_as_default=False)
        except (OSError, ValueError) as error:
            raise InputError(f"--scheduler {scheduler}: no Dask scheduler answers there: {error}") from error

    def run(self, jobs: Sequence[Job]) -> Generator[Job | None, None, None]:
        """Hand out all, and give each job when it has ended; None about every second."""
        from distributed import fire_and_forget

        futures: dict[str, Any] = {}
        ended: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            before = [futures[name] for name in job.after if name in futures]
            futures[job.name] = self._client.submit(
                in_own_process, job.as_plain(), str(Path.cwd()), self._threads, *before, key=self._key(job.name), pure=False
            )
            futures[job.name].add_done_callback(lambda _, job=job: ended.put(job))
        fire_and_forget(list(futures.values()))
        n_ended = 0
        while n_ended < len(jobs):
            try:
                yield ended.get(timeout=1.0)
                n_ended += 1
            except queue.Empty:
                yield None

    def _key(self, name: str) -> str:
        return f"pulvinar-{fingerprint(str(self._sweep.resolve()))[:8]}-{name}"

    def left(self) -> str:
        """How to come back to jobs that go on, and how to end them."""
        return "The jobs go on at the scheduler; cancel those that have not begun with --cancel."

    def cancel(self, names: Sequence[str]) -> list[str]:
        """Take jobs of these names off the scheduler, unless they have begun."""
        from distributed import Future

        self._client.cancel([Future(self._key(name), self._client) for name in names], force=True)
        return list(names)
