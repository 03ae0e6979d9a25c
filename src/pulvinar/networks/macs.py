"""Multiply-adds of a ResNet in closed form: convolutions only, differentiable in the open channels of every gate.

A BasicBlock with k of its inner channels open, maps of H x W behind its stride:

    9 k C_in H W + 9 k C_out H W   (+ C_in C_out H W with a downsample).

A Bottleneck with k1, k2 inner channels open, h x w in front of and H x W behind its stride:

    k1 C_in h w + 9 k1 k2 H W + k2 C_out H W   (+ C_in C_out H W with a downsample);

an ungated inner convolution has its full width there. Each gate adds C_in r + r ceil(C_gate / g) with r = max(1, C_in // 4)
and g channels to a decision (1 in the papers); a gate of L levels has L - 1 decisions. K routes have one gate after the stem,
C r + r K with C the channels of the stem, r = max(1, C // 4), and none in the blocks.
The papers' FLOPs are these multiply-adds (batch-norm, ReLU and pooling are not counted); share = mean over images of
(stem + blocks + gates) / (stem + blocks with everything open). "Unifying synergies", equation 3, with the stem on both sides
as in its FLOPs columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.networks.resnet_shape import BlockShape, ResNetShape


@dataclass(frozen=True)
class BlockMacs:
    """Multiply-adds of one block as a polynomial: fixed + linear . k (+ product k1 k2), k the widths of its inner layers."""

    block: BlockShape
    fixed: int
    linear: tuple[int, ...]
    product: int
    gates: int

    def total(self, inner: Sequence[Tensor | int | float]) -> Tensor | int | float:
        """The block's multiply-adds without its gates; inner widths are numbers, or tensors of one shape."""
        total = self.fixed + sum(weight * width for weight, width in zip(self.linear, inner, strict=True))
        return total + self.product * inner[0] * inner[1] if self.product else total


@dataclass(frozen=True)
class Macs:
    """Multiply-adds of a network for one image size."""

    shape: ResNetShape
    stem: int
    blocks: tuple[BlockMacs, ...]
    router: int = 0

    @property
    def dense(self) -> int:
        """Everything open, no gates: what the papers call the original FLOPs."""
        return self.stem + sum(int(block.total(block.block.inner)) for block in self.blocks)

    @property
    def gates(self) -> int:
        """What the gates themselves cost, or the router."""
        return self.router + sum(block.gates for block in self.blocks)

    @property
    def floor(self) -> int:
        """What remains with every gate shut: stem, downsamples, gates (and ungated inner convolutions of Bottlenecks)."""
        return self.stem + self.gates + sum(int(block.total(_shut(block.block))) for block in self.blocks)

    @property
    def floor_share(self) -> float:
        """The floor as a share of the dense network; no budget can be below it."""
        return self.floor / self.dense

    def per_image(self, open_channels: Sequence[Tensor]) -> Tensor:
        """Multiply-adds (image,) of the gated network, gates included, for the open channels (image,) of every gate."""
        counts = list(open_channels)
        if len(counts) != len(self.shape.gate_channels):
            raise InputError(f"open_channels: {len(counts)} gates came, the network has {len(self.shape.gate_channels)}")
        total: Tensor | int | float = self.stem + self.gates
        for block in self.blocks:
            inner: list[Tensor | int] = list(block.block.inner)
            for convolution in block.block.gated:
                inner[convolution] = counts.pop(0)
            total = total + block.total(inner)
        return torch.as_tensor(total)

    def share(self, densities: Sequence[Float[Tensor, " image"]]) -> Float[Tensor, ""]:
        """Mean MAC share over the images, from the density (image,) of every gate; differentiable."""
        counts = [density * n for density, n in zip(densities, self.shape.gate_channels, strict=True)]
        return (self.per_image(counts) / self.dense).mean()

    def density_for(self, budget: float) -> float:
        """The density that, equal in every gate, gives this MAC share; in [0, 1]. Raises below the floor.

        ResNet-18 at 224 pixels: a share of .10 is a density of .026.
        """
        self.require_budget(budget)
        low, high = 0.0, 1.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self._share_at(middle) < budget else (low, middle)
        return high

    def _share_at(self, density: float) -> float:
        one = torch.ones(1, dtype=torch.float64)
        return float(self.share([density * one for _ in self.shape.gate_channels]))

    def require_budget(self, budget: float) -> None:
        """`InputError` for a budget that no setting of the gates can meet; says what the floor is made of."""
        ceiling = (self.dense + self.gates) / self.dense
        if not self.floor_share < budget <= 1:
            raise InputError(
                f"budget: a MAC share above {self.floor_share:.4f} and up to 1 can be asked, {budget} came. With every gate "
                f"shut the stem, the downsamples and the gates of {self.shape.network} remain ({self.floor:,} of "
                f"{self.dense:,} multiply-adds); with every gate open it is {ceiling:.4f}"
            )


def _shut(block: BlockShape) -> list[int]:
    """Inner widths with every gate shut: none of a gated convolution's channels, or its lowest level."""
    return [
        (block.level_widths(convolution)[0] if block.levels else 0) if convolution in block.gated else width
        for convolution, width in enumerate(block.inner)
    ]


def count_macs(shape: ResNetShape, size: int) -> Macs:
    """The multiply-adds of this network for square images of `size` pixels."""
    convolved, maps = shape.stem.sizes(size)
    stem = convolved**2 * 3 * shape.stem.kernel**2 * shape.stem.channels
    blocks = []
    for block in shape.blocks:
        blocks.append(_block_macs(block, maps, routed=shape.routes > 0))
        maps = block.output_size(maps)
    router = shape.router_hidden * (shape.stem.channels + shape.routes) if shape.routes else 0
    return Macs(shape, stem, tuple(blocks), router)


def _block_macs(block: BlockShape, size: int, *, routed: bool) -> BlockMacs:
    before, behind = size**2, block.output_size(size) ** 2
    fixed = behind * block.inputs * block.outputs if block.has_downsample else 0
    gated = () if routed else block.gated
    gates = sum(block.gate_hidden * (block.inputs + block.gate_decisions(convolution)) for convolution in gated)
    if block.is_bottleneck:
        return BlockMacs(block, fixed, (before * block.inputs, behind * block.outputs), 9 * behind, gates)
    return BlockMacs(block, fixed, (9 * behind * (block.inputs + block.outputs),), 0, gates)
