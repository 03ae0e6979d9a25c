"""An experiment: stimuli, the responses of every subject, and the split; and its folder on disk.

The folder form is documented in docs/folder.md. It is written whole or not at all, and read as memory maps.
"""

import contextlib
import copy
import dataclasses
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from pulvinar.core import checksums, memory
from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError, PulvinarError
from pulvinar.core.hdf5 import create_hdf5, map_hdf5_array, open_hdf5, read_hdf5_array
from pulvinar.core.notebook import Shown, counted, listed
from pulvinar.core.progress import track
from pulvinar.core.sampling import blocks_of, evenly_spaced
from pulvinar.core.storage import (
    atomic_folder,
    checksum,
    fingerprint,
    read_json,
    reading,
    require_folder,
    set_aside,
    write_json,
)
from pulvinar.data.geometry import TEXTS, Geometry
from pulvinar.data.image_files import ImageFiles
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs, missing_roi
from pulvinar.data.splits import Split, check_split
from pulvinar.data.stimuli import Stimuli

FORMAT, VERSION = "pulvinar-experiment", 1
CHECKSUMS = "checksums.json"
N_IMAGES_COMPARED = 64
BYTES_COMPARED = 2**28  # image files that are read when the folder is opened, to see that they are still the same
SIMULATED = "simulated"  # the fact that says that responses were planted


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Experiment(Shown):
    """Everything a method may see, and `truth`, which no method may: only the scoring after the fit reads it.

    target: the new subject. truth: subject -> name -> array (voxel,) of a planted world ('responsive' bool, 'area' int
    with 0 for none). facts: citation, licence, notes; free text that travels along. `simulated` among them says that the
    responses were planted, not measured; it is set where there is a truth. Reports then say so on every picture.
    source: where it was opened from, as `--data` names it; empty for what was made in memory.
    """

    name: str
    stimuli: Stimuli
    subjects: Mapping[str, Responses]
    split: Split
    target: str
    truth: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        if self.truth:
            object.__setattr__(self, "facts", {**self.facts, SIMULATED: True})
        for key, responses in self.subjects.items():
            if key != responses.subject:
                raise InputError(f"subjects: '{key}' holds the responses of '{responses.subject}'; the names must agree")
        if self.target not in self.subjects:
            raise InputError(f"target: no subject named '{self.target}'{suggest(self.target, list(self.subjects))}")
        for responses in self.subjects.values():
            self.stimuli.rows(list(dict.fromkeys(responses.stimulus_ids)))
        check_split(self.split, self.stimuli)

    def _shown(self) -> tuple[str, dict[str, str]]:
        """A title and a few facts."""
        subjects = [
            f"{name} ({counted(responses.n_trials, 'trial')} x {counted(responses.n_voxels, 'voxel')})"
            for name, responses in self.subjects.items()
        ]
        shown = {
            "subjects": listed(subjects),
            "new subject": self.target,
            "stimuli": f"{self.stimuli!r}; {len(self.split.train):,} to train, {len(self.split.test):,} to test",
        }
        return f"Experiment '{self.name}'{', SIMULATED' if self.simulated else ''}", shown

    @property
    def simulated(self) -> bool:
        """Whether the responses were planted, not measured."""
        return bool(self.facts.get(SIMULATED))

    def without_truth(self) -> "Experiment":
        """What a method is given. (A copy of what was checked: checking again would read every image again.)"""
        given = copy.copy(self)
        object.__setattr__(given, "truth", {})
        return given

    def with_training(self, stimulus_ids: Sequence[str]) -> "Experiment":
        """The same with some of its training stimuli only. (A copy of what was checked, as above.)"""
        if unknown := set(stimulus_ids) - set(self.split.train):
            raise InputError(f"{len(unknown)} of these are no training stimuli, among them {sorted(unknown)[:3]}")
        given = copy.copy(self)
        object.__setattr__(given, "split", Split(train=tuple(stimulus_ids), test=self.split.test))
        return given

    def with_facts(self, facts: Mapping[str, Any]) -> "Experiment":
        """The same with more facts. (A copy of what was checked, as above.)"""
        given = copy.copy(self)
        object.__setattr__(given, "facts", {**self.facts, **facts})
        return given

    def fingerprint(self) -> str:
        """Changes when the stimuli, trial tables, sizes, split or a sample of the responses change."""
        parts: list[Any] = [self.name, self.target, tuple(self.stimuli.ids), tuple(self.stimuli.sources), self.split]
        for name, responses in self.subjects.items():
            sample = evenly_spaced(responses.n_trials, 16)
            parts += [name, tuple(responses.stimulus_ids), responses.values.shape, np.asarray(responses.values[sample])]
        return fingerprint(*parts, *[values for _, values in sorted(self.stimuli.features.items())])

    def image_fingerprint(self) -> str | None:
        """Changes when one of 64 stimuli, evenly over all, has other pixels; None without images. Under a second."""
        if self.stimuli.read_image is None:
            return None
        rows = evenly_spaced(len(self.stimuli), N_IMAGES_COMPARED)
        return fingerprint(*[self.stimuli.image(int(row)) for row in rows])


