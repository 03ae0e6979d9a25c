"""Reads Deeprecon: samples of a training and a test file of each subject, voxels, regions, pictures where they are."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from pulvinar.core.config import setting, suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.bdata_files import BData, is_one, open_bdata, picture_name, require_pictures
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.image_ids import ids_of_mentions
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionCache, SessionValues
from pulvinar.data.set_folder import choose_subjects, choose_target, pictures_in, stimuli_of, title, truth_of
from pulvinar.data.source_options import TrialOptions, parse_source
from pulvinar.data.splits import Split
from pulvinar.datasets.deeprecon.facts import FACTS, FORMS, SUBJECTS, TEST, TRAINING, WHOLE

IMAGES, MEASURED = "images", "all"
SAMPLES_AT_ONCE = 256

Form = Literal["original", "fmriprep"]


def subject_name(text: str) -> str:
    """'sub-03' for '3' or 'sub-03'; `InputError` for what is none of the three."""
    digits = re.sub(r"^(sub-0?|0)", "", text)
    if f"sub-0{digits}" not in SUBJECTS:
        raise InputError(f"subjects are 1 to 3, not {text!r}")
    return f"sub-0{digits}"


@dataclass(frozen=True, kw_only=True)
class Options(TrialOptions):
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,3; none: all whose files are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first", reads=subject_name)
    form: Form | None = setting(None, "original or fmriprep; none: the form that is there")
    voxels: str = setting(MEASURED, "all that are in the file, or a region such as VC, LVC, V1, hV4 (fmriprep), V4 (original)")
    split: Literal["owners", "ood"] = setting("owners", "test on pictures, or (ood) on what the file of artificial shows")
    artificial: str | None = setting(
        None, "of split=ood: a file of artificial shapes or letters in the folder, with {subject} in its name"
    )

    def problems(self) -> list[str]:
        """What does not go together."""
        if (self.split == "ood") != (self.artificial is not None):
            return [
                "artificial names the file of split=ood, as artificial={subject}_NAME.h5; the owners' name for it was not "
                "established, and one needs the other"
            ]
        return []


def load(source: str) -> Experiment:
    """The experiment in a folder of Deeprecon's files: `FOLDER` or `FOLDER?name=value&...` with the names of `Options`.

    A sample that shows the same as the one before in its run is the one-back task's, and left out. Values stay on disk. Raises
    `FileError`, `InputError` or `NotFoundError` naming the file.
    """
    root, options = parse_source(source, Options, name="deeprecon")
    form = _form(root, options.form)
    there = [name for name in SUBJECTS if (root / FORMS[form].format(subject=name, kind=TRAINING)).is_file()]
    what = f"{FORMS[form].format(subject='sub-0X', kind=TRAINING)}"
    names = choose_subjects(root, there, list(map(subject_name, options.subjects)), what=what)
    target = choose_target(names, subject_name(options.target) if options.target else None)
    cache = SessionCache(int(options.memory_gb * 1e9))
    opened = {name: _Subject(root, name, form, options) for name in track(names, "reading labels", len(names))}
    mentions = [one for own in opened.values() for part in own.parts for one in part.shown]
    id_of = ids_of_mentions(mentions, origin=str(root))
    sides = [{id_of[one] for own in opened.values() for one in own.parts[place].shown} for place in (0, 1)]
    if both := sides[0] & sides[1]:
        raise InputError(f"{root}: {len(both)} pictures are of the training and of the test, e.g. {sorted(both)[0]}")
    ids = sorted(sides[0] | sides[1])
    return Experiment(
        name=title(root, "Deeprecon", names),
        stimuli=stimuli_of(
            root,
            ids,
            options,
            read_image=pictures_in(root / IMAGES, ids, origin=root) if options.images else None,
            labels=[stimulus.rpartition("_")[0] for stimulus in ids],
        ),
        subjects={name: own.responses(cache, id_of) for name, own in opened.items()},
        split=Split(train=tuple(sorted(sides[0])), test=tuple(sorted(sides[1]))),
        target=target,
        truth={name: truth for name, own in opened.items() if (truth := truth_of(root, name, own.pick))},
        facts={
            **FACTS.kept,
            "form": form,
            "unit": "as in the file (detrended and divided by the standard deviation, by a third party's word; no betas)",
            "positions": "voxel_x, voxel_y, voxel_z as in the file, whose unit was not established",
        },
    )


def _form(root: Path, asked: Form | None) -> Form:
    """The form asked for, or the one whose files are there; two are refused."""
    if asked is not None:
        return asked
    forms: tuple[Form, ...] = ("original", "fmriprep")
    found = [form for form in forms if list(root.glob(FORMS[form].format(subject="sub-0?", kind=TRAINING)))]
    if len(found) > 1:
        raise FileError(f"{root}: files of {' and '.join(found)} are there; name one, form=original")
    return found[0] if found else "original"


class _Part:
    """A file of one kind of session: its samples without one-back repetitions, and what each shows, by name."""

    def __init__(self, path: Path, form: Form, *, natural: bool) -> None:
        if not path.is_file():
            raise FileError(f"{path}: no such file")
        self.file = open_bdata(path)
        shown = self._names(form, natural=natural)
        runs = self._runs()
        again = [row for row in range(1, len(shown)) if shown[row] == shown[row - 1] and runs[row] == runs[row - 1]]
        if again:
            log(f"{path.name}: {len(again)} samples of the one-back task, which show the same as the one before, are left out")
        self.samples = np.setdiff1d(np.arange(len(shown)), again)
        self.shown = [shown[row] for row in self.samples]
        self.runs = runs[self.samples]

    def _names(self, form: Form, *, natural: bool) -> list[str]:
        """Names of the pictures; by number alone only where the numbers are those of ImageNet."""
        if form == "fmriprep" or not natural:
            return self.file.names("stimulus_name")
        numbers = self.file.label("stimulus_id")
        require_pictures(self.file, numbers)
        return [picture_name(number) for number in numbers]

    def _runs(self) -> np.ndarray:
        return self.file.label("Run") if "Run" in self.file.metadata else np.zeros(self.file.n_samples)


class _Subject:
    """One subject's two files, checked against each other, and the voxels that are read."""

    def __init__(self, root: Path, name: str, form: Form, options: Options) -> None:
        tested = options.artificial or FORMS[form].replace("{kind}", TEST)
        paths = [root / FORMS[form].format(subject=name, kind=TRAINING), root / tested.replace("{subject}", name)]
        self.name = name
        self.parts = [_Part(path, form, natural=number == 0 or not options.artificial) for number, path in enumerate(paths)]
        first, second = (part.file for part in self.parts)
        every = [file.columns("VoxelData") for file in (first, second)]
        if not len(every[0]):
            raise InputError(f"{first.path}: VoxelData is 1 in no column")
        self._points = _points(first, every[0])
        if len(every[0]) != len(every[1]) or not np.array_equal(self._points, _points(second, every[1])):
            raise InputError(f"{second.path}: other voxels (voxel_x, voxel_y, voxel_z) than in {first.path.name}")
        self._kept = self._chosen(first, every[0], options.voxels)
        self.columns = [columns[self._kept] for columns in every]

    def pick(self, values: np.ndarray) -> np.ndarray:
        """Of values of all voxels of the files, those of the voxels that are read."""
        return values[self._kept]

    def _chosen(self, file: BData, every: np.ndarray, voxels: str) -> np.ndarray:
        """Which of the voxels are read: (voxel,) bool."""
        if voxels == MEASURED:
            return np.ones(len(every), bool)
        if f"ROI_{voxels}" not in file.metadata:
            there = [key.removeprefix("ROI_") for key in file.metadata if key.startswith("ROI_")]
            raise NotFoundError(f"{file.path}: voxels: no ROI_{voxels}{suggest(voxels, [MEASURED, *there])}")
        kept = is_one(file.facts(f"ROI_{voxels}", every))
        if not kept.any():
            raise InputError(f"{file.path}: ROI_{voxels} is 1 in no column of VoxelData")
        return kept

    def _masks(self) -> dict[str, np.ndarray]:
        """Regions on the voxels that are read; 'annotated', which methods take for granted, is all of visual cortex."""
        file, columns = self.parts[0].file, self.columns[0]
        keys = [key for key in file.metadata if key.startswith("ROI_")]
        masks = {key.removeprefix("ROI_"): is_one(file.facts(key, columns)) for key in keys}
        masks = {region: mask for region, mask in masks.items() if mask.any()}
        return masks | ({"annotated": masks[WHOLE]} if WHOLE in masks else {})

    def responses(self, cache: SessionCache, id_of: dict[str, str]) -> Responses:
        """Samples of the training file, then those of the test file, some hundred at a time; sessions 1 and 2."""
        blocks = [
            (place, part.samples[start : start + SAMPLES_AT_ONCE])
            for place, part in enumerate(self.parts)
            for start in range(0, len(part.samples), SAMPLES_AT_ONCE)
        ]
        places = [(number, row) for number, (_, samples) in enumerate(blocks) for row in range(len(samples))]

        def read(block: int) -> np.ndarray:
            place, samples = blocks[block]
            return self.parts[place].file.read(samples, self.columns[place]).astype(np.float32)

        values = SessionValues(self.name, read, np.array(places), n_voxels=int(self._kept.sum()), dtype=np.float32, cache=cache)
        return Responses(
            subject=self.name,
            values=values,  # type: ignore[arg-type]  # has the indexing that Responses needs
            stimulus_ids=[id_of[one] for part in self.parts for one in part.shown],
            sessions=np.repeat([1, 2], [len(part.samples) for part in self.parts]),
            runs=np.concatenate([part.runs for part in self.parts]),
            geometry=Geometry.from_points(self._points[self._kept]),
            rois=ROIs(self._masks(), n_voxels=int(self._kept.sum())),
        )


def _points(file: BData, columns: Sequence[int] | np.ndarray) -> np.ndarray:
    points = np.stack([file.facts(f"voxel_{axis}", np.asarray(columns)) for axis in "xyz"], axis=1)
    if not np.isfinite(points).all():
        n_bad = int((~np.isfinite(points)).any(1).sum())
        raise InputError(f"{file.path}: voxel_x, voxel_y or voxel_z is not a number for {n_bad} voxels")
    return points
