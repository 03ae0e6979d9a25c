"""Images that try a compact network: noise, and images optimised to open dropped channels or to close always-open ones.

All are normalised, and their pixels stay in [0, 1].
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import CompactNetwork

Aim = Literal["open", "close"]


def _colours(network: CompactNetwork | ChoiceNetwork) -> tuple[Tensor, Tensor]:
    mean, sd = (torch.tensor(values).to(network.stem.weight)[:, None, None] for values in (network.mean, network.sd))
    return mean, sd


def normalised(network: CompactNetwork | ChoiceNetwork, pixels: Float[Tensor, "image 3 height width"]) -> Tensor:
    """Pixels in [0, 1] as the network takes them."""
    mean, sd = _colours(network)
    return (pixels.to(mean) - mean) / sd


def noise(network: CompactNetwork | ChoiceNetwork, n_images: int, generator: torch.Generator) -> Tensor:
    """Uniform noise, in equal parts at the grain of 1, 2, 4, 8 pixels and as one colour; of random contrast."""
    size, parts = network.size, []
    for number, grain in enumerate((1, 2, 4, 8, size)):
        n = n_images // 5 + (number < n_images % 5)
        side = max(1, size // grain)
        coarse = torch.rand(n, 3, side, side, generator=generator)
        contrast = torch.rand(n, 1, 1, 1, generator=generator)
        level = torch.rand(n, 3, 1, 1, generator=generator)
        parts.append(functional.interpolate(coarse, size=(size, size)) * contrast + (1 - contrast) * level)
    return normalised(network, torch.cat(parts))


def adversarial(
    network: CompactNetwork,
    images: Float[Tensor, "image 3 height width"],
    *,
    gate: int,
    channels: Int[Tensor, " channel"] | Sequence[int],
    aim: Aim,
    generator: torch.Generator | None = None,
    n_steps: int = 20,
    rate: float = 0.05,
) -> Tensor:
    """The images after steps of signed gradients that raise (open) or lower (close) logits of one gate; pixels in [0, 1].

    Each image goes for the channel of `channels` that is nearest to changing sides, and stops where it has changed. rate: of a
    step, in pixel units. The gradient goes through the maps alone: gates further up are taken as they stand. Where there is no
    gradient (a gate whose hidden units are all shut) the step goes in a random direction, drawn from the generator (None: a
    fixed one). The logits of a gate that was fixed open throughout are constants: then the images come back as they are.
    """
    masked, (mean, sd) = network.masked(), _colours(network)
    sign = 1.0 if aim == "open" else -1.0
    chosen, drawn = torch.as_tensor(channels, dtype=torch.long), generator or torch.Generator().manual_seed(0)
    pixels = images.to(sd) * sd + mean
    for _ in range(n_steps):
        moving = pixels.detach().requires_grad_(True)
        nearest = (sign * masked.inspect((moving - mean) / sd).logits[gate][:, chosen]).amax(1)
        if not nearest.requires_grad:
            return images
        (gradient,) = torch.autograd.grad(nearest.sum(), moving)
        still = (nearest.detach() < 0.02).to(gradient)[:, None, None, None]  # a little beyond zero
        lost = (gradient.abs().amax((1, 2, 3), keepdim=True) == 0).to(gradient)
        anywhere = torch.randn(gradient.shape, generator=drawn).to(gradient)
        pixels = (pixels + rate * still * (gradient + lost * anywhere).sign()).clamp(0, 1)
    return ((pixels - mean) / sd).detach()
