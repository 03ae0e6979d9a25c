"""One process at a time writes into a folder. The lock is the operating system's, which frees it when its holder dies.

`.lock` in the folder is what is locked and stays there; `.lock.json` says who holds it. File systems without such locks get
one of `filelock` that stands until its holder removes it.
"""

import datetime
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pulvinar.core.errors import FileError
from pulvinar.core.places import is_running
from pulvinar.core.storage import require_folder

LOCK, HOLDER = ".lock", ".lock.json"


class LockedError(FileError):
    """Another process writes into the folder."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that holds a lock, on which machine, and since when (ISO 8601, UTC)."""

    host: str
    process: int
    since: str

    @classmethod
    def this_process(cls) -> "Holder":
        """Ourselves, from now on."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        return cls(host=socket.gethostname(), process=os.getpid(), since=now)

    @property
    def may_live(self) -> bool:
        """False for a process of this machine that has ended; of another machine nobody can tell."""
        return self.host != socket.gethostname() or is_running(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since.replace('T', ' ').partition('+')[0]} UTC"


def holder(folder: str | os.PathLike[str]) -> Holder | None:
    """Who holds the lock of a folder; None where nobody does, or nothing can be read."""
    try:
        found = Holder(**json.loads((Path(folder) / HOLDER).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.may_live else None


@contextmanager
def holding(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold the lock of a folder that exists; `LockedError` at once, with host and process, where another process does."""
    from filelock import FileLock, Timeout

    folder = require_folder(folder)
    lock = FileLock(folder / LOCK, is_singleton=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise LockedError(_taken(folder)) from None
    except OSError as error:
        raise FileError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        (folder / HOLDER).write_text(json.dumps(asdict(Holder.this_process())), encoding="utf-8")
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _taken(folder: Path) -> str:
    found = holder(folder)
    if found is None:
        return f"{folder}: another process writes into it; wait until it has ended"
    here = found.host == socket.gethostname()
    otherwise = "stop it" if here else f"where it has been killed and this goes on, remove {folder / LOCK}"
    return f"{folder}: in use by {found}; wait until it has ended, or {otherwise}"
