"""Diffusion prior: from what the decoder gives to an image's embedding (Ramesh et al. 2022; Scotti et al. 2024).

The network is diffusers' PriorTransformer on tokens: the condition's tokens, the step, and the noisy embedding's, without an
attention mask. Trained to predict the clean embedding x0 from x_t = sqrt(a_t) x0 + sqrt(1 - a_t) noise at 100 steps of the
cosine schedule (a_t the running product of 1 - beta_t), by mean squared error; the condition is left out (zeros, ours) in a
share of the rows. Sampling: 20 steps of DDIM, no guidance. Ours: the condition's tokens have positions too; one token is a
pooled embedding.
"""

import math
from importlib.util import find_spec
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from pulvinar.core.errors import MissingDependencyError
from pulvinar.networks.decoder import drawn_like, initialise

N_STEPS, N_SAMPLING_STEPS = 100, 20  # Scotti et al. 2024
CONDITION_DROPOUT = 0.2  # where it is trained with the decoder; Scotti et al. 2024
LARGEST_BETA = 0.999


def cosine_betas(n_steps: int = N_STEPS) -> Float[Tensor, " step"]:
    """beta_t = min(1 - f(t+1) / f(t), .999), f(t) = cos^2((t / n + .008) / 1.008 * pi / 2), float64. Nichol & Dhariwal 2021."""
    places = torch.arange(n_steps + 1, dtype=torch.float64) / n_steps
    level = torch.cos((places + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - level[1:] / level[:-1]).clamp(max=LARGEST_BETA)


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=N_STEPS, beta_schedule="squaredcos_cap_v2", prediction_type="sample", clip_sample=False
    )


def require_diffusers() -> None:
    """Raise `MissingDependencyError` where diffusers, which has the prior's network, is not installed."""
    if find_spec("diffusers") is None:
        raise MissingDependencyError("diffusers is not installed; run: pip install 'pulvinar[pictures]'")


class DiffusionPrior(nn.Module):
    """Condition (row, dim) -> embedding (row, dim), both `n_tokens` tokens, flattened."""

    def __init__(self, *, dim: int, n_tokens: int, n_layers: int, n_heads: int, head_dim: int) -> None:
        super().__init__()
        require_diffusers()
        from diffusers import PriorTransformer

        if dim % n_tokens:
            raise ValueError(f"a prior of {n_tokens} tokens cannot hold {dim} numbers")
        self.n_tokens, self.token_dim = n_tokens, dim // n_tokens
        self.transformer: Any = PriorTransformer(
            num_attention_heads=n_heads,
            attention_head_dim=head_dim,
            num_layers=n_layers,
            embedding_dim=self.token_dim,
            num_embeddings=2 * n_tokens + 1,
            additional_embeddings=0,
            encoder_hid_proj_type=None,
            added_emb_type=None,
        )
        self.scheduler = _scheduler()

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Random linear maps, norms at rest, positions of spread .02; the output starts at zero (the mean embedding)."""
        initialise(self, generator)
        places = self.transformer.positional_embedding
        places.copy_(drawn_like(places, generator).normal_(0, 0.02, generator=generator))
        self.transformer.proj_to_clip_embeddings.weight.zero_()

    def forward(
        self, noisy: Float[Tensor, "row dim"], step: Int[Tensor, " row"], condition: Float[Tensor, "row dim"]
    ) -> Float[Tensor, "row dim"]:
        """The predicted clean embedding."""
        tokens = (len(noisy), self.n_tokens, self.token_dim)
        made = self.transformer(noisy.reshape(tokens), step, condition.reshape(tokens)).predicted_image_embedding
        return made.flatten(1)

    def noised(
        self, embedding: Float[Tensor, "row dim"], generator: torch.Generator, *, condition_dropout: float
    ) -> tuple[Float[Tensor, "row dim"], Int[Tensor, " row"], Bool[Tensor, "row one"]]:
        """Noisy embeddings at steps drawn evenly, one for each row; the steps; and which rows see their condition."""
        device = embedding.device  # numbers are drawn where the generator is
        noise = torch.randn(embedding.shape, generator=generator, device=generator.device).to(device)
        step = torch.randint(N_STEPS, (len(embedding),), generator=generator, device=generator.device).to(device)
        kept = torch.rand(len(embedding), 1, generator=generator, device=generator.device).to(device) >= condition_dropout
        return self.scheduler.add_noise(embedding, noise, step), step, kept

    def loss(
        self,
        embedding: Float[Tensor, "row dim"],
        condition: Float[Tensor, "row dim"],
        generator: torch.Generator,
        *,
        condition_dropout: float,
    ) -> Float[Tensor, ""]:
        """Mean squared error of the predicted clean embedding at steps drawn evenly, one for each row."""
        noisy, step, kept = self.noised(embedding, generator, condition_dropout=condition_dropout)
        return (self(noisy, step, condition * kept) - embedding).square().mean()

    @torch.no_grad()
    def sample(
        self, condition: Float[Tensor, "row dim"], generator: torch.Generator, *, n_steps: int = N_SAMPLING_STEPS
    ) -> Float[Tensor, "row dim"]:
        """One embedding for each condition, by DDIM from noise of the generator."""
        scheduler = _scheduler()
        scheduler.set_timesteps(n_steps)
        x = torch.randn(condition.shape, generator=generator, device=generator.device).to(condition.device)
        for step in scheduler.timesteps:
            x = scheduler.step(self(x, step.to(x.device).expand(len(x)), condition), step, x).prev_sample
        return x
