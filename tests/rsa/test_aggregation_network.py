"""The trainer with the network in the loop. Oracles: the scores of its epochs; the pairs counted one by one; finite steps."""

import copy

import pytest
import torch

from pulvinar.networks.staged import load_network
from pulvinar.rsa.aggregation import MeasuredRDMs
from pulvinar.rsa.aggregation_network import NetworkTrainer
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.scores.rdm import condense

N_IMAGES = 14


def _trainer(*, rate: float = 0.0, crop_share: float = 1.0, held_out: tuple[int, ...] = (0, 3, 4, 9, 13), seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.rand(N_IMAGES, 3, 40, 40, generator=generator)
    colour = pixels.mean((2, 3)).double()
    distance = torch.cdist(colour, colour) + 0.05
    distance = (distance - torch.diag(distance.diagonal())).expand(3, N_IMAGES, N_IMAGES)
    noise = torch.rand(3, N_IMAGES, N_IMAGES, generator=generator, dtype=torch.float64) * 0.02
    rdms = condense((distance + noise + noise.mT) * (1 - torch.eye(N_IMAGES, dtype=torch.float64)))[:, None]
    measured = [MeasuredRDMs(rdms, time_sampling="average", use_reliability=False)]
    out = torch.zeros(N_IMAGES, dtype=torch.bool)
    out[list(held_out)] = True
    network = load_network("squeezenet1_0", weights=None, stages=2, image_size=40, seed=0).freeze()
    config = AggregationConfig(
        train="all",
        crops="run_network",
        learning_rate=0.05,
        epochs=4,
        images_per_step=5,
        network_rate=rate,
        crop_share=crop_share,
        resolution="stage",
        layouts=("none:2",),
        identity_weights=(0.0,),
    )
    return NetworkTrainer(network, pixels, measured, ~out, out, config, torch.Generator().manual_seed(7))


def test_the_epoch_with_the_largest_score_is_kept(monkeypatch):
    """Scores are given; the last of two equal ones counts, a lower one does not."""
    trainer, scores, weights = _trainer(), iter([0.2, 0.5, 0.1, 0.5, 0.4]), []
    monkeypatch.setattr(trainer, "_held_out_score", lambda: next(scores))
    for _ in range(5):
        trainer.run_epoch()
        weights.append(trainer._weights()["scales"])
    assert trainer.best_score == 0.5
    assert torch.equal(trainer.best["scales"], weights[3])
    assert not torch.equal(weights[3], weights[4])


def test_without_held_out_images_the_last_epoch_is_kept(monkeypatch):
    trainer, scores = _trainer(held_out=()), iter([0.2, 0.1])
    monkeypatch.setattr(trainer, "_held_out_score", lambda: next(scores))
    for _ in range(2):
        trainer.run_epoch()
    assert torch.equal(trainer.best["scales"], trainer.scales.detach())


def test_an_epoch_shows_about_every_training_pair_once(monkeypatch):
    """9 training images have 36 pairs, 5 at a time 10: 4 steps. Their mean loss is the epoch's."""
    trainer, asked = _trainer(), []
    monkeypatch.setattr(trainer, "step", lambda: asked.append(1) or float(len(asked)))
    record = trainer.run_epoch()
    assert len(asked) == 4
    assert (record["epoch"], record["loss"]) == (1, 2.5)


def test_steps_never_see_a_held_out_image(monkeypatch):
    trainer, seen = _trainer(), []
    plain = trainer._random_crops
    monkeypatch.setattr(trainer, "_random_crops", lambda pixels: seen.append(pixels) or plain(pixels))
    trainer.step()
    rows = [next(row for row in range(N_IMAGES) if torch.equal(trainer.pixels[row], image)) for image in seen[0]]
    assert len(set(rows)) == 5
    assert not set(rows) & {0, 3, 4, 9, 13}


def test_crops_are_parts_of_their_own_picture_at_full_size():
    """A picture that rises linearly down and across: a part of it, enlarged, rises at the share of the slope."""
    trainer = _trainer(crop_share=0.5)
    ramp = torch.linspace(0, 1, 40)
    pixels = torch.stack([ramp.expand(3, 40, 40), ramp[:, None].expand(3, 40, 40)])
    crops = trainer._random_crops(pixels)
    assert crops.shape == pixels.shape
    slopes = [crops[0][..., 5:-5].diff(dim=2).mean(), crops[1][:, 5:-5].diff(dim=1).mean()]
    assert slopes == pytest.approx([0.5 / 39] * 2, rel=1e-3)
    assert torch.equal(_trainer(crop_share=1.0)._random_crops(pixels), pixels)


def test_the_rdm_is_of_the_best_weights_and_leaves_the_present_ones():
    trainer = _trainer(rate=1e-3)
    trainer.run_epoch()
    kept = trainer.rdm(trainer.pixels)
    trainer.best_score = 2.0  # never beaten again
    trainer.run_epoch()
    now = trainer._weights()
    torch.testing.assert_close(trainer.rdm(trainer.pixels), kept)
    after = trainer._weights()
    assert torch.equal(now["scales"], after["scales"])
    assert all(torch.equal(value, after["network"][name]) for name, value in now["network"].items())


@pytest.mark.long
def test_training_raises_the_correlation_and_a_resumed_trainer_goes_the_same_way():
    """Planted: distances of mean colours. Oracle of the resumed one: the uninterrupted one, bit for bit."""
    trainer = _trainer(rate=1e-3)
    losses = [trainer.run_epoch()["loss"] for _ in range(2)]
    stored = copy.deepcopy(trainer.state())
    losses += [trainer.run_epoch()["loss"] for _ in range(4)]
    assert losses[-1] < losses[0]
    resumed = _trainer(rate=1e-3)
    resumed.restore(stored)
    again = [resumed.run_epoch()["loss"] for _ in range(4)]
    assert again == losses[2:]
