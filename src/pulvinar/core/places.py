"""Where files are written: names for what is unfinished, what dead processes left, and what must never be replaced."""

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import stat
import sys
from pathlib import Path

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log

TEMPORARY = ".partial-"
LONGEST_NAME = 255  # bytes of a file's name on every common file system
_OWNER = re.compile(r"-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})-(\d+)-[0-9a-f]{8}$")
KINDS = {
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}


def place_of(argument: str, given: object, needed: str) -> str:
    """A path that was given as an argument, as text; `InputError` says what is needed where something else came."""
    if isinstance(given, str | os.PathLike):
        return os.fspath(given)
    raise InputError(f"{argument}: {needed} is needed, {type(given).__name__} came")


def temporary_name(path: Path) -> Path:
    """A name beside `path` for what is unfinished; it says which process of which machine writes it."""
    owner = f"-{'-'.join(_this_machine())}-{os.getpid()}-{secrets.token_hex(4)}"
    room = LONGEST_NAME - len(TEMPORARY) - len(owner)
    return path.with_name(f"{TEMPORARY}{path.name.encode()[:room].decode(errors='ignore')}{owner}")


@functools.cache
def _this_machine() -> tuple[str, str, str]:
    """Machine, its start and the space of its process numbers, eight hex digits each."""
    parts = (
        socket.gethostname() + _content("/etc/machine-id"),
        _content("/proc/sys/kernel/random/boot_id"),
        _target("/proc/self/ns/pid"),
    )
    machine, start, numbers = (hashlib.sha256(part.encode()).hexdigest()[:8] for part in parts)
    return machine, start, numbers


def _content(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:  # another system
        return ""


def _target(link: str) -> str:
    try:
        return str(Path(link).readlink())
    except OSError:
        return ""


def is_running(process: int) -> bool:
    """Whether a process of this machine lives; True where the system does not tell."""
    if sys.platform == "win32":  # signal 0 would be Ctrl-C there
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return error.errno != errno.ESRCH
    return True


def is_left_over(path: Path) -> bool:
    """Whether an unfinished file or folder is that of a process which has ended for certain.

    Of another machine nobody can tell, nor of another container of the same one.
    """
    owner = _OWNER.search(path.name)
    if not path.name.startswith(TEMPORARY) or owner is None:
        return False
    machine, start, numbers = _this_machine()
    if owner[1] != machine:
        return False
    if owner[2] != start:
        return True  # from before the machine was started
    return owner[3] == numbers and not is_running(int(owner[4]))


def remove(path: Path) -> None:
    """Remove an unfinished file or folder, if it is still there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_left_overs(folder: Path) -> list[Path]:
    """Remove what killed processes left unfinished in a folder, itself and not below; what was removed."""
    found = [path for path in folder.glob(f"{TEMPORARY}*") if is_left_over(path)] if folder.is_dir() else []
    for path in found:
        remove(path)
    if found:
        log(f"{folder}: removed {len(found)} unfinished file{'s' * (len(found) > 1)} of processes that were killed")
    return found


def require_own_kind(path: str | os.PathLike[str]) -> None:
    """Raise `FileError` where neither a regular file nor a folder stands under this name, nor nothing; links are followed."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        if path.is_symlink():
            raise FileError(f"{path}: is a link to what does not exist; name a file or folder") from None
        return
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileError(f"{path}: is {KINDS.get(stat.S_IFMT(mode), 'no file')}, which is never replaced; name a file or folder")
