"""Files are written whole or not at all; checksums and fingerprints.

A file appears under its final name only after its bytes are on disk (temporary name beside it, fsync, rename).
A folder is filled under a temporary name and renamed at the end. Nothing is read with pickle.
"""

import contextlib
import datetime
import errno
import functools
import hashlib
import json
import math
import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from zipfile import ZipFile, is_zipfile

import numpy as np

from pulvinar.core.errors import FileError, PulvinarError
from pulvinar.core.limits import require_plausible
from pulvinar.core.places import require_own_kind, temporary_name

Reader = TypeVar("Reader", bound=Callable[..., Any])
CACHE_VARIABLE = "PULVINAR_CACHE"
SEAL = "sha256_of_the_rest"  # the key under which a sealed JSON file carries its own checksum


def cache_folder(folder: str | os.PathLike[str] | None = None) -> Path:
    """Where caches lie: the argument, else the environment's PULVINAR_CACHE, else 'pulvinar' in the user's cache folder."""
    if folder is not None:
        return Path(folder)
    if os.environ.get(CACHE_VARIABLE):
        return Path(os.environ[CACHE_VARIABLE])
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/pulvinar"
    named = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME")
    return Path(named or Path.home() / ".cache") / "pulvinar"


def _sync(path: Path) -> None:
    """Flush a file, or the directory entry of a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Turn the operating system's refusals to write into one line that names the path."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        reason = "the disk is full" if full else (error.strerror or str(error))
        raise FileError(f"{path}: cannot be written: {reason}; nothing was left under this name") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block ends well, else delete it.

    The file has the mode that the umask says, whatever wrote it. Raises `FileError` where a device, a pipe or a socket stands.
    """
    path = Path(path)
    require_own_kind(path)
    temporary = temporary_name(path)
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = stat.S_IMODE(temporary.stat().st_mode)
            yield temporary
            temporary.chmod(mode)
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder; rename it to `path` if the block ends well, else delete it.

    Raises `FileError` if `path` exists already: an existing folder is never replaced.
    """
    path = Path(path)
    refuse_existing(path)
    temporary = temporary_name(path)
    with _disk_errors(path):
        try:
            temporary.mkdir(parents=True)
            mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    file.chmod(mode)
                    _sync(file)
            refuse_existing(path)
            temporary.rename(path)
            _sync(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: str | os.PathLike[str]) -> None:
    """Raise `FileError` if something stands under this name."""
    require_own_kind(path)
    if Path(path).exists():
        raise FileError(f"{path}: exists already; choose another name, or remove it first")


def require_file(path: str | os.PathLike[str], what: str = "file") -> Path:
    """The path, if a file is there; `FileError` otherwise."""
    path = Path(path)
    if not path.is_file():
        raise FileError(f"{path}: no such {what}" + (" (it is a folder)" if path.is_dir() else ""))
    return path


def require_folder(path: str | os.PathLike[str], what: str = "folder", hint: str = "") -> Path:
    """The path, if a folder is there; `FileError` otherwise, with the hint."""
    path = Path(path)
    if not path.is_dir():
        raise FileError(f"{path}: no such {what}" + (" (it is a file)" if path.exists() else "") + hint)
    return path


def reads(what: str) -> Callable[[Reader], Reader]:
    """A function whose first argument names what it reads: the whole of it stands in `reading`. what: of which format.

    For readers that take apart what they found, where a damaged file raises what no check foresaw.
    """

    def guarded(reader: Reader) -> Reader:
        @functools.wraps(reader)
        def read(path: Any, *arguments: Any, **named: Any) -> Any:
            with reading(path, what):
                return reader(path, *arguments, **named)

        return cast(Reader, read)

    return guarded


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], what: str) -> Iterator[None]:
    """Around the call of a library that parses `path`: whatever it raises becomes one `FileError` that names the file.

    Parsers of damaged files raise nearly anything (EOFError, zlib.error, struct.error, SyntaxError, their own classes), so
    all of it is caught here and nowhere else. Our own errors pass unchanged. `reads` puts a whole function inside.
    """
    try:
        yield
    except PulvinarError:
        raise
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        raise FileError(f"{path}: cannot be read as {what} (truncated, damaged, or another format): {reason}") from error


def set_aside(place: str | os.PathLike[str] | IO[bytes], n_bytes: int) -> None:
    """Room on the disk for a file that is filled through a memory map later, where a full disk ends the process (SIGBUS)."""
    if not hasattr(os, "posix_fallocate") or not n_bytes:
        return
    with Path(place).open("ab") if isinstance(place, str | os.PathLike) else contextlib.nullcontext(place) as file:
        os.posix_fallocate(file.fileno(), 0, n_bytes)


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a whole file, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | os.PathLike[str], content: str) -> None:
    """Write a whole UTF-8 text file, atomically."""
    write_bytes(path, content.encode())


def write_arrays(path: str | os.PathLike[str], **arrays: np.ndarray) -> None:
    """Write named arrays as .npz, atomically. Arrays of Python objects are refused (they would be pickled)."""
    for name, values in arrays.items():
        if np.asarray(values).dtype == object:
            raise TypeError(f"array '{name}' holds Python objects; numbers or fixed-width text are needed")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


@contextlib.contextmanager
def open_npz(path: str | os.PathLike[str]) -> Iterator["ZippedArrays"]:
    """The arrays of an .npz file by name, each read to its end, checksum included, when asked for.

    `FileError` for a missing, damaged or other file. The content is looked at first: numpy takes whatever is no zip archive
    for a pickle, and says so.
    """
    path = require_file(path)
    if not is_zipfile(path):
        raise FileError(f"{path}: cannot be read as an .npz archive: it is none (empty, cut short, or another format)")
    with reading(path, "an .npz archive"), ZipFile(path) as archive:
        if len(set(archive.namelist())) < len(archive.namelist()):
            raise ValueError("arrays of one name stand in it twice")
        for member in archive.infolist():
            archive.open(member).close()  # the name inside must be that of the directory
        yield ZippedArrays(archive)


class ZippedArrays(Mapping[str, np.ndarray]):
    """Arrays of an open zip archive, as `numpy.load` names them."""

    def __init__(self, archive: ZipFile) -> None:
        self._archive = archive
        self._members = {name.removesuffix(".npy"): name for name in archive.namelist()}

    def __getitem__(self, name: str) -> np.ndarray:
        return read_npy_member(self._archive, self._members[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def header(self, name: str) -> tuple[tuple[int, ...], np.dtype]:
        """Shape and type of an array, without its values."""
        with self._archive.open(self._members[name]) as file:
            return read_npy_header(file)


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the .npy array that begins here."""
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype


