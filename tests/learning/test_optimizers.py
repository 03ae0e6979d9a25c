"""Oracles: lightly's LARS without clipping, the rule spelled out in a loop, torch's SGD, the schedule by hand."""

import math
import subprocess
import sys

import pytest
import torch
from lightly.utils import lars
from torch import nn

from pulvinar.learning.optimizers import LARS, SGD, Adam, AdamW, make_optimizer, parameter_groups, set_rates, warm_up_cosine
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.heads import Head
from pulvinar.networks.resnet_shape import resnet_shape


def parameters(seed: int = 0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in ((4, 3), (2, 3, 3, 3), (5,))
    ]


def gradients(step: int, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(100 + step)
    shapes = ((4, 3), (2, 3, 3, 3), (5,))
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def run(optimizer: torch.optim.Optimizer, weights: list[nn.Parameter], *, scale: float = 1.0) -> None:
    for step in range(5):
        for weight, gradient in zip(weights, gradients(step, scale), strict=True):
            weight.grad = gradient.clone()
        optimizer.step()


def test_without_clipping_it_is_lightlys():
    ours, theirs = parameters(), parameters()
    run(LARS(ours, 0.3, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02, clip=False), ours)
    run(lars.LARS(theirs, 0.3, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_with_clipping_it_is_timms(scale):
    timm = pytest.importorskip("timm.optim")
    ours, theirs = parameters(), parameters()
    run(LARS(ours, 0.3, momentum=0.9, weight_decay=1e-3, trust_coefficient=0.02), ours, scale=scale)
    options = {"momentum": 0.9, "weight_decay": 1e-3, "trust_coeff": 0.02, "trust_clip": True, "always_adapt": True}
    run(timm.Lars(theirs, lr=0.3, **options), theirs, scale=scale)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("scale", [0.01, 1.0])
def test_rule_with_clipping_and_exclusions_in_a_loop(scale):
    """Small gradients would get a trust ratio above the rate; clipping makes their step a plain one."""
    weights, rate, decay = parameters(), 0.3, 1e-3
    expected = [weight.detach().clone() for weight in weights]
    velocity = [torch.zeros_like(weight) for weight in expected]
    for step in range(5):
        for n, gradient in enumerate(gradients(step, scale)):
            if expected[n].ndim > 1:
                norm, slope = expected[n].norm(), gradient.norm()
                trust = min(0.02 * norm / (slope + decay * norm + 1e-8) / rate, 1.0)
            else:
                trust = 1.0
            update = trust * (gradient + (decay * expected[n] if expected[n].ndim > 1 else 0.0))
            velocity[n] = 0.9 * velocity[n] + update
            expected[n] = expected[n] - rate * velocity[n]
    groups = [
        {"params": weights[:2], "weight_decay": decay, "scaled": True},
        {"params": weights[2:], "weight_decay": 0.0, "scaled": False},
    ]
    run(LARS(groups, rate, momentum=0.9, trust_coefficient=0.02), weights, scale=scale)
    for a, b in zip(weights, expected, strict=True):
        torch.testing.assert_close(a.detach(), b)


def test_unscaled_it_is_sgd():
    ours, theirs = parameters(), parameters()
    run(LARS([{"params": ours, "scaled": False}], 0.1, momentum=0.9, weight_decay=0.01), ours)
    run(torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.01), theirs)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_groups_exclude_gates_and_vectors_from_decay_and_vectors_from_scaling():
    network = GatedResNet(resnet_shape("resnet18", size=32, width=0.125), size=32, gate_bias=0.0)
    predictor = Head([8, 4, 8])
    both = nn.ModuleList([network, predictor])
    groups = parameter_groups(both, network.gate_parameters(), predictor, weight_decay=1e-4, gate_rate=2.0, vector_rate=0.5)
    assert sum(len(group["params"]) for group in groups) == len(list(both.parameters()))
    of_gates = {id(p) for p in network.gate_parameters()}
    for group in groups:
        for parameter in group["params"]:
            assert group["scaled"] == (parameter.ndim > 1)
            decayed = parameter.ndim > 1 and id(parameter) not in of_gates
            assert group["weight_decay"] == (1e-4 if decayed else 0.0)
            expected = (2.0 if id(parameter) in of_gates else 1.0) * (1.0 if parameter.ndim > 1 else 0.5)
            assert group["rate_share"] == expected
    optimizer = make_optimizer("lars", groups, learning_rate=0.3, momentum=0.9, trust_coefficient=0.02)
    set_rates(optimizer, 0.3, 0.1)
    constant = [group["lr"] for group in optimizer.param_groups if group.get("constant")]
    assert constant == pytest.approx([0.3, 0.15])
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.03)


def test_schedule_by_hand():
    assert warm_up_cosine(0.05, warm_share=0.1) == pytest.approx(0.5)
    assert warm_up_cosine(0.1, warm_share=0.1) == pytest.approx(1.0)
    assert warm_up_cosine(0.55, warm_share=0.1) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)
    assert warm_up_cosine(1.0, warm_share=0.1) == pytest.approx(0.0)
    assert warm_up_cosine(0.0, warm_share=0.0) == 1.0


@pytest.mark.parametrize(
    ("ours", "theirs", "options"),
    [(Adam, torch.optim.Adam, {}), (AdamW, torch.optim.AdamW, {"fused": True}), (SGD, torch.optim.SGD, {"momentum": 0.9})],
)
def test_optimizers_without_the_compiler_take_torchs_own_steps(ours, theirs, options):
    """Oracle: torch's, bit for bit, state included."""
    walked = []
    for kind in (ours, theirs):
        weight = torch.nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        optimizer = kind([weight], lr=0.1, **options)
        for _ in range(3):
            optimizer.zero_grad()
            (weight**4).sum().backward()
            optimizer.step()
        walked.append((weight.detach(), optimizer.state_dict()["state"][0]))
    torch.testing.assert_close(walked[0], walked[1], rtol=0, atol=0)


@pytest.mark.long
def test_what_a_fit_imports_has_no_compiler_no_statistics_and_nothing_that_draws():
    code = """
import sys, torch
import pulvinar.app.fit, pulvinar.app.evaluate, pulvinar.app.rsa
import pulvinar.decoding.methods.troi, pulvinar.gating.methods.self_supervised
from pulvinar.learning.optimizers import SGD, Adam, AdamW, LARS
for kind in (SGD, Adam, AdamW, LARS):
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([weight], lr=.1)
    (weight ** 2).sum().backward()
    optimizer.step(), optimizer.zero_grad(), optimizer.load_state_dict(optimizer.state_dict())
unwanted = {"torch._dynamo", "sympy", "scipy.stats", "sklearn", "pandas", "matplotlib", "nilearn", "nibabel"}
print(*sorted(unwanted & set(sys.modules)))
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
