"""Writes a planted world in the layout of Generic Object Decoding: one BData file (HDF5) for each subject, and the pictures.

As there, training pictures are shown once and test pictures again and again, categories of the test are not in the training,
and samples of imagery follow that hold a synset alone. Voxels stand before the labels, so that nobody can count on an order.
Beside the data set's own files stand `images/`, `features/`, `sources.csv` and `truth/`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder
from pulvinar.data.bdata_files import write_bdata
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.god.facts import IMAGERY, N_REPEATS, REGIONS, SUBJECTS, TEST, TRAINING

FIRST_SYNSET, SAMPLES_PER_RUN = 1440764, 50
AREAS_OF = {"V1": (1,), "V2": (2,), "LOC": (3,), "FFA": (4,), "PPA": (5,), "LVC": (1, 2), "HVC": (3, 4, 5), "VC": range(1, 6)}
LABELS = ("DataType", "Run", "stimulus_id", "image_index", "category_index")


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in GOD's layout."""

    n_subjects: int = setting(2, "Subject1 and on (GOD: 5)", at_least=1, at_most=len(SUBJECTS))
    n_voxels: int = setting(1500, "places in a head (GOD: about 4,500)", at_least=200)
    n_train: int = setting(500, "training pictures, shown once (GOD: 1200)", at_least=20, at_most=1200)
    n_test: int = setting(50, "test pictures (GOD: 50)", at_least=10, at_most=50)
    n_repeats: int = setting(5, "samples of each of them (GOD: 35)", at_least=1, at_most=N_REPEATS)
    n_imagery: int = setting(20, "samples of imagery (GOD: 500)", at_least=0, at_most=500)


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_test)
    numbers = _stimulus_numbers(experiment)
    names = {stimulus: f"n{synset:08d}_{picture}" for stimulus, (synset, picture) in numbers.items()}
    with atomic_folder(out) as folder:
        both = list(zip(SUBJECTS, experiment.subjects.values(), strict=False))
        for name, responses in track(both, "writing subjects", len(both)):
            truth = experiment.truth[responses.subject]
            _write_subject(folder / f"{name}.h5", config, experiment, responses, np.asarray(truth["area"]), numbers)
            write_truth(folder, name, {key: np.asarray(values) for key, values in truth.items()})
        (folder / "images").mkdir()
        for row, stimulus in enumerate(experiment.stimuli.ids):
            Image.fromarray(experiment.stimuli.image(row)).save(folder / "images" / f"{names[stimulus]}.JPEG", quality=95)
        write_sources(folder, experiment.stimuli, names)
        write_embeddings(folder, experiment.stimuli, names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    """Numbers of the pictures: all of the training, mixed, then the test pictures as often as they are repeated."""
    generator = np.random.default_rng([config.seed, 0x60D, number])
    train = config.n_test + generator.permutation(config.n_train)
    test = np.concatenate([generator.permutation(config.n_test) for _ in range(config.n_repeats)])
    return [(1, train), (2, test)]


def _stimulus_numbers(experiment: Experiment) -> dict[str, tuple[int, int]]:
    """Stimulus id -> synset (the same for crops of one photograph) and number of the picture, some of them short."""
    stimuli = experiment.stimuli
    synset = {source: FIRST_SYNSET + 37 * number for number, source in enumerate(dict.fromkeys(stimuli.sources))}
    return {
        name: (synset[source], 10 * (row + 1) if row % 2 else 20_000 + row)
        for row, (name, source) in enumerate(zip(stimuli.ids, stimuli.sources, strict=True))
    }


def _write_subject(
    path: Path,
    config: Generated,
    experiment: Experiment,
    responses: Responses,
    area: np.ndarray,
    numbers: Mapping[str, tuple[int, int]],
) -> None:
    n_voxels, values = responses.n_voxels, responses.read(np.arange(responses.n_trials)).astype(np.float64)
    generator, hidden = np.random.default_rng([config.seed, 0x1336]), set(experiment.split.test)
    imagined = generator.normal(size=(config.n_imagery, n_voxels))
    ids = [synset + picture / 10**6 for synset, picture in (numbers[one] for one in responses.stimulus_ids)]
    synsets = sorted({numbers[one][0] for one in hidden})
    ids += generator.choice(synsets, config.n_imagery).astype(float).tolist()
    kinds = [TEST if one in hidden else TRAINING for one in responses.stimulus_ids] + [IMAGERY] * config.n_imagery
    order = {one: row + 1 for row, one in enumerate(dict.fromkeys(ids))}
    labels: dict[str, Sequence[float] | np.ndarray] = {
        "DataType": kinds,
        "Run": np.arange(len(ids)) // SAMPLES_PER_RUN + 1,
        "stimulus_id": ids,
        "image_index": [order[one] for one in ids],
        "category_index": [int(one) for one in ids],
    }
    columns = [np.asarray(labels[name], np.float64) for name in LABELS]
    table = np.concatenate([np.concatenate([values, imagined]), np.stack(columns, axis=1)], axis=1)
    write_bdata(path, table, _metadata(responses, area, n_voxels))


def _metadata(responses: Responses, area: np.ndarray, n_voxels: int) -> dict[str, np.ndarray]:
    """A row for each key: 1 where it holds; positions are NaN off the voxels."""
    n_columns = n_voxels + len(LABELS)
    rows = {"VoxelData": np.full(n_columns, np.nan)}
    rows["VoxelData"][:n_voxels] = 1
    for number, name in enumerate(LABELS):
        rows[name] = np.full(n_columns, np.nan)
        rows[name][n_voxels + number] = 1
    for region in REGIONS:
        rows[f"ROI_{region}"] = np.full(n_columns, np.nan)
        rows[f"ROI_{region}"][:n_voxels] = np.isin(area, AREAS_OF.get(region, ()))
    for number, axis in enumerate("xyz"):
        rows[f"voxel_{axis}"] = np.full(n_columns, np.nan)
        rows[f"voxel_{axis}"][:n_voxels] = responses.geometry.coordinates[:, number]
    return rows
