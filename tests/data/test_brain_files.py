"""Volumes and meshes. Oracles: nibabel's own scaled values, numpy indexing by the mask, the mesh that was written."""

import contextlib

import nibabel
import numpy as np
import pytest

from pulvinar.core import memory
from pulvinar.core.errors import ConfigError, FileError, InputError, PulvinarError
from pulvinar.data.brain_files import (
    Mask,
    read_mask,
    read_series_header,
    read_surface,
    read_volume,
    require_same_grid,
    values_inside,
)
from pulvinar.data.volume_series import open_series, read_series

GENERATOR = np.random.default_rng(0)
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])
INSIDE = GENERATOR.random((5, 4, 3)) < 0.5


def write(path, values, affine=AFFINE, *, slope=None, intercept=0.0, endian="<", seconds=None, unit="sec"):
    header = nibabel.Nifti1Header(endianness=endian)
    header.set_data_dtype(values.dtype.newbyteorder("="))
    image = nibabel.Nifti1Image(values, affine, header=header)
    if slope is not None:
        image.header.set_slope_inter(slope, intercept)
    if seconds is not None:
        image.header.set_zooms((2.0, 2.0, 2.0, seconds))
        image.header.set_xyzt_units("mm", unit)
    nibabel.save(image, path)
    return path


def mask_file(tmp_path, inside=INSIDE, affine=AFFINE, name="mask.nii.gz"):
    return write(tmp_path / name, inside.astype(np.uint8), affine)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_series_on_the_mask_agree_with_nibabel(tmp_path, dtype, endian, suffix):
    values = (GENERATOR.normal(size=(5, 4, 3, 6)) * 50 + 100).astype(dtype)
    path = write(tmp_path / f"x{suffix}", values, endian=endian)
    series, scale = read_series(path, read_mask(mask_file(tmp_path)))
    assert series.dtype == (np.int16 if dtype == np.int16 else np.float32)
    assert series.dtype.isnative
    assert scale == 1.0
    np.testing.assert_allclose(series, nibabel.load(path).get_fdata()[INSIDE].T, rtol=1e-6)


def test_int16_with_a_slope_stays_int16(tmp_path):
    stored = GENERATOR.integers(-3000, 3000, (5, 4, 3, 6)).astype(np.int16)
    image = nibabel.Nifti1Image(stored, AFFINE)
    image.header.set_slope_inter(1 / 300, 0)
    image.to_filename(tmp_path / "x.nii.gz")
    truth = nibabel.load(tmp_path / "x.nii.gz")
    series, scale = read_series(tmp_path / "x.nii.gz", read_mask(mask_file(tmp_path)))
    assert series.dtype == np.int16
    np.testing.assert_allclose(series * scale, truth.get_fdata()[INSIDE].T, rtol=1e-5, atol=1e-7)


def test_an_intercept_makes_float32(tmp_path):
    values = GENERATOR.normal(500, 3, (5, 4, 3, 6))
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)  # nibabel then chooses slope and intercept
    nibabel.save(nibabel.Nifti1Image(values, AFFINE, header), tmp_path / "x.nii.gz")
    assert read_volume(tmp_path / "x.nii.gz").intercept != 0
    series, scale = read_series(tmp_path / "x.nii.gz", read_mask(mask_file(tmp_path)))
    assert (series.dtype, scale) == (np.float32, 1.0)
    np.testing.assert_allclose(series, nibabel.load(tmp_path / "x.nii.gz").get_fdata()[INSIDE].T, rtol=1e-6)


def test_masks_count_what_is_above_zero(tmp_path):
    values = np.array([-1.0, 0.0, np.nan, 0.4, 3.0, 0.0]).reshape(1, 2, 3)
    mask = read_mask(write(tmp_path / "m.nii", values.astype(np.float32)))
    assert mask.inside.ravel().tolist() == [False, False, False, True, True, False]
    assert mask.n_voxels == 2
    one_volume = read_mask(write(tmp_path / "four.nii", INSIDE.astype(np.uint8)[..., None]))
    assert np.array_equal(one_volume.inside, INSIDE)
    with pytest.raises(InputError, match=r"zero\.nii: the mask is empty"):
        read_mask(write(tmp_path / "zero.nii", np.zeros((2, 2, 2), np.uint8)))
    with pytest.raises(InputError, match="one volume is needed, 6 came"):
        read_mask(write(tmp_path / "six.nii", np.ones((2, 2, 2, 6), np.uint8)))


