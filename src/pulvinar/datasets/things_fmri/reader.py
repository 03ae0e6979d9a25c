"""Reads THINGS-fMRI: single-trial responses of the brain's voxels, with regions, ceilings and the pictures where they are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.brain_files import read_mask
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_ids import ids_of
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_subjects, choose_target, pictures_in, stimuli_of, title, truth_of, with_annotated
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.splits import Split
from pulvinar.datasets.things_fmri.facts import ATLAS, FACTS, SIDED, SUBJECTS, VISUAL, WHOLE
from pulvinar.datasets.things_fmri.tables import find_files, open_responses, read_trials, read_voxels

BRAIN = "brain"
PERCENT = 100  # ceilings are percent of variance
IMAGES = "images"
SPACING_MM = 2.0


def subject_name(text: str) -> str:
    """'sub-01' for '1' or 'sub-01'; `InputError` for what is none of the three."""
    digits = text.removeprefix("sub-")
    if not digits.isdecimal() or f"sub-{int(digits):02d}" not in SUBJECTS:
        raise InputError(f"subjects are 1 to 3, not {text!r}")
    return f"sub-{int(digits):02d}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2; none: all whose tables are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    sessions: int | None = setting(None, "first sessions to take training trials from; none: all 12", at_least=1)
    voxels: str = setting(BRAIN, "brain, or a region such as V1, FFA (both sides), lh.FFA, IT, glasser-V1")


def load(source: str) -> Experiment:
    """The experiment in a folder of THINGS-fMRI's tables: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    Reads the tables of trials and voxels; responses stay on disk. The noise ceiling is that of the mean of the 12 test trials
    (`nc_testset`), a share of variance. Raises `FileError`, `InputError` or `NotFoundError` naming file and column.
    """
    root, options = parse_source(source, Options, name="things_fmri")
    tables = [*root.glob("sub-0?_ResponseData.h5"), *root.glob("betas_csv/sub-0?_ResponseData.h5")]
    present = sorted({path.name[:6] for path in (*tables, *root.glob("**/ICA-betas/sub-0?"))})
    wanted = list(map(subject_name, options.subjects))
    names = choose_subjects(root, [name for name in present if name in SUBJECTS], wanted, what="sub-0X_ResponseData.h5")
    target = choose_target(names, subject_name(options.target) if options.target else None)
    cache, opened = SessionCache(int(options.memory_gb * 1e9)), {}
    for name in track(names, "reading tables", len(names)):
        opened[name] = _Subject(root, name, options)
    subjects = {name: own.responses(cache) for name, own in opened.items()}
    ids = sorted({stimulus for own in subjects.values() for stimulus in own.stimulus_ids})
    test = {stimulus for own in opened.values() for stimulus in own.test}
    train = {stimulus for own in opened.values() for stimulus in own.train}
    if test & train:
        raise InputError(f"{root}: {sorted(test & train)[0]} is a test picture of one subject and not of another")
    return Experiment(
        name=title(root, "THINGS-fMRI", names),
        stimuli=stimuli_of(
            root,
            ids,
            options,
            read_image=pictures_in(root / IMAGES, ids, origin=root) if options.images else None,
            labels=[stimulus.rpartition("_")[0] for stimulus in ids],
        ),
        subjects=subjects,
        split=Split(train=tuple(i for i in ids if i in train), test=tuple(i for i in ids if i in test)),
        target=target,
        truth={name: truth for name, own in opened.items() if (truth := truth_of(root, name, own.pick))},
        facts={
            **FACTS.kept,
            "unit": "betas of z-scored runs; trials are not z-scored",
            "oracles": ["noise_ceiling: from the 12 trials of the test pictures"],
            "split": "by picture; every concept of the test is among the training pictures too",
        },
    )


class _Subject:
    """One subject's tables, checked against each other."""

    def __init__(self, root: Path, name: str, options: Options) -> None:
        files = find_files(root, name)
        self.name, self.table = name, open_responses(files.responses)
        trials, voxels = read_trials(files.stimuli), read_voxels(files.voxels)
        if len(trials.stimuli) != self.table.n_trials:
            raise InputError(f"{files.stimuli}: {len(trials.stimuli)} trials, but {files.responses} has {self.table.n_trials}")
        if not np.array_equal(voxels["voxel_id"], self.table.numbers):
            raise InputError(f"{files.voxels}: its voxel_id are not those of {files.responses}, in their order")
        shown = list(dict.fromkeys(trials.stimuli))
        id_of = dict(zip(shown, ids_of(shown, origin=str(files.stimuli)), strict=True))
        self.ids = [id_of[stimulus] for stimulus in trials.stimuli]
        self.kept = np.flatnonzero(trials.is_test | (trials.sessions <= (options.sessions or trials.sessions.max())))
        self.trials = trials
        self.train, self.test = ({self.ids[row] for row in self.kept if trials.is_test[row] == side} for side in (False, True))
        masks = regions(voxels)
        self.rows = np.flatnonzero(_chosen(masks, options.voxels, self.name))
        if not len(self.rows):
            raise InputError(f"{name}: no voxel is in voxels={options.voxels}")
        own = {region: mask[self.rows] for region, mask in masks.items()}
        functional = [region for region in own if not region.startswith(ATLAS)]
        self.rois = ROIs(with_annotated(own, functional), n_voxels=len(self.rows))
        self.ceiling = _share(files.voxels, voxels["nc_testset"])[self.rows]
        index = np.stack([voxels[f"voxel_{axis}"] for axis in "xyz"], axis=1).astype(np.int64)
        shape, affine = _grid(root, name, index)
        self.geometry = Geometry.from_index(index[self.rows], shape=shape, affine=affine)

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Of values of all voxels of the table, those of the voxels that are read."""
        return values[self.rows]

    def responses(self, cache: SessionCache) -> Responses:
        """Its trials in the order of their numbers, read session by session."""
        sessions, runs = self.trials.sessions[self.kept], self.trials.runs[self.kept]
        of_session = {int(number): self.kept[sessions == number] for number in np.unique(sessions)}
        row = np.empty(len(self.kept), np.int64)
        for number, trials in of_session.items():
            row[sessions == number] = np.arange(len(trials))
        values = SessionValues(
            self.name,
            lambda session: self.table.read(self.rows, of_session[session]),
            np.stack([sessions, row], axis=1),
            n_voxels=len(self.rows),
            dtype=np.float32,
            cache=cache,
        )
        return Responses(
            subject=self.name,
            values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
            stimulus_ids=[self.ids[trial] for trial in self.kept],
            sessions=sessions,
            runs=runs,
            geometry=self.geometry,
            rois=self.rois,
            noise_ceiling=self.ceiling,
        )


def regions(voxels: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Region -> bool (voxel,): V1, ..., lh.FFA, rh.FFA, ..., IT, glasser-V1, ...; a cell that is no number is outside."""
    columns = {name: name for name in (*VISUAL, WHOLE, *(name for name in voxels if name.startswith(ATLAS)))}
    columns |= {f"{side}h.{region}": f"{side}{region}" for region in SIDED for side in "lr"}
    return {region: voxels[column] == 1 for region, column in columns.items() if column in voxels}


