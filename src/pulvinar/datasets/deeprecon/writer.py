"""Writes a planted world in the layout of Deeprecon: two BData files for each subject, and the pictures.

Training pictures are shown some times, test pictures more often; a file of artificial pictures beside them has names of its own
(the owners' name for it was not established). In each run one picture is shown twice in a row, as in the raw data's one-back
task. The form is the original (numbers, V4) or that of fMRIPrep (names by `vmap`, which each file numbers anew, and hV4).
Voxels stand behind the labels. Beside the data set's own files stand `images/`, `features/`, `sources.csv` and `truth/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder
from pulvinar.data.bdata_files import write_bdata
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.deeprecon.facts import (
    FORMS,
    N_TEST,
    N_TEST_REPEATS,
    N_TRAINING,
    N_TRAINING_REPEATS,
    SUBJECTS,
    TEST,
    TRAINING,
)
from pulvinar.datasets.deeprecon.reader import Form

ARTIFICIAL = "{subject}_planted_artificial.h5"
FIRST_SYNSET, SAMPLES_PER_RUN = 1440764, 50
AREAS_OF = {"V1": (1,), "V2": (2,), "LOC": (3,), "FFA": (4,), "PPA": (5,), "LVC": (1, 2), "HVC": (3, 4, 5), "VC": range(1, 6)}
ARTIFICIAL_SESSION = 3


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in Deeprecon's layout."""

    n_subjects: int = setting(2, "sub-01 and on (Deeprecon: 3)", at_least=1, at_most=len(SUBJECTS))
    n_voxels: int = setting(1500, "places in a head (visual cortex: about 10,000 to 11,700)", at_least=200)
    n_train: int = setting(400, "training pictures (Deeprecon: 1200)", at_least=20, at_most=N_TRAINING)
    n_train_repeats: int = setting(1, "samples of each of them (Deeprecon: 5)", at_least=1, at_most=N_TRAINING_REPEATS)
    n_test: int = setting(50, "test pictures (Deeprecon: 50)", at_least=10, at_most=N_TEST)
    n_test_repeats: int = setting(5, "samples of each of them (Deeprecon: 24)", at_least=1, at_most=N_TEST_REPEATS)
    n_artificial: int = setting(20, "artificial pictures, as often as test pictures (Deeprecon: 50)", at_least=2, at_most=50)
    form: Form = setting("original", "original or fmriprep")


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_test + config.n_artificial)
    artificial = {one for own in experiment.subjects.values() for one in _of_session(own, ARTIFICIAL_SESSION)}
    names = _names(experiment, artificial)
    with atomic_folder(out) as folder:
        both = list(zip(SUBJECTS, experiment.subjects.values(), strict=False))
        for name, responses in track(both, "writing subjects", len(both)):
            truth = experiment.truth[responses.subject]
            _write_subject(folder, name, config, responses, np.asarray(truth["area"]), names)
            write_truth(folder, name, {key: np.asarray(values) for key, values in truth.items()})
        (folder / "images").mkdir()
        for row, stimulus in enumerate(experiment.stimuli.ids):
            suffix = ".tif" if stimulus in artificial else ".JPEG"
            settings: dict[str, Any] = {} if stimulus in artificial else {"quality": 95}
            Image.fromarray(experiment.stimuli.image(row)).save(folder / "images" / f"{names[stimulus]}{suffix}", **settings)
        write_sources(folder, experiment.stimuli, names)
        write_embeddings(folder, experiment.stimuli, names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    """Session 1: training pictures; 2: test pictures; 3: artificial ones; in each run one is shown twice in a row."""
    generator = np.random.default_rng([config.seed, 0xDEE9, number])
    first = config.n_test + config.n_artificial
    blocks = {
        1: (first + np.arange(config.n_train), config.n_train_repeats),
        2: (np.arange(config.n_test), config.n_test_repeats),
        ARTIFICIAL_SESSION: (config.n_test + np.arange(config.n_artificial), config.n_test_repeats),
    }
    return [
        (session, _with_one_backs(np.concatenate([generator.permutation(pictures) for _ in range(repeats)])))
        for session, (pictures, repeats) in blocks.items()
    ]


def _with_one_backs(order: np.ndarray) -> np.ndarray:
    """The last picture of every run once more. (Where an order begins with the picture that the one before ended with, the
    first is moved to its end: what is shown twice in a row is a one-back.)"""
    runs = []
    for start in range(0, len(order), SAMPLES_PER_RUN - 1):
        run = order[start : start + SAMPLES_PER_RUN - 1]
        keep = np.concatenate([[True], run[1:] != run[:-1]])
        runs.append(np.concatenate([run[keep], run[keep][-1:]]))
    return np.concatenate(runs)


def _of_session(responses: Responses, session: int) -> list[str]:
    return [responses.stimulus_ids[trial] for trial in np.flatnonzero(responses.sessions == session).tolist()]


def _names(experiment: Experiment, artificial: set[str]) -> dict[str, str]:
    """The world's stimulus id -> nSYNSET_PICTURE (one synset for crops of a photograph), or a name of an artificial picture."""
    stimuli = experiment.stimuli
    synset = {source: FIRST_SYNSET + 37 * number for number, source in enumerate(dict.fromkeys(stimuli.sources))}
    return {
        name: f"colorExpStim{row:03d}" if name in artificial else f"n{synset[source]:08d}_{10 * (row + 1) + row % 7}"
        for row, (name, source) in enumerate(zip(stimuli.ids, stimuli.sources, strict=True))
    }


def _write_subject(
    folder: Path, name: str, config: Generated, responses: Responses, area: np.ndarray, names: Mapping[str, str]
) -> None:
    files = [FORMS[config.form].replace("{kind}", kind) for kind in (TRAINING, TEST)] + [ARTIFICIAL]
    for session, file in enumerate(files, start=1):
        trials = np.flatnonzero(responses.sessions == session)
        shown = [names[responses.stimulus_ids[trial]] for trial in trials.tolist()]
        numbered = config.form == "original" and session != ARTIFICIAL_SESSION
        key = "stimulus_id" if numbered else "stimulus_name"
        number = {one: place + session for place, one in enumerate(dict.fromkeys(shown))}  # each file numbers its own
        labels = {
            "Run": np.arange(len(trials)) // SAMPLES_PER_RUN + 1.0,
            key: [_number(one) if numbered else float(number[one]) for one in shown],
            "image_index": [float(number[one]) for one in shown],
        }
        table = np.concatenate(
            [np.stack([np.asarray(values, np.float64) for values in labels.values()], axis=1), responses.read(trials)], axis=1
        )
        vmap = {} if numbered else {key: {float(place): one for one, place in number.items()}}
        rows = _metadata(responses, area, list(labels), v4="V4" if config.form == "original" else "hV4")
        write_bdata(folder / file.replace("{subject}", name), table, rows, vmap, names=("dataset", "metadata"))


def _number(name: str) -> float:
    """nSYNSET_PICTURE as a stimulus_id."""
    synset, picture = name.removeprefix("n").split("_")
    return int(synset) + int(picture) / 10**6


def _metadata(responses: Responses, area: np.ndarray, labels: Sequence[str], *, v4: str) -> dict[str, np.ndarray]:
    """A row for each key: 1 where it holds; positions are NaN off the voxels."""
    n_labels, n_columns = len(labels), len(labels) + responses.n_voxels
    rows = {name: np.full(n_columns, np.nan) for name in ("VoxelData", *labels)}
    rows["VoxelData"][n_labels:] = 1
    for number, name in enumerate(labels):
        rows[name][number] = 1
    for region in (*AREAS_OF, v4):
        rows[f"ROI_{region}"] = np.full(n_columns, np.nan)
        rows[f"ROI_{region}"][n_labels:] = np.isin(area, AREAS_OF.get(region, ()))
    for number, axis in enumerate("xyz"):
        rows[f"voxel_{axis}"] = np.full(n_columns, np.nan)
        rows[f"voxel_{axis}"][n_labels:] = responses.geometry.coordinates[:, number]
    return rows
