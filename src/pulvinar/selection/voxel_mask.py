"""Which voxels a learned mask keeps: L1, threshold, low-pass over neighbours, rounds, and a budget that is met exactly.

TROI (voxel-selection paper, section 2.2, equations 6-7 and algorithm 1). A mask M >= 0, one weight per voxel, starts at 1.
Training lowers L + psi sum_i M_i. After each round

    M_i <- 0 where M_i <= th;   S = low-pass of M;   M'_i = 1[S_i > th];   stop when ||M'||_0 <= V.

What the paper leaves open, and what we chose:

- psi multiplies the *sum* of M. M is clamped at 0 and has no weight decay.
- A voxel at zero stays at zero, so that it can be cut out of the network: it costs neither time nor memory from then on.
- The low-pass is normalised inside the brain (`Geometry.low_pass`), so edge voxels are not lowered by their place.
- `combine`: the paper binarises the smoothed mask S = M * G ("smooth"). Plain smoothing also favours a weak voxel beside
  strong ones over a strong one alone. Default here is the geometric mean S = sqrt(M . (M * G)) ("geometric"): a voxel
  needs its own evidence and its neighbours'. "none" is the ablation without a low-pass.
- A fixed threshold empties the mask like a cliff (thousands of voxels to none within three epochs). `schedule` "geometric"
  also bounds the survivors of round r of R by n (V / n)^(r / R); "threshold" is the paper's rule alone. When a round would
  leave fewer than V voxels, or the rounds run out, the V voxels with the largest S are taken, and the path is recorded.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse
from jaxtyping import Float

from pulvinar.core.errors import InputError
from pulvinar.selection.univariate import top_voxels

Combine = Literal["geometric", "smooth", "none"]
Schedule = Literal["geometric", "threshold"]


@dataclass(frozen=True)
class Round:
    """What a round left: `kept` voxels, the score S they were ranked by, and, when it was the last, the path that fired."""

    kept: np.ndarray
    score: np.ndarray
    path: str | None


def voxel_budget(n_voxels: int | float | np.integer | np.floating, n_candidates: int) -> int:
    """A budget given as a count (int, 1 or more) or a share (float in (0, 1]) of the candidates, as a count.

    >>> voxel_budget(0.5, 530), voxel_budget(200, 530)
    (265, 200)
    """
    if isinstance(n_voxels, bool) or not isinstance(n_voxels, int | float | np.integer | np.floating):
        raise InputError(f"n_voxels: a whole number or a share is needed, {n_voxels!r} came")
    if isinstance(n_voxels, float | np.floating):
        if not 0 < n_voxels <= 1:
            raise InputError(f"n_voxels: a share lies in (0, 1], {n_voxels} came")
        return max(1, round(n_voxels * n_candidates))
    if not 1 <= n_voxels <= n_candidates:
        raise InputError(f"n_voxels: a budget of 1 to {n_candidates} (the voxels there are) is needed, {n_voxels} came")
    return int(n_voxels)


def low_pass_score(
    mask: Float[np.ndarray, " voxel"], low_pass: scipy.sparse.csr_array, combine: Combine
) -> Float[np.ndarray, " voxel"]:
    """S: the mask itself, M * G, or sqrt(M . (M * G))."""
    if combine == "none":
        return mask.astype(np.float64)
    smoothed = low_pass @ mask.astype(np.float64)
    return smoothed if combine == "smooth" else np.sqrt(np.maximum(mask * smoothed, 0.0))


def survivors_allowed(n_candidates: int, budget: int, *, round_number: int, n_rounds: int) -> int:
    """How many voxels may survive round r (from 1) of R on the geometric path: n (V / n)^(r / R), rounded up.

    >>> [survivors_allowed(8000, 500, round_number=r, n_rounds=4) for r in (1, 2, 3, 4)]
    [4000, 2000, 1000, 500]
    """
    share = (budget / n_candidates) ** (round_number / n_rounds)
    return max(budget, int(np.ceil(n_candidates * share - 1e-6)))


def close_round(
    mask: Float[np.ndarray, " voxel"],
    low_pass: scipy.sparse.csr_array,
    *,
    budget: int,
    threshold: float,
    round_number: int,
    n_rounds: int,
    combine: Combine = "geometric",
    schedule: Schedule = "geometric",
) -> Round:
    """Threshold, low-pass and count after a round of training (algorithm 1, lines 4-7). `mask` is over all candidates."""
    above = np.where(mask > threshold, mask, 0.0)
    score = low_pass_score(above, low_pass, combine)
    n_above = int((score > threshold).sum())
    if n_above < budget or (above > 0).sum() < budget:
        return _last(mask, above, low_pass, combine, budget, f"safety: {n_above} voxels were left above the threshold")
    if n_above == budget:
        return Round(score > threshold, score, "threshold: exactly the budget")
    if round_number >= n_rounds:
        path = "schedule" if schedule == "geometric" else f"safety: {n_above} voxels after the last round"
        return _last(mask, above, low_pass, combine, budget, path)
    kept = above > 0
    if schedule == "geometric":
        allowed = survivors_allowed(len(mask), budget, round_number=round_number, n_rounds=n_rounds)
        if kept.sum() > allowed:  # ranked among themselves: a cut voxel may have a smoothed score too
            kept = top_voxels(np.where(kept, score, -1.0), allowed)
    return Round(kept, score, None)


def _last(
    mask: np.ndarray, above: np.ndarray, low_pass: scipy.sparse.csr_array, combine: Combine, budget: int, path: str
) -> Round:  # fmt: skip
    """The `budget` voxels with the largest score; below the threshold the unthresholded mask, then its low-pass, decide."""
    score = low_pass_score(above, low_pass, combine)
    beneath = low_pass_score(mask, low_pass, combine) + 1e-3 * low_pass_score(mask, low_pass, "smooth")
    ranked = score + 1e-9 * beneath / max(1e-12, float(beneath.max()))
    return Round(top_voxels(ranked, budget), score, path)
