"""Files that end or hang a library do so in a process of their own. Oracle: this process lives, and says which file it was."""

import os
import time

import h5py
import numpy as np
import pytest

from pulvinar.core import checksums, untrusted
from pulvinar.core.errors import FileError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array


def write(path, change):
    with h5py.File(path, "w") as file:
        file["x"] = np.arange(12.0)
        change(file)


def refers_to_itself(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(".", "loop", (4,))
    file.create_virtual_dataset("loop", layout)


def external_link(file):
    file["link"] = h5py.ExternalLink("/etc/passwd", "/x")


def external_values(file):
    file.create_dataset("out", (4,), "f4", external=[("/etc/passwd", 0, 16)])


def virtual_outside(file):
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource("../other.h5", "x", (4,))
    file.create_virtual_dataset("far", layout)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (refers_to_itself, "reading it (ends the process|did not end)"),
        (external_link, "'link' lies in another file, '/etc/passwd'"),
        (external_values, "the values of '/out' lie outside, in '/etc/passwd'"),
        (virtual_outside, r"the values of '/far' lie outside its folder, in '\.\./other\.h5'"),
    ],
)
def test_what_ends_the_library_or_leads_elsewhere_is_refused(change, said, tmp_path):
    write(tmp_path / "a.h5", change)
    with pytest.raises(FileError, match=rf"a\.h5: cannot be read as HDF5: {said}"), open_hdf5(tmp_path / "a.h5"):
        pass
    write(tmp_path / "b.h5", lambda file: None)  # and the next file is read
    with open_hdf5(tmp_path / "b.h5") as file:
        assert read_hdf5_array(file, "x").sum() == 66


def test_a_link_inside_the_file_is_followed(tmp_path):
    def link(file):
        file["soft"] = h5py.SoftLink("/x")

    write(tmp_path / "a.h5", link)
    with open_hdf5(tmp_path / "a.h5") as file:
        assert read_hdf5_array(file, "soft").sum() == 66


def test_a_file_is_looked_at_once(tmp_path, monkeypatch):
    write(tmp_path / "a.h5", lambda file: None)
    long_ago = time.time() - 100
    os.utime(tmp_path / "a.h5", (long_ago, long_ago))
    monkeypatch.setattr(checksums, "SETTLED", -1.0)  # it was made just now
    asked = []
    monkeypatch.setattr(untrusted, "_ask", lambda path, kind: asked.append((path.name, kind)))
    for mode in ("once", "never", "always"):  # a matter of safety: no mode of checksums changes it
        with checksums.using(mode):
            untrusted.require_readable(tmp_path / "a.h5", "hdf5")
    assert asked == [("a.h5", "hdf5")]
    checksums._seen.clear()  # another process
    untrusted.require_readable(tmp_path / "a.h5", "hdf5")
    assert len(asked) == 1
    write(tmp_path / "a.h5", external_link)
    untrusted.require_readable(tmp_path / "a.h5", "hdf5")
    assert len(asked) == 2


def test_computing_without_end_is_ended(tmp_path, monkeypatch):
    slow = tmp_path / "child.py"
    endless = untrusted.CHILD.read_text().replace("SECONDS = 4.0", "SECONDS = 0.2")
    endless = endless.replace("    with h5py.File(path", "    while True:\n        pass\n    with h5py.File(path")
    slow.write_text(endless)
    write(tmp_path / "a.h5", lambda file: None)
    monkeypatch.setattr(untrusted, "CHILD", slow)
    monkeypatch.setattr(untrusted, "_CURRENT", [])
    with pytest.raises(FileError, match="reading it did not end"):
        untrusted.require_readable(tmp_path / "a.h5", "hdf5")
