"""The largest cross-validated encoding R2: how well what was shown predicts the voxel on held-out stimuli."""

import numpy as np
from jaxtyping import Float

from pulvinar.selection.selector import Evidence, Selector
from pulvinar.selection.univariate import cross_validated_encoding_r2


def encoding_r2(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """`cross_validated_encoding_r2` in five folds of groups, in fewer where there are fewer than ten groups.

    Without groups the folds are of stimuli; of trials where classes were shown.
    """
    stimuli = np.asarray(evidence.stimuli)
    groups = np.arange(len(stimuli)) if evidence.labels is not None else stimuli
    groups = groups if evidence.groups is None else np.asarray(evidence.groups)
    if not np.array_equal(stimuli, groups):  # what was shown in two groups must not count as one stimulus
        rows = np.stack([np.unique(names, return_inverse=True)[1] for names in (stimuli, groups)])
        stimuli = np.unique(rows, axis=1, return_inverse=True)[1].reshape(-1)
    n_folds = max(2, min(5, len(np.unique(groups)) // 2))
    return cross_validated_encoding_r2(
        evidence.responses, evidence.targets, stimuli, groups=groups, seed=evidence.seed, n_folds=n_folds
    )


SELECTOR = Selector(
    name="univariate",
    label="Univariate",
    description="largest cross-validated encoding R2",
    score=lambda evidence: evidence.once(encoding_r2),
    place=6,
)
