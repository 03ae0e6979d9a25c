"""Writes a planted world in the layout of THINGS-fMRI's tables: responses as pandas writes them, trials, voxels, brain mask.

As in THINGS-fMRI every session has ten runs, each with as many of the test pictures as show all of them once a session; all
other pictures are shown once. Everybody sees the same pictures, in another order. Concepts are numbered, and every concept of
the test is one of the training too. The names of the responses' columns are pickled, as pandas does: the only such thing here.
Beside the data set's own files stand `images/`, `features/`, `sources.csv` and `truth/`.
"""

import csv
import io
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.hdf5 import create_hdf5
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_head import HeadGrid, head_grid
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.things_fmri.facts import N_SESSIONS, RUNS_PER_SESSION, SIDED, SUBJECTS, VISUAL, WHOLE
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise

MARGIN, VOXEL_MM, N_CONCEPTS, FIRST_VOXEL = 1, 2.0, 30, 0
AREA_OF = {"V1": 1, "V2": 2, "LOC": 3, "FFA": 4, "PPA": 5}  # region -> planted area; the others are empty
PRF = ("prf-eccentricity", "prf-polarangle", "prf-rsquared", "prf-size")
ATLAS_OF = {"glasser-V1": 1, "glasser-V2": 2, "glasser-LO1": 3}


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in THINGS-fMRI's layout."""

    n_subjects: int = setting(2, "sub-01 and on (THINGS-fMRI: 3)", at_least=1, at_most=len(SUBJECTS))
    n_voxels: int = setting(1500, "places in a head (THINGS-fMRI: about 200,000)", at_least=200)
    n_sessions: int = setting(4, "sessions, in each of which every test picture is shown once (THINGS-fMRI: 12)",
                              at_least=2, at_most=N_SESSIONS)  # fmt: skip
    n_test: int = setting(40, "test pictures (THINGS-fMRI: 100)", at_least=20, at_most=100, multiple_of=RUNS_PER_SESSION)
    n_train: int = setting(
        150, "other pictures of a session (THINGS-fMRI: 720)", at_least=20, at_most=720, multiple_of=RUNS_PER_SESSION
    )


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_test)
    names = _picture_names(experiment)
    with atomic_folder(out) as folder:
        (folder / "betas_csv").mkdir()
        (folder / "brainmasks").mkdir()
        both = list(zip(SUBJECTS, experiment.subjects.values(), strict=False))
        for name, responses in track(both, "writing subjects", len(both)):
            _write_subject(folder, name, config, experiment, responses, names)
        for row, stimulus in enumerate(experiment.stimuli.ids):
            place = folder / "images" / names[stimulus].rpartition("_")[0]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(experiment.stimuli.image(row)).save(place / f"{names[stimulus]}.jpg", quality=95)
        write_sources(folder, experiment.stimuli, names)
        write_embeddings(folder, experiment.stimuli, names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    """Numbers of the pictures of each session, run by run: test pictures mixed with those that are shown once."""
    generator = np.random.default_rng([config.seed, 0x7419, number])
    own = config.n_test + generator.permutation(config.n_sessions * config.n_train)
    sessions = []
    for session, part in enumerate(np.split(own, config.n_sessions), start=1):
        test = generator.permutation(config.n_test)
        runs = zip(np.split(test, RUNS_PER_SESSION), np.split(part, RUNS_PER_SESSION), strict=True)
        sessions.append((session, np.concatenate([generator.permutation(np.concatenate(both)) for both in runs])))
    return sessions


def _picture_names(experiment: Experiment) -> dict[str, str]:
    """Stimulus id -> `thing07_12s`: concept and number of the example, training and test pictures in every concept."""
    names, hidden = {}, set(experiment.split.test)
    for stimuli, letter in (([n for n in experiment.stimuli.ids if n not in hidden], "b"), (experiment.split.test, "s")):
        for row, name in enumerate(stimuli):
            names[name] = f"thing{row % N_CONCEPTS:02d}_{row // N_CONCEPTS + 1:02d}{letter}"
    return names


def _write_subject(
    folder: Path, name: str, config: Generated, experiment: Experiment, responses: Responses, names: Mapping[str, str]
) -> None:
    grid, truth = head_grid(responses.geometry, margin=MARGIN), experiment.truth[responses.subject]
    order = np.lexsort(grid.index.T[::-1])  # C order of the grid, in which the tables list voxels
    values = responses.read(np.arange(responses.n_trials))[:, order].T.astype(np.float64)  # (voxel, trial)
    write_frame(folder / "betas_csv" / f"{name}_ResponseData.h5", values)
    _write_trials(folder / "betas_csv" / f"{name}_StimulusMetadata.csv", name, config, experiment, responses, names)
    hidden = set(experiment.split.test)
    test = [trial for trial, stimulus in enumerate(responses.stimulus_ids) if stimulus in hidden]
    found = signal_to_noise(values.T[test], [responses.stimulus_ids[trial] for trial in test])
    ncsnr = np.zeros(len(values)) if found.ncsnr is None else found.ncsnr
    columns = _voxel_columns(name, grid, order, np.asarray(truth["area"])[order])
    columns["nc_singletrial"] = 100 * ceiling_r2(ncsnr, 1)
    columns["nc_testset"] = 100 * ceiling_r2(ncsnr, config.n_sessions)
    _write_csv(folder / "betas_csv" / f"{name}_VoxelMetadata.csv", columns)
    write_truth(folder, name, {key: np.asarray(own)[order] for key, own in truth.items()})
    import nibabel

    mask = grid.fill(np.ones(len(grid.index), np.uint8))
    nibabel.save(nibabel.Nifti1Image(mask, grid.affine), folder / "brainmasks" / f"{name}_space-T1w_brainmask.nii.gz")


def _write_trials(
    path: Path, name: str, config: Generated, experiment: Experiment, responses: Responses, names: Mapping[str, str]
) -> None:
    per_run = (config.n_test + config.n_train) // RUNS_PER_SESSION
    hidden, stimuli = set(experiment.split.test), list(responses.stimulus_ids)
    numbers = np.arange(len(stimuli))
    _write_csv(
        path,
        {
            "trial_type": ["test" if stimulus in hidden else "train" for stimulus in stimuli],
            "session": responses.sessions,
            "run": numbers // per_run % RUNS_PER_SESSION + 1,
            "subject_id": [int(name[-2:])] * len(stimuli),
            "trial_id": numbers,
            "stimulus": [f"{names[stimulus]}.jpg" for stimulus in stimuli],
            "concept": [names[stimulus].rpartition("_")[0] for stimulus in stimuli],
        },
    )


def _voxel_columns(name: str, grid: HeadGrid, order: np.ndarray, area: np.ndarray) -> dict[str, Any]:
    """The columns of VoxelMetadata, without the ceilings' values, in the order of the table."""
    n_voxels, place = len(order), grid.index[order]
    left = place[:, 0] < np.median(place[:, 0])
    columns: dict[str, Any] = {"voxel_id": FIRST_VOXEL + np.arange(n_voxels), "subject_id": [int(name[-2:])] * n_voxels}
    columns |= {f"voxel_{axis}": place[:, number] for number, axis in enumerate("xyz")}
    columns |= dict.fromkeys(("nc_singletrial", "nc_testset"), np.zeros(n_voxels))
    columns |= dict.fromkeys(("splithalf_uncorrected", "splithalf_corrected"), np.full(n_voxels, np.nan))
    columns |= dict.fromkeys(PRF, np.full(n_voxels, np.nan))
    columns |= {region: (area == AREA_OF.get(region, -1)).astype(int) for region in VISUAL}
    for region in SIDED:
        inside = area == AREA_OF.get(region, -1)
        columns |= {f"l{region}": (inside & left).astype(int), f"r{region}": (inside & ~left).astype(int)}
    columns[WHOLE] = (area > 2).astype(int)
    return columns | {column: (area == number).astype(int) for column, number in ATLAS_OF.items()}


def _write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*(np.asarray(values).tolist() for values in columns.values()), strict=True))
    write_text(path, text.getvalue().replace("nan", ""))


