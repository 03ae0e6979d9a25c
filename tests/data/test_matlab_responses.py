"""Responses in MATLAB files with a named order of axes. Oracle: the formula of `planted_study`; files of both versions."""

import h5py
import numpy as np
import pytest
import scipy.io

import planted_study as study
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.data.matlab_files import write_matlab_7_3
from pulvinar.datasets.arrays import read_description

N_VOXELS = 37


def write(path, version, **arrays):
    if version == "5":
        scipy.io.savemat(path, arrays)
    else:
        write_matlab_7_3(path, arrays)


@pytest.fixture(params=["5", "7.3"])
def folder(tmp_path, request):
    np.save(tmp_path / "xyz.npy", np.random.default_rng(0).normal(size=(N_VOXELS, 3)) * 20)
    write(tmp_path / "rows.mat", request.param, betas=study.values(N_VOXELS))
    write(tmp_path / "columns.mat", request.param, betas=study.values(N_VOXELS).T)
    square = study.values(study.N_TRIALS)
    write(tmp_path / "square.mat", request.param, betas=square)
    write(tmp_path / "turned.mat", request.param, betas=square.T)
    np.save(tmp_path / "square.npy", np.random.default_rng(0).normal(size=(study.N_TRIALS, 3)))
    roi = (np.arange(N_VOXELS) % 3 == 0).astype(float)[:, None]
    write(tmp_path / "two.mat", request.param, betas=study.values(N_VOXELS), V1=roi, nc=roi.T / 2)
    return tmp_path


def opened(folder, lines, places="xyz.npy"):
    return read_description(study.write(folder, f'{lines}\ncoordinates = "{places}"')).subjects["sub-01"]


@pytest.mark.parametrize(
    "lines",
    [
        'responses = "rows.mat"',
        'responses = "rows.mat"\naxes = "trial,voxel"',
        'responses = "columns.mat"\naxes = "voxel,trial"',
        'responses = "columns.mat"\naxes = "Voxel, Trial"',
        'responses = { file = "two.mat", array = "betas" }',
    ],
)
def test_the_order_of_axes_is_that_of_matlab_in_both_versions(folder, lines):
    study.probe(opened(folder, lines), np.arange(N_VOXELS))


def test_a_square_array_is_read_only_in_a_named_order(folder):
    with pytest.raises(InputError, match=r"is it \(trial, voxel\) or \(voxel, trial\)"):
        opened(folder, 'responses = "square.mat"', "square.npy")
    for name, axes in (("square", "trial,voxel"), ("turned", "voxel,trial")):
        found = opened(folder, f'responses = "{name}.mat"\naxes = "{axes}"', "square.npy")
        study.probe(found, np.arange(study.N_TRIALS))


def test_vectors_of_matlab_are_masks_and_ceilings(folder):
    two = '{ file = "two.mat", array = "%s" }'
    lines = f"responses = {two % 'betas'}\nrois.V1 = {two % 'V1'}\nnoise_ceiling = {two % 'nc'}"
    found = opened(folder, lines)
    study.probe(found, np.arange(N_VOXELS), {"V1": np.arange(N_VOXELS) % 3 == 0})
    np.testing.assert_allclose(found.noise_ceiling, (np.arange(N_VOXELS) % 3 == 0) / 2)


@pytest.mark.parametrize(
    ("lines", "match"),
    [
        ('responses = "columns.mat"', r"looks like \(voxel, trial\).*say axes = 'voxel,trial'"),
        ('responses = "rows.mat"\naxes = "voxel,trial"', "leave axes out"),
        ('responses = "rows.mat"\naxes = "voxel,time"', "axes is one of"),
        ('responses = "two.mat"', "holds 3 numeric arrays"),
        ('responses = { file = "two.mat", array = "beta" }', "no numeric array 'beta'; there are: .*betas"),
        ('responses = "rows.mat"\nvertices = "rows.mat"', "vertices"),
    ],
)
def test_mistakes(folder, lines, match):
    with pytest.raises((InputError, ConfigError, NotFoundError), match=match):
        opened(folder, lines)


def test_types(tmp_path):
    np.save(tmp_path / "xyz.npy", np.random.default_rng(0).normal(size=(N_VOXELS, 3)) * 20)
    whole = np.round(study.values(N_VOXELS) / 2).astype(np.int16)
    for version in ("5", "7.3"):
        write(tmp_path / "b.mat", version, betas=whole)
        found = opened(tmp_path, 'responses = "b.mat"\nscale = 0.5')
        assert found.values.dtype == np.int16
        np.testing.assert_array_equal(found.read(np.arange(study.N_TRIALS)), whole * np.float32(0.5))
        write(tmp_path / "b.mat", version, betas=whole.astype(np.int64) % 5 + 2**30)
        with pytest.raises(InputError, match="lose their differences in single precision"):
            opened(tmp_path, 'responses = "b.mat"')
    scipy.io.savemat(tmp_path / "b.mat", {"betas": study.values(N_VOXELS).astype(complex)})
    with pytest.raises((InputError, NotFoundError), match="numeric arrays"):
        opened(tmp_path, 'responses = "b.mat"')
    (tmp_path / "b.mat").write_bytes((tmp_path / "b.mat").read_bytes()[:200])
    with pytest.raises(FileError, match=r"b\.mat"):
        opened(tmp_path, 'responses = "b.mat"')


def test_what_h5py_sees_reversed_is_turned_back_once(tmp_path):
    """Oracle: HDF5 stores a MATLAB array (voxel, trial) as (trial, voxel)."""
    write_matlab_7_3(tmp_path / "b.mat", {"betas": study.values(N_VOXELS).T})
    with h5py.File(tmp_path / "b.mat") as file:
        assert file["betas"].shape == (study.N_TRIALS, N_VOXELS)
    np.save(tmp_path / "xyz.npy", np.random.default_rng(0).normal(size=(N_VOXELS, 3)) * 20)
    study.probe(opened(tmp_path, 'responses = "b.mat"\naxes = "voxel,trial"'), np.arange(N_VOXELS))
