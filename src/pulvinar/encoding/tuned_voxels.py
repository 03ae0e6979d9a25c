"""Which of an ROI's voxels a network is tuned on: all, those above a noise ceiling, or a learnt selection; by training images.

all            every encoded voxel
ceiling:0.1    noise ceiling (share of variance, of the mean responses) of .1 or more: from repeats of training images, or,
               where there are too few, the data set's own, which may rest on test images too (a warning says so)
selected:200   the 200 voxels (selected:0.5: half of them) that a cross-fitted linear readout of the untuned network's output
               uses (selection/cross_fitted_mask.py, as `estimators.VoxelSelector`)
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log, warn
from pulvinar.encoding.data import EncodedSubject
from pulvinar.scores.encoding import ceiling_from_repeats
from pulvinar.selection.cross_fitted_mask import CrossFitSettings, assign_folds, learn_mask
from pulvinar.selection.voxel_mask import voxel_budget

RIDGE, N_FOLDS, N_STEPS, STEP_SIZE, SIGMA = 10.0, 8, 10, 0.07, 1.0  # the defaults of VoxelSelector, its widest low-pass
N_TARGETS = 50  # principal components of the network's output that the readout predicts (ours)


@dataclass(frozen=True)
class VoxelChoice:
    """A choice as it is written in a setting."""

    kind: Literal["all", "ceiling", "selected"]
    amount: float = 0.0

    @classmethod
    def parse(cls, text: str) -> "VoxelChoice":
        """From 'all', 'ceiling:0.1', 'selected:200'; `InputError` for anything else."""
        kind, _, amount = text.partition(":")
        try:
            if text == "all":
                return cls("all")
            if kind == "ceiling" and 0 < float(amount) < 1:
                return cls("ceiling", float(amount))
            if kind == "selected" and (0 < float(amount) <= 1 or (float(amount) > 1 and float(amount).is_integer())):
                return cls("selected", float(amount))
        except ValueError:
            pass
        raise InputError(f"'all', 'ceiling:SHARE' below 1 or 'selected:COUNT' (or a share) is needed, '{text}' came")


def chosen_voxels(choice: VoxelChoice, given: EncodedSubject, targets: np.ndarray | None, *, seed: int) -> np.ndarray:
    """The voxels (indices of the subject) to tune on, some of `given.voxels`.

    targets: output of the untuned network for the training images (image, dim), for a selection. `InputError` where a ceiling
    is not known or leaves nothing.
    """
    if choice.kind == "all":
        return given.voxels
    if choice.kind == "ceiling":
        kept = given.voxels[_ceilings(given) >= choice.amount]
        if not len(kept):
            raise InputError(f"voxels: no voxel of {given.name} has a noise ceiling of {choice.amount} or more")
    else:
        kept = given.voxels[_selected(choice, given, targets, seed)]
    log(f"{given.name}: tuned on {len(kept)} of {len(given.voxels)} voxels")
    return kept


def _ceilings(given: EncodedSubject) -> np.ndarray:
    train = given.train
    shown = np.array([train.responses.stimulus_ids[trial] for trial in train.trials])
    found = ceiling_from_repeats(train.read_trials(given.voxels), shown, train.counts)
    if found.r2 is not None:
        return found.r2
    stated = given.responses.noise_ceiling
    if stated is None:
        raise InputError(f"voxels: no noise ceiling of {given.name} is known: the data set states none, and {found.reason}")
    warn(f"{given.name}: voxels are chosen by the data set's own noise ceilings, which may rest on test images too")
    return np.nan_to_num(np.asarray(stated)[given.voxels].astype(np.float64))


def _selected(choice: VoxelChoice, given: EncodedSubject, targets: np.ndarray | None, seed: int) -> np.ndarray:
    """Mask over the encoded voxels."""
    if targets is None:
        raise InputError("voxels: a selection needs what the network gives for the training images")
    amount = int(choice.amount) if choice.amount > 1 else choice.amount
    budget = voxel_budget(amount, len(given.voxels))
    responses = given.train.read(given.voxels)
    spread = responses.std(0)
    responses = (responses - responses.mean(0)) / np.where(spread > 0, spread, 1)
    folds = assign_folds(np.array(given.sources), None, N_FOLDS, np.random.default_rng([seed, 0x5E1]))
    geometry = given.responses.geometry.take(given.voxels)
    low_pass = scipy.sparse.csr_array(geometry.low_pass(SIGMA))
    settings = CrossFitSettings(budget=budget, ridge=RIDGE, n_steps=N_STEPS, step_size=STEP_SIZE)
    return learn_mask(responses.astype(np.float32), _components(targets), folds, low_pass, settings).kept


def _components(targets: np.ndarray) -> np.ndarray:
    """Leading principal components (image, component), of mean square 1."""
    centred = targets.astype(np.float64) - targets.mean(0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    scores = (left * singular)[:, :N_TARGETS]
    scale = np.sqrt(np.mean(scores**2))
    return scores / scale if scale > 0 else scores
