"""Oracles: log(batch) at the start and for shuffled sides; planted directions are found; a budget is met; what is refused."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pulvinar.core.errors import DegenerateError
from pulvinar.encoding.methods.tuning import ContrastiveConfig, RegressionConfig
from pulvinar.encoding.response_heads import ContrastiveHead, RegressionHead
from pulvinar.encoding.response_tuning import ResponseTuner, TunedPart, TunedSubject, spread

N_IMAGES, N_HELD_OUT = 160, 40


def tuner_of(*, objective="contrastive", shuffled=False, subjects=("one",), **settings) -> ResponseTuner:
    """Inputs of 12 numbers; responses follow three directions of them, that a linear network of 4 outputs has to find."""
    rng = np.random.default_rng(0)
    inputs = torch.from_numpy(rng.standard_normal((N_IMAGES, 12)).astype(np.float32))
    given = {}
    for name in subjects:
        signal = inputs[:, :3].numpy() @ rng.standard_normal((3, 20)) / 3**0.5 + 0.3 * rng.standard_normal((N_IMAGES, 20))
        values = torch.from_numpy(signal[rng.permutation(N_IMAGES)] if shuffled else signal).float()
        given[name] = TunedSubject(
            rows=np.arange(N_HELD_OUT, N_IMAGES),
            responses=values[N_HELD_OUT:],
            held_out_rows=np.arange(N_HELD_OUT),
            held_out_responses=values[:N_HELD_OUT],
        )
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 4), nn.Dropout(0.1))
    widths = dict.fromkeys(subjects, 20)
    head = ContrastiveHead(4, widths) if objective == "contrastive" else RegressionHead(4, widths)
    part = TunedPart(
        network=network,
        read=lambda rows: inputs[torch.from_numpy(rows)],
        n_images=N_IMAGES,
        parameters=dict(network.named_parameters()),
    )
    wanted = {"epochs": 30, "patience": None, "batch_size": 40, "learning_rate": 1e-2}
    config = ContrastiveConfig if objective == "contrastive" else RegressionConfig
    return ResponseTuner(
        part,
        head,
        given,
        config(**(wanted | settings)),
    )


def run(tuner: ResponseTuner) -> list[dict]:
    records = []
    while not tuner.done:
        records.append(tuner.run_steps(seconds=100))
    return records


@pytest.mark.long
@pytest.mark.parametrize("objective", ["contrastive", "regression"])
def test_planted_directions_are_found(objective):
    """Held-out images score far below an uninformative model, whose loss stands in the record."""
    tuner = tuner_of(objective=objective)
    records = run(tuner)
    chance = (
        math.log(40) if objective == "contrastive" else float(next(iter(tuner.subjects.values())).responses.square().mean())
    )
    assert records[0]["chance"] == pytest.approx(chance)
    assert min(record["validation_loss"] for record in records) < 0.75 * records[-1]["validation_chance"]
    assert tuner.finish()["best_epoch"] >= 1


def test_shuffled_responses_leave_held_out_images_at_log_batch():
    """Leak test of the loop: over all epochs no held-out loss falls clearly below log(40)."""
    records = run(tuner_of(shuffled=True, epochs=15))
    assert min(record["validation_loss"] for record in records) > math.log(40) - 0.15


def test_patience_ends_the_epochs_and_the_best_weights_remain():
    tuner = tuner_of(shuffled=True, patience=2, epochs=200)
    records = run(tuner)
    losses = [record["validation_loss"] for record in records]
    assert len(records) == 1 + int(np.argmin(losses)) + 2
    found = tuner.finish()
    assert found == {"best_epoch": 1 + int(np.argmin(losses)), "validation_loss": min(losses)}
    assert tuner.validation_loss()[0] == pytest.approx(min(losses), rel=1e-5)


def test_subjects_take_turns():
    tuner = tuner_of(subjects=("one", "two"), epochs=1)
    assert tuner.turns == ["one", "two"] * 3
    seen = [np.sort(places) for _, places in tuner._batches()]
    np.testing.assert_array_equal(np.sort(np.concatenate(seen[::2])), np.arange(N_IMAGES - N_HELD_OUT))


def test_a_tuner_restored_inside_an_epoch_gives_the_same_weights():
    whole, stopped = tuner_of(epochs=2), tuner_of(epochs=2)
    run(whole)
    for _ in range(4):
        stopped.run_steps(seconds=0)
    resumed = tuner_of(epochs=2)
    resumed.restore(stopped.state())
    run(resumed)
    for ours, theirs in zip(resumed.head.parameters(), whole.head.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for name, value in resumed.part.parameters.items():
        assert torch.equal(value, whole.part.parameters[name])


def test_a_loss_that_is_not_finite_ends_the_run():
    tuner = tuner_of(objective="regression")
    next(iter(tuner.subjects.values())).responses[:] = math.inf
    with pytest.raises(DegenerateError, match="Lower the learning rate"):
        run(tuner)


def test_spread_is_one_for_directions_over_the_sphere_and_zero_when_collapsed():
    assert spread(torch.randn(2000, 30, generator=torch.Generator().manual_seed(0))) == pytest.approx(1, abs=0.02)
    assert spread(torch.ones(20, 30)) == pytest.approx(0, abs=1e-6)
