"""A selector as a method: the voxels that it keeps of a new subject, and the decoder of TROI's stage 2 on them.

`pulvinar fit NAME` for every file of selection/selectors/ that is no oracle; what it learns from, its budget and its decoder
are set as in `troi`, so that their runs can be compared.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.adaptation import (
    NEEDS,
    PRETRAINED,
    SCORING,
    Joined,
    Prepared,
    Size,
    evaluate,
    join,
    prepare,
    refit,
    require_settings,
    write_selection,
)
from pulvinar.decoding.controls import evidence_of
from pulvinar.decoding.data import fit_embedding, half_of
from pulvinar.decoding.decoder_size import Phase
from pulvinar.decoding.settings import AdaptationSettings
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.decoder import DecoderShape
from pulvinar.selection import selectors
from pulvinar.selection.selector import Selector
from pulvinar.selection.voxel_mask import voxel_budget


def method_of(name: str) -> Method:
    """The method that a selector is; `InputError` for an oracle."""
    selector = selectors.selector(name)
    if selector.oracle:
        raise InputError(f"'{name}' sees an answer: it is a row of tables, and nothing is fitted with it")
    return Method(
        name=name,
        config=_config_of(name, without_budget=selector.without_budget),
        needs=NEEDS,
        pretrained=PRETRAINED,
        reads_pretrained=lambda config: config.pretrain,
        of_pretrained=("centre",),
        scoring=SCORING,
        prepare=_preparing(selector),
        join=join,
        fit=functools.partial(_fit, selector),
        evaluate=evaluate,
        phases=functools.partial(_phases, selector),
    )


@functools.cache
def _config_of(name: str, *, without_budget: bool) -> type[AdaptationSettings]:
    """The settings of a run, under the selector's name; the budget of one without does nothing."""

    @dataclass(frozen=True, kw_only=True)
    class Config(AdaptationSettings):
        def idle(self) -> dict[str, str]:
            return {"n_voxels": f"{name} keeps the same voxels at every budget"} if without_budget else {}

    return Config


def _preparing(selector: Selector) -> Callable[[AdaptationSettings, Experiment], Prepared]:
    """`prepare`, which also raises why the selector cannot choose, as far as it costs nothing to know."""

    def prepare_selector(config: AdaptationSettings, experiment: Experiment) -> Prepared:
        prepared = prepare(config, experiment)
        embedding = fit_embedding(prepared.experiment, config.feature, centre=config.centre)
        trials = prepared.scaled.with_target(prepared.experiment, embedding)
        budget = voxel_budget(config.n_voxels, len(prepared.candidates))
        evidence = evidence_of(prepared.target, prepared.candidates, trials, config, n_voxels=budget)
        if (reason := selector.missing(evidence)) is not None:
            raise DegenerateError(f"{selector.name}: {reason}")
        return prepared

    return prepare_selector


def _fit(selector: Selector, config: AdaptationSettings, checked: Joined, run: RunFolder) -> None:
    """The selection, then stage 2, with checkpoints; the result is that of a run of troi."""
    state = run.load()
    if state is None:
        budget = voxel_budget(config.n_voxels, len(checked.candidates))
        evidence = evidence_of(checked.target, checked.candidates, checked.trials, config, n_voxels=budget)
        found = selector.select(evidence)
        weights = found.scores.values
        whole = {"mask": weights if found.scores.mask is None else found.scores.mask, "mask_smoothed": weights}
        selection = write_selection(checked, run, found.kept, whole, chosen_by=selector.described(evidence))
        state = {"phase": "refit", "trainer": None, "selection": selection}
        run.facts["selection"] = selection
        run.save(state)
    refit(config, checked, run, state)


def _phases(
    selector: Selector, config: AdaptationSettings, experiment: Experiment, shape: DecoderShape | None = None
) -> list[Phase]:
    """What the fit will need; of a selector without a budget the most that it can need."""
    experiment = half_of(experiment, config.half)
    require_settings(config, experiment)
    size = Size.of(config, experiment, shape)
    return [size.training("stage 2", size.n_voxels) if selector.without_budget else size.stage_2()]
