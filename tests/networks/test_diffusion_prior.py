"""The diffusion prior: MindEye2's schedule, what its loss is, and that sampling gives back what it learnt."""

import math

import pytest
import torch

from pulvinar.networks.diffusion_prior import N_STEPS, DiffusionPrior, cosine_betas


def small(dim: int = 6, n_tokens: int = 1, seed: int = 0) -> DiffusionPrior:
    prior = DiffusionPrior(dim=dim, n_tokens=n_tokens, n_layers=1, n_heads=2, head_dim=8)
    prior.initialise(torch.Generator().manual_seed(seed))
    return prior


def test_schedule_is_mindeye2s():
    """Closed form (dalle2's cosine schedule, as in MindEye2): its betas equal diffusers' to 2e-8."""
    steps = torch.linspace(0, N_STEPS, N_STEPS + 1, dtype=torch.float64)
    products = torch.cos((steps / N_STEPS + 0.008) / 1.008 * math.pi * 0.5) ** 2
    products = products / products[0]
    mindeye2 = torch.clip(1 - products[1:] / products[:-1], 0, 0.999)
    torch.testing.assert_close(cosine_betas(), mindeye2, rtol=0, atol=1e-12)
    assert (small().scheduler.betas.double() - mindeye2).abs().max() < 2e-8


@pytest.mark.parametrize("n_tokens", [1, 3])
def test_loss_is_the_error_of_the_clean_embedding(n_tokens):
    """Oracle: the same draws by hand. At the start the prediction is zero, so the loss is the embedding's mean square."""
    prior, embedding = small(n_tokens=n_tokens), torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
    condition = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    at_start = prior.loss(embedding, condition, torch.Generator().manual_seed(3), condition_dropout=0.2)
    torch.testing.assert_close(at_start, embedding.square().mean())
    torch.nn.init.normal_(prior.transformer.proj_to_clip_embeddings.weight)
    generator = torch.Generator().manual_seed(3)
    noise, step = torch.randn(5, 6, generator=generator), torch.randint(100, (5,), generator=generator)
    kept = torch.rand(5, 1, generator=generator) >= 0.5
    level = (1 - cosine_betas()).cumprod(0)[step].float()[:, None]
    predicted = prior(level.sqrt() * embedding + (1 - level).sqrt() * noise, step, kept * condition)
    loss = prior.loss(embedding, condition, torch.Generator().manual_seed(3), condition_dropout=0.5)
    torch.testing.assert_close(loss, (predicted - embedding).square().mean(), rtol=1e-4, atol=1e-5)


def test_the_condition_matters_unless_it_is_dropped():
    prior, embedding = small(), torch.randn(4, 6)
    torch.nn.init.normal_(prior.transformer.proj_to_clip_embeddings.weight)
    losses = {
        share: [
            prior.loss(embedding, value * torch.ones(4, 6), torch.Generator().manual_seed(0), condition_dropout=share).item()
            for value in (0.0, 2.0)
        ]
        for share in (0.0, 1.0)
    }
    assert losses[1.0][0] == losses[1.0][1]
    assert abs(losses[0.0][0] - losses[0.0][1]) > 1e-3


def test_places_of_tokens_are_told_apart():
    """With the condition's tokens in another order another embedding is predicted, which needs positions."""
    prior = small(dim=6, n_tokens=3)
    torch.nn.init.normal_(prior.transformer.proj_to_clip_embeddings.weight)
    torch.nn.init.normal_(prior.transformer.positional_embedding)
    condition, noisy, step = torch.randn(1, 6), torch.randn(1, 6), torch.tensor([10])
    swapped = condition.reshape(1, 3, 2).flip(1).flatten(1)
    assert (prior(noisy, step, condition) - prior(noisy, step, swapped)).abs().max() > 1e-3


def test_sampling_gives_what_a_perfect_network_predicts(monkeypatch):
    """Planted: a network that always predicts A c. DDIM ends at its last prediction, whatever the noise."""
    prior = small()
    matrix = torch.randn(6, 6, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr(DiffusionPrior, "forward", lambda self, noisy, step, condition: condition @ matrix)
    condition = torch.randn(3, 6)
    made = prior.sample(condition, torch.Generator().manual_seed(5))
    torch.testing.assert_close(made, condition @ matrix, rtol=1e-4, atol=1e-4)


def test_dims_that_do_not_fall_into_tokens_are_refused():
    with pytest.raises(ValueError, match="4 tokens cannot hold 6"):
        small(dim=6, n_tokens=4)
