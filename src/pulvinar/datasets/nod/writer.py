"""Writes a planted world in the layout of the Natural Object Dataset (ds004496): CIFTI betas by run, pictures, pRF maps.

A hemisphere's voxels become vertices 0, 1, ... of the 32k fs_LR mesh, planted areas first (V1 energy, V2 colour, V3 the middle
network, V4 the late ones). Betas are of the cortex alone, as the owners' are; receptive fields and atlas have a small thalamus
beside it. Every picture is shown once. A picture is named as ImageNet's are, its synset after the photograph it was cut from,
so that categories and sources agree. Beside the data set's own files stand `atlas.dlabel.nii` (V1 to V4 of the first subject,
in the place of HCP-MMP: the borders of others lie a little elsewhere, as people's do), `truth/sub-XX.npz` (area, responsive, by
vertex) and `sources.csv` (which photograph a picture was cut from).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_arrays, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_layout import TRUTH, Plant, PlantedWorld, write_sources
from pulvinar.data.responses import Responses

MESH = 32_492  # vertices of a hemisphere of the mesh
AREAS = ("V1", "V2", "V3", "V4")
AREA_OF = {1: 1, 2: 2, 3: 3, 4: 4, 5: 4}  # planted area -> number in AREAS
ATLAS = "atlas.dlabel.nii"
N_THALAMUS = 8


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in NOD's layout."""

    n_subjects: int = setting(1, "sub-01 and on (NOD: 30)", at_least=1, at_most=30)
    n_vertices: int = setting(1000, "vertices of both hemispheres (NOD: 59,412)", at_least=200, at_most=50_000)
    n_sessions: int = setting(2, "sessions of ImageNet pictures (NOD: 1 or 4)", at_least=1, at_most=9)
    n_runs: int = setting(2, "runs of a session (NOD: 10)", at_least=1, at_most=20)
    n_trials: int = setting(60, "pictures of a run (NOD: 100)", at_least=10, at_most=200)
    ceiling_median: float = setting(
        0.6, "median r^2 noise ceiling of responsive places, were there three trials", above=0, below=1
    )


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    n_own = config.n_sessions * config.n_runs * config.n_trials
    n_test = max(10, n_own // 6)  # crops of other photographs, mixed into the runs
    shown = []
    for subject in range(config.n_subjects):
        own = np.concatenate([np.arange(n_test), n_test + subject * (n_own - n_test) + np.arange(n_own - n_test)])
        mixed = np.random.default_rng([config.seed, 0x20D, subject]).permutation(own)
        shown.append([(number + 1, part) for number, part in enumerate(np.split(mixed, config.n_sessions))])
    experiment = config.planted(plant, shown, n_voxels=config.n_vertices, n_test_images=n_test)
    names = _picture_names(experiment)
    with atomic_folder(out) as folder:
        for number, responses in enumerate(track(experiment.subjects.values(), "writing subjects", config.n_subjects), start=1):
            _write_subject(folder, f"sub-{number:02d}", config, experiment, responses, names)
        _write_pictures(folder, experiment, names)
    return experiment


def _picture_names(experiment: Experiment) -> dict[str, str]:
    """Stimulus id -> n01440764_0001, the same synset for crops of one photograph."""
    stimuli = experiment.stimuli
    synset = {source: f"n{1440764 + number:08d}" for number, source in enumerate(dict.fromkeys(stimuli.sources))}
    return {
        name: f"{synset[source]}_{row:05d}" for row, (name, source) in enumerate(zip(stimuli.ids, stimuli.sources, strict=True))
    }


def _write_pictures(folder: Path, experiment: Experiment, names: dict[str, str]) -> None:
    stimuli = experiment.stimuli
    for row, name in enumerate(stimuli.ids):
        place = folder / "stimuli" / "imagenet" / names[name].split("_")[0]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(stimuli.image(row)).save(place / f"{names[name]}.JPEG", quality=95)
    write_sources(folder, stimuli, names)


def _axis(n_left: int, n_right: int) -> Any:
    from nibabel.cifti2 import BrainModelAxis

    left = BrainModelAxis.from_surface(np.arange(n_left), MESH, "CortexLeft")
    right = BrainModelAxis.from_surface(np.arange(n_right), MESH, "CortexRight")
    thalamus = BrainModelAxis.from_mask(np.ones((2, 2, N_THALAMUS // 4), bool), name="thalamus_left", affine=np.eye(4))
    return left + right + thalamus


def _save(path: Path, values: np.ndarray, rows: Any, places: Any) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    header = nibabel.Cifti2Header.from_axes((rows, places))
    nibabel.save(nibabel.Cifti2Image(values.astype(np.float32), header), path)


def _write_subject(
    folder: Path, name: str, config: Generated, experiment: Experiment, responses: Responses, names: dict[str, str]
) -> None:
    from nibabel.cifti2 import ScalarAxis

    truth = experiment.truth[responses.subject]
    left = responses.geometry.coordinates[:, 0] <= 0
    rank = np.where(truth["area"] > 0, truth["area"], 99)
    order = [np.flatnonzero(inside)[np.argsort(rank[inside], kind="stable")] for inside in (left, ~left)]
    voxels, axis = np.concatenate(order), _axis(len(order[0]), len(order[1]))
    cortex = axis[: len(voxels)]
    values = responses.read(np.arange(responses.n_trials))[:, voxels]
    rng = np.random.default_rng([config.seed, 0x7A1])
    results = folder / "derivatives" / "ciftify" / name / "results"
    for number in range(config.n_sessions * config.n_runs):
        session, run = number // config.n_runs + 1, number % config.n_runs + 1
        trials = slice(number * config.n_trials, (number + 1) * config.n_trials)
        shown = [names[stimulus] for stimulus in responses.stimulus_ids[trials]]
        stem = f"ses-imagenet{session:02d}_task-imagenet_run-{run}"
        _save(results / stem / f"{stem}_beta.dscalar.nii", values[trials], ScalarAxis(shown), cortex)
        write_text(results / stem / f"{stem}_label.txt", "\n".join(f"{picture}.JPEG" for picture in shown))
    share = truth["noise_ceiling"][voxels]
    fields = np.zeros((4, len(axis)))
    fields[:, : len(voxels)] = [
        rng.uniform(0, 2 * np.pi, len(voxels)),
        rng.uniform(0, 100, len(voxels)),
        np.full(len(voxels), 20),
        share,
    ]
    stem = "ses-prf_task-prf"
    _save(results / stem / f"{stem}_params.dscalar.nii", fields, ScalarAxis(["angle", "eccentricity", "size", "R2"]), axis)
    area = truth["area"][voxels]
    if not (folder / ATLAS).is_file():
        _write_atlas(folder / ATLAS, [area[: len(order[0])], area[len(order[0]) :]])
    known = {"area": area, "responsive": truth["responsive"][voxels], "is_left": left[voxels]}
    write_arrays(folder / TRUTH / f"{name}.npz", **known)


def _write_atlas(path: Path, areas: Sequence[np.ndarray]) -> None:
    """L_V1_ROI to R_V4_ROI of the first subject's areas, as HCP-MMP names them."""
    from nibabel.cifti2 import LabelAxis

    table: dict[int, tuple[str, tuple[float, ...]]] = {0: ("???", (0, 0, 0, 0))}
    labels = []
    for side, (letter, area) in enumerate(zip("LR", areas, strict=True)):
        for number, name in enumerate(AREAS, start=1):
            table[4 * side + number] = (f"{letter}_{name}_ROI", (number / 4, side, 1 - number / 4, 1))
        numbers = np.array([AREA_OF.get(int(value), 0) for value in area])
        labels.append(np.where(numbers > 0, 4 * side + numbers, 0))
    values = np.concatenate([*labels, np.zeros(N_THALAMUS, int)])[None]
    _save(path, values, LabelAxis(["planted areas"], [table]), _axis(len(areas[0]), len(areas[1])))
