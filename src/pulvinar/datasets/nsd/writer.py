"""Writes a planted world in the official layout of the Natural Scenes Dataset: true axis orders, types, tables and codes.

Design as in NSD: one order of trials for all subjects; the first 1,000 columns of `subjectim` shared, 9,000 more of each
subject's own, all 73,000 rows used once. Of the shared images `n_test_images` fall into the sessions written, each
`n_test_repeats` times; all other trials there show images once. Responses come out at 1 percent signal change per standard
deviation. ncsnr is computed from the betas written, as NSD does from its own. Beside NSD's folders stand `features/` (the
embedding of the world's images, rows as in the stimulus file) and `truth.h5`, both unknown to NSD.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.hdf5 import create_hdf5
from pulvinar.core.progress import track
from pulvinar.core.storage import atomic_folder, set_aside
from pulvinar.data.experiment import Experiment
from pulvinar.data.planted_head import head_grid
from pulvinar.data.planted_layout import Plant
from pulvinar.data.responses import Responses
from pulvinar.data.sessions import ShownImages
from pulvinar.data.splits import Split
from pulvinar.datasets.nsd import beside_writer
from pulvinar.datasets.nsd.files import N_IMAGES, N_SHARED, N_SUBJECTS, STEPS_PER_PERCENT, TRIALS_PER_SESSION
from pulvinar.datasets.nsd.surface_writer import Volume, write_surface
from pulvinar.datasets.nsd.table_writer import (
    N_REPEATS,
    write_behaviour,
    write_design,
    write_image_information,
    write_label_tables,
)

N_TRIALS, N_COLUMNS = 30_000, 10_000
PIXELS = 425
MARGIN = 1  # empty voxels around the head
BETAS = "betas_fithrf_GLMdenoise_RR"
SPACE = "func1pt8mm"
AREAS = "prf-visualrois"

_SIZES, _CAUSES = ("n_subjects", "n_voxels", "n_test_images", "image_size"), ("driver", "driver_weights", "driver_strength")
PLANTED = ("seed", *_SIZES, "images", *_CAUSES, "tuning_dim")  # settings that are the planted world's own


@dataclass(frozen=True, kw_only=True)
class Generated:
    """What world to plant, and which of its files to write."""

    seed: int = setting(0, "changes pictures, heads, areas, tuning, noise and design", at_least=0, below=LARGEST_SEED)
    n_subjects: int = setting(4, "subj01 and on", at_least=1, at_most=N_SUBJECTS)
    n_voxels: int = setting(3000, "places in a head", at_least=200)
    n_sessions: int = setting(
        2, "sessions of each subject, 750 trials each (NSD: 30 to 40)", at_least=1, at_most=N_TRIALS // TRIALS_PER_SESSION
    )
    n_test_images: int = setting(150, "shared images shown in these sessions (NSD: 1000)", at_least=10, at_most=N_SHARED)
    n_test_repeats: int = setting(3, "presentations of each of them, 1 to 3", at_least=1, at_most=N_REPEATS)
    format: Literal["hdf5", "nifti", "both"] = setting("hdf5", "of the volume betas")
    surface: bool = setting(False, "write betas on a (small) fsaverage as well")
    missing: tuple[str, ...] = setting((), "sessions to leave out, such as subj02:1")
    beside: tuple[Literal["synthetic", "imagery"], ...] = setting((), "write sessions beside NSD: synthetic, imagery (HDF5)")
    image_size: int = setting(64, "pixels along an edge of a picture before it is enlarged to 425", at_least=16, at_most=PIXELS)
    images: str | None = setting(None, "a folder of your own pictures instead of the bundled photographs")
    driver: str = setting("fixed", "what areas follow: fixed networks, or perturbed:NAME, a changed copy of a network")
    driver_weights: str | None = setting(None, "weights of that network; none: random")
    driver_strength: float = setting(0.6, "how much it is changed: spread of log gains of its channels", at_least=0)
    tuning_dim: int = setting(24, "feature dimensions each area encodes", at_least=1)

    def problems(self) -> list[str]:
        """What does not fit together."""
        n_test = self.n_test_images * self.n_test_repeats
        if n_test > 0.8 * self.n_sessions * TRIALS_PER_SESSION:
            return [f"n_test_images: with their repeats at most 80 % of the trials; {n_test} trials came"]
        return []


def write_world(out: Path, config: Generated, plant: Plant) -> Experiment:
    """Plant a world with `plant(shown, **settings)` (datasets/simulated/) and write it; an existing folder is refused.

    Returns the world as planted, with its own image names and trial order.
    """
    generator = np.random.default_rng([config.seed, 0x45D])
    with atomic_folder(out) as folder:
        order, n_training = _order(config, generator)
        images = _images_of_subjects(generator)
        n_beside = beside_writer.n_pictures(config.beside, config.n_subjects)
        beside = [
            beside_writer.orders(
                config.beside, subject, config.n_test_images, config.n_subjects, np.random.default_rng([config.seed, 0xBE5])
            )
            for subject in range(config.n_subjects)
        ]
        settings = {name: getattr(config, name) for name in PLANTED} | {"n_test_images": config.n_test_images + n_beside}
        whole = plant(_shown(config, order, n_training, beside, n_beside), **settings)
        experiment = _without_beside(whole, config)
        row_of = _rows_of_stimuli(experiment, order, images)
        _write_tables(folder, experiment, order, images, row_of, generator)
        _write_stimuli(folder, experiment, row_of)
        volumes = []
        for number, responses in enumerate(track(experiment.subjects.values(), "writing betas", len(experiment.subjects))):
            volumes.append(_write_subject(folder, number + 1, responses, experiment.truth[responses.subject], config))
        if config.beside:
            _write_beside(folder, whole, volumes, beside, config)
        _write_truth(folder / "truth.h5", volumes, experiment)
        if config.surface:
            write_surface(folder, volumes, betas_name=BETAS, missing=config.missing)
    return whole


# --- design -----------------------------------------------------------------------------------------------------------


def _order(config: Generated, generator: np.random.Generator) -> tuple[np.ndarray, int]:
    """Columns (from 0) of the 30,000 trials, each of the 10,000 three times; and how many training images the first show."""
    n_written = config.n_sessions * TRIALS_PER_SESSION
    test = np.tile(np.arange(config.n_test_images), config.n_test_repeats)
    n_training = n_written - len(test)
    training = N_SHARED + np.arange(n_training) % (N_COLUMNS - N_SHARED)
    first = generator.permutation(np.concatenate([test, training]))
    left = N_REPEATS - np.bincount(first, minlength=N_COLUMNS)
    rest = generator.permutation(np.repeat(np.arange(N_COLUMNS), np.maximum(left, 0)))
    return np.concatenate([first, rest])[:N_TRIALS], min(n_training, N_COLUMNS - N_SHARED)


def _images_of_subjects(generator: np.random.Generator) -> np.ndarray:
    """Rows of the stimulus file (subject, column), from 0: the first 1,000 columns the same for all, the rest all different."""
    rows = generator.permutation(N_IMAGES)
    shared = np.sort(rows[:N_SHARED])
    own = rows[N_SHARED:].reshape(N_SUBJECTS, N_COLUMNS - N_SHARED)
    return np.concatenate([np.tile(shared, (N_SUBJECTS, 1)), own], axis=1)


def _shown(
    config: Generated, order: np.ndarray, n_training: int, beside: Sequence[Mapping[str, np.ndarray]], n_beside: int
) -> ShownImages:
    """What every subject sees in each session, by number: test images first, those of sessions beside NSD, then each subject's
    own training images."""
    sessions = order[: config.n_sessions * TRIALS_PER_SESSION].reshape(config.n_sessions, TRIALS_PER_SESSION)
    shown = []
    for subject in range(config.n_subjects):
        first_own = config.n_test_images + n_beside + subject * n_training - N_SHARED
        numbers = [np.where(columns < N_SHARED, columns, columns + first_own) for columns in sessions]
        numbers += beside[subject].values()
        shown.append([(session + 1, own) for session, own in enumerate(numbers)])
    return shown


def _without_beside(whole: Experiment, config: Generated) -> Experiment:
    """The world with the trials of NSD alone."""
    if not config.beside:
        return whole
    kept = {name: _trials(own, own.sessions <= config.n_sessions) for name, own in whole.subjects.items()}
    shown = {stimulus for own in kept.values() for stimulus in own.stimulus_ids}
    test = tuple(stimulus for stimulus in whole.split.test if stimulus in shown)
    return replace(whole, subjects=kept, split=Split(train=whole.split.train, test=test))


def _trials(responses: Responses, keep: np.ndarray) -> Responses:
    """Some trials of a subject."""
    rows = np.flatnonzero(keep)
    return replace(
        responses,
        values=responses.values[rows],
        stimulus_ids=[responses.stimulus_ids[row] for row in rows.tolist()],
        sessions=responses.sessions[rows],
        runs=responses.runs[rows],
    )


def _write_beside(
    folder: Path,
    whole: Experiment,
    volumes: Sequence[Volume],
    beside: Sequence[Mapping[str, np.ndarray]],
    config: Generated,
) -> None:
    """Betas, tables, pictures and embeddings of the sessions beside NSD."""
    first = config.n_test_images
    of_number: dict[int, str] = {}
    for volume, responses, own in zip(volumes, whole.subjects.values(), beside, strict=True):
        for number, (kind, order) in enumerate(own.items(), start=1):
            part = _trials(responses, responses.sessions == config.n_sessions + number)
            of_number.update(zip(order.tolist(), part.stimulus_ids, strict=True))
            place = folder / "nsddata_betas" / "ppdata" / volume.subject / SPACE / f"nsd{kind}{BETAS}"
            place.mkdir(parents=True)
            betas = np.clip(np.rint(part.read(np.arange(part.n_trials)) * STEPS_PER_PERCENT), -32768, 32767).astype(np.int16)
            _write_session(place, f"betas_nsd{kind}", volume, betas, "hdf5")
    beside_writer.write_tables(folder, config.beside, beside, first)
    n_pictures = beside_writer.n_pictures(config.beside, config.n_subjects)
    pictures = [of_number[number] for number in range(first, first + n_pictures)]
    beside_writer.write_pictures(folder, whole, config.beside, pictures)


def _rows_of_stimuli(experiment: Experiment, order: np.ndarray, images: np.ndarray) -> dict[str, int]:
    """The world's stimulus id -> row in the stimulus file."""
    row_of: dict[str, int] = {}
    for number, responses in enumerate(experiment.subjects.values()):
        rows = images[number, order[: responses.n_trials]].tolist()
        row_of.update(zip(responses.stimulus_ids, rows, strict=True))
    return row_of


