"""Oracles: the formulas worked by hand, a world of gates whose share is known in closed form."""

import math

import pytest
import torch

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.selection.budget import (
    BudgetConstraint,
    Shift,
    bisect_logit_shift,
    bound_loss,
    bound_schedule,
    bound_target,
    quadratic_penalty,
    tightness,
)
from pulvinar.selection.channel_gate import logistic_noise, straight_through_gate


def test_penalty_and_its_gradient_by_hand():
    share = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    loss = quadratic_penalty(share, 0.3)
    loss.backward()
    assert loss.item() == pytest.approx(5 * 0.04)
    assert share.grad.item() == pytest.approx(10 * 0.2)


def test_bound_loss_by_hand():
    densities = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    p, target = 0.5, 0.4  # bounds .2 and .7
    assert bound_loss(densities, target, p, weight=2.0).item() == pytest.approx(2 * (0.1**2 + 0.2**2) / 3)
    assert bound_loss(densities, target, 0.0).item() == 0.0  # bounds 0 and 1
    at_the_start = ((densities - target) ** 2).mean().item()
    assert bound_loss(densities, target, 1.0).item() == pytest.approx(at_the_start)


def test_bound_schedule_is_the_papers_over_500_epochs():
    for epoch in (0, 50, 200, 500):
        assert bound_schedule(epoch / 500) == pytest.approx(math.exp(-0.02 * epoch))


def test_bound_targets():
    macs = count_macs(resnet_shape("resnet18", size=224, stem="papers"), 224)
    assert bound_target(0.1, "density", macs.density_for) == 0.1
    assert bound_target(0.25, "sqrt", macs.density_for) == 0.5
    solved = bound_target(0.1, "solved", macs.density_for)
    assert solved == pytest.approx(0.026, abs=5e-4)
    assert macs.share([torch.full((1,), solved)] * 8).item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("budget", [0.2, 0.4, 0.7])
def test_constraint_ends_on_the_budget_and_keeps_the_gates_that_are_worth_most(budget):
    """100 gates worth 0 to 2 each: the budget keeps the best."""
    worth = torch.linspace(0, 2, 100)

    def train(constraint: BudgetConstraint | None) -> torch.Tensor:
        logits = torch.zeros((4, 100), requires_grad=True)
        generator, n_steps = torch.Generator().manual_seed(0), 300
        optimizer = torch.optim.SGD([logits], lr=1.0)
        for step in range(n_steps):
            gates = straight_through_gate(logits, logistic_noise(4, 100, generator))
            share = gates.mean()
            term = quadratic_penalty(share, budget) if constraint is None else constraint.term(share)
            optimizer.param_groups[0]["lr"] = 100.0 * (1 + math.cos(math.pi * step / n_steps)) / 2
            optimizer.zero_grad()
            (term - (worth * gates).mean()).backward()
            optimizer.step()
            if constraint is not None:
                constraint.update((logits >= 0).float().mean().item(), (step + 1) / n_steps)
        return (logits >= 0).float().mean(0)

    assert abs(train(None).mean().item() - budget) > 0.05  # the penalty
    constraint = BudgetConstraint(budget=budget, rate=0.06, stiffness=2.0)
    kept = train(constraint)
    assert kept.mean().item() == pytest.approx(budget, abs=0.02)
    n_kept = round(100 * budget)
    assert kept[-n_kept + 3 :].min() == 1
    assert kept[: -n_kept - 3].max() == 0


def test_constraint_by_hand_and_frozen_at_the_end():
    constraint = BudgetConstraint(budget=0.3, rate=0.5, stiffness=2.0, memory=0.5, frozen_share=0.2)
    assert constraint.term(torch.tensor(1.0)).item() == 0.0
    constraint.update(0.5, 0.1)
    assert constraint.multiplier == pytest.approx(0.1)
    constraint.update(0.1, 0.2)  # mean .3
    assert constraint.multiplier == pytest.approx(0.1)
    constraint.update(0.5, 0.8)  # mean .4; frozen from here on
    assert constraint.multiplier == pytest.approx(0.1)
    share = torch.tensor(0.4, requires_grad=True)
    constraint.term(share).backward()
    assert share.grad.item() == pytest.approx(0.1 + 2.0 * 0.1)


def test_constraint_descends_from_the_share_at_the_start():
    constraint = BudgetConstraint(budget=0.2, rate=0.0, stiffness=1.0, memory=0.0, descent_share=0.4)
    for share, done, aim in ((1.0, 0.0, 1.0), (0.9, 0.1, 0.8), (0.5, 0.2, 0.6), (0.7, 0.4, 0.2), (0.6, 0.9, 0.2)):
        constraint.update(share, done)
        assert constraint.error == pytest.approx(share - aim)


def test_constraint_is_restored_from_its_state():
    constraint = BudgetConstraint(budget=0.3, rate=0.5, stiffness=2.0)
    constraint.update(0.6, 0.0)
    other = BudgetConstraint(budget=0.1, rate=0.0, stiffness=0.0)
    other.restore(constraint.state())
    assert other == constraint


