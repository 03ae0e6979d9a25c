"""One cross-entropy between a similarity matrix and a target matrix; InfoNCE, BiMixCo and SoftCLIP are its targets.

Given predicted p_i and true c_i, both of unit length: S_ij = p_i . c_j / temperature, and with targets T_ij >= 0

    L = 1/2 [ -1/n sum_ij T_ij log softmax_j(S_ij)  -  1/n sum_ij T_ij log softmax_i(S_ij) ],

the mean of brain -> image and image -> brain. CLIP: T = identity (Radford et al. 2021). One-directional InfoNCE (van den Oord
et al. 2018; Mulrooney & Brockmeier 2024) is the first half alone, with T = identity; a model that knows nothing scores log n.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


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


def soft_cross_entropy(
    logits: Float[Tensor, "*batch row row"], targets: Float[Tensor, "*batch row row"]
) -> Float[Tensor, "*batch"]:
    """The loss L above, of each batch: both directions, float32."""
    logits = logits.float()
    both = logits.log_softmax(dim=-1) + logits.log_softmax(dim=-2)
    return (targets * both).sum((-2, -1)) / (-2 * logits.shape[-1])


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
    logits = similarity(queries.float(), candidates.float(), temperature=temperature)
    targets = torch.eye(len(logits), device=logits.device)
    if symmetric:
        return soft_cross_entropy(logits, targets)
    return -(targets * logits.log_softmax(dim=1)).sum(1).mean()


def mixco_targets(weight: Float[Tensor, "*batch row"], partner: Int[Tensor, "*batch row"]) -> Float[Tensor, "*batch row row"]:
    """Targets of BiMixCo (Kim et al. 2020; Scotti et al. 2024): T_ii = weight_i and T_i,partner_i = 1 - weight_i.

    Row i was mixed as weight_i x_i + (1 - weight_i) x_partner_i. Entries add up, so that a row mixed with itself has T_ii = 1
    (in MindEye2's code its target is all zero). `partner` names rows of the whole batch: with several subjects in a batch
    the caller adds each subject's offset (MindEye2's code leaves it out).
    """
    return torch.diag_embed(weight).scatter_add_(-1, partner[..., None], (1 - weight)[..., None])


def soft_clip_targets(true: Float[Tensor, "row ..."], *, temperature: float) -> Float[Tensor, "row row"]:
    """Targets of SoftCLIP (Scotti et al. 2023): softmax over the batch of the images' own similarities."""
    return similarity(true, true, temperature=temperature).float().softmax(dim=1)