def _write_tables(
    folder: Path,
    experiment: Experiment,
    order: np.ndarray,
    images: np.ndarray,
    row_of: dict[str, int],
    generator: np.random.Generator,
) -> None:
    stimuli = experiment.stimuli
    pictures = {name: number for number, name in enumerate(dict.fromkeys(stimuli.sources), start=1)}
    photographs = {
        row_of[name]: pictures[picture] for name, picture in zip(stimuli.ids, stimuli.sources, strict=True) if name in row_of
    }
    write_design(folder, order, images)
    write_image_information(folder, order, images, photographs)
    for number, responses in enumerate(experiment.subjects.values(), start=1):
        write_behaviour(folder, number, order[: responses.n_trials], images[number - 1], generator)


def _write_stimuli(folder: Path, experiment: Experiment, row_of: dict[str, int]) -> None:
    """`imgBrick` with all 73,000 rows, of which those shown are written (the others take no room), and the embedding."""
    place, stimuli = folder / "nsddata_stimuli" / "stimuli" / "nsd", experiment.stimuli
    place.mkdir(parents=True)
    (folder / "features").mkdir()
    with create_hdf5(place / "nsd_stimuli.hdf5") as file:
        shape = (PIXELS, PIXELS, 3)
        bricks = file.create_dataset(
            "imgBrick", (N_IMAGES, *shape), np.uint8, chunks=(1, *shape), compression="gzip", compression_opts=1
        )
        for name in track(row_of, "writing images", len(row_of)):
            image = Image.fromarray(stimuli.image(int(stimuli.rows([name])[0])))
            bricks[row_of[name]] = np.asarray(image.resize((PIXELS, PIXELS), Image.Resampling.NEAREST))
    names, rows = list(row_of), np.array(list(row_of.values()))
    for feature, values in stimuli.features.items():
        path = folder / "features" / f"{feature}.npy"
        table = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(N_IMAGES, *values.shape[1:]))
        set_aside(path, path.stat().st_size)
        table[rows] = values[stimuli.rows(names)]
        table.flush()


