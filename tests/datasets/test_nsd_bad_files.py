"""Damaged and mistaken files of an NSD folder: each is refused with the name of the file and what is wrong."""

import gzip
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io

from pulvinar.core.errors import DegenerateError, FileError, InputError, NotFoundError, PulvinarError
from pulvinar.datasets.nsd import load


def hdf5(written, session: int = 1, subject: str = "subj01") -> Path:
    return written.betas_folder(subject) / f"betas_session{session:02d}.hdf5"


def replace_hdf5(path: Path, values: np.ndarray, name: str = "betas") -> None:
    path.unlink()
    with h5py.File(path, "w") as file:
        file[name] = values


def replace_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    path.unlink()
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def read_all(written, query: str = "") -> np.ndarray:
    responses = load(f"{written.root}?subjects=1&{query}").subjects["subj01"]
    return responses.read(np.arange(responses.n_trials))


def test_a_gap_in_the_sessions_is_named_or_skipped(spoilt_nsd):
    hdf5(spoilt_nsd, 1).unlink()
    with pytest.raises(FileError, match=r"betas_session01 is missing \(subj01 has sessions 2\)"):
        load(f"{spoilt_nsd.root}?subjects=1")
    responses = load(f"{spoilt_nsd.root}?subjects=1&missing=skip").subjects["subj01"]
    assert responses.values.trial_numbers.tolist() == list(range(750, 1500))
    assert responses.stimulus_ids[0] == f"nsd{spoilt_nsd.image('subj01', 750):05d}"
    brain = spoilt_nsd.betas["subj01"][0].any(0)
    expected = spoilt_nsd.betas["subj01"][1][3][brain] / 300
    np.testing.assert_allclose(responses.read(np.array([3]))[0], expected, rtol=1e-6)


def test_more_sessions_than_there_are(nsd):
    with pytest.raises(FileError, match="betas_session03 is missing"):
        load(f"{nsd.root}?sessions=3")


def test_axes_in_nifti_order_inside_hdf5(spoilt_nsd):
    replace_hdf5(hdf5(spoilt_nsd), spoilt_nsd.betas["subj01"][0])
    with pytest.raises(InputError, match=r"session01.*\(6, 7, 5\).*\(5, 7, 6\).*axes are in another order"):
        read_all(spoilt_nsd)


def test_betas_of_another_subject(spoilt_nsd):
    replace_hdf5(hdf5(spoilt_nsd), np.zeros((750, 6, 8, 5), np.int16))
    with pytest.raises(InputError, match=r"\(5, 8, 6\).*brainmask.*\(5, 7, 6\); another subject"):
        read_all(spoilt_nsd)
    path = spoilt_nsd.betas_folder("subj01") / "betas_session01.nii.gz"
    moved = np.eye(4)
    replace_nifti(path, spoilt_nsd.betas["subj01"][0].transpose(1, 2, 3, 0), moved)
    with pytest.raises(InputError, match=r"session01\.nii\.gz: affine"):
        read_all(spoilt_nsd, "format=nifti")
    brain = spoilt_nsd.betas["subj01"][0].any(0)
    expected = spoilt_nsd.betas["subj01"][0][:, brain] / 300
    np.testing.assert_allclose(read_all(spoilt_nsd, "format=nifti&check_affine=false")[:750], expected, rtol=1e-6)


def test_another_number_of_trials(spoilt_nsd):
    replace_hdf5(hdf5(spoilt_nsd), np.zeros((749, 6, 7, 5), np.int16))
    with pytest.raises(InputError, match="749 trials; a session of NSD has 750"):
        read_all(spoilt_nsd)


def test_betas_already_in_percent(spoilt_nsd):
    replace_hdf5(hdf5(spoilt_nsd), np.zeros((750, 6, 7, 5), np.float32))
    with pytest.raises(InputError, match=r"int16 \(trial, z, y, x\), float32"):
        read_all(spoilt_nsd)
    image = nibabel.Nifti1Image(spoilt_nsd.betas["subj01"][0].transpose(1, 2, 3, 0), np.diag([1.8, 1.8, 1.8, 1]))
    image.header.set_slope_inter(1 / 300, 0)
    path = spoilt_nsd.betas_folder("subj01") / "betas_session01.nii.gz"
    path.unlink()
    nibabel.save(image, path)
    with pytest.raises(InputError, match="without a scale in the header"):
        read_all(spoilt_nsd, "format=nifti")


