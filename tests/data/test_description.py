"""Descriptions. Oracle: the mistakes that were planted, each named once; the examples of docs/data.md hold every key."""

import re
import tomllib
from pathlib import Path

import pytest

from pulvinar.core.errors import ConfigError, FileError
from pulvinar.data.description import SubjectFiles, read_description_file

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "data.md"
PLAIN = """
[[subject]]
name = "sub-01"
responses = "b.npy"
coordinates = "c.npy"
trials = "t.csv"
"""


def write(tmp_path, text):
    for name in ("b.npy", "c.npy", "t.csv", "v.npy", "m.nii.gz", "betas.nii"):
        (tmp_path / name).touch()
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    return tmp_path / "study.toml"


def mistakes(tmp_path, text):
    with pytest.raises(ConfigError) as caught:
        read_description_file(write(tmp_path, text))
    first, *lines = str(caught.value).replace(str(tmp_path), "").splitlines()
    assert first == "/study.toml:"
    return [line.strip() for line in lines]


def test_defaults(tmp_path):
    description = read_description_file(write(tmp_path, PLAIN))
    assert (description.name, description.target, description.test_share, description.seed) == ("study", "sub-01", None, 0)
    (subject,) = description.subjects
    assert subject.responses == [(tmp_path / "b.npy", None)]
    assert (subject.scale, subject.window_s, subject.drop_bad_voxels, subject.mask) == (1.0, (4.0, 8.0), False, None)


def test_every_mistake_is_named_at_once(tmp_path):
    text = """
    nam = "x"
    target = "sub-3"
    [stimuli]
    imges = "images/"
    table = "nothing.csv"
    features.clip = { fil = "c.npy" }
    [split]
    test_share = 20
    seed = 1.5
    [[subject]]
    name = "sub-01"
    responses = "betas.doc"
    mask = "m.nii.gz"
    trial = "t.csv"
    drop_bad_voxels = "perhaps"
    rois.V1 = 3
    [[subject]]
    name = "sub/02"
    responses = ["b.npy", "gone.npy"]
    coordinates = { file = "c.npy", array = 3 }
    trials = "t.csv"
    scale = -1
    """
    assert sorted(mistakes(tmp_path, text)) == sorted(
        [
            "'nam' is not a key of a description; did you mean 'name'?",
            "target: no [[subject]] is named 'sub-3'; did you mean 'sub-01'?",
            "'stimuli.imges' is not a key of a description; did you mean 'images'?",
            "stimuli.table: no such file: /nothing.csv",
            "stimuli.features.clip is a path, or { file = path, array = name }",
            "'stimuli.features.clip.fil' is not a key of a description; did you mean 'file'?",
            "split.test_share is a number between 0 and 1, not 20.0",
            "split.seed is a whole number, not 1.5",
            "sub-01.responses: .npy, .npz, .h5, .hdf5, .mat, .nii, .nii.gz, .parquet, .pq, .csv, .tsv fits, not 'betas.doc'",
            "'sub-01.trial' is not a key of a description; did you mean 'trials'?",
            "sub-01: trials is needed: a table with a column 'stimulus', one row per trial",
            "sub-01.drop_bad_voxels is true or false, not 'perhaps'",
            "sub-01.rois.V1 is the path of a file, not 3",
            "subject 2: name is a text that can name a file, such as 'sub-01', not 'sub/02'",
            "subject 2.responses: no such file: /gone.npy",
            "subject 2.coordinates.array is text, not 3",
            "subject 2: scale is a positive number, not -1.0",
        ]
    )


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (
            ("responses", 'fmriprep = "."\nresponses'),
            "sub-01: one of responses (with trials) and fmriprep (with events) is needed",
        ),
        (("coordinates", "vertices"), "sub-01: one of mask, coordinates and surface says where the voxels are; none came"),
        (("coordinates", 'mask = "m.nii.gz"\ncoordinates'), "says where the voxels are; mask and coordinates came"),
        (("b.npy", "betas.nii"), "sub-01: responses in NIfTI need a mask (NIfTI, in the same grid)"),
        (("coordinates", 'vertices = "v.npy"\ncoordinates'), "sub-01: vertices needs surface, the mesh that they belong to"),
        (("trials", "window_s = [4.0, 8.0]\ntrials"), "sub-01: window_s does not go with responses"),
        (("trials", "affine_tolerance = 2.0\ntrials"), "affine_tolerance is a length in mm from 0 to 1, not 2.0"),
        (("trials", 'trial_type = "x"\ntrials'), "sub-01: trial_type does not go with responses"),
        (("trials", "repetition_time = 2.0\ntrials"), "sub-01: repetition_time does not go with responses"),
        (("trials", "trial_type = [3]\ntrials"), "sub-01.trial_type is a text or a list of texts, not 3"),
        (("trials", "entities.res = true\ntrials"), "sub-01.entities.res is a text, not True"),
        (("trials", "window_s = [8.0, 4.0]\ntrials"), "window_s is two times in seconds after the onset"),
        (('responses = "b.npy"', 'fmriprep = "."'), "sub-01: trials does not go with fmriprep"),
        (('responses = "b.npy"', 'fmriprep = "."'), "sub-01: events is needed: the folder that holds"),
        (('responses = "b.npy"', 'fmriprep = "nowhere"'), "sub-01.fmriprep: no such folder: /nowhere"),
    ],
)
def test_contradictions(tmp_path, change, wanted):
    assert any(wanted in line for line in mistakes(tmp_path, PLAIN.replace(*change)))