# --- a subject --------------------------------------------------------------------------------------------------------


def _write_subject(folder: Path, number: int, responses: Responses, truth: dict[str, Any] | Any, config: Generated) -> Volume:
    volume = _volume(f"subj{number:02d}", responses, truth)
    ppdata = folder / "nsddata" / "ppdata" / volume.subject / SPACE
    (ppdata / "roi").mkdir(parents=True)
    place = folder / "nsddata_betas" / "ppdata" / volume.subject / SPACE / BETAS
    place.mkdir(parents=True)
    _save_nifti(ppdata / "brainmask.nii.gz", volume.fill(np.ones(len(volume.index), np.uint8)), volume.affine)
    for name, labels in volume.labels.items():
        _save_nifti(ppdata / "roi" / f"{name}.nii.gz", volume.fill(labels.astype(np.int16), -1), volume.affine)
    write_label_tables(folder, volume.subject, volume.label_names)
    for session in range(1, config.n_sessions + 1):
        if f"{volume.subject}:{session}" not in config.missing:
            rows = slice((session - 1) * TRIALS_PER_SESSION, session * TRIALS_PER_SESSION)
            _write_session(place, f"betas_session{session:02d}", volume, volume.betas[rows], config.format)
    ncsnr = signal_to_noise(volume.betas, responses.stimulus_ids).astype(np.float32)
    _save_nifti(place / "ncsnr.nii.gz", volume.fill(ncsnr), volume.affine)
    return volume


