"""Oracles: the logistic distribution in closed form, scipy's quantiles, the derivative of the sigmoid."""

import pytest
import torch
from scipy.stats import kstest

from pulvinar.selection.channel_gate import TEMPERATURE, logistic_noise, open_gates, straight_through_gate


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


def test_low_precision_logits_get_float32_noise():
    gates = straight_through_gate(torch.zeros((4, 3), dtype=torch.bfloat16), logistic_noise(4, 3, generator()))
    assert gates.dtype == torch.float32


def test_parts_of_a_batch_get_the_rows_of_the_whole_batch():
    whole = logistic_noise(6, 3, generator(5))
    parts = [logistic_noise(2, 3, generator(5), part=(index, 3)) for index in range(3)]
    assert torch.equal(torch.cat(parts), whole)