def test_one_value_per_voxel(tmp_path):
    values = GENERATOR.normal(size=(5, 4, 3)).astype(np.float32)
    given = values_inside(read_volume(write(tmp_path / "nc.nii.gz", values)), read_mask(mask_file(tmp_path)))
    assert np.array_equal(given, values[INSIDE])


def test_other_grids_and_places_are_refused_with_both_files(tmp_path):
    mask = read_mask(mask_file(tmp_path))
    other = write(tmp_path / "betas.nii.gz", np.zeros((5, 4, 4, 2), np.float32))
    with pytest.raises(InputError, match=r"betas\.nii\.gz and .*mask\.nii\.gz .* \(5, 4, 4\) and \(5, 4, 3\) voxels"):
        read_series(other, mask)
    moved = AFFINE.copy()
    moved[0, 3] += 0.002
    away = write(tmp_path / "betas.nii.gz", np.zeros((5, 4, 3, 2), np.float32), moved)
    with pytest.raises(InputError, match=r"betas\.nii\.gz and .*mask\.nii\.gz .*affines .*90\.002.* and .*90\.0\]"):
        read_series(away, mask)
    require_same_grid(mask, tmp_path / "x", (5, 4, 3), AFFINE + 0.0009)  # within the tolerance


@pytest.mark.parametrize(
    ("seconds", "unit", "wanted"), [(2.5, "sec", 2.5), (2500.0, "msec", 2.5), (2.5, "unknown", 2.5), (0.0, "sec", None)]
)
def test_the_repetition_time_of_a_header(tmp_path, seconds, unit, wanted):
    path = write(tmp_path / "x.nii", np.zeros((2, 2, 2, 7), np.int16), seconds=seconds, unit=unit)
    assert read_series_header(path) == (7, wanted)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.nii", b"", "cannot be read as NIfTI"),
        ("x.nii.gz", b"", "cannot be read as NIfTI"),
        ("x.nii", b"a,b\n" * 200, "cannot be read as NIfTI"),
        ("x.nii.gz", b"a,b\n" * 200, "cannot be read as NIfTI"),
        ("x.mgz", b"", r"volumes are read from \.nii and \.nii\.gz, not from 'x\.mgz'"),
    ],
)
def test_foreign_files_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FileError, match=message):
        read_volume(tmp_path / name)
    with pytest.raises(FileError, match="no such volume"):
        read_volume(tmp_path / "nobody.nii")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_truncated_volumes_show_when_they_are_read(tmp_path, suffix):
    write(tmp_path / f"x{suffix}", GENERATOR.integers(0, 900, (5, 4, 3, 6)).astype(np.int16))
    whole = (tmp_path / f"x{suffix}").read_bytes()
    for length in range(0, len(whole) - 10, len(whole) // 30):
        (tmp_path / f"cut{suffix}").write_bytes(whole[:length])
        with pytest.raises(FileError, match="cut"):
            read_volume(tmp_path / f"cut{suffix}")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_flipped_bytes_never_end_in_a_foreign_error(tmp_path, suffix):
    write(tmp_path / f"x{suffix}", GENERATOR.integers(0, 900, (5, 4, 3, 6)).astype(np.int16))
    whole = (tmp_path / f"x{suffix}").read_bytes()
    mask = Mask(path=tmp_path / "m", inside=INSIDE, affine=AFFINE)
    generator = np.random.default_rng(1)
    for _ in range(150):
        content = bytearray(whole)
        for place in generator.integers(0, 352, 4):
            content[place] = generator.integers(256)
        (tmp_path / f"flipped{suffix}").write_bytes(content)
        with contextlib.suppress(PulvinarError):  # refused, or read: a flipped value is a value
            read_series(tmp_path / f"flipped{suffix}", mask)
            read_series_header(tmp_path / f"flipped{suffix}")


def write_mesh(path, points, faces):
    arrays = [
        nibabel.gifti.GiftiDataArray(points.astype(np.float32), intent="NIFTI_INTENT_POINTSET"),
        nibabel.gifti.GiftiDataArray(faces.astype(np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), path)
    return path


def test_two_hemispheres_are_counted_on(tmp_path):
    points, faces = GENERATOR.normal(size=(4, 3)).astype(np.float32), np.array([[0, 1, 2], [1, 2, 3]])
    left = write_mesh(tmp_path / "lh.surf.gii", points, faces)
    right = write_mesh(tmp_path / "rh.surf.gii", points + 50, faces[:1])
    both_points, both_faces = read_surface([left, right])
    assert np.array_equal(both_points, np.concatenate([points, points + 50]))
    assert both_faces.tolist() == [[0, 1, 2], [1, 2, 3], [4, 5, 6]]


def test_what_is_no_mesh_is_refused(tmp_path):
    data = nibabel.gifti.GiftiDataArray(np.zeros(4, np.float32), intent="NIFTI_INTENT_SHAPE")
    nibabel.save(nibabel.gifti.GiftiImage(darrays=[data]), tmp_path / "lh.shape.gii")
    with pytest.raises(InputError, match=r"lh\.shape\.gii: one 'pointset' array of shape \(n, 3\) is needed"):
        read_surface([tmp_path / "lh.shape.gii"])
    path = write_mesh(tmp_path / "lh.surf.gii", np.zeros((4, 3)), np.array([[0, 1, 2]]))
    whole = path.read_bytes()
    for length in range(0, len(whole) - 20, len(whole) // 20):
        (tmp_path / "cut.surf.gii").write_bytes(whole[:length])
        with pytest.raises(PulvinarError, match=r"cut\.surf\.gii"):
            read_surface([tmp_path / "cut.surf.gii"])
    with pytest.raises(FileError, match="surfaces are read from"):
        read_surface([write(tmp_path / "x.nii", np.zeros((2, 2, 2), np.uint8))])


@pytest.mark.parametrize("shape", [(5, 4, 3, 1, 6), (5, 4, 3, 6, 1), (5, 4, 3, 6, 1, 1), (5, 4, 3, 1, 1, 6)])
def test_more_axes_of_one_entry_each_are_taken(tmp_path, shape):
    """AFNI writes (x, y, z, 1, trial); oracle: nibabel's values without these axes."""
    path = write(tmp_path / "x.nii.gz", GENERATOR.normal(size=shape).astype(np.float32))
    series, _ = read_series(path, read_mask(mask_file(tmp_path)))
    np.testing.assert_array_equal(series, nibabel.load(path).get_fdata().reshape(5, 4, 3, 6)[INSIDE].T.astype(np.float32))
    assert read_series_header(path)[0] == 6


def test_two_long_axes_behind_the_third_are_refused(tmp_path):
    path = write(tmp_path / "x.nii.gz", np.zeros((5, 4, 3, 2, 6), np.float32))
    with pytest.raises(InputError, match=r"one of shape \(5, 4, 3, 2, 6\) came"):
        read_volume(path)


def test_cifti_is_no_volume(tmp_path):
    axes = (nibabel.cifti2.ScalarAxis(["a", "b"]), nibabel.cifti2.BrainModelAxis.from_mask(np.ones(7, bool), "CortexLeft"))
    nibabel.Cifti2Image(np.zeros((2, 7), np.float32), axes).to_filename(tmp_path / "x.dscalar.nii")
    for read in (read_volume, read_series_header):
        with pytest.raises(InputError, match=r"x\.dscalar\.nii: CIFTI, rows 2 x 7 greyordinates.*As responses it is named"):
            read(tmp_path / "x.dscalar.nii")


def test_the_tolerance_of_affines_can_be_set(tmp_path):
    moved = AFFINE.copy()
    moved[0, 3] += 0.002
    path = write(tmp_path / "x.nii.gz", GENERATOR.normal(size=(5, 4, 3, 6)).astype(np.float32), moved)
    mask = mask_file(tmp_path)
    with pytest.raises(InputError, match=r"differ by up to 0\.002, and 0\.001 is allowed.*set affine_tolerance"):
        read_series(path, read_mask(mask))
    assert read_series(path, read_mask(mask, tolerance=0.01))[0].shape == (6, INSIDE.sum())
    moved[0, 3] += 0.1
    with pytest.raises(InputError, match="not in the same place"):
        read_series(write(path, np.zeros((5, 4, 3, 6), np.float32), moved), read_mask(mask, tolerance=0.01))


def test_values_that_single_precision_cannot_tell_apart_are_refused(tmp_path):
    """float32 keeps 1e6 to .0625: noise of .1 is lost there, noise of 100 is not; what is constant stays constant."""
    noise = GENERATOR.normal(size=(5, 4, 3, 60))
    mask = read_mask(mask_file(tmp_path))
    with pytest.raises(InputError, match=r"x\.nii\.gz: \d+ of \d+ voxels lose their differences in single precision"):
        read_series(write(tmp_path / "x.nii.gz", 1e6 + 0.1 * noise), mask)
    for values in (1e6 + 100 * noise, 0.1 * noise, np.full((5, 4, 3, 60), 1e6 + 0.1)):
        series, _ = read_series(write(tmp_path / "x.nii.gz", values), mask)
        np.testing.assert_allclose(series, values[INSIDE].T, rtol=1e-6)


def test_a_mask_of_shares_is_said(tmp_path, capsys):
    write(tmp_path / "mask.nii.gz", np.where(INSIDE, 0.7, 1e-6).astype(np.float32))
    assert read_mask(tmp_path / "mask.nii.gz").n_voxels == 60
    assert "holds shares between 0 and 1; every voxel above 0 is inside, 60 of 60" in capsys.readouterr().err
    write(tmp_path / "atlas.nii.gz", np.where(INSIDE, 3, 1).astype(np.int16))
    assert read_mask(tmp_path / "atlas.nii.gz").n_voxels == 60
    assert "holds 2 values above 0 (1 to 3; labels?); every voxel" in capsys.readouterr().err
    read_mask(mask_file(tmp_path))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "unit", "found"), [(0.8, "sec", 0.8), (1.3, "sec", 1.3), (1300.0, "msec", 1.3)])
def test_a_repetition_time_in_single_precision_is_what_was_meant(tmp_path, seconds, unit, found):
    write(tmp_path / "run.nii", np.zeros((2, 2, 2, 3), np.float32), seconds=seconds, unit=unit)
    assert read_series_header(tmp_path / "run.nii") == (3, found)


def test_a_volume_without_a_place_is_said(tmp_path, capsys):
    import nibabel

    image = nibabel.Nifti1Image(np.ones((3, 4, 5), np.uint8), np.diag([2.0, 2, 2, 1]))
    nibabel.save(image, tmp_path / "placed.nii")
    image.header["sform_code"] = image.header["qform_code"] = 0
    (tmp_path / "nowhere.nii").write_bytes(image.to_bytes())
    unplaced = bytearray((tmp_path / "nowhere.nii").read_bytes())
    unplaced[252:256] = bytes(4)
    (tmp_path / "nowhere.nii").write_bytes(bytes(unplaced))
    read_volume(tmp_path / "placed.nii")
    assert "does not say where" not in capsys.readouterr().err
    read_volume(tmp_path / "nowhere.nii")
    assert "nowhere.nii: its header does not say where the voxels lie" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.int16, np.float32, np.float64])
