"""z-scoring of responses in two named modes.

`train_stats`: mean and standard deviation of the training trials in use, applied to every trial.
`per_session`: each session's own non-test trials give its statistics (transductive: a session that holds test trials is
scaled with its other trials; results say so). Population standard deviation in both.
"""

from typing import Literal, get_args

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.responses import Responses, VoxelCheck

TRIALS_AT_ONCE, VOXELS_AT_ONCE = 64, 2**15
Mode = Literal["train_stats", "per_session"]


def mean_and_sd(responses: Responses, trials: np.ndarray, *, check: VoxelCheck | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (voxel,) over trials, in blocks, float64 inside; `DegenerateError` without a trial.

    check: is shown the trials as they are read.
    """
    if not len(trials):
        raise DegenerateError(f"responses of {responses.subject}: no trials to take mean and standard deviation over")
    total, square, shift = (np.zeros(responses.n_voxels) for _ in range(3))
    _require_block(responses)
    for rows in blocks_of(len(trials), TRIALS_AT_ONCE):
        values = responses.read(trials[rows])
        if check is not None:
            check.see(values)
        shift = values[0].astype(np.float64) if rows.start == 0 else shift
        for voxels in _parts(responses.n_voxels):
            block = values[:, voxels] - shift[voxels]
            total[voxels] += block.sum(0)
            square[voxels] += (block * block).sum(0)
    mean = total / len(trials)
    return shift + mean, np.sqrt(np.maximum(square / len(trials) - mean**2, 0.0))


def _require_block(responses: Responses) -> None:
    """Sums are over as many trials at a time whatever memory there is, so that their last digits are the same."""
    each = responses.n_voxels * (responses.values.dtype.itemsize + 8) * TRIALS_AT_ONCE
    memory.require(each + 3 * 8 * TRIALS_AT_ONCE * VOXELS_AT_ONCE, f"{TRIALS_AT_ONCE} trials of {responses.subject}")


def _parts(n_voxels: int) -> list[slice]:
    """Voxels, in parts of about the same size: float64 copies are of one at a time."""
    n_parts = max(1, -(-n_voxels // VOXELS_AT_ONCE))
    return blocks_of(n_voxels, -(-n_voxels // n_parts))


def zscore(
    responses: Responses, trials: np.ndarray, *, fit_trials: np.ndarray, mode: Mode, out: np.ndarray | None = None
) -> np.ndarray:
    """Responses of `trials`, z-scored per voxel: float32 (trial, voxel), written to `out` where it is given, else in
    memory or, where that is short, in a scratch file.

    `fit_trials` are the training trials (`train_stats`) or all non-test trials (`per_session`). out: may be the responses'
    own values, where these are the `trials` in their order.
    """
    if mode not in get_args(Mode):
        raise InputError(f"scaling: one of {', '.join(get_args(Mode))} is needed, {mode!r} came")
    out = memory.empty((len(trials), responses.n_voxels), np.float32) if out is None else out
    for trial_rows, statistics_trials in _groups(responses, trials, fit_trials, mode):
        mean, sd = mean_and_sd(responses, statistics_trials)
        sd[sd == 0] = 1.0
        for block in blocks_of(len(trial_rows), TRIALS_AT_ONCE):
            rows = trial_rows[block]
            values = responses.read(trials[rows])
            for voxels in _parts(responses.n_voxels):
                out[rows, voxels] = (values[:, voxels] - mean[voxels]) / sd[voxels]
            memory.release(out)
    return out


def _groups(
    responses: Responses, trials: np.ndarray, fit_trials: np.ndarray, mode: Mode
) -> list[tuple[np.ndarray, np.ndarray]]:
    if mode == "train_stats":
        return [(np.arange(len(trials)), fit_trials)]
    require_trials_per_session(responses, trials, fit_trials=fit_trials)
    return [
        (np.flatnonzero(responses.sessions[trials] == session), fit_trials[responses.sessions[fit_trials] == session])
        for session in np.unique(responses.sessions[trials])
    ]


def require_trials_per_session(responses: Responses, trials: np.ndarray, *, fit_trials: np.ndarray) -> None:
    """Raise `DegenerateError` if a session of these trials has fewer than ten `fit_trials` of its own."""
    for session in np.unique(responses.sessions[trials]):
        n_own = int((responses.sessions[fit_trials] == session).sum())
        if n_own < 10:
            raise DegenerateError(
                f"per_session z-scoring: session {session} of {responses.subject} has {n_own} non-test trials, "
                "10 or more are needed; use scaling=train_stats"
            )
