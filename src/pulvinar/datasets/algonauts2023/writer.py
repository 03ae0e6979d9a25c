"""Writes a planted world in the official layout of the Algonauts Project 2023, so that its answer is known.

Each image is shown three times, and its three trials averaged, as the challenge's responses are. A hemisphere's voxels become
vertices of fsaverage: those of fsaverage5 (the first 10,242 of fsaverage's 163,842) nearest the occipital pole, in rings of the
planted areas: energy V1, colour V2, the middle network EBA, the late one FFA-1, its scattered voxels PPA. Beside the official
files stand `truth/subj0X.npz` (per side: responses to the challenge's test pictures, noise ceiling, area, responsive) and
`sources.csv` (which photograph a picture was cut from), both unknown to the challenge. The mappings are pickled dicts, as the
challenge's are: the only files here that are.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_arrays
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_layout import TRUTH, Plant, PlantedWorld, write_sources
from pulvinar.data.responses import Responses, mean_over_repeats

FSAVERAGE5, FSAVERAGE = 10_242, 163_842
N_REPEATS, N_NSD = 3, 73_000
AREAS = {  # planted area -> kind of mask, and the number in it of every other vertex
    1: ("prf-visualrois", 1, 2),
    2: ("prf-visualrois", 3, 4),
    3: ("floc-bodies", 1, 1),
    4: ("floc-faces", 2, 2),
    5: ("floc-places", 2, 2),
}
STREAMS = {1: 1, 2: 1, 3: 6, 4: 5, 5: 5}  # area -> number in streams: early, early, lateral, ventral, ventral
SIDES = ("lh", "rh")


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in the challenge's layout."""

    n_subjects: int = setting(2, "subj01 and on (challenge: 8)", at_least=1, at_most=8)
    n_vertices: int = setting(1200, "vertices of both hemispheres (challenge: about 39,500)", at_least=200, at_most=18_000)
    n_images: int = setting(300, "training pictures of each subject (challenge: 8,779 to 9,841)", at_least=20, at_most=9841)
    shared_share: float = setting(0.1, "share of them that all subjects see", above=0, below=1)
    n_test_images: int = setting(
        60, "pictures of the challenge's test, without responses (challenge: 159 to 395)", at_least=10, at_most=1000
    )
    pixels: int = setting(128, "pixels along an edge of the files (challenge: 425)", at_least=16)


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    numbers = _image_numbers(config)
    order = [np.tile(np.concatenate([np.arange(config.n_test_images), own]), N_REPEATS) for own in numbers]
    seen = [[(1, shown)] for shown in order]
    experiment = config.planted(plant, seen, n_voxels=config.n_vertices, n_test_images=config.n_test_images)
    nsd = np.sort(np.random.default_rng([config.seed, 0xA23]).choice(N_NSD, len(experiment.stimuli), replace=False))
    number_of = {name: int(value) for name, value in zip(experiment.stimuli.ids, nsd, strict=True)}
    vertices = _vertices_by_distance()
    with atomic_folder(out) as folder:
        for responses in track(experiment.subjects.values(), "writing subjects", len(experiment.subjects)):
            _write_subject(folder, config, experiment, responses, number_of, vertices)
        write_sources(folder, experiment.stimuli, {name: f"nsd-{number:05d}" for name, number in number_of.items()})
    return experiment


def _image_numbers(config: Generated) -> list[np.ndarray]:
    """Numbers of each subject's training images: some shared by all, the others its own; the first are the test's."""
    n_shared = round(config.shared_share * config.n_images)
    n_own = config.n_images - n_shared
    shared = config.n_test_images + np.arange(n_shared)
    return [
        np.concatenate([shared, config.n_test_images + n_shared + number * n_own + np.arange(n_own)])
        for number in range(config.n_subjects)
    ]


def _vertices_by_distance() -> dict[str, np.ndarray]:
    """Vertices of fsaverage5 per side, the nearest to the occipital pole first (pial surface, bundled with nilearn)."""
    from nilearn.datasets import load_fsaverage

    pial = load_fsaverage("fsaverage5")["pial"]
    found = {}
    for side, part in zip(SIDES, ("left", "right"), strict=True):
        points = pial.parts[part].coordinates
        pole = points[points[:, 1].argmin()]
        found[side] = np.argsort(np.linalg.norm(points - pole, axis=1), kind="stable")
    return found


