"""A voxel mask in front of a linear readout, learned on held-out trials, with the readout solved exactly.

The same problem as `training.mask_training` (TROI, stage 1, cross-fitted) where nothing but a linear map stands behind the
mask: then the input layer of each fold need not be trained, because ridge regression has a closed form. With few trials
(64 blocks, 530 voxels) this is both faster and better than descending it (docs/methods/voxel_selector.md).

Responses Z (trial, voxel) are z-scored, targets Y (trial, target), the mask M >= 0 has mean 1. With K = Z diag(M^2) Z',
centred on the training trials of a fold, the readout predicts its held-out trials as

    P = K_ht (K_tt + l I)^-1 Y_t,    l = ridge * mean diag K_tt,        J(M) = sum over folds of |Y_h - P|^2 / 2.

-dJ/dlog M_i = 2 M_i^2 z_i' G z_i with one (trial, trial) matrix G for all folds and voxels, so a step costs about
4 n_trials^2 n_voxels operations, whatever the number of folds and targets. J does not change when M is scaled, so the L1
penalty becomes the constraint sum M = n_voxels, and the step is the exponentiated gradient on it:

    M_i <- M_i exp(step_size * clip(s_i / rms(s), -3, 3)),    s = -dJ/dlog M,    then mean M = 1.

A large ridge gives cross-validated between-class variance, voxel by voxel; a small one weighs what a voxel adds to the others.
After each step only the best voxels by the low-passed mask stay (`survivors_allowed`, ending at `slack` times the budget); the
rest are cut out of Z. The selection is the `budget` best by sqrt(M . (M * G_sigma)) in the end (`low_pass_score`).
All of this is ours; the paper trains the mask by stochastic descent with an L1 penalty.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.linalg
import scipy.sparse
from jaxtyping import Bool, Float, Float32, Int, Shaped

from pulvinar.core.sampling import blocks_of, dealt_folds
from pulvinar.selection.univariate import top_voxels
from pulvinar.selection.voxel_mask import low_pass_score, survivors_allowed

VOXELS_PER_BLOCK = 4096
LARGEST_STEP = 3.0  # in root mean squares of the gradient
N_HALVINGS = 10  # splits of the trials into halves that choose the width of the low-pass


@dataclass(frozen=True, kw_only=True)
class CrossFitSettings:
    """Settings of `learn_mask`."""

    budget: int
    ridge: float
    n_steps: int
    step_size: float
    slack: float = 4.0


class Step(NamedTuple):
    """What a step saw: voxels in play, and R2 of the held-out targets under the mask before the step."""

    n_voxels: int
    held_out_r2: float


@dataclass(frozen=True)
class LearnedMask:
    """Mask and score (voxel,), 0 where a voxel was cut; the selection; and the path."""

    mask: np.ndarray
    score: np.ndarray
    kept: np.ndarray
    path: tuple[Step, ...]


def class_targets(labels: Shaped[np.ndarray, " trial"]) -> Float[np.ndarray, "trial class"]:
    """Indicators of the classes, each divided by the root of its share, columns centred.

    With them the sum over classes of squared covariances with a z-scored voxel is its between-class variance.
    """
    _, row = np.unique(labels, return_inverse=True)
    indicator = np.eye(row.max() + 1)[row]
    share = indicator.mean(0)
    return (indicator - share) / np.sqrt(share)


def assign_folds(
    groups: Shaped[np.ndarray, " trial"],
    labels: Shaped[np.ndarray, " trial"] | None,
    n_folds: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " trial"]:
    """A fold per trial, at most `n_folds`; trials of a group share it. Groups of one class are dealt over the folds evenly."""
    first = np.unique(groups, return_index=True)[1]
    order = generator.permutation(len(first))
    if labels is not None:
        _, row = np.unique(labels, return_inverse=True)
        order = order[np.argsort(row[first[order]], kind="stable")]
    return dealt_folds(groups, order, min(n_folds, len(first)))


def held_out_gradient(
    kernel: Float[np.ndarray, "trial trial"],
    targets: Float[np.ndarray, "trial target"],
    folds: Int[np.ndarray, " trial"],
    ridge: float,
) -> tuple[Float[np.ndarray, "trial trial"], float]:
    """G with -dJ/dm_i = z_i' G z_i for K = sum_i m_i z_i z_i', and R2 = 1 - 2 J / (targets about the training mean)."""
    gradient, residual, total = np.zeros_like(kernel), 0.0, 0.0
    for fold in np.unique(folds):
        held, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        part, error, deviation = _fold_gradient(kernel, targets, train, held, ridge)
        gradient += part
        residual += float((error**2).sum())
        total += float((deviation**2).sum())
    return gradient, 1 - residual / total if total > 0 else 0.0


def _fold_gradient(
    kernel: np.ndarray, targets: np.ndarray, train: np.ndarray, held: np.ndarray, ridge: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """G of one fold, the errors of its held-out trials, and their deviations from the training mean."""
    n = len(train)
    centre = kernel[:, train].mean(1)
    centred = kernel - centre[:, None] - centre[None] + centre[train].mean()
    inner, across = centred[np.ix_(train, train)], centred[np.ix_(held, train)]
    mean = targets[train].mean(0)
    deviation = targets[held] - mean
    gradient = np.zeros_like(kernel)
    penalty = ridge * np.trace(inner) / n
    if not penalty > 0:
        return gradient, deviation, deviation
    factor = scipy.linalg.cho_factor(inner + penalty * np.eye(n))
    dual = scipy.linalg.cho_solve(factor, targets[train] - mean)
    error = deviation - across @ dual
    back = scipy.linalg.cho_solve(factor, across.T @ error)
    gradient[np.ix_(held, train)] = error @ dual.T
    gradient[np.ix_(train, train)] = -back @ dual.T
    gradient[train, train] -= ridge / n * np.sum(back * dual)  # the penalty follows the mask
    gradient[:, train] -= gradient.sum(1, keepdims=True) / n  # centring: H' G H, H = I - 1 w', w = 1/n on `train`
    gradient[train] -= gradient.sum(0) / n
    return gradient, error, deviation


def learn_mask(
    responses: Float32[np.ndarray, "trial voxel"],
    targets: Float[np.ndarray, "trial target"],
    folds: Int[np.ndarray, " trial"],
    low_pass: scipy.sparse.csr_array,
    settings: CrossFitSettings,
) -> LearnedMask:
    """The mask after `n_steps`, and the `budget` voxels it keeps. `responses` are z-scored; columns are cut in a copy."""
    n_voxels, path = responses.shape[1], []
    final = min(n_voxels, round(settings.slack * settings.budget))
    alive, mask = np.arange(n_voxels), np.ones(n_voxels)
    score = np.ones(n_voxels)
    for step in range(1, settings.n_steps + 1):
        gradient, r2 = held_out_gradient(weighted_kernel(responses, mask[alive]), targets, folds, settings.ridge)
        path.append(Step(len(alive), r2))
        mask[alive] = _exponentiated(mask[alive], quadratic_forms(responses, gradient), settings.step_size)
        score = low_pass_score(mask, low_pass, "geometric")
        allowed = survivors_allowed(n_voxels, final, round_number=step, n_rounds=settings.n_steps)
        if allowed < len(alive):
            stay = top_voxels(score, allowed)
            responses, alive, mask = responses[:, stay[alive]], np.flatnonzero(stay), np.where(stay, mask, 0.0)
    return LearnedMask(mask, np.where(mask > 0, score, 0.0), top_voxels(score, settings.budget), tuple(path))


def _exponentiated(mask: np.ndarray, forms: np.ndarray, step_size: float) -> np.ndarray:
    """One step of the exponentiated gradient; mean 1."""
    slope = mask**2 * forms
    scale = np.sqrt(np.mean(slope**2))
    if scale > 0:
        mask = mask * np.exp(step_size * np.clip(slope / scale, -LARGEST_STEP, LARGEST_STEP))
    return mask / mask.mean()


def weighted_kernel(
    responses: Float32[np.ndarray, "trial voxel"], mask: Float[np.ndarray, " voxel"]
) -> Float[np.ndarray, "trial trial"]:
    """Z diag(M^2) Z' / n_voxels, in blocks of voxels."""
    kernel = np.zeros((len(responses), len(responses)))
    for columns in blocks_of(len(mask), VOXELS_PER_BLOCK):
        block = responses[:, columns] * mask[columns].astype(np.float32)
        kernel += block @ block.T
    return kernel / len(mask)


