"""Sets of single trials, written by `pulvinar data simulate --layout`, opened, and compared with their files value by value.

Oracle: the files themselves, read here in plain nibabel, h5py and pandas, as their owners describe them. A probe is a random
trial and voxel: value, pixels, session, run, regions and ceiling have to be those of the files. Then one error is put into each
convention of the reader: it has to be noticed.
"""

import io
import json
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py
import nibabel
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app import registry
from pulvinar.app.data import open_data
from pulvinar.cli import main
from pulvinar.core.errors import PulvinarError
from pulvinar.data import bdata_files
from pulvinar.data.inspect import probe_values
from pulvinar.data.session_values import SessionValues
from pulvinar.data.volume_series import VolumeSeries
from pulvinar.datasets.bold5000 import reader as bold5000
from pulvinar.datasets.deeprecon import reader as deeprecon
from pulvinar.datasets.god import reader as god
from pulvinar.datasets.laion_fmri import reader as laion
from pulvinar.datasets.laion_fmri import stimuli as laion_stimuli
from pulvinar.datasets.mosaic import files as mosaic_files
from pulvinar.datasets.mosaic import reader as mosaic
from pulvinar.datasets.things_fmri import reader as things
from pulvinar.datasets.things_fmri import tables as things_tables

N_PROBES = 50
QUICK = (
    "n_voxels=20",
    "epochs=3",
    "n_rounds=2",
    "epochs_per_round=2",
    "n_folds=2",
    "pretrained.epochs=3",
    "pretrained.hidden=16",
)
ELSEWHERE = {"nsd", "nod", "algonauts2023", "bids"}  # compared with their files in tests of their own

Raw = Callable[[Path, dict[str, Any]], dict[str, Any]]  # folder and probe -> what the files say of value, stimulus, ...
Error = tuple[Any, str, Any]  # where, which name, and what is put there


@dataclass(frozen=True, kw_only=True)
class Case:
    """settings: of the planted world. raw: what the files say. query: options of the source. errors: by convention."""

    settings: tuple[str, ...]
    raw: Raw
    query: str = ""
    errors: dict[str, Error]


# --- what the files say -----------------------------------------------------------------------------------------------


