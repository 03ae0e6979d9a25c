"""How a network with gates is held to a budget of multiply-adds: the papers' penalty, their bound loss, and a constraint.

Penalty (both papers): weight (share - budget)^2, weight 5. It is a wish: asked for 10 / 30 / 50 % the dual method of the paper
ends at 18-22 / 33-35 / 50-52 %.

Bound loss (Krishna et al. 2022, section 3.3, after DGNet), gates l = 1..L of density d_l, target density t, p falling from 1:

    weight [ mean_l relu(p t - d_l)^2 + mean_l relu(d_l - (1 - p + p t))^2 ].

At p = 1 every density is held at t; as p goes to 0 the bounds open to [0, 1]. The papers have p = exp(-0.02 epoch) over 500
epochs, that is exp(-10 x share of the run done), which is how it is written here. t is by `bound_target`: "solved" (ours) the
density that the budget implies, "density" the budget itself, "sqrt" its root (the papers' code).

Constraint (ours). The share that counts is the one of inference, by logit >= 0, without noise: h, averaged over steps. The term
added to the loss is

    (multiplier + stiffness e) share,   e = h - budget,   multiplier <- multiplier + rate e   after each step,

with the bracket held constant in the gradient: dual ascent on the multiplier plus the augmented Lagrangian's quadratic term.
The multiplier may be negative: the budget is met from both sides. In the last `frozen_share` of the run it stands still. In
the first `descent_share` the budget that counts falls linearly from the share at the start to the one asked, so that a network
whose gates start open first learns with most of its channels.

The tighter a budget, the fewer gates are open to be shut, and the dearer those are: a constraint of one gain comes too late,
when the logits of open gates have grown beyond the gradient's reach. So its gains grow with `tightness` (docs/log.md).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import bar

BoundTarget = Literal["solved", "density", "sqrt"]
BudgetMode = Literal["constraint", "penalty", "none"]
BOUND_DECAY = 10.0  # the papers: exp(-0.02 epoch), 500 epochs
USUAL_BUDGET = 0.3  # for which the constraint's rate and stiffness are set


def quadratic_penalty(share: Float[Tensor, ""], budget: float, *, weight: float = 5.0) -> Float[Tensor, ""]:
    """weight (share - budget)^2. "Unifying synergies", equation 3."""
    return weight * (share - budget) ** 2


def bound_schedule(done: float) -> float:
    """p after this share of the run: exp(-10 done), from 1 to 0.00005."""
    return math.exp(-BOUND_DECAY * done)


def bound_target(budget: float, kind: BoundTarget, density_for: Callable[[float], float]) -> float:
    """The density t that the bounds start from. density_for: the density that a MAC share implies (`Macs.density_for`)."""
    if kind == "solved":
        return density_for(budget)
    return budget if kind == "density" else math.sqrt(budget)


def bound_loss(densities: Float[Tensor, " gate"], target: float, p: float, *, weight: float = 1.0) -> Float[Tensor, ""]:
    """The bound loss above, for the mean density of every gate over the batch."""
    below = torch.relu(p * target - densities).square().mean()
    above = torch.relu(densities - (1 - p + p * target)).square().mean()
    return weight * (below + above)


def tightness(budget: float) -> float:
    """How much stiffer a constraint is for this budget than for USUAL_BUDGET and above; its rate grows by the square."""
    return max(1.0, USUAL_BUDGET / budget)


@dataclass
class BudgetConstraint:
    """State of the constraint above. `term` gives what is added to the loss, `update` is called after each step.

    rate: of the multiplier, per step and unit of e. stiffness: of the quadratic term. memory: of the running mean of the hard
    share (h <- memory h + (1 - memory) share of this batch).
    """

    budget: float
    rate: float
    stiffness: float
    memory: float = 0.8
    frozen_share: float = 0.1
    descent_share: float = 0.0
    multiplier: float = 0.0
    average: float | None = None
    start: float | None = None
    aim: float | None = None

    @property
    def error(self) -> float:
        """e: mean hard share minus the budget that counts now; 0 before the first step."""
        return 0.0 if self.average is None or self.aim is None else self.average - self.aim

    def _aim(self, done: float) -> float:
        """The budget that counts after this share of the run."""
        if self.start is None or done >= self.descent_share:
            return self.budget
        return self.start + (self.budget - self.start) * done / self.descent_share

    def term(self, share: Float[Tensor, ""]) -> Float[Tensor, ""]:
        """(multiplier + stiffness e) share; its gradient is the constraint's, its value is of no use."""
        return (self.multiplier + self.stiffness * self.error) * share

    def update(self, hard_share: float, done: float) -> None:
        """Take in the hard share of one step, after this share of the run (0 to 1)."""
        if not math.isfinite(hard_share):
            raise DegenerateError(f"hard_share: a share of the multiply-adds is needed, {hard_share} came")
        self.start = hard_share if self.start is None else self.start
        before = hard_share if self.average is None else self.average
        self.average = self.memory * before + (1 - self.memory) * hard_share
        self.aim = self._aim(done)
        if done < 1 - self.frozen_share:
            self.multiplier += self.rate * self.error

    def state(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        for field in fields(self):
            setattr(self, field.name, state[field.name])


@dataclass(frozen=True)
class Shift:
    """A number added to every logit, and the MAC share that it gives."""

    shift: float
    share: float


def bisect_logit_shift(
    share_at: Callable[[float], float],
    budget: float,
    *,
    tolerance: float = 1e-3,
    first: float = 0.02,
    largest: float = 100.0,
    n_steps: int = 24,
    at_most: bool = False,
) -> Shift:
    """The shift s of all logits whose MAC share is nearest to the budget, among those tried; 0 if that is near enough.

    share_at: MAC share of the network (by logit + s >= 0) on training images; it grows with s, up to steps and to what gates do
    to the logits behind them. From 0 the shift doubles from `first` until the budget lies between two shifts, then is halved in
    between, until |share - budget| <= tolerance. `InputError` where no shift up to `largest` reaches the budget.
    at_most: a share below the budget keeps it; where even the largest shift stays below, the nearest one is the answer.
    """
    with bar("shifting the gates onto the budget, tries", None) as shown:

        def counted(shift: float) -> float:
            share = share_at(shift)
            shown.advance(note=f"share {share:.4f}")
            return share

        tried = _tried_shifts(counted, budget, tolerance, first=first, largest=largest, n_steps=n_steps, at_most=at_most)
    return min(tried, key=lambda trial: (abs(trial.share - budget), abs(trial.shift)))


def _tried_shifts(
    share_at: Callable[[float], float],
    budget: float,
    tolerance: float,
    *,
    first: float,
    largest: float,
    n_steps: int,
    at_most: bool,
) -> list[Shift]:
    """All shifts that the bisection looks at, in its order."""
    tried = [Shift(0.0, share_at(0.0))]
    if abs(tried[0].share - budget) <= tolerance:
        return tried
    sign = 1.0 if tried[0].share < budget else -1.0
    near, far = 0.0, sign * first
    while True:
        tried.append(Shift(far, share_at(far)))
        if sign * (tried[-1].share - budget) >= 0:
            break
        if abs(far) >= largest and at_most and sign > 0:
            break
        if abs(far) >= largest:
            shares = [trial.share for trial in tried]
            raise InputError(
                f"budget: shifting every gate reaches MAC shares of {min(shares):.4f} to {max(shares):.4f}, not {budget}"
            )
        near, far = far, 2 * far
    reached = sign * (tried[-1].share - budget) >= 0
    for _ in range(n_steps if reached else 0):
        if abs(tried[-1].share - budget) <= tolerance:
            break
        middle = (near + far) / 2
        tried.append(Shift(middle, share_at(middle)))
        near, far = (near, middle) if sign * (tried[-1].share - budget) >= 0 else (middle, far)
    return tried
