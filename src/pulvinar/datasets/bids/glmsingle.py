"""GLMsingle's outputs in a folder of derivatives: which file is whose, and its betas on the voxels of a mask.

    derivatives/NAME/sub-XX[/ses-YY]/**/TYPED_FITHRF_GLMDENOISE_RR.hdf5   Python with opt['wanthdf5'] = 1: betasmd (X, Y, Z,
    trial) derivatives/NAME/sub-XX[/ses-YY]/**/TYPED_FITHRF_GLMDENOISE_RR.mat    MATLAB, version 7.3: modelmd (X, Y, Z, trial)

Trials are in the order of their onsets, over the runs one after the other, in percent signal change (cvnlab/GLMsingle,
GLMestimatesingletrial.m and glmsingle.py). The file says neither which images were shown nor where the voxels are: trials are
those of the events, counted, and the grid is that of the series. Betas of a list of voxels (V, 1, 1, trial) do not say which
voxels they are, and are refused. Python's .npy is a pickle, which is never opened.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reads
from pulvinar.data import bids
from pulvinar.data.array_files import GLMSINGLE_BETAS, read_array
from pulvinar.data.brain_files import Mask
from pulvinar.data.matlab_files import read_matlab
from pulvinar.datasets.bids.folders import Folders
from pulvinar.datasets.bids.runs import BidsRun

STEM = "TYPED_FITHRF_GLMDENOISE_RR"
MATLAB_BETAS = "modelmd"
READ = (".hdf5", ".h5", ".mat")


def find_outputs(folders: Folders, subject: str) -> dict[str | None, Path]:
    """Session (None: of all) -> file of betas of a subject; empty where GLMsingle has left nothing.

    Raises `FileError` where only a pickled .npy is there, `InputError` where two files are of the same trials.
    """
    every = sorted(folders.derivatives.glob(f"*/{subject}/**/{STEM}.*"))
    found: dict[str | None, Path] = {}
    for path in (path for path in every if path.suffix.lower() in READ):
        session = next((part.removeprefix("ses-") for part in path.parts if part.startswith("ses-")), None)
        if session in found:
            raise InputError(f"{path} and {found[session]} are both GLMsingle's betas of {subject}; keep one of them")
        found[session] = path
    if None in found and len(found) > 1:
        raise InputError(f"{found[None]}: GLMsingle's betas of all sessions, and others of single ones beside; keep one kind")
    pickled = [path for path in every if path.suffix.lower() == ".npy"]
    if pickled and not found:
        try:
            read_array(pickled[0])
        except FileError as error:
            raise FileError(f"{error}\nestimate=lss goes on without GLMsingle's betas") from error
    return found


@reads("betas of GLMsingle")
def read_betas(path: Path, mask: Mask, runs: Sequence[BidsRun]) -> np.ndarray:
    """Betas float32 (trial, voxel), trials of each run in the order of its table, on the voxels of the mask."""
    values = _read(path)
    if values.ndim != 4 or values.shape[:3] != mask.inside.shape:
        what = (
            "a list of voxels, and the file does not say which"
            if values.ndim == 4 and values.shape[1:3] == (1, 1)
            else "no such grid"
        )
        raise InputError(
            f"{path}: betas (X, Y, Z, trial) on the grid {mask.inside.shape} of {mask.path} are needed; {values.shape} came: "
            f"{what}"
        )
    n_trials = sum(len(run.shown.names) for run in runs)
    if values.shape[3] != n_trials:
        raise InputError(
            f"{path}: {values.shape[3]} betas, but the events of its {len(runs)} runs have {n_trials} trials; trial_type=... "
            f"chooses rows, "
            "runs=... and sessions=... choose runs"
        )
    flat = np.asarray(values[mask.inside].T, np.float32)  # (voxel, trial) -> (trial, voxel)
    out, start = np.empty_like(flat), 0
    for run in runs:
        order = np.argsort(run.shown.onsets, kind="stable")  # GLMsingle has the trials of a run in this order
        out[start + order] = flat[start : start + len(order)]
        start += len(order)
    return out


def _read(path: Path) -> np.ndarray:
    if path.suffix.lower() != ".mat":
        return read_array(path, GLMSINGLE_BETAS)
    arrays = read_matlab(path)
    if MATLAB_BETAS not in arrays:
        raise InputError(
            f"{path}: no '{MATLAB_BETAS}', as GLMsingle writes in MATLAB; there are: {', '.join(arrays) or 'no arrays'}"
        )
    return arrays[MATLAB_BETAS]


def of_session(outputs: dict[str | None, Path], run: BidsRun) -> Path:
    """The file that holds a run's betas; `FileError` where its session has none."""
    session = bids.entities(run.bold.name).get("ses")
    path = outputs.get(None) or outputs.get(session)
    if path is None:
        raise FileError(
            f"{run.bold}: no betas of GLMsingle for ses-{session}; there are: {', '.join(map(str, outputs.values()))}"
        )
    return path
