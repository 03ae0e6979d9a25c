"""Sizes that files state are held against what they hold, before anything is unpacked or set aside in memory.

A damaged header can state any size, and a few kilobytes of zeros unpack to gigabytes. Refused is what would take

- more than `PULVINAR_LARGEST_RATIO` (100) times the bytes that are there, from 256 MB on, and
- more than `PULVINAR_LARGEST_UNPACKED` (such as 64GB; as much as the machine has memory) at once.

Measured data pack to a half or a third; what packs far better is masks and labels, which are below 256 MB.
"""

import os
import re
from pathlib import Path

from pulvinar.core.errors import ConfigError, FileError

RATIO, SIZE = "PULVINAR_LARGEST_RATIO", "PULVINAR_LARGEST_UNPACKED"
USUAL_RATIO = 100.0
ALWAYS_ALLOWED = 2**28  # bytes
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
WITHOUT_SYSCONF = 2**36  # bytes, where the system does not say how much memory it has


def largest_ratio() -> float:
    """How many bytes may come out of one; `ConfigError` for what is no number of 1 or more."""
    text = os.environ.get(RATIO) or str(USUAL_RATIO)
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if not ratio >= 1:
        raise ConfigError(f"{RATIO}: a number of 1 or more is needed, {text!r} came")
    return ratio


def largest_size() -> int:
    """Bytes that may be unpacked at once; `ConfigError` for what is no size."""
    text = os.environ.get(SIZE)
    if not text:
        return _memory()
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?\s*", text.lower())
    if found is None:
        raise ConfigError(f"{SIZE}: a size such as 64GB is needed, {text!r} came")
    return int(float(found[1]) * UNITS[found[2]])


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return WITHOUT_SYSCONF


def allowed(held: int) -> int:
    """Bytes that may come out of so many, and be in memory at once."""
    return min(allowed_in_passing(held), largest_size())


def allowed_in_passing(held: int) -> int:
    """Bytes that may come out of so many, where they are read a piece at a time."""
    return max(ALWAYS_ALLOWED, int(largest_ratio() * held))


def require_plausible(
    path: str | os.PathLike[str], stated: int, held: int | None = None, *, what: str = "", in_passing: bool = False
) -> None:
    """Raise `FileError` if so many bytes cannot be what the file holds.

    held: the bytes that they come out of; none: the whole file. what: which part of it, such as "dataset 'values'".
    in_passing: they are read a piece at a time.
    """
    held = Path(path).stat().st_size if held is None else held
    if stated <= (allowed_in_passing(held) if in_passing else allowed(held)):
        return
    part = f"{what} " if what else ""
    if stated <= allowed_in_passing(held):
        raise FileError(f"{path}: {part}would take {_said(stated)} unpacked; {_said(largest_size())} may be ({SIZE})")
    raise FileError(
        f"{path}: {part}states {_said(stated)} but holds {_said(held)}; damaged, or made to fill the memory. "
        f"If it is right (such as a mask of zeros), set {RATIO} above {stated // max(1, held)}"
    )


def _said(n_bytes: int) -> str:
    for unit, name in ((2**40, "TB"), (2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if n_bytes >= unit:
            return f"{n_bytes / unit:.3g} {name}"
    return f"{n_bytes} bytes"
