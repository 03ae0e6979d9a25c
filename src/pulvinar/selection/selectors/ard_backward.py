"""Shared ARD down to half as many again as the budget, then the voxels whose loss hurts a ridge decoder least go, few by few.

Backward elimination by leave-one-group-out (Allen 1974), closed form, on plain ridge of the voxels that are left (no prior
variances): K = X X', G = (K + alpha I)^-1 with alpha chosen anew, G~ and E_g as in `ard`. Taking out voxel v, by
Sherman-Morrison: with u = G x, d = 1 - x'u, c = Y' u / d (row), G becomes G + u u'/d and G Y becomes G Y + u c. In a left-out
group g, with t = (G~_gg)^-1 u_g and s = u_g' t, the errors become

    E_g + t (d c - u_g' E_g) / (d + s),
    |.|^2 = |E_g|^2 + 2 (d t'E_g c' - t'E_g E_g'u_g) / (d + s) + t't (d^2 c c' - 2 d u_g'E_g c' + u_g'E_g E_g'u_g) / (d + s)^2.

The 2 % of voxels with the least sum over groups go, then all is computed again. The order of leaving is the score. All of this
is ours; targets are half-whitened as in `ard`, whose neighbourhood is left out (sigma 0).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float

from pulvinar.core.sampling import blocks_of
from pulvinar.selection.selector import Evidence, Selector, VoxelScores
from pulvinar.selection.selectors import ard
from pulvinar.selection.selectors.ard import LeftOut

START = 1.5  # voxels, over the budget, at which the elimination begins
SHARE_OUT = 0.02  # of the voxels, at a time
VOXELS_PER_BLOCK = 1024


def losses_without(
    responses: Float[np.ndarray, "trial voxel"], left_out: LeftOut, groups: Sequence[np.ndarray]
) -> Float[np.ndarray, " voxel"]:
    """Sum of squared left-out errors when each voxel is taken out; of centred responses."""
    order = np.concatenate([members.reshape(-1) for members in groups])
    sizes = np.concatenate([np.full(len(members), members.shape[1]) for members in groups])
    starts, intercept = np.cumsum(sizes) - sizes, 1 / (len(order) * left_out.alpha)
    inverses, products = np.zeros((2, *left_out.g.shape))
    errors = np.empty_like(left_out.dual)
    for members in groups:
        block = (members[:, :, None], members[:, None, :])
        inverses[block] = np.linalg.inv(left_out.g[block] - intercept)
        errors[members] = inverses[block] @ left_out.dual[members]
        products[block] = errors[members] @ errors[members].transpose(0, 2, 1)

    def of_groups(rows: np.ndarray) -> np.ndarray:
        return np.add.reduceat(rows[order], starts, axis=0)

    out = np.empty(responses.shape[1])
    for columns in blocks_of(responses.shape[1], VOXELS_PER_BLOCK):
        x = responses[:, columns]
        u = left_out.g @ x
        d = np.maximum(1 - np.sum(x * u, axis=0), np.finfo(float).eps)
        c = left_out.dual.T @ x / d
        t, w, f = inverses @ u, products @ u, errors @ c
        below = d + of_groups(u * t)
        moved = d**2 * np.sum(c**2, axis=0) - 2 * d * of_groups(u * f) + of_groups(u * w)
        change = 2 * (d * of_groups(t * f) - of_groups(t * w)) / below + of_groups(t * t) * moved / below**2
        out[columns] = change.sum(0)
    return out + np.sum(errors**2)


def score(evidence: Evidence) -> VoxelScores:
    """1 for a voxel that stays to the end, less the earlier it left, 0 for those that `ard` left out."""
    n_voxels, budget = evidence.responses.shape[1], evidence.n_voxels
    begun = ard.variances(replace(evidence, sigma=0.0), min(n_voxels, round(START * budget)))
    alive, scores = np.flatnonzero(begun.values > 0), np.zeros(n_voxels)
    responses = evidence.responses[:, alive].astype(np.float64)
    responses -= responses.mean(0)
    targets, groups, steps = ard.half_whitened(evidence.targets), ard.blocks_of_groups(evidence), []
    while len(alive) > budget:
        left_out = ard.leave_out(responses @ responses.T, targets, groups)
        steps.append(ard.Step(len(alive), 1 - left_out.error))
        n_out = min(max(1, int(SHARE_OUT * len(alive))), len(alive) - budget)
        leaving = np.argsort(losses_without(responses, left_out, groups), kind="stable")[:n_out]
        scores[alive[leaving]] = -len(alive)  # the last to leave is the least negative
        responses, alive = np.delete(responses, leaving, axis=1), np.delete(alive, leaving)
    left = scores < 0
    scores[left] = 1 + scores[left] / (len(begun.values) + 1)
    scores[alive] = 1.0
    return VoxelScores(scores, begun.mask, (*begun.path, *steps))


SELECTOR = Selector(
    name="ard_backward",
    label="Shared ARD, then backward",
    description="shared ARD, then the voxels without which a ridge decoder loses least go",
    score=score,
    missing=ard.missing,
)
