"""Sessions beside NSD as the test. Oracles: the files in plain h5py, scipy and csv, as their owners' users describe them.

Then one error is put into each convention: it has to be noticed.
"""

import shutil
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest
import scipy.io
from PIL import Image

from pulvinar.app.data import open_data
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, PulvinarError
from pulvinar.datasets.nsd import beside, writer

pytestmark = pytest.mark.slow  # the folder takes half a minute of the processor

BETAS = "betas_fithrf_GLMdenoise_RR"
ROWS = {"visA": 0, "imgA_1": 144, "visB": 192, "imgB_1": 336, "imgA_2": 576, "imgB_2": 624}  # first beta of a block
TESTS = {"imagery": ("imgA_1", "imgB_1", "imgA_2", "imgB_2"), "imagery_vision": ("visA", "visB")}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("beside") / "NSD"
    small = ("n_subjects=2", "n_voxels=200", "n_sessions=1", "n_test_images=20", "image_size=16", "beside=synthetic,imagery")
    pairs = [part for pair in small for part in ("--set", pair)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "PIXELS", 16)  # NSD's own pictures are not looked at here, and 425 pixels take half a minute
        assert main(["data", "simulate", "--layout", "nsd", "--out", str(place), *pairs, "--quiet"]) == 0
    return place


def file_of(root: Path, subject: str, kind: str) -> Path:
    return root / f"nsddata_betas/ppdata/{subject}/func1pt8mm/nsd{kind}{BETAS}/betas_nsd{kind}.hdf5"


def betas_of(root: Path, subject: str, kind: str) -> np.ndarray:
    """(trial, voxel) percent signal change inside the brain mask, in C order of x, y, z."""
    mask = np.asanyarray(nibabel.load(root / f"nsddata/ppdata/{subject}/func1pt8mm/brainmask.nii.gz").dataobj) > 0
    with h5py.File(file_of(root, subject, kind)) as file:
        return file["betas"][...].transpose(0, 3, 2, 1)[:, mask] / 300


def synthetic_of(root: Path, subject: str, *, one_back: str) -> tuple[np.ndarray, list[str]]:
    """Rows and ids; numbers count from 1, 220 pictures are for all, the others are each subject's."""
    order = scipy.io.loadmat(root / beside.SYNTHETIC_DESIGN)["masterordering"][0].astype(int)
    rows = [row for row in range(744) if row % 93 == 0 or order[row] != order[row - 1] or one_back == "keep"]
    return np.array(rows), [f"nsdsynthetic{order[row] - 1:03d}" + (f"_{subject}" if order[row] > 220 else "") for row in rows]


def imagery_of(root: Path, subject: str, test: str) -> tuple[np.ndarray, list[str]]:
    rows, ids = [], []
    for run in TESTS[test]:
        lines = (root / f"nsddata/bdata/nsdimagery/nsdimagery_{subject}_{run}.tsv").read_text().splitlines()[1:]
        rows += range(ROWS[run], ROWS[run] + 48)
        ids += [f"nsdimagery_{line}" for line in lines]
    return np.array(rows), ids


def differing(root: Path, test: str, query: str = "", one_back: str = "drop") -> list[str]:
    """What is not as the files say, of the second subject: ids, values and pictures of the test trials."""
    experiment = open_data("experiment", f"nsd:{root}?target=2&test={test}{query}")
    own = experiment.subjects["subj02"]
    trials = own.trials_of(experiment.split.test)
    rows, ids = synthetic_of(root, "subj02", one_back=one_back) if test == "synthetic" else imagery_of(root, "subj02", test)
    wrong = [] if [own.stimulus_ids[trial] for trial in trials] == ids else ["ids"]
    kind = "synthetic" if test == "synthetic" else "imagery"
    values = betas_of(root, "subj02", kind)
    if len(trials) != len(rows) or not np.allclose(own.read(trials), values[rows], atol=1e-6):
        wrong.append("values")
    few = sorted(set(ids))[::12] + sorted(set(ids))[-2:]
    return wrong + [f"pixels of {one}" for one in few if not same_picture(root, experiment, one)]


def same_picture(root: Path, experiment, stimulus: str) -> bool:
    shown = experiment.stimuli.image(experiment.stimuli.row_of[stimulus])
    if stimulus.startswith("nsdimagery_"):
        name = next((root / "nsddata").glob(f"**/rawtargetimages/target_{stimulus.removeprefix('nsdimagery_')}.png"))
        return np.array_equal(shown, np.asarray(Image.open(name)))
    number = int(stimulus[12:15])
    name = "nsdsynthetic_stimuli" if number < 220 else "nsdsynthetic_colorstimuli_subj02"
    with h5py.File(root / f"{beside.SYNTHETIC_STIMULI}/{name}.hdf5") as file:
        return np.array_equal(shown, file["imgBrick"][number if number < 220 else number - 220])


