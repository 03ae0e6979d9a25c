"""Covariance of the noise over voxels, shrunk, from residuals; its inverse weighs voxels in crossnobis distances."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Int

from pulvinar.core.errors import DegenerateError, InputError

Shrinkage = Literal["shrinkage_diag", "shrinkage_eye"]


def condition_means(
    values: Float[np.ndarray, "trial voxel"], code: Int[np.ndarray, " trial"]
) -> tuple[Float[np.ndarray, "condition voxel"], Int[np.ndarray, " condition"]]:
    """Mean of the trials of each condition (its number in `code`, from 0) in float64, and how many trials it has."""
    counts = np.bincount(code)
    sums = np.zeros((len(counts), values.shape[1]), np.float64)
    np.add.at(sums, code, values)
    return sums / counts[:, None], counts


def residuals_of(
    values: Float[np.ndarray, "trial voxel"], code: Int[np.ndarray, " trial"]
) -> tuple[Float[np.ndarray, "trial voxel"], int]:
    """Trials less the mean of their condition, and the degrees of freedom that are left: trials less conditions.

    Raises `DegenerateError` where no condition has a second trial.
    """
    means, counts = condition_means(values, code)
    if len(code) == len(counts):
        raise DegenerateError("noise covariance: no image was shown twice; the noise cannot be told from the image")
    return values - means[code], len(code) - len(counts)


def noise_variance(residuals: Float[np.ndarray, "trial voxel"], *, n_free: int) -> Float[np.ndarray, " voxel"]:
    """Sum of squares over degrees of freedom; `DegenerateError` where a voxel has the same value in every repeat."""
    centred = residuals - residuals.mean(0)
    variance = np.square(centred).sum(0) / n_free
    if not (variance > 0).all():
        raise DegenerateError(f"noise covariance: {int((variance <= 0).sum())} voxels do not vary between repeats")
    return variance


def noise_precision(
    residuals: Float[np.ndarray, "trial voxel"], *, n_free: int, method: str = "shrinkage_diag"
) -> Float[np.ndarray, "voxel voxel"]:
    """Inverse of the shrunk noise covariance, the numbers of rsatoolbox's `prec_from_residuals(residuals, n_free, method)`.

    shrinkage_diag: correlations shrunk towards 0 (Schäfer & Strimmer 2005). shrinkage_eye: towards a multiple of the identity
    (Ledoit & Wolf 2004). By matrix products, without rsatoolbox's loop over trials. float64.
    """
    if method not in get_args(Shrinkage):
        raise InputError(f"noise: one of {', '.join(get_args(Shrinkage))} fits, '{method}' came")
    centred = np.asarray(residuals, np.float64) - residuals.mean(0)
    variance = noise_variance(centred, n_free=n_free)
    if method == "shrinkage_diag":
        return _inverse(_towards_diagonal(centred, variance, n_free))
    return _inverse(_towards_identity(centred, n_free))


def _inverse(covariance: np.ndarray) -> np.ndarray:
    found = np.linalg.inv(covariance)
    return (found + found.T) / 2


def _towards_diagonal(centred: np.ndarray, variance: np.ndarray, n_free: int) -> np.ndarray:
    n_trials = len(centred)
    units = centred / np.sqrt(variance)
    mean = units.T @ units / (n_trials - 1)
    spread = n_trials / n_free**2 * (np.square(units).T @ np.square(units) / (n_trials - 1) - np.square(mean))
    size = float(np.square(mean).sum() - np.square(np.diag(mean)).sum())
    noise = float(spread.sum() - np.trace(spread))
    share = min(max(noise / size, 0.0), 1.0) if size > 0 else 1.0
    covariance = (1 - share) * (centred.T @ centred) / n_free
    np.fill_diagonal(covariance, variance)
    return covariance


def _towards_identity(centred: np.ndarray, n_free: int) -> np.ndarray:
    n_trials, n_voxels = centred.shape
    covariance = centred.T @ centred / n_trials
    squares = float(np.square(np.square(centred).sum(1)).sum()) / n_trials
    noise = (squares - float(np.square(covariance).sum())) / n_trials
    size = float(np.trace(covariance)) / n_voxels
    gap = float(np.square(covariance).sum()) - n_voxels * size**2
    share = min(noise / gap, 1.0) if gap > 0 else 1.0
    covariance *= 1 - share
    covariance[np.diag_indices(n_voxels)] += share * size
    return covariance * n_trials / n_free
