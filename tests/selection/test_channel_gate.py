"""Oracles: the logistic distribution in closed form, scipy's quantiles, the derivative of the sigmoid."""

import pytest
import torch
from scipy.stats import kstest

from pulvinar.selection.channel_gate import TEMPERATURE, by_group, logistic_noise, n_groups, open_gates, straight_through_gate


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("logit", [-3.0, -0.5, 0.0, 1.0, 4.0])
def test_keep_rate_is_the_sigmoid_of_the_logit(logit):
    n = 200_000
    gates = straight_through_gate(torch.full((n, 1), logit), logistic_noise(n, 1, generator()))
    rate = torch.sigmoid(torch.tensor(logit)).item()
    assert set(gates.unique().tolist()) <= {0.0, 1.0}
    assert gates.mean().item() == pytest.approx(rate, abs=4 * (rate * (1 - rate) / n) ** 0.5)


def test_noise_is_standard_logistic():
    noise = logistic_noise(2000, 10, generator(1))
    assert noise.dtype == torch.float32
    assert torch.isfinite(noise).all()
    assert logistic_noise(2, 3, generator(), device="meta").device.type == "meta"
    assert kstest(noise.flatten().numpy(), "logistic").pvalue > 0.01


@pytest.mark.parametrize("temperature", [TEMPERATURE, 0.3])
def test_gradient_is_that_of_the_soft_gate_with_the_noise_fixed(temperature):
    logits = torch.randn((7, 5), generator=generator(2), dtype=torch.float64).requires_grad_()
    noise = logistic_noise(7, 5, generator(3))
    weight = torch.randn((7, 5), generator=generator(4), dtype=torch.float64)
    (straight_through_gate(logits, noise, temperature=temperature) * weight).sum().backward()
    soft = 1 / (1 + torch.exp(-(logits.detach() + noise) / temperature))
    torch.testing.assert_close(logits.grad, weight * soft * (1 - soft) / temperature)


def test_without_noise_a_gate_is_open_where_its_logit_is_not_negative():
    logits = torch.tensor([[-1e-6, 0.0, 1e-6, -2.0]])
    expected = torch.tensor([[0.0, 1.0, 1.0, 0.0]])
    assert torch.equal(open_gates(logits), expected)
    assert torch.equal(straight_through_gate(logits, None), expected)
    double = logits.double().requires_grad_()
    straight_through_gate(double, None).sum().backward()
    soft = torch.sigmoid(1.5 * logits.double())  # temperature 2/3, the papers'
    torch.testing.assert_close(double.grad, 1.5 * soft * (1 - soft))


def test_noise_stays_finite_at_the_ends_of_the_uniform_numbers(monkeypatch):
    """Closed form: log u - log(1 - u) at u = 2^-24 and 1 - 2^-24, the ends of float32's uniform numbers but for 0."""
    monkeypatch.setattr(torch, "rand", lambda *shape, **options: torch.tensor([[0.0, 2**-25, 0.5, 1 - 2**-24]]))
    ends = torch.tensor(2.0**24 - 1).double().log().float()
    torch.testing.assert_close(logistic_noise(1, 4, generator()), torch.stack([-ends, -ends, 0 * ends, ends])[None])


def test_gates_and_noise_have_the_type_that_is_named():
    for given, wanted in ((torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)):
        logits = torch.linspace(-1, 1, 12, dtype=given).view(4, 3).requires_grad_()
        gates = straight_through_gate(logits, logistic_noise(4, 3, generator()))
        assert gates.dtype == straight_through_gate(logits, None).dtype == wanted
        assert open_gates(logits).dtype == given
        assert not open_gates(logits).requires_grad


def test_parts_of_a_batch_get_the_rows_of_the_whole_batch():
    whole = logistic_noise(6, 3, generator(5))
    parts = [logistic_noise(2, 3, generator(5), part=(index, 3)) for index in range(3)]
    assert torch.equal(torch.cat(parts), whole)


@pytest.mark.parametrize(("group", "n_channels"), [(1, 5), (2, 5), (4, 8), (16, 5)])
def test_channels_of_a_group_share_their_decision_and_its_gradient_is_the_sum(group, n_channels):
    decisions = torch.randn((6, n_groups(n_channels, group)), generator=generator(6), dtype=torch.float64).requires_grad_()
    noise = logistic_noise(*decisions.shape, generator())
    spread = [by_group(part, group=group, n_channels=n_channels) for part in (decisions, noise)]
    gates = straight_through_gate(*spread)
    assert gates.shape == (6, n_channels)
    weight = torch.randn((6, n_channels), generator=generator(7), dtype=torch.float64)
    (gates * weight).sum().backward()
    soft = torch.sigmoid((decisions.detach() + noise) / TEMPERATURE)
    for channel in range(n_channels):
        assert torch.equal(gates[:, channel], (decisions + noise)[:, channel // group].ge(0).double())
    for number in range(decisions.shape[1]):
        together = weight[:, number * group : (number + 1) * group].sum(1)
        slope = soft[:, number] * (1 - soft[:, number]) / TEMPERATURE
        torch.testing.assert_close(decisions.grad[:, number], slope * together)