def save(experiment: Experiment, folder: str | os.PathLike[str]) -> Path:
    """Write an experiment as a folder, whole or not at all; an existing folder is refused."""
    folder = Path(folder)
    refuse_unwritable_names(experiment)
    with atomic_folder(folder) as temporary:
        stimuli = _write_images(experiment.stimuli, temporary)
        for responses in track(experiment.subjects.values(), "writing responses", len(experiment.subjects)):
            _write_responses(responses, temporary / "responses" / f"{responses.subject}.h5")
        write_tables(dataclasses.replace(experiment, stimuli=stimuli), temporary)
    return folder


def write_tables(experiment: Experiment, folder: Path) -> None:
    """All files of an experiment folder but images and responses: stimuli.h5, split, truth, head, and at last checksums."""
    write_stimulus_file(experiment.stimuli, folder)
    write_json(folder / "split.json", {"train": experiment.split.train, "test": experiment.split.test})
    if experiment.truth:
        with create_hdf5(folder / "truth.h5") as file:
            for subject, arrays in experiment.truth.items():
                for name, values in arrays.items():
                    file.create_dataset(f"{subject}/{name}", data=values)
    head = {
        "format": FORMAT,
        "version": VERSION,
        "name": experiment.name,
        "target": experiment.target,
        "subjects": list(experiment.subjects),
        "facts": dict(experiment.facts),
    }
    write_json(folder / "experiment.json", head)
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != "images")
    sums = {path.relative_to(folder).as_posix(): checksum(path) for path in files}
    write_json(folder / CHECKSUMS, sums)


def refuse_unwritable_names(experiment: Experiment) -> None:
    """Names become file names and HDF5 names; `InputError` for those that cannot, before anything is written."""
    names = [("subject", name) for name in experiment.subjects] + [("feature", name) for name in experiment.stimuli.features]
    names += [("ROI", name) for responses in experiment.subjects.values() for name in responses.rois]
    names += [("truth", name) for arrays in experiment.truth.values() for name in arrays]
    if experiment.stimuli.read_image is not None:
        names += [("stimulus id", name.replace("/", "%2F")) for name in experiment.stimuli.ids]
    for what, name in names:
        _require_plain_name(what, name)


def _require_plain_name(what: str, name: str) -> None:
    if not name or name.startswith(".") or any(mark in name for mark in "/\\\0"):
        raise InputError(f"{what} '{name}' cannot name a file or dataset; use letters, digits, '.', '_' and '-'")


def write_stimulus_file(stimuli: Stimuli, folder: Path) -> None:
    """stimuli.h5: ids, sources, labels, features; where the stimuli have pixel keys, these and the sizes of the image files."""
    with create_hdf5(folder / "stimuli.h5") as file:
        file.create_dataset("id", data=np.array(list(stimuli.ids), dtype=object), dtype=h5py.string_dtype())
        file.create_dataset("source", data=np.array(list(stimuli.sources), dtype=object), dtype=h5py.string_dtype())
        if stimuli.labels is not None:
            file.create_dataset("label", data=np.array(list(stimuli.labels), dtype=object), dtype=h5py.string_dtype())
        for name, values in stimuli.features.items():
            file.create_dataset(f"features/{name}", data=np.asarray(values, np.float32))
        if stimuli.pixel_keys is not None and stimuli.read_image is not None:
            file.create_dataset("pixel_key", data=np.array(list(stimuli.pixel_keys), dtype=object), dtype=h5py.string_dtype())
            paths = [image_path(folder, name) for name in stimuli.ids]
            file.create_dataset("image_bytes", data=_image_bytes(paths))
            file.create_dataset("image_crc32", data=_image_checksums(paths))


