"""A term of the loss that makes gates decide: channels that are open for all images or for none (ours).

With s_c(x) = sigmoid(logit) the probability that channel c is open for image x in training, and p_c its mean over images,

    D = mean over gates of the mean over their channels of 4 p_c (1 - p_c),   in [0, 1].

0: every channel is always open or always shut; 1: every channel is a coin. p (1 - p) = mean of s (1 - s) + variance of s
over images, so D falls both with the noise of a gate and with its dependence on the image. Why: a channel that is open for 3 %
of the images counts .03 in the budget, but a compacted network computes it for all of them.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def undecided(rates: Float[Tensor, " channel"], sizes: Sequence[int]) -> Float[Tensor, ""]:
    """D above. rates: p_c of the channels of all gates, gate after gate; sizes: channels of every gate."""
    return torch.stack([(4 * part * (1 - part)).mean() for part in rates.split(list(sizes))]).mean()


def decide_schedule(done: float, *, start: float) -> float:
    """Share of its weight that the term has after this share of the run: 0 up to `start`, then rising evenly to 1 at the end.

    While the budget still falls most gates are open by design, and the term would hold them there.
    """
    return min(1.0, max(0.0, (done - start) / (1 - start))) if start < 1 else 0.0
