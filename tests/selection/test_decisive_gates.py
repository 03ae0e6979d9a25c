"""Oracles: the law of total variance, the closed-form gradient, planted gates of which some must depend on the image."""

import pytest
import torch

from pulvinar.selection.decisive_gates import decide_schedule, decided, one_mask, undecided


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_noise_plus_dependence_on_the_image_averaged_gate_by_gate():
    soft = torch.sigmoid(random(50, 7))
    noise, dependence = (soft * (1 - soft)).mean(0), soft.var(0, correction=0)
    expected = 4 * (noise + dependence)
    whole = undecided(soft.mean(0), (3, 4))
    torch.testing.assert_close(whole, (expected[:3].mean() + expected[3:].mean()) / 2)


@pytest.mark.parametrize(("rates", "expected"), [([0.0, 1.0, 1.0], 0.0), ([0.5, 0.5, 0.5], 1.0)])
def test_decided_gates_cost_nothing_and_coins_one(rates, expected):
    assert undecided(torch.tensor(rates), (1, 2)).item() == pytest.approx(expected)


def test_gradient_is_the_derivative_by_hand():
    rates = torch.sigmoid(random(6)).requires_grad_()
    undecided(rates, (2, 4)).backward()
    sizes = torch.tensor([2, 2, 4, 4, 4, 4], dtype=torch.float64)
    torch.testing.assert_close(rates.grad, 4 * (1 - 2 * rates.detach()) / sizes / 2)


def test_channels_that_may_choose_decide_and_those_that_pay_for_it_do_not():
    """Two channels: one is wanted open for half of the images with force, the other without; only the second decides."""
    wanted = (random(64) > 0).double()
    logits = torch.nn.Parameter(torch.stack([2 * wanted - 1, 0.3 * (2 * wanted - 1) - 0.2], dim=1))
    force = torch.tensor([8.0, 0.01], dtype=torch.float64)
    optimizer = torch.optim.Adam([logits], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        soft = torch.sigmoid(logits)
        wish = (force * torch.nn.functional.binary_cross_entropy(soft, wanted[:, None].expand(-1, 2), reduction="none")).mean()
        (wish + undecided(soft.mean(0), (2,))).backward()
        optimizer.step()
    rates = (logits >= 0).double().mean(0)
    assert rates[0].item() == pytest.approx(wanted.mean().item())
    assert rates[1].item() in (0.0, 1.0)


def test_schedule_waits_for_the_budget_and_ends_whole():
    assert [decide_schedule(done, start=0.4) for done in (0.0, 0.4, 0.7, 1.0)] == pytest.approx([0.0, 0.0, 0.5, 1.0])
    assert decide_schedule(1.5, start=0.5) == 1.0
    assert decide_schedule(1.0, start=1.0) == 0.0  # no part of the run is left for it


def test_decided_are_the_channels_at_either_end():
    opened = torch.tensor([0.0, 0.01, 0.02, 0.5, 0.97, 0.99, 1.0])
    assert decided(opened, 0.01).tolist() == [-1, -1, 0, 0, 0, 1, 1]
    assert decided(opened, 0.0).tolist() == [-1, 0, 0, 0, 0, 0, 1]


def test_one_mask_takes_the_most_probable_channels_up_to_the_budget():
    """Oracle: every number of open channels tried; costs differ by gate."""
    chances = [
        torch.rand(7, generator=torch.Generator().manual_seed(1)),
        torch.rand(5, generator=torch.Generator().manual_seed(2)),
    ]

    def share(masks):
        return 0.05 + 0.1 * float(masks[0].sum()) / 7 + 0.85 * float(masks[1].sum()) / 5

    for budget in (0.05, 0.06, 0.3, 0.55, 0.99):
        found = one_mask(chances, share, budget)
        order = torch.cat(chances).sort(descending=True).values
        tried = [[part >= least for part in chances] for least in [2.0, *order.tolist()]]
        assert share(found) == min((share(masks) for masks in tried), key=lambda value: abs(value - budget))
        least = min([float(part[mask].min()) for part, mask in zip(chances, found, strict=True) if mask.any()], default=2.0)
        assert all(torch.equal(mask, part >= least) for part, mask in zip(chances, found, strict=True))
