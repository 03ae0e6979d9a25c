"""One self-supervised step: two views, two branches of one network (or of two), an objective, and the gates' budget.

branches   first view        second view
dense      dense pass        dense pass          an ordinary self-supervised network
gated      gated pass        gated pass          Krishna et al. 2022; the gated baseline of "Unifying synergies"
dual       gated pass        dense pass          "Unifying synergies": one encoder, one projector, gradients through both
two        gated pass of A   dense pass of B     two encoders, two projectors ("Unifying synergies", table 5)

The loss is that of the whole batch: over all processes (learning/processes.py) and, with `micro_batches` above 1, over the
micro-batches by gradient caching (learning/gradient_caching.py). Exact for every loss; batch-norm sees micro-batches.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.gating.objectives import OBJECTIVES
from pulvinar.gating.settings import Branches, GatedConfig, SelfSupervisedConfig
from pulvinar.learning.gradient_caching import cached_gradients
from pulvinar.learning.loop import seeded
from pulvinar.learning.processes import gather_rows, mean_over_processes
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet, Pass
from pulvinar.networks.heads import Head
from pulvinar.networks.macs import Macs
from pulvinar.selection.budget import BudgetConstraint, bound_loss, bound_schedule, bound_target, quadratic_penalty
from pulvinar.selection.decisive_gates import decide_schedule, undecided
from pulvinar.selection.route_choice import one_sided, usage

GATED_VIEWS = {"dense": (False, False), "gated": (True, True), "dual": (True, False), "two": (True, False)}
PASSES: dict[Branches, tuple[tuple[Pass, ...], ...]] = {  # of every encoder
    "dense": (("dense",),),
    "gated": (("gated",),),
    "dual": (("dense", "gated"),),
    "two": (("gated",), ("dense",)),
}
GENERATORS = ("weights", "order", "views", "gates")


def generator_of(name: str, seed: int) -> torch.Generator:
    """One of the generators that a run derives from its seed."""
    return seeded(seed * 64, GENERATORS.index(name), n_streams=len(GENERATORS))


@dataclass(frozen=True)
class Branch:
    """What one view gives: embeddings (image, dim), features (image, feature), shares and densities over the batch.

    predicted: only with a predictor. share, densities, rates (`GatedOutput`): differentiable, None in a dense pass. hard_share:
    as at inference. usage: of the routes (selection/route_choice.py), None where there are none.
    """

    projected: Tensor
    predicted: Tensor | None
    features: Tensor
    share: Tensor | None
    hard_share: Tensor | None
    densities: Tensor | None
    rates: Tensor | None
    usage: Tensor | None = None

    def differentiable(self) -> list[Tensor]:
        """The tensors through which the loss reaches the network."""
        parts = (self.projected, self.predicted, self.share, self.densities, self.rates, self.usage)
        return [part for part in parts if part is not None]

    def detached(self) -> "Branch":
        """The same numbers as leaves of a new graph."""

        def leaf(part: Tensor | None) -> Tensor | None:
            return None if part is None else part.detach().requires_grad_()

        return replace(
            self,
            projected=cast(Tensor, leaf(self.projected)),
            predicted=leaf(self.predicted),
            share=leaf(self.share),
            densities=leaf(self.densities),
            rates=leaf(self.rates),
            usage=leaf(self.usage),
            features=self.features.detach(),
        )


class SiameseNetwork(nn.Module):
    """Encoders, projectors and, for SimSiam, a predictor. `encoders`: one, or (gated, dense) for branches 'two'."""

    def __init__(
        self,
        encoders: Sequence[GatedResNet],
        *,
        branches: Branches,
        projector: Sequence[int],
        predictor_hidden: int | None = None,
    ) -> None:
        super().__init__()
        self.branches = branches
        self.encoders = nn.ModuleList(encoders)
        widths = [[encoder.shape.n_features, *projector] for encoder in encoders]
        simsiam = predictor_hidden is not None
        self.projectors = nn.ModuleList([Head(width, last_norm=simsiam) for width in widths])
        self.predictor = Head([projector[-1], cast(int, predictor_hidden), projector[-1]]) if simsiam else None

    def initialise(self, generator: torch.Generator, *, zero_residual: bool = False) -> "SiameseNetwork":
        """Draw all weights."""
        for encoder in self.encoders:
            cast(GatedResNet, encoder).initialise(generator, zero_residual=zero_residual)
        for head in self.projectors:
            cast(Head, head).initialise(generator)
        if self.predictor is not None:
            self.predictor.initialise(generator)
        return self

    def encoder(self, *, gated: bool) -> GatedResNet:
        """The encoder whose pass this is."""
        return cast(GatedResNet, self.encoders[0 if gated else -1])

    def gate_parameters(self) -> list[nn.Parameter]:
        """Parameters of the gates in all encoders."""
        return [p for encoder in self.encoders for p in cast(GatedResNet, encoder).gate_parameters()]

    def view(self, images: Tensor, *, gated: bool, generator: torch.Generator | None, all_open: bool) -> Branch:
        """One view through its pass, projector and predictor."""
        output = self.encoder(gated=gated)(images, gated, generator, all_open=all_open)
        projected = self.projectors[0 if gated else -1](output.features)
        return Branch(
            projected=projected,
            predicted=self.predictor(projected) if self.predictor is not None else None,
            features=output.features,
            share=output.mac_share if gated else None,
            hard_share=output.hard_share if gated else None,
            densities=output.densities if gated else None,
            rates=output.rates if gated else None,
            usage=None if output.chances is None else usage(output.chances),
        )

    def forward(
        self, views: Sequence[Tensor], generator: torch.Generator | None, *, all_open: bool = False, swapped: bool = False
    ) -> tuple[Branch, Branch]:
        """Both branches, the one of the gated pass first. swapped: the second view goes through the gated pass."""
        first, second = (views[1], views[0]) if swapped else (views[0], views[1])
        gated = GATED_VIEWS[self.branches]
        return (
            self.view(first, gated=gated[0], generator=generator, all_open=all_open),
            self.view(second, gated=gated[1], generator=generator, all_open=all_open),
        )


def make_encoders(config: SelfSupervisedConfig, size: int) -> list[GatedResNet]:
    """The encoders with torch's own initial weights."""
    gating = config.gating or GatedConfig()
    return [
        GatedResNet(
            config.shape(size), size=size, passes=passes, separate_norms=gating.separate_norms, gate_bias=gating.gate_bias
        )
        for passes in PASSES[config.pairing]
    ]


