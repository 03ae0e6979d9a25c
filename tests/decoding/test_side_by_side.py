"""Oracle: the same decoders trained one after the other."""

from dataclasses import replace

import pytest
import torch

from pulvinar.decoding import side_by_side
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.methods import troi
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer

N_VOXELS, N_TRIALS, HIDDEN, DIM = (30, 12, 21), 60, 16, 6
SETTINGS = troi.Config(
    epochs=4,
    batch_size=8,
    learning_rate=1e-2,
    weight_decay=0.05,
    mixed_share=0.5,  # two epochs of MixCo, two of SoftCLIP
    mixing_beta=0.2,
    temperature=0.2,
    soft_temperature=0.2,
    soft_temperature_end=0.1,
    prior_weight=5.0,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def decoder(dropout: float, mixer: str = "residual") -> SharedDecoder:
    shared = SharedDecoder(DecoderShape(hidden=HIDDEN, dim=DIM, n_blocks=2, dropout=dropout, mixer=mixer))
    shared.initialise(seeded(1))
    with torch.no_grad():
        for weight in shared.start_at_zero:
            weight.normal_(0, 0.1, generator=seeded(2))
    return shared


def trainers(shared: SharedDecoder, *, train_shared: bool = False) -> list[DecoderTrainer]:
    """A decoder on each of the numbers of voxels; the draws of each differ after its initial weights."""
    made = []
    for place, n in enumerate(N_VOXELS):
        generator = seeded(3)
        layer = input_layer(n, HIDDEN, generator, scale=0.1)
        data = (torch.randn(N_TRIALS, n, generator=seeded(10 + place)), torch.randn(N_TRIALS, DIM, generator=seeded(9)))
        made.append(DecoderTrainer(shared, [layer], [data], SETTINGS, generator, train_shared=train_shared))
    return made


@pytest.mark.long
@pytest.mark.parametrize(("dropout", "mixer"), [(0.2, "residual"), (0.0, "residual"), (0.2, "compat")])
def test_decoders_side_by_side_become_what_each_becomes_alone(dropout, mixer):
    alone, together = trainers(decoder(dropout, mixer)), trainers(decoder(dropout, mixer))
    start = [trainer.layers[0].weight.detach().clone() for trainer in together]
    for trainer in alone:
        for _ in side_by_side.train([trainer]):
            pass
    assert sum(1 for _ in side_by_side.train(together)) == SETTINGS.epochs
    for one, other, before in zip(alone, together, start, strict=True):
        assert other.done
        torch.testing.assert_close(other.layers[0].weight, one.layers[0].weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other.layers[0].bias, one.layers[0].bias, rtol=1e-4, atol=1e-5)
        assert (other.layers[0].weight - before).abs().max() > 0.01
        assert torch.equal(other.generator.get_state(), one.generator.get_state())  # the same draws


def test_a_group_of_one_is_the_trainer_itself():
    alone, plain = trainers(decoder(0.2))[0], trainers(decoder(0.2))[0]
    for _ in side_by_side.train([alone]):
        plain.run_epoch()
    assert torch.equal(alone.layers[0].weight, plain.layers[0].weight)


def test_groups_hold_what_fits():
    shape = DecoderShape(hidden=1024, dim=64, n_blocks=2, dropout=0.1)
    room = side_by_side.NUMBERS_AT_ONCE // 1024
    sizes = [room // 2, room // 2, 1, room + 1, 1, 1]
    assert side_by_side.groups(sizes, shape, SETTINGS, train_shared=False) == [[0, 1], [2], [3], [4, 5]]
    tokens = replace(shape, n_tokens=side_by_side.NUMBERS_AT_ONCE // (64 * SETTINGS.batch_size * 2))
    assert side_by_side.groups([1] * 5, tokens, SETTINGS, train_shared=False) == [[0, 1], [2, 3], [4]]
    assert side_by_side.groups([], shape, SETTINGS, train_shared=False) == []


@pytest.mark.parametrize("changes", [{"lora_rank": 2}, {"micro_batches": 2}, {}])
def test_each_is_alone_where_the_shared_part_changes_or_a_step_has_parts(changes):
    groups = side_by_side.groups([1, 1], decoder(0.1).shape, replace(SETTINGS, **changes), train_shared=not changes)
    assert groups == [[0], [1]]
