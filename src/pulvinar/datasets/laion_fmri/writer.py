"""Writes a planted world in the layout of LAION-fMRI: BIDS derivatives of betas, tables, maps, masks, images, splits.

As there, some images are shown to everybody (`shared_12rep_...`, and the out-of-distribution ones `shared_4rep_OOD_...`), all
others to one subject; sessions have twelve runs. The world's test images are the out-of-distribution ones. A voxel outside the
head is NaN. Beside LAION-fMRI's own files stand `splits/` (in the form of its package), `features/`, `sources.csv`, `truth/`.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from pulvinar.core.config import setting
from pulvinar.core.hdf5 import create_hdf5
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, write_json, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_head import HeadGrid, head_grid
from pulvinar.data.planted_layout import Plant, PlantedWorld, write_embeddings, write_sources, write_truth
from pulvinar.data.responses import Responses
from pulvinar.datasets.laion_fmri.facts import (
    ANATOMY,
    IMAGES,
    METADATA,
    OOD,
    PARTICIPANT,
    ROIS,
    SPLITS,
    SUBJECTS,
    betas_path,
    map_path,
    trials_path,
)
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise

MARGIN, RUNS_PER_SESSION, OFTEN, SELDOM = 1, 12, 12, 4
CATEGORY_OF = {"V1v": "retinotopy", "V2v": "retinotopy", "lobjects": "selectivity", "FFA1": "face", "PPA": "place"}


@dataclass(frozen=True, kw_only=True)
class Generated(PlantedWorld):
    """What world to plant in LAION-fMRI's layout."""

    n_subjects: int = setting(2, "sub-01, sub-03 and on (LAION-fMRI: 5)", at_least=1, at_most=len(SUBJECTS))
    n_voxels: int = setting(1500, "places in a head (LAION-fMRI: about 272,000)", at_least=200)
    n_sessions: int = setting(3, "sessions of each subject (LAION-fMRI: 30 and more)", at_least=1, at_most=30)
    n_trials: int = setting(25, "images of a run, of which a session has 12 (LAION-fMRI: 87 to 89)", at_least=10, at_most=89)
    n_ood: int = setting(
        24, "out-of-distribution images, shown 4 times to everybody (LAION-fMRI: 371)", at_least=4, at_most=371
    )
    n_shared: int = setting(6, "images shown 12 times to everybody (LAION-fMRI: 881)", at_least=2, at_most=881)

    def problems(self) -> list[str]:
        """What does not fit together."""
        asked = OFTEN * self.n_shared + SELDOM * self.n_ood
        n_trials = self.n_sessions * RUNS_PER_SESSION * self.n_trials
        return [f"n_ood and n_shared take {asked} of {n_trials} trials; half at most"] if 2 * asked > n_trials else []


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused."""
    shown = [_order(config, number) for number in range(config.n_subjects)]
    experiment = config.planted(plant, shown, n_voxels=config.n_voxels, n_test_images=config.n_ood)
    names = _image_names(experiment, shown, config)
    with atomic_folder(out) as folder:
        both = list(zip(SUBJECTS, experiment.subjects.values(), strict=False))
        for name, responses in track(both, "writing subjects", len(both)):
            _write_subject(folder, name, config, responses, experiment.truth[responses.subject], names)
        _write_images(folder, experiment, names)
        _write_splits(folder, experiment, names)
    return experiment


def _order(config: Generated, number: int) -> list[tuple[int, np.ndarray]]:
    """Numbers of the images of each session: out-of-distribution first, then shared, then a subject's own, each four times."""
    per_session = RUNS_PER_SESSION * config.n_trials
    ood = np.tile(np.arange(config.n_ood), SELDOM)
    often = np.tile(config.n_ood + np.arange(config.n_shared), OFTEN)
    n_left = config.n_sessions * per_session - len(ood) - len(often)
    n_own = -(-n_left // SELDOM)
    own = config.n_ood + config.n_shared + number * n_own + np.arange(n_own)
    trials = np.concatenate([ood, often, np.tile(own, SELDOM)[:n_left]])
    mixed = np.random.default_rng([config.seed, 0x1A10, number]).permutation(trials)
    return list(enumerate(np.split(mixed, config.n_sessions), start=1))


def _image_names(experiment: Experiment, shown: list[list[tuple[int, np.ndarray]]], config: Generated) -> dict[str, str]:
    """Stimulus id -> name as LAION-fMRI has it, suffix and participant code and all."""
    names = {}
    for number, responses in enumerate(experiment.subjects.values()):
        code = PARTICIPANT[SUBJECTS[number]]
        asked = np.concatenate([own for _, own in shown[number]])
        for stimulus, image in zip(responses.stimulus_ids, asked.tolist(), strict=True):
            if image < config.n_ood:
                names[stimulus] = f"{OOD}cropped_{image:03d}.{'png' if image % 3 == 0 else 'jpg'}"
            elif image < config.n_ood + config.n_shared:
                names[stimulus] = f"shared_12rep_LAION_cluster_{1000 + image}_i0.jpg"
            else:
                names[stimulus] = f"unique_LAION_initial_cluster_{2000 + image}_i{image % 40}_{code}.jpg"
    for row, stimulus in enumerate(experiment.stimuli.ids):  # planted, and shown to nobody
        names.setdefault(stimulus, f"shared_4rep_NSD_{row:05d}.jpg")
    return names


# --- files ------------------------------------------------------------------------------------------------------------


def _write_images(folder: Path, experiment: Experiment, names: Mapping[str, str]) -> None:
    """The bytes of each picture in an HDF5 dataset, and the table that names its rows."""
    stimuli = experiment.stimuli
    (folder / "stimuli").mkdir()
    lines = ["image_name,dataset,participant,unique_or_shared,n_reps"]
    with create_hdf5(folder / IMAGES) as file:
        images = file.create_dataset("images", (len(stimuli),), dtype=h5py.vlen_dtype(np.uint8))
        for row, stimulus in enumerate(stimuli.ids):
            buffer, name = io.BytesIO(), names[stimulus]
            Image.fromarray(stimuli.image(row)).save(buffer, "JPEG", quality=95)
            images[row] = np.frombuffer(buffer.getvalue(), np.uint8)
            kind, times = name.split("_")[0], "12rep" if "12rep" in name else "4rep"
            owner = name.rsplit("_", 1)[1].partition(".")[0] if kind == "unique" else "all"
            lines.append(f"{name},{'OOD' if name.startswith(OOD) else 'LAION'},{owner},{kind},{times}")
    write_text(folder / METADATA, "\n".join(lines) + "\n")
    write_sources(folder, stimuli, names)
    write_embeddings(folder, stimuli, names)


def _write_splits(folder: Path, experiment: Experiment, names: Mapping[str, str]) -> None:
    """tau and ood of the pool of shared images, as the package has them; no photograph is on both sides."""
    source = dict(zip(map(names.__getitem__, experiment.stimuli.ids), experiment.stimuli.sources, strict=True))
    shared = [name for name in source if name.startswith("shared_12rep")]
    first = {source[name] for name in sorted(shared)[:1]}
    ood = [name for name in source if name.startswith(OOD)]
    sides = {
        "tau": ([name for name in shared if source[name] not in first], [name for name in shared if source[name] in first]),
        "ood": (shared, ood),
    }
    for name, (train, test) in sides.items():
        variant = {"variant_id": "0", "train_ids": train, "test_ids": test}
        head = {"name": name, "pool": "shared", "splitter": name, "params": {}, "n_train": len(train), "n_test": len(test)}
        write_json(folder / SPLITS / "shared" / f"{name}.json", {**head, "variants": [variant]})


def _write_subject(
    folder: Path, name: str, config: Generated, responses: Responses, truth: Mapping[str, np.ndarray], names: Mapping[str, str]
) -> None:
    grid, per_session = head_grid(responses.geometry, margin=MARGIN), RUNS_PER_SESSION * config.n_trials
    for session in range(1, config.n_sessions + 1):
        trials = np.arange((session - 1) * per_session, session * per_session)
        betas = np.full((*grid.shape, per_session), np.nan, np.float32)
        betas[tuple(grid.index.T)] = responses.read(trials).T
        _save(betas_path(folder, name, session), betas, grid)
        rows = [
            f"ses-{session:02d}\t{row // config.n_trials + 1}\t{row}\t{names[responses.stimulus_ids[trial]]}"
            for row, trial in enumerate(trials.tolist())
        ]
        write_text(trials_path(folder, name, session), "\n".join(["session\trun\tbeta_index\tlabel", *rows]) + "\n")
    _write_maps(folder, name, grid, responses)
    area = np.asarray(truth["area"])
    for number, (region, category) in enumerate(CATEGORY_OF.items(), start=1):
        place = folder / ROIS / name / category / f"{name}_space-T1w_res-1pt8_label-{region}_mask.nii.gz"
        _save(place, grid.fill((area == number).astype(np.uint8)), grid)
    write_truth(folder, name, {key: grid.fill(np.asarray(values)) for key, values in truth.items()})


def _write_maps(folder: Path, name: str, grid: HeadGrid, responses: Responses) -> None:
    """Brain mask, mean R2 and the ceilings, which are percent."""
    inside = np.ones(len(grid.index), np.uint8)
    anatomy = folder / ANATOMY / name / "ses-PrismaAnat" / "anat"
    _save(anatomy / f"{name}_ses-PrismaAnat_res-1pt8_desc-brain_mask.nii.gz", grid.fill(inside), grid)
    _save(map_path(folder, name, "stat-rsquare_desc-R2mean"), grid.fill(10 * inside.astype(np.float32)), grid)
    found = signal_to_noise(responses.read(np.arange(responses.n_trials)), list(responses.stimulus_ids))
    ncsnr = np.zeros(len(grid.index)) if found.ncsnr is None else found.ncsnr
    for label, repeats in (("4rep", SELDOM), ("12rep", OFTEN), ("Allrep", SELDOM)):
        percent = (100 * ceiling_r2(ncsnr, repeats)).astype(np.float32)
        _save(map_path(folder, name, f"desc-Noiseceiling{label}"), grid.fill(percent), grid)


def _save(path: Path, values: np.ndarray, grid: HeadGrid) -> None:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, grid.affine), path)
