"""Writes a planted world in the layout of MOSAIC: one HDF5 file for each subject, the splits, an atlas, pictures.

A hemisphere's voxels become its first vertices of fsLR 91k, planted areas first; all other greyordinates are NaN, and listed
as such. Everybody sees the same test pictures three times, and training pictures of their own once. A few training pictures are
in the files and on neither side of the split, as those are that MOSAIC removed. Beside MOSAIC's own files stand
`atlas.dlabel.nii` (areas of the first subject, in the place of HCP-MMP), `images/`, `features/`, `sources.csv` and `truth/`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.mosaic.facts import BETAS, FACTS, N_CORTEX, N_GREYORDINATES, N_LEFT, SETS
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise

MESH, N_REPEATS, N_REMOVED = 32_492, 3, 5
AREAS = ("V1", "V2", "LO1", "FFC", "VMV1")  # planted areas 1 to 5


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in MOSAIC's layout."""

    n_subjects: int = setting(2, "sub-01_NSD and on (MOSAIC: 93 of eight sets)", at_least=1, at_most=SETS["NSD"][1])
    n_voxels: int = setting(1500, "vertices that are planted; all others are NaN", at_least=200, at_most=20_000)
    n_train: int = setting(250, "training pictures of each subject, shown once", at_least=20, at_most=9000)
    n_test: int = setting(40, "test pictures, shown three times to everybody", at_least=20, at_most=1000)


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_test)
    names = {name: f"{row + 1:012d}.jpg" for row, name in enumerate(experiment.stimuli.ids)}
    sides: dict[str, list[dict[str, list[str]]]] = {"train": [], "test": []}
    with atomic_folder(out) as folder:
        place = folder / BETAS / SETS["NSD"][0]
        place.mkdir(parents=True)
        both = list(zip(FACTS.subjects, experiment.subjects.values(), strict=False))
        for name, responses in track(both, "writing subjects", len(both)):
            _write_subject(folder, place / f"{name}.hdf5", experiment, responses, names, sides)
        for side, file in (("train", "train_naturalistic.json"), ("test", "test_naturalistic.json")):
            write_json(folder / "splits" / file, sides[side])
        write_json(folder / "splits" / "test_artificial.json", [])
        (folder / "images").mkdir()
        for row, stimulus in enumerate(experiment.stimuli.ids):
            Image.fromarray(experiment.stimuli.image(row)).save(folder / "images" / names[stimulus], quality=95)
        write_sources(folder, experiment.stimuli, names)
        write_embeddings(folder, experiment.stimuli, names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    own = config.n_test + number * config.n_train + np.arange(config.n_train)
    trials = np.concatenate([np.tile(np.arange(config.n_test), N_REPEATS), own])
    return [(1, np.random.default_rng([config.seed, 0x3054, number]).permutation(trials))]


def _places(responses: Responses, area: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels in the order of their vertices, and these: planted areas first on each side, left before right."""
    left, rank = responses.geometry.coordinates[:, 0] <= 0, np.where(area > 0, area, 99)
    order = [np.flatnonzero(side)[np.argsort(rank[side], kind="stable")] for side in (left, ~left)]
    return np.concatenate(order), np.concatenate([np.arange(len(order[0])), N_LEFT + np.arange(len(order[1]))])


def _write_subject(
    folder: Path,
    path: Path,
    experiment: Experiment,
    responses: Responses,
    names: Mapping[str, str],
    sides: Mapping[str, list[dict[str, list[str]]]],
) -> None:
    name, truth, hidden = path.stem, experiment.truth[responses.subject], set(experiment.split.test)
    voxels, vertices = _places(responses, np.asarray(truth["area"]))
    values = responses.read(np.arange(responses.n_trials))[:, voxels]
    times: dict[str, list[str]] = {}
    with h5py.File(path, "w") as file:
        file.attrs.update(dataset_name="NSD", subjectID=name.partition("_")[0], beta_pipeline="planted", sex="", age="")
        file["nan_indices_all"] = np.setdiff1d(np.arange(N_GREYORDINATES), vertices)[::-1]
        betas = file.create_group("betas", track_order=True)
        for row, stimulus in enumerate(responses.stimulus_ids):
            phase, seen = "test" if stimulus in hidden else "train", times.setdefault(stimulus, [])
            key = f"{name}_stimulus-{Path(names[stimulus]).stem}_phase-{phase}_rep-{len(seen)}"
            node = betas.create_dataset(
                key, data=_spread(values[row], vertices), chunks=True, compression="gzip", compression_opts=1
            )
            node.attrs.update(phase=phase, repetition=len(seen), presented_stimulus_filename=names[stimulus])
            seen.append(f"{key}.npz")
        test = [row for row, stimulus in enumerate(responses.stimulus_ids) if stimulus in hidden]
        found = signal_to_noise(values[test], [responses.stimulus_ids[row] for row in test])
        ncsnr = np.zeros(len(voxels)) if found.ncsnr is None else found.ncsnr
        ceiling = _spread(100 * ceiling_r2(ncsnr, N_REPEATS), vertices)
        file[f"noiseceilings/{name}_phase-test_n-avg_noiseceiling"] = ceiling
    train = [stimulus for stimulus in times if stimulus not in hidden]
    for side, stimuli in (("train", train[N_REMOVED:]), ("test", [one for one in times if one in hidden])):
        sides[side].extend({f"{name}_stimulus-{names[one]}": times[one]} for one in stimuli)
    spread = {key: np.zeros(N_CORTEX, np.asarray(own).dtype) for key, own in truth.items()}
    for key, own in truth.items():
        spread[key][vertices] = np.asarray(own)[voxels]
    write_truth(folder, name, spread)
    if not (folder / "atlas.dlabel.nii").is_file():
        _write_atlas(folder / "atlas.dlabel.nii", spread["area"])


def _spread(values: np.ndarray, vertices: np.ndarray) -> np.ndarray:
    """float64 (91282,) with NaN where nothing was planted."""
    whole = np.full(N_GREYORDINATES, np.nan)
    whole[vertices] = values
    return whole


def _write_atlas(path: Path, area: np.ndarray) -> None:
    """L_V1_ROI, R_V1_ROI, ... on the 59,412 vertices, as HCP-MMP names them."""
    import nibabel
    from nibabel.cifti2 import BrainModelAxis, Cifti2Header, Cifti2Image, LabelAxis

    table: dict[int, tuple[str, tuple[float, ...]]] = {0: ("???", (0, 0, 0, 0))}
    right = np.arange(N_CORTEX) >= N_LEFT
    values = np.where(area > 0, area + len(AREAS) * right, 0)
    for number, name in enumerate(AREAS, start=1):
        table[number] = (f"L_{name}_ROI", (number / 5, 0, 1 - number / 5, 1))
        table[number + len(AREAS)] = (f"R_{name}_ROI", (number / 5, 1, 1 - number / 5, 1))
    axes: Any = BrainModelAxis.from_surface(np.arange(N_LEFT), MESH, "CortexLeft")
    axes += BrainModelAxis.from_surface(np.arange(N_CORTEX - N_LEFT), MESH, "CortexRight")
    header = Cifti2Header.from_axes((LabelAxis(["planted areas"], [table]), axes))
    nibabel.save(Cifti2Image(values[None].astype(np.float32), header), path)
