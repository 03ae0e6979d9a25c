"""In a planted world: every voxel that truly responds, whatever the budget."""

import numpy as np
from jaxtyping import Bool

from pulvinar.selection.selector import Evidence, Selector


def responsive(evidence: Evidence) -> Bool[np.ndarray, " voxel"]:
    """Which of the candidates the truth says respond."""
    return np.asarray(evidence.known.truth["responsive"]).astype(bool)[evidence.known.candidates]


def missing(evidence: Evidence) -> str | None:
    """Why there are none."""
    return None if responsive(evidence).any() else "no candidate voxel is responsive"


SELECTOR = Selector(
    name="true_voxels",
    label="All true voxels (oracle)",
    description="oracle: every truly responsive voxel, no budget",
    score=responsive,
    missing=missing,
    oracle=True,
    planted=True,
    without_budget=True,
    place=9,
)
