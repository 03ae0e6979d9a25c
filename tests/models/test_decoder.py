"""Oracles: the linear map at the start, written out; torch.nn.Dropout's expectation; gradients that are there or not."""

import pytest
import torch
from torch import nn

from pulvinar.models.decoder import DecoderShape, ResidualBlock, SharedDecoder, decayed_and_not, drop, initialise, input_layer

HIDDEN, DIM = 12, 7


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decoder(seed: int = 0, dropout: float = 0.3) -> SharedDecoder:
    shared = SharedDecoder(DecoderShape(hidden=HIDDEN, dim=DIM, n_blocks=2, dropout=dropout))
    shared.initialise(seeded(seed))
    return shared


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.randn(10, HIDDEN, generator=seeded(9))


def test_at_the_start_all_three_outputs_are_the_linear_map(hidden):
    shared = decoder()
    decoded = shared(hidden)
    linear = hidden @ shared.output.weight.T
    for output in (decoded.backbone, decoded.projected, decoded.regressed):
        torch.testing.assert_close(output, linear)
    assert linear.std() > 0.5  # not because everything is zero


def test_once_trained_the_decoder_is_not_linear(hidden):
    shared = decoder()
    with torch.no_grad():
        for weight in shared.start_at_zero:
            weight.normal_(generator=seeded(3))
    left = shared(2 * hidden).projected
    assert (left - 2 * shared(hidden).projected).abs().max() > 0.1


def test_residual_block_is_its_formula(hidden):
    block = ResidualBlock(HIDDEN, 0.5)
    inside = nn.functional.gelu(block.expand(nn.functional.layer_norm(hidden, (HIDDEN,))))
    torch.testing.assert_close(block(hidden, None), hidden + block.contract(inside))


def test_dropout_is_off_without_a_generator_and_the_same_for_the_same_seed(hidden):
    shared = decoder()
    assert torch.equal(shared(hidden).projected, shared(hidden).projected)
    first, again = shared(hidden, seeded(1)).projected, shared(hidden, seeded(1)).projected
    assert torch.equal(first, again)
    assert not torch.equal(first, shared(hidden, seeded(2)).projected)
    assert not torch.equal(first, shared(hidden).projected)


def test_dropout_ignores_the_global_seed(hidden):
    torch.manual_seed(1)
    first = decoder()(hidden, seeded(1)).projected
    torch.manual_seed(2)
    assert torch.equal(first, decoder()(hidden, seeded(1)).projected)


def test_dropout_keeps_the_expectation():
    dropped = drop(torch.ones(200, 200), 0.3, seeded(4))
    torch.testing.assert_close(dropped.unique(), torch.tensor([0, 1 / 0.7]))
    # 40,000 draws: standard error of the mean sqrt(.3 / .7 / 40000) = .0033
    assert dropped.mean().item() == pytest.approx(1, abs=0.013)


def test_every_parameter_gets_a_gradient_within_three_steps(hidden):
    """Zero weights hold back what lies before them for a step (projector: last weight first), and no longer."""
    shared = decoder()
    target = torch.randn(10, DIM, generator=seeded(5))
    optimizer = torch.optim.SGD(shared.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        decoded = shared(hidden)
        ((decoded.projected - target).square().mean() + (decoded.regressed - target).square().mean()).backward()
        optimizer.step()
    without = [name for name, p in shared.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert without == []


def test_initial_weights_depend_on_the_generator_alone():
    torch.manual_seed(1)
    first = decoder(seed=4).state_dict()
    torch.manual_seed(2)
    again, other = decoder(seed=4).state_dict(), decoder(seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["output.weight"], other["output.weight"])


def test_initialising_a_trained_decoder_leaves_nothing_of_the_training():
    trained = decoder(seed=1)
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(1.0)
    trained.initialise(seeded(4))
    fresh = decoder(seed=4).state_dict()
    assert all(torch.equal(fresh[name], value) for name, value in trained.state_dict().items())


def test_initial_spread_is_the_scale_over_the_root_of_the_fan_in():
    layer = input_layer(400, 300, seeded(0), scale=0.1)
    # 120,000 draws: standard error of the spread 1 / sqrt(240000) = .2 %
    assert layer.weight.std().item() == pytest.approx(0.1 / 20, rel=0.01)
    assert not layer.bias.any()
    plain = nn.Linear(400, 300)
    initialise(plain, seeded(0))
    torch.testing.assert_close(plain.weight * 0.1, layer.weight)


def test_weight_decay_acts_on_matrices_only():
    shared = decoder()
    matrices, vectors = decayed_and_not(shared.parameters())
    names = {id(p): name for name, p in shared.named_parameters()}
    decayed = {names[id(p)] for p in matrices}
    assert len(matrices) + len(vectors) == len(names)
    assert all(name.endswith("weight") for name in decayed)
    linear = {f"{name}.weight" for name, part in shared.named_modules() if isinstance(part, nn.Linear)}
    assert decayed == linear
