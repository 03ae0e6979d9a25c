"""Jobs on this machine: one after the other in this process, or in worker processes that stay alive."""

import queue
import threading
from collections import Counter, deque
from collections.abc import Generator, Sequence
from contextlib import suppress

from pulvinar.app.sweeps.engines.engine import Engine
from pulvinar.app.sweeps.engines.worker import Worker, WorkerDiedError
from pulvinar.app.sweeps.jobs import Job, keeping_journal, perform_quietly
from pulvinar.core.errors import PulvinarError
from pulvinar.core.progress import log, warn

N_TRIES = 3  # of a job over which workers die; a job that needs more memory than there is kills every one

LEFT = "Those that ran keep their last checkpoints."


class Here(Engine):
    """One job after the other, in this process."""

    def run(self, jobs: Sequence[Job]) -> Generator[Job | None, None, None]:
        """Do all; each job when it has ended."""
        for number, job in enumerate(jobs, start=1):
            log(f"job {number} of {len(jobs)}: {job.name}")
            perform_quietly(job)
            yield job

    def left(self) -> str:
        """They have ended too."""
        return LEFT


def _fail(job: Job, message: str) -> None:
    """Write into a job's journal that it failed."""
    with suppress(PulvinarError), keeping_journal(job.journal):
        raise PulvinarError(message)


class Workers(Engine):
    """Several worker processes; a job whose worker is killed is done again by another."""

    def __init__(self, n_workers: int, threads: int) -> None:
        self._workers = [Worker(threads) for _ in range(n_workers)]
        self._change = threading.Condition()
        self._waiting: deque[Job] = deque()
        self._open: set[str] = set()  # names of jobs that have not ended
        self._deaths: Counter[str] = Counter()
        self._stopping = False
        self._ended: queue.SimpleQueue[Job] = queue.SimpleQueue()

    def run(self, jobs: Sequence[Job]) -> Generator[Job | None, None, None]:
        """Do all; each job when it has ended, and None about every second."""
        self._waiting, self._open = deque(jobs), {job.name for job in jobs}
        threads = [threading.Thread(target=self._serve, args=(worker,), daemon=True) for worker in self._workers[: len(jobs)]]
        for thread in threads:
            thread.start()
        try:
            n_ended = 0
            while n_ended < len(jobs):
                try:
                    yield self._ended.get(timeout=1.0)
                    n_ended += 1
                except queue.Empty:
                    yield None
        finally:
            self._stop(threads)

    def left(self) -> str:
        """They have ended too."""
        return LEFT

    def _stop(self, threads: Sequence[threading.Thread]) -> None:
        """Have what runs saved and ended, and wait for that."""
        with self._change:
            self._stopping = True
            self._change.notify_all()
        for worker in self._workers if self._open else ():
            worker.terminate()
        for thread in threads:
            thread.join()

    def _serve(self, worker: Worker) -> None:
        while (job := self._take()) is not None:
            try:
                worker.perform(job)
            except WorkerDiedError as error:
                if self._again(job, error):
                    continue
            except OSError as error:  # no process can be started
                _fail(job, f"no worker can be started: {error}")
            self._end(job)
        worker.close()

    def _take(self) -> Job | None:
        """The first job that waits for no other; waits for one. None where there is nothing left."""
        with self._change:
            while not self._stopping:
                if not self._open:
                    return None
                for job in self._waiting:
                    if not self._open & set(job.after):
                        self._waiting.remove(job)
                        return job
                self._change.wait()
        return None

    def _again(self, job: Job, error: WorkerDiedError) -> bool:
        """Put a job back whose worker has died, in front; False where that was often enough."""
        self._deaths[job.name] += 1
        if self._stopping:
            return False
        if self._deaths[job.name] < N_TRIES:
            warn(f"{job.name}: its worker was killed ({error}); it is done again by another")
            with self._change:
                self._waiting.appendleft(job)
                self._change.notify_all()
            return True
        _fail(job, f"its workers were killed {N_TRIES} times ({error}), as the system does where memory is short")
        return False

    def _end(self, job: Job) -> None:
        with self._change:
            self._open.discard(job.name)
            self._change.notify_all()
        self._ended.put(job)
