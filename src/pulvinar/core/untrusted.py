"""Files for libraries that damaged bytes can end or hang: read first in a child process, with limits of time and memory.

HDF5, scipy's reader of .mat files and Parquet's are such libraries (measured: .mat of 648 bytes, segmentation fault; .h5, never
returns; .parquet of 2 kB, ended by an exception of C++ that nothing catches).
A process cannot survive the first nor leave the second, so a child (core/untrusted_child.py) does what can go wrong: opens
the file, follows what is in it, and reads values as long as they are small. Only then is the file read here. One child serves a
process and ends with it. Files are remembered with size, times and inode, as checksums are, so that an unchanged file is
not looked at again for 30 days.
"""

import atexit
import json
import os
import queue
import subprocess
import sys
import threading
from pathlib import Path

from pulvinar.core import checksums
from pulvinar.core.errors import FileError
from pulvinar.core.limits import allowed

CHILD = Path(__file__).with_name("untrusted_child.py")
START_SECONDS = 300.0  # for Python and h5py, on a busy machine with a slow disk
WALL_SECONDS = 60.0  # the child counts its own seconds of computing; this is for what waits
BYTES_PER_SECOND = 2e6  # of a file that is computed on, at the least


def require_readable(path: str | os.PathLike[str], kind: str) -> None:
    """Raise `FileError` if the child cannot read the file whole. kind: 'hdf5', 'mat' or 'parquet'."""
    checksums.once(path, f"readable as {kind}", lambda: _ask(Path(path), kind), safety=True)


def _ask(path: Path, kind: str) -> None:
    size = path.stat().st_size
    with _LOCK:
        child = _child()
        answer = child.ask(
            {"path": str(path.resolve()), "kind": kind, "bytes": allowed(size)}, WALL_SECONDS + size / BYTES_PER_SECOND
        )
    if answer is None:
        raise FileError(f"{path}: cannot be read as {NAMES[kind]}: {child.end()}. The file is damaged")
    if answer:
        raise FileError(f"{path}: cannot be read as {NAMES[kind]}: {answer}")


NAMES = {"hdf5": "HDF5", "mat": "MATLAB version 5 file", "parquet": "Parquet"}


class _Child:
    def __init__(self) -> None:
        self.process_id = os.getpid()
        command = [sys.executable, "-I", str(CHILD)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        if not self._answer(START_SECONDS):
            raise FileError(f"{CHILD.name}: the process that looks at files first did not start: {self.end()}")

    def _listen(self) -> None:
        if self.process.stdout is not None:
            for line in self.process.stdout:
                self._lines.put(line)
        self._lines.put(b"")

    def _answer(self, seconds: float) -> bytes:
        try:
            return self._lines.get(timeout=seconds)
        except queue.Empty:
            return b""

    def ask(self, question: dict[str, object], seconds: float) -> str | None:
        """What is wrong, empty if nothing is; None where the child did not come back."""
        try:
            if self.process.stdin is None:
                return None
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            return None
        line = self._answer(seconds)
        return json.loads(line) if line else None

    def end(self) -> str:
        """How it ended, or that it had to be ended."""
        try:
            code = self.process.wait(1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            return "reading it did not end"
        return "reading it did not end" if -code in TIMED_OUT else f"reading it ends the process ({code})"


TIMED_OUT = (24, 26, 27)  # SIGXCPU, SIGVTALRM, SIGPROF
_LOCK = threading.Lock()
_CURRENT: list[_Child] = []


def _child() -> _Child:
    """The child of this process (one that was forked has its own); a new one where it has ended."""
    if _CURRENT and _CURRENT[0].process_id == os.getpid() and _CURRENT[0].process.poll() is None:
        return _CURRENT[0]
    _CURRENT[:] = [_Child()]
    return _CURRENT[0]


@atexit.register
def _end() -> None:
    if _CURRENT and _CURRENT[0].process_id == os.getpid():
        _CURRENT[0].process.kill()
        _CURRENT[0].process.wait()
