"""What a file states is held against what it holds. Oracle: the two limits by hand."""

import gzip
import struct
import zipfile

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from pulvinar.core import limits
from pulvinar.core.errors import ConfigError, FileError
from pulvinar.core.hdf5 import map_hdf5_array
from pulvinar.core.storage import read_arrays
from pulvinar.data.brain_files import read_surface, read_volume
from pulvinar.data.pictures import decode

LONG = 2**29  # bytes: over what is always allowed


def test_the_limits_are_those_of_the_environment(monkeypatch):
    monkeypatch.setenv(limits.SIZE, "4GB")
    assert limits.allowed(0) == 2**28
    assert limits.allowed(2**22) == 100 * 2**22
    assert limits.allowed(2**40) == 4 * 2**30
    assert limits.allowed_in_passing(2**40) == 100 * 2**40
    monkeypatch.setenv(limits.RATIO, "7")
    assert limits.allowed_in_passing(2**30) == 7 * 2**30
    for name, text in ((limits.RATIO, "many"), (limits.RATIO, "0.5"), (limits.SIZE, "much"), (limits.SIZE, "-3GB")):
        monkeypatch.setenv(name, text)
        with pytest.raises(ConfigError, match=name):
            limits.allowed(2**30)
        monkeypatch.delenv(name)


def write_npz(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": (LONG,)})
        for _ in range(LONG // 2**24):
            file.write(bytes(2**24))


def write_nifti(path):
    header = bytearray(nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4)).to_bytes())
    struct.pack_into("<4h", header, 40, 3, 1024, 1024, 512)
    path.write_bytes(gzip.compress(bytes(header)))


def write_long_gzip(path):
    image = nibabel.Nifti1Image(np.ones((2, 2, 2), np.uint8), np.eye(4)).to_bytes()
    path.write_bytes(gzip.compress(image) + gzip.compress(bytes(LONG), 1))


def write_hdf5(path):
    with h5py.File(path, "w") as file:
        chunks = file.create_dataset("x", (LONG,), "u1", chunks=(2**24,), compression="gzip")
        for start in range(0, LONG, 2**24):
            chunks[start : start + 2**24] = 0


def write_png(path):
    Image.new("1", (12_000, 12_000)).save(path)


def write_gifti(path):
    darray = nibabel.gifti.GiftiDataArray(np.zeros((3, 3), "f4"), "NIFTI_INTENT_POINTSET")
    text = nibabel.gifti.GiftiImage(darrays=[darray]).to_xml()
    path.write_bytes(text.replace(b'Dim0="3"', b'Dim0="2147483647"'))


FILES = {
    "a.npz": (write_npz, read_arrays),
    "b.nii.gz": (write_nifti, read_volume),
    "c.nii.gz": (write_long_gzip, read_volume),
    "d.h5": (write_hdf5, lambda path: map_hdf5_array(path, "x")),
    "e.png": (write_png, decode),
    "f.surf.gii": (write_gifti, lambda path: read_surface([path])),
}


@pytest.mark.long
@pytest.mark.parametrize("name", FILES)
def test_what_unpacks_to_more_than_it_can_hold_is_refused(name, tmp_path):
    write, read = FILES[name]
    write(tmp_path / name)
    with pytest.raises(FileError, match=rf"{name}: .*(states|would take) .*{limits.RATIO}"):
        read(tmp_path / name)


@pytest.mark.slow
def test_a_larger_ratio_lets_it_in(tmp_path, monkeypatch):
    write_npz(tmp_path / "a.npz")
    monkeypatch.setenv(limits.RATIO, "2000")
    assert read_arrays(tmp_path / "a.npz")["x"].shape == (LONG,)
    monkeypatch.setenv(limits.SIZE, "300MB")
    with pytest.raises(FileError, match=rf"would take 512 MB unpacked; 300 MB may be \({limits.SIZE}\)"):
        read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize(
    ("changed", "to", "said"),
    [
        (b'Encoding="GZipBase64Binary"', b'Encoding="ExternalFileBinary"', "its values lie in another file"),
        (b'Dimensionality="2"', b'Dimensionality="1000000000"', "an array of 1000000000 axes"),
        (b'Dim0="300"', b'Dim0="1"', "holds more than the"),
    ],
)
def test_gifti_arrays_are_what_they_state(changed, to, said, tmp_path):
    darray = nibabel.gifti.GiftiDataArray(np.arange(900, dtype="f4").reshape(300, 3), "NIFTI_INTENT_POINTSET")
    text = nibabel.gifti.GiftiImage(darrays=[darray]).to_xml()
    assert changed in text
    (tmp_path / "a.surf.gii").write_bytes(text.replace(changed, to))
    with pytest.raises(FileError, match=said):
        read_surface([tmp_path / "a.surf.gii"])
