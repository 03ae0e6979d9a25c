"""NSD as MindEye2 preprocessed it: betas of nsdgeneral, images at 224 pixels, trials in webdataset tars.

    experiment = load("mindeyev2")                                  # the folder as downloaded
    experiment = load("mindeyev2?subjects=1,2&sessions=1&mask=NSD/nsddata/ppdata/{subject}/func1pt8mm/roi/nsdgeneral.nii.gz")

Files: `betas_all_subj01_fp32_renorm.hdf5` (`betas` float32 (trial, voxel)), `coco_images_224_float16.hdf5` (`images`
(73000, 3, 224, 224) in [0, 1]), `wds/subj01/train/0.tar` (session 1) and on, `wds/subj01/new_test/0.tar` (3,000 trials of 1,000
images in four subjects) or `test/0.tar` (the older 982). Each sample's `behav.npy` (1, 17) holds the 0-based image in column 0
and the row of the betas in column 5.

These betas are z-scored per voxel with the training trials of all sessions (Scotti et al. 2024): with few sessions in use that
is transductive, and stands in the facts. The files do not say where the voxels are; `mask` does. Without it neighbours are
unknown, and a low-pass has no meaning (low_pass=none).
"""

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.hdf5 import map_hdf5_array
from pulvinar.core.progress import log, track, warn
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.brain_files import read_mask
from pulvinar.data.dataset import Dataset, Facts
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import SUFFIXES, read_rows
from pulvinar.data.geometry import Geometry
from pulvinar.data.hdf5_images import HDF5Images
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import RowsOf
from pulvinar.data.source_options import parse_source
from pulvinar.data.split_choice import Splits
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.nsd.files import N_IMAGES, SHARED_CLUSTERS, TRIALS_PER_SESSION, stimulus_id, subject_name

