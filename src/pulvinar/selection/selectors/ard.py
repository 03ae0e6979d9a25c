"""Shared ARD: how much variance a linear decoder's weights may have at each voxel, one number a voxel for all outputs.

Sparse Bayesian learning (MacKay 1992; Tipping 2001, equation 16) of the decoder y_d = sum_v x_v w_vd + noise with one prior
variance per voxel for all D outputs, w_vd ~ N(0, s2 m_v), noise ~ N(0, s2 alpha), in the kernel's form. Four rounds of

    K = sum_v m_v x_v x_v',   G = (K + alpha I)^-1,   s2 = tr(Y' G Y) / (n D),
    w_v = m_v Y' G x_v (posterior mean),   gamma_v = m_v x_v' G x_v (the share of the prior that the data decide),
    m_v <- |w_v|^2 / (D s2 gamma_v) = m_v (x_v' G Y Y' G x_v) / (D s2 x_v' G x_v),   then mean m = 1,

from m = 1 (n trials; responses and targets centred). alpha is the one of least squared error when a group of trials is left
out, in closed form (below). After each round the largest m q stay, as many as `survivors_allowed`; after the last, the budget.
A voxel without signal of its own stays if the others need it, to subtract a noise that they share. Constants and rounds are
ours.

q, the neighbourhood (ours): the first update's factor of m, averaged over a voxel's neighbours (low-pass of `sigma` voxel
spacings, 1 unless it is given); 1 where nobody knows where voxels lie, or with sigma 0. Later rounds leave little between
voxels that the others explain and voxels that fit by chance; the latter lie among voxels without signal. q decides who
stays, m alone how much a voxel counts in the kernel.

Targets are half-whitened (ours): in principal axes, each over the fourth root of its variance. As they come, the few leading
axes decide nearly alone; fully whitened, axes that hold nothing count as much as the first.

Leave-one-group-out (Allen 1974): with the intercept's direction taken out, G~ = G - 11'/(n alpha), the errors of a left-out
group g are E_g = (G~_gg)^-1 (G Y)_g. With that direction left in, and more voxels than trials, the smallest alpha would win.

Where many voxels share a noise they stay only if they are weighed against each other from the first round on, which a large
alpha prevents. So the rounds are gone through twice, with alpha and with .3 alpha, and the second is taken where plain ridge on
the voxels that it leaves predicts left-out groups clearly better (by .01 of the targets' squares).

With few trials, or targets of few dimensions, m follows their noise: hence so few rounds. With little signal the largest
alpha is taken, under which m keeps the order of its first update.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float, Float32

from pulvinar.core.errors import DegenerateError
from pulvinar.selection.cross_fitted_mask import Step, quadratic_forms, weighted_kernel
from pulvinar.selection.selector import Evidence, Selector, VoxelScores
from pulvinar.selection.univariate import top_voxels
from pulvinar.selection.voxel_mask import survivors_allowed

N_ROUNDS = 4  # more follow the noise of few trials: docs/log.md
ALPHAS = tuple(10.0 ** np.arange(-3.0, 3.25, 0.5))  # in units of a trial's mean squared response under K
SHARES = (1.0, 0.3)  # of alpha; the second is taken where
CLEARLY = 0.01  # less of the squares of left-out targets is missed; among worlds without much shared noise the most was .004
MOST_TRIALS = 3000  # of a row in a table, or of a run: time grows as their cube
SIGMA = 1.0  # of the neighbourhood, in voxel spacings
LEAST_VARIANCE = 1e-9  # of an axis of the targets, over that of the first; smaller is rounding


class LeftOut(NamedTuple):
    """G at an alpha, and the squared errors of left-out groups, at the best one, over the squares of the targets."""

    alpha: float
    g: Float[np.ndarray, "trial trial"]
    dual: Float[np.ndarray, "trial target"]  # G Y
    error: float


def half_whitened(targets: Float[np.ndarray, "trial target"]) -> Float[np.ndarray, "trial axis"]:
    """Targets centred, in their principal axes, each divided by the fourth root of its variance."""
    centred = targets.astype(np.float64) - targets.mean(0, dtype=np.float64)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    variance = singular**2 / len(targets)
    if not variance[0] > 0:
        raise DegenerateError("targets: the same in all trials")
    some = variance > LEAST_VARIANCE * variance[0]
    return (left * singular)[:, some] / variance[some] ** 0.25


def blocks_of_groups(evidence: Evidence) -> list[np.ndarray]:
    """Trials (indices) of the groups, (group, member) for each number of members; a trial is its own where there are no groups.

    `DegenerateError` for a single group.
    """
    groups = np.arange(len(evidence.responses)) if evidence.groups is None else np.asarray(evidence.groups)
    _, row, counts = np.unique(groups, return_inverse=True, return_counts=True)
    if len(counts) < 2:
        raise DegenerateError("groups: all trials are in one; 2 or more are needed to leave one out")
    order = np.argsort(row, kind="stable")
    return [order[counts[row[order]] == size].reshape(-1, size) for size in np.unique(counts)]


def centred(matrix: Float[np.ndarray, "trial trial"]) -> Float[np.ndarray, "trial trial"]:
    """H A H, H = I - 11'/n."""
    rows = matrix - matrix.mean(0)
    return rows - rows.mean(1, keepdims=True)


