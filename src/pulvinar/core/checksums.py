"""Checksums at use: a file is compared before its numbers are, and again when it has changed.

What a check costs is one read of the file. So that a second command on unchanged data does not read gigabytes again, files of
64 MB and more are remembered for 30 days, with size, times and inode, in `checked.json` in the cache folder; within a process
smaller ones too. A file that was written to or replaced since is checked again. What no longer shows, until the 30 days are
over, is a disk that changes bytes by itself after the check: `always` reads such files every time.

(`storage`, with numpy and h5py, is imported where it is needed: the command line reads `MODES` for its help.)
"""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pulvinar.core.errors import ConfigError, FileError
from pulvinar.core.progress import log

VARIABLE = "PULVINAR_CHECKSUMS"
MODES = {
    "once": "before a file is used, and again when it has changed (files from 64 MB on: at the latest after 30 days)",
    "always": "whenever a file is opened",
    "never": "not, to save the read of huge data; checksums inside compressed files count all the same",
}
DEFAULT = "once"
REMEMBERED_FROM = 2**26  # bytes; smaller files are read by every command, in a fraction of a second
REMEMBERED_FOR = 30 * 86_400  # seconds
ANNOUNCED_FROM = 2**30  # bytes; a second or more
MOST_REMEMBERED = 4096  # files
SETTLED = 2.0  # seconds since the last write, within which two writes may carry the same time

State = tuple[int, ...]
_seen: dict[tuple[str, str], State] = {}


def mode() -> str:
    """What the environment's PULVINAR_CHECKSUMS says, else 'once'; `ConfigError` for anything but a mode."""
    chosen = os.environ.get(VARIABLE) or DEFAULT
    if chosen not in MODES:
        raise ConfigError(f"{VARIABLE}: one of {', '.join(MODES)} is needed, {chosen!r} came")
    return chosen


@contextlib.contextmanager
def using(chosen: str | None) -> Iterator[None]:
    """This mode within the block, for processes started in it too; None leaves what is set."""
    before = os.environ.get(VARIABLE)
    if chosen is not None:
        os.environ[VARIABLE] = chosen
    try:
        mode()
        yield
    finally:
        os.environ.pop(VARIABLE, None)
        if before is not None:
            os.environ[VARIABLE] = before


def once(path: str | os.PathLike[str], kind: str, check: Callable[[], None], *, safety: bool = False) -> None:
    """Call `check`, which raises where the file is damaged, unless it passed before and the file is still the same.

    kind: what is checked, such as the checksum that is expected; a check of another kind is another check.
    safety: a check that no mode leaves out or repeats, and that files of any size are remembered for.
    """
    chosen = DEFAULT if safety else mode()
    if chosen == "never":
        return
    place, before = str(Path(path).resolve()), _state(path)
    remembered = place + (f" ({kind})" if safety else "")
    is_kept = safety or before[0] >= REMEMBERED_FROM
    if chosen == "once" and (_seen.get((place, kind)) == before or (is_kept and _is_remembered(remembered, kind, before))):
        return
    check()
    if _state(path) == before and _is_settled(before):
        _seen[place, kind] = before
        if is_kept:
            _remember(remembered, kind, before)


def require(path: str | os.PathLike[str], expected: str, *, written_in: str) -> None:
    """Raise `FileError` if the SHA-256 of the file is another than expected. written_in: where that one stands."""

    from pulvinar.core.storage import checksum

    def compare() -> None:
        _announce(path)
        if checksum(path) != expected:
            raise FileError(
                f"{path}: damaged, or changed since it was written: its SHA-256 is not the one in {written_in}. "
                "Copy or make it again"
            )

    once(path, expected, compare)


def _announce(path: str | os.PathLike[str]) -> None:
    if (size := Path(path).stat().st_size) >= ANNOUNCED_FROM:
        log(f"{path}: {size / 2**30:.1f} GB are compared with their checksum; --checksums never leaves that out")


def _state(path: str | os.PathLike[str]) -> State:
    found = Path(path).stat()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)


def _is_settled(state: State) -> bool:
    return time.time() - max(state[1], state[2]) / 1e9 > SETTLED


def _memory() -> Path:
    from pulvinar.core.storage import cache_folder

    return cache_folder() / "checked.json"


def _remembered() -> dict[str, Any]:
    """What `checked.json` says; nothing where it is missing or damaged."""
    try:
        found = json.loads(_memory().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_remembered(place: str, kind: str, state: State) -> bool:
    entry = _remembered().get(place)
    if not isinstance(entry, dict) or entry.get("kind") != kind or entry.get("state") != list(state):
        return False
    checked = entry.get("checked")
    return isinstance(checked, int | float) and 0 <= time.time() - checked < REMEMBERED_FOR


def _remember(place: str, kind: str, state: State) -> None:
    from pulvinar.core.storage import write_text

    entries = _remembered()
    entries.pop(place, None)
    entries[place] = {"kind": kind, "state": state, "checked": int(time.time())}
    newest = dict(list(entries.items())[-MOST_REMEMBERED:])
    with contextlib.suppress(OSError):  # a cache that cannot be written costs the next command a read, no more
        write_text(_memory(), json.dumps(newest, indent=1) + "\n")
