"""Reads MOSAIC: betas of cortical vertices, trial by trial, over the subjects of its data sets; its split; an atlas's areas."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.cifti_files import CorticalMaps, read_cortex
from pulvinar.data.experiment import Experiment
from pulvinar.data.hemispheres import vertex_points
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_subjects, choose_target, pictures_in, stimuli_of, title, truth_of, with_annotated
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.splits import Split
from pulvinar.datasets.mosaic.facts import FACTS, N_CORTEX, N_LEFT, SETS, VIDEOS, VISUAL
from pulvinar.datasets.mosaic.files import SubjectFile, find_files, open_file, read_split

ATLAS, IMAGES, CORTEX = "atlas.dlabel.nii", "images", "cortex"
PERCENT = 100  # ceilings are percent of variance
TRIALS_AT_ONCE = 128


def subject_name(text: str) -> str:
    """'sub-01_NSD' as it stands; `InputError` for what is none of MOSAIC's, or of a set whose stimuli are videos."""
    match = re.fullmatch(r"(?:sub-)?(\d+)_(\w+)", text)
    short = match[2] if match else ""
    if match is None or short not in SETS or not 1 <= int(match[1]) <= SETS[short][1]:
        raise InputError(f"subjects are named such as sub-01_NSD, of {', '.join(SETS)}; not {text!r}")
    if short in VIDEOS:
        raise InputError(f"{text}: the stimuli of {short} are videos; images are read")
    return f"sub-{int(match[1]):02d}_{short}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as sub-01_NSD,sub-02_GOD; none: all that are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    atlas: str | None = setting(
        None, "HCP-MMP on the 59,412 vertices, a .dlabel.nii of your own; none: atlas.dlabel.nii of the folder"
    )
    voxels: str = setting(CORTEX, "cortex, or an area of the atlas such as V1 or lh.V1, or annotated (its visual areas)")
    split: Literal["mosaic", "phase", "ood"] = setting(
        "mosaic", "MOSAIC's split without leaks, the sides of each data set, or ood: mosaic with the artificial test"
    )
    test: Literal["naturalistic", "artificial"] = setting("naturalistic", "test images of MOSAIC's split")

    @property
    def tested(self) -> str:
        """Which test images of MOSAIC's split."""
        return "artificial" if self.split == "ood" else self.test


def load(source: str) -> Experiment:
    """The experiment in a folder of MOSAIC: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Reads the names of all trials; betas stay on disk. Vertices that are NaN for a subject are left out of it. Raises
    `FileError`, `InputError` or `NotFoundError` naming the file.
    """
    root, options = parse_source(source, Options, name="mosaic")
    files = find_files(root)
    pictures = [name for name in files if name.partition("_")[2] not in VIDEOS]
    if len(pictures) < len(files):
        log(f"{root}: {len(files) - len(pictures)} files of {', '.join(VIDEOS)} are left out; their stimuli are videos")
    names = choose_subjects(root, pictures, list(map(subject_name, options.subjects)), what="sub-XX_SET.hdf5")
    target = choose_target(names, subject_name(options.target) if options.target else None)
    opened = [open_file(files[name], name) for name in names]
    path = Path(options.atlas) if options.atlas else root / ATLAS
    atlas = _atlas(path) if options.atlas or path.is_file() else None
    split = _split(root, opened, options)
    ids = sorted({stimulus for own in opened for stimulus in own.stimuli})
    cache, subjects, truth = SessionCache(int(options.memory_gb * 1e9)), {}, {}
    for own in track(opened, "choosing vertices", len(opened)):
        subjects[own.subject], truth[own.subject] = _subject(root, own, atlas, options, cache)
    return Experiment(
        name=title(root, "MOSAIC", names),
        stimuli=stimuli_of(
            root, ids, options, read_image=pictures_in(root / IMAGES, ids, origin=root) if options.images else None
        ),
        subjects=subjects,
        split=split,
        target=target,
        truth={name: own for name, own in truth.items() if own},
        facts={
            **FACTS.kept,
            "split": f"{options.split}, {options.tested}",
            "unit": "z-scored with the training trials of all sessions; transductive where fewer are used",
            "sessions": "not in the files",
            "oracles": ["noise_ceiling: from the trials of the test images"],
        },
    )


