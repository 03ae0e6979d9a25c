"""Your own data, from description to experiment. Oracle: the arrays that were written, voxel by voxel."""

import json
import re
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
from PIL import Image

from pulvinar.core.errors import DegenerateError, FileError, InputError, LeakError, NotFoundError, PulvinarError
from pulvinar.data.experiment import load, save
from pulvinar.data.geometry import Geometry
from pulvinar.data.inspect import inspect
from pulvinar.data.splits import Split, split_by_source
from pulvinar.datasets.arrays import from_arrays, read_description

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"
GENERATOR = np.random.default_rng(0)
IDS = [f"im{row:02d}" for row in range(10)]
SHOWN = IDS * 2
AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2.5, -72], [0, 0, 0, 1]])
INSIDE = GENERATOR.random((4, 5, 3)) < 0.5
VOLUME = GENERATOR.normal(size=(4, 5, 3, 20)).astype(np.float32)
HEAD = """
name = "mystudy"
[stimuli]
table = "stimuli.csv"
features.clip = "clip.npy"
[split]
test_share = 0.3
"""
NIFTI = """
[[subject]]
name = "sub-01"
responses = "betas.nii.gz"
mask = "mask.nii.gz"
trials = "trials.csv"
"""


def nifti(path, values, affine=AFFINE):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


@pytest.fixture
def folder(tmp_path):
    nifti(tmp_path / "betas.nii.gz", VOLUME)
    nifti(tmp_path / "mask.nii.gz", INSIDE.astype(np.uint8))
    (tmp_path / "trials.csv").write_text(
        "stimulus,session\n" + "".join(f"{name},{row // 10}\n" for row, name in enumerate(SHOWN))
    )
    (tmp_path / "stimuli.csv").write_text("id,source\n" + "".join(f"{name},p{row // 2}\n" for row, name in enumerate(IDS)))
    np.save(tmp_path / "clip.npy", GENERATOR.normal(size=(10, 6)))
    return tmp_path


def read(folder, text):
    (folder / "study.toml").write_text(text)
    return read_description(folder / "study.toml")


def test_nifti_with_a_mask_goes_through_the_folder_and_back(folder):
    roi = (GENERATOR.random((4, 5, 3)) < 0.4).astype(np.float32)
    ceiling = GENERATOR.random((4, 5, 3))
    nifti(folder / "roi.nii.gz", roi)
    nifti(folder / "ceiling.nii", ceiling)
    experiment = read(folder, HEAD + NIFTI + 'rois.V1 = "roi.nii.gz"\nnoise_ceiling = "ceiling.nii"\n')
    save(experiment, folder / "saved")
    for given in (experiment, load(folder / "saved")):
        responses = given.subjects["sub-01"]
        assert np.array_equal(responses.values, VOLUME[INSIDE].T)
        assert list(responses.stimulus_ids) == SHOWN
        assert responses.sessions.tolist() == [0] * 10 + [1] * 10
        assert np.array_equal(responses.rois["V1"], roi[INSIDE] > 0)
        np.testing.assert_allclose(responses.noise_ceiling, ceiling[INSIDE], rtol=1e-6)
        for voxel in (0, 7, responses.n_voxels - 1):  # each voxel stands where the affine says
            i, j, k = responses.geometry.index[voxel]
            assert np.array_equal(VOLUME[i, j, k], responses.values[:, voxel])
            assert np.allclose(responses.geometry.coordinates[voxel], [90 - 2 * i, -126 + 2 * j, -72 + 2.5 * k])
    assert experiment.split == split_by_source(experiment.stimuli, test_share=0.3, seed=0)
    assert (experiment.name, experiment.target) == ("mystudy", "sub-01")
    assert inspect(experiment)["subjects"]["sub-01"]["repeats"] == {"2": 10}


def test_several_files_follow_each_other(folder):
    nifti(folder / "one.nii.gz", VOLUME[..., :12])
    nifti(folder / "two.nii", VOLUME[..., 12:19])
    nifti(folder / "three.nii", VOLUME[..., 19])  # a single volume is a single trial
    text = NIFTI.replace('"betas.nii.gz"', '["one.nii.gz", "two.nii", "three.nii"]')
    assert np.array_equal(read(folder, HEAD + text).subjects["sub-01"].values, VOLUME[INSIDE].T)