@pytest.mark.parametrize("test", ["synthetic", "imagery", "imagery_vision"])
def test_ids_values_and_pictures_are_those_of_the_files(test, folder):
    assert differing(folder, test) == []


def test_one_backs_are_kept_when_asked_for(folder):
    assert differing(folder, "synthetic", "&one_back=keep", one_back="keep") == []
    said = open_data("experiment", f"nsd:{folder}?test=synthetic&one_back=keep").facts["one_back"]
    assert said == "repetitions in a row: keep"


def test_it_trains_on_nsd_and_tests_beside_it(folder):
    experiment = open_data("experiment", f"nsd:{folder}?split=ood")
    assert all(name.startswith("nsdsynthetic") for name in experiment.split.test)
    assert all(name.removeprefix("nsd").isdigit() for name in experiment.split.train)
    assert experiment.facts["split"].startswith("ood: NSD-synthetic")
    for own in experiment.subjects.values():
        assert own.noise_ceiling is None  # NSD's is not that of these trials
        assert set(own.sessions) == {1, beside.SESSION}
    own = experiment.stimuli.feature("embedding")
    with np.load(folder / "features/nsdsynthetic/embedding.npz") as file:
        row = experiment.stimuli.row_of["nsdsynthetic007"]
        np.testing.assert_array_equal(own[row], file["embedding"][list(file["id"]).index("nsdsynthetic007")])


def test_what_the_screen_made_of_the_pictures(folder):
    stored, seen = (open_data("experiment", f"nsd:{folder}?test=synthetic&gamma={gamma}") for gamma in ("stored", "sqrt"))
    row = stored.stimuli.row_of["nsdsynthetic003"]
    expected = np.rint(np.sqrt(stored.stimuli.image(row) / 255) * 255)
    np.testing.assert_array_equal(seen.stimuli.image(row), expected)


@pytest.mark.parametrize(
    ("test", "attribute", "error"),
    [
        ("synthetic", "FIRST_INDEX", 0),
        ("synthetic", "N_GREY", 284),
        ("imagery", "BLOCKS", dict.fromkeys(beside.BLOCKS, 48)),
        ("imagery_vision", "OF_TEST", {"imagery_vision": ("visA", "visC")}),
    ],
    ids=["pictures counted from 0", "grey pictures alone", "attention betas counted once", "another set"],
)
def test_an_error_in_a_convention_is_noticed(test, attribute, error, folder, monkeypatch):
    monkeypatch.setattr(beside, attribute, error)
    try:
        found = differing(folder, test)
    except (PulvinarError, IndexError, ValueError, KeyError):
        return
    assert found


def cut_order(root: Path) -> None:
    path = root / beside.SYNTHETIC_DESIGN
    order = scipy.io.loadmat(path)["masterordering"]
    path.unlink()
    scipy.io.savemat(path, {"masterordering": order[:, 1:]})


def rename_conditions(root: Path) -> None:
    """Set B's conditions called as those of set A."""
    path = root / "nsddata/bdata/nsdimagery/nsdimagery_subj01_imgB_1.tsv"
    text = path.read_text().replace("B", "A")
    path.unlink()
    path.write_text(text)


def read_test(root: Path, test: str) -> np.ndarray:
    experiment = open_data("experiment", f"nsd:{root}?test={test}")
    own = experiment.subjects["subj01"]
    return own.read(own.trials_of(experiment.split.test))


@pytest.mark.parametrize(
    ("test", "damage", "message"),
    [
        ("synthetic", lambda root: file_of(root, "subj01", "synthetic").unlink(), "betas_nsdsynthetic.nii.gz: no such file"),
        ("synthetic", lambda root: (root / beside.SYNTHETIC_DESIGN).unlink(), "nsdsynthetic_expdesign.mat"),
        ("synthetic", cut_order, "744 trials"),
        ("imagery", lambda root: shutil.rmtree(root / "nsddata/experiments/nsdimagery"), "rawtargetimages"),
        ("imagery", rename_conditions, "is of set A too"),
        ("imagery", lambda root: (root / "nsddata/bdata/nsdimagery/nsdimagery_subj01_imgA_1.tsv").unlink(), "imgA_1.tsv"),
    ],
)
def test_what_is_missing_or_ambiguous_is_refused_by_name(test, damage, message, folder, tmp_path):
    root = tmp_path / "NSD"
    shutil.copytree(folder, root, copy_function=lambda source, place: Path(place).hardlink_to(source))
    damage(root)
    with pytest.raises(PulvinarError, match=message):
        read_test(root, test)


def test_two_ways_to_name_the_test_are_refused(folder):
    with pytest.raises(ConfigError, match="split=ood is test=synthetic"):
        open_data("experiment", f"nsd:{folder}?split=ood&test=imagery")