def _write_subject(
    folder: Path,
    config: Generated,
    experiment: Experiment,
    responses: Responses,
    number_of: dict[str, int],
    vertices: dict[str, np.ndarray],
) -> None:
    place, stimuli, truth = folder / responses.subject, experiment.stimuli, experiment.truth[responses.subject]
    values = responses.read(np.arange(responses.n_trials))
    means, ids, _ = mean_over_repeats(values, responses.stimulus_ids)
    hidden = set(experiment.split.test)
    rows = sorted(range(len(ids)), key=lambda row: number_of[ids[row]])
    for split in ("training", "test"):
        images = place / f"{split}_split" / f"{split}_images"
        images.mkdir(parents=True)
        chosen = [row for row in rows if (ids[row] in hidden) == (split == "test")]
        for count, row in enumerate(chosen, start=1):
            picture = Image.fromarray(stimuli.image(int(stimuli.rows([ids[row]])[0])))
            size = (config.pixels, config.pixels)
            stem = "train" if split == "training" else "test"
            picture.resize(size, Image.Resampling.BILINEAR).save(
                images / f"{stem}-{count:04d}_nsd-{number_of[ids[row]]:05d}.png", compress_level=1
            )
    train = [row for row in rows if ids[row] not in hidden]
    test = [row for row in rows if ids[row] in hidden]
    (place / "training_split" / "training_fmri").mkdir()
    (place / "roi_masks").mkdir()
    known: dict[str, np.ndarray] = {}
    left = responses.geometry.coordinates[:, 0] <= 0
    for side, inside in zip(SIDES, (left, ~left), strict=True):
        voxels, order = _rings(np.flatnonzero(inside), truth["area"], vertices[side])
        np.save(place / "training_split" / "training_fmri" / f"{side}_training_fmri.npy", means[train][:, voxels])
        _write_masks(place / "roi_masks", side, truth["area"][voxels], order)
        known |= {
            f"{side}_test": means[test][:, voxels],
            f"{side}_noise_ceiling": truth["noise_ceiling"][voxels],
            f"{side}_area": truth["area"][voxels],
            f"{side}_responsive": truth["responsive"][voxels],
        }
    for kind, names in _mappings().items():
        np.save(place / "roi_masks" / f"mapping_{kind}.npy", np.array(names, dtype=object), allow_pickle=True)
    write_arrays(folder / TRUTH / f"{responses.subject}.npz", **known)


def _rings(voxels: np.ndarray, area: np.ndarray, by_distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of a side in the order of their vertices, and these (ascending): areas in rings from the pole, others last."""
    rank = np.where(area[voxels] > 0, area[voxels], 99)
    sorted_voxels = voxels[np.argsort(rank, kind="stable")]
    taken = by_distance[: len(voxels)]
    ascending = np.argsort(taken)
    return sorted_voxels[ascending], taken[ascending]


def _write_masks(folder: Path, side: str, area: np.ndarray, vertices: np.ndarray) -> None:
    labels: dict[str, np.ndarray] = {kind: np.zeros(len(area), np.int64) for kind in _mappings()}
    for number, (kind, first, second) in AREAS.items():
        places = np.flatnonzero(area == number)
        labels[kind][places] = np.where(np.arange(len(places)) % 2 == 0, first, second)
        labels["streams"][places] = STREAMS[number]
    whole = np.zeros(FSAVERAGE, np.int64)
    whole[vertices] = 1
    np.save(folder / f"{side}.all-vertices_fsaverage_space.npy", whole)
    for kind, values in labels.items():
        np.save(folder / f"{side}.{kind}_challenge_space.npy", values)
        spread = np.zeros(FSAVERAGE, np.int64)
        spread[vertices] = values
        np.save(folder / f"{side}.{kind}_fsaverage_space.npy", spread)


def _mappings() -> dict[str, dict[int, str]]:
    """Number -> name of every kind of mask, 0 for unknown, as the challenge ships them."""
    return {kind: {0: "Unknown", **names} for kind, names in MAPPINGS.items()}


MAPPINGS = {
    "prf-visualrois": {1: "V1v", 2: "V1d", 3: "V2v", 4: "V2d", 5: "V3v", 6: "V3d", 7: "hV4"},
    "floc-bodies": {1: "EBA", 2: "FBA-1", 3: "FBA-2", 4: "mTL-bodies"},
    "floc-faces": {1: "OFA", 2: "FFA-1", 3: "FFA-2", 4: "mTL-faces", 5: "aTL-faces"},
    "floc-places": {1: "OPA", 2: "PPA", 3: "RSC"},
    "floc-words": {1: "OWFA", 2: "VWFA-1", 3: "VWFA-2", 4: "mfs-words", 5: "mTL-words"},
    "streams": {1: "early", 2: "midventral", 3: "midlateral", 4: "midparietal", 5: "ventral", 6: "lateral", 7: "parietal"},
}