@pytest.mark.parametrize("names", [("one.nii.gz", "one.nii.gz"), ("one.nii.gz", "copy.nii.gz")])
def test_a_run_that_comes_twice_is_refused(folder, names):
    for name in ("one.nii.gz", "copy.nii.gz"):
        nifti(folder / name, VOLUME[..., :10])
    text = NIFTI.replace('"betas.nii.gz"', f'["{names[0]}", "{names[1]}"]')
    with pytest.raises(InputError, match=rf"{names[0]} and .*{names[1]} hold the same numbers; a run is listed twice"):
        read(folder, HEAD + text)


def test_int16_files_of_one_scale_stay_int16(folder):
    stored = GENERATOR.integers(-3000, 3000, (4, 5, 3, 20)).astype(np.int16)
    for name, part in (("one.nii.gz", stored[..., :12]), ("two.nii.gz", stored[..., 12:])):
        image = nibabel.Nifti1Image(part, AFFINE)
        image.header.set_slope_inter(0.5, 0)
        nibabel.save(image, folder / name)
    text = NIFTI.replace('"betas.nii.gz"', '["one.nii.gz", "two.nii.gz"]')
    responses = read(folder, HEAD + text + "scale = 0.1\n").subjects["sub-01"]
    truth = np.concatenate([nibabel.load(folder / name).get_fdata() for name in ("one.nii.gz", "two.nii.gz")], axis=3)
    assert responses.values.dtype == np.int16
    np.testing.assert_allclose(responses.read(np.arange(20)), 0.1 * truth[INSIDE].T, rtol=1e-5)


@pytest.mark.parametrize("form", ["volume", "list", "list on points"])
def test_glmsingle_hdf5_with_nan_outside_the_brain(folder, form, capsys):
    betas = VOLUME.copy()
    betas[0] = np.nan
    flat = form != "volume"
    with h5py.File(folder / "TYPED_FITHRF_GLMDENOISE_RR.hdf5", "w") as file:
        file["betasmd"] = betas[INSIDE].reshape(-1, 1, 1, 20) if flat else betas
        file["R2"] = np.zeros(3)
    np.save(folder / "xyz.npy", np.argwhere(INSIDE))
    text = NIFTI.replace("betas.nii.gz", "TYPED_FITHRF_GLMDENOISE_RR.hdf5")
    if form == "list on points":
        text = text.replace('mask = "mask.nii.gz"', 'coordinates = "xyz.npy"')
    with pytest.raises(DegenerateError, match=r"sub-01: \d+ voxels are constant, NaN.*drop_bad_voxels=true"):
        read(folder, HEAD + text)
    responses = read(folder, HEAD + text + "drop_bad_voxels = true\n").subjects["sub-01"]
    kept = INSIDE.copy()
    kept[0] = False
    assert np.array_equal(responses.values, VOLUME[kept].T)
    assert f"{INSIDE[0].sum()} of {INSIDE.sum()} voxels dropped" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["b.npy", "b.npz", "b.h5"])
def test_plain_arrays_stay_on_disk_where_they_can(folder, name):
    values = VOLUME[INSIDE].T
    np.save(folder / "b.npy", values)
    np.savez(folder / "b.npz", betas=values)
    with h5py.File(folder / "b.h5", "w") as file:
        file["betas"], file["other"] = values, values + 1
    place = '{ file = "b.h5", array = "betas" }' if name == "b.h5" else f'"{name}"'
    responses = read(folder, HEAD + NIFTI.replace('"betas.nii.gz"', place)).subjects["sub-01"]
    assert isinstance(responses.values, np.memmap) == (name != "b.npz")
    assert np.array_equal(responses.values, values)
    assert np.array_equal(responses.geometry.index, np.argwhere(INSIDE))


