"""Reads Generic Object Decoding: samples of training and test, voxels with their regions, the pictures where they are."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.bdata_files import BData, is_one, open_bdata, picture_name, require_pictures
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_subjects, choose_target, pictures_in, stimuli_of, title, truth_of
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.splits import Split
from pulvinar.datasets.god.facts import FACTS, IMAGERY, SUBJECTS, TEST, TRAINING, WHOLE

IMAGES, SUFFIXES = "images", (".h5", ".mat")
SAMPLES_AT_ONCE = 256
MEASURED = "all"


def subject_name(text: str) -> str:
    """'Subject3' for '3', 'sub-03' or 'Subject3'; `InputError` for what is none of the five."""
    digits = re.sub(r"^(Subject|sub-0?|s0?)", "", text)
    if f"Subject{digits}" not in SUBJECTS:
        raise InputError(f"subjects are 1 to 5, not {text!r}")
    return f"Subject{digits}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,3; none: all whose files are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    voxels: str = setting(MEASURED, "all that are in the file, or a region such as VC, LVC, V1, LOC")


def load(source: str) -> Experiment:
    """The experiment in a folder of GOD's files: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Training and test samples; those of imagery, which show no picture, are left out and said. Values stay on disk. Raises
    `FileError`, `InputError` or `NotFoundError` naming the file.
    """
    root, options = parse_source(source, Options, name="god")
    present = [name for name in SUBJECTS if any((root / f"{name}{suffix}").is_file() for suffix in SUFFIXES)]
    names = choose_subjects(root, present, list(map(subject_name, options.subjects)), what="Subject1.h5 to Subject5.h5")
    target = choose_target(names, subject_name(options.target) if options.target else None)
    cache, opened = SessionCache(int(options.memory_gb * 1e9)), {}
    for name in track(names, "reading labels", len(names)):
        opened[name] = _Subject(root, name, options)
    sides = {kind: {one for own in opened.values() for one in own.shown(kind)} for kind in (TRAINING, TEST)}
    if both := sides[TRAINING] & sides[TEST]:
        raise InputError(f"{root}: {len(both)} pictures are of the training and of the test, e.g. {sorted(both)[0]}")
    ids = sorted(sides[TRAINING] | sides[TEST])
    return Experiment(
        name=title(root, "Generic Object Decoding", names),
        stimuli=stimuli_of(
            root,
            ids,
            options,
            read_image=pictures_in(root / IMAGES, ids, origin=root) if options.images else None,
            labels=[stimulus.partition("_")[0] for stimulus in ids],
        ),
        subjects={name: own.responses(cache) for name, own in opened.items()},
        split=Split(train=tuple(sorted(sides[TRAINING])), test=tuple(sorted(sides[TEST]))),
        target=target,
        truth={name: truth for name, own in opened.items() if (truth := truth_of(root, name, own.pick))},
        facts={
            **FACTS.kept,
            "unit": "as in the file; its preprocessing was not established",
            "positions": "voxel_x, voxel_y, voxel_z as in the file, whose unit was not established",
        },
    )


class _Subject:
    """One subject's file, its samples of training and test, and the voxels that are read."""

    def __init__(self, root: Path, name: str, options: Options) -> None:
        found = [root / f"{name}{suffix}" for suffix in SUFFIXES if (root / f"{name}{suffix}").is_file()]
        if len(found) > 1:
            raise FileError(f"{root}: {' and '.join(path.name for path in found)} are both there; keep one of them")
        self.name, self.file = name, open_bdata(found[0])
        kinds = self.file.label("DataType")
        if strange := set(np.unique(kinds).tolist()) - {TRAINING, TEST, IMAGERY}:
            raise InputError(f"{self.file.path}: DataType is 1 (training), 2 (test) or 3 (imagery), {min(strange):g} came")
        if n_imagined := int((kinds == IMAGERY).sum()):
            log(f"{name}: {n_imagined} samples of imagery, which show no picture, are left out")
        self.samples = np.flatnonzero(kinds != IMAGERY)
        self.kinds = kinds[self.samples]
        if not len(self.samples):
            raise InputError(f"{self.file.path}: no sample of training or test")
        self.ids = [picture_name(number) for number in self._stimulus_ids()[self.samples]]
        self.runs = self.file.label("Run")[self.samples]
        self.columns = self._choose(options.voxels)
        everywhere = self.file.columns("VoxelData")
        self._kept = np.isin(everywhere, self.columns)

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Of values of all voxels of the file, those of the voxels that are read."""
        return values[self._kept]

    def shown(self, kind: int) -> set[str]:
        """The pictures of training or test."""
        return {one for one, own in zip(self.ids, self.kinds, strict=True) if own == kind}

    def _stimulus_ids(self) -> np.ndarray:
        """stimulus_id of every sample (older files: Label); `InputError` where it was kept in single precision, or is no id."""
        found = self.file.label("stimulus_id", "Label")
        require_pictures(self.file, found[self.samples])
        return found

    def _choose(self, voxels: str) -> np.ndarray:
        """Columns of the voxels that are read, in the order of the file."""
        every = self.file.columns("VoxelData")
        if not len(every):
            raise InputError(f"{self.file.path}: VoxelData is 1 in no column")
        if voxels == MEASURED:
            return every
        if f"ROI_{voxels}" not in self.file.metadata:
            raise NotFoundError(f"voxels: {self.name} has no '{voxels}'{suggest(voxels, [MEASURED, *self._regions()])}")
        kept = every[is_one(self.file.facts(f"ROI_{voxels}", every))]
        if not len(kept):
            raise InputError(f"{self.file.path}: ROI_{voxels} is 1 in no column of VoxelData")
        return kept

    def _regions(self) -> list[str]:
        return [key.removeprefix("ROI_") for key in self.file.metadata if key.startswith("ROI_")]

    def _masks(self) -> dict[str, np.ndarray]:
        """Regions on the voxels that are read; 'annotated', which methods take for granted, is all of visual cortex."""
        masks = {region: is_one(self.file.facts(f"ROI_{region}", self.columns)) for region in self._regions()}
        masks = {region: mask for region, mask in masks.items() if mask.any()}
        return masks | ({"annotated": masks[WHOLE]} if WHOLE in masks else {})

    def responses(self, cache: SessionCache) -> Responses:
        """Its samples in the order of the file, read some hundred at a time."""
        blocks = np.arange(len(self.samples)) // SAMPLES_AT_ONCE
        of_block = [self.samples[blocks == block] for block in range(int(blocks[-1]) + 1)]
        values = SessionValues(
            self.name,
            lambda block: self.file.read(of_block[block], self.columns).astype(np.float32),
            np.stack([blocks, np.arange(len(self.samples)) % SAMPLES_AT_ONCE], axis=1),
            n_voxels=len(self.columns),
            dtype=np.float32,
            cache=cache,
        )
        points = np.stack([self.file.facts(f"voxel_{axis}", self.columns) for axis in "xyz"], axis=1)
        return Responses(
            subject=self.name,
            values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
            stimulus_ids=self.ids,
            runs=self.runs,
            geometry=_geometry(self.file, points),
            rois=ROIs(self._masks(), n_voxels=len(self.columns)),
        )


def _geometry(file: BData, points: np.ndarray) -> Geometry:
    if not np.isfinite(points).all():
        n_bad = int((~np.isfinite(points)).any(1).sum())
        raise InputError(f"{file.path}: voxel_x, voxel_y or voxel_z is not a number for {n_bad} voxels")
    return Geometry.from_points(points)
