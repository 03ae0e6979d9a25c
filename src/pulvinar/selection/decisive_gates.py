"""Gates that decide: channels that are open for all images or for none (ours). A term of the loss, and gates fixed for good.

With s_c(x) = sigmoid(logit) the probability that channel c is open for image x in training, and p_c its mean over images,

    D = mean over gates of the mean over their channels of 4 p_c (1 - p_c),   in [0, 1].

0: every channel is always open or always shut; 1: every channel is a coin. p (1 - p) = mean of s (1 - s) + variance of s
over images, so D falls both with the noise of a gate and with its dependence on the image. Why: a channel that is open for 3 %
of the images counts .03 in the budget, but a compacted network computes it for all of them.

What is decided can be fixed (`decided`, `one_mask`): a constant gate needs no gate network, no multiplication and no fallback.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def undecided(rates: Float[Tensor, " channel"], sizes: Sequence[int]) -> Float[Tensor, ""]:
    """D above. rates: p_c of the channels of all gates, gate after gate; sizes: channels of every gate."""
    return torch.stack([(4 * part * (1 - part)).mean() for part in rates.split(list(sizes))]).mean()


def decide_schedule(done: float, *, start: float) -> float:
    """Share of its weight that the term has after this share of the run: 0 up to `start`, then rising evenly to 1 at the end.

    While the budget still falls most gates are open by design, and the term would hold them there.
    """
    return min(1.0, max(0.0, (done - start) / (1 - start))) if start < 1 else 0.0


def decided(opened: Float[Tensor, " decision"], margin: float) -> Float[Tensor, " decision"]:
    """1 where a gate is shut for at most this share of the images, -1 where it is open for at most it, else 0.

    opened: share of the images for which each gate opens. margin: 0 to below .5.
    """
    return (opened >= 1 - margin).to(opened.dtype) - (opened <= margin).to(opened.dtype)


def one_mask(
    chances: Sequence[Float[Tensor, " _"]], share: Callable[[list[Tensor]], float], budget: float
) -> list[Bool[Tensor, " _"]]:
    """The same gates for every image: open are the most probable ones, as many as bring the share nearest to the budget.

    chances: mean probability of being open, gate by gate. share: MAC share of such masks; it grows with every open gate.
    """
    sizes = [len(part) for part in chances]
    order = torch.cat(list(chances)).argsort(descending=True, stable=True)

    def masks(n_open: int) -> list[Tensor]:
        mask = torch.zeros(len(order), dtype=torch.bool, device=order.device)
        mask[order[:n_open]] = True
        return list(mask.split(sizes))

    low, high = 0, len(order)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if share(masks(middle)) < budget else (low, middle)
    return min((masks(low), masks(high)), key=lambda made: abs(share(made) - budget))
