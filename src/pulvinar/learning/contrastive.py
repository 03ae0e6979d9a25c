"""One cross-entropy between a similarity matrix and its targets; InfoNCE, BiMixCo and SoftCLIP differ in the targets.

Given predicted p_i and true c_i, both of unit length: S_ij = p_i . c_j / temperature, S' its transpose, and with targets A_i
(brain i against all images) and B_i (image i against all brains)

    L = 1/2 [ -1/n sum_ij A_ij log softmax_j(S_ij)  -  1/n sum_ij B_ij log softmax_j(S'_ij) ],

the mean of brain -> image and image -> brain. CLIP: A = B = identity (Radford et al. 2021). SoftCLIP: A = B = softmax over rows
of the images' own similarities, so that a perfect prediction has no gradient. BiMixCo: B = A', as an image is in its own brain
and in those mixed with it. One-directional InfoNCE (van den Oord et al. 2018; Mulrooney & Brockmeier 2024) is the first half
alone, with A = identity; a model that knows nothing scores log n.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from pulvinar.learning.precision import precise


def similarity(
    predicted: Float[Tensor, "row ..."], true: Float[Tensor, "candidate ..."], *, temperature: float | Float[Tensor, ""]
) -> Float[Tensor, "row candidate"]:
    """Cosine of flattened rows, divided by the temperature."""
    return similarities(predicted.flatten(1), true.flatten(1), temperature=temperature)


def similarities(
    predicted: Float[Tensor, "*batch row dim"], true: Float[Tensor, "*batch candidate dim"], *, temperature: float | Tensor
) -> Float[Tensor, "*batch row candidate"]:
    """`similarity` of flat rows, in each of several batches."""
    return functional.normalize(predicted, dim=-1) @ (functional.normalize(true, dim=-1) / temperature).mT


class Targets(NamedTuple):
    """What both halves of the loss aim at: row i of the first is brain i against all images, of the second image i against
    all brains."""

    brain_to_image: Float[Tensor, "*batch row candidate"]
    image_to_brain: Float[Tensor, "*batch row candidate"]


def soft_cross_entropy(logits: Float[Tensor, "*batch row row"], targets: Targets) -> Float[Tensor, "*batch"]:
    """The loss L above, of each batch: both directions, float32 (float64 of float64)."""
    logits = precise(logits)
    to_image = (targets.brain_to_image * logits.log_softmax(dim=-1)).sum((-2, -1))
    to_brain = (targets.image_to_brain * logits.mT.log_softmax(dim=-1)).sum((-2, -1))
    return (to_image + to_brain) / (-2 * logits.shape[-1])


def info_nce(
    queries: Float[Tensor, "row dim"],
    candidates: Float[Tensor, "row dim"],
    *,
    temperature: float | Float[Tensor, ""],
    symmetric: bool = False,
) -> Float[Tensor, ""]:
    """-1/n sum_i log softmax_j(S_ij) at j = i: candidate i belongs to query i. Float32; log n where nothing is told apart.

    symmetric: the mean of this and its transpose (CLIP's loss). With queries of images and candidates of brains the first is
    the loss of Mulrooney & Brockmeier (2024), for each image a softmax over the batch's brain responses.
    """
    logits = similarity(precise(queries), precise(candidates), temperature=temperature)
    targets = torch.eye(len(logits), device=logits.device)
    if symmetric:
        return soft_cross_entropy(logits, Targets(targets, targets))
    return -(targets * logits.log_softmax(dim=1)).sum(1).mean()


def mixco_targets(weight: Float[Tensor, "*batch row"], partner: Int[Tensor, "*batch row"]) -> Targets:
    """Targets of BiMixCo (Kim et al. 2020; Scotti et al. 2024): A_ii = weight_i, A_i,partner_i = 1 - weight_i, and B = A'.

    Row i was mixed as weight_i x_i + (1 - weight_i) x_partner_i, so image i is in brain i and in those that have it as partner.
    Entries add up: a row mixed with itself has A_ii = 1 (in MindEye2's code its target is all zero). `partner` names rows of
    the whole batch: with several subjects in a batch the caller adds each subject's offset (MindEye2's code leaves it out).
    Rows of A sum to 1, rows of B to how much of that image is in the batch.
    """
    own = torch.diag_embed(weight).scatter_add_(-1, partner[..., None], (1 - weight)[..., None])
    return Targets(own, own.mT)


def soft_clip_targets(true: Float[Tensor, "*batch row dim"], *, temperature: float) -> Targets:
    """Targets of SoftCLIP (Scotti et al. 2023): A = B = softmax over rows of the images' own similarities."""
    own = precise(similarities(true, true, temperature=temperature)).softmax(dim=-1)
    return Targets(own, own)
