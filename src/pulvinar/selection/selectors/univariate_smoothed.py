"""The largest cross-validated encoding R2 after a low-pass over neighbouring voxels."""

from pulvinar.selection.selector import Evidence, Selector, VoxelScores
from pulvinar.selection.selectors.univariate import encoding_r2

SIGMA = 1.0  # voxel spacings, where none are asked for (ours)


def score(evidence: Evidence) -> VoxelScores:
    """R2 averaged over neighbours; as it is where nobody knows where voxels are."""
    sigma = SIGMA if evidence.sigma is None else evidence.sigma
    return VoxelScores(evidence.low_pass(sigma) @ evidence.once(encoding_r2), sigma=0.0 if evidence.geometry is None else sigma)


SELECTOR = Selector(
    name="univariate_smoothed",
    label="Univariate (smoothed)",
    description="encoding R2 after the same low-pass",
    score=score,
    low_pass=True,
    place=7,
)
