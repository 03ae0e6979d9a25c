"""Oracles: the linear map at the start, written out; torch.nn.Dropout's expectation; gradients that are there or not;
MindEye2's forward pass, written out."""

import pytest
import torch
from torch import nn

from pulvinar.networks.decoder import (
    DeadMixer,
    DecoderShape,
    ResidualBlock,
    SharedDecoder,
    decayed_and_not,
    drop,
    initialise,
    input_layer,
)

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
    for output in (decoded.output, decoded.projected, decoded.regressed):
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


@pytest.mark.parametrize("mixer", ["residual", "compat"])
def test_dropout_drawn_before_is_dropout_drawn_on_the_way(hidden, mixer):
    """Oracle: numbers drawn place by place, as the network comes to them."""
    shared = SharedDecoder(DecoderShape(hidden=HIDDEN, dim=DIM, n_blocks=2, dropout=0.3, mixer=mixer))
    shared.initialise(seeded(0))
    with torch.no_grad():
        for weight in shared.start_at_zero:
            weight.normal_(generator=seeded(3))
    generator = seeded(1)
    factors = shared.draw_dropout(len(hidden), generator)
    places, generator_of_loop = (3, seeded(1)) if mixer == "residual" else (4, seeded(1))
    expected = [(torch.rand(hidden.shape, generator=generator_of_loop) >= 0.3) / 0.7 for _ in range(places)]
    torch.testing.assert_close(factors, torch.stack(expected))
    assert torch.equal(generator.get_state(), generator_of_loop.get_state())
    assert torch.equal(shared(hidden, factors).projected, shared(hidden, seeded(1)).projected)
    without = shared(hidden).projected
    for place in range(places):  # each place counts (compat: what is dropped inside a dead block reaches nothing)
        changed = factors.clone()
        changed[place] = 0
        assert torch.equal(shared(hidden, changed).projected, shared(hidden, factors).projected) == (
            mixer == "compat" and place % 2 == 0
        )
    assert not torch.equal(without, shared(hidden, factors).projected)
    assert SharedDecoder(DecoderShape(hidden=8, dim=2, n_blocks=1, dropout=0.0)).draw_dropout(3, seeded(0)) is None


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


# --- tokens -------------------------------------------------------------------------------------------------------------


def of_tokens(mixer: str = "residual", n_tokens: int = 5) -> SharedDecoder:
    shape = DecoderShape(hidden=HIDDEN, dim=DIM, n_blocks=2, dropout=0.0, n_tokens=n_tokens, mixer=mixer)
    shared = SharedDecoder(shape)
    shared.initialise(seeded(0))
    with torch.no_grad():
        for weight in shared.start_at_zero:
            weight.normal_(generator=seeded(3))
    return shared


@pytest.mark.parametrize("mixer", ["residual", "compat"])
def test_every_token_goes_through_the_same_projector_and_head_by_itself(mixer, hidden):
    shared = of_tokens(mixer)
    decoded = shared(hidden)
    assert decoded.projected.shape == (10, 5 * DIM)
    for token in range(5):
        own = slice(token * DIM, (token + 1) * DIM)
        output = decoded.output[:, own]
        inner = shared.projector(output)
        torch.testing.assert_close(decoded.projected[:, own], inner + output if mixer == "residual" else inner)
        torch.testing.assert_close(decoded.regressed[:, own], shared.regression(output))


def test_the_projector_is_as_wide_as_a_token_and_for_a_pooled_embedding_as_the_network():
    assert of_tokens().projector[2].out_features == DIM
    assert decoder().projector[2].out_features == HIDDEN
    narrow = DecoderShape(hidden=HIDDEN, dim=DIM, n_blocks=0, dropout=0.0, projector_width=3)
    assert SharedDecoder(narrow).projector[2].out_features == 3


# --- MindEye2's mixer ---------------------------------------------------------------------------------------------------


def mindeye2_mixer(x: torch.Tensor, mixer: DeadMixer) -> torch.Tensor:
    """The loop of its BrainNetwork.forward on (row, sequence of 1, hidden), written out."""
    x = x[:, None, :]
    residual1, residual2 = x, x.permute(0, 2, 1)
    gelu, norm = nn.functional.gelu, nn.functional.layer_norm
    for number, norm1 in enumerate(mixer.norms):
        first, second = mixer.over_hidden[number]
        x = second(gelu(first(norm(x, (HIDDEN,), norm1.weight, norm1.bias)))) + residual1
        residual1 = x
        x = x.permute(0, 2, 1)
        over = mixer.sequence_norms[number]
        first, second = mixer.over_sequence[number]
        x = second(gelu(first(norm(x, (1,), over.weight, over.bias)))) + residual2
        residual2 = x
        x = x.permute(0, 2, 1)
    return x[:, 0]


def random_compat() -> SharedDecoder:
    """Any weights; those of LayerNorm(1) are 1, as at the start: nothing but rounding moves them, and they do not decay."""
    shared = of_tokens("compat")
    with torch.no_grad():
        for number, (name, parameter) in enumerate(shared.named_parameters()):
            if not ("sequence_norms" in name and name.endswith("weight")):
                parameter.normal_(generator=seeded(number))
    return shared


def test_compat_is_mindeye2s_mixer(hidden):
    shared = random_compat()
    torch.testing.assert_close(shared.blocks[0](hidden, None), mindeye2_mixer(hidden, shared.blocks[0]))


def test_the_compat_mixer_is_dead_gradients_are_exactly_zero_and_voxels_to_tokens_is_linear(hidden):
    shared = random_compat()
    shared(hidden).projected.square().sum().backward()
    mixer = shared.blocks[0]
    dead = [*mixer.norms.parameters(), *mixer.over_hidden.parameters()]
    assert len(dead) == 2 * (2 + 4)
    assert all(parameter.grad.abs().max() == 0 for parameter in dead)
    assert shared.output.weight.grad.abs().max() > 0
    constant = shared(torch.zeros(1, HIDDEN)).output
    torch.testing.assert_close(
        shared(3 * hidden).output - constant, 3 * (shared(hidden).output - constant), rtol=1e-4, atol=1e-4
    )
    alive = of_tokens("residual")  # the default is not linear
    constant = alive(torch.zeros(1, HIDDEN)).output
    assert (alive(3 * hidden).output - constant - 3 * (alive(hidden).output - constant)).abs().max() > 0.1


def test_compat_starts_from_torchs_own_initial_weights():
    shape = DecoderShape(hidden=400, dim=DIM, n_blocks=1, dropout=0.0, mixer="compat")
    shared = SharedDecoder(shape)
    shared.initialise(seeded(1))
    weight = shared.output.weight
    assert weight.abs().max() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.05)  # 2,800 draws: 4 standard errors
    assert shared.output.bias.abs().max() > 0