def test_constraint_refuses_what_is_not_a_share():
    with pytest.raises(DegenerateError, match="nan"):
        BudgetConstraint(budget=0.3, rate=1.0, stiffness=1.0).update(math.nan, 0.0)


def test_a_constraint_is_stiffer_by_how_much_its_budget_is_below_three_tenths():
    assert [tightness(budget) for budget in (0.1, 0.15, 0.3, 0.6, 1.0)] == pytest.approx([3, 2, 1, 1, 1])


def shifts_tried(share_at, budget: float, **settings) -> tuple[list[float], Shift]:
    """Every shift that was tried, in order, and the one that was found."""
    tried = []

    def recorded(shift: float) -> float:
        tried.append(shift)
        return share_at(shift)

    return tried, bisect_logit_shift(recorded, budget, **settings)


@pytest.mark.parametrize(
    ("budget", "tolerance", "tried", "found"),
    [
        (0.4375, 0.0, [0, 0.25, 0.5, 1, 2, 4, 3], 3),
        (0.0625, 0.0, [0, -0.25, -0.5, -1, -2, -4, -3], -3),
        (0.3125, 0.0, [0, 0.25, 0.5, 1], 1),  # met while it doubles
        (0.1875, 0.0, [0, -0.25, -0.5, -1], -1),
        (0.2578125, 0.0, [0, 0.25, 0.125], 0.125),  # between 0 and the first
        (0.34375, 1 / 64, [0, 0.25, 0.5, 1, 2, 1.5], 1.5),
        (0.34375, 1 / 32, [0, 0.25, 0.5, 1, 2], 1),  # as far from it as 2 is: the smaller shift
        (0.34375, 3 / 32, [0], 0),  # exactly as near as is asked
        (0.28125, 0.25 / 16, [0, 0.25, 0.5], 0.5),
        (0.328125, 0.25 / 16, [0, 0.25, 0.5, 1, 2, 1.5], 1),  # 1.5 is at the tolerance, and so was 1
    ],
)
def test_shifts_double_from_the_first_and_are_halved_in_between(budget, tolerance, tried, found):
    """Worked by hand on a share of 1/4 + s/16, which is exact in binary."""
    sequence, shift = shifts_tried(lambda s: 0.25 + s / 16, budget, first=0.25, tolerance=tolerance)
    assert sequence == tried
    assert shift == Shift(float(found), 0.25 + found / 16)


def test_halving_stops_after_its_steps_and_doubling_at_the_largest():
    def step(shift: float) -> float:
        return 0.25 if shift < 1 / 3 else 0.75

    sequence, found = shifts_tried(step, 0.45, first=0.25, n_steps=3)
    assert (sequence, found) == ([0, 0.25, 0.5, 0.375, 0.3125, 0.34375], Shift(0.0, 0.25))
    sequence, found = shifts_tried(step, 0.55, first=0.25)
    assert (len(sequence), found) == (3 + 24, Shift(min(shift for shift in sequence if shift >= 1 / 3), 0.75))
    for settings, tried in (
        ({"first": 25.0}, [0, 25, 50, 100]),
        ({"first": 100.0}, [0, 100]),
        ({"largest": 0.05}, [0, 0.02, 0.04, 0.08]),
    ):
        sequence, found = shifts_tried(lambda s: 0.25 + s / 1000, 0.9, **settings, at_most=True)
        assert sequence == pytest.approx(tried)
        assert found == Shift(sequence[-1], 0.25 + sequence[-1] / 1000)
        with pytest.raises(InputError, match=rf"shares of 0\.2500 to {found.share:.4f}, not 0\.9"):
            bisect_logit_shift(lambda s: 0.25 + s / 1000, 0.9, **settings)


@pytest.mark.parametrize("budget", [0.1, 0.5, 0.9])
def test_shift_is_the_quantile_of_the_logits(budget):
    logits = torch.randn(100_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bisect_logit_shift(lambda shift: (logits + shift >= 0).double().mean().item(), budget, tolerance=1e-4)
    assert found.share == pytest.approx(budget, abs=1e-4)
    assert found.shift == pytest.approx(-torch.quantile(logits, 1 - budget).item(), abs=2e-3)


def test_no_shift_where_none_is_needed_and_an_error_where_none_helps():
    assert bisect_logit_shift(lambda shift: 0.3004, 0.3).shift == 0.0
    with pytest.raises(InputError, match=r"0\.4000 to 0\.4000, not 0\.3"):
        bisect_logit_shift(lambda shift: 0.4, 0.3)
    with pytest.raises(InputError, match="reaches"):
        bisect_logit_shift(lambda shift: min(0.996, 0.5 + shift), 1.0)
    assert bisect_logit_shift(lambda shift: min(0.996, 0.5 + shift), 1.0, at_most=True).share == 0.996
    with pytest.raises(InputError, match="reaches"):
        bisect_logit_shift(lambda shift: 0.4, 0.3, at_most=True)