def test_subjects_are_needed_and_differ(tmp_path):
    assert "a description needs one or more [[subject]] tables" in mistakes(tmp_path, "name = 'x'")
    assert "two [[subject]] tables are named 'sub-01'" in mistakes(tmp_path, PLAIN + PLAIN)
    assert "stimuli is a table (such as stimuli.name = ...), not 3" in mistakes(tmp_path, "stimuli = 3\n" + PLAIN)


def test_a_missing_or_broken_description_is_named(tmp_path):
    with pytest.raises(FileError, match=r"no\.toml: no such configuration file"):
        read_description_file(tmp_path / "no.toml")
    with pytest.raises(FileError, match="not valid TOML"):
        read_description_file(write(tmp_path, "= 3"))


def paths_in(value) -> list[str]:
    if isinstance(value, dict):
        return [path for item in value.values() for path in paths_in(item)]
    if isinstance(value, list):
        return [path for item in value for path in paths_in(item)]
    return [value] if isinstance(value, str) else []


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_of_the_document_are_valid_and_complete(tmp_path, number):
    text = re.findall(r"```toml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)[number]
    for name in paths_in(tomllib.loads(text)):
        place = tmp_path / name
        if place.suffix:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        else:
            place.mkdir(parents=True, exist_ok=True)
    (tmp_path / "study.toml").write_text(text, encoding="utf-8")
    description = read_description_file(tmp_path / "study.toml")
    if number == 1:
        shown = {key for subject in tomllib.loads(text)["subject"] for key in subject}
        assert shown == set(SubjectFiles.__dataclass_fields__) - {"sides", "surface_side", "mesh"}  # what keys are made into
        assert (description.target, list(description.features)) == ("sub-06", ["clip", "dino"])


def test_numbers_that_nothing_can_be_computed_with(tmp_path):
    found = mistakes(tmp_path, "split = { seed = -1 }\n" + PLAIN + "scale = inf\n")
    assert found == ["sub-01: scale is a positive number, not inf", "split.seed is 0 or more, not -1"]


def test_files_of_all_subjects_are_looked_at_before_anything_is_said(tmp_path):
    """Two subjects with a wrong table each, and with wrong places each: both lines at once."""
    import numpy as np

    from pulvinar.core.errors import PulvinarError
    from pulvinar.datasets.arrays import read_description

    ids = [f"image-{number}" for number in range(10)]
    for name in ("one", "two"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(10, 4)).astype(np.float32))
        np.save(tmp_path / f"{name}-places.npy", np.argwhere(np.ones((3, 1, 1))).astype(float))
        (tmp_path / f"{name}.csv").write_text("image\n" + "\n".join(ids) + "\n")
    subject = '[[subject]]\nname = "{0}"\nresponses = "{0}.npy"\ncoordinates = "{0}-places.npy"\ntrials = "{0}.csv"\n'
    text = "[split]\ntest_share = 0.3\n" + "".join(subject.format(name) for name in ("one", "two"))
    (tmp_path / "study.toml").write_text(text)
    with pytest.raises(PulvinarError) as caught:
        read_description(tmp_path / "study.toml")
    assert [name for name in ("one.csv", "two.csv") if name in str(caught.value)] == ["one.csv", "two.csv"]
    for name in ("one", "two"):
        (tmp_path / f"{name}.csv").write_text("stimulus\n" + "\n".join(ids) + "\n")
    with pytest.raises(PulvinarError) as caught:
        read_description(tmp_path / "study.toml")
    assert str(caught.value).count("4 voxels in the responses, 3 places") == 2
