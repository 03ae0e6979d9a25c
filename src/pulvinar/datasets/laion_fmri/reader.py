"""Reads LAION-fMRI: single-trial betas by session, tables of trials, masks, regions, ceilings."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.brain_files import Mask, read_mask, read_volume, require_same_grid, values_inside
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_subjects, choose_target, find_one, stimuli_of, title, truth_of, with_annotated
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.tables import read_table
from pulvinar.data.volume_series import VolumeSeries, open_series
from pulvinar.datasets.laion_fmri.facts import ANATOMY, BETAS, FACTS, ROIS, SUBJECTS, betas_path, map_path, trials_path
from pulvinar.datasets.laion_fmri.stimuli import choose_split, embeddings, open_images

BRAIN, GENERAL = "brain", "laiongeneral"
PERCENT = 100  # ceilings are percent of variance
CEILINGS = {"4rep": "desc-Noiseceiling4rep", "12rep": "desc-Noiseceiling12rep", "all": "desc-NoiseceilingAllrep"}


def subject_name(text: str) -> str:
    """'sub-03' for '3' or 'sub-03'; `InputError` for what is none of the five."""
    digits = text.removeprefix("sub-")
    if not digits.isdecimal() or f"sub-{int(digits):02d}" not in SUBJECTS:
        raise InputError(f"subjects are 1, 3, 5, 6 and 7, not {text!r}")
    return f"sub-{int(digits):02d}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,3; none: all whose betas are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    sessions: int | None = setting(None, "first sessions of each subject; none: all that are there", at_least=1)
    missing: Literal["refuse", "skip"] = setting("refuse", "what to do about a session that is not there")
    mask: Literal["anatomical", "r2", "meanR2gt15"] = setting(
        "anatomical", "which mask is the brain: the owners' default, R2mean above 0, or the mask of April 2026"
    )
    voxels: str = setting(BRAIN, "brain, or a region such as V1v, FFA1, laionventral: its voxels in the mask")
    ceiling: Literal["4rep", "12rep", "all", "none"] = setting("4rep", "noise ceiling of images shown that often")
    split: str = setting("ood", "ood, or the name (tau, cluster_k5_0, ...) or .json file of a split of the owners' package")
    pool: str = setting("shared", "pool of a split that is given by name: shared, or sub-XX")
    variant: str | None = setting(None, "variant of a split; none: the only one")


def load(source: str) -> Experiment:
    """The experiment in a folder of LAION-fMRI: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Reads headers, tables and maps; betas stay on disk until asked for. Ceilings are percent in the files, shares of variance
    here. Raises `FileError`, `InputError` or `NotFoundError` naming the file.
    """
    root, options = parse_source(source, Options, name="laion_fmri")
    present = [
        name for name in SUBJECTS if list((root / BETAS / name).glob("ses-*/func/*_desc-SingletrialBetas_statmap.nii.gz"))
    ]
    wanted = list(map(subject_name, options.subjects))
    names = choose_subjects(root, present, wanted, what=f"single-trial betas ({BETAS}/sub-XX/ses-YY/func)")
    target = choose_target(names, subject_name(options.target) if options.target else None)
    cache, subjects, truth = SessionCache(int(options.memory_gb * 1e9)), {}, {}
    for name in track(names, "reading headers and maps", len(names)):
        subjects[name], truth[name] = _subject(root, name, options, cache)
    ids = sorted({stimulus for own in subjects.values() for stimulus in own.stimulus_ids})
    chosen = choose_split(root, options.split, options.pool, options.variant, ids)
    stimuli = stimuli_of(root, ids, options, read_image=open_images(root, ids) if options.images else None)
    if not options.features:
        stimuli = replace(stimuli, features={**stimuli.features, **embeddings(root, ids)})
    return Experiment(
        name=title(root, "LAION-fMRI", names),
        stimuli=stimuli,
        subjects=subjects,
        split=chosen.split,
        target=target,
        truth={name: own for name, own in truth.items() if own},
        facts={
            **FACTS.kept,
            **chosen.facts,
            "mask": options.mask,
            "unit": "ridge betas of GLMsingle; neither percent signal change nor z-scored",
            "oracles": [f"noise_ceiling ({options.ceiling}): from all sessions, test trials too"],
        },
    )


def _subject(root: Path, name: str, options: Options, cache: SessionCache) -> tuple[Responses, dict[str, np.ndarray]]:
    """Responses, and the truth of a planted world."""
    sessions = _sessions(root, name, options)
    mask = _brain(root, name, options)
    for series in sessions.values():
        require_same_grid(mask, series.path, series.grid, series.affine)
    masks = _regions(root, name, mask)
    if options.voxels != BRAIN:
        if options.voxels not in masks:
            raise NotFoundError(f"voxels: {name} has no '{options.voxels}'{suggest(options.voxels, [BRAIN, *masks])}")
        mask = replace(mask, inside=mask.inside & masks[options.voxels])
    index = np.argwhere(mask.inside)
    if not len(index):
        raise InputError(f"{name}: no voxel is left with mask={options.mask} and voxels={options.voxels}")
    trials = [_trials(trials_path(root, name, number), number, series) for number, series in sessions.items()]
    places = np.concatenate([[(number, row) for row in range(series.n_volumes)] for number, series in sessions.items()])
    values = SessionValues(
        name,
        lambda session: sessions[session].read(index),
        places,
        n_voxels=len(index),
        dtype=np.float32,
        cache=cache,
        stream=lambda session: sessions[session].blocks(index),
    )
    rois = with_annotated({region: own[mask.inside] for region, own in masks.items()}, [GENERAL] if GENERAL in masks else None)
    responses = Responses(
        subject=name,
        values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
        stimulus_ids=[label for labels, _ in trials for label in labels],
        sessions=places[:, 0],
        runs=np.concatenate([runs for _, runs in trials]),
        geometry=Geometry.from_index(index, shape=mask.inside.shape, affine=mask.affine),
        rois=ROIs(rois, n_voxels=len(index)),
        noise_ceiling=_ceiling(root, name, mask, options.ceiling),
    )
    return responses, truth_of(root, name, lambda volume: volume[mask.inside])


def _sessions(root: Path, name: str, options: Options) -> dict[int, VolumeSeries]:
    """Session -> its file; a gap is refused, or said."""
    folders = [path.name.removeprefix("ses-") for path in (root / BETAS / name).glob("ses-*") if path.is_dir()]
    present = sorted(int(text) for text in folders if text.isdecimal() and betas_path(root, name, int(text)).is_file())
    wanted = range(1, (options.sessions or max(present)) + 1)
    missing = [number for number in wanted if number not in present]
    if missing and options.missing == "refuse":
        raise FileError(f"{betas_path(root, name, missing[0])}: no such file; fetch it, or go on without it with missing=skip")
    if missing:
        log(f"{name}: without session {', '.join(map(str, missing))}")
    kept = {number: open_series(betas_path(root, name, number)) for number in wanted if number in present}
    if not kept:
        raise FileError(f"{root / BETAS / name}: none of the first {options.sessions} sessions is there")
    return kept


def _trials(path: Path, session: int, series: VolumeSeries) -> tuple[list[str], np.ndarray]:
    """Label and run of every volume of a session; row i of the table is volume i, and its beta_index says so."""
    table = read_table(path)
    labels = table.full_column("label")
    if len(labels) != series.n_volumes:
        raise InputError(f"{path}: {len(labels)} trials, but {series.path.name} has {series.n_volumes} volumes")
    numbers = _whole(path, "beta_index", table.full_column("beta_index"))
    if not np.array_equal(numbers, np.arange(len(numbers))):
        first = int(np.flatnonzero(numbers != np.arange(len(numbers)))[0])
        raise InputError(f"{path}: row {first} (from 0) has beta_index {numbers[first]}; they count the volumes from 0")
    stated = {text.removeprefix("ses-").lstrip("0") for text in table.full_column("session")}
    if stated != {str(session)}:
        raise InputError(f"{path}: of session {', '.join(sorted(stated))}, where session {session} was looked for")
    return labels, _whole(path, "run", [text.removeprefix("run-") for text in table.full_column("run")])


def _whole(path: Path, name: str, cells: list[str]) -> np.ndarray:
    try:
        return np.array([int(cell) for cell in cells])
    except ValueError as error:
        raise InputError(f"{path}: column '{name}': {error}") from error


def _brain(root: Path, name: str, options: Options) -> Mask:
    """The brain, as one of the three generations of masks has it; a voxel number means nothing without its mask."""
    if options.mask == "r2":
        path = map_path(root, name, "stat-rsquare_desc-R2mean")
        volume = read_volume(path)
        return Mask(path=path, inside=np.nan_to_num(volume.scaled(volume.stored)) > 0, affine=volume.affine)
    if options.mask == "meanR2gt15":
        return read_mask(find_one(root / BETAS / name, f"{name}_*desc-meanR2gt15mask_mask.nii.gz"))
    return read_mask(find_one(root / ANATOMY / name / "ses-PrismaAnat" / "anat", f"{name}_*res-1pt8_desc-brain_mask.nii.gz"))


def _regions(root: Path, name: str, mask: Mask) -> dict[str, np.ndarray]:
    """Label -> bool (x, y, z) of every mask of a region, whatever its category."""
    found: dict[str, np.ndarray] = {}
    stem = f"{name}_space-T1w_res-1pt8_label-"
    for path in sorted((root / ROIS / name).glob(f"*/{stem}*_mask.nii.gz")):
        label = path.name.removeprefix(stem).removesuffix("_mask.nii.gz")
        if label in found:
            raise InputError(f"{path}: {label} is there in another category too; keep one of them")
        volume = read_volume(path)
        require_same_grid(mask, path, volume.grid, volume.affine)
        found[label] = np.nan_to_num(volume.scaled(volume.stored).reshape(volume.grid)) > 0
    if not found:
        log(f"{root / ROIS / name}: no masks of regions there; going on without ROIs")
    return found


def _ceiling(root: Path, name: str, mask: Mask, which: str) -> np.ndarray | None:
    """Noise ceiling (voxel,) as a share of variance; None, said, where its file is not there."""
    if which == "none":
        return None
    path = map_path(root, name, CEILINGS[which])
    if not path.is_file():
        log(f"{path} is not there; going on without noise ceilings")
        return None
    percent = np.nan_to_num(values_inside(read_volume(path), mask))
    if percent.min() < 0 or percent.max() > PERCENT:
        raise InputError(f"{path}: a ceiling is percent, {percent.min():g} to {percent.max():g} came")
    if 0 < percent.max() <= 1:
        raise InputError(f"{path}: a ceiling is percent, but none is above 1 ({percent.max():g}); is it a share already?")
    return (percent / PERCENT).astype(np.float32)
