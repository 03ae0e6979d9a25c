"""Oracles: scipy's beta distribution, slow loops, the one-cycle formula, and a run that was never interrupted."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pulvinar.errors import DegenerateError
from pulvinar.models.decoder import Decoded, DecoderShape, SharedDecoder, input_layer
from pulvinar.training import checkpoints
from pulvinar.training.decoding import (
    DecoderTrainer,
    Mixing,
    decode,
    decoding_loss,
    draw_mixing,
    join_mixings,
    learning_rate_share,
)
from pulvinar.training.decoding_settings import TrainingSettings


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings(**changes) -> TrainingSettings:
    given = {
        "epochs": 6,
        "batch_size": 8,
        "learning_rate": 1e-2,
        "weight_decay": 0.05,
        "mixed_share": 0.5,
        "mixing_beta": 0.2,
        "temperature": 0.2,
        "soft_temperature": 0.1,
        "prior_weight": 5.0,
    }
    return TrainingSettings(**(given | changes))


# --- mixing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [0.05, 0.2, 1.0])
def test_mixing_weights_are_beta_distributed_on_half_of_the_rows(beta):
    weight = draw_mixing(20_000, seeded(0), beta=beta).weight.double().numpy()
    # (numbers that float32 rounds to 1 look unmixed; they are counted)
    everything = draw_mixing(20_000, seeded(1), beta=beta, mixed_rows=1.0).weight.double().numpy()
    assert ((everything >= 0) & (everything <= 1)).all()
    at = np.array([0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
    share = (everything[:, None] <= at).mean(0)
    np.testing.assert_allclose(share, stats.beta(beta, beta).cdf(at), atol=0.015)  # 4 standard errors of .0035
    expected_unmixed = 0.5 + 0.5 * (everything == 1).mean()
    assert (weight == 1).mean() == pytest.approx(expected_unmixed, abs=0.015)


def test_partners_are_a_permutation_and_depend_on_the_generator_alone():
    torch.manual_seed(0)
    first = draw_mixing(50, seeded(3), beta=0.2)
    torch.manual_seed(1)
    again = draw_mixing(50, seeded(3), beta=0.2)
    assert sorted(first.partner.tolist()) == list(range(50))
    assert torch.equal(first.weight, again.weight)
    assert torch.equal(first.partner, again.partner)


def test_mixed_rows_are_the_slow_loop():
    rows, mixing = torch.randn(6, 2, 3, generator=seeded(0)), draw_mixing(6, seeded(1), beta=1.0, mixed_rows=1.0)
    for row in range(6):
        w = mixing.weight[row]
        torch.testing.assert_close(mixing.apply(rows)[row], w * rows[row] + (1 - w) * rows[mixing.partner[row]])


def test_partners_of_later_subjects_point_at_their_own_rows():
    sizes = (4, 3, 5)
    mixings = [draw_mixing(n, seeded(n), beta=1.0, mixed_rows=1.0) for n in sizes]
    joined, rows = join_mixings(mixings), [torch.randn(n, 2, generator=seeded(10 + n)) for n in sizes]
    apart = torch.cat([mixing.apply(own) for mixing, own in zip(mixings, rows, strict=True)])
    torch.testing.assert_close(joined.apply(torch.cat(rows)), apart)
    start = 0
    for n in sizes:
        assert sorted(joined.partner[start : start + n].tolist()) == list(range(start, start + n))
        start += n


# --- loss and schedule --------------------------------------------------------------------------------------------------


def test_loss_is_equation_4_written_out():
    n, dim = 5, 4
    projected, regressed, target = (torch.randn(n, dim, generator=seeded(s), dtype=torch.float64) for s in range(3))
    decoded = Decoded(projected, projected, regressed.float())
    weight, partner = np.array([0.3, 1.0, 0.6, 0.9, 0.2]), np.array([1, 2, 0, 3, 4])
    for mixing in (None, Mixing(torch.tensor(weight), torch.tensor(partner))):
        p, c = (x.numpy() / np.linalg.norm(x.numpy(), axis=1, keepdims=True) for x in (projected, target))
        aims, wanted = np.zeros((n, n)), target.numpy().copy()
        if mixing is None:
            temperature = 0.1
            aims = np.exp(c @ c.T / temperature)
            aims /= aims.sum(1, keepdims=True)
        else:
            temperature = 0.2
            for i in range(n):
                aims[i, i] += weight[i]
                aims[i, partner[i]] += 1 - weight[i]
                wanted[i] = weight[i] * target[i].numpy() + (1 - weight[i]) * target[partner[i]].numpy()
        logits = np.exp(p @ c.T / temperature)
        forward = -(aims * np.log(logits / logits.sum(1, keepdims=True))).sum() / n
        backward = -(aims * np.log(logits / logits.sum(0, keepdims=True))).sum() / n
        expected = (forward + backward) / 2 + 5.0 * ((regressed.numpy() - wanted) ** 2).mean()
        assert decoding_loss(decoded, target, mixing, settings()).item() == pytest.approx(expected, rel=1e-5)


def test_one_cycle_values():
    def share(step):
        return learning_rate_share(step, 100, warm_share=0.3, schedule="one_cycle")

    assert share(0) == pytest.approx(0.04)
    assert share(15) == pytest.approx(0.52)  # half way up
    assert share(30) == pytest.approx(1.0)
    assert share(65) == pytest.approx(0.5)  # half way down
    assert share(99) == pytest.approx((1 + math.cos(math.pi * 69 / 70)) / 2)
    assert share(100) == pytest.approx(1e-5)
    values = [share(step) for step in range(100)]
    assert np.argmax(values) == 30
    assert (np.diff(values[:31]) > 0).all()
    assert (np.diff(values[30:]) < 0).all()
    assert {learning_rate_share(s, 10, warm_share=0.3, schedule="constant") for s in range(10)} == {1.0}


# --- trainer ------------------------------------------------------------------------------------------------------------

N_TRIALS, N_VOXELS, DIM = 26, (9, 11), 5


def trainer(*, n_subjects: int = 2, train_shared: bool = True, **changes) -> DecoderTrainer:
    generator = seeded(0)
    shared = SharedDecoder(DecoderShape(hidden=16, dim=DIM, n_blocks=1, dropout=0.2))
    shared.initialise(generator)
    layers = [input_layer(n, 16, generator, scale=0.5) for n in N_VOXELS[:n_subjects]]
    data = []
    for number, n in enumerate(N_VOXELS[:n_subjects]):
        target = torch.randn(N_TRIALS + 5 * number, DIM, generator=seeded(20 + number))
        mix = torch.randn(DIM, n, generator=seeded(30 + number))
        data.append((target @ mix + 0.1 * torch.randn(len(target), n, generator=seeded(40 + number)), target))
    return DecoderTrainer(shared, layers, data, settings(**changes), generator, train_shared=train_shared)


def everything(t: DecoderTrainer) -> list[torch.Tensor]:
    return [*t.shared.state_dict().values(), *(v for layer in t.layers for v in layer.state_dict().values())]


@pytest.mark.parametrize("stop_after", [1, 3, 5])  # in BiMixCo, at the change to SoftCLIP, after it
def test_resumed_training_gives_the_same_weights_bit_for_bit(tmp_path, stop_after):
    whole, begun = trainer(), trainer()
    losses = [whole.run_epoch() for _ in range(6)]
    first = [begun.run_epoch() for _ in range(stop_after)]
    checkpoints.save(tmp_path / "c", begun.state())
    resumed = trainer()
    resumed.restore(checkpoints.load(tmp_path / "c"))
    rest = []
    while not resumed.done:
        rest.append(resumed.run_epoch())
    assert first + rest == losses
    assert all(torch.equal(a, b) for a, b in zip(everything(whole), everything(resumed), strict=True))
    assert not torch.equal(everything(whole)[0], everything(begun)[0])


def test_training_lowers_the_loss_and_finds_the_images():
    t = trainer(epochs=60, mixed_share=0.0)
    losses = []
    while not t.done:
        losses.append(t.run_epoch())
    assert losses[-1] < 0.5 * losses[0]
    responses, target = t.data[0]
    projected = torch.nn.functional.normalize(decode(t.shared, t.layers[0], responses)["projected"], dim=1)
    found = (projected @ torch.nn.functional.normalize(target, dim=1).T).argmax(1)
    assert (found == torch.arange(N_TRIALS)).float().mean() > 0.9  # chance .04


def test_a_frozen_decoder_stays_as_it_was():
    t = trainer(n_subjects=1, train_shared=False)
    before = {name: value.clone() for name, value in t.shared.state_dict().items()}
    layer = t.layers[0].weight.detach().clone()
    t.run_epoch()
    assert all(torch.equal(before[name], value) for name, value in t.shared.state_dict().items())
    assert not torch.equal(layer, t.layers[0].weight)


def test_the_rate_of_every_step_is_the_schedules(monkeypatch):
    t, rates = trainer(), []
    step = t.optimizer.step
    monkeypatch.setattr(t.optimizer, "step", lambda: (rates.append([g["lr"] for g in t.optimizer.param_groups]), step())[1])
    while not t.done:
        t.run_epoch()
    n_steps = 6 * (N_TRIALS // 8)
    assert t.steps_per_epoch == 3
    expected = [1e-2 * learning_rate_share(s, n_steps, warm_share=0.3, schedule="one_cycle") for s in range(n_steps)]
    assert [pair[0] for pair in rates] == expected
    assert [pair[1] for pair in rates] == expected


def test_fewer_trials_than_a_batch_make_one_step():
    t = trainer(n_subjects=1, batch_size=100)
    assert t.steps_per_epoch == 1
    assert math.isfinite(t.run_epoch())


def test_a_loss_that_is_not_finite_names_the_epoch():
    t = trainer(n_subjects=1)
    t.data[0][0][3, 2] = float("nan")
    with pytest.raises(DegenerateError, match="epoch 1"):
        t.run_epoch()


def test_decoding_has_no_dropout_and_does_not_depend_on_the_batch():
    t = trainer(n_subjects=1)
    responses = t.data[0][0]
    whole, parts = decode(t.shared, t.layers[0], responses), decode(t.shared, t.layers[0], responses, rows_at_once=7)
    for name in ("projected", "regressed"):
        torch.testing.assert_close(whole[name], parts[name])
        assert not whole[name].requires_grad
    torch.testing.assert_close(whole["projected"], t.shared(t.layers[0](responses)).projected.detach())
