"""Batch-norm folded into the layer in front of it, and layers that may have no channel on one side.

With y = (x - mean) / sqrt(variance + eps) weight + bias behind a layer x = W a (+ c):

    y = (s W) a + (s (c - mean) + bias),   s = weight / sqrt(variance + eps).

Computed in float64 and rounded once.
"""

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pulvinar.errors import InputError


def _scale_and_offset(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """s and bias - s mean, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("batch-norm: it keeps no running statistics, so it cannot be folded")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    offset = -scale * norm.running_mean.double()
    return scale, offset + norm.bias.detach().double() if norm.affine else offset


def folded(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one layer that does what layer and batch-norm (at inference) do; float64."""
    scale, offset = _scale_and_offset(norm)
    weight = layer.weight.detach().double()
    if layer.bias is not None:
        offset = offset + scale * layer.bias.detach().double()
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), offset


class Convolution(nn.Module):
    """A square convolution with padding kernel // 2 (or as given) in which either side may have no channel.

    Without inputs it gives its bias everywhere, without outputs maps of no channel. Weights are not initialised.
    """

    bias: nn.Parameter | None

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, *, padding: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel // 2 if padding is None else padding
        self.weight = nn.Parameter(torch.empty(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None

    def forward(self, maps: Float[Tensor, "image input height width"]) -> Float[Tensor, "image output _ _"]:
        """The maps behind the convolution."""
        if self.weight.shape[0] and self.weight.shape[1]:
            return functional.conv2d(maps, self.weight, self.bias, self.stride, self.padding)
        height, width = (self.output_size(side) for side in maps.shape[2:])
        empty = maps.new_zeros((maps.shape[0], self.weight.shape[0], height, width))
        return empty if self.bias is None else empty + self.bias[:, None, None]

    def output_size(self, size: int) -> int:
        """Side of the maps behind it."""
        return (size + 2 * self.padding - self.weight.shape[-1]) // self.stride + 1

    @torch.no_grad()
    def fill(self, weight: Tensor, bias: Tensor | None, *, outputs: Tensor | None = None, inputs: Tensor | None = None) -> None:
        """Take these rows and columns (None: all) of a folded convolution; the bias only if this one has a bias."""
        rows = slice(None) if outputs is None else outputs
        cut = weight[rows]
        self.weight.copy_(cut if inputs is None else cut[:, inputs])
        if self.bias is not None:
            self.bias.copy_(cast(Tensor, bias)[rows])