def make_network(config: SelfSupervisedConfig, size: int) -> SiameseNetwork:
    """Encoders, projectors and, where the objective has one, predictor, with initial weights from the run's seed."""
    has_predictor = OBJECTIVES[config.objective].has_predictor
    network = SiameseNetwork(
        make_encoders(config, size),
        branches=config.pairing,
        projector=[config.projector_width] * 3,
        predictor_hidden=config.predictor_hidden if has_predictor else None,
    )
    return network.initialise(generator_of("weights", config.seed), zero_residual=has_predictor)


def load_encoders(run: RunFolder, config: SelfSupervisedConfig, size: int) -> list[GatedResNet]:
    """The encoders of a finished run, in evaluation mode."""
    state = run.read("network")
    if state is None:
        raise InputError(f"{run.path}: has no finished network; continue the fit with --resume")
    encoders = make_encoders(config, size)
    for number, encoder in enumerate(encoders):
        encoder.load_state_dict(state["encoders"][str(number)])
        encoder.to(memory_format=torch.channels_last).eval()
    return encoders


class SiameseLoss:
    """The objective with its weights, and how the budget is held. macs: of the gated network."""

    def __init__(self, config: SelfSupervisedConfig, macs: Macs) -> None:
        self.config, gating = config, config.gating
        self.gating = None if gating is None or gating.budget_mode == "none" else gating
        self.gate_channels = macs.shape.gate_channels
        if self.gating:
            self.bound_target = bound_target(self.gating.budget, self.gating.bound_target, macs.density_for)
            self.decide_start = self.gating.descent_share if self.gating.budget_mode == "constraint" else 0.0

    def objective_terms(self, first: Branch, second: Branch) -> dict[str, Tensor]:
        """Terms of the objective for the images of all processes; their sum is its loss."""
        config = self.config
        a, b = gather_rows(first.projected), gather_rows(second.projected)
        objective = OBJECTIVES[config.objective]
        predicted = (gather_rows(cast(Tensor, branch.predicted)) for branch in (first, second) if objective.has_predictor)
        return objective.terms(config, a, b, *predicted)

    def budget_terms(self, branches: Sequence[Branch], done: float, constraint: BudgetConstraint | None) -> dict[str, Tensor]:
        """Budget, bound and decision terms of every gated branch, summed over the branches."""
        terms: dict[str, Tensor] = {}
        gating = self.gating
        if gating is None:
            return terms
        for branch in branches:
            if branch.share is None or branch.densities is None:
                continue
            share, densities = mean_over_processes(branch.share), mean_over_processes(branch.densities)
            held = (
                constraint.term(share) if constraint else quadratic_penalty(share, gating.budget, weight=gating.penalty_weight)
            )
            terms["budget"] = terms.get("budget", 0.0) + held
            if gating.bound_weight:
                bound = bound_loss(densities, self.bound_target, bound_schedule(done), weight=gating.bound_weight)
                terms["bound"] = terms.get("bound", 0.0) + bound
            if gating.decide_weight and branch.rates is not None:
                weight = gating.decide_weight * decide_schedule(done, start=self.decide_start)
                decide = weight * undecided(mean_over_processes(branch.rates), self.gate_channels)
                terms["decide"] = terms.get("decide", 0.0) + decide
        return terms

    def terms(
        self, branches: tuple[Branch, Branch], *, done: float, constraint: BudgetConstraint | None, with_budget: bool = True
    ) -> dict[str, Tensor]:
        """Every term of the loss after this share of the run; the loss is their sum."""
        terms = self.objective_terms(*branches)
        return terms | self.budget_terms(branches, done, constraint) | self.route_terms(branches) if with_budget else terms

    def route_terms(self, branches: Sequence[Branch]) -> dict[str, Tensor]:
        """The term that uses all routes, summed over the branches that have any."""
        weight = self.config.gating.route_weight if self.config.gating else 0.0
        found = [one_sided(mean_over_processes(branch.usage)) for branch in branches if branch.usage is not None]
        return {"routes": weight * torch.stack(found).sum()} if found and weight else {}


