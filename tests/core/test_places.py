"""Names of what is unfinished, what dead processes left, and what is never replaced. The processes and devices are real."""

import os
import socket
import stat
import subprocess
import sys

import pytest

from pulvinar.core import places, storage
from pulvinar.core.errors import FileError


def test_the_names_of_live_processes_stay_and_those_of_dead_ones_go(tmp_path, monkeypatch):
    target = tmp_path / "run"
    own = places.temporary_name(target)
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    theirs = own.with_name(own.name.replace(f"-{os.getpid()}-", f"-{dead.pid}-"))
    machine, start, numbers = places._this_machine()
    kept = [
        own,
        theirs.with_name(theirs.name.replace(machine, "0" * 8)),  # of another machine
        theirs.with_name(theirs.name.replace(numbers, "0" * 8)),  # of another container
        tmp_path / ".partial-notes",  # somebody's own
    ]
    gone = [theirs, own.with_name(own.name.replace(start, "0" * 8))]  # the latter from before this machine was started
    for path in [*kept, gone[0]]:
        path.write_text("half")
    gone[1].mkdir()
    (gone[1] / "inner").write_text("half")
    assert set(places.remove_left_overs(tmp_path)) == set(gone)
    assert set(tmp_path.iterdir()) == set(kept)
    assert places.remove_left_overs(tmp_path / "none") == []


def test_a_long_name_has_room_for_its_owner(tmp_path):
    for name in ("x" * 255, "ü" * 127):
        storage.write_text(tmp_path / name, "whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def odd(tmp_path):
    """Targets that are no files: a device of our own, a pipe, a socket, links to a device and to nothing."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/dev/full")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    kinds = {
        "pipe": "is a pipe",
        "link": "is a device",
        "dangling": "is a link to what does not exist",
        "socket": "is a socket",
    }
    if os.geteuid() == 0:  # the machine's own devices are not risked: as root a rename replaces them
        os.mknod(tmp_path / "device", stat.S_IFCHR | 0o666, os.makedev(1, 7))
        kinds["device"] = "is a device"
    yield {str(tmp_path / name): said for name, said in kinds.items()}
    listening.close()


def test_what_is_no_file_is_never_replaced(odd):
    for path, said in odd.items():
        before = os.lstat(path)
        with pytest.raises(FileError, match=said):
            storage.write_text(path, "text")
        with pytest.raises(FileError, match=said):
            storage.refuse_existing(path)
        assert os.lstat(path) == before


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_of_the_umask_whatever_wrote_them(umask, tmp_path):
    before = os.umask(umask)
    try:
        with storage.atomic_path(tmp_path / "file") as temporary:
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))  # as some libraries do
        with storage.atomic_folder(tmp_path / "folder") as temporary:
            os.close(os.open(temporary / "file", os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    modes = {(tmp_path / name).stat().st_mode & 0o777 for name in ("file", "folder/file")}
    assert modes == {0o666 & ~umask}
