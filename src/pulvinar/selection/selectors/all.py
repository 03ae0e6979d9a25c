"""Every voxel there is, whatever the budget."""

import numpy as np

from pulvinar.selection.selector import Selector

SELECTOR = Selector(
    name="all",
    label="All voxels",
    description="every candidate voxel",
    score=lambda evidence: np.ones(evidence.responses.shape[1], bool),
    without_budget=True,
    place=2,
)
