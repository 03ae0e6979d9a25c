"""A planted world written in NSD's layout and read back. Oracle: the world as planted, before it was written."""

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
import scipy.io
from PIL import Image

from pulvinar.app.data import absolute, open_experiment, simulate
from pulvinar.core.errors import ConfigError, FileError
from pulvinar.datasets import simulated
from pulvinar.datasets.nsd import load, probes
from pulvinar.datasets.nsd import writer as nsd_writer
from pulvinar.datasets.nsd.writer import Generated, signal_to_noise, write_world

TINY = {"n_subjects": 2, "n_voxels": 220, "n_sessions": 1, "n_test_images": 200, "image_size": 16}


def plant(shown, **settings):
    return simulated.simulate(simulated.Config(**settings), shown=shown)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder, and the experiment it was written from."""
    root = tmp_path_factory.mktemp("generated") / "NSD"
    return root, write_world(root, Generated(**TINY, seed=5, format="both", surface=True), plant)


@pytest.mark.long
def test_the_form_is_nsds(world):
    root, planted = world
    with h5py.File(root / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5") as file:
        assert (file["imgBrick"].shape, file["imgBrick"].dtype) == ((73_000, 425, 425, 3), np.uint8)
    tables = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat")
    assert [tables[name].shape for name in ("masterordering", "subjectim", "sharedix")] == [(1, 30_000), (8, 10_000), (1, 1000)]
    order, images = tables["masterordering"][0], tables["subjectim"]
    assert (np.bincount(order.astype(int))[1:] == 3).all()
    assert (images[:, :1000] == tables["sharedix"]).all()
    assert sorted(np.concatenate([images[0, :1000], images[:, 1000:].ravel()])) == list(range(1, 73_001))
    for subject in planted.subjects:
        place = root / "nsddata_betas/ppdata" / subject / "func1pt8mm/betas_fithrf_GLMdenoise_RR"
        shape = nibabel.load(root / "nsddata/ppdata" / subject / "func1pt8mm/brainmask.nii.gz").shape
        assert len(set(shape)) == 3
        with h5py.File(place / "betas_session01.hdf5") as file:
            betas = file["betas"]
            assert (betas.shape, betas.dtype, betas.chunks) == ((750, *shape[::-1]), np.int16, (750, 1, 1, 1))
            nifti = nibabel.load(place / "betas_session01.nii.gz")
            assert nifti.get_data_dtype() == np.int16
            np.testing.assert_array_equal(np.asarray(nifti.dataobj).transpose(3, 2, 1, 0), betas[...])
        roi = np.asarray(nibabel.load(root / "nsddata/ppdata" / subject / "func1pt8mm/roi/nsdgeneral.nii.gz").dataobj)
        assert set(np.unique(roi)) == {-1, 0, 1}


@pytest.mark.slow
def test_own_photographs_and_a_network_that_drives_the_voxels(tmp_path):
    """Planted: pictures are those of the folder, test pictures are nobody's training pictures, areas are the driver's two."""
    generator = np.random.default_rng(0)
    (tmp_path / "photographs").mkdir()
    for number in range(6):
        noise = generator.integers(0, 255, (20, 26, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((130, 100)).save(tmp_path / "photographs" / f"{number}.png")
    own = {
        "images": str(tmp_path / "photographs"),
        "driver": "perturbed:squeezenet1_0",
        "driver_strength": 0.1,
        "tuning_dim": 5,
    }
    planted = write_world(tmp_path / "NSD", Generated(**TINY | own | {"n_subjects": 1, "image_size": 32}), plant)
    assert set(planted.stimuli.sources) == {f"{number}.png" for number in range(6)}
    assert set(np.unique(planted.truth["subj01"]["area"])) == {0, 1, 2}
    read = load(str(tmp_path / "NSD"))
    assert read.name == "Planted world in NSD layout (subj01)"
    (tmp_path / "NSD" / "truth.h5").unlink()
    assert load(str(tmp_path / "NSD")).name == "Natural Scenes Dataset (subj01)"
    sides = [
        {read.stimuli.sources[row] for row in read.stimuli.rows(list(side))} for side in (read.split.train, read.split.test)
    ]
    assert not sides[0] & sides[1]


@pytest.mark.long
@pytest.mark.parametrize("query", ["", "?format=nifti"])
def test_responses_places_images_and_truth_come_back(world, query):
    root, planted = world
    read = load(f"{root}{query}")
    for subject, original in planted.subjects.items():
        responses = read.subjects[subject]
        np.testing.assert_allclose(responses.read(np.arange(750)), original.read(np.arange(750)), atol=0.5001 / 300)
        np.testing.assert_allclose(responses.geometry.coordinates, original.geometry.coordinates, atol=1e-5)
        np.testing.assert_array_equal(responses.rois["nsdgeneral"], original.rois["annotated"])
        for name, values in planted.truth[subject].items():
            np.testing.assert_allclose(read.truth[subject][name], values, rtol=1e-6)
        same = dict(zip(responses.stimulus_ids, original.stimulus_ids, strict=True))
        assert len(same) == len(set(same.values())) == len(set(original.stimulus_ids))  # one name for one name
        ours, theirs = (stimuli.feature("embedding") for stimuli in (read.stimuli, planted.stimuli))
        rows = read.stimuli.rows(list(same)), planted.stimuli.rows(list(same.values()))
        np.testing.assert_array_equal(ours[rows[0]], theirs[rows[1]])
    first = int(rows[0][0])
    pixel = np.arange(425) * 16 // 425  # each of the 16 pixels repeated
    enlarged = planted.stimuli.image(int(rows[1][0]))[pixel][:, pixel]
    assert (read.stimuli.image(first) == enlarged).mean() > 0.9  # an edge between pixels may lie one further
    names = {same[name] for name in read.split.test if name in same}
    assert names <= set(planted.split.test)
    assert "planted" in read.facts


@pytest.mark.long
def test_vertices_take_the_betas_of_a_voxel_nearby(world):
    root, _ = world
    surface, volume = load(f"{root}?space=fsaverage"), load(str(root))
    for subject in ("subj01", "subj02"):
        vertices, voxels = surface.subjects[subject], volume.subjects[subject]
        trial = np.array([17])
        known = {round(float(value) * 300) for value in voxels.read(trial)[0]}
        assert {round(float(value) * 300) for value in vertices.read(trial)[0]} <= known
        assert vertices.geometry.kind == "surface"
        assert 0 < vertices.rois["annotated"].mean() < 1
    first = surface.subjects["subj01"].geometry.coordinates
    places = volume.subjects["subj01"].geometry.coordinates
    gap = np.linalg.norm(first[:, None] - places[None], axis=2)
    nearest = gap < gap.min(1, keepdims=True) + 1e-3  # between the halves two voxels are as near
    difference = surface.subjects["subj01"].read(np.array([17])).T - volume.subjects["subj01"].read(np.array([17]))
    assert np.where(nearest, abs(difference), np.inf).min(1).max() < 1e-6
    assert nearest.sum(1).max() <= 2


def test_ncsnr_is_that_of_a_planted_signal():
    """Signal variance s of the total: ncsnr = sqrt(s / (1 - s)); 400 stimuli three times, so within about .1."""
    generator = np.random.default_rng(0)
    shares = np.array([0.0, 0.2, 0.5, 0.8])
    signal = np.repeat(generator.normal(size=(400, 4)), 3, axis=0)
    betas = signal * np.sqrt(shares) + generator.normal(size=(1200, 4)) * np.sqrt(1 - shares)
    estimated = signal_to_noise(np.rint(betas * 300), np.repeat(np.arange(400), 3).astype(str))
    np.testing.assert_allclose(estimated[1:], np.sqrt(shares / (1 - shares))[1:], atol=0.1)
    assert estimated[0] < 0.25


@pytest.mark.slow
def test_the_same_seed_is_the_same_world_and_a_session_can_be_missing(world, tmp_path):
    root, _ = world
    again = write_world(tmp_path / "again", Generated(**TINY, seed=5, missing=("subj02:1",)), plant)
    name = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.hdf5"
    with h5py.File(root / name) as first, h5py.File(tmp_path / "again" / name) as second:
        np.testing.assert_array_equal(first["betas"][...], second["betas"][...])
    with pytest.raises(FileError, match=r"subj02.*no sessions of betas"):
        load(str(tmp_path / "again"))
    assert list(load(f"{tmp_path / 'again'}?subjects=1").subjects) == ["subj01"]
    assert len(again.subjects) == 2
    with pytest.raises(FileError, match="exists already"):
        write_world(tmp_path / "again", Generated(**TINY), plant)


def test_mistakes_in_the_settings_are_listed(tmp_path):
    with pytest.raises(ConfigError) as caught:
        simulate(
            str(tmp_path / "out"), layout="nsd", assignments=["n_subjects=9", "n_sessions=0", "n_test_repeats=4", "n_voxel=3"]
        )
    for part in (
        "n_subjects lies in [1, 8]",
        "n_sessions lies in [1, 40]",
        "n_test_repeats lies in [1, 3]",
        "did you mean 'n_voxels'",
    ):
        assert part in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_an_interrupted_writer_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(nsd_writer, "_write_stimuli", fail)
    with pytest.raises(KeyboardInterrupt):
        write_world(tmp_path / "out", Generated(**TINY), plant)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_source_is_found_from_elsewhere(world, monkeypatch, tmp_path):
    root, _ = world
    monkeypatch.chdir(root.parent)
    source = absolute("nsd:NSD?subjects=2&voxels=nsdgeneral")
    monkeypatch.chdir(tmp_path)
    assert list(open_experiment(source).subjects) == ["subj02"]
    assert probes(load(str(root)), 3, seed=4) == probes(load(str(root)), 3, seed=4)


# --- read as others read it: the indexing that nsd_access and MindEye2 publish, in our own lines ------------------------


def behaviour_of(root, subject, session):
    """nsd_access, read_behavior: rows of one session (from 1)."""
    table = pd.read_csv(root / "nsddata/ppdata" / subject / "behav/responses.tsv", sep="\t")
    return table[table["SESSION"] == session]


def design_of(root):
    """squeeze_me, as in most scripts: (30000,), (8, 10000), (1000,)."""
    tables = scipy.io.loadmat(root / "nsddata/experiments/nsd/nsd_expdesign.mat", squeeze_me=True)
    return tables["masterordering"], tables["subjectim"], tables["sharedix"]


@pytest.mark.long
def test_tables_are_whole_numbers_that_index_without_a_cast(world):
    order, images, shared = design_of(world[0])
    assert {table.dtype.kind for table in (order, images, shared)} <= set("iu")
    rows = images[1, order[:750] - 1] - 1  # what MATLAB counts from 1
    assert rows.min() >= 0
    assert rows.max() < 73_000


@pytest.mark.long
def test_three_ways_to_the_image_of_a_trial_agree(world):
    """The design table, the behaviour (MindEye2: 73KID - 1) and the stimulus table (repetitions, from 1) name one image."""
    root, planted = world
    order, images, shared = design_of(root)
    table = pd.read_csv(root / "nsddata/experiments/nsd/nsd_stim_info_merged.csv", index_col=0)
    assert list(table.columns[:8]) == ["cocoId", "cocoSplit", "cropBox", "loss", "nsdId", "flagged", "BOLD5000", "shared1000"]
    assert list(table.columns[8:]) == [f"subject{s}" for s in range(1, 9)] + [
        f"subject{s}_rep{r}" for s in range(1, 9) for r in range(3)
    ]
    assert table.shape == (73_000, 40)
    assert (table.index == table["nsdId"]).all()
    assert table["shared1000"].dtype == bool
    assert set(table.index[table["shared1000"]] + 1) == set(shared)
    assert table["cocoSplit"].isin(["train2017", "val2017"]).all()
    for number, subject in enumerate(planted.subjects, start=1):
        behaviour = behaviour_of(root, subject, 1)
        wanted = images[number - 1, order[:750] - 1] - 1
        np.testing.assert_array_equal(behaviour["73KID"] - 1, wanted)
        np.testing.assert_array_equal(images[number - 1, behaviour["10KID"] - 1], behaviour["73KID"])
        read = load(f"{root}?subjects={number}").subjects[subject].stimulus_ids
        assert list(read) == [f"nsd{row:05d}" for row in wanted]
        seen = table[table[f"subject{number}"] != 0]
        assert len(seen) == 10_000
        for trial in (0, 5, 749):
            repeats = [seen[f"subject{number}_rep{repeat}"] == trial + 1 for repeat in range(3)]
            assert int(seen.loc[np.any(repeats, axis=0), "nsdId"].item()) == wanted[trial]


def test_behaviour_is_that_of_the_design(world):
    """Oracle: a slow loop over the trials. MindEye2 casts time, isold and the counts, and asks the others for NaN."""
    root, _ = world
    table = behaviour_of(root, "subj01", 1)
    columns = "SUBJECT SESSION RUN TRIAL 73KID 10KID TIME ISOLD ISCORRECT RT CHANGEMIND MEMORYRECENT MEMORYFIRST "
    assert " ".join(table.columns) == columns + "ISOLDCURRENT ISCORRECTCURRENT TOTAL1 TOTAL2 BUTTON MISSINGDATA"
    assert len(table) == 750
    assert [int((table["RUN"] == run).sum()) for run in range(1, 13)] == [63, 62] * 6
    assert table.groupby("RUN")["TRIAL"].apply(lambda trials: list(trials) == list(range(1, len(trials) + 1))).all()
    assert table["TIME"].is_monotonic_increasing
    for name in ("SUBJECT", "RUN", "TRIAL", "73KID", "ISOLD", "ISCORRECT", "BUTTON", "MISSINGDATA"):
        assert table[name].dtype.kind == "i"
    last, first = {}, {}
    for trial, row in enumerate(table.to_dict("records")):
        image = row["73KID"]
        assert row["ISOLD"] == row["ISOLDCURRENT"] == (image in first)
        if image in first:
            assert (row["MEMORYRECENT"], row["MEMORYFIRST"]) == (trial - last[image] - 1, trial - first[image] - 1)
        else:
            assert np.isnan(row["MEMORYRECENT"])
        assert row["ISCORRECT"] == ((row["BUTTON"] == 2) == bool(row["ISOLD"]))
        assert (row["TOTAL1"], row["TOTAL2"]) == ((1, 0) if row["BUTTON"] == 1 else (0, 1))
        last[image] = trial
        first.setdefault(image, trial)
    assert 0.8 < table["ISCORRECT"].mean() < 0.9


@pytest.mark.long
@pytest.mark.parametrize("atlas", ["nsdgeneral", "prf-visualrois"])
def test_label_tables_are_where_others_look(world, atlas):
    """nsd_access, read_atlas_results: fsaverage's table for every space, one blank between number and name."""
    root, _ = world
    places = ("nsddata/freesurfer/fsaverage/label", "nsddata/freesurfer/subj02/label")
    for path in (*(f"{place}/{atlas}.mgz.ctab" for place in places), f"nsddata/templates/{atlas}.ctab"):
        mapping = pd.read_csv(root / path, delimiter=" ", header=None, index_col=0).to_dict()[1]
        mapping = {name: number for number, name in mapping.items()}
        labels = nibabel.load(root / f"nsddata/ppdata/subj02/func1pt8mm/roi/{atlas}.nii.gz").get_fdata()
        assert mapping["Unknown"] == 0
        assert set(np.unique(labels[labels > 0])) <= set(mapping.values())
    surface = [
        nibabel.load(root / f"nsddata/freesurfer/fsaverage/label/{side}.{atlas}.mgz").get_fdata() for side in ("lh", "rh")
    ]
    assert set(np.unique(np.squeeze(np.vstack(surface)))) - {-1.0} <= set(mapping.values())
    names = load(f"{root}?subjects=2").subjects["subj02"].rois
    assert "nsdgeneral.nsdgeneral" not in names
    assert "prf-visualrois.area1" in names


