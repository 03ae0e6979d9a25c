"""Shared ARD where folds of the training trials say that it decodes better than scores of single voxels, else those.

With few trials the joint choice of `ard` can lose to a score of single voxels. Both select, at the budget, on the trials
outside a fold. Ridge on what each keeps (penalty by leaving one group out, closed form: `ard.leave_out`) predicts the
half-whitened targets of the fold, and the gain of a trial is the difference of the cosines between prediction and truth. `ard`
is taken if the mean gain over all held-out trials exceeds its standard error (over groups). The one that is taken then selects
on all trials. The score of single voxels is that of `univariate`, of `anova` where classes were shown. All of this is ours.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pulvinar.selection.cross_fitted_mask import assign_folds
from pulvinar.selection.selector import Evidence, Selection, Selector, VoxelScores
from pulvinar.selection.selectors import anova, ard, univariate

N_FOLDS = 5
FEWEST_GROUPS = 4  # with fewer there are no folds, and single voxels are taken


class Gain(NamedTuple):
    """Mean over held-out trials of what `ard` gains in cosine, and its standard error."""

    mean: float
    standard_error: float


def _single(evidence: Evidence) -> Selector:
    return univariate.SELECTOR if evidence.labels is None else anova.SELECTOR


def cosines(
    train: Evidence,
    targets: Float[np.ndarray, "trial axis"],
    chosen: Selection,
    shown: Float[np.ndarray, "held_out voxel"],
    true: Float[np.ndarray, "held_out axis"],
) -> Float[np.ndarray, " held_out"]:
    """Cosine between what ridge on the kept voxels predicts of held-out trials and their targets."""
    x, centre = train.responses[:, chosen.kept].astype(np.float64), targets.mean(0)
    mean = x.mean(0)
    fitted = ard.leave_out((x - mean) @ (x - mean).T, targets - centre, ard.blocks_of_groups(train))
    predicted = (shown[:, chosen.kept] - mean) @ ((x - mean).T @ fitted.dual)
    lengths = np.linalg.norm(predicted, axis=1) * np.linalg.norm(true - centre, axis=1)
    return np.sum(predicted * (true - centre), axis=1) / np.maximum(lengths, np.finfo(float).tiny)


def gain(evidence: Evidence) -> Gain:
    """What `ard` gains over single voxels on held-out trials of the evidence."""
    n_trials = len(evidence.responses)
    groups = np.arange(n_trials) if evidence.groups is None else np.unique(evidence.groups, return_inverse=True)[1]
    folds = assign_folds(groups, evidence.labels, N_FOLDS, np.random.default_rng(evidence.seed))
    targets, gained = ard.half_whitened(evidence.targets), np.zeros(n_trials)
    for fold in np.unique(folds):
        held, rest = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        train = evidence.on_trials(rest)
        found = [
            cosines(train, targets[rest], one.select(train), evidence.responses[held], targets[held])
            for one in (ard.SELECTOR, _single(train))
        ]
        gained[held] = found[0] - found[1]
    sums = np.bincount(groups, gained - gained.mean())
    return Gain(float(gained.mean()), float(np.sqrt(np.sum(sums**2))) / n_trials)


def score(evidence: Evidence) -> VoxelScores:
    """The scores of the selector that is taken."""
    n_groups = len(evidence.responses) if evidence.groups is None else len(np.unique(evidence.groups))
    found = gain(evidence) if n_groups >= FEWEST_GROUPS else Gain(0.0, 0.0)
    taken = ard.SELECTOR if found.mean > found.standard_error else _single(evidence)
    return taken.select(evidence).scores


def missing(evidence: Evidence) -> str | None:
    """Why there are no folds, or it would take too long."""
    return ard.missing(evidence)


SELECTOR = Selector(
    name="guarded",
    label="Shared ARD or single voxels",
    description="shared ARD where folds of the trials say it decodes better than single voxels, else those",
    score=score,
    missing=missing,
)
