"""Voxel selections that a learnt one has to beat: those of all selectors, at its budget, and its own voxels with plain ridge.

Each sees the training trials of the new subject alone, but for the oracles, which say so. In planted worlds two of them say
what there was to win: all true voxels, and the best of them at the budget.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from pulvinar.core.errors import PulvinarError
from pulvinar.data.responses import Responses
from pulvinar.decoding.data import Trials
from pulvinar.decoding.settings import AdaptationSettings, Beside
from pulvinar.selection import selectors
from pulvinar.selection.selector import Answers, Evidence, Selector

PLAIN_RIDGE = "the same voxels, plain ridge to the embedding, its penalty by which left-out training images are identified best"


@dataclass(frozen=True, kw_only=True, eq=False)
class Control:
    """A selection (voxel,) by name; `selected` is None where it cannot be had, and `unavailable` says why.

    decoder: as the selection's own (trained alike), or plain ridge. oracle: it has seen what no selection may see. apart: its
    decoder is not trained beside those of others, whose rounding it would change.
    """

    name: str
    description: str
    selected: np.ndarray | None
    unavailable: str | None = None
    decoder: Literal["trained", "ridge"] = "trained"
    oracle: bool = False
    apart: bool = False


def evidence_of(
    responses: Responses, candidates: np.ndarray, trials: Trials, settings: AdaptationSettings, *, n_voxels: int
) -> Evidence:
    """What a selector sees of a subject; `trials` are on the candidate voxels (indices into all)."""
    return Evidence(
        responses=trials.responses.numpy(),
        targets=trials.pooled_target(),
        stimuli=trials.stimulus_ids,
        groups=trials.stimulus_ids,
        n_voxels=n_voxels,
        seed=settings.seed,
        geometry=responses.geometry.take(candidates),
        sigma=settings.sigma,
        subject=responses.subject,
        rois={name: inside[candidates] for name, inside in responses.rois.items()},
        roi=settings.roi,
    )


def selectors_shown(truth: Mapping[str, np.ndarray], *, without: str, beside: Beside = "all") -> list[Selector]:
    """The selectors of a table but for the one that made the run; those of the truth where it is known.

    beside: 'usual' are those that have a place in tables.
    """
    planted = "responsive" in truth
    return [
        one
        for one in selectors.every()
        if one.name != without and (planted or not one.planted) and (beside == "all" or one.place is not None)
    ]


def control_selections(
    evidence: Evidence, answers: Answers, shown: Sequence[Selector], *, learnt: np.ndarray
) -> Iterator[Control]:
    """Plain ridge on the learnt selection (voxel,), then what each selector keeps."""
    yield Control(name="ridge", description=PLAIN_RIDGE, selected=learnt, decoder="ridge")
    told = replace(evidence, answers=answers, _made={})
    for one in shown:
        yield _control(one, told if one.oracle else evidence, answers)


def _control(selector: Selector, evidence: Evidence, answers: Answers) -> Control:
    reason, selected = selector.missing(evidence), None
    if reason is None:
        try:
            kept = selector.select(evidence).kept
            selected = np.zeros(answers.responses.n_voxels, bool)
            selected[answers.candidates[kept]] = True
        except PulvinarError as error:
            reason = str(error)
    return Control(
        name=selector.name,
        description=selector.described(evidence),
        selected=selected,
        unavailable=reason,
        oracle=selector.oracle,
        apart=selector.place is None,
    )
