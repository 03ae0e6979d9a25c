"""As many voxels as the budget allows, drawn at random."""

import numpy as np
from jaxtyping import Float

from pulvinar.selection.selector import Evidence, Selector


def score(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """1 for a voxel that was drawn, else 0."""
    n_voxels = evidence.responses.shape[1]
    drawn = np.random.default_rng([evidence.seed, 0xA11]).choice(n_voxels, evidence.n_voxels, replace=False)
    return np.isin(np.arange(n_voxels), drawn).astype(np.float64)


SELECTOR = Selector(name="random", label="Random voxels", description="drawn at random", score=score, place=3)