def read_npy_member(archive: ZipFile, member: str) -> np.ndarray:
    """An array in a zip archive; its stream is read to the end, where the checksum (CRC-32) is compared."""
    with archive.open(member) as file:
        shape, dtype = read_npy_header(file)
        if dtype.hasobject:
            raise FileError(
                f"{archive.filename}: array '{member.removesuffix('.npy')}' holds Python objects (a pickle), which are never "
                "opened here. Store text as text: numpy.array(names, dtype=str)"
            )
    packed = archive.getinfo(member)
    require_plausible(archive.filename or member, packed.file_size, packed.compress_size, what=f"'{member}'")
    if math.prod(shape) * dtype.itemsize > packed.file_size:
        raise ValueError(f"'{member}' states {dtype} {shape}, more than the {packed.file_size} bytes it has")
    with archive.open(member) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError(f"'{member}' holds more than its array")
    return values


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read what `write_arrays` wrote."""
    with open_npz(path) as archive:
        return dict(archive)


def to_jsonable(value: Any) -> Any:
    """Numpy scalars and arrays, paths, dates and tuples as plain JSON values; NaN and infinities as null."""
    if isinstance(value, dict):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    if isinstance(value, np.ndarray):
        return to_jsonable(value.tolist())
    if isinstance(value, np.generic):
        return to_jsonable(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path | datetime.date | datetime.time) else value


def write_json(path: str | os.PathLike[str], value: Any, *, sealed: bool = False) -> None:
    """Write a value as indented JSON, atomically. sealed: an object, with its own checksum as a last key."""
    content = to_jsonable(value)
    if sealed:
        content = {**content, SEAL: _seal(json.loads(json.dumps(content, allow_nan=False)))}
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def _seal(content: dict[str, Any]) -> str:
    """SHA-256 over the values, however they are laid out in the file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_json(path: str | os.PathLike[str], *, check_seal: bool = True) -> Any:
    """Read a JSON file; `FileError` when it is missing, not JSON, or sealed and not as it was written.

    check_seal: False to look only, at a format number say; what is used then has to be read again.
    """
    path = require_file(path)
    with reading(path, "JSON"):
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    if check_seal and seal is not None and seal != _seal(content):
        raise FileError(
            f"{path}: damaged, or changed since it was written: '{SEAL}' does not fit what is in it. "
            "Make it again; if the change is yours, remove that line"
        )
    return content


def checksum(path: str | os.PathLike[str], kind: str = "sha256") -> str:
    """SHA-256 of a file, or another checksum that `hashlib` knows, in hex; `FileError` when it is missing."""
    with require_file(path).open("rb") as file:
        return hashlib.file_digest(file, kind).hexdigest()


def fingerprint(*values: Any) -> str:
    """Twenty hex digits that change when any array, text or number among the values does.

    >>> fingerprint(np.arange(3), "a") == fingerprint(np.arange(3), "a")
    True
    >>> fingerprint(np.arange(3)) == fingerprint(np.arange(3.0))
    False
    """
    digest = hashlib.sha256()
    for value in values:
        if isinstance(value, np.ndarray):
            digest.update(f"{value.dtype.str}{value.shape}".encode())
            rows = np.atleast_1d(value)
            step = max(1, 2**22 // max(1, rows[:1].nbytes))
            for start in range(0, len(rows), step):
                block = np.ascontiguousarray(rows[start : start + step])
                digest.update(repr(block.tolist()).encode() if block.dtype == object else block.tobytes())
        else:
            digest.update(repr(value).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:20]
