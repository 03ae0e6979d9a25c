"""Writes a planted world as a small BIDS study: events, pictures, raw series, fMRIPrep's outputs, masks of regions.

Each trial's response is its planted one, times nilearn's haemodynamic response (Glover), on a mean of 1000 with drift, motion
and noise. Beside BIDS' own files, `derivatives/pulvinar` holds embeddings, the photographs that pictures were cut from, the
split, and the truth.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_json, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_head import HeadGrid, head_grid
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.data.trial_glm import regressors
from pulvinar.datasets.bids.facts import OWN

MARGIN, MEAN, OUTSIDE = 2, 1000.0, 20.0  # empty voxels around the head; mean of a voxel inside and outside of it
STEP_S, SHOWN_S, LEAD_S, TAIL_S = 2.0, 2.0, 4.0, 14.0
SPACE, TASK = "T1w", "images"
BIDS_VERSION = "1.9.0"
MOTION = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z")


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in BIDS."""

    n_subjects: int = setting(2, "sub-01, sub-02 and on", at_least=1, at_most=99)
    n_voxels: int = setting(600, "places in a head", at_least=200)
    n_runs: int = setting(4, "runs of each subject", at_least=2, at_most=99)
    n_trials: int = setting(24, "trials of a run", at_least=4)
    n_images: int = setting(
        48, "images, of which every fourth is of the test; each is shown several times to everybody", at_least=8
    )
    soa_s: float = setting(6.0, "s from one onset to the next", at_least=2.5)
    response_percent: float = setting(8.0, "of a planted response of 1, in units of nilearn's regressors", above=0)
    noise_percent: float = setting(0.5, "standard deviation of the noise of a volume, percent of the mean", at_least=0)

    def problems(self) -> list[str]:
        """What does not fit together."""
        there = self.n_runs * self.n_trials
        return [f"n_images: {self.n_images} do not fit into {there} trials"] if self.n_images > there else []


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_images // 4)
    names = {stimulus: f"image-{row + 1:03d}.png" for row, stimulus in enumerate(experiment.stimuli.ids)}
    with atomic_folder(out) as folder:
        _write_study(folder, experiment, names)
        own = list(enumerate(experiment.subjects.values(), start=1))
        for number, responses in track(own, "writing subjects", len(own)):
            _write_subject(folder, f"sub-{number:02d}", config, responses, experiment.truth[responses.subject], names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    """Numbers of the images of each run; every image as often as any other, but one, in random order."""
    n_trials = config.n_runs * config.n_trials
    trials = np.tile(np.arange(config.n_images), -(-n_trials // config.n_images))[:n_trials]
    mixed = np.random.default_rng([config.seed, 0xB1D5, number]).permutation(trials)
    return list(enumerate(np.split(mixed, config.n_runs), start=1))


# --- the study --------------------------------------------------------------------------------------------------------


def _write_study(folder: Path, experiment: Experiment, names: Mapping[str, str]) -> None:
    description = {
        "Name": "Planted world in the layout of BIDS",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "raw",
        "License": "CC0",
        "Authors": ["pulvinar data simulate"],
    }
    write_json(folder / "dataset_description.json", description)
    write_text(
        folder / "README", f"Simulated by `pulvinar data simulate --layout bids`: {experiment.name}. Nobody was scanned.\n"
    )
    rows = [f"sub-{number:02d}\tn/a" for number in range(1, len(experiment.subjects) + 1)]
    write_text(folder / "participants.tsv", "\n".join(["participant_id\tage", *rows]) + "\n")
    write_json(folder / "participants.json", {"age": {"Description": "n/a: nobody was scanned", "Units": "year"}})
    write_json(
        folder / f"task-{TASK}_bold.json", {"TaskName": TASK, "RepetitionTime": STEP_S, "TaskDescription": "look at images"}
    )
    columns = {
        "trial_type": {
            "Description": "image: a picture is shown; blank: nothing is",
            "Levels": {"image": "a picture", "blank": "nothing"},
        },
        "stim_file": {"Description": "the picture, in stimuli/"},
    }
    write_json(folder / f"task-{TASK}_events.json", columns)
    (folder / "stimuli").mkdir()
    for row, stimulus in enumerate(experiment.stimuli.ids):
        Image.fromarray(experiment.stimuli.image(row)).save(folder / "stimuli" / names[stimulus])
    for name in ("fmriprep", "rois", "pulvinar"):
        made = {"Name": f"Planted {name}", "BIDSVersion": BIDS_VERSION, "DatasetType": "derivative"}
        write_json(folder / "derivatives" / name / "dataset_description.json", made | {"GeneratedBy": [{"Name": "pulvinar"}]})
    write_text(
        folder / "derivatives/fmriprep/.bidsignore", "*_timeseries.*\n"
    )  # as fMRIPrep has it: BIDS knows no confounds yet
    write_text(folder / "derivatives/pulvinar/.bidsignore", "features\nsources.csv\nstimuli.csv\ntruth\n")
    own = folder / OWN
    write_embeddings(own, experiment.stimuli, names)
    write_sources(own, experiment.stimuli, names)
    test = set(experiment.split.test)
    lines = [f"{names[stimulus]},{'test' if stimulus in test else 'train'}" for stimulus in experiment.stimuli.ids]
    write_text(own / "stimuli.csv", "\n".join(["id,split", *lines]) + "\n")


def _write_subject(
    folder: Path, name: str, config: Generated, responses: Responses, truth: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> None:
    grid = head_grid(responses.geometry, margin=MARGIN)
    for run in range(1, config.n_runs + 1):
        trials = np.arange((run - 1) * config.n_trials, run * config.n_trials)
        rng = np.random.default_rng([config.seed, 0xB01D, int(name[4:]), run])
        onsets = LEAD_S + config.soa_s * np.arange(config.n_trials) + rng.uniform(-0.5, 0.5, config.n_trials).round(2)
        shown = [names[responses.stimulus_ids[trial]] for trial in trials.tolist()]
        _write_run(folder, f"{name}_task-{TASK}_run-{run}", config, grid, responses.read(trials), onsets, shown, rng)
    for region, inside in responses.rois.items():
        place = folder / "derivatives/rois" / name / "anat" / f"{name}_space-{SPACE}_label-{region}_mask.nii.gz"
        _save(place, grid.fill(np.asarray(inside).astype(np.uint8)), grid)
        about = {"Type": "ROI", "SpatialReference": f"bids::{name}/anat/{name}_T1w.nii.gz"}
        write_json(place.with_name(place.name.replace(".nii.gz", ".json")), about)
    write_truth(folder / OWN, name, {key: grid.fill(np.asarray(values)) for key, values in truth.items()})


def _write_run(
    folder: Path,
    stem: str,
    config: Generated,
    grid: HeadGrid,
    planted: np.ndarray,
    onsets: np.ndarray,
    shown: Sequence[str],
    rng: np.random.Generator,
) -> None:
    subject = stem.split("_", maxsplit=1)[0]
    n_volumes = int(np.ceil((onsets[-1] + SHOWN_S + TAIL_S) / STEP_S))
    motion = np.cumsum(rng.normal(0, 0.02, (n_volumes, len(MOTION))), axis=0)
    inside = series(config, planted, onsets, n_volumes, motion, rng)
    rows = [f"{onset:g}\t{SHOWN_S:g}\timage\t{name}" for onset, name in zip(onsets.tolist(), shown, strict=True)]
    rows.append(f"{onsets[-1] + config.soa_s:g}\t{SHOWN_S:g}\tblank\tn/a")
    func = folder / subject / "func"
    write_text(func / f"{stem}_events.tsv", "\n".join(["onset\tduration\ttrial_type\tstim_file", *rows]) + "\n")
    volume = np.abs(rng.normal(OUTSIDE, 3, (*grid.shape, n_volumes)))
    volume[tuple(grid.index.T)] = inside.T
    _save(func / f"{stem}_bold.nii.gz", np.rint(volume).astype(np.int16), grid)
    prepared = folder / "derivatives/fmriprep" / subject / "func" / f"{stem}_space-{SPACE}"
    _save(prepared.with_name(f"{prepared.name}_desc-preproc_bold.nii.gz"), volume.astype(np.float32), grid)
    place = {"SpatialReference": f"bids::{subject}/anat/{subject}_T1w.nii.gz"}
    sidecar = {"RepetitionTime": STEP_S, "StartTime": 0.0, "SkullStripped": False, "TaskName": TASK, **place}
    write_json(prepared.with_name(f"{prepared.name}_desc-preproc_bold.json"), sidecar)
    write_json(prepared.with_name(f"{prepared.name}_desc-brain_mask.json"), {"Type": "Brain", **place})
    _save(prepared.with_name(f"{prepared.name}_desc-brain_mask.nii.gz"), grid.fill(np.ones(len(grid.index), np.uint8)), grid)
    _write_confounds(prepared.with_name(f"{stem}_desc-confounds_timeseries.tsv"), motion, inside, rng)


def series(
    config: Generated, planted: np.ndarray, onsets: np.ndarray, n_volumes: int, motion: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Series (volume, voxel) of planted responses (trial, voxel): mean, response, drift, motion, noise."""
    times = STEP_S * np.arange(n_volumes)
    columns = [regressors(onsets[[trial]], np.array([SHOWN_S]), times, "glover")[:, 0] for trial in range(len(onsets))]
    percent = config.response_percent * np.stack(columns, axis=1) @ planted.astype(float)
    n_voxels = planted.shape[1]
    percent += np.outer(np.linspace(-1, 1, n_volumes), rng.normal(0, 1, n_voxels))
    percent += motion @ rng.normal(0, 1, (motion.shape[1], n_voxels))
    percent += config.noise_percent * rng.standard_normal((n_volumes, n_voxels))
    return MEAN * (1 + percent / 100)


# --- files ------------------------------------------------------------------------------------------------------------


def _write_confounds(path: Path, motion: np.ndarray, inside: np.ndarray, rng: np.random.Generator) -> None:
    """fMRIPrep's table: derivatives and displacement have n/a in their first row."""
    n_volumes = len(motion)
    columns: dict[str, np.ndarray] = {}
    tissue = inside.mean(1, keepdims=True) + rng.normal(0, 1, (n_volumes, 3))
    base = dict(zip((*MOTION, "csf", "white_matter", "global_signal"), np.hstack([motion, tissue]).T, strict=True))
    for name, values in base.items():
        derivative = np.concatenate([[np.nan], np.diff(values)])
        columns |= {name: values, f"{name}_derivative1": derivative, f"{name}_power2": values**2}
        columns[f"{name}_derivative1_power2"] = derivative**2
    moved = np.abs(np.diff(motion, axis=0)) * [1, 1, 1, 50, 50, 50]  # rotations as mm on a sphere of 50 mm
    columns["framewise_displacement"] = np.concatenate([[np.nan], moved.sum(1) / 10])
    columns["std_dvars"] = np.concatenate([[np.nan], rng.uniform(0.9, 1.1, n_volumes - 1)])
    half = np.pi * (np.arange(n_volumes) + 0.5) / n_volumes
    columns |= {f"cosine{k - 1:02d}": np.sqrt(2 / n_volumes) * np.cos(half * k) for k in (1, 2, 3)}
    components = np.linalg.qr(rng.standard_normal((n_volumes, 4)))[0].T
    columns |= {f"a_comp_cor_{number:02d}": values for number, values in enumerate(components)}
    rows = [
        "\t".join("n/a" if np.isnan(cell) else f"{cell:.8g}" for cell in row) for row in zip(*columns.values(), strict=True)
    ]
    write_text(path, "\n".join(["\t".join(columns), *rows]) + "\n")
    told: dict[str, Any] = {
        f"a_comp_cor_{number:02d}": {"Mask": "combined", "Method": "aCompCor", "Retained": True}
        for number in range(len(components))
    }
    write_json(path.with_suffix(".json"), told)


def _save(path: Path, values: np.ndarray, grid: HeadGrid) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, grid.affine)
    image.set_sform(grid.affine, 1)
    image.set_qform(grid.affine, 1)
    image.header.set_xyzt_units("mm", "sec")
    if values.ndim == 4:
        image.header.set_zooms((*image.header.get_zooms()[:3], STEP_S))
    nibabel.save(image, path)
