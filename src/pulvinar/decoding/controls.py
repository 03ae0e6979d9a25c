"""Voxel selections that a learnt one has to beat, at the same budget (annotated and all: with all their voxels).

Each control sees the training trials of the new subject alone, but for the oracles, which say so: the noise ceiling with the
test trials, and, in planted worlds, two that know the truth. These two say what there was to win: `true_voxels` are all
responsive voxels, without a budget; `true_best` as many as the budget allows, those whose planted signal has the largest share
of their variance (true noise ceiling; ours, and no upper bound: a set chosen jointly may be better).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import scipy.sparse

from pulvinar.core.errors import PulvinarError
from pulvinar.data.responses import Responses
from pulvinar.decoding.data import Trials
from pulvinar.scores.noise_ceiling import signal_to_noise
from pulvinar.selection.univariate import anova_f, anova_labels, cross_validated_encoding_r2, top_voxels

N_CONTROLS, N_TRUTH = 9, 2
N_PSEUDO_CLASSES = 10
Top = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """A selection (voxel,) by name; `selected` is None where it cannot be had, and `unavailable` says why.

    decoder: as the selection's own (trained alike), or plain ridge. oracle: it has seen what no selection may see.
    """

    name: str
    description: str
    selected: np.ndarray | None
    unavailable: str | None = None
    decoder: Literal["trained", "ridge"] = "trained"
    oracle: bool = False


def control_selections(
    responses: Responses,
    trials: Trials,
    candidates: np.ndarray,
    *,
    learnt: np.ndarray,
    low_pass: scipy.sparse.csr_array,
    roi: str,
    seed: int,
    truth: Mapping[str, np.ndarray] | None = None,
) -> Iterator[Control]:
    """Every control in turn, at the budget of the learnt selection (voxel,).

    `trials` are on the candidate voxels (indices into all); ROI and ceiling are over all. truth: of a planted world.
    """
    budget = int(learnt.sum())

    def over_all(kept: np.ndarray) -> np.ndarray:
        selected = np.zeros(responses.n_voxels, bool)
        selected[candidates[kept]] = True
        return selected

    def top(scores: np.ndarray) -> np.ndarray:
        return over_all(top_voxels(np.nan_to_num(scores, posinf=1e12), budget))

    values = trials.responses.numpy()
    text = "the learnt voxels, plain ridge to the embedding, its penalty by leaving one image out"
    yield Control(name="ridge", description=text, selected=learnt, decoder="ridge")
    yield _annotated(responses, candidates, roi)
    yield Control(name="all", description="every candidate voxel", selected=over_all(np.ones(len(candidates), bool)))
    drawn = np.random.default_rng([seed, 0xA11]).choice(len(candidates), budget, replace=False)
    yield Control(name="random", description="drawn at random", selected=over_all(np.isin(np.arange(len(candidates)), drawn)))
    own = signal_to_noise(values, trials.stimulus_ids)
    yield Control(
        name="ceiling",
        description=f"largest noise ceiling, own training data ({own.n_repeated_stimuli} repeated stimuli)",
        selected=None if own.ncsnr is None else top(own.ncsnr),
        unavailable=own.reason or None,
    )
    yield _oracle(responses, candidates, top)
    r2 = cross_validated_encoding_r2(values, trials.pooled_target(), trials.stimulus_ids, seed=seed)
    yield Control(name="univariate", description="largest cross-validated encoding R2", selected=top(r2))
    yield Control(name="univariate_smoothed", description="encoding R2 after the same low-pass", selected=top(low_pass @ r2))
    yield _anova(values, trials, seed, top)
    if truth and "responsive" in truth:
        yield from _planted(truth, candidates, budget)


def _annotated(responses: Responses, candidates: np.ndarray, roi: str) -> Control:
    if roi not in responses.rois:
        there = ", ".join(responses.rois) or "none"
        missing = f"{responses.subject} has no ROI '{roi}' (there are: {there})"
        missing += "; choose one with --set roi=NAME" if responses.rois else ""
        return Control(name="annotated", description="the annotated ROI", selected=None, unavailable=missing)
    inside = responses.rois[roi] & np.isin(np.arange(responses.n_voxels), candidates)
    reason = None if inside.any() else f"roi: '{roi}' of {responses.subject} has no candidate voxel"
    return Control(
        name="annotated",
        description=f"the annotated ROI '{roi}', all its voxels",
        selected=inside if inside.any() else None,
        unavailable=reason,
    )


def _oracle(responses: Responses, candidates: np.ndarray, top: Top) -> Control:
    """Noise ceiling from data that the selection may not see."""
    text = "largest noise ceiling, oracle: has seen the test trials"
    if responses.noise_ceiling is not None:
        scores = responses.noise_ceiling[candidates]
        return Control(name="ceiling_oracle", description=text + " (released)", selected=top(scores), oracle=True)
    every = responses.read(np.arange(responses.n_trials), candidates)
    sd = every.std(0)
    every = (every - every.mean(0)) / np.where(sd > 0, sd, 1)
    oracle = signal_to_noise(every, list(responses.stimulus_ids))
    return Control(
        name="ceiling_oracle",
        description=text,
        selected=None if oracle.ncsnr is None else top(oracle.ncsnr),
        unavailable=oracle.reason or None,
        oracle=True,
    )


def _planted(truth: Mapping[str, np.ndarray], candidates: np.ndarray, budget: int) -> Iterator[Control]:
    """What any selection could reach, from the truth: all responsive voxels, and the best of them at the budget."""
    responsive = np.asarray(truth["responsive"]).astype(bool)
    inside = responsive & np.isin(np.arange(len(responsive)), candidates)
    every, best = (
        "oracle: every truly responsive voxel, no budget",
        "oracle: the truly responsive voxels of largest true noise ceiling",
    )
    missing = None if inside.any() else "no candidate voxel is responsive"
    yield Control(name="true_voxels", description=every, selected=None if missing else inside, unavailable=missing, oracle=True)
    if missing is None and "noise_ceiling" not in truth:
        missing = "the truth of these data says which voxels respond, not how well"
    if missing is None and inside.sum() < budget:
        missing = f"{int(inside.sum())} voxels respond, fewer than the budget of {budget}"
    if missing is not None:
        yield Control(name="true_best", description=best, selected=None, unavailable=missing, oracle=True)
        return
    ranked = np.where(inside, np.nan_to_num(np.asarray(truth["noise_ceiling"], np.float64)), -1.0)
    yield Control(name="true_best", description=best, selected=top_voxels(ranked, budget), oracle=True)


def _anova(values: np.ndarray, trials: Trials, seed: int, top: Top) -> Control:
    text = f"largest ANOVA F over {N_PSEUDO_CLASSES} clusters of the training embeddings"
    try:
        labels = anova_labels(trials.pooled_target(), N_PSEUDO_CLASSES, seed=seed)
        return Control(name="anova", description=text, selected=top(anova_f(values, labels)))
    except PulvinarError as error:
        return Control(name="anova", description=text, selected=None, unavailable=str(error))