def test_float64_becomes_float32_and_points_and_surfaces_are_places(folder):
    values = VOLUME[INSIDE].T.astype(np.float64)[:, :6]
    np.save(folder / "b.npy", values)
    points = np.random.default_rng(3).normal(size=(8, 3)).astype(np.float32)
    np.save(folder / "xyz.npy", points[2:])
    arrays = [
        nibabel.gifti.GiftiDataArray(points, intent="NIFTI_INTENT_POINTSET"),
        nibabel.gifti.GiftiDataArray(np.array([[0, 1, 2]], np.int32), intent="NIFTI_INTENT_TRIANGLE"),
    ]
    nibabel.save(nibabel.gifti.GiftiImage(darrays=arrays), folder / "lh.surf.gii")
    np.save(folder / "vertices.npy", np.arange(2, 8))
    np.save(folder / "roi.npy", np.arange(6) > 3)
    text = NIFTI.replace("betas.nii.gz", "b.npy").replace(
        'mask = "mask.nii.gz"', 'coordinates = "xyz.npy"\nrois.V1 = "roi.npy"'
    )
    surface = text.replace("sub-01", "sub-02").replace(
        'coordinates = "xyz.npy"', 'surface = "lh.surf.gii"\nvertices = "vertices.npy"'
    )
    experiment = read(folder, HEAD + text + surface)
    for responses, kind in zip(experiment.subjects.values(), ("points", "surface"), strict=True):
        assert responses.values.dtype == np.float32
        np.testing.assert_allclose(responses.values, values, rtol=1e-6)
        assert responses.geometry.kind == kind
        np.testing.assert_allclose(responses.geometry.coordinates, points[2:], rtol=1e-6)
        assert responses.rois["V1"].tolist() == [False] * 4 + [True] * 2
    assert experiment.target == "sub-02"


def test_images_and_the_split_of_a_table(folder):
    (folder / "images").mkdir()
    pixels = [GENERATOR.integers(0, 255, (6 + row, 7, 3), dtype=np.uint8) for row in range(10)]
    for name, image in zip(IDS, pixels, strict=True):
        Image.fromarray(image).save(folder / "images" / f"{name}.png")
    sides = ["train"] * 6 + ["test"] * 3 + [""]
    (folder / "stimuli.csv").write_text("id,split\n" + "".join(f"{n},{s}\n" for n, s in zip(IDS, sides, strict=True)))
    head = HEAD.replace("test_share = 0.3", "").replace("features.clip", 'images = "images"\nfeatures.clip')
    experiment = read(folder, head + NIFTI)
    assert experiment.split == Split(train=tuple(IDS[:6]), test=tuple(IDS[6:9]))
    assert all(np.array_equal(experiment.stimuli.image(row), pixels[row]) for row in range(10))
    with pytest.raises(InputError, match=r"has a column 'split' and split\.test_share is set too"):
        read(folder, HEAD + NIFTI)
    Image.fromarray(pixels[0]).save(folder / "images" / f"{IDS[7]}.png")
    with pytest.raises(LeakError, match=r"share their pixels .* 'im00' .* 'im07'"):
        read(folder, head + NIFTI)


def test_the_background_of_transparent_pictures_is_a_setting_and_stands_in_the_facts(folder):
    (folder / "images").mkdir()
    shares = GENERATOR.integers(0, 255, (10, 6, 7), dtype=np.uint8)
    for name, share in zip(IDS, shares, strict=True):
        Image.fromarray(np.dstack([np.zeros((6, 7, 3), np.uint8), share])).save(folder / "images" / f"{name}.png")
    for background, expected in (("white", 255 - shares), ("black", None), ("pink", None)):
        head = HEAD.replace("features.clip", f'images = "images"\nbackground = "{background}"\nfeatures.clip')
        if expected is None:  # black ink on black; a colour that is none
            with pytest.raises(PulvinarError, match=r"its drawing vanishes|stimuli\.background: white, black"):
                read(folder, head + NIFTI)
            continue
        experiment = read(folder, head + NIFTI)
        np.testing.assert_array_equal(experiment.stimuli.image(3)[..., 1], expected[3])
        said = "10 of 10 pictures: transparent pixels put on white (e.g. im00.png)"
        assert experiment.facts["images"] == said
        assert inspect(experiment)["stimuli"]["image_notes"] == [said]