def leave_out(
    kernel: Float[np.ndarray, "trial trial"],
    targets: Float[np.ndarray, "trial axis"],
    groups: Sequence[np.ndarray],
    share: float = 1.0,
) -> LeftOut:
    """A share of the best of `ALPHAS` by leaving out each group, from a centred kernel and centred targets."""
    n = len(kernel)
    values, vectors = np.linalg.eigh(kernel)
    values, on_vectors, unit = np.maximum(values, 0.0), vectors.T @ targets, float(np.trace(kernel)) / n
    if not unit > 0:
        raise DegenerateError("responses: no voxel varies")
    errors = []
    for alpha in unit * np.array(ALPHAS):
        dual = vectors @ (on_vectors / (values + alpha)[:, None])
        errors.append(float(np.sum(_left_out_errors(vectors, 1 / (values + alpha), dual, 1 / (n * alpha), groups) ** 2)))
    alpha = share * float(unit * ALPHAS[int(np.argmin(errors))])
    g = (vectors / (values + alpha)) @ vectors.T
    return LeftOut(alpha, g, g @ targets, min(errors) / float(np.sum(targets**2)))


def _left_out_errors(
    vectors: Float[np.ndarray, "trial trial"],
    damping: Float[np.ndarray, " trial"],
    dual: Float[np.ndarray, "trial axis"],
    intercept: float,
    groups: Sequence[np.ndarray],
) -> Float[np.ndarray, "trial axis"]:
    """E, from G in its eigenvectors and the intercept's part 1 / (n alpha)."""
    errors = np.empty_like(dual)
    for members in groups:
        if members.shape[1] == 1:
            alone = members[:, 0]
            errors[alone] = dual[alone] / (np.square(vectors[alone]) @ damping - intercept)[:, None]
        else:
            blocks = (vectors[members] * damping) @ vectors[members].transpose(0, 2, 1) - intercept
            errors[members] = np.linalg.solve(blocks, dual[members])
    return errors


def variance_ratios(
    responses: Float32[np.ndarray, "trial voxel"], left_out: LeftOut, targets: Float[np.ndarray, "trial axis"]
) -> Float[np.ndarray, " voxel"]:
    """What the update multiplies m with, for every voxel: (x' G Y Y' G x) / (D s2 x' G x)."""
    n_axes, dual = targets.shape[1], left_out.dual
    s2 = float(np.sum(targets * dual)) / targets.size
    explained = quadratic_forms(responses, centred(dual @ dual.T))
    decided = quadratic_forms(responses, centred(left_out.g))
    return np.divide(explained, n_axes * s2 * decided, out=np.zeros_like(explained), where=decided > 0)


def variances(evidence: Evidence, budget: int) -> VoxelScores:
    """m of the `budget` voxels that are left after the rounds, 0 elsewhere; path: voxels and left-out R2 of each round."""
    targets, groups, sigma = half_whitened(evidence.targets), blocks_of_groups(evidence), sigma_of(evidence)
    average = evidence.low_pass(sigma) if sigma else None
    usual, joint = (_rounds(evidence.responses, targets, groups, budget, share, average) for share in SHARES)
    missed = [_missed(evidence.responses[:, found.values > 0], targets, groups) for found in (usual, joint)]
    return (joint if missed[1] < missed[0] - CLEARLY else usual)._replace(sigma=sigma)


def sigma_of(evidence: Evidence) -> float:
    """Width of the low-pass of the neighbourhood; 0 where there is none."""
    return 0.0 if evidence.geometry is None else SIGMA if evidence.sigma is None else evidence.sigma


def _rounds(
    responses: Float32[np.ndarray, "trial voxel"],
    targets: Float[np.ndarray, "trial axis"],
    groups: Sequence[np.ndarray],
    budget: int,
    share: float,
    average: scipy.sparse.csr_array | None,
) -> VoxelScores:
    n_voxels, alive = responses.shape[1], np.arange(responses.shape[1])
    m, q, path = np.ones(n_voxels), np.ones(n_voxels), []
    for number in range(1, N_ROUNDS + 1):
        left_out = leave_out(centred(weighted_kernel(responses, np.sqrt(m))), targets, groups, share)
        path.append(Step(len(alive), 1 - left_out.error))
        factor = np.maximum(variance_ratios(responses, left_out, targets), 0.0)
        m, q = m * factor, average @ factor if average is not None and number == 1 else q
        kept = top_voxels(m * q, survivors_allowed(n_voxels, budget, round_number=number, n_rounds=N_ROUNDS))
        m, q, alive = m[kept] / m[kept].mean(), q[kept], alive[kept]
        responses = responses if kept.all() else responses[:, kept]
    whole = np.zeros(n_voxels)
    whole[alive] = np.maximum(m, np.finfo(float).tiny)
    return VoxelScores(whole, whole, tuple(path))


def _missed(
    responses: Float32[np.ndarray, "trial voxel"], targets: Float[np.ndarray, "trial axis"], groups: Sequence[np.ndarray]
) -> float:
    """Squared errors of left-out groups by plain ridge, over the squares of the targets."""
    return leave_out(centred(weighted_kernel(responses, np.ones(responses.shape[1]))), targets, groups).error


def missing(evidence: Evidence) -> str | None:
    """Why it would take too long."""
    n_trials = len(evidence.responses)
    return f"{n_trials} trials; up to {MOST_TRIALS} are taken" if n_trials > MOST_TRIALS else None


SELECTOR = Selector(
    name="ard",
    label="Shared ARD",
    description="largest prior variance of a linear decoder's weights, one for all outputs",
    score=lambda evidence: variances(evidence, evidence.n_voxels),
    missing=missing,
    low_pass=True,
)