LARGEST_MEMBER = 2**20  # bytes of a behav.npy, which has some hundred
SCALING = "z-scored by MindEye2 with the training trials of all sessions; transductive where fewer sessions are used"
N_COLUMNS, IMAGE_COLUMN, BETAS_COLUMN = 17, 0, 5


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to read; given after the folder as ?name=value&name=value."""

    subjects: tuple[str, ...] = setting((), "such as 1,2,5,7; none: all whose betas are there", reads=subject_name)
    target: str | None = setting(None, "the new subject; none: the first of the subjects", reads=subject_name)
    sessions: int | None = setting(None, "first sessions (train tars) of each subject; none: all there are", at_least=1)
    test: Literal["new_test", "test"] = setting("new_test", "test trials: of 1000 images, or of the older 982")
    mask: str | None = setting(None, "nsdgeneral.nii.gz with {subject} in its path; says where the voxels are")
    features: tuple[str, ...] = setting((), "embeddings, .npy or file.h5:dataset; none: the files in features/ of the folder")
    images: bool = setting(True, "open coco_images_224_float16.hdf5 where it is there")


def load(source: str) -> Experiment:
    """The experiment in a folder of MindEye2's files: `FOLDER`, or `FOLDER?name=value&name=value` (see `Options`).

    Betas stay on disk as a memory map. `FileError` names a file that is missing or damaged, `InputError` one that does not fit
    the others, `LeakError` an image in the test tar that stands in a train tar.
    """
    root, options = parse_source(source, Options, name="mindeye2")
    present = sorted(path.name[len("betas_all_") :][:6] for path in root.glob("betas_all_subj0?_fp32_renorm.hdf5"))
    names = list(dict.fromkeys(map(subject_name, options.subjects))) or present
    if not names:
        raise FileError(f"{root}: no betas_all_subj0S_fp32_renorm.hdf5 there")
    target = subject_name(options.target) if options.target else names[0]
    trials = {name: _trials(root, name, options) for name in track(names, "reading trial tables", len(names))}
    rows = np.unique(np.concatenate([np.concatenate([own.train, own.test])[:, 0] for own in trials.values()]))
    sides = {side: {int(row) for own in trials.values() for row in getattr(own, side)[:, 0]} for side in ("train", "test")}
    facts: dict[str, Any] = {
        **DATASET.facts.kept,
        "scaling of the files": SCALING,
    }
    facts["sessions"] = {name: own.n_sessions for name, own in trials.items()}
    return Experiment(
        name=f"Natural Scenes Dataset, MindEye2's files ({', '.join(names)})",
        stimuli=_stimuli(root, rows, options),
        subjects={name: _responses(root, name, own, options) for name, own in trials.items()},
        split=Split(
            train=tuple(stimulus_id(row) for row in sorted(sides["train"])),
            test=tuple(stimulus_id(row) for row in sorted(sides["test"])),
        ),
        target=target,
        facts=facts,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Trials:
    """Image row and row of the betas of each trial: (trial, 2), for training and for the test."""

    train: np.ndarray
    test: np.ndarray
    n_sessions: int


def _trials(root: Path, name: str, options: Options) -> _Trials:
    folder = root / "wds" / name
    tars = sorted((folder / "train").glob("*.tar"), key=lambda path: (len(path.stem), path.stem))
    numbers = [int(path.stem) for path in tars if path.stem.isdecimal()]
    n_sessions = options.sessions or (max(numbers) + 1 if numbers else 1)
    train = [_read_tar(folder / "train" / f"{session}.tar") for session in range(n_sessions)]
    return _Trials(train=np.concatenate(train), test=_read_tar(folder / options.test / "0.tar"), n_sessions=n_sessions)


@reads("a webdataset tar")
def _read_tar(path: Path) -> np.ndarray:
    """Image row and row of the betas of every sample, in its order: int64 (trial, 2)."""
    found, samples = [], set()
    with require_file(path, "tar of trials").open("rb") as file:
        file.seek(max(0, path.stat().st_size - tarfile.BLOCKSIZE))
        if file.read() != bytes(tarfile.BLOCKSIZE):  # Python's reader takes a missing end for the end
            raise FileError(f"{path}: cannot be read as a webdataset tar: truncated, its end is missing")
    with reading(path, "a webdataset tar"), tarfile.open(path, "r:") as archive:
        for member in archive:
            sample, _, kind = member.name.rpartition("/")[2].partition(".")
            if not member.isfile() or not sample:  # a folder, or a hidden file of the system
                continue
            samples.add(sample)
            if kind == "behav.npy":
                if member.issparse() or member.size > LARGEST_MEMBER:
                    raise FileError(f"{path}: '{member.name}' states {member.size} bytes; a behav.npy has some hundred")
                content = archive.extractfile(member)
                found.append(np.load(io.BytesIO(content.read() if content else b""), allow_pickle=False))
        _require_end(path, archive.offset)
    if len(found) != len(samples):
        raise InputError(f"{path}: {len(samples)} samples, {len(found)} of them with a behav.npy; each needs one")
    if not found or any(behav.shape != (1, N_COLUMNS) for behav in found):
        shapes = sorted({behav.shape for behav in found})
        raise InputError(f"{path}: a behav.npy of shape (1, {N_COLUMNS}) in every sample is needed; {shapes or 'none'} came")
    table = np.concatenate(found)[:, [IMAGE_COLUMN, BETAS_COLUMN]]
    if not ((table >= 0) & (table == np.floor(table))).all() or (table[:, 0] >= N_IMAGES).any():
        raise InputError(f"{path}: behav.npy: images (column {IMAGE_COLUMN}) are 0 to {N_IMAGES - 1}, rows (column 5) from 0")
    return table.astype(np.int64)


def _require_end(path: Path, offset: int) -> None:
    """Nothing but zeros from here: Python's reader takes a damaged header in the middle for the end of the archive."""
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(2**20):
            if block.strip(b"\0"):
                raise FileError(f"{path}: cannot be read as a webdataset tar: a header is damaged near byte {offset}")