def test_no_split_at_all_is_refused_with_the_two_ways(folder):
    with pytest.raises(InputError, match="which stimuli are for the test"):
        read(folder, HEAD.replace("test_share = 0.3", "") + NIFTI)


def test_fmriprep_subjects_are_labelled_as_a_simple_estimate(folder):
    functional = folder / "fmriprep" / "sub-09" / "func"
    functional.mkdir(parents=True)
    image = nibabel.Nifti1Image(GENERATOR.normal(100, 1, (4, 5, 3, 60)).astype(np.float32), AFFINE)
    image.header.set_zooms((2, 2, 2.5, 2.0))
    nibabel.save(image, functional / "sub-09_task-look_space-T1w_desc-preproc_bold.nii.gz")
    nifti(functional / "sub-09_task-look_space-T1w_desc-brain_mask.nii.gz", INSIDE.astype(np.uint8))
    rows = "".join(f"{row * 10}\t1\timages/{name}.jpg\n" for row, name in enumerate(IDS))
    (folder / "sub-09_task-look_events.tsv").write_text("onset\tduration\tstim_file\n" + rows)
    text = '[[subject]]\nname = "sub-09"\nfmriprep = "fmriprep/sub-09"\nevents = "."\nwindow_s = [5.0, 9.0]\n'
    experiment = read(folder, HEAD + text)
    responses = experiment.subjects["sub-09"]
    assert list(responses.stimulus_ids) == IDS
    assert responses.n_voxels == INSIDE.sum()
    assert "5 to 9 s after onset" in experiment.facts["responses of sub-09"]
    assert "simple estimate" in experiment.facts["responses of sub-09"]
    again = text + 'trial_type = "x"\nentities.space = "T1w"\nrepetition_time = 2000\n'
    with pytest.raises(NotFoundError, match="no column 'trial_type'"):
        read(folder, HEAD + again)
    again = again.replace('trial_type = "x"', 'trial_type = "1"\ntype_column = "duration"\ndrop_unmeasured_trials = true')
    np.testing.assert_array_equal(
        read(folder, HEAD + again).subjects["sub-09"].read(np.arange(10)), responses.read(np.arange(10))
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "trials.csv").write_text("stimulus\n" + "im00\n" * 19), r"20 trials but 19 stimulus ids \(sub-01\)"),
        (lambda f: nifti(f / "mask.nii.gz", np.ones((4, 5, 4), np.uint8)), r"betas\.nii\.gz and .*mask\.nii\.gz .*\(4, 5, 4\)"),
        (
            lambda f: nifti(f / "mask.nii.gz", np.ones((4, 5, 3), np.uint8), AFFINE * 1.01),
            "mask.nii.gz are not in the same place",
        ),
        (
            lambda f: (f / "betas.nii.gz").write_bytes((f / "betas.nii.gz").read_bytes()[:3000]),
            r"betas\.nii\.gz: cannot be read",
        ),
        (
            lambda f: nifti(f / "betas.nii.gz", np.zeros_like(VOLUME)),
            r"voxels are constant, NaN or infinite over the 20 trials",
        ),
        (lambda f: (f / "trials.csv").write_text(""), r"trials\.csv: the table is empty"),
        (lambda f: (f / "trials.csv").write_text("stimulus\n" + "nobody\n" * 20), r"trials\.csv: 1 stimulus ids are not among"),
        (lambda f: (f / "stimuli.csv").write_text("id\na\na\n"), "1 stimulus ids|stand twice|not among"),
        (lambda f: np.save(f / "clip.npy", np.full((10, 6), np.nan)), "feature 'clip': not finite for stimuli"),
        (lambda f: np.save(f / "clip.npy", np.zeros((9, 6))), r"clip\.npy: feature 'clip' has 9 rows for 10 stimuli"),
        (lambda f: (f / "clip.npy").write_bytes(b"\x93NUMPY\x01"), r"clip\.npy: cannot be read as a \.npy array"),
    ],
)
def test_damaged_files_are_refused_by_name(folder, damage, message):
    damage(folder)
    with pytest.raises(PulvinarError, match=message):
        read(folder, HEAD + NIFTI)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (VOLUME[INSIDE], r"b\.npy: shape \(\d+, 20\) looks like \(voxel, trial\).*Save the transpose"),
        (VOLUME[INSIDE].T[:, :-1], r"b\.npy and .*mask\.nii\.gz do not match: \d+ voxels in the responses, \d+ places"),
        (VOLUME[:3], r"b\.npy and .*mask\.nii\.gz are not on the same grid: \(3, 5, 3\)"),
        (VOLUME[0], r"b\.npy: responses are \(trial, voxel\), or .* shape \(5, 3, 20\) came"),
        (np.ones((20, int(INSIDE.sum())), bool), r"b\.npy: numbers are needed, bool came"),
    ],
)
def test_arrays_of_the_wrong_shape_are_refused(folder, values, message):
    np.save(folder / "b.npy", values)
    with pytest.raises(InputError, match=message):
        read(folder, HEAD + NIFTI.replace("betas.nii.gz", "b.npy"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('rois.V1 = "zero.npy"', r"zero\.npy: ROI 'V1' has no voxel above 0"),
        ('rois.V1 = "short.npy"', r"short\.npy: ROI 'V1' must have \d+ entries, one per voxel; shape \(3,\) came"),
        ('noise_ceiling = "percent.npy"', r"noise ceiling of sub-01: .* 50 to 50 came\. Divide percent by 100"),
        ('noise_ceiling = "nan.npy"', "noise ceiling of sub-01"),
        ('responses = ["betas.nii.gz", "b.npy"]', r"hold \[\d+, 3\] voxels"),
    ],
)
def test_rois_ceilings_and_parts_that_do_not_fit(folder, line, message):
    n_voxels = int(INSIDE.sum())
    for name, values in {
        "zero": np.zeros(n_voxels),
        "short": np.ones(3),
        "percent": np.full(n_voxels, 50.0),
        "nan": np.full(n_voxels, np.nan),
        "b": np.zeros((5, 3)),
    }.items():
        np.save(folder / f"{name}.npy", values)
    text = NIFTI if "responses" not in line else NIFTI.replace('responses = "betas.nii.gz"\n', "")
    with pytest.raises(InputError, match=message):
        read(folder, HEAD + text + line)