@pytest.mark.long
def test_betas_stand_at_the_trials_of_their_images(world):
    """nsd_access, read_betas: NIfTI (x, y, z, trial), surfaces left on right; MindEye2's mask of nsdgeneral in C order."""
    root, _ = world
    place = root / "nsddata_betas/ppdata/subj01"
    volume = nibabel.load(place / "func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session01.nii.gz").get_fdata()
    mask = nibabel.load(root / "nsddata/ppdata/subj01/func1pt8mm/roi/nsdgeneral.nii.gz").get_fdata()
    mask[mask < 1] = 0
    betas = np.moveaxis(volume, -1, 0).reshape(750, -1)[:, mask.flatten().astype(bool)] / 300
    ours = load(f"{root}?subjects=1&voxels=nsdgeneral").subjects["subj01"].read(np.arange(750))
    np.testing.assert_allclose(betas, ours, atol=1e-5)
    sides = [
        nibabel.load(place / f"fsaverage/betas_fithrf_GLMdenoise_RR/{side}.betas_session01.mgh").get_fdata()
        for side in ("lh", "rh")
    ]
    stacked = np.squeeze(np.vstack(sides))
    np.testing.assert_allclose(stacked.T, load(f"{root}?space=fsaverage&subjects=1").subjects["subj01"].read(np.arange(750)))
