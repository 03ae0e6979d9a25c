"""Batch-norm folded into the layer in front of it: the weights of a network as it is at inference.

With y = (x - mean) / sqrt(variance + eps) weight + bias behind a layer x = W a (+ c):

    y = (s W) a + (s (c - mean) + bias),   s = weight / sqrt(variance + eps).

Computed in float64; who takes the weights rounds them once.
"""

from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pulvinar.core.errors import InputError
from pulvinar.networks.gated_resnet import Block, norm_of
from pulvinar.networks.gates import FIXED_LOGIT, Gate
from pulvinar.networks.resnet_shape import BlockShape

Weights = tuple[Tensor, Tensor]  # of a layer: weight (output, input, ...), bias (output,)


@dataclass(frozen=True, eq=False)
class FoldedGate:
    """reduce: input -> hidden, expand: hidden -> channel; the network's shift of all logits is in the last bias.

    A gate that decides on groups of channels has its decision's row for every channel of the group. A fixed channel has a row
    of zeros.
    """

    reduce: Weights
    expand: Weights


@dataclass(frozen=True, eq=False)
class FoldedBlock:
    """The whole weights of a block. gates: by the number of the convolution that they gate."""

    convolutions: list[Weights]
    shortcut: Weights | None = None
    gates: dict[int, FoldedGate] = field(default_factory=dict)


def folded(layer: nn.Conv2d | nn.Linear, norm: _BatchNorm) -> Weights:
    """Weight and bias of the one layer that does what layer and batch-norm (at inference) do; float64."""
    weight = layer.weight.detach().double()
    scale, offset = _scale_and_offset(norm)
    if layer.bias is not None:
        offset = offset + scale * layer.bias.detach().double()
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), offset


def _scale_and_offset(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """s and bias - s mean, in float64."""
    if norm.running_mean is None or norm.running_var is None:
        raise InputError("batch-norm: it keeps no running statistics, so it cannot be folded")
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.detach().double()
    offset = -scale * norm.running_mean.double()
    return scale, offset + norm.bias.detach().double() if norm.affine else offset


def folded_block(block: Block, source: str, shift: Tensor) -> FoldedBlock:
    """The weights of a block in the pass `source`, those of gates of channels among them; shift: of all logits."""
    shortcut = None
    if block.shortcut is not None and block.shortcut_norms is not None:
        shortcut = folded(block.shortcut, norm_of(block.shortcut_norms, source))
    return FoldedBlock(
        [_folded_convolution(block, number, convolution, source) for number, convolution in enumerate(block.convolutions)],
        shortcut,
        {int(name): _folded_gate(gate, shift) for name, gate in block.gates.items() if isinstance(gate, Gate)},
    )


def _folded_gate(gate: Gate, shift: Tensor) -> FoldedGate:
    decision = torch.arange(gate.n_channels, device=shift.device) // gate.group
    fixed = gate.fixed_channels().double()
    weight = gate.expand.weight.detach().double()[decision]
    offset = fixed.new_zeros(()) if gate.expand.bias is None else gate.expand.bias.detach().double()[decision]
    offset = torch.where(fixed == 0, offset, FIXED_LOGIT * fixed) + shift.double()
    return FoldedGate(folded(gate.reduce, gate.norm), (weight * (fixed == 0)[:, None], offset))


def _folded_convolution(block: Block, number: int, convolution: nn.Module, source: str) -> Weights:
    """Weight and bias; also of a convolution that is not there because one of its sides has no channel."""
    norm = norm_of(cast(nn.ModuleDict, block.norms[number]), source)
    if isinstance(convolution, nn.Conv2d):
        return folded(convolution, norm)
    widths = (block.shape.inputs, *block.shape.inner, block.shape.outputs)
    kernel = kernels_and_strides(block.shape)[number][0]
    _, offset = _scale_and_offset(norm)
    return offset.new_zeros(widths[number + 1], widths[number], kernel, kernel), offset


def kernels_and_strides(shape: BlockShape) -> tuple[tuple[int, int], ...]:
    """Of every convolution of a block."""
    return ((1, 1), (3, shape.stride), (1, 1)) if shape.is_bottleneck else ((3, shape.stride), (3, 1))
