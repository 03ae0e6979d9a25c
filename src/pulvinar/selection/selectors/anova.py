"""The largest ANOVA F over classes of what was shown, or over clusters of its embedding."""

import numpy as np
from jaxtyping import Float, Shaped

from pulvinar.selection.selector import Evidence, Selector
from pulvinar.selection.univariate import anova_f, anova_labels

N_PSEUDO_CLASSES = 10


def classes(evidence: Evidence) -> Shaped[np.ndarray, " trial"]:
    """The labels, also where the embedding is made of them; its clusters; of a single number ten equal parts (ours)."""
    if evidence.labels is not None:
        return evidence.labels
    targets = evidence.targets
    if targets.shape[1] > 1:
        different, which = np.unique(targets, axis=0, return_inverse=True)
        if len(different) <= N_PSEUDO_CLASSES:  # nothing to cluster
            return which.reshape(-1)
        return anova_labels(targets, N_PSEUDO_CLASSES, seed=evidence.seed)
    n_classes = max(2, min(N_PSEUDO_CLASSES, len(targets) // 2))
    borders = np.quantile(targets, np.arange(1, n_classes) / n_classes)
    return np.searchsorted(np.unique(borders), targets[:, 0])


def score(evidence: Evidence) -> Float[np.ndarray, " voxel"]:
    """F of every voxel."""
    return anova_f(evidence.responses, classes(evidence))


SELECTOR = Selector(
    name="anova",
    label="ANOVA",
    description=f"largest ANOVA F over {N_PSEUDO_CLASSES} clusters of the training embeddings",
    score=score,
    place=8,
)
