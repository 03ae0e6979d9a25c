"""Arrays of pictures: which are taken, which are turned into 8 bits, which are refused, and with what way on."""

import h5py
import numpy as np
import pytest
import torch

from pulvinar.core.errors import FileError, InputError
from pulvinar.data.hdf5_images import HDF5Images
from pulvinar.data.pixels import as_pixels, from_unit_range, require_normalised, require_pixels, require_unit_range
from pulvinar.data.stimuli import Stimuli

GENERATOR = np.random.default_rng(0)
BYTES = GENERATOR.integers(0, 256, (5, 7, 8, 3), dtype=np.uint8)


def test_other_kinds_of_numbers_give_the_same_pixels():
    np.testing.assert_array_equal(as_pixels(BYTES, "x"), BYTES)
    np.testing.assert_array_equal(as_pixels(BYTES.astype(np.uint16) * 257, "x"), BYTES)
    np.testing.assert_array_equal(as_pixels(BYTES.astype(">u2") * np.array(16, ">u2"), "x", white=4080), BYTES)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(as_pixels((BYTES / 255).astype(kind), "x"), BYTES)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (BYTES.transpose(0, 3, 1, 2), r"channels stand first: numpy\.moveaxis\(x, 1, -1\)"),
        (BYTES[:, :3], "a height of 3 pixels cannot be told"),
        (BYTES[..., 0], r"grey becomes three equal channels with numpy\.repeat\(x\[\.\.\., None\], 3, axis=-1\)"),
        (BYTES[..., :1], r"numpy\.repeat\(x, 3, axis=-1\)"),
        (np.concatenate([BYTES, BYTES[..., :1]], -1), "a fourth channel is transparency"),
        (BYTES.astype(np.int64), r"x\.astype\('uint8'\)"),
        (BYTES.astype(np.float32), "0 to 255 came; numbers from 0 to 255 are divided by 255"),
        (BYTES / 255 - 0.5, r"pixels in \[0, 1\] are needed, -0.5"),
        (np.where(BYTES < 9, np.nan, BYTES / 255), "nan to nan came"),
        (BYTES / 255 / 255, "divided by 255 once more"),
        ((BYTES / 255).astype(np.uint8), "no pixel is above 1 of 255"),
        (BYTES.astype(np.uint16), "16 bits, but nothing is above 255 of 65535"),
        (BYTES[:, :0], "uint8"),
    ],
)
def test_what_has_no_one_meaning_is_refused(values, words):
    with pytest.raises(InputError, match=f"x: .*{words}"):
        as_pixels(values, "x")


def test_tensors_are_judged_alike():
    require_pixels(torch.from_numpy(BYTES), "x")
    require_pixels(BYTES[0], "x", n_axes=3)
    for wrong in (torch.from_numpy(BYTES / 255), torch.from_numpy(BYTES).permute(0, 3, 1, 2), torch.zeros(2, 5, 5, 3)):
        with pytest.raises(InputError, match="uint8"):
            require_pixels(wrong, "x")
    unit = torch.from_numpy(BYTES / 255)
    require_unit_range(unit, "x")
    for wrong in (unit * 1.01, unit - 0.01, unit * 255, torch.where(unit > 0.9, torch.nan, unit)):
        with pytest.raises(InputError, match=r"pixels in \[0, 1\]"):
            require_unit_range(wrong, "x")
    require_normalised((unit.permute(0, 3, 1, 2) - 0.45) / 0.05, "x")
    for wrong in (unit.permute(0, 3, 1, 2) * 255, unit, unit.permute(0, 3, 1, 2) * torch.nan):
        with pytest.raises(InputError, match="images"):
            require_normalised(wrong, "x: images")


def test_rounding_of_a_resize_is_no_error():
    values = np.array([-1e-3, 0.0, 1.0, 1.0 + 1e-3])
    np.testing.assert_array_equal(from_unit_range(values, "x"), [0, 0, 255, 255])


def test_images_of_hdf5_outside_of_their_range_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["unit"] = (BYTES.transpose(0, 3, 1, 2) / 255).astype(np.float16)
        file["bytes"] = BYTES.transpose(0, 3, 1, 2).astype(np.float32)
        file["first"] = BYTES.transpose(0, 3, 1, 2)
        file["narrow"] = BYTES[:, :3]
    np.testing.assert_array_equal(HDF5Images(tmp_path / "a.h5", "unit", [3])(0), BYTES[3])
    with pytest.raises(InputError, match=r"a\.h5: 'bytes', image 2 \(from 0\): pixels in \[0, 1\] are needed"):
        HDF5Images(tmp_path / "a.h5", "bytes", [2])(0)
    for name in ("first", "narrow"):
        with pytest.raises(InputError, match=f"'{name}' must be uint8"):
            HDF5Images(tmp_path / "a.h5", name, [0])


def test_an_image_that_was_never_written_to_hdf5_is_refused_when_it_is_read(tmp_path):
    """HDF5 would give black pixels."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = file.create_dataset("x", BYTES.shape, np.uint8, chunks=(1, *BYTES.shape[1:]))
        images[1] = BYTES[1]
    read = HDF5Images(tmp_path / "a.h5", "x", [1, 2])
    np.testing.assert_array_equal(read(0), BYTES[1])
    with pytest.raises(FileError, match="'x' is not whole: 1 of its 1 chunks were never written"):
        read(1)


@pytest.mark.parametrize("wrong", [BYTES[0] / 255, BYTES[0, ..., 0], BYTES[0].transpose(2, 0, 1), BYTES[0].tolist()])
def test_images_of_stimuli_are_looked_at_whatever_they_come_from(wrong):
    stimuli = Stimuli(ids=["a", "b"], sources=["a", "b"], read_image=[BYTES[0], wrong].__getitem__)
    np.testing.assert_array_equal(stimuli.image(0), BYTES[0])
    with pytest.raises(InputError, match="image of stimulus 'b': uint8"):
        stimuli.image(1)