def test_a_roi_of_several_labels_is_said(folder, capsys):
    n_voxels = int(INSIDE.sum())
    for labels, said in ((np.arange(n_voxels) % 2, 0), (np.arange(n_voxels) % 3, 1)):
        np.save(folder / "labels.npy", labels)
        found = read(folder, HEAD + NIFTI + 'rois.V1 = "labels.npy"')
        assert np.array_equal(found.subjects["sub-01"].rois["V1"], labels > 0)
        assert capsys.readouterr().err.count("labels.npy: ROI 'V1': holds 2 values above 0 (1 to 2; labels?)") == said


def test_haxby_comes_back_voxel_by_voxel(shared_data, tmp_path):
    with np.load(shared_data / "haxby2001" / "haxby2001_sub1_dev.npz") as data:
        bold, mask, affine, target, run, names = (data[k] for k in ("bold", "mask", "affine", "target", "run", "label_names"))
    nibabel.save(nibabel.Nifti1Image(bold, affine), tmp_path / "bold.nii.gz")
    nibabel.save(nibabel.Nifti1Image(mask, affine), tmp_path / "mask.nii.gz")
    rows = [f"{names[label]}-{number}\t{number}\t{names[label]}" for label, number in zip(target, run, strict=True)]
    (tmp_path / "trials.tsv").write_text("stimulus\trun\tlabel\n" + "\n".join(rows) + "\n")
    (tmp_path / "haxby.toml").write_text(
        "[split]\ntest_share = 0.3\n[[subject]]\nname = 'sub-1'\nresponses = 'bold.nii.gz'\n"
        "mask = 'mask.nii.gz'\ntrials = 'trials.tsv'\n"
    )
    responses = read_description(tmp_path / "haxby.toml").subjects["sub-1"]
    assert (responses.values.shape, responses.values.dtype) == ((1089, 530), np.int16)
    assert np.array_equal(responses.values, bold[mask > 0].T)
    for voxel, (x, y, z) in enumerate(responses.geometry.index):  # axis by axis, one voxel at a time
        assert np.array_equal(responses.values[:, voxel], bold[x, y, z])
    np.testing.assert_allclose(responses.geometry.spacing, 3.1, atol=1e-5)  # mm along the first axis
    assert np.array_equal(responses.geometry.to_volume(responses.values[500]), bold[..., 500] * (mask > 0))
    assert responses.runs.tolist() == run.tolist()