@pytest.mark.parametrize("left", [0.02, 0.5, 0.99])
def test_hdf5_cut_short(spoilt_nsd, left):
    path = hdf5(spoilt_nsd)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(FileError, match=r"session01\.hdf5: cannot be read as HDF5"):
        read_all(spoilt_nsd)


def test_nifti_cut_short(spoilt_nsd):
    path = spoilt_nsd.betas_folder("subj01") / "betas_session01.nii.gz"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match=r"session01\.nii\.gz"):
        read_all(spoilt_nsd, "format=nifti")
    path.write_bytes(gzip.compress(gzip.decompress(content)[:-2], 1))
    with pytest.raises(FileError, match="truncated: trial 749 of 750 is not whole"):
        read_all(spoilt_nsd, "format=nifti")


def test_a_stimulus_file_that_is_too_small_or_another(spoilt_nsd):
    path = spoilt_nsd.root / "nsddata_stimuli" / "stimuli" / "nsd" / "nsd_stimuli.hdf5"
    replace_hdf5(path, np.zeros((50, 4, 4, 3), np.uint8), "imgBrick")
    with pytest.raises(InputError, match=r"'imgBrick' has 50 images, but image \d+ \(from 0\) was shown"):
        load(str(spoilt_nsd.root))
    replace_hdf5(path, np.zeros((50, 4, 4), np.uint8), "imgBrick")
    with pytest.raises(InputError, match=r"uint8 \(image, height, width, 3\)"):
        load(str(spoilt_nsd.root))
    replace_hdf5(path, np.zeros((50, 4, 4, 3), np.uint8), "images")
    with pytest.raises(NotFoundError, match="no dataset 'imgBrick'; there are: images"):
        load(str(spoilt_nsd.root))


def test_vertices_that_are_not_numbers_are_named(spoilt_nsd):
    path = spoilt_nsd.betas_folder("subj01", "fsaverage") / "rh.betas_session02.mgh"
    values = spoilt_nsd.surface["subj01"][1, 6:].copy()
    values[2, 5] = np.nan
    path.unlink()
    nibabel.save(nibabel.freesurfer.MGHImage(values.reshape(5, 1, 1, 750), np.eye(4)), path)
    responses = load(f"{spoilt_nsd.root}?space=fsaverage&subjects=1").subjects["subj01"]
    with pytest.raises(DegenerateError, match=r"1 voxels are constant, NaN or infinite.*\[8\]"):
        responses.require_good_voxels(np.arange(1500))


def test_an_ncsnr_that_is_not_a_number_is_a_ceiling_of_zero(spoilt_nsd):
    values = spoilt_nsd.ncsnr["subj01"].copy()
    values[2, 3, 4] = np.nan
    path = spoilt_nsd.betas_folder("subj01") / "ncsnr.nii.gz"
    affine = nibabel.load(path).affine
    replace_nifti(path, values, affine)
    responses = load(str(spoilt_nsd.root)).subjects["subj01"]
    assert responses.noise_ceiling[(responses.geometry.index == [2, 3, 4]).all(1)] == 0
    assert np.isfinite(responses.noise_ceiling).all()


def test_a_mesh_of_one_hemisphere(spoilt_nsd):
    (spoilt_nsd.betas_folder("subj01", "fsaverage") / "rh.betas_session02.mgh").unlink()
    with pytest.raises(FileError, match=r"rh\.betas_session02\.mgh: no such session"):
        load(f"{spoilt_nsd.root}?space=fsaverage")


def change_tables(written, **changes) -> None:
    path = written.root / "nsddata" / "experiments" / "nsd" / "nsd_expdesign.mat"
    tables = {"masterordering": written.order[None], "subjectim": written.images, "sharedix": written.images[:1, :1000]}
    tables |= changes
    path.unlink()
    scipy.io.savemat(path, {name: values for name, values in tables.items() if values is not None})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {"masterordering": w.order[None] - 1}, "masterordering counts from 1 to 10000, 0 to 9999 came.*from 0"),
        (lambda w: {"subjectim": w.images - 1, "sharedix": w.images[:1, :1000] - 1}, "subjectim counts from 1 to 73000, 0 to"),
        (lambda w: {"subjectim": w.images[:, ::-1]}, "first 1000 columns of subjectim"),
        (lambda w: {"subjectim": w.images.T}, "subjectim is|masterordering counts from 1 to 8"),
        (lambda w: {"sharedix": None}, "no variable sharedix"),
    ],
)
def test_tables_that_are_not_nsds(spoilt_nsd, change, message):
    change_tables(spoilt_nsd, **change(spoilt_nsd))
    with pytest.raises(FileError, match=message):
        load(str(spoilt_nsd.root))