def _split(root: Path, opened: Sequence[SubjectFile], options: Options) -> Split:
    """MOSAIC's split, or the phases in the names of the trials; a stimulus on neither side is not used."""
    if options.split == "phase":
        sides = {
            phase: {one for own in opened for one, side in zip(own.stimuli, own.phases, strict=True) if side == phase}
            for phase in ("train", "test")
        }
        if both := sides["train"] & sides["test"]:
            raise InputError(
                f"split=phase: {len(both)} pictures are of the training of one data set or subject and of the test of another, "
                f"e.g. {sorted(both)[0]}; MOSAIC's split settles that"
            )
    else:
        sides = {"train": read_split(root, "train", opened), "test": read_split(root, options.tested, opened)}
    return Split(train=tuple(sorted(sides["train"])), test=tuple(sorted(sides["test"])))


def _atlas(path: Path) -> CorticalMaps:
    """Labels of the 59,412 vertices, in the order of MOSAIC's files."""
    atlas = read_cortex(path)
    n_left = int((atlas.side == "lh").sum())
    if (len(atlas.vertex), n_left) != (N_CORTEX, N_LEFT):
        raise InputError(
            f"{path}: {len(atlas.vertex)} vertices, {n_left} of them left; MOSAIC's are the {N_CORTEX} of fsLR 91k without the "
            f"medial wall, {N_LEFT} of them left"
        )
    if not atlas.labels:
        raise InputError(f"{path}: has no labels; a .dlabel.nii is needed")
    return atlas


def _areas(atlas: CorticalMaps | None) -> dict[str, np.ndarray]:
    """lh.V1, rh.V1, ... (59412,) of an atlas whose labels are L_V1_ROI or L_V1; and 'annotated', its visual areas."""
    if atlas is None:
        return {}
    masks = {}
    for number, label in atlas.labels[0].items():
        found = re.fullmatch(r"([LR])_(.+?)(?:_ROI)?", label)
        if found:
            masks[f"{found[1].lower()}h.{found[2]}"] = atlas.values[0] == number
    return with_annotated(masks, [f"{side}.{area}" for side in ("lh", "rh") for area in VISUAL])


def _subject(
    root: Path, own: SubjectFile, atlas: CorticalMaps | None, options: Options, cache: SessionCache
) -> tuple[Responses, dict[str, np.ndarray]]:
    """Responses at the vertices that are read, and the truth of a planted world."""
    areas = _areas(atlas)
    sides = [areas[area] for area in (options.voxels, f"lh.{options.voxels}", f"rh.{options.voxels}") if area in areas]
    if options.voxels != CORTEX and not sides:
        hint = suggest(options.voxels, [CORTEX, *areas]) if areas else "; areas come from an atlas, atlas=FILE.dlabel.nii"
        raise NotFoundError(f"voxels: no area '{options.voxels}'{hint}")
    inside = np.any(sides, axis=0) if sides else np.ones(N_CORTEX, bool)
    inside[own.bad[own.bad < N_CORTEX]] = False
    kept = np.flatnonzero(inside)
    if not len(kept):
        raise InputError(f"{own.path}: no vertex is left with voxels={options.voxels}; all are NaN")
    vertex = atlas.vertex if atlas is not None else np.concatenate([np.arange(N_LEFT), np.arange(N_CORTEX - N_LEFT)])
    blocks = np.arange(len(own.keys)) // TRIALS_AT_ONCE
    values = SessionValues(
        own.subject,
        lambda block: own.read(own.keys[block * TRIALS_AT_ONCE : (block + 1) * TRIALS_AT_ONCE], kept),
        np.stack([blocks, np.arange(len(own.keys)) % TRIALS_AT_ONCE], axis=1),
        n_voxels=len(kept),
        dtype=np.float32,
        cache=cache,
    )
    responses = Responses(
        subject=own.subject,
        values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
        stimulus_ids=own.stimuli,
        geometry=vertex_points(
            vertex[kept[kept < N_LEFT]], vertex[kept[kept >= N_LEFT]], template="" if atlas is None else "fs_LR_32k"
        ),
        rois=ROIs({area: mask[kept] for area, mask in areas.items() if mask[kept].any()}, n_voxels=len(kept)),
        noise_ceiling=_ceiling(own, "artificial" if options.tested == "artificial" else "test", kept),
    )
    return responses, truth_of(root, own.subject, lambda values: values[kept])


def _ceiling(own: SubjectFile, phase: str, kept: np.ndarray) -> np.ndarray | None:
    """Noise ceiling of the mean over trials as a share of variance; None, said, where the file has none."""
    percent = own.ceiling(phase, kept)
    if percent is None:
        log(f"{own.subject}: no noise ceilings of phase-{phase} in {own.path.name}")
        return None
    percent = np.nan_to_num(percent)
    if percent.min() < 0 or percent.max() > PERCENT or 0 < percent.max() <= 1:
        raise InputError(f"{own.path}: a ceiling is percent, {percent.min():g} to {percent.max():g} came")
    return (percent / PERCENT).astype(np.float32)