def given(**more):
    fields = {
        "responses": {"sub-01": VOLUME[INSIDE].T.astype(float)},
        "stimulus_ids": {"sub-01": SHOWN},
        "geometry": {"sub-01": Geometry.from_mask(INSIDE, AFFINE)},
        "stimuli": IDS,
        "features": {"clip": np.arange(20.0).reshape(10, 2)},
    }
    return from_arrays(**fields | more)


def test_from_arrays_keeps_what_it_was_given():
    n_voxels = int(INSIDE.sum())
    images = GENERATOR.integers(0, 255, (10, 4, 4, 3), dtype=np.uint8)
    experiment = given(
        images=images,
        labels=["x", "y"] * 5,
        sources=[f"p{row // 2}" for row in range(10)],
        rois={"sub-01": {"V1": np.arange(n_voxels) < 4}},
        noise_ceilings={"sub-01": np.full(n_voxels, 0.5)},
        sessions={"sub-01": [1] * 10 + [2] * 10},
        geometry={"sub-01": np.argwhere(INSIDE) * 2.0},
        facts={"licence": "CC0"},
        seed=4,
    )
    responses = experiment.subjects["sub-01"]
    assert responses.values.dtype == np.float32
    assert np.array_equal(responses.values, VOLUME[INSIDE].T)
    assert responses.geometry.kind == "points"
    assert responses.sessions.tolist() == [1] * 10 + [2] * 10
    assert np.array_equal(experiment.stimuli.image(3), images[3])
    assert experiment.split == split_by_source(experiment.stimuli, test_share=0.2, seed=4)
    assert json.loads(json.dumps(inspect(experiment)))["facts"] == {"licence": "CC0"}
    assert list(given(stimuli=None, features=None).stimuli.ids) == IDS


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"responses": {}}, InputError, "responses: one or more subjects are needed"),
        ({"geometry": {}}, InputError, "geometry: nothing for sub-01"),
        ({"rois": {"sub-1": {}}}, InputError, "rois: sub-1 came, but there are responses of sub-01 only"),
        ({"stimulus_ids": {"sub-01": SHOWN[:-1]}}, InputError, "20 trials but 19 stimulus ids"),
        ({"stimuli": IDS[:-1], "features": None}, NotFoundError, r"e\.g\. \['im09'\]"),
        ({"stimuli": None}, InputError, "stimuli: the ids in the order of the rows of features are needed"),
        ({"images": [np.zeros((2, 2, 3), np.uint8)]}, InputError, "images: 1 came for 10 stimulus ids"),
        ({"responses": {"sub-01": np.array([["a"]])}}, InputError, "responses of sub-01: numbers are needed"),
        ({"responses": {"sub-01": np.zeros(3)}}, InputError, r"\(trial, voxel\) float32 or int16 is needed, float32 \(3,\)"),
        ({"sessions": {"sub-01": [1.5] * 20}}, InputError, "sessions must be whole numbers"),
        ({"sessions": {"sub-01": ["ses-1.5"] * 20}}, InputError, "session 'ses-1.5' is not a whole number"),
        ({"target": "sub-2"}, InputError, "target: no subject named 'sub-2'; did you mean 'sub-01'"),
    ],
)
def test_from_arrays_refuses(more, error, message):
    with pytest.raises(error, match=message):
        given(**more)


def test_the_python_example_of_the_document_runs(tmp_path, monkeypatch):
    code, _ = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    assert load(tmp_path / "mystudy").fingerprint() == names["experiment"].fingerprint()


def test_reading_an_existing_folder_name_as_description_is_refused(tmp_path):
    with pytest.raises(FileError, match="it is a folder"):
        read_description(tmp_path)
