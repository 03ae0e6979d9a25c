"""Oracles: scipy's beta distribution, slow loops, the one-cycle formula, and a run that was never interrupted."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from pulvinar.core.errors import DegenerateError
from pulvinar.decoding.decoder_training import (
    DecoderTrainer,
    Mixing,
    decode,
    decoding_loss,
    draw_mixing,
    join_mixings,
    micro_batches,
)
from pulvinar.decoding.methods import troi
from pulvinar.learning import checkpoints
from pulvinar.learning.optimizers import one_cycle
from pulvinar.networks.decoder import Decoded, DecoderShape, SharedDecoder, input_layer


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings(**changes) -> troi.Config:
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
    return troi.Config(**(given | changes))


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
        return one_cycle(step / 100, warm_share=0.3)

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


def test_the_rate_without_rewinding_stays_at_a_tenth():
    assert {settings(rewind="kept_constant").learning_rate_at(step / 10) for step in range(10)} == {1e-3}
    assert settings().learning_rate_at(0.3) == pytest.approx(1e-2)


def test_soft_temperature_is_mindeye2s_cosine_anneal():
    given = settings(epochs=12, mixed_share=1 / 3, soft_temperature=0.004, soft_temperature_end=0.0075)
    steps = 12 - 4
    theirs = 0.0075 + (0.004 - 0.0075) / 2 * (1 + np.cos(np.pi * np.arange(steps) / (steps - 1)))
    assert given.n_mixed_epochs == 4
    np.testing.assert_allclose([given.soft_temperature_at(epoch) for epoch in range(4, 12)], theirs, rtol=1e-12)
    assert {settings().soft_temperature_at(epoch) for epoch in range(3, 6)} == {0.1}


def test_half_precision_outputs_have_a_loss_in_float32():
    projected, target = (torch.randn(6, 4, generator=seeded(s)) for s in range(2))
    mixing = draw_mixing(6, seeded(2), beta=0.2)
    decoded = Decoded(projected.bfloat16(), projected.bfloat16(), projected.bfloat16())
    rounded = Decoded(*(part.float() for part in (decoded.output, decoded.projected, decoded.regressed)))
    with torch.autocast("cpu", torch.bfloat16):
        inside = decoding_loss(decoded, target, mixing, settings())
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, decoding_loss(rounded, target, mixing, settings()))


# --- trainer ------------------------------------------------------------------------------------------------------------

N_TRIALS, N_VOXELS, DIM = 26, (9, 11), 5


def trainer(*, n_subjects: int = 2, train_shared: bool = True, dropout: float = 0.2, **changes) -> DecoderTrainer:
    generator = seeded(0)
    shared = SharedDecoder(DecoderShape(hidden=16, dim=DIM, n_blocks=1, dropout=dropout))
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
    records = list(whole.run())
    first = [begun.run_epoch() for _ in range(stop_after)]
    checkpoints.save(tmp_path / "c", begun.state())
    resumed = trainer()
    resumed.restore(checkpoints.load(tmp_path / "c"))
    assert first + list(resumed.run()) == records
    assert all(torch.equal(a, b) for a, b in zip(everything(whole), everything(resumed), strict=True))
    assert not torch.equal(everything(whole)[0], everything(begun)[0])


@pytest.mark.long
def test_training_lowers_the_loss_and_finds_the_images():
    t = trainer(epochs=60, mixed_share=0.0)
    losses = [record["loss"] for record in t.run()]
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
    expected = [1e-2 * one_cycle(s / n_steps, warm_share=0.3) for s in range(n_steps)]
    assert [pair[0] for pair in rates] == expected
    assert [pair[1] for pair in rates] == expected


def test_fewer_trials_than_a_batch_make_one_step():
    t = trainer(n_subjects=1, batch_size=100)
    assert t.steps_per_epoch == 1
    assert math.isfinite(t.run_epoch()["loss"])


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights():
    t = trainer(n_subjects=1)
    order = torch.randperm(N_TRIALS, generator=torch.Generator().set_state(t.generator.get_state()))
    t.data[0][0][order[8 + 3], 2] = float("nan")  # in the second step of the epoch
    steps = []
    step = t.optimizer.step
    t.optimizer.step = lambda: (step(), steps.append([value.clone() for value in everything(t)]))
    with pytest.raises(DegenerateError, match="epoch 1, step 2 of 3: the loss is nan"):
        t.run_epoch()
    assert len(steps) == 1
    assert all(torch.equal(a, b) for a, b in zip(everything(t), steps[0], strict=True))


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    t = trainer(n_subjects=1)
    before = [value.clone() for value in everything(t)]
    t.layers[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DegenerateError, match="epoch 1, step 1 of 3: the length of the gradient is"):
        t.run_epoch()
    assert all(torch.equal(a, b) for a, b in zip(everything(t), before, strict=True))


@pytest.mark.parametrize("n_parts", [2, 3, 8])
@pytest.mark.parametrize("mixed", [True, False])
def test_micro_batches_give_the_gradients_of_the_whole_batch(n_parts, mixed):
    """Oracle: the whole batch in one graph, float64, with the same dropout."""
    gradients = []
    for parts in (1, n_parts):
        t = trainer(dropout=0.3, micro_batches=parts)
        t.shared.double(), [layer.double() for layer in t.layers]
        inputs, targets = zip(*[(x[:8].double(), y[:8].double()) for x, y in t.data], strict=True)
        mixing = join_mixings([draw_mixing(8, seeded(n), beta=0.5) for n in (1, 2)]) if mixed else None
        loss = t._backward(inputs, torch.cat(targets), mixing)
        gradients.append([loss, *[p.grad for p in t.parameters]])
    for whole, cached in zip(*gradients, strict=True):
        torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-6)  # the loss itself is in float32


def test_parts_hold_equally_many_rows_of_every_subject_and_lose_none():
    inputs = [torch.arange(8.0)[:, None], 100 + torch.arange(8.0)[:, None]]
    parts, places = micro_batches(inputs, 3)
    assert [[len(x) for x in part] for part in parts] == [[3, 3], [3, 3], [2, 2]]
    stacked = torch.cat([torch.cat(part) for part in parts])[:, 0]
    assert torch.equal(torch.cat(inputs)[:, 0][torch.cat(places)], stacked)


@pytest.mark.long
def test_training_in_micro_batches_and_bfloat16_still_learns():
    t = trainer(epochs=40, mixed_share=0.0, micro_batches=2, precision="bfloat16")
    losses = [record["loss"] for record in t.run()]
    assert losses[-1] < 0.5 * losses[0]
    assert all(value.dtype == torch.float32 for value in everything(t))


def test_a_step_has_one_loss_over_the_rows_of_all_subjects():
    """Oracle: the loss of the stacked rows, partners moved by hand. Subjects apart would have 8 candidates each, not 16."""
    t = trainer(dropout=0.0)
    outputs, mixings, targets = [], [], []
    for number, ((x, y), layer) in enumerate(zip(t.data, t.layers, strict=True)):
        mixing = draw_mixing(8, seeded(number), beta=0.5, mixed_rows=1.0)
        outputs.append(t.shared(layer(mixing.apply(x[:8]))))
        mixings.append(mixing)
        targets.append(y[:8])
    joined = join_mixings(mixings)
    aims = np.zeros((16, 16))
    for number, mixing in enumerate(mixings):
        for row in range(8):
            aims[8 * number + row, 8 * number + row] += mixing.weight[row].item()
            aims[8 * number + row, 8 * number + mixing.partner[row].item()] += 1 - mixing.weight[row].item()
    h = torch.nn.functional.normalize(torch.cat([out.projected for out in outputs]), dim=1)
    c = torch.nn.functional.normalize(torch.cat(targets), dim=1)
    logits, aims = (h @ c.T / 0.2).double(), torch.from_numpy(aims)
    expected = -((aims * logits.log_softmax(1)).sum(1).mean() + (aims * logits.log_softmax(0)).sum(0).mean()) / 2
    regressed = torch.cat([out.regressed for out in outputs])
    expected = expected + 5.0 * (regressed - joined.apply(torch.cat(targets))).square().mean()
    inputs = [mixing.apply(x[:8]) for mixing, (x, _) in zip(mixings, t.data, strict=True)]
    torch.testing.assert_close(
        t._backward(inputs, torch.cat(targets), joined).double(), expected.detach(), rtol=1e-5, atol=1e-6
    )


def test_decay_acts_on_no_bias_and_no_norm():
    t = trainer()
    for group in t.optimizer.param_groups:
        assert {p.ndim > 1 for p in group["params"]} == {group["weight_decay"] > 0}
    assert len(t.parameters) == len(list(t.shared.parameters())) + 2 * len(t.layers)


# --- low-rank updates ---------------------------------------------------------------------------------------------------


def test_low_rank_updates_leave_the_frozen_weights_and_are_merged_at_the_end(tmp_path):
    t = trainer(n_subjects=1, train_shared=False, lora_rank=2, epochs=4)
    before = {name: value.clone() for name, value in trainer(n_subjects=1).shared.state_dict().items()}
    t.run_epoch()
    checkpoints.save(tmp_path / "c", t.state())
    resumed = trainer(n_subjects=1, train_shared=False, lora_rank=2, epochs=4)
    resumed.restore(checkpoints.load(tmp_path / "c"))
    for each in (t, resumed):
        while not each.done:
            each.run_epoch()
    frozen = {name.replace(".base_layer", ""): value for name, value in t.shared.state_dict().items() if "lora" not in name}
    assert all(torch.equal(before[name], value) for name, value in frozen.items())
    responses = t.data[0][0]
    apart = decode(t.shared, t.layers[0], responses)["projected"]
    for each in (t, resumed):
        each.merge_updates()
    assert list(t.shared.state_dict()) == list(before)
    torch.testing.assert_close(decode(t.shared, t.layers[0], responses)["projected"], apart, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(everything(t), everything(resumed), strict=True))
    changes = {
        name: torch.linalg.matrix_rank(value - before[name], atol=1e-4)
        for name, value in t.shared.state_dict().items()
        if value.ndim > 1
    }
    assert max(changes.values()) == 2
    assert not torch.equal(before["output.weight"], t.shared.output.weight)


def test_a_frozen_decoder_is_not_in_its_trainers_checkpoints():
    assert "shared" not in trainer(n_subjects=1, train_shared=False).state()
    assert "shared" in trainer(n_subjects=1).state()


def test_decoding_has_no_dropout_and_does_not_depend_on_the_batch():
    t = trainer(n_subjects=1)
    responses = t.data[0][0]
    whole, parts = decode(t.shared, t.layers[0], responses), decode(t.shared, t.layers[0], responses, rows_at_once=7)
    for name in ("projected", "regressed"):
        torch.testing.assert_close(whole[name], parts[name])
        assert not whole[name].requires_grad
    torch.testing.assert_close(whole["projected"], t.shared(t.layers[0](responses)).projected.detach())
