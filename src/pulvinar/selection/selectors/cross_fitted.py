"""The voxels that a cross-fitted linear readout of what was shown uses: a mask learned on held-out trials.

Stage 1 of TROI (voxel-selection paper, section 2.2) with cross-fitting, for a readout solved in closed form: formulas in
selection/cross_fitted_mask.py, how the defaults were chosen in docs/methods/voxel_selector.md.
"""

import functools

import numpy as np
from jaxtyping import Bool, Int

from pulvinar.selection.cross_fitted_mask import (
    N_HALVINGS,
    CrossFitSettings,
    assign_folds,
    choose_width,
    learn_mask,
)
from pulvinar.selection.selector import Evidence, Selector, VoxelScores

# Widths of the low-pass to choose from, in voxel spacings. Wider ones did not select better (docs/methods/voxel_selector.md).
WIDTHS = (1.0, 0.7, 0.0)
FEWEST_GROUPS = 4  # fewer cannot be halved into halves that have folds
MOST_TRIALS = 8000  # of a row in a table, or of a run: memory and time grow as their square


class _Trials:
    """How trials are split: by group, classes dealt evenly."""

    def __init__(self, evidence: Evidence, n_folds: int) -> None:
        self.labels, self.n_folds = evidence.labels, n_folds
        self.groups = np.arange(len(evidence.responses)) if evidence.groups is None else np.asarray(evidence.groups)
        self.generator = np.random.default_rng(evidence.seed)
        self.n_groups = len(np.unique(self.groups))

    def _split(self, trials: np.ndarray, n_folds: int) -> Int[np.ndarray, " trial"]:
        labels = None if self.labels is None else self.labels[trials]
        return assign_folds(self.groups[trials], labels, n_folds, self.generator)

    def folds(self, trials: np.ndarray) -> Int[np.ndarray, " trial"]:
        """Fold of each of these trials."""
        return self._split(trials, self.n_folds)

    def half(self) -> Bool[np.ndarray, " trial"]:
        """A random half of all trials."""
        return self._split(np.arange(len(self.groups)), 2) == 0


def score(
    evidence: Evidence, *, ridge: float = 10.0, n_folds: int = 8, n_steps: int = 10, step_size: float = 0.07
) -> VoxelScores:  # fmt: skip
    """The low-passed mask, the mask itself, and its path; the width of the low-pass is chosen on halves of the trials unless
    it is given. The options are explained at `estimators.VoxelSelector`."""
    responses, targets, sigma = evidence.responses, evidence.targets.astype(np.float64), evidence.sigma
    trials, low_pass = _Trials(evidence, n_folds), functools.cache(evidence.low_pass)
    folds = trials.folds(np.arange(len(responses)))
    if evidence.geometry is None:
        sigma = 0.0
    elif sigma is None and trials.n_groups < FEWEST_GROUPS:
        sigma = WIDTHS[0]
    elif sigma is None:
        halves = [trials.half() for _ in range(N_HALVINGS)]
        sigma, _ = choose_width(
            responses, targets, halves, trials.folds, low_pass, WIDTHS, budget=evidence.n_voxels, ridge=ridge
        )
    settings = CrossFitSettings(budget=evidence.n_voxels, ridge=ridge, n_steps=n_steps, step_size=step_size)
    learned = learn_mask(responses, targets, folds, low_pass(sigma), settings)
    return VoxelScores(learned.score, learned.mask, learned.path, float(sigma))


def missing(evidence: Evidence) -> str | None:
    """Why it would take too long."""
    n_trials = len(evidence.responses)
    return f"{n_trials} trials; up to {MOST_TRIALS} are taken" if n_trials > MOST_TRIALS else None


SELECTOR = Selector(
    name="cross_fitted",
    label="Cross-fitted readout",
    description="mask in front of a linear readout, learned on held-out trials",
    score=score,
    missing=missing,
    low_pass=True,
)
