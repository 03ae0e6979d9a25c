"""Hard 0/1 gates per channel that can be trained: binary concrete with a straight-through gradient.

With logit a, logistic noise n = log u - log(1 - u), u uniform in (0, 1), and temperature T (papers: 2/3, constant):

    soft = sigmoid((a + n) / T),   gate = 1[soft >= 1/2] = 1[a + n >= 0],   d gate / d a := d soft / d a = soft (1 - soft) / T.

So a gate is open in training with probability sigmoid(a). At inference there is no noise: open iff a >= 0.
Sources: Maddison et al. 2017, Jang et al. 2017 (binary concrete, straight-through); Krishna et al. 2022, section 3.2, and
"Unifying synergies" (Krishna et al.), section 3, for its use here. Noise and sigmoid are float32 whatever the logits are.

Ours: one decision may hold for a group of neighbouring channels (`by_group`), as blocked convolutions like it; then logits and
noise are drawn per group.
"""

import torch
from jaxtyping import Float
from torch import Tensor

TEMPERATURE = 2 / 3


def logistic_noise(
    n_images: int,
    n_channels: int,
    generator: torch.Generator,
    *,
    part: tuple[int, int] = (0, 1),
    device: torch.device | str | None = None,
) -> Float[Tensor, "image channel"]:
    """Standard logistic noise in float32, one number per image and channel, on `device`.

    part: (index, n_parts) where a batch is spread over processes. Each process draws the noise of the whole batch from the
    same generator and takes its own rows, so that the draws are those of a single process.
    """
    index, n_parts = part
    shape = (n_images * n_parts, n_channels)
    uniform = torch.rand(shape, generator=generator, device=generator.device)[index * n_images : (index + 1) * n_images]
    tiny = torch.finfo(torch.float32).eps / 2  # rand lies in [0, 1): 0 would be an infinite logit, and 1 - tiny is its largest
    return uniform.clamp(min=tiny).logit().to(device)


def n_groups(n_channels: int, group: int) -> int:
    """Decisions for so many channels in groups of `group` neighbours; the last group may be smaller."""
    return -(-n_channels // group)


def by_group(values: Float[Tensor, "image decision"], *, group: int, n_channels: int) -> Float[Tensor, "image channel"]:
    """The value of its group for every channel: channel c has decision c // group. The gradient is the sum over the group."""
    return values if group == 1 else values.repeat_interleave(group, dim=1)[:, :n_channels]


def straight_through_gate(
    logits: Float[Tensor, "image channel"],
    noise: Float[Tensor, "image channel"] | None,
    *,
    temperature: float = TEMPERATURE,
) -> Float[Tensor, "image channel"]:
    """Gates of exactly 0 or 1 whose gradient is that of the soft gate; float32 (float64 for float64 logits).

    Without noise the gate is the one of inference (open iff logit >= 0), with the same straight-through gradient.
    """
    shifted = logits if logits.dtype == torch.float64 else logits.float()
    if noise is not None:
        shifted = shifted + noise
    soft = torch.sigmoid(shifted / temperature)
    return (shifted.detach() >= 0).to(soft.dtype) + (soft - soft.detach())  # the bracket is exactly 0


def open_gates(logits: Float[Tensor, "image channel"]) -> Float[Tensor, "image channel"]:
    """Gates of inference, in the logits' dtype: 1 where logit >= 0, else 0. No gradient."""
    return (logits.detach() >= 0).to(logits.dtype)