def bold5000_files(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """Line i of imgnames is volume i of the sessions one after the other; a run has 37 trials; masks by array place."""
    subject, place = probe["subject"], tuple(probe["place"])
    sessions = [nibabel.load(path) for path in sorted(root.glob(f"{subject}_GLMbetas-TYPED-*_ses-*.nii.gz"))]
    volumes = [(number, row) for number, image in enumerate(sessions, start=1) for row in range(image.shape[3])]
    session, row = volumes[probe["trial"]]
    lines = (root / f"{subject}_imgnames.txt").read_text().splitlines()
    assert len(lines) == len(volumes)
    right_names = {"LHLO": "LHLOC", "RHLO": "RHLOC", "RHRRSC": "RHRSC"}
    rois = set()
    for path in (root / "derivatives/spm" / f"sub-{subject}").iterdir():
        label = path.name.split("_mask-")[1].split(".")[0]
        label = right_names.get(label, label)
        if np.asanyarray(nibabel.load(path).dataobj)[place]:
            rois.add(f"{label[0].lower()}h.{label[2:]}")
    return {
        "value": float(np.asanyarray(sessions[session - 1].dataobj[..., row])[place]),
        "stimulus": lines[probe["trial"]].rsplit(".", 1)[0],
        "session": session,
        "run": row // 37 + 1,
        "rois": rois | ({"annotated"} if rois else set()),
        "noise_ceiling": None,
        "pixels": next((root / "BOLD5000_Stimuli/Scene_Stimuli/Presented_Stimuli").rglob(lines[probe["trial"]])),
    }


def things_files(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """A row of the frame is the voxel of that voxel_id, a column the trial of that trial_id; ceilings are percent."""
    stem = root / "betas_csv" / probe["subject"]
    trials = pd.read_csv(f"{stem}_StimulusMetadata.csv").set_index("trial_id").loc[probe["trial"]]
    voxels = pd.read_csv(f"{stem}_VoxelMetadata.csv")
    x, y, z = probe["place"]
    voxel = voxels[(voxels.voxel_x == x) & (voxels.voxel_y == y) & (voxels.voxel_z == z)].iloc[0]
    with h5py.File(f"{stem}_ResponseData.h5") as file:
        rows = file["ResponseData/block1_values"][:, 0].tolist()
        value = file["ResponseData/block0_values"][rows.index(int(voxel.voxel_id)), probe["trial"]]
    named = {"l": "lh.", "r": "rh."}
    columns = [name for name in voxels.columns[list(voxels.columns).index("V1") :] if voxel[name] == 1]
    functional = any(not name.startswith("glasser-") for name in columns)
    return {
        "value": float(value),
        "stimulus": trials.stimulus.removesuffix(".jpg"),
        "session": int(trials.session),
        "run": int(trials.run),
        "rois": {named[name[0]] + name[1:] if name[0] in named else name for name in columns}
        | ({"annotated"} if functional else set()),
        "noise_ceiling": float(voxel.nc_testset) / 100,
        "pixels": root / "images" / trials.concept / trials.stimulus,
    }


def laion_files(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """Row i of the session's table is its volume i; ceilings are percent; the bytes of an image stand in its metadata's row."""
    subject, place, derivatives = probe["subject"], tuple(probe["place"]), root / "derivatives"
    tables = [pd.read_csv(path, sep="\t") for path in sorted(derivatives.glob(f"glmsingle-tedana/{subject}/ses-*/func/*.tsv"))]
    trial = pd.concat(tables).iloc[probe["trial"]]
    betas = derivatives / f"glmsingle-tedana/{subject}/{trial.session}/func/{subject}_{trial.session}_task-images_space-T1w"
    ceiling = derivatives / f"glmsingle-tedana/{subject}/{subject}_task-images_space-T1w_desc-Noiseceiling4rep_statmap.nii.gz"
    masks = (derivatives / "rois" / subject).rglob("*_mask.nii.gz")
    inside = [path for path in masks if np.asanyarray(nibabel.load(path).dataobj)[place]]
    rois = {path.name.split("_label-")[1].removesuffix("_mask.nii.gz") for path in inside}
    row = pd.read_csv(root / "stimuli/task-images_metadata.csv").image_name.tolist().index(trial.label)
    with h5py.File(root / "stimuli/task-images_stimuli.h5") as file:
        picture = file["images"][row].tobytes()
    values = nibabel.load(f"{betas}_stat-effect_desc-SingletrialBetas_statmap.nii.gz")
    return {
        "value": float(np.asanyarray(values.dataobj[..., trial.beta_index])[place]),
        "stimulus": trial.label,
        "session": int(trial.session.removeprefix("ses-")),
        "run": int(trial.run),
        "rois": rois | ({"annotated"} if rois else set()),
        "noise_ceiling": float(np.asanyarray(nibabel.load(ceiling).dataobj)[place]) / 100,
        "pixels": io.BytesIO(picture),
    }


def god_files(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """A column is what the metadata row says where it is 1; stimulus_id is printed with six decimals."""
    with h5py.File(root / f"{probe['subject']}.h5") as file:
        keys = [key.decode() for key in file["metaData/key"][:]]
        rows, table = dict(zip(keys, file["metaData/value"][:], strict=True)), file["dataSet"][:]
    label = {name: table[:, list(rows[name]).index(1)] for name in ("DataType", "Run", "stimulus_id")}
    sample = np.flatnonzero(label["DataType"] < 3)[probe["trial"]]
    positions = np.stack([rows[f"voxel_{axis}"] for axis in "xyz"], axis=1)
    column = int(np.flatnonzero((positions == probe["place"]).all(1))[0])
    synset, picture = f"{label['stimulus_id'][sample]:.6f}".split(".")
    rois = {key.removeprefix("ROI_") for key in keys if key.startswith("ROI_") and rows[key][column] == 1}
    return {
        "value": float(table[sample, column]),
        "stimulus": f"n{int(synset):08d}_{int(picture)}",
        "session": 0,
        "run": int(label["Run"][sample]),
        "rois": rois | ({"annotated"} if "VC" in rois else set()),
        "noise_ceiling": None,
        "pixels": root / "images" / f"n{int(synset):08d}_{int(picture)}.JPEG",
    }


def deeprecon_files(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """Samples of the training file, then of the test file, without those that show the same as the one before in their run."""
    kinds = ("ImageNet{}_fmriprep_volume_native", "perceptionNaturalImage{}_original_VC")
    found = []
    for kind in ("Training", "Test"):
        path = next(path for name in kinds if (path := root / f"{probe['subject']}_{name.format(kind)}.h5").is_file())
        with h5py.File(path) as file:
            keys = [key.decode() for key in file["metadata/key"][:]]
            rows, table = dict(zip(keys, file["metadata/value"][:], strict=True)), file["dataset"][:]
            if "stimulus_name" in rows:
                numbers = table[:, list(rows["stimulus_name"]).index(1)]
                shown = [file["vmap/stimulus_name"][f"{number}"][()].decode() for number in numbers]
            else:
                numbers = table[:, list(rows["stimulus_id"]).index(1)]
                parts = [f"{number:.6f}".split(".") for number in numbers]
                shown = [f"n{int(synset):08d}_{int(picture)}" for synset, picture in parts]
        runs = table[:, list(rows["Run"]).index(1)].astype(int)
        again = [row > 0 and shown[row] == shown[row - 1] and runs[row] == runs[row - 1] for row in range(len(shown))]
        found += [(rows, table[row], shown[row], runs[row], len(found)) for row in range(len(shown)) if not again[row]]
    rows, sample, stimulus, run, _ = found[probe["trial"]]
    positions = np.stack([rows[f"voxel_{axis}"] for axis in "xyz"], axis=1)
    column = int(np.flatnonzero((positions == probe["place"]).all(1))[0])
    rois = {key.removeprefix("ROI_") for key in rows if key.startswith("ROI_") and rows[key][column] == 1}
    return {
        "value": float(sample[column]),
        "stimulus": stimulus,
        "run": run,
        "rois": rois | ({"annotated"} if "VC" in rois else set()),
        "noise_ceiling": None,
        "pixels": root / "images" / f"{stimulus}.JPEG",
    }


def mosaic_says(root: Path, probe: dict[str, Any]) -> dict[str, Any]:
    """A trial is a dataset, in the order of creation; left cortex is the first 29,696 greyordinates; ceilings are percent."""
    subject, (x, vertex, _) = probe["subject"], probe["place"]
    column, names = int(vertex) + 29_696 * (x > 0), []
    with h5py.File(next(root.rglob(f"{subject}.hdf5"))) as file:
        betas = file["betas"]
        betas.id.links.iterate(names.append, idx_type=h5py.h5.INDEX_CRT_ORDER)
        trial = betas[names[probe["trial"]]]
        value, shown = float(trial[column]), trial.attrs["presented_stimulus_filename"]
        ceiling = float(file[f"noiseceilings/{subject}_phase-test_n-avg_noiseceiling"][column]) / 100
    atlas = nibabel.load(root / "atlas.dlabel.nii")
    label = atlas.header.get_axis(0).label[0][int(atlas.get_fdata()[0, column])][0]
    area = {f"{label[0].lower()}h.{label[2:].removesuffix('_ROI')}", "annotated"} if label != "???" else set()
    return {
        "value": value,
        "stimulus": shown,
        "session": 0,
        "run": 0,
        "rois": area,
        "noise_ceiling": ceiling,
        "pixels": root / "images" / shown,
    }


# --- one error for each convention ------------------------------------------------------------------------------------


class Kept:
    """A path whose stem is its whole name."""

    def __init__(self, name: object) -> None:
        self.stem = str(name)


def c_order(self: VolumeSeries, index: np.ndarray, read: Any = VolumeSeries.volumes) -> Iterator[np.ndarray]:
    """Voxels found as if the last axis of a file ran fastest."""
    place = np.ravel_multi_index(tuple(index.T), self.grid, order="C")
    return read(self, np.stack(np.unravel_index(place, self.grid, order="F"), axis=1))


def without_suffix(path: Path, session: int, series: VolumeSeries) -> tuple[list[str], np.ndarray]:
    """Labels without the suffix that belongs to them."""
    labels, runs = READ_TRIALS(path, session, series)
    return [label.rpartition(".")[0] for label in labels], runs


def sorted_names(path: Path) -> Any:
    """The table of images as if it were sorted by name."""
    table = READ_NAMES(path)
    table.columns["image_name"].sort()  # type: ignore[attr-defined]
    return table


def rounded_name(number: float) -> str:
    """A stimulus_id as single precision keeps it."""
    return GOD_NAME(float(np.float32(number)))


def with_bad(path: Path, subject: str) -> mosaic_files.SubjectFile:
    """A file whose NaN vertices are not known."""
    return replace(OPEN_FILE(path, subject), bad=np.zeros(0, int))


def next_trial(self: things_tables.ResponseTable, rows: np.ndarray, trials: np.ndarray, read: Any = None) -> np.ndarray:
    """The column voxel_id taken for the first trial: every trial is the one before."""
    return READ_TABLE(self, rows, np.maximum(trials - 1, 0))


GOD_NAME, OPEN_FILE = bdata_files.picture_name, mosaic.open_file
READ_TABLE, READ_TRIALS, READ_NAMES = things_tables.ResponseTable.read, laion._trials, laion_stimuli.read_table

CASES = {
    "bold5000": Case(
        settings=("n_voxels=200", "n_sessions=2", "n_repeated=20", "image_size=16"),
        raw=bold5000_files,
        errors={
            "every session has 370 trials": (bold5000, "trials_of", lambda subject, session: 370),
            "the suffix of a picture is kept": (bold5000, "Path", Kept),
            "the axes of a volume": (VolumeSeries, "volumes", c_order),
            "right is left": (bold5000, "MISSPELT", {"LHLO": "RHLOC", "LHOPA": "RHOPA", "RHOPA": "LHOPA"}),
        },
    ),
    "deeprecon": Case(
        settings=(
            *("n_subjects=2", "n_voxels=200", "n_train=60", "n_test=20", "n_test_repeats=2", "n_artificial=4"),
            "image_size=16",
        ),
        raw=deeprecon_files,
        errors={
            "ids are joined by equality": (deeprecon, "picture_name", lambda number: f"n0{number}".replace(".", "_")),
            "one-backs are kept": (deeprecon.np, "setdiff1d", lambda every, again: every),
            "NaN selects a column": (bdata_files, "is_one", lambda row: row != 0),
        },
    ),
    "god": Case(
        settings=("n_voxels=200", "n_train=60", "n_test=20", "n_repeats=2", "n_imagery=5", "image_size=16"),
        raw=god_files,
        errors={
            "stimulus_id in single precision": (god, "picture_name", rounded_name),
            "decimals without their zeros": (bdata_files, "DECIMALS", 5),
            "imagery is a test": (god, "IMAGERY", 4),
            "NaN selects a column": (bdata_files, "is_one", lambda row: row != 0),
        },
    ),
    "laion_fmri": Case(
        settings=("n_voxels=200", "n_sessions=2", "n_trials=12", "n_ood=8", "n_shared=3", "image_size=16"),
        raw=laion_files,
        errors={
            "the suffix of a label is dropped": (laion, "_trials", without_suffix),
            "a ceiling is a share": (laion, "PERCENT", 1e4),
            "the table of images is sorted": (laion_stimuli, "read_table", sorted_names),
            "the axes of a volume": (VolumeSeries, "volumes", c_order),
        },
    ),
    "mosaic": Case(
        settings=("n_voxels=200", "n_train=40", "n_test=20", "image_size=16"),
        raw=mosaic_says,
        errors={
            "members of a split are keys": (mosaic_files, "MEMBER_SUFFIX", ".npy"),
            "trials in the order of their names": (mosaic_files, "_keys", sorted),
            "NaN vertices are kept": (mosaic, "open_file", with_bad),
            "a ceiling is a share": (mosaic, "PERCENT", 1e4),
            "vertices of the left side": (mosaic, "N_LEFT", 29_716),
        },
    ),
    "things_fmri": Case(
        settings=("n_voxels=200", "n_sessions=2", "n_test=20", "n_train=50", "image_size=16"),
        raw=things_files,
        errors={
            "voxel_id is a trial": (things_tables.ResponseTable, "read", next_trial),
            "a ceiling is a share": (things, "PERCENT", 1e4),
            "left for both sides": (things, "SIDED", ()),
        },
    ),
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> Callable[[str], Path]:
    """Folder of a layout, written when it is first asked for. Not to be changed."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name) / "set"
            pairs = [part for pair in CASES[name].settings for part in ("--set", pair)]
            assert main(["data", "simulate", "--layout", name, "--out", str(made[name]), *pairs, "--quiet"]) == 0
        return made[name]

    return get


def differing(name: str, root: Path, n: int = N_PROBES) -> list[str]:
    """What is not as the files say, of `n` probes."""
    case = CASES[name]
    experiment = open_data("experiment", f"{name}:{root}{case.query}")
    wrong = []
    for probe in probe_values(experiment, n):
        said = case.raw(root, probe)
        picture = np.asarray(Image.open(said.pop("pixels")).convert("RGB"))
        row = int(experiment.stimuli.rows([probe["stimulus"]])[0])
        wrong += [] if np.array_equal(experiment.stimuli.image(row), picture) else [f"pixels of {probe}"]
        for key, value in said.items():
            found = set(probe[key]) if key == "rois" else probe[key]
            same = found == (pytest.approx(value, rel=1e-5, abs=1e-6) if isinstance(value, float) else value)
            wrong += [] if same else [f"{key} of {probe}: the files say {value}"]
    return wrong


def gives_experiment(load: Callable[..., Any]) -> bool:
    return "Experiment" in typing.get_type_hints(load)["return"].__name__


def test_every_set_that_is_written_is_probed():
    found = [registry.dataset(name) for name in registry.names("datasets")]
    written = {one.name for one in found if one.generate and one.load and gives_experiment(one.load)}
    assert written == set(CASES) | ELSEWHERE


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "mosaic" else name for name in CASES])
def test_fifty_values_are_those_of_the_files(name, folders):
    assert differing(name, folders(name)) == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "convention"),
    [
        pytest.param(name, error, marks=[pytest.mark.slow] if name == "mosaic" else [])  # ten seconds each
        for name, case in CASES.items()
        for error in case.errors
    ],
)
def test_an_error_in_a_convention_is_noticed(name, convention, folders, monkeypatch):
    owner, attribute, error = CASES[name].errors[convention]
    root = folders(name)
    monkeypatch.setattr(owner, attribute, error)
    try:
        found = differing(name, root)
    except (PulvinarError, IndexError, ValueError):
        return
    assert found


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_opening_reads_no_responses(name, folders, monkeypatch):
    monkeypatch.setattr(SessionValues, "__getitem__", lambda *arguments: pytest.fail("responses were read"))
    experiment = open_data("experiment", f"{name}:{folders(name)}{CASES[name].query}")
    assert {type(own.values) for own in experiment.subjects.values()} == {SessionValues}


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_inspect_says_that_it_is_planted_and_shows_probes(name, folders, capsys):
    place = folders(name)
    capsys.readouterr()
    assert main(["data", "inspect", f"{name}:{place}{CASES[name].query}", "--probe", "2", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["name"].startswith("Planted world in the layout of")
    assert said["facts"]["simulated"]
    assert said["facts"]["citation"] == registry.dataset(name).facts.citation
    assert len(said["probes"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "mosaic" else name for name in CASES])
def test_a_split_without_leaks_is_part_of_the_owners(name, folders):
    """In every layout, by the embedding beside it; a near image on both sides is what its own tests look for."""
    source = f"{name}:{folders(name)}{CASES[name].query}"
    usual = open_data("experiment", source)
    chosen = open_data("experiment", f"{source}{'&' if '?' in source else '?'}split=leakage_free&give_up=0.5")
    assert set(chosen.split.train) < set(usual.split.train)
    assert set(chosen.split.test) <= set(usual.split.test)
    assert chosen.facts["split"].startswith("leakage_free: ")
    assert chosen.facts["near"]["clusters"]["n_test_images_in_clusters_with_training"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_troi_runs_from_the_folder_to_a_page(name, folders, tmp_path):
    run = tmp_path / "run"
    fitting.fit("troi", data=f"{name}:{folders(name)}{CASES[name].query}", out=str(run), assignments=QUICK)
    evaluating.evaluate(str(run))
    evaluating.report(str(run))
    assert (run / "report.html").is_file()
