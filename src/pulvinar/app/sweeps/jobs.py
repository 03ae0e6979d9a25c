"""A job of a sweep: one fit and its evaluation, from a file of settings, and the journal it keeps of how it went.

Everything of a job lies in OUT/jobs: NAME.toml (settings), NAME.json (journal), NAME.log (what it said). Engines hand on
names and paths only.
"""

import functools
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app import fit_processes, registry
from pulvinar.app.memory_limit import require_kept, within
from pulvinar.core.config import table_to_toml
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.core.locks import LockedError
from pulvinar.core.places import is_running, temporary_name
from pulvinar.core.storage import fingerprint, read_json, write_text

FOLDER = "jobs"
LONGEST_STEM = 200  # characters of a file's name, suffixes not counted
SECONDS_FOR_A_LOCK = 60.0  # how long a job waits for a process of an earlier sweep that still ends
N_LAST_LINES = 5
State = Literal["waiting", "running", "finished", "failed", "interrupted"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One fit and, with `evaluate` ("all": beside its controls, or "selection"), its scores; all of it plain text and numbers.

    sweep: the folder in which its run lies under its name. after: names of jobs that have to end first.
    """

    name: str
    method: str
    data: str
    sweep: str
    target: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None
    evaluate: str | None = None
    after: tuple[str, ...] = ()

    @property
    def is_cell(self) -> bool:
        """Whether it is a cell of the grid, and not a pretrained run that cells share."""
        return self.evaluate is not None

    @property
    def run(self) -> Path:
        """Its run folder."""
        return Path(self.sweep) / self.name

    @property
    def journal(self) -> Path:
        """Where it writes how it went."""
        return _file(self.sweep, self.name, ".json")

    @property
    def log(self) -> Path:
        """Where it writes what it says."""
        return _file(self.sweep, self.name, ".log")

    @property
    def config(self) -> Path:
        """Its settings."""
        return _file(self.sweep, self.name, ".toml")

    def write(self) -> None:
        """Write the settings; the journal of an earlier try goes."""
        write_text(self.config, table_to_toml(self.settings))
        if Journal.read(self.journal).state != "running":
            self.journal.unlink(missing_ok=True)

    def is_as_written(self) -> bool:
        """Whether the settings that were written are these."""
        return self.config.is_file() and self.config.read_text(encoding="utf-8") == table_to_toml(self.settings)

    def arguments(self) -> list[str]:
        """What follows `pulvinar` on a command line that does this job."""
        given = {"--target": self.target, "--pretrained": self.pretrained}
        return [
            *("fit", self.method, "--data", self.data, "--out", str(self.run), "--config", str(self.config), "--resume"),
            *(word for flag, value in given.items() if value is not None for word in (flag, value)),
            *(["--evaluate"] if self.evaluate else []),
            *(["--only-selection"] if self.evaluate == "selection" else []),
            *("--journal", str(self.journal)),
        ]

    def perform(self) -> None:
        """Do it here; whatever ends it is in the journal, and raised."""
        with keeping_journal(self.journal):
            fit_and_evaluate(
                self.method,
                data=self.data,
                out=str(self.run),
                config_file=str(self.config),
                pretrained=self.pretrained,
                target=self.target,
                resume=True,
                scored=self.evaluate,
            )

    def as_plain(self) -> dict[str, Any]:
        """The job as JSON has it."""
        return asdict(self)

    @classmethod
    def from_plain(cls, values: dict[str, Any]) -> "Job":
        """What `as_plain` gave."""
        return cls(**{**values, "after": tuple(values["after"])})


def _file(sweep: str, name: str, suffix: str) -> Path:
    short = name if len(name.encode()) <= LONGEST_STEM else f"{name[: LONGEST_STEM // 4]}-{fingerprint(name)}"
    return Path(sweep) / FOLDER / f"{short}{suffix}"


def fit_and_evaluate(
    method: str,
    *,
    data: str,
    out: str,
    config_file: str | None = None,
    assignments: Sequence[str] = (),
    pretrained: str | None = None,
    target: str | None = None,
    resume: bool = False,
    scored: str | None = None,
    n_processes: int = 1,
    log_to: Sequence[str] = (),
    memory: str | None = None,
) -> dict[str, Any]:
    """`fit`, then with `scored` ("all" or "selection") `evaluate` where that has not been done; what the fit gives.

    memory: such as "4GB", which the process, and each of several, stays below.
    """
    if scored and registry.method(method).evaluate is None:
        raise ConfigError(f"--evaluate: a run of {method} has no evaluation of its own; leave it out")
    parts = ("fit", "evaluate") if scored else ("fit",)
    if memory is not None:
        require_kept(memory, method, parts)
    fit = fitting.fit if n_processes == 1 else functools.partial(fit_processes.fit, n_processes, memory=memory)
    with within(memory if n_processes == 1 else None, method, parts):
        result = fit(
            method,
            data=data,
            out=out,
            config_file=config_file,
            assignments=assignments,
            pretrained=pretrained,
            target=target,
            resume=resume,
            log_to=log_to,
        )
        if scored and not (Path(out) / "evaluation.json").is_file():
            evaluating.evaluate(out, data=data, controls=scored == "all")
    return result


@dataclass(frozen=True, kw_only=True)
class Journal:
    """How a job went, or goes: where, since when, how long, and what it said at its end."""

    state: State
    host: str = ""
    process: int = 0
    began: float = 0.0  # seconds since 1970
    seconds: float = 0.0
    said: str = ""

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """The journal, `waiting` where there is none; one that says running of a process that died here is interrupted."""
        if not path.is_file():
            return cls(state="waiting")
        found = cls(**read_json(path))
        dead = found.state == "running" and found.host == socket.gethostname() and not is_running(found.process)
        return replace(found, state="interrupted") if dead else found


@contextmanager
def keeping_journal(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Write into a file that work began here, and how it ended; None: no journal is kept."""
    if path is None:
        yield
        return
    begun = Journal(state="running", host=socket.gethostname(), process=os.getpid(), began=time.time())

    def write(state: State, said: str = "") -> None:
        noted = replace(begun, state=state, seconds=time.time() - begun.began, said=said)
        temporary = temporary_name(Path(path))  # whole or not at all, but not waited for until it is on disk
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(noted), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)

    write("running")
    try:
        yield
    except KeyboardInterrupt:
        write("interrupted")
        raise
    except BaseException as error:
        lines = [str(error)] if isinstance(error, PulvinarError) else traceback.format_exception(error)
        write("failed", "".join(lines).strip()[-2000:])
        raise
    write("finished")


def perform_quietly(job: Job) -> State:
    """Do a job; an error is said on stderr, and not raised. A run that another process still holds is waited for."""
    waiting_since = time.monotonic()
    while True:
        try:
            job.perform()
            return "finished"
        except LockedError as error:
            if time.monotonic() - waiting_since > SECONDS_FOR_A_LOCK:
                sys.stderr.write(f"error: {error}\n")
                return "failed"
            time.sleep(0.5)
        except PulvinarError as error:
            sys.stderr.write(f"error: {error}\n")
            return "failed"
        except Exception:
            traceback.print_exc()
            return "failed"


def last_lines(job: Job) -> str:
    """What a failed job said at its end: of its journal, else of its log."""
    said = Journal.read(job.journal).said
    if not said and job.log.is_file():
        said = job.log.read_text(encoding="utf-8", errors="replace")
    return "\n".join(said.strip().splitlines()[-N_LAST_LINES:])
