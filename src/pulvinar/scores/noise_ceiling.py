"""Noise ceiling of voxels from repeated trials of the same stimuli (Allen et al. 2022, Natural Scenes Dataset).

The variance of a voxel over trials is that of the signal (the stimulus) plus that of the noise (trial to trial). Noise variance
is the mean over stimuli of the unbiased variance over repeats, weighted by degrees of freedom where repeat counts differ:
  s_noise^2 = sum_i sum_j (y_ij - mean_i)^2 / sum_i (n_i - 1)      stimulus i, its repeat j of n_i
  s_signal^2 = max(0, s_total^2 - s_noise^2)
  ncsnr = s_signal / s_noise
  ceiling = ncsnr^2 / (ncsnr^2 + 1/n)                              share of variance, n trials averaged
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of

VOXELS_PER_BLOCK = 4096


@dataclass(frozen=True, kw_only=True, eq=False)
class SignalToNoise:
    """ncsnr (voxel,) of noise ceilings, in [0, inf]; None where it is unavailable, and `reason` says why.

    A voxel without signal variance (a constant one too) has 0; one whose repeats are identical has infinity.
    """

    ncsnr: Float[np.ndarray, " voxel"] | None
    n_repeated_stimuli: int
    degrees_of_freedom: int
    reason: str = ""


def signal_to_noise(
    responses: Float[np.ndarray, "trial voxel"],
    stimulus_ids: Sequence[str] | Shaped[np.ndarray, " trial"],
    *,
    minimum_repeated_stimuli: int = 20,
) -> SignalToNoise:
    """ncsnr of each voxel from z-scored single trials; unavailable with fewer repeated stimuli than the minimum.

    The total variance is the unbiased variance over all trials given (1 for z-scored data, as in the published formula).
    Stimuli shown once count for the total only. The minimum of 20 is our choice. Blocks of voxels, float64 inside.
    Raises `InputError` where trials and ids do not match or a voxel is not finite.

    >>> rng = np.random.default_rng(0)
    >>> trials = np.repeat(rng.normal(size=(40, 1)), 3, axis=0) + rng.normal(size=(120, 1))  # as much noise as signal
    >>> signal_to_noise(trials / trials.std(0), np.repeat(np.arange(40), 3)).ncsnr.round(1).tolist()
    [0.7]
    """
    if len(stimulus_ids) != len(responses):
        raise InputError(f"noise ceiling: {len(responses)} trials but {len(stimulus_ids)} stimulus ids; each trial needs one")
    row, repeats = np.unique(np.asarray(stimulus_ids), return_inverse=True, return_counts=True)[1:]
    n_repeated, degrees = int((repeats > 1).sum()), int((repeats - 1).sum())
    if n_repeated < max(1, minimum_repeated_stimuli):
        return SignalToNoise(
            ncsnr=None,
            n_repeated_stimuli=n_repeated,
            degrees_of_freedom=degrees,
            reason=f"{n_repeated} stimuli have repeats, {max(1, minimum_repeated_stimuli)} or more are needed",
        )
    order = np.argsort(row, kind="stable")
    ncsnr = np.empty(responses.shape[1])
    for columns in blocks_of(responses.shape[1], VOXELS_PER_BLOCK):
        block = responses[:, columns].astype(np.float64)[order]
        bad = ~np.isfinite(block).all(0)
        if bad.any():
            raise InputError(f"noise ceiling: voxel {columns.start + int(np.argmax(bad))} has a value that is not finite")
        ncsnr[columns] = _ncsnr(block, repeats, degrees)
    return SignalToNoise(ncsnr=ncsnr, n_repeated_stimuli=n_repeated, degrees_of_freedom=degrees)


def _ncsnr(
    block: Float[np.ndarray, "trial voxel"], repeats: Int[np.ndarray, " stimulus"], degrees: int
) -> Float[np.ndarray, " voxel"]:
    """ncsnr of trials that are sorted by stimulus."""
    first_trials = np.cumsum(repeats) - repeats
    means = np.add.reduceat(block, first_trials, axis=0) / repeats[:, None]
    total = np.where((block == block[0]).all(0), 0.0, block.var(axis=0, ddof=1))
    block -= np.repeat(means, repeats, axis=0)
    noise = np.einsum("tv,tv->v", block, block) / degrees
    noise[noise < 1e-12 * total] = 0.0
    signal = np.maximum(total - noise, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(signal > 0, np.sqrt(signal / noise), 0.0)


def ceiling_r2(ncsnr: Float[np.ndarray, " voxel"], repeats: int | Int[np.ndarray, " stimulus"]) -> Float[np.ndarray, " voxel"]:
    """Noise ceiling of each voxel in r^2 units, [0, 1], for responses averaged over trials.

    ceiling = ncsnr^2 / (ncsnr^2 + 1/n). repeats: n trials for every stimulus, or the count of each scored stimulus. With
    mixed counts 1/n becomes its mean over stimuli: (A/3 + B/2 + C)/(A + B + C) for A stimuli with 3 trials, B with 2, C with 1.

    >>> ceiling_r2(np.array([0.5, 1.0]), 3).round(6).tolist()
    [0.428571, 0.75]
    """
    counts = np.atleast_1d(repeats)
    if counts.size == 0 or (counts < 1).any():
        raise InputError(f"noise ceiling: every stimulus needs one trial or more, {counts[:5]} came")
    if (ncsnr < 0).any():
        raise InputError("noise ceiling: ncsnr is a ratio of standard deviations and cannot be negative")
    noise_share = np.mean(1 / counts)
    with np.errstate(divide="ignore"):
        return 1 / (1 + noise_share / np.square(ncsnr, dtype=np.float64))