def _chosen(masks: Mapping[str, np.ndarray], name: str, subject: str) -> np.ndarray:
    n_voxels = len(next(iter(masks.values()))) if masks else 0
    if name == BRAIN:
        return np.ones(n_voxels, bool)
    sides = [masks[side] for side in (name, f"lh.{name}", f"rh.{name}") if side in masks]
    if not sides:
        raise NotFoundError(f"voxels: {subject} has no '{name}'{suggest(name, [BRAIN, *masks])}")
    return np.any(sides, axis=0)


def _grid(root: Path, name: str, index: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of the brain mask, whose voxels the table lists in C order; without its file, the least grid, 2 mm."""
    found = sorted(root.glob(f"**/{name}_space-T1w_brainmask.nii*"))
    if not found:
        log(
            f"{name}: no {name}_space-T1w_brainmask.nii, so the place of the grid is not known: maps have voxels of "
            f"{SPACING_MM:g} mm (assumed), counted from a corner"
        )
        return tuple(int(side) for side in index.max(0) + 1), np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0])
    mask = read_mask(found[0])
    if not np.array_equal(np.argwhere(mask.inside), index):
        raise InputError(
            f"{found[0]}: its {mask.n_voxels} voxels, in C order, are not the {len(index)} of the table of voxels (voxel_x, "
            "voxel_y, voxel_z)"
        )
    return mask.inside.shape, mask.affine


def _share(path: Path, percent: np.ndarray) -> np.ndarray:
    """Percent of variance as a share, float32; NaN is 0. `InputError` where it is no percentage."""
    if np.nanmax(percent, initial=0) > PERCENT or np.nanmin(percent, initial=0) < 0:
        raise InputError(f"{path}: nc_testset is percent, {np.nanmin(percent):g} to {np.nanmax(percent):g} came")
    if 0 < np.nanmax(percent, initial=0) <= 1:
        raise InputError(f"{path}: nc_testset is percent, but none is above 1; is it a share already?")
    return (np.nan_to_num(percent) / PERCENT).astype(np.float32)