def image_path(folder: Path, stimulus_id: str) -> Path:
    """Where the image of a stimulus lies in an experiment folder; the `/` of an id with a folder is written `%2F`."""
    return folder / "images" / f"{stimulus_id.replace('/', '%2F')}.png"


def _image_bytes(paths: list[Path]) -> np.ndarray:
    return np.array([path.stat().st_size if path.is_file() else -1 for path in paths], np.int64)


def _image_checksums(paths: list[Path]) -> np.ndarray:
    """CRC-32 of every image file."""
    return np.array([zlib.crc32(path.read_bytes()) for path in paths], np.uint32)


def _are_those_of_the_keys(paths: list[Path], file: h5py.File) -> bool:
    """Whether the image files are those that the pixel keys were made from: by size, and by checksum where that is quick."""
    sizes = read_hdf5_array(file, "image_bytes") if "image_bytes" in file else np.zeros(0)
    if not np.array_equal(_image_bytes(paths), sizes):
        return False
    few = sizes.sum() <= BYTES_COMPARED and "image_crc32" in file
    return not few or np.array_equal(_image_checksums(paths), read_hdf5_array(file, "image_crc32"))


def _write_images(stimuli: Stimuli, folder: Path) -> Stimuli:
    """Write every image; the stimuli with what their pixels are, so that who opens the folder need not read them all."""
    if stimuli.read_image is None:
        return stimuli
    (folder / "images").mkdir()
    keys = []
    for row in track(range(len(stimuli)), "writing images", len(stimuli)):
        pixels = stimuli.image(row)
        Image.fromarray(pixels).save(image_path(folder, stimuli.ids[row]), compress_level=1)
        keys.append(fingerprint(pixels))
    return dataclasses.replace(stimuli, pixel_keys=keys)


def _write_responses(responses: Responses, path: Path) -> None:
    with _response_file(responses, path) as file:
        for block in blocks_of(responses.n_trials, responses.trials_at_once()):
            file["values"][block] = responses.values[block]
            memory.release(responses.values)


def create_response_file(responses: Responses, path: Path) -> None:
    """The HDF5 file of a subject with everything but the values, whose room is set aside, contiguous, to be filled."""
    with _response_file(responses, path):
        pass
    set_aside(path, path.stat().st_size)


@contextlib.contextmanager
def _response_file(responses: Responses, path: Path) -> Iterator[h5py.File]:
    path.parent.mkdir(exist_ok=True)
    with create_hdf5(path) as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        values = file.create_dataset("values", shape=responses.values.shape, dtype=responses.values.dtype, dcpl=layout)
        values.attrs["scale"] = responses.scale
        file.create_dataset("stimulus", data=np.array(list(responses.stimulus_ids), dtype=object), dtype=h5py.string_dtype())
        file.create_dataset("session", data=responses.sessions)
        file.create_dataset("run", data=responses.runs)
        if responses.noise_ceiling is not None:
            file.create_dataset("noise_ceiling", data=responses.noise_ceiling)
        for name, mask in responses.rois.items():
            file.create_dataset(f"rois/{name}", data=mask)
        group = file.create_group("geometry")
        for name, array in responses.geometry.arrays().items():
            if name in TEXTS:
                group.attrs[name] = str(array)
            else:
                group.create_dataset(name, data=array)
        yield file