def test_roi_codes_below_minus_one_and_other_grids(spoilt_nsd):
    path = spoilt_nsd.root / "nsddata" / "ppdata" / "subj01" / "func1pt8mm" / "roi" / "nsdgeneral.nii.gz"
    affine = nibabel.load(path).affine
    replace_nifti(path, np.full((5, 7, 6), -2, np.int16), affine)
    with pytest.raises(InputError, match="whole numbers from -1"):
        load(str(spoilt_nsd.root))
    replace_nifti(path, np.full((7, 5, 6), 1, np.int16), affine)
    with pytest.raises(InputError, match=r"nsdgeneral.*axes are in another order"):
        load(str(spoilt_nsd.root))


def test_a_box_and_a_region_that_are_not_there(nsd):
    with pytest.raises(NotFoundError, match="did you mean 'nsdgeneral'"):
        load(f"{nsd.root}?voxels=nsdgenerl")
    with pytest.raises(InputError, match="within the grid"):
        load(f"{nsd.root}?box=0:9,0:2,0:2")
    with pytest.raises(InputError, match="no voxel is left"):
        load(f"{nsd.root}?box=0:1,0:2,0:2")


def test_features_of_another_length(nsd, tmp_path):
    np.save(tmp_path / "short.npy", np.zeros((100, 3), np.float32))
    with pytest.raises(InputError, match="100 rows; one for each of the 73000 images"):
        load(f"{nsd.root}?features={tmp_path / 'short.npy'}")
    with h5py.File(tmp_path / "several.h5", "w") as file:
        file["a"], file["b"] = np.arange(73_000.0)[:, None], np.zeros((73_000, 1))
    with pytest.raises(NotFoundError, match="there are: a, b"):
        load(f"{nsd.root}?features={tmp_path / 'several.h5'}")
    stimuli = load(f"{nsd.root}?features={tmp_path / 'several.h5'}:a").stimuli
    np.testing.assert_array_equal(stimuli.feature("a")[:, 0], [int(name[3:]) for name in stimuli.ids])


BETAS = "nsddata_betas/ppdata/subj01/{}/betas_fithrf_GLMdenoise_RR/"
FSAVERAGE = "nsddata/freesurfer/fsaverage/"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("nsddata/experiments/nsd/nsd_expdesign.mat", ""),
        ("nsddata/ppdata/subj01/func1pt8mm/brainmask.nii.gz", ""),
        ("nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz", ""),
        ("nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", ""),
        ("features/clip.npy", ""),
        (BETAS.format("func1pt8mm") + "ncsnr.nii.gz", ""),
        (BETAS.format("func1pt8mm") + "betas_session02.hdf5", ""),
        (BETAS.format("func1pt8mm") + "betas_session02.nii.gz", "format=nifti"),
        (BETAS.format("fsaverage") + "lh.betas_session02.mgh", "space=fsaverage"),
        (FSAVERAGE + "surf/rh.white", "space=fsaverage"),
        (FSAVERAGE + "label/rh.nsdgeneral.mgz", "space=fsaverage"),
    ],
)
@pytest.mark.parametrize("left", [0.0, 0.3, 0.6])
def test_every_file_cut_short_is_named(spoilt_nsd, name, query, left):
    path = spoilt_nsd.root / name
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: int(left * len(content))])
    with pytest.raises(PulvinarError, match=path.name):
        read_all(spoilt_nsd, query)


def test_two_files_of_one_session_are_refused(spoilt_nsd):
    place = spoilt_nsd.betas_folder("subj01")
    (place / "betas_session1.hdf5").symlink_to(place / "betas_session01.hdf5")
    with pytest.raises(InputError, match=r"betas_session01\.hdf5 and betas_session1\.hdf5 are one session"):
        load(str(spoilt_nsd.root))
