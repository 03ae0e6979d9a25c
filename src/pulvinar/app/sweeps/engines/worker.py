"""A process that does one job of a sweep after the other, so that libraries are imported once: both of its ends.

Jobs come as lines of JSON on its standard input, answers go back on its standard output. Where the process that started it
has died, its input ends, and it ends too, at once: a job goes on from its checkpoint.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from pulvinar.app.sweeps.jobs import Job, State

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS")


class WorkerDiedError(Exception):
    """A worker ended in the middle of a job; its exit code, negative for a signal."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code

    def __str__(self) -> str:
        return f"signal {-self.code}" if self.code < 0 else f"exit code {self.code}"


class Worker:
    """The end of the process that hands out jobs."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: Any = None

    def perform(self, job: Job, cwd: str | None = None) -> State:
        """Have a job done, in a working directory (default: the own); how it ended. A process is started where none lives.

        `WorkerDiedError` if it dies over the job.
        """
        process = self._living()
        try:
            process.stdin.write(json.dumps({"cwd": cwd or str(Path.cwd()), "job": job.as_plain()}) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):
            answer = ""
        if not answer:
            raise WorkerDiedError(process.wait())
        return json.loads(answer)

    def terminate(self) -> None:
        """Ask the process to save what it does and to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()

    def close(self) -> None:
        """End an idle process."""
        if self._process is not None:
            with suppress(OSError):  # it has died
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()

    def _living(self) -> Any:
        if self._process is None or self._process.poll() is not None:
            environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(self._threads))}
            command = [sys.executable, "-m", __name__, str(self._threads)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True, encoding="utf-8"
            )
        return self._process


def main() -> int:
    """The other end."""
    from pulvinar.core.progress import REPORTER, show

    show(True)  # all of it into the job's log, as the command would have it
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, for all of its processes; who hands out jobs sends SIGTERM
    signal.signal(signal.SIGTERM, REPORTER.interrupt)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin, requests), daemon=True).start()
    try:
        while True:
            request = json.loads(requests.get())
            os.chdir(request["cwd"])
            ended = _perform(Job.from_plain(request["job"]), int(sys.argv[1]))
            answers.write(json.dumps(ended) + "\n")
            answers.flush()
            if ended == "interrupted":
                return 143
    except KeyboardInterrupt:
        return 143


def _read(lines: IO[str], requests: "queue.SimpleQueue[str]") -> None:
    for line in lines:
        requests.put(line)
    os._exit(0)  # nobody is there any more


def _perform(job: Job, threads: int) -> State:
    import torch

    from pulvinar.app.sweeps.jobs import perform_quietly
    from pulvinar.core.progress import REPORTER

    torch.set_num_threads(threads)  # a resumed run may have changed it
    REPORTER.interrupted = None
    with _into(job.log):
        try:
            return perform_quietly(job)
        except KeyboardInterrupt:
            return "interrupted"


@contextmanager
def _into(log: Path) -> Iterator[None]:
    """All that is written to the standard streams, by libraries too, goes to the end of a file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    kept = os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept, 1)
        os.dup2(kept, 2)
        os.close(kept)


if __name__ == "__main__":
    raise SystemExit(main())