def _write_truth(path: Path, volumes: list[Volume], experiment: Experiment) -> None:
    with create_hdf5(path) as file:
        for volume, subject in zip(volumes, experiment.subjects, strict=True):
            for name, values in experiment.truth[subject].items():
                file.create_dataset(f"{volume.subject}/{name}", data=volume.fill(np.asarray(values)), compression="gzip")


def _volume(subject: str, responses: Responses, truth: dict[str, Any]) -> Volume:
    """The head with a margin, in a grid of three different sides."""
    grid = head_grid(responses.geometry, margin=MARGIN)
    betas = np.empty(responses.values.shape, np.int16)
    for start in range(0, responses.n_trials, 256):
        block = responses.read(np.arange(start, min(start + 256, responses.n_trials)))
        betas[start : start + 256] = np.clip(np.rint(block * STEPS_PER_PERCENT), -32768, 32767)
    labels, names = _labels(responses, truth)
    return Volume(
        subject=subject,
        index=grid.index,
        shape=grid.shape,
        affine=grid.affine,
        betas=betas,
        labels=labels,
        label_names=names,
    )


def _labels(responses: Responses, truth: dict[str, Any]) -> tuple[dict[str, np.ndarray], dict[str, list[str]]]:
    """nsdgeneral (the loose annotated region) and its parts by the nearest planted area; -1 deep inside, where no cortex is."""
    from scipy.ndimage import distance_transform_edt
    from scipy.spatial import cKDTree

    geometry, annotated = responses.geometry, responses.rois["annotated"]
    head = geometry.to_volume(np.ones(geometry.n_voxels, np.uint8))
    depth = distance_transform_edt(np.pad(head, 1))[1:-1, 1:-1, 1:-1][geometry.grid_place]
    general = np.where(annotated, 1, np.where(depth > 0.6 * depth.max(), -1, 0))
    area = np.asarray(truth["area"])
    planted = np.flatnonzero(area > 0)
    _, nearest = cKDTree(geometry.coordinates[planted]).query(geometry.coordinates)
    parts = np.where(annotated, area[planted][nearest], general)
    names = ["Unknown", *(f"area{number}" for number in range(1, int(area.max()) + 1))]
    return {"nsdgeneral": general, AREAS: parts}, {"nsdgeneral": ["Unknown", "nsdgeneral"], AREAS: names}


def signal_to_noise(betas: np.ndarray, stimulus_ids: Sequence[str]) -> np.ndarray:
    """ncsnr (voxel,): sqrt(signal variance / noise variance), from the stimuli shown more than once.

    Betas are z-scored; noise variance is the mean over stimuli of the variance of repeats (n - 1), signal variance what is left
    of 1, at least 0 (Allen et al. 2022, methods: noise ceiling).
    """
    trials: dict[str, list[int]] = {}
    for trial, name in enumerate(stimulus_ids):
        trials.setdefault(name, []).append(trial)
    repeated = [own for own in trials.values() if len(own) > 1]
    mean, sd = betas.mean(0, dtype=np.float64), betas.std(0, dtype=np.float64)
    if not repeated:
        return np.zeros(betas.shape[1])
    noise = np.mean([((betas[own] - mean) / np.maximum(sd, 1e-9)).var(axis=0, ddof=1) for own in repeated], axis=0)
    return np.sqrt(np.maximum(1 - noise, 0) / np.maximum(noise, 1e-9))


def _write_session(place: Path, name: str, volume: Volume, betas: np.ndarray, file_format: str) -> None:
    grid = np.zeros((len(betas), *volume.shape), np.int16)  # (trial, x, y, z)
    grid[(slice(None), *volume.index.T)] = betas
    if file_format in ("hdf5", "both"):
        with create_hdf5(place / f"{name}.hdf5") as file:
            file.create_dataset("betas", data=grid.transpose(0, 3, 2, 1), chunks=(len(betas), 1, 1, 1))
    if file_format in ("nifti", "both"):
        _save_nifti(place / f"{name}.nii.gz", grid.transpose(1, 2, 3, 0), volume.affine)


def _save_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    import nibabel

    nibabel.save(nibabel.Nifti1Image(values, affine), path)
