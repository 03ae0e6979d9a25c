"""Archives (.tar.gz, .tar, .zip) unpacked into a folder: nothing lands outside of it, or appears before all is there."""

import shutil
import tarfile
import zipfile
from pathlib import Path

from pulvinar.core.errors import FileError
from pulvinar.core.limits import allowed_in_passing
from pulvinar.core.places import temporary_name
from pulvinar.core.storage import reading


def unpack(archive: Path, folder: Path) -> list[Path]:
    """The files of an archive, in `folder` under their names in it. Links and devices are refused.

    `FileError` for a damaged archive, for one that would not fit on the disk, and where a file of the name is there.
    """
    is_zip = archive.suffix.lower() == ".zip"
    place = temporary_name(folder / archive.name)
    try:
        place.mkdir(parents=True)
        with reading(archive, "a .zip archive" if is_zip else "a .tar archive"):
            _unpack_zip(archive, place) if is_zip else _unpack_tar(archive, place)
        return _moved(place, folder)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _unpack_zip(archive: Path, place: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        _require_room(archive, sum(member.file_size for member in opened.infolist()), place)
        opened.extractall(place)  # compares the CRC-32 of every member


def _unpack_tar(archive: Path, place: Path) -> None:
    with tarfile.open(archive) as opened:
        members = opened.getmembers()
        strange = [member.name for member in members if not (member.isfile() or member.isdir())]
        if strange:
            raise FileError(f"{archive}: holds {strange[0]}, which is neither file nor folder; not unpacked")
        _require_room(archive, sum(member.size for member in members), place)
        opened.extractall(place, filter="data")


def _require_room(archive: Path, n_bytes: int, place: Path) -> None:
    free = shutil.disk_usage(place).free
    if n_bytes > allowed_in_passing(archive.stat().st_size):
        raise FileError(f"{archive}: unpacks to {n_bytes} bytes, which no measured data do; damaged, or made to fill the disk")
    if n_bytes > free:
        raise FileError(f"{archive}: unpacks to {n_bytes / 1e9:.1f} GB; {free / 1e9:.1f} GB are free. It is kept: make room")


def _moved(place: Path, folder: Path) -> list[Path]:
    """The unpacked files at their places in the folder."""
    found = sorted(path for path in place.rglob("*") if path.is_file())
    targets = [folder / path.relative_to(place) for path in found]
    for path, target in zip(found, targets, strict=True):
        if target.exists() and target.stat().st_size != path.stat().st_size:
            raise FileError(f"{target}: exists already and is not the file of the archive; remove it first")
    for path, target in zip(found, targets, strict=True):
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    return targets
