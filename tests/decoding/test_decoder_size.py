"""Oracles: the network itself; the trainers; the paper's widths, by hand."""

import numpy as np
import pytest
import scipy.sparse
import torch

from pulvinar.decoding import decoder_size
from pulvinar.decoding.decoder_size import Speed, low_rank_parameters, mask_phase, seconds, shared_parameters, training_phase
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.mask_training import FrozenDecoder, MaskSettings, MaskTrainer
from pulvinar.decoding.methods import troi
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer

SHAPES = [
    DecoderShape(hidden=16, dim=6, n_blocks=2, dropout=0.1),
    DecoderShape(hidden=16, dim=6, n_blocks=3, dropout=0.1, n_tokens=4),
    DecoderShape(hidden=16, dim=6, n_blocks=1, dropout=0.1, n_tokens=4, mixer="compat", projector_width=9),
]


def settings(**changes) -> troi.Config:
    given = {
        "epochs": 3,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "weight_decay": 0.0,
        "mixed_share": 0.5,
        "mixing_beta": 0.2,
        "temperature": 0.2,
        "soft_temperature": 0.2,
        "prior_weight": 1.0,
    }
    return troi.Config(**(given | changes))


@pytest.mark.parametrize("shape", SHAPES)
def test_parameters_and_multiply_adds_are_the_networks(shape):
    from torch.utils.flop_counter import FlopCounterMode

    network = SharedDecoder(shape)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        network(torch.zeros(5, shape.hidden))
    n_parameters, per_row = shared_parameters(shape)
    assert n_parameters == sum(p.numel() for p in network.parameters())
    assert 2 * 5 * per_row == counted.get_total_flops()


@pytest.mark.parametrize("train_shared", [True, False])
@pytest.mark.parametrize("lora_rank", [0, 3])
def test_a_training_phase_has_the_trainers_parameters_moments_and_steps(train_shared, lora_rank):
    generator, given = torch.Generator().manual_seed(0), settings(lora_rank=lora_rank)
    sizes, trials = (30, 50), (20, 26)
    shared = SharedDecoder(SHAPES[1])
    shared.initialise(generator)
    layers = [input_layer(n, 16, generator, scale=0.1) for n in sizes]
    data = [(torch.randn(n, v), torch.randn(n, 24)) for n, v in zip(trials, sizes, strict=True)]
    trainer = DecoderTrainer(shared, layers, data, given, generator, train_shared=train_shared)
    trainer.run_epoch()
    phase = training_phase("x", SHAPES[1], given, n_voxels=sizes, n_trials=trials, train_shared=train_shared)
    every = [*shared.parameters(), *[p for layer in layers for p in layer.parameters()]]
    assert phase.n_parameters == sum(p.numel() for p in every)
    assert phase.n_trained == sum(p.numel() for p in trainer.parameters)
    assert phase.gradients == sum(4 * p.grad.numel() for p in trainer.parameters)
    moments = [v for state in trainer.optimizer.state.values() for k, v in state.items() if k != "step"]
    assert phase.optimizer == sum(4 * value.numel() for value in moments)
    assert phase.n_steps == 3 * trainer.steps_per_epoch
    assert phase.data == sum(4 * (x.numel() + y.numel()) for x, y in data)
    assert low_rank_parameters(SHAPES[1], 3) > 0


def test_a_mask_phase_has_the_trainers_parameters_moments_and_steps():
    generator, shape = torch.Generator().manual_seed(0), SHAPES[0]
    shared = SharedDecoder(shape)
    shared.initialise(generator)
    given = MaskSettings(
        n_voxels=10,
        n_rounds=2,
        epochs_per_round=3,
        mask_batch_size=4,
        mask_learning_rate=1e-3,
        l1_weight=0.0,
        threshold=0.0,
        n_folds=3,
    )
    objective = FrozenDecoder(shared, torch.randn(30, 6), settings())
    trainer = MaskTrainer(
        torch.randn(30, 40), torch.arange(30) % 3, objective, scipy.sparse.eye_array(40, format="csr"), given, generator
    )
    trainer.run_epoch()
    phase = mask_phase(shape, given, n_voxels=40, n_trials=30)
    trained = [*trainer.weights, *trainer.biases, trainer.mask]
    assert phase.n_trained == sum(p.numel() for p in trained)
    assert phase.n_parameters == phase.n_trained + sum(p.numel() for p in shared.parameters())
    assert phase.gradients == 4 * trainer.gradient.numel()
    moments = [v for state in trainer.optimizer.state.values() for k, v in state.items() if k != "step"]
    assert phase.optimizer == sum(4 * value.numel() for value in moments)
    assert phase.n_steps == 2 * 3 * trainer.steps_per_epoch


def test_the_papers_size_by_hand():
    """96,000 voxels x 4,096 in float32 with gradients and both moments: 6.3 GB; 4,096 -> 256 x 1,664: 1.745e9 weights."""
    shape = DecoderShape(hidden=4096, dim=1664, n_blocks=4, dropout=0.15, n_tokens=256)
    layer = 96000 * 4096 + 4096
    output = 4096 * 256 * 1664 + 256 * 1664
    blocks = 4 * (2 * 4096**2 + 4 * 4096)
    projector = 3 * (1664**2 + 1664) + 3 * 2 * 1664
    head = 1664**2 + 1664
    expected = output + blocks + projector + head
    assert shared_parameters(shape)[0] == expected
    phase = training_phase("x", shape, settings(), n_voxels=[96000], n_trials=[700], train_shared=False)
    assert phase.n_parameters == layer + expected
    assert 4 * phase.gradients == pytest.approx(6.3e9, rel=0.01)
    assert phase.data == 4 * 700 * (96000 + 256 * 1664)  # targets under 2 GB are in memory


def test_micro_batches_and_wider_batches_change_activations_alone():
    shape = DecoderShape(hidden=64, dim=32, n_blocks=2, dropout=0.15, n_tokens=16)
    sizes = {"n_voxels": [100], "n_trials": [48], "train_shared": True}
    whole, parts = (training_phase("x", shape, settings(batch_size=24, micro_batches=n), **sizes) for n in (1, 6))
    assert parts.activations < 0.55 * whole.activations
    assert (parts.weights, parts.gradients, parts.optimizer) == (whole.weights, whole.gradients, whole.optimizer)
    assert parts.multiply_adds > whole.multiply_adds


def test_time_is_work_over_speed(monkeypatch):
    phase = training_phase("x", SHAPES[0], settings(), n_voxels=[40], n_trials=[24], train_shared=True)
    by_hand = 9 * (0.01 + phase.multiply_adds / 1e9 + 7 * 4 * phase.n_trained / 1e8)
    assert seconds(phase, Speed(1e9, 1e8, 0.01)) == pytest.approx(by_hand)
    measured = decoder_size.measure_speed(0.01)
    assert np.isfinite([measured.multiply_adds, measured.bytes]).all()
    assert min(measured.multiply_adds, measured.bytes) > 1e6
    assert 1e-5 < measured.step < 1
