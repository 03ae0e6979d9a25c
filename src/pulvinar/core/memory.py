"""How much memory a command may use, said once (`--memory 4GB`), and the sizes of blocks that follow from it.

`with using("4GB"):` holds while a conversion, a fit or an evaluation runs. Whoever holds much at once asks `block_size` how
many rows or voxels of it fit, or `require` whether all of it does; both refuse what is too little, with the least that fits.
What counts is the resident memory of the process, libraries and mapped files included: that of the moment when it is asked,
and `MARGIN` for what nobody counts. Pages of a mapped file are given back after each block (`release`); they stay on the disk.
`with reserving(...)` keeps room for what comes later, a network and its optimizer.

Without a limit blocks have their usual sizes, and only arrays that the machine has no memory for go to scratch files.
"""

import mmap
import os
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from pulvinar.core.errors import ConfigError, FileError
from pulvinar.core.progress import log, warn
from pulvinar.core.sampling import blocks_of
from pulvinar.core.storage import set_aside

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MARGIN = 150 * 2**20  # bytes: what libraries set aside besides, measured at 40 to 120 MB
LEAST = 100 * 2**20  # bytes beyond what is in use, below which nothing is tried
SHARE = 0.8  # of what is left that one array may take; what is larger goes to a scratch file
SMALL = 64 * 2**20  # bytes of an array that nobody is asked for without a limit
COPIED_AT_ONCE = 16 * 2**20
ROWS_AT_ONCE = 16  # of a mapped file, in any order: the system maps up to megabytes around each
_LIMIT: ContextVar[int | None] = ContextVar("memory", default=None)
_RESERVED: ContextVar[float] = ContextVar("reserved", default=0.0)
_SCRATCH: "weakref.WeakSet[mmap.mmap]" = weakref.WeakSet()


def size_of(text: str) -> int:
    """Bytes of a size such as 4GB (10^9), 4GiB (2^30) or 500MB; `ConfigError` for anything else.

    >>> size_of("1.5GB"), size_of("4 GiB")
    (1500000000, 4294967296)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?b)\s*", str(text).lower())
    if found is None or float(found[1]) <= 0:
        raise ConfigError(f"memory: a size such as 4GB, 4GiB or 500MB is needed, {text!r} came")
    return int(float(found[1]) * UNITS[found[2]])


def said(n_bytes: float) -> str:
    """A size as `size_of` reads it, rounded up.

    >>> said(1_234_000_000), said(9_900_000)
    ('1.24GB', '10MB')
    """
    step, unit, digits = (10**9, "GB", 100) if n_bytes >= 10**9 else (10**6, "MB", 1)
    return f"{-(-n_bytes * digits // step) / digits:g}{unit}"


def limit() -> int | None:
    """Bytes that this process may use; None without a limit."""
    return _LIMIT.get()


@contextmanager
def using(text: str | None, *, say_peak: bool = True) -> Iterator[int | None]:
    """Inside, blocks are chosen so that the process stays below this size; None: whatever holds outside.

    `ConfigError` for what is no size, and for less than the process needs already. At the end the measured peak is said; a
    peak above the limit is warned of.
    """
    if text is None:
        yield limit()
        return
    wanted, before = size_of(text), peak()
    if resident() + LEAST + MARGIN > wanted:
        least = said(resident() + LEAST + MARGIN)
        raise ConfigError(f"memory={text}: the libraries alone take {said(resident())} here; {least} or more is needed")
    token = _LIMIT.set(wanted)
    try:
        yield wanted
        if say_peak:
            _say_peak(text, wanted, before)
    finally:
        _LIMIT.reset(token)


def _say_peak(text: str, wanted: int, before: int) -> None:
    reached = peak()
    if reached <= wanted:
        log(f"memory: at most {said(reached)} at once, {text} may be")
    elif before < wanted:  # in a long-lived process the peak may be of something earlier
        warn(f"memory: {said(reached)} at once, more than the {text} that may be; blocks did not foresee it. Please report it")


def block_size(bytes_each: float, *, most: int, what: str, fixed: float = 0.0) -> int:
    """How many rows of this size, and at most `most`, fit beside `fixed` bytes; `most` without a limit.

    what: is named in the `ConfigError` where not even one fits, with the least memory that would.
    """
    allowed = _LIMIT.get()
    if allowed is None:
        return most
    left = allowed - resident() - MARGIN - fixed
    if left < bytes_each:
        _refuse(allowed, fixed + bytes_each, what)
    return max(1, min(most, int(left / max(bytes_each, 1e-9))))


def room(usual: int, *, held: int = 0) -> int:
    """Bytes that may be kept for later, of which `held` are kept now: `usual`, or less where half of what is left is less."""
    allowed = _LIMIT.get()
    return usual if allowed is None else max(0, min(usual, held + (allowed - resident() - MARGIN) // 2))


def require(n_bytes: float, what: str) -> None:
    """Raise `ConfigError` where so many bytes beside what is in use do not fit, with the least memory that would."""
    block_size(n_bytes, most=1, what=what)


@contextmanager
def reserving(n_bytes: float, what: str) -> Iterator[None]:
    """Inside, `empty` leaves so many bytes for what comes later; `ConfigError` where a limit does not allow for them."""
    require(n_bytes, what)
    token = _RESERVED.set(n_bytes)
    try:
        yield
    finally:
        _RESERVED.reset(token)


def _refuse(allowed: int, needed: float, what: str) -> None:
    least = resident() + MARGIN + needed
    raise ConfigError(
        f"memory={said(allowed)}: {what} needs {said(least)} or more (the process has {said(resident())} already)"
    )


def empty(shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
    """An array to be filled: in memory where there is room, else mapped from a scratch file that has no name.

    Room is what the limit leaves, or without one what the machine has. The scratch file lies in the folder for temporary files
    (TMPDIR) and is gone with the array, and with the process. `FileError` without room there.
    """
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod([int(side) for side in shape])) * dtype.itemsize
    if fits(n_bytes):
        return np.empty(tuple(shape), dtype)
    folder = tempfile.gettempdir()
    log(f"memory: {said(n_bytes)} of values go through a scratch file in {folder}")
    with tempfile.TemporaryFile(dir=folder, prefix="pulvinar-") as file:  # the mapping outlives it
        try:
            set_aside(file, n_bytes)
        except OSError as error:
            raise FileError(f"{_no_room(n_bytes, folder)}: {error}") from error
        made = np.memmap(file, dtype, mode="r+", shape=tuple(shape))
    if (mapped := _mapping_of(made)) is not None:
        _SCRATCH.add(mapped)
    return made


def fits(n_bytes: float) -> bool:
    """Whether an array of this size lies in memory, if `empty` makes it now."""
    return placed([n_bytes])[1] == 0


def placed(sizes: Sequence[float], *, beside: float = 0.0) -> tuple[float, float]:
    """Bytes in memory and in scratch files of arrays of these sizes that `empty` makes one after the other.

    beside: bytes that are needed too, and are not there yet.
    """
    small = 0.0 if _LIMIT.get() is not None else SMALL
    left = _left() - beside if max(sizes, default=0) > small else float("inf")
    held = on_disk = 0.0
    for size in sizes:
        if size <= max(small, SHARE * (left - held) / 2):
            held += size
        else:
            on_disk += size
    return held, on_disk


def _left() -> float:
    allowed = _LIMIT.get()
    if allowed is not None:
        return allowed - resident() - MARGIN - _RESERVED.get()
    found = available()
    return float("inf") if found is None else found


def require_scratch(n_bytes: float) -> None:
    """Raise `FileError` where the folder for temporary files has no room for so many bytes."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise FileError(f"{_no_room(n_bytes, folder)}: {said(free)} are free")


