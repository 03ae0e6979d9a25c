"""In a planted world: those truly responsive voxels whose planted signal has the largest share of their variance.

What a budget could reach, one voxel at a time (true noise ceiling; ours, and no upper bound: a set chosen jointly may be
better).
"""

import numpy as np
from jaxtyping import Float

from pulvinar.selection.selector import Evidence, Selector
from pulvinar.selection.selectors.true_voxels import missing as none_responsive
from pulvinar.selection.selectors.true_voxels import responsive


def missing(evidence: Evidence) -> str | None:
    """Why there are no such voxels, or too few."""
    if (reason := none_responsive(evidence)) is not None:
        return reason
    if "noise_ceiling" not in evidence.known.truth:
        return "the truth of these data says which voxels respond, not how well"
    n_responsive = int(responsive(evidence).sum())
    few = f"{n_responsive} voxels respond, fewer than the budget of {evidence.n_voxels}"
    return few if n_responsive < evidence.n_voxels else None


def score(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """True noise ceiling; -1 where a voxel does not respond."""
    ceiling = np.asarray(evidence.known.truth["noise_ceiling"], np.float64)[evidence.known.candidates]
    return np.where(responsive(evidence), np.nan_to_num(ceiling), -1.0)


SELECTOR = Selector(
    name="true_best",
    label="Best true voxels (oracle)",
    description="oracle: the truly responsive voxels of largest true noise ceiling",
    score=score,
    missing=missing,
    oracle=True,
    planted=True,
    place=10,
)
