"""One HDF5 file of MOSAIC: a dataset of 91,282 greyordinates for each trial, whose name says what was shown; and the splits.

betas/sub-01_NSD_stimulus-000000123456_phase-train_rep-0      attribute presented_stimulus_filename: 000000123456.jpg
noiseceilings/sub-01_NSD_phase-test_n-avg_noiseceiling        percent
nan_indices_all                                               greyordinates that are NaN
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.hdf5 import open_hdf5, read_hdf5_array, refuse_fill
from pulvinar.core.progress import track
from pulvinar.core.storage import read_json, reading
from pulvinar.datasets.mosaic.facts import N_GREYORDINATES, SETS

FILE = re.compile(rf"(sub-\d\d_(?:{'|'.join(SETS)}))(?:_crc32-[0-9A-Fa-f]{{8}})?\.hdf5")
KEY = re.compile(r"(?P<subject>sub-\d\d_[A-Za-z0-9]+)_stimulus-(?P<stem>.+)_phase-(?P<phase>train|test)_rep-(?P<rep>\d+)")
STIMULUS = re.compile(r"(?P<subject>sub-\d\d_[A-Za-z0-9]+)_stimulus-(?P<file>.+)")
MEMBER_SUFFIX = ".npz"  # of the trials in the splits, and of nothing in the HDF5 files
SPLIT_FILES = {
    "train": "train_naturalistic.json",
    "naturalistic": "test_naturalistic.json",
    "artificial": "test_artificial.json",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectFile:
    """An open file: keys of the trials in the order in which they were written, what each showed, and where NaN is."""

    path: Path
    subject: str
    keys: Sequence[str]
    stimuli: Sequence[str]
    phases: Sequence[str]
    bad: np.ndarray

    def read(self, keys: Sequence[str], columns: np.ndarray) -> np.ndarray:
        """float32 (trial, vertex) of some trials at some greyordinates."""
        out = np.empty((len(keys), len(columns)), np.float32)
        with open_hdf5(self.path) as file:
            betas = file["betas"]
            for row, key in enumerate(keys):
                with reading(self.path, f"HDF5, dataset 'betas/{key}'"):
                    refuse_fill(str(self.path), f"betas/{key}", betas[key])
                    out[row] = betas[key][...][columns]
        return out

    def ceiling(self, phase: str, columns: np.ndarray) -> np.ndarray | None:
        """Noise ceiling (vertex,) of the mean over trials, percent as in the file; None where there is none."""
        name = f"noiseceilings/{self.subject}_phase-{phase}_n-avg_noiseceiling"
        with open_hdf5(self.path) as file:
            return read_hdf5_array(file, name)[columns] if name in file else None


def find_files(root: Path) -> dict[str, Path]:
    """Subject (`sub-01_NSD`) -> its file, anywhere in the folder; `FileError` where there are two of one."""
    found: dict[str, Path] = {}
    for path in sorted(root.glob("**/sub-*.hdf5")):
        match = FILE.fullmatch(path.name)
        if match and found.setdefault(match[1], path) != path:
            raise FileError(f"{path} and {found[match[1]]} are both of {match[1]}; keep one of them")
    return found


def open_file(path: Path, subject: str) -> SubjectFile:
    """Names and attributes of all trials, checked; values are read when asked for."""
    with open_hdf5(path) as file:
        group = file.get("betas")
        if not isinstance(group, h5py.Group) or not len(group):
            raise InputError(f"{path}: no group 'betas' with trials; there are: {', '.join(file) or 'none'}")
        keys, stimuli, phases = _keys(group), [], []
        for key in track(keys, f"listing trials of {subject}", len(keys)):
            match = KEY.fullmatch(key)
            if match is None or match["subject"] != subject:
                raise InputError(f"{path}: '{key}' is no trial of {subject}: {subject}_stimulus-..._phase-train_rep-0")
            node = group[key]
            if node.shape != (N_GREYORDINATES,) or node.dtype.kind != "f":
                raise InputError(f"{path}: '{key}' is {node.dtype} {node.shape}; {N_GREYORDINATES} numbers are needed")
            shown = _text(node.attrs.get("presented_stimulus_filename", ""))
            if Path(shown).stem != match["stem"]:
                raise InputError(f"{path}: '{key}' shows '{shown}' by its attribute, {match['stem']} by its name")
            stimuli.append(shown)
            phases.append(match["phase"])
        bad = (
            np.unique(read_hdf5_array(file, "nan_indices_all").astype(np.int64))
            if "nan_indices_all" in file
            else np.zeros(0, int)
        )
    if len(bad) and not (bad[0] >= 0 and bad[-1] < N_GREYORDINATES):
        raise InputError(
            f"{path}: nan_indices_all are greyordinates from 0 to {N_GREYORDINATES - 1}; {bad[0]} to {bad[-1]} came"
        )
    return SubjectFile(path=path, subject=subject, keys=keys, stimuli=stimuli, phases=phases, bad=bad)


def _keys(group: h5py.Group) -> list[str]:
    """Names in the order of creation where it was tracked, else sorted."""
    found: list[bytes] = []
    tracked = group.id.get_create_plist().get_link_creation_order() & h5py.h5p.CRT_ORDER_TRACKED
    group.id.links.iterate(found.append, idx_type=h5py.h5.INDEX_CRT_ORDER if tracked else h5py.h5.INDEX_NAME)
    return [name.decode() for name in found]


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def read_split(root: Path, side: str, opened: Sequence[SubjectFile]) -> set[str]:
    """File names of a side of MOSAIC's own split ('train', 'naturalistic', 'artificial'), of these subjects.

    A list of objects of one key: stimulus of a subject (file name, with suffix) -> its trials (keys, with `.npz` behind).
    `InputError` where a trial is not in the subject's file.
    """
    found = sorted(root.glob(f"**/{SPLIT_FILES[side]}"))
    if len(found) != 1:
        raise FileError(
            f"{root / SPLIT_FILES[side]}: {'several are there; keep one' if found else 'no such file'}; MOSAIC's split is with "
            "the owners' code. The data sets' own sides, which share pictures among each other, are split=phase"
        )
    keys = {own.subject: set(own.keys) for own in opened}
    shown: set[str] = set()
    with reading(found[0], "a split of MOSAIC: a list of objects of one key"):
        entries = [(str(name), list(members)) for entry in read_json(found[0]) for name, members in entry.items()]
    for name, members in entries:
        match = STIMULUS.fullmatch(name)
        if match is None:
            raise InputError(f"{found[0]}: '{name}' is no stimulus of a subject: sub-01_NSD_stimulus-FILE")
        if match["subject"] not in keys:
            continue
        strange = [one for one in members if one.removesuffix(MEMBER_SUFFIX) not in keys[match["subject"]]]
        if strange:
            raise InputError(f"{found[0]}: the trial '{strange[0]}' is not in the file of {match['subject']}")
        shown.add(match["file"])
    return shown