def _no_room(n_bytes: float, folder: str) -> str:
    return f"{folder}: no room for {said(n_bytes)} of scratch (TMPDIR names another folder)"


def take_columns(values: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """These columns (indices) of an array (row, column) as one of its own, made by `empty` and filled some rows at a time."""
    made = empty((len(values), len(columns)), values.dtype)
    for block in blocks_of(len(values), max(1, COPIED_AT_ONCE // max(1, values[:1].nbytes))):
        made[block] = values[block][:, columns]
        release(values)
        release_scratch()
    return made


def take_rows(values: np.ndarray, rows: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """These rows (indices, in any order), in memory; of a mapped file some at a time where memory is limited."""
    if limit() is None and out is None:
        return values[rows]
    made = np.empty((len(rows), *values.shape[1:]), values.dtype) if out is None else out
    for block in blocks_of(len(rows), ROWS_AT_ONCE):
        made[block] = values[rows[block]]
        release(values)
        release_scratch()
    return made


def release(values: np.ndarray) -> None:
    """Give back the pages of a mapped file that were read or written; nothing for arrays in memory, or without a limit.

    The values stay in the file (and in the system's own cache), and are read again when asked for.
    """
    if _LIMIT.get() is not None and (mapped := _mapping_of(values)) is not None:
        _give_back(mapped)


def release_scratch() -> None:
    """`release` of every scratch file."""
    if _LIMIT.get() is not None:
        for mapped in list(_SCRATCH):
            _give_back(mapped)


def _mapping_of(values: np.ndarray) -> mmap.mmap | None:
    """The mapped file that an array is a view of; None for arrays in memory, and where changes are in no file."""
    base: object = values
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":
            return None
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def _give_back(mapped: mmap.mmap) -> None:
    if sys.platform.startswith("linux"):
        mapped.madvise(mmap.MADV_DONTNEED)


def available() -> int | None:
    """Bytes that are free for programs on this machine, or that a limit of the container or job leaves; None where unknown."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):  # another system
        return None
    allowed = job_limit()
    return free if allowed is None else max(0, min(free, allowed - resident()))


def job_limit() -> int | None:
    """Bytes that this container or job may use; None without a limit."""
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(file).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdecimal() and int(text) < 2**60 else None
    return None


def resident() -> int:
    """Bytes of this process in memory now, mapped files included; its peak where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return peak()


def peak() -> int:
    """The most bytes that this process has had in memory so far (ru_maxrss); 0 where the system does not say."""
    try:
        import resource
    except ImportError:
        return 0
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