def load(folder: str | os.PathLike[str], *, target: str | None = None) -> Experiment:
    """Read an experiment folder; responses stay on disk as memory maps. `target` replaces the folder's own target.

    Every file is compared with checksums.json, if there is one, as `checksums` says: `FileError` names those that differ.
    """
    folder = require_folder(folder)
    if (folder / "run.json").is_file():
        raise FileError(
            f"{folder}: a run, not an experiment folder; look at it with `pulvinar report`, or pulvinar.load in Python"
        )
    if not (folder / "experiment.json").is_file():
        raise FileError(
            f"{folder}: not an experiment folder (experiment.json is missing). "
            "Make one from your own files with `pulvinar data convert`, or a planted one with `pulvinar data simulate`."
        )
    try:
        with reading(folder, "an experiment folder"):
            experiment = _read(folder, target)
    except PulvinarError as error:  # is it what somebody wrote, or what became of it?
        if differing := _differing(folder):
            raise type(error)(f"{error}\n{_damaged(folder, differing)}") from error
        raise
    if differing := _differing(folder):
        raise FileError(_damaged(folder, differing))
    return experiment


def _read(folder: Path, target: str | None) -> Experiment:
    head = read_json(folder / "experiment.json")
    if not isinstance(head, dict) or head.get("format") != FORMAT or head.get("version") != VERSION:
        came = head.get("version") if isinstance(head, dict) else head
        raise FileError(f"{folder}/experiment.json: format '{FORMAT}' version {VERSION} is needed, version {came!r} came")
    names, facts = _subject_names(head, folder), head.get("facts") or {}
    if not isinstance(facts, dict):
        raise FileError(f"{folder}/experiment.json: 'facts' must be an object, {facts!r} came")
    return Experiment(
        name=str(head.get("name", folder.name)),
        stimuli=_read_stimuli(folder),
        subjects={name: _read_responses(folder / "responses" / f"{name}.h5", name) for name in names},
        split=_read_split(folder / "split.json"),
        target=target or head.get("target") or names[-1],
        truth=_read_truth(folder / "truth.h5"),
        facts=facts,
    )


def _subject_names(head: dict[str, Any], folder: Path) -> list[str]:
    names = head.get("subjects") or sorted(path.stem for path in (folder / "responses").glob("*.h5"))
    if not names:
        raise FileError(f"{folder}: no subjects; experiment.json lists none and responses/ holds no .h5 file")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise FileError(f"{folder}/experiment.json: 'subjects' must be a list of names, {names!r} came")
    for name in names:
        _require_plain_name(f"{folder}/experiment.json: subject", name)
    return names


def _read_split(path: Path) -> Split:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(content.get(side), list) for side in ("train", "test")):
        raise FileError(f"{path}: lists of stimulus ids named 'train' and 'test' are needed")
    return Split(train=tuple(map(str, content["train"])), test=tuple(map(str, content["test"])))


def _read_stimuli(folder: Path) -> Stimuli:
    with open_hdf5(folder / "stimuli.h5") as file:
        ids = _texts(file, "id")
        sources = _texts(file, "source") if "source" in file else ids
        labels = _texts(file, "label") if "label" in file else None
        features = {name: _numbers(file, name, values) for name, values in _group(file, "features").items()}
        paths = [image_path(folder, name) for name in ids] if (folder / "images").is_dir() else []
        known = "pixel_key" in file and _are_those_of_the_keys(paths, file)
        keys = _texts(file, "pixel_key") if known else None
    read_image = ImageFiles(paths) if paths else None
    return Stimuli(ids=ids, sources=sources, labels=labels, features=features, read_image=read_image, pixel_keys=keys)


def _texts(file: h5py.File, name: str) -> list[str]:
    """A list of ids or labels; whole numbers count as text."""
    values = read_hdf5_array(file, name)
    if values.ndim != 1 or values.dtype.kind not in "OSUiu":
        raise FileError(f"{file.filename}: '{name}' must be a list of texts, {values.dtype} {values.shape} came")
    return [value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values.tolist()]


