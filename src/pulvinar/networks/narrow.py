"""Cut channels by index: convolutions, batch-norms, linear layers, and whole ResNets.

What is cut is really gone: weights are smaller, multiply-adds are not done. Static masks, pruned networks, students and
compaction are all made with these.
"""

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import Block, GatedResNet, Pass, norm_of
from pulvinar.networks.resnet_shape import ResNetShape

Kept = Int[Tensor, " _"]


def _checked(kept: Kept | None, n_channels: int, what: str) -> Tensor:
    """The indices as they are; all of them for None."""
    if kept is None:
        return torch.arange(n_channels)
    outside = [int(index) for index in kept if not 0 <= int(index) < n_channels]
    if outside or len(set(kept.tolist())) != len(kept):
        reason = f"{outside[:3]} lie outside" if outside else "some come twice"
        raise InputError(f"{what}: indices of {n_channels} channels are needed, each once; {reason}")
    return kept.to(torch.long)


def _require_channels(n_outputs: int, n_inputs: int, what: str) -> None:
    if not n_outputs or not n_inputs:
        raise InputError(f"{what}: nothing would be left ({n_outputs} outputs, {n_inputs} inputs); keep one channel or more")


def cut_convolution(convolution: nn.Conv2d, *, outputs: Kept | None = None, inputs: Kept | None = None) -> nn.Conv2d:
    """The convolution with these output and input channels only, in this order (None: all). Not for grouped ones."""
    if convolution.groups != 1:
        raise InputError(f"convolution: {convolution.groups} groups; only ungrouped convolutions can be cut by channel")
    rows = _checked(outputs, convolution.out_channels, "outputs")
    columns = _checked(inputs, convolution.in_channels, "inputs")
    _require_channels(len(rows), len(columns), "convolution")
    cut = nn.utils.skip_init(
        type(convolution),
        len(columns),
        len(rows),
        convolution.kernel_size,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
        bias=convolution.bias is not None,
        padding_mode=convolution.padding_mode,
        device=convolution.weight.device,
        dtype=convolution.weight.dtype,
    )
    with torch.no_grad():
        cut.weight.copy_(convolution.weight[rows][:, columns])
        if convolution.bias is not None and cut.bias is not None:
            cut.bias.copy_(convolution.bias[rows])
    return cut.train(convolution.training)


def cut_linear(linear: nn.Linear, *, outputs: Kept | None = None, inputs: Kept | None = None) -> nn.Linear:
    """The linear layer with these outputs and inputs only, in this order (None: all)."""
    rows = _checked(outputs, linear.out_features, "outputs")
    columns = _checked(inputs, linear.in_features, "inputs")
    _require_channels(len(rows), len(columns), "linear layer")
    options = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    cut = nn.utils.skip_init(nn.Linear, len(columns), len(rows), bias=linear.bias is not None, **options)
    with torch.no_grad():
        cut.weight.copy_(linear.weight[rows][:, columns])
        if linear.bias is not None:
            cut.bias.copy_(linear.bias[rows])
    return cut.train(linear.training)


def cut_batch_norm(norm: _BatchNorm, kept: Kept) -> BatchNorm:
    """The batch-norm of these channels, with their weights and running statistics."""
    channels = _checked(kept, norm.num_features, "kept")
    cut = BatchNorm(
        len(channels), eps=norm.eps, momentum=norm.momentum, affine=norm.affine, track_running_stats=norm.track_running_stats
    )
    state = {name: value[channels] if value.ndim else value for name, value in norm.state_dict().items()}
    if state:
        cut.to(device=next(iter(state.values())).device, dtype=norm.weight.dtype if norm.affine else None)
    cut.load_state_dict(state)
    return cut.train(norm.training)


def narrowed_shape(shape: ResNetShape, kept: Sequence[Kept]) -> ResNetShape:
    """The shape with the gated widths replaced by the number of kept channels of every gate."""
    remaining = [len(indices) for indices in kept]
    if len(remaining) != len(shape.gate_channels):
        raise InputError(f"kept: {len(remaining)} lists of channels came, {shape.network} has {len(shape.gate_channels)} gates")
    inner = []
    for block in shape.blocks:
        widths = list(block.inner)
        for convolution in block.gated:
            widths[convolution] = remaining.pop(0)
        inner.append(widths)
    return shape.with_inner(inner)


def narrowed(network: GatedResNet, kept: Sequence[Kept], *, source: Pass = "gated") -> GatedResNet:
    """A network without gates whose inner layers keep these channels: the pass `source` with a constant mask, made real.

    kept: channel indices for every gate, in the order of `network.shape.gate_channels`; a gate may keep none. The result has
    the pass "dense" alone. It equals the masked pass up to the order of summation.
    """
    shape = narrowed_shape(network.shape, kept)
    made = GatedResNet(shape, size=network.size, passes=("dense",))
    with torch.no_grad():
        made.stem.convolution = cut_convolution(network.stem.convolution)
        made.stem.norms["dense"] = _whole_norm(network.stem.norms, source)
        lists = list(kept)
        for old, new in zip(_blocks(network), _blocks(made), strict=True):
            _cut_block(old, new, [lists.pop(0) for _ in old.shape.gated], source)
    return made.train(network.training)


def _whole_norm(norms: nn.ModuleDict, source: Pass) -> BatchNorm:
    norm = norm_of(norms, source)
    return cut_batch_norm(norm, torch.arange(norm.num_features))


def _blocks(network: GatedResNet) -> list[Block]:
    return cast(list[Block], list(network.blocks))


def _cut_block(old: Block, new: Block, kept: list[Tensor], source: Pass) -> None:
    """Fill `new` with what remains of `old`."""
    channels: list[Tensor | None] = [None] * (len(old.shape.inner) + 2)
    for gated, indices in zip(old.shape.gated, kept, strict=True):
        channels[gated + 1] = _checked(indices, old.shape.inner[gated], "kept")
    for number, convolution in enumerate(old.convolutions):
        inputs, outputs = channels[number], channels[number + 1]
        if isinstance(new.convolutions[number], nn.Conv2d):
            new.convolutions[number] = cut_convolution(cast(nn.Conv2d, convolution), outputs=outputs, inputs=inputs)
        norm = norm_of(cast(nn.ModuleDict, old.norms[number]), source)
        every = torch.arange(norm.num_features)
        cast(nn.ModuleDict, new.norms[number])["dense"] = cut_batch_norm(norm, every if outputs is None else outputs)
    if old.shortcut is not None and old.shortcut_norms is not None and new.shortcut_norms is not None:
        new.shortcut = cut_convolution(old.shortcut)
        new.shortcut_norms["dense"] = _whole_norm(old.shortcut_norms, source)