def total(terms: dict[str, Tensor]) -> Tensor:
    """The sum of the terms."""
    return torch.stack(list(terms.values())).sum()


def hard_share(branches: Sequence[Branch]) -> float | None:
    """Mean MAC share, as at inference, of the gated branches over all processes; None without one."""
    shares = [mean_over_processes(branch.hard_share) for branch in branches if branch.hard_share is not None]
    return float(torch.stack(shares).mean()) if shares else None


def joined(parts: Sequence[Branch]) -> Branch:
    """Micro-batches of equal size as one batch."""

    def rows(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.cat(values)

    def mean(name: str) -> Any:
        values = [getattr(part, name) for part in parts]
        return None if values[0] is None else torch.stack(values).mean(0)

    means = {name: mean(name) for name in ("share", "hard_share", "densities", "rates", "usage")}
    return Branch(projected=rows("projected"), predicted=rows("predicted"), features=rows("features"), **means)


class _NormStatistics:
    """Running statistics of all batch-norms, to be put back, so that a forward pass that is done twice counts once."""

    def __init__(self, network: nn.Module) -> None:
        self.buffers = [b for module in network.modules() if isinstance(module, BatchNorm) for b in module.buffers()]
        self.values = [buffer.clone() for buffer in self.buffers]

    def restore(self) -> None:
        """Back to what they were."""
        for buffer, value in zip(self.buffers, self.values, strict=True):
            buffer.copy_(value)


def cached_backward(
    network: SiameseNetwork,
    views: Sequence[Tensor],
    generator: torch.Generator | None,
    loss: Any,
    *,
    n_micro_batches: int,
    forward: Any = None,
    **options: Any,
) -> tuple[tuple[Branch, Branch], dict[str, Tensor]]:
    """Gradients of the whole batch's loss by gradient caching; both branches of the batch and the terms of the loss.

    loss: (branches) -> terms. forward: what runs the network (default: the network itself); options go to it.
    """
    run = forward or network
    parts = list(zip(*[view.chunk(n_micro_batches) for view in views], strict=True))
    statistics = _NormStatistics(network)
    seen: dict[str, Any] = {}

    def loss_of(pairs: Sequence[tuple[Branch, Branch]]) -> Tensor:
        seen["branches"] = tuple(joined([pair[n] for pair in pairs]) for n in (0, 1))
        seen["terms"] = loss(seen["branches"])
        return total(seen["terms"])

    cached_gradients(
        parts,
        lambda part: run(part, generator, **options),
        loss_of,
        detached=lambda pair: (pair[0].detached(), pair[1].detached()),
        tensors=lambda pair: [tensor for branch in pair for tensor in branch.differentiable()],
        generator=generator,
        between=statistics.restore,
    )
    return seen["branches"], seen["terms"]
