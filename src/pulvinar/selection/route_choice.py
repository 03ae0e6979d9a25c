"""One of several, by image, that can be trained: Gumbel-softmax with a straight-through gradient; and a term that uses all.

With logits r, Gumbel noise n = -log(-log u), u uniform in (0, 1), and temperature T:

    soft = softmax((r + n) / T),   choice = one-hot of the largest of r + n,   d choice / d r := d soft / d r.

So k is drawn in training with probability softmax(r)_k; without noise the choice is that of inference (Jang et al. 2017).

Left alone, such a choice soon falls to one route, which then is the best trained one. With p(x) the softmax of an image and q
its mean over images, the mutual information of image and route, H(q) - mean H(p(x)), is largest where every image is sure of
its route and all routes are used alike (Krause et al. 2010). The term is

    1 - [H(q) - mean H(p(x))] / log K,   in [0, 1].
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.selection.channel_gate import TEMPERATURE

TINY = 1e-12


def gumbel_noise(
    n_images: int,
    n_routes: int,
    generator: torch.Generator,
    *,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str | None = None,
) -> Float[Tensor, "image route"]:
    """Standard Gumbel noise in float32; part: as of `logistic_noise`."""
    index, n_parts = part
    shape = (n_images * n_parts, n_routes)
    uniform = torch.rand(shape, generator=generator, device=generator.device)[index * n_images : (index + 1) * n_images]
    tiny = torch.finfo(torch.float32).eps / 2
    return -torch.log(-torch.log(uniform.clamp(min=tiny, max=1 - tiny))).to(device)


def straight_through_choice(
    logits: Float[Tensor, "image route"],
    noise: Float[Tensor, "image route"] | None,
    *,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "image route"]:
    """One-hot rows of exactly 0 and 1 whose gradient is that of the softmax. Of equal logits the first route wins."""
    shifted = logits if noise is None else logits + noise
    soft = torch.softmax(shifted / temperature, 1)
    hard = torch.zeros_like(soft).scatter_(1, shifted.detach().argmax(1, keepdim=True), 1.0)
    return hard + (soft - soft.detach())  # the bracket is exactly 0


def usage(chances: Float[Tensor, "image route"]) -> Float[Tensor, " number"]:
    """What `one_sided` takes, as means over images: the chance of every route, and last the entropy of an image's chances."""
    entropy = -(chances * chances.clamp_min(TINY).log()).sum(1).mean()
    return torch.cat([chances.mean(0), entropy[None]])


def one_sided(used: Float[Tensor, " number"]) -> Float[Tensor, ""]:
    """The term above from the means of `usage`: 0 where images are sure of routes used alike, 1 where they say nothing."""
    mean, entropy = used[:-1], used[-1]
    spread = -(mean * mean.clamp_min(TINY).log()).sum()
    return 1 - (spread - entropy) / math.log(len(mean))