def quadratic_forms(
    responses: Float32[np.ndarray, "trial voxel"], matrix: Float[np.ndarray, "trial trial"]
) -> Float[np.ndarray, " voxel"]:
    """z_i' G z_i of every voxel, in blocks of voxels."""
    symmetric = ((matrix + matrix.T) / 2).astype(np.float32)
    out = np.empty(responses.shape[1])
    for columns in blocks_of(len(out), VOXELS_PER_BLOCK):
        block = responses[:, columns]
        out[columns] = np.einsum("tv,tv->v", symmetric @ block, block)
    return out


def choose_width(
    responses: Float32[np.ndarray, "trial voxel"],
    targets: Float[np.ndarray, "trial target"],
    halves: Sequence[Bool[np.ndarray, " trial"]],
    folds_of: Callable[[np.ndarray], np.ndarray],
    low_pass: Callable[[float], scipy.sparse.csr_array],
    widths: Sequence[float],
    *,
    budget: int,
    ridge: float,
) -> tuple[float, Float[np.ndarray, " width"]]:
    """The width of the low-pass whose selection on one half of the trials is best on the other, and the mean of each width.

    For each half a gradient score s at M = 1. For a width, take the `budget` voxels with the largest sqrt(p . (p * G)),
    p = max(s, 0), of one half; their mean s on the other half, in its standard deviations, is averaged over both directions
    and all halves. `folds_of` gives the folds of some trials (indices). Of equal widths the first is taken.
    """
    kernel = weighted_kernel(responses, np.ones(responses.shape[1]))
    scores = []
    for half in halves:
        for side in (half, ~half):
            trials = np.flatnonzero(side)
            gradient, _ = held_out_gradient(kernel[np.ix_(trials, trials)], targets[trials], folds_of(trials), ridge)
            scores.append(quadratic_forms(responses[trials], gradient))
    pairs = [(scores[k], scores[k ^ 1]) for k in range(len(scores))]
    gains = np.zeros(len(widths))
    for place, width in enumerate(widths):
        operator = low_pass(width)
        for own, other in pairs:
            ranked = low_pass_score(np.maximum(own, 0.0), operator, "geometric")
            gains[place] += other[top_voxels(ranked, budget)].mean() / max(float(other.std()), 1e-12) / len(pairs)
    return float(widths[int(np.argmax(gains))]), gains