def _numbers(file: h5py.File, name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind not in "biuf" or values.ndim == 0:
        raise FileError(f"{file.filename}: '{name}' must be an array of numbers, {values.dtype} {values.shape} came")
    return np.asarray(values, np.float32)


def _group(file: h5py.File, name: str) -> dict[str, np.ndarray]:
    """The arrays of a group by name; none if there is no such group."""
    group = file.get(name, {})
    if not isinstance(group, h5py.Group | dict):
        raise FileError(f"{file.filename}: '{name}' must be a group of arrays, a dataset came")
    return {key: read_hdf5_array(group, key) for key in group}


def _read_responses(path: Path, subject: str) -> Responses:
    with open_hdf5(path) as file:
        optional = {name: read_hdf5_array(file, name) for name in ("session", "run") if name in file}
        ceiling = _numbers(file, "noise_ceiling", read_hdf5_array(file, "noise_ceiling")) if "noise_ceiling" in file else None
        stimulus_ids = _texts(file, "stimulus")
        values = file.get("values")
        if not isinstance(values, h5py.Dataset) or values.ndim != 2:
            raise FileError(f"{path}: a dataset 'values' (trial, voxel) is needed; there are: {', '.join(file)}")
        scale, n_voxels = values.attrs.get("scale", 1.0), values.shape[1]
        if np.ndim(scale) or np.asarray(scale).dtype.kind not in "iuf":
            raise FileError(f"{path}: the attribute 'scale' of 'values' must be a number, {scale!r} came")
        rois = ROIs(_group(file, "rois"), n_voxels=n_voxels)
        geometry = _read_geometry(file, path)
    mapped = map_hdf5_array(path, "values")
    if mapped.dtype.newbyteorder("=") != mapped.dtype:
        mapped = mapped.astype(mapped.dtype.newbyteorder("="))
    return Responses(
        subject=subject,
        values=mapped.astype(np.float32) if mapped.dtype == np.float64 else mapped,
        scale=float(scale),
        stimulus_ids=stimulus_ids,
        sessions=optional.get("session", np.zeros(0, np.int64)),
        runs=optional.get("run", np.zeros(0, np.int64)),
        noise_ceiling=ceiling,
        rois=rois,
        geometry=geometry,
    )


def _read_geometry(file: h5py.File, path: Path) -> Geometry:
    if "geometry" not in file:
        raise FileError(f"{path}: a group 'geometry' is needed (index, shape and affine; or vertex and mesh; or coordinates)")
    try:
        return Geometry.from_arrays(_group(file, "geometry") | dict(file["geometry"].attrs))
    except InputError as error:
        raise FileError(f"{path}: {error}") from error


def _read_truth(path: Path) -> dict[str, dict[str, np.ndarray]]:
    if not path.is_file():
        return {}
    with open_hdf5(path) as file:
        return {subject: _group(file, subject) for subject in file}


def verify(folder: str | os.PathLike[str]) -> list[str]:
    """Names of files whose SHA-256 differs from checksums.json; empty when all agree (or no checksums were written).

    Reads every file, whatever was checked before.
    """
    folder = Path(folder)
    return [
        name for name, value in _wanted(folder).items() if not (folder / name).is_file() or checksum(folder / name) != value
    ]


def _wanted(folder: Path) -> dict[str, str]:
    if not (folder / CHECKSUMS).is_file():
        return {}
    wanted = read_json(folder / CHECKSUMS)
    if not isinstance(wanted, dict):
        raise FileError(f"{folder}/{CHECKSUMS}: an object of file name and SHA-256 is needed")
    return wanted


def _differing(folder: Path) -> list[str]:
    """Names of files that are there and differ from checksums.json, checked as `checksums.mode` says."""
    differing = []
    for name, expected in _wanted(folder).items():
        try:
            if (folder / name).is_file():
                checksums.require(folder / name, str(expected), written_in=CHECKSUMS)
        except FileError:
            differing.append(name)
    return differing


def _damaged(folder: Path, names: Sequence[str]) -> str:
    return (
        f"{folder}: {', '.join(names)} damaged, or changed since written: another SHA-256 than in {CHECKSUMS}. "
        f"Copy the folder again from where it came; if the change is yours, remove the file's line from {CHECKSUMS}"
    )


def require_target_roi(experiment: Experiment, roi: str, subject: str) -> np.ndarray:
    """The ROI of a subject that the setting `roi` names: (voxel,) bool; `NotFoundError` says which ones the subject has."""
    rois = experiment.subjects[subject].rois
    if roi not in rois:
        raise NotFoundError(missing_roi(rois, roi, subject))
    return rois[roi]