def write_frame(path: Path, values: np.ndarray) -> None:
    """`ResponseData`: a frame of float64 (voxel, trial) with a column voxel_id before it, in pandas' fixed format."""
    n_voxels, n_trials = values.shape
    with create_hdf5(path) as file:
        _attributes(file, CLASS="GROUP", PYTABLES_FORMAT_VERSION="2.1", TITLE="", VERSION="1.0")
        group = file.create_group("ResponseData")
        _attributes(group, CLASS="GROUP", TITLE="", VERSION="1.0", encoding="UTF-8", errors="strict", pandas_type="frame")
        _attributes(group, pandas_version="0.15.2", axis0_variety="regular", axis1_variety="regular")
        _attributes(group, block0_items_variety="regular", block1_items_variety="regular")
        group.attrs.update(ndim=2, nblocks=2)
        _pickled(group, "axis0", ["voxel_id", *range(n_trials)])
        _array(group, "axis1", np.arange(n_voxels), kind="integer")
        _pickled(group, "block0_items", list(range(n_trials)))
        _array(group, "block0_values", values)
        _pickled(group, "block1_items", ["voxel_id"])
        _array(group, "block1_values", FIRST_VOXEL + np.arange(n_voxels)[:, None])


def _attributes(node: Any, **texts: str) -> None:
    for name, text in texts.items():
        node.attrs[name] = np.bytes_(text)


def _array(group: h5py.Group, name: str, values: np.ndarray, *, kind: str = "") -> None:
    node = group.create_dataset(name, data=values)
    _attributes(node, CLASS="ARRAY", FLAVOR="numpy", TITLE="", VERSION="2.4", **({"kind": kind} if kind else {}))
    node.attrs["transposed"] = True


def _pickled(group: h5py.Group, name: str, labels: list[Any]) -> None:
    """Column names as PyTables stores Python objects: one pickled array of them, as bytes of a variable-length row."""
    node = group.create_dataset(name, shape=(1,), dtype=h5py.vlen_dtype(np.uint8))
    node[0] = np.frombuffer(pickle.dumps(np.array(labels, dtype=object), protocol=4), np.uint8)
    _attributes(node, CLASS="VLARRAY", PSEUDOATOM="object", TITLE="", VERSION="1.4", kind="object")
