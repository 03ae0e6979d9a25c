"""What learnt gates have to beat at the same multiply-adds: fixed masks, random gates, pruned and narrow networks.

static         one mask for all images: the channels that the gates open most often (mean policy), weights of the gated pass
static_random  one mask for all images, drawn at random, as many channels in each block as `static`
random         other channels for each image, drawn at random at the density that each gate reached; of levels and routes one
               of those, drawn as often as the gates took it
pruned         the dense network without the channels of smallest weights, the same share in each block (Li et al. 2017)
narrow         an ordinary network of smaller width, trained alike (`narrow_shape`; training is the method's)

Fixed masks are made real with networks/narrow.py, so that no gate is computed: its multiply-adds go to channels instead. Fixed
masks and pruned networks get their batch-norm statistics estimated anew on training images without labels (`recalibrate`):
the trained ones are of other inputs, and without that they would lose for a reason that costs nothing to mend. Random gates
keep the gated pass's statistics.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of, evenly_spaced
from pulvinar.gating.choice_statistics import drawn_choices, masks_of
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.batch_norm import BatchNorm, averaging
from pulvinar.networks.gated_resnet import Block, GatedResNet
from pulvinar.networks.macs import Macs, count_macs
from pulvinar.networks.narrow import narrowed, narrowed_shape
from pulvinar.networks.resnet_shape import BlockShape, ResNetShape

Scope = Literal["blocks", "network"]
FixedMask = Literal["static", "static_random", "pruned"]
N_RECALIBRATION_IMAGES = 2048


@dataclass(frozen=True, kw_only=True)
class Control:
    """A network to score by its features, and its MAC share (of the dense network, gates counted where it has them)."""

    name: str
    description: str
    forward: Callable[[Tensor], Tensor]
    mac_share: float


def share_of_counts(macs: Macs, counts: Sequence[int]) -> float:
    """MAC share of the network with so many inner channels per gate and no gates."""
    open_channels = [torch.tensor([float(count)], dtype=torch.float64) for count in counts]
    return float((macs.per_image(open_channels)[0] - macs.gates) / macs.dense)


def keep_highest(
    scores: Sequence[np.ndarray], macs: Macs, share: float, *, scope: Scope, densities: Sequence[float]
) -> list[Tensor]:
    """Channels (ascending indices, per gate) of the highest scores whose network has a MAC share of at most `share`.

    scope "blocks": gate l keeps about s densities[l] of its channels, s the largest that fits; "network": the best of all gates
    together. What is left of the share is filled with the best remaining channels that fit, so the share is met from below to
    within the cheapest channel. Of equal scores the first channel wins.
    """
    sizes = [len(score) for score in scores]
    if share_of_counts(macs, [0] * len(sizes)) > share:
        raise InputError(f"share: {share:.4f} is below what remains with every gate shut and removed")
    counts = [0] * len(sizes) if scope == "network" else _scaled_counts(macs, share, sizes, densities)
    order = [np.argsort(-score, kind="stable") for score in scores]
    ranked = sorted(
        (
            (-float(scores[gate][channel]), gate, place)
            for gate in range(len(sizes))
            for place, channel in enumerate(order[gate])
        ),
        key=lambda entry: (entry[0], entry[2], entry[1]),
    )
    full: set[int] = set()
    for _, gate, place in ranked:
        if place != counts[gate] or gate in full:
            continue
        counts[gate] += 1
        if share_of_counts(macs, counts) > share:
            counts[gate] -= 1
            full.add(gate)  # the next channel of this gate costs as much
    return [torch.from_numpy(np.sort(ranks[:count])) for ranks, count in zip(order, counts, strict=True)]


def _scaled_counts(macs: Macs, share: float, sizes: Sequence[int], densities: Sequence[float]) -> list[int]:
    def counts(scale: float) -> list[int]:
        return [min(size, int(scale * density * size)) for size, density in zip(sizes, densities, strict=True)]

    low, high = 0.0, 1.0
    while (
        share_of_counts(macs, counts(high)) <= share
        and any(c < s for c, s in zip(counts(high), sizes, strict=True))
        and high < 1e6
    ):
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share_of_counts(macs, counts(middle)) <= share else (low, middle)
    return counts(low)


def filter_norms(network: GatedResNet) -> list[np.ndarray]:
    """Sum of absolute weights of every gated filter (Li et al. 2017, L1), an array (channel,) per gate."""
    found = []
    for block in cast(list[Block], list(network.blocks)):
        for number in block.shape.gated:
            weight = cast(nn.Conv2d, block.convolutions[number]).weight
            found.append(weight.detach().abs().sum((1, 2, 3)).double().cpu().numpy())
    return found


def fixed_mask(
    kind: FixedMask,
    network: GatedResNet,
    share: float,
    *,
    policies: Sequence[np.ndarray],
    images: np.ndarray,
    views: ViewSettings,
    generator: np.random.Generator,
    scope: Scope = "blocks",
    recalibrated: bool = True,
) -> Control:
    """A network with a fixed set of channels at a MAC share of at most `share`; the module says which.

    policies: mean policy of every gate on *training* images (`channel_statistics`). images: training images for batch-norm.
    """
    macs = network.macs
    densities = [max(float(policy.mean()), 1e-9) for policy in policies]
    if kind == "static":
        kept = keep_highest(policies, macs, share, scope=scope, densities=densities)
        text = f"the most often open channels, chosen over {'each block' if scope == 'blocks' else 'the whole network'}"
    elif kind == "static_random":
        sizes = [len(part) for part in keep_highest(policies, macs, share, scope=scope, densities=densities)]
        drawn = [generator.permutation(len(policy))[:size] for policy, size in zip(policies, sizes, strict=True)]
        kept = [torch.from_numpy(np.sort(part)) for part in drawn]
        text = "channels drawn once at random, as many in each block as the static mask"
    else:
        kept = keep_highest(filter_norms(network), macs, share, scope="blocks", densities=[1.0] * len(densities))
        text = "the dense network less its smallest filters, the same share in each block"
    made = narrowed(network, kept, source="dense" if kind == "pruned" else "gated").eval()
    if recalibrated:
        recalibrate(made, images, views=views)
        text += "; batch-norm estimated anew"
    return Control(
        name=kind,
        description=text,
        forward=lambda pixels: made(pixels).features,
        mac_share=share_of_counts(macs, [len(part) for part in kept]),
    )


def random_gates(
    network: GatedResNet,
    densities: Sequence[float],
    generator: torch.Generator,
    *,
    choices: Sequence[np.ndarray] | None = None,
) -> Control:
    """The gated pass with other channels for each image, drawn at random: density d of C channels opens d C of them on average.

    An image opens floor(d C) or one more. choices: of levels or routes, the shares of their options at every choice; then those
    are drawn. The share counts no gates, since none is computed.
    """
    sizes = network.shape.gate_channels

    def forward(pixels: Tensor) -> Tensor:
        if choices is not None:
            masks = masks_of(network, drawn_choices(choices, len(pixels), generator))
        else:
            masks = [random_mask(len(pixels), size, density, generator) for size, density in zip(sizes, densities, strict=True)]
        return network(pixels, gated=True, masks=[mask.to(pixels) for mask in masks]).features

    counts = [density * size for density, size in zip(densities, sizes, strict=True)]
    share = float(
        (network.macs.per_image([torch.tensor([c], dtype=torch.float64) for c in counts])[0] - network.macs.gates)
        / network.macs.dense
    )
    return Control(
        name="random",
        description="gates drawn at random for each image, at the density reached"
        if choices is None
        else f"{network.shape.gate_form} drawn at random for each image, as often as the gates take them",
        forward=forward,
        mac_share=share,
    )


def random_mask(n_images: int, n_channels: int, density: float, generator: torch.Generator) -> Tensor:
    """0 and 1 (image, channel), floor(density x channels + u) ones in each row, u uniform in [0, 1)."""
    counts = torch.floor(density * n_channels + torch.rand(n_images, 1, generator=generator))
    rank = torch.rand(n_images, n_channels, generator=generator).argsort(1).argsort(1)
    return (rank < counts).float()


@torch.no_grad()
def recalibrate(
    network: nn.Module,
    images: np.ndarray,
    *,
    views: ViewSettings,
    n_images: int = N_RECALIBRATION_IMAGES,
    batch_size: int = 256,
) -> None:
    """Estimate the running statistics of every batch-norm anew: the mean over batches of plain (not augmented) images."""
    rows = evenly_spaced(len(images), n_images)
    device = next(network.parameters()).device
    parts = [part for part in blocks_of(len(rows), batch_size) if len(rows[part]) > 1]
    if not parts:
        raise InputError("recalibrate: two images or more are needed")
    was_training = network.training
    network.eval()
    with averaging([module for module in network.modules() if isinstance(module, BatchNorm)]):
        for part in parts:
            network(plain_view(torch.from_numpy(images[rows[part]]).to(device), views))
    network.train(was_training)


def narrow_shape(shape: ResNetShape, *, size: int, share: float, uniform: Literal["all", "inner"] = "all") -> ResNetShape:
    """An ordinary narrower network with at most `share` of the multiply-adds of `shape`, as near as whole channels allow.

    uniform "all": one factor on every width, stem and features too (a plain slim ResNet). "inner": one factor on the gated
    inner widths alone; stem, block outputs and features keep theirs, as in the gated network.
    """
    dense = count_macs(shape, size).dense

    def share_of(candidate: ResNetShape) -> float:
        return count_macs(candidate, size).dense / dense

    if uniform == "inner":
        macs = count_macs(shape, size)
        flat = [-np.linspace(0, 1, count, endpoint=False) for count in shape.gate_channels]
        kept = keep_highest(flat, macs, share, scope="blocks", densities=[1.0] * len(flat))
        return narrowed_shape(shape, kept)
    low, high = 0.0, 1.0
    if share_of(_scaled(shape, low)) > share:
        raise InputError(f"share: {share:.4f} is below a network with one channel everywhere")
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if share_of(_scaled(shape, middle)) <= share else (low, middle)
    return _scaled(shape, low)


def _scaled(shape: ResNetShape, factor: float) -> ResNetShape:
    def width(channels: int) -> int:
        return max(1, round(factor * channels))

    def block(old: BlockShape) -> BlockShape:
        inner = tuple(width(channels) for channels in old.inner)
        return replace(old, inputs=width(old.inputs), inner=inner, outputs=width(old.outputs))

    stem = replace(shape.stem, channels=width(shape.stem.channels))
    return replace(shape, stem=stem, blocks=tuple(block(old) for old in shape.blocks))
