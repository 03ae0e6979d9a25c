"""The experiment folder. Oracles: what was saved comes back; what docs/folder.md writes with h5py alone is read."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

from pulvinar.core.errors import FileError, InputError, LeakError, NotFoundError, PulvinarError
from pulvinar.data import experiment as experiments
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "folder.md"
IDS = [f"s{row}" for row in range(8)]
IMAGES = [np.random.default_rng(row).integers(0, 255, (5 + row, 6, 3), dtype=np.uint8) for row in range(8)]
AFFINE = np.diag([2.0, 2.0, 3.0, 1.0])
MESH = (np.array([[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 0.0]]), np.array([[0, 1, 2], [1, 3, 2]]))


def responses(subject: str, geometry: Geometry, dtype: type = np.float32, **more) -> Responses:
    n_voxels = geometry.n_voxels
    return Responses(
        subject=subject,
        values=(100 * np.random.default_rng(len(subject)).normal(size=(16, n_voxels))).astype(dtype),
        stimulus_ids=IDS * 2,
        sessions=np.repeat([1, 2], 8),
        runs=np.tile([0, 1], 8),
        geometry=geometry,
        rois=ROIs({"V1": np.arange(n_voxels) < 2}, n_voxels=n_voxels),
        **more,
    )


def complete() -> Experiment:
    mask = np.random.default_rng(0).random((3, 4, 2)) < 0.5
    subjects = [
        responses("volume", Geometry.from_mask(mask, AFFINE), np.int16, scale=1 / 300),
        responses("surface", Geometry.from_surface(np.array([3, 0, 2]), *MESH), noise_ceiling=np.array([0.1, 0.5, 1.0])),
        responses("points", Geometry.from_points(np.random.default_rng(1).normal(size=(5, 3)))),
    ]
    return Experiment(
        name="ünit",
        stimuli=Stimuli(
            ids=IDS,
            sources=[f"p{row // 2}" for row in range(8)],
            labels=["a", "b"] * 4,
            features={"clip": np.random.default_rng(2).normal(size=(8, 3, 2)).astype(np.float32)},
            read_image=IMAGES.__getitem__,
        ),
        subjects={subject.subject: subject for subject in subjects},
        split=Split(train=tuple(IDS[:4]), test=tuple(IDS[6:])),
        target="surface",
        truth={"points": {"responsive": np.array([True, False, True, False, True]), "area": np.array([0, 1, 2, 0, 1])}},
        facts={"citation": "nobody 2026", "n": 3},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    return experiments.save(complete(), tmp_path_factory.mktemp("experiment") / "folder")


def test_what_was_saved_comes_back(saved):
    before, after = complete(), experiments.load(saved)
    assert (after.name, after.target, list(after.subjects), after.split) == (
        before.name,
        before.target,
        list(before.subjects),
        before.split,
    )
    assert after.facts == before.facts
    assert (after.stimuli.ids, after.stimuli.sources, after.stimuli.labels) == (
        before.stimuli.ids,
        before.stimuli.sources,
        before.stimuli.labels,
    )
    assert np.array_equal(after.stimuli.features["clip"], before.stimuli.features["clip"])
    assert all(np.array_equal(after.stimuli.image(row), IMAGES[row]) for row in range(8))
    assert np.array_equal(after.truth["points"]["area"], before.truth["points"]["area"])
    assert after.truth["points"]["responsive"].dtype == bool
    assert after.fingerprint() == before.fingerprint()
    assert experiments.verify(saved) == []


@pytest.mark.parametrize("subject", ["volume", "surface", "points"])
def test_responses_come_back_as_memory_maps(saved, subject):
    before, after = complete().subjects[subject], experiments.load(saved).subjects[subject]
    assert isinstance(after.values, np.memmap)
    assert after.values.dtype == before.values.dtype
    assert np.array_equal(after.values, before.values)
    assert (after.scale, list(after.stimulus_ids)) == (before.scale, list(before.stimulus_ids))
    assert np.array_equal(after.sessions, before.sessions)
    assert np.array_equal(after.runs, before.runs)
    assert np.array_equal(after.rois["V1"], before.rois["V1"])
    for name in ("coordinates", "index", "affine", "vertex", "mesh_coordinates", "mesh_faces"):
        was, now = getattr(before.geometry, name), getattr(after.geometry, name)
        assert (was is None and now is None) or np.array_equal(was, now)
    assert after.geometry.shape == before.geometry.shape
    if before.noise_ceiling is not None:
        np.testing.assert_allclose(after.noise_ceiling, before.noise_ceiling, rtol=1e-6)


def test_truth_is_not_given_to_methods_and_images_are_not_read_again():
    whole = complete()
    object.__setattr__(whole.stimuli, "read_image", None)
    given = whole.without_truth()
    assert (given.truth, given.name, given.subjects is whole.subjects) == ({}, whole.name, True)
    assert "points" in whole.truth


def test_images_are_read_again_where_a_file_of_the_same_size_took_their_place(tmp_path):
    flat = [np.full((5, 5, 3), 10 * row + 5, np.uint8) for row in range(8)]  # PNG files of one size
    stimuli = dataclasses.replace(complete().stimuli, read_image=flat.__getitem__)
    folder = experiments.save(dataclasses.replace(complete(), stimuli=stimuli), tmp_path / "flat")
    assert experiments.load(folder).stimuli.pixel_keys is not None
    trained, tested = (experiments.image_path(folder, name) for name in (IDS[0], IDS[7]))
    assert trained.stat().st_size == tested.stat().st_size
    shutil.copy(trained, tested)
    with pytest.raises(LeakError, match=r"share their pixels .*: 's0' .training. and 's7'"):
        experiments.load(folder)


def test_another_target_can_be_chosen(saved):
    assert experiments.load(saved, target="volume").target == "volume"
    with pytest.raises(InputError, match="no subject named 'volum'; did you mean 'volume'"):
        experiments.load(saved, target="volum")


def test_the_fingerprint_sees_a_changed_response():
    whole = complete()
    before = whole.fingerprint()
    whole.subjects["points"].values[0, 0] += 1
    assert whole.fingerprint() != before


def test_verify_names_changed_and_missing_files(tmp_path):
    folder = experiments.save(complete(), tmp_path / "folder")
    (folder / "split.json").write_text("{}")
    (folder / "truth.h5").unlink()
    assert experiments.verify(folder) == ["split.json", "truth.h5"]


def test_an_existing_folder_is_never_replaced(saved):
    with pytest.raises(FileError, match="exists already"):
        experiments.save(complete(), saved)


@pytest.mark.parametrize("name", ["../sub-01", "a/b", ".hidden", ""])
def test_names_that_would_leave_the_folder_are_refused(tmp_path, name):
    given = responses("x", Geometry.from_points(np.eye(3)))
    object.__setattr__(given, "subject", name)
    whole = complete()
    bad = Experiment(name="n", stimuli=whole.stimuli, subjects={name: given}, split=whole.split, target=name)
    with pytest.raises(InputError, match="cannot name a file"):
        experiments.save(bad, tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []


def test_subject_names_must_agree():
    whole = complete()
    with pytest.raises(InputError, match="'a' holds the responses of 'points'"):
        Experiment(name="n", stimuli=whole.stimuli, subjects={"a": whole.subjects["points"]}, split=whole.split, target="a")


def test_trials_of_unknown_stimuli_are_refused():
    whole = complete()
    object.__setattr__(whole.subjects["points"], "stimulus_ids", ["z", *IDS, *IDS[1:]])
    with pytest.raises(NotFoundError, match=r"e\.g\. \['z'\]"):
        Experiment(name="n", stimuli=whole.stimuli, subjects=whole.subjects, split=whole.split, target="points")


def test_a_missing_roi_lists_the_others():
    with pytest.raises(NotFoundError, match="points has no ROI 'V9'; there are: V1"):
        experiments.require_target_roi(complete(), "V9", "points")
    assert experiments.require_target_roi(complete(), "V1", "points").tolist() == [True, True, False, False, False]


def change_json(path: Path, **more) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def replace(path: Path, name: str, data) -> None:
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if data is not None:
            file[name] = data


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "experiment.json").unlink(), "not an experiment folder .experiment.json is missing"),
        (lambda f: change_json(f / "experiment.json", version=2), "version 1 is needed, version 2 came"),
        (lambda f: (f / "experiment.json").write_text("[1]"), r"version \[1\] came"),
        (lambda f: change_json(f / "experiment.json", subjects="points"), "must be a list of names"),
        (lambda f: change_json(f / "experiment.json", subjects=["../x"]), "cannot name a file"),
        (lambda f: change_json(f / "experiment.json", subjects=["nobody"]), r"nobody\.h5: no such file"),
        (lambda f: change_json(f / "experiment.json", facts=[1]), "'facts' must be an object"),
        (lambda f: (f / "split.json").write_text('{"train": []}'), "lists of stimulus ids named 'train' and 'test'"),
        (lambda f: replace(f / "stimuli.h5", "id", None), "no dataset 'id'; there are"),
        (lambda f: replace(f / "stimuli.h5", "id", 3.0), "'id' must be a list of texts"),
        (lambda f: replace(f / "stimuli.h5", "features", np.zeros(3)), "'features' must be a group"),
        (lambda f: replace(f / "stimuli.h5", "features/clip", ["a"] * 8), "'clip' must be an array of numbers"),
        (lambda f: replace(f / "stimuli.h5", "source", ["a"]), "1 rows for 8 stimulus ids"),
        (lambda f: replace(f / "responses/points.h5", "values", np.zeros(3)), r"'values' \(trial, voxel\) is needed"),
        (lambda f: replace(f / "responses/points.h5", "values", np.zeros((16, 5), int)), "int64 .* came"),
        (lambda f: replace(f / "responses/points.h5", "stimulus", ["s0"] * 3), "16 trials but 3 stimulus ids"),
        (lambda f: replace(f / "responses/points.h5", "session", ["a"] * 16), "sessions must be whole numbers"),
        (lambda f: replace(f / "responses/points.h5", "session", 3), r"sessions of shape \(\)"),
        (lambda f: replace(f / "responses/points.h5", "rois/V1", np.ones(2)), r"ROI 'V1': \(2,\) came for 5 voxels"),
        (lambda f: replace(f / "responses/points.h5", "noise_ceiling", "high"), "'noise_ceiling' must be an array"),
        (lambda f: replace(f / "responses/points.h5", "geometry", None), "a group 'geometry' is needed"),
        (lambda f: replace(f / "responses/points.h5", "geometry/coordinates", None), "index, vertex or coordinates"),
        (lambda f: replace(f / "responses/volume.h5", "geometry/affine", None), r"'index' but not \['affine'\]"),
        (lambda f: replace(f / "responses/volume.h5", "geometry/shape", [3, 4]), "three whole numbers"),
        (lambda f: replace(f / "responses/surface.h5", "geometry/mesh_faces", None), "'vertex' but not"),
        (lambda f: (f / "images" / "s0.png").unlink(), r"s0\.png: no such image"),
        (lambda f: (f / "images" / "s0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"x" * 40), r"s0\.png: cannot be read as"),
        (lambda f: (f / "truth.h5").write_bytes(b"x"), r"truth\.h5: cannot be read as HDF5"),
    ],
)
def test_a_damaged_folder_is_refused_and_the_place_named(tmp_path, damage, message):
    folder = experiments.save(complete(), tmp_path / "folder")
    damage(folder)
    with pytest.raises(PulvinarError, match=message):
        experiments.load(folder)


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileError, match="nothing: no such folder"):
        experiments.load(tmp_path / "nothing")


def test_foreign_number_types_are_read(tmp_path):
    folder = experiments.save(complete(), tmp_path / "folder")
    (folder / "checksums.json").unlink()  # as of a person who changes what pulvinar wrote
    values = np.array(complete().subjects["points"].values)
    for foreign in (">f4", "f8", ">f8"):
        replace(folder / "responses" / "points.h5", "values", values.astype(foreign))
        after = experiments.load(folder).subjects["points"]
        assert after.values.dtype == np.float32
        assert np.array_equal(after.values, values)


def test_the_example_of_the_document_is_an_experiment(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 40
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {"json", "pathlib", "h5py", "numpy"}
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(compile(code, str(DOCUMENT), "exec"), names)
    read = experiments.load(tmp_path / "mystudy")
    assert (read.name, read.target, list(read.subjects)) == ("mystudy", "sub-02", ["sub-01", "sub-02"])
    last = read.subjects["sub-02"]
    assert np.array_equal(last.values, names["values"].astype(np.float32))
    assert np.array_equal(last.geometry.to_volume(np.ones(last.n_voxels, bool)), names["mask"])
    assert last.rois["front"].sum() == (names["index"][:, 1] > 4).sum()
    assert (len(read.split.train), len(read.split.test)) == (48, 12)