def test_series_read_within_little_memory_are_the_same(tmp_path, dtype, monkeypatch):
    """Through a scratch file; and some volumes at a time, one after the other."""
    monkeypatch.setattr(memory, "resident", lambda: 10**9)
    monkeypatch.setattr(memory, "SHARE", 0.0)  # everything is too large
    values = (GENERATOR.normal(size=(5, 4, 3, 9)) * 50 + 100).astype(dtype)
    path, mask = write(tmp_path / "x.nii.gz", values), read_mask(mask_file(tmp_path))
    plain, scale = read_series(path, mask)
    with memory.using("2GB"):
        through_a_file, same_scale = read_series(path, mask)
        assert isinstance(through_a_file, np.memmap)
        np.testing.assert_array_equal(through_a_file, plain)
        assert same_scale == scale
        series, index = open_series(path), np.argwhere(INSIDE)
        monkeypatch.setattr(memory, "block_size", lambda *size, most, **others: 2)
        blocks = list(series.blocks(index))
        assert [len(block) for block in blocks] == [2, 2, 2, 2, 1]
        np.testing.assert_array_equal(np.concatenate(blocks), plain * np.float32(scale))


def test_a_volume_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    path, mask = write(tmp_path / "x.nii.gz", np.ones((5, 4, 3, 9), np.float32)), read_mask(mask_file(tmp_path))
    with memory.using("4GB"):
        monkeypatch.setattr(memory, "resident", lambda: 4 * 10**9 - memory.MARGIN)
        with pytest.raises(ConfigError, match=r"memory=4GB: a volume of .*x\.nii\.gz needs 4.*GB or more"):
            read_series(path, mask)