def _responses(root: Path, name: str, trials: _Trials, options: Options) -> Responses:
    path = root / f"betas_all_{name}_fp32_renorm.hdf5"
    betas = map_hdf5_array(path, "betas")
    if betas.ndim != 2 or betas.dtype.kind != "f":
        raise InputError(f"{path}: betas are floating-point (trial, voxel), {betas.dtype} {betas.shape} came")
    betas = betas if betas.dtype == np.float32 else betas.astype(np.float32)
    table = np.concatenate([trials.train, trials.test])
    table = table[np.argsort(table[:, 1], kind="stable")]
    twice = table[1:][np.diff(table[:, 1]) == 0, 1]
    if len(twice):
        raise InputError(
            f"{root / 'wds' / name}: {len(twice)} rows of the betas stand in two samples of the tars, first row {twice[0]}; "
            "is a tar there twice?"
        )
    if table[-1, 1] >= len(betas):
        raise InputError(f"{path}: {len(betas)} trials, but the tars of {name} name row {table[-1, 1]} (from 0)")
    everywhere = np.ones(betas.shape[1], bool)
    return Responses(
        subject=name,
        values=RowsOf(betas, table[:, 1]),  # type: ignore[arg-type]  # has the indexing that Responses needs
        stimulus_ids=[stimulus_id(row) for row in table[:, 0]],
        sessions=table[:, 1] // TRIALS_PER_SESSION + 1,
        geometry=_geometry(name, path, betas.shape[1], options),
        rois=ROIs({"nsdgeneral": everywhere, "annotated": everywhere}, n_voxels=betas.shape[1]),
    )


def _geometry(name: str, path: Path, n_voxels: int, options: Options) -> Geometry:
    """Places of the voxels of nsdgeneral, in C order of the grid; without a mask a row of points that have no meaning."""
    if options.mask is None:
        warn(f"{name}: without mask= nothing says where the voxels are; set low_pass=none")
        return Geometry.from_points(np.arange(n_voxels)[:, None])
    mask = read_mask(options.mask.replace("{subject}", name))
    if mask.n_voxels != n_voxels:
        raise InputError(f"{mask.path}: {mask.n_voxels} voxels above 0, but {path} has {n_voxels}; another subject's mask?")
    return Geometry.from_mask(mask.inside, mask.affine)


def _stimuli(root: Path, rows: np.ndarray, options: Options) -> Stimuli:
    ids, path, read_image = [stimulus_id(row) for row in rows], root / "coco_images_224_float16.hdf5", None
    if options.images and path.is_file():
        read_image = HDF5Images(path, "images", rows.tolist())
    elif options.images:
        log(f"{path} is not there; going on without images")
    found = sorted(str(file) for file in (root / "features").glob("*") if file.suffix in SUFFIXES)
    features = dict(read_rows(place, rows, n_rows=N_IMAGES, ids=ids) for place in options.features or found)
    return Stimuli(ids=ids, sources=ids, features=features, read_image=read_image, pixel_keys=ids)


DATASET = Dataset(
    name="mindeye2",
    facts=Facts(
        citation="Scotti, Tripathy, Torrico, ..., Norman & Abraham (2024), MindEye2, ICML; on Allen et al. (2022), NSD",
        url="https://huggingface.co/datasets/pscotti/mindeyev2",
        licence="NSD: by agreement with its authors; not to be redistributed",
        by_hand=(
            "with NSD's agreement, by the hub's own client: hf download pscotti/mindeyev2 --repo-type dataset --local-dir DIR "
            "(betas_all_subj0S_fp32_renorm.hdf5, wds/subj0S, coco_images_224_float16.hdf5)"
        ),
    ),
    load=load,
    splits=Splits(owners="the trials of its test tar", caution=SHARED_CLUSTERS),
)
