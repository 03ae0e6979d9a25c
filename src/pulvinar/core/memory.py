"""How much memory a command may use, said once (`--memory 4GB`), and the sizes of blocks that follow from it.

`with using("4GB"):` holds while a conversion, a fit or an evaluation runs. Whoever holds much at once asks `block_size` how
many rows or voxels of it fit, or `require` whether all of it does; both refuse what is too little, with the least that fits.
What counts is the resident memory of the process, libraries and mapped files included: that of the moment when it is asked,
and `MARGIN` for what nobody counts. Pages of a mapped file are given back after each block (`release`); they stay on the disk.

Without a limit nothing changes: blocks have their usual sizes.
"""

import mmap
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np

from pulvinar.core.errors import ConfigError, FileError
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import set_aside

UNITS = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
MARGIN = 150 * 2**20  # bytes: what libraries set aside besides, measured at 40 to 120 MB
LEAST = 100 * 2**20  # bytes beyond what is in use, below which nothing is tried
SHARE = 0.8  # of what is left that one array may take; what is larger goes to a scratch file
_LIMIT: ContextVar[int | None] = ContextVar("memory", default=None)


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
def using(text: str | None) -> Iterator[int | None]:
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


def _refuse(allowed: int, needed: float, what: str) -> None:
    least = resident() + MARGIN + needed
    raise ConfigError(
        f"memory={said(allowed)}: {what} needs {said(least)} or more (the process has {said(resident())} already)"
    )


def empty(shape: Sequence[int], dtype: np.dtype | type) -> np.ndarray:
    """An array to be filled: in memory where there is room, else mapped from a scratch file that has no name.

    The scratch file lies in the folder for temporary files (TMPDIR) and is gone with the array. `FileError` without room there.
    """
    dtype = np.dtype(dtype)
    n_bytes = int(np.prod([int(side) for side in shape])) * dtype.itemsize
    allowed = _LIMIT.get()
    if allowed is None or n_bytes <= SHARE * (allowed - resident() - MARGIN) / 2:
        return np.empty(tuple(shape), dtype)
    folder = tempfile.gettempdir()
    log(f"memory: {said(n_bytes)} of values go through a scratch file in {folder}")
    with tempfile.NamedTemporaryFile(dir=folder, prefix="pulvinar-") as file:  # the mapping outlives the name
        try:
            set_aside(file.name, n_bytes)
        except OSError as error:
            raise FileError(
                f"{folder}: no room for {said(n_bytes)} of scratch (TMPDIR names another folder): {error}"
            ) from error
        return np.memmap(file.name, dtype, mode="r+", shape=tuple(shape))


def release(values: np.ndarray) -> None:
    """Give back the pages of a mapped file that were read or written; nothing for arrays in memory, or without a limit.

    The values stay in the file (and in the system's own cache), and are read again when asked for.
    """
    if _LIMIT.get() is None:
        return
    base: object = values
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and base.mode == "c":  # what was changed is in no file
            return
        base = base.base
    if isinstance(base, mmap.mmap) and sys.platform.startswith("linux"):
        base.madvise(mmap.MADV_DONTNEED)


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
