"""Writes a planted world in the layout of BOLD5000's release 2.0: betas by session, lists, masks, pictures.

Sessions have as many runs as each subject's own, so that those of two subjects differ in length. Everybody sees the same
pictures, as in BOLD5000: some four times (in the list of the repeated ones), all others once. A voxel outside the head is NaN;
headers have voxel sizes and no position; masks of regions have the names that they have in ds001499, misspelt ones too. Beside
BOLD5000's own files stand `features/`, `sources.csv` and `truth/`, which are unknown to it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_head import HeadGrid, head_grid
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.bold5000.facts import BETAS, MISSPELT, ROIS, SESSIONS, trials_of

MARGIN, VOXEL_MM = 1, 2.0
STIMULI = Path("BOLD5000_Stimuli/Scene_Stimuli")
FOLDERS = ("COCO", "ImageNet", "Scene")
MISSPELT_IN = {"CSI2": ("LHLO", "RHLO", "RHRRSC"), "CSI3": ("LHLO", "RHLO")}


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in BOLD5000's layout."""

    n_subjects: int = setting(2, "CSI1 and on (BOLD5000: 4)", at_least=1, at_most=4)
    n_voxels: int = setting(1500, "places in a head", at_least=200)
    n_sessions: int = setting(2, "sessions of each subject, 9 or 10 runs of 37 trials (BOLD5000: 15, 9)", at_least=1, at_most=9)
    n_repeated: int = setting(40, "pictures shown four times (BOLD5000: 113)", at_least=10, at_most=80)


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    subjects = list(SESSIONS)[: config.n_subjects]
    shown = [_order(config, number, name) for number, name in enumerate(subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_repeated)
    files = _file_names(experiment)
    with atomic_folder(out) as folder:
        for name, responses in track(
            zip(subjects, experiment.subjects.values(), strict=True), "writing subjects", len(subjects)
        ):
            _write_subject(folder, name, config, responses, experiment.truth[responses.subject], files)
        _write_pictures(folder, experiment, files)
    return experiment


def _order(config: Generated, number: int, name: str) -> list[tuple[int, np.ndarray]]:
    """Numbers of the pictures of each session: the repeated ones four times, then as many others as there are trials."""
    counts = [trials_of(name, session) for session in range(1, config.n_sessions + 1)]
    repeated = np.repeat(np.arange(config.n_repeated), min(4, max(2, min(counts) // config.n_repeated)))
    others = config.n_repeated + np.arange(sum(counts) - len(repeated))
    mixed = np.random.default_rng([config.seed, 0xB05, number]).permutation(np.concatenate([repeated, others]))
    return list(enumerate(np.split(mixed, np.cumsum(counts)[:-1]), start=1))


def _file_names(experiment: Experiment) -> dict[str, str]:
    """Stimulus id -> path below `Presented_Stimuli`, of COCO's, ImageNet's and the scenes' form in turn."""
    names = {}
    for row, name in enumerate(experiment.stimuli.ids):
        forms = (
            f"COCO_train2014_{row + 1:012d}.jpg",
            f"n{1440764 + row:08d}_{row + 17}.JPEG",
            f"cave{row}.jp{'e' * (row % 7 == 2)}g",
        )
        names[name] = f"{FOLDERS[row % 3]}/{forms[row % 3]}"
    return names


def _write_pictures(folder: Path, experiment: Experiment, files: Mapping[str, str]) -> None:
    stimuli, place = experiment.stimuli, folder / STIMULI / "Presented_Stimuli"
    for kind in FOLDERS:
        (place / kind).mkdir(parents=True)
    for row, name in enumerate(stimuli.ids):
        Image.fromarray(stimuli.image(row)).save(place / files[name], format="JPEG", quality=95)
    repeated = [Path(files[name]).name for name in experiment.split.test]
    write_text(folder / STIMULI / "repeated_stimuli_113_list.txt", "\n".join(repeated) + "\n")
    ids = {name: Path(file).stem for name, file in files.items()}
    write_sources(folder, stimuli, ids)
    write_embeddings(folder, stimuli, ids)


def _write_subject(
    folder: Path, name: str, config: Generated, responses: Responses, truth: Mapping[str, np.ndarray], files: Mapping[str, str]
) -> None:
    grid = head_grid(responses.geometry, margin=MARGIN)
    start = 0
    for session in range(1, config.n_sessions + 1):
        stop = start + trials_of(name, session)
        betas = np.full((*grid.shape, stop - start), np.nan, np.float32)
        betas[tuple(grid.index.T)] = responses.read(np.arange(start, stop)).T
        _save(folder / f"{name}_GLMbetas-{BETAS}_ses-{session:02d}.nii.gz", betas)
        start = stop
    lines = [Path(files[stimulus]).name for stimulus in responses.stimulus_ids]
    write_text(folder / f"{name}_imgnames.txt", "\n".join(lines) + "\n")
    _save(folder / f"{name}_brainmask.nii.gz", grid.fill(np.ones(len(grid.index), np.uint8)))
    _write_regions(folder / "derivatives" / "spm" / f"sub-{name}", name, grid, np.asarray(truth["area"]))
    write_truth(folder, name, {key: grid.fill(np.asarray(values)) for key, values in truth.items()})


def _write_regions(folder: Path, name: str, grid: HeadGrid, area: np.ndarray) -> None:
    """A region for each planted area, left and right of the middle of the head."""
    folder.mkdir(parents=True)
    left = grid.index[:, 0] < np.median(grid.index[:, 0])
    misspelt = {right: wrong for wrong, right in MISSPELT.items() if wrong in MISSPELT_IN.get(name, ())}
    for number, region in enumerate(ROIS, start=1):
        for side, inside in (("LH", left), ("RH", ~left)):
            label = misspelt.get(side + region, side + region)
            _save(folder / f"sub-{name}_mask-{label}.nii.gz", grid.fill(((area == number) & inside).astype(np.uint8)))


def _save(path: Path, values: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(values, np.diag([VOXEL_MM, VOXEL_MM, VOXEL_MM, 1])), path)
