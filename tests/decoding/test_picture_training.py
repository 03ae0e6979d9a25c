"""Losses and the trainer of the parts that make pictures."""

import pytest
import torch
from torch import nn

from pulvinar.decoding.decoder_training import draw_mixing
from pulvinar.decoding.pictures.picture_decoder import LowLevelBranch
from pulvinar.decoding.pictures.picture_training import PartSettings, PartTrainer, low_level_loss, prior_loss
from pulvinar.learning.contrastive import similarity, soft_clip_targets, soft_cross_entropy
from pulvinar.networks.diffusion_prior import DiffusionPrior

SETTINGS = PartSettings(epochs=4, batch_size=8, learning_rate=0.2, weight_decay=0.1)


def line_fit(seed: int) -> PartTrainer:
    """A linear network that learns y = 2 x + 1, with noise drawn in its loss."""
    torch.manual_seed(0)
    network, x = nn.Linear(1, 1), torch.linspace(-1, 1, 30)[:, None]

    def loss(rows, _done, generator):
        return (network(x[rows] + 0.01 * torch.randn(len(rows), 1, generator=generator)) - 2 * x[rows] - 1).square().mean()

    return PartTrainer(network, loss, 30, SETTINGS, torch.Generator().manual_seed(seed))


def test_a_trainer_goes_on_bit_for_bit():
    whole, first = line_fit(1), line_fit(1)
    records = [whole.run_epoch() for _ in range(4)]
    assert whole.done
    assert records[-1]["loss"] < records[0]["loss"]
    first.run_epoch()
    first.run_epoch()
    second = line_fit(7)
    second.restore(first.state())
    assert list(second.run()) == records[2:]
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), second.network.parameters(), strict=True))


def test_low_level_loss_is_l1_and_a_tenth_of_the_contrast():
    branch = LowLevelBranch(5, hidden=4, shape=(3,), dropout=0.0)
    responses, latents, rows = torch.randn(9, 5), torch.randn(9, 3), torch.tensor([1, 4, 6])
    made, true = branch(responses[rows]), latents[rows]
    contrast = soft_cross_entropy(similarity(made, true, temperature=0.5), soft_clip_targets(true, temperature=0.5))
    loss = low_level_loss(branch, responses, latents, contrastive=0.1, temperature=0.5)(rows, 0.0, torch.Generator())
    torch.testing.assert_close(loss, (made - true).abs().mean() + 0.1 * contrast)


@pytest.mark.parametrize("mix_target", [True, False])
def test_the_prior_target_is_mixed_by_a_switch_and_only_at_first(mix_target, monkeypatch):
    """Oracle: what reaches the prior, with the same draws by hand."""
    seen = []
    monkeypatch.setattr(
        DiffusionPrior,
        "loss",
        lambda self, aim, condition, generator, condition_dropout: seen.append((aim, condition)) or aim.sum(),
    )
    prior = DiffusionPrior(dim=4, n_tokens=1, n_layers=1, n_heads=1, head_dim=4)
    responses, embedding, rows = torch.randn(12, 6), torch.randn(12, 4), torch.arange(3, 11)
    options = {"condition_dropout": 0.2, "mixed_share": 0.5, "mixing_beta": 0.2, "mix_target": mix_target}
    loss = prior_loss(prior, lambda x: 2 * x[:, :4], responses, embedding, **options)
    for done in (0.0, 0.6):
        loss(rows, done, torch.Generator().manual_seed(3))
    mixing = draw_mixing(8, torch.Generator().manual_seed(3), beta=0.2)
    torch.testing.assert_close(seen[0][1], 2 * mixing.apply(responses[rows])[:, :4])
    torch.testing.assert_close(seen[0][0], mixing.apply(embedding[rows]) if mix_target else embedding[rows])
    assert (mixing.apply(embedding[rows]) - embedding[rows]).abs().max() > 0.05
    torch.testing.assert_close(seen[1][0], embedding[rows])
    torch.testing.assert_close(seen[1][1], 2 * responses[rows][:, :4])
