"""A diffusion prior trained with the decoder. Oracles: the prior's own loss, the same run stopped and gone on, torch's count of
multiply-adds, decoders trained one by one."""

import copy
import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pulvinar.decoding import side_by_side
from pulvinar.decoding.decoder_runs import OpenedDecoder
from pulvinar.decoding.decoder_size import _prior_multiply_adds, shared_parameters
from pulvinar.decoding.decoder_training import DecoderTrainer, decode, decoding_loss, draw_mixing
from pulvinar.decoding.mask_training import FrozenDecoder, LossRows
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.networks.diffusion_prior import CONDITION_DROPOUT

pytest.importorskip("diffusers")
SHAPE = DecoderShape(
    hidden=12, dim=4, n_tokens=2, n_blocks=1, dropout=0.1, prior_layers=1, prior_heads=2, prior_head_dim=4
)  # fmt: skip
SETTINGS = DecodingSettings(epochs=4, batch_size=8, hidden=12, learning_rate=1e-2, prior="diffusion")


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shared_decoder(shape: DecoderShape = SHAPE) -> SharedDecoder:
    shared = SharedDecoder(shape)
    shared.initialise(seeded(1))
    return shared


def trainer_of(shared: SharedDecoder, *, n_voxels: int = 20, seed: int = 2, train_shared: bool = True, **changes):
    responses = torch.randn(32, n_voxels, generator=seeded(seed))
    target = responses[:, :8] @ torch.randn(8, 8, generator=seeded(9))
    layer = input_layer(n_voxels, 12, seeded(seed), scale=0.1)
    settings = dataclasses.replace(SETTINGS, **changes)
    return DecoderTrainer(shared, [layer], [(responses, target)], settings, seeded(seed), train_shared=train_shared)


def weights_of(trainer: DecoderTrainer) -> list[torch.Tensor]:
    return [*trainer.shared.state_dict().values(), *trainer.layers[0].state_dict().values()]


@pytest.mark.long
@pytest.mark.parametrize("mixed", [False, True])
def test_the_error_is_the_prior_s_own_loss(mixed):
    shared, target = shared_decoder(), torch.randn(6, 8, generator=seeded(0))
    with torch.no_grad():
        shared.prior.transformer.proj_to_clip_embeddings.weight.normal_(generator=seeded(3))
    decoded = shared(torch.randn(6, 12, generator=seeded(4)))
    mixing = draw_mixing(6, seeded(5), beta=0.2) if mixed else None
    whole, none = (
        decoding_loss(
            decoded, target, mixing, dataclasses.replace(SETTINGS, prior_weight=weight), prior=shared.prior,
            generators=[seeded(7)],
        )
        for weight in (3.0, 0.0)
    )  # fmt: skip
    wanted = target if mixing is None else mixing.apply(target)
    error = shared.prior.loss(wanted, decoded.output, seeded(7), condition_dropout=CONDITION_DROPOUT)
    assert (whole - none).item() == pytest.approx(3 * error.item(), rel=1e-5)


def test_it_is_trained_with_the_decoder_and_goes_on_bit_for_bit():
    whole = trainer_of(shared_decoder())
    losses = [whole.run_epoch()["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    fresh = shared_decoder().state_dict()
    moved = [name for name, value in whole.shared.state_dict().items() if not torch.equal(value, fresh[name])]
    assert any(name.startswith("prior.") for name in moved)
    first = trainer_of(shared_decoder())
    first.run_epoch()
    first.run_epoch()
    state = copy.deepcopy(first.state())
    second = trainer_of(shared_decoder())
    second.restore(state)
    assert [second.run_epoch()["loss"] for _ in range(2)] == losses[2:]
    assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(second), strict=True))


def test_micro_batches_have_the_gradient_of_the_whole():
    gradients = []
    for n_parts in (1, 3):
        trainer = trainer_of(shared_decoder(dataclasses.replace(SHAPE, dropout=0.0)), micro_batches=n_parts, dropout=0.0)
        trainer._backward(*trainer.draw_batch(0, trainer.draw_orders()))
        gradients.append([p.grad for p in trainer.shared.prior.parameters() if p.grad is not None])
    assert gradients[0]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_controls_side_by_side_become_what_they_are_alone():
    shared = shared_decoder()
    with torch.no_grad():
        shared.prior.transformer.proj_to_clip_embeddings.weight.normal_(0, 0.3, generator=seeded(3))
    alone = [trainer_of(shared, n_voxels=n, seed=n, train_shared=False) for n in (15, 20, 25)]
    together = [trainer_of(shared, n_voxels=n, seed=n, train_shared=False) for n in (15, 20, 25)]
    for trainer in alone:
        while not trainer.done:
            trainer.run_epoch()
    for _ in side_by_side.train(together):
        pass
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.layers[0].weight, other.layers[0].weight, atol=2e-4, rtol=1e-3)


def test_stage_1_draws_its_noise_from_the_trials_alone():
    shared, target = shared_decoder(), torch.randn(30, 8, generator=seeded(0))
    with torch.no_grad():
        shared.prior.transformer.proj_to_clip_embeddings.weight.normal_(generator=seeded(3))
    objective = FrozenDecoder(shared, target, SETTINGS)

    def rows(trials: torch.Tensor) -> LossRows:
        outputs = torch.randn(len(trials), 12, generator=seeded(5)).requires_grad_(True)
        return LossRows(outputs, trials, draw_mixing(len(trials), seeded(6), beta=0.2), None)

    first, second = rows(torch.arange(6)), rows(torch.arange(6, 12))
    both = objective.losses([first, second])
    torch.testing.assert_close(both, torch.cat([objective.losses([first]), objective.losses([second])]))
    (gradient,) = torch.autograd.grad(both.sum(), [first.outputs])
    linear = FrozenDecoder(shared_decoder(dataclasses.replace(SHAPE, prior_layers=0)), target, SETTINGS).losses([first])
    assert gradient.abs().max() > 0
    assert linear.item() != pytest.approx(both[0].item())


def test_what_is_reconstructed_is_a_sample_and_retrieval_does_without():
    trainer = trainer_of(shared_decoder())
    while not trainer.done:
        trainer.run_epoch()
    responses = trainer.data[0][0]
    assert list(decode(trainer.shared, trainer.layers[0], responses)) == ["projected"]
    opened = OpenedDecoder(
        shared=trainer.shared, layer=trainer.layers[0], selected=None, embedding=None, scaling="train_stats", n_sessions=None
    )  # type: ignore[arg-type]
    one, again = opened.outputs(responses), opened.outputs(responses)
    assert torch.equal(one["regressed"], again["regressed"])
    assert not torch.equal(one["regressed"], one["output"])


@pytest.mark.parametrize("n_tokens", [1, 16])
def test_multiply_adds_are_those_that_torch_counts(n_tokens):
    shape = dataclasses.replace(SHAPE, n_tokens=n_tokens, dim=32, prior_layers=2, prior_heads=2, prior_head_dim=16)
    with torch.device("meta"):
        network = SharedDecoder(shape)
    size = n_tokens * 32
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network.prior(torch.empty(1, size), torch.zeros(1, dtype=torch.long), torch.empty(1, size))
    assert _prior_multiply_adds(network) == pytest.approx(counter.get_total_flops() / 2, rel=0.01)
    plain = shared_parameters(dataclasses.replace(shape, prior_layers=0))
    more = shared_parameters(shape)
    assert more[0] - plain[0] == sum(p.numel() for p in network.prior.parameters()) - 32 * 32 - 32
    assert more[1] > plain[1]
