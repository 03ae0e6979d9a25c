"""One ResNet with two passes: dense, and gated by a small network in front of every block.

Gate of a block ("Dynamic channel selection", equation 2): average pool of the block's input -> C_in -> C_in // 4 (no bias) ->
batch-norm -> ReLU -> C_gate logits. It multiplies relu(bn(conv(x))) of an inner convolution, and so closes inputs of the next
one. Stem, downsamples and block outputs are never gated. Both passes share every convolution; each has its own batch-norm in
the blocks ("Unifying synergies", section 3.1), and by option also in stem and downsamples (`separate_norms` "all"; with
"blocks", the papers' choice, their running statistics mix both passes).

Ours: `gate_bias` (none: no bias, about half the gates open at the start, as the papers' self-supervised code; supervised DGNet
starts at +2), gates of Bottleneck blocks on either or both inner convolutions (networks/macs.py has the formula), gates that
decide on groups of neighbouring channels (`gate_group` of the shape: then the last layer of a gate has one output a group),
`logit_shift`, one number added to every logit, by which a finished network is moved onto its budget, and gates that are fixed:
constants, whatever the image is (`Gate.fixed`; gating/settling.py fixes what is decided).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm, n_processes
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import BlockShape, ResNetShape, StemShape
from pulvinar.selection.channel_gate import (
    TEMPERATURE,
    by_group,
    logistic_noise,
    n_groups,
    open_gates,
    straight_through_gate,
)

Pass = Literal["dense", "gated"]
SeparateNorms = Literal["blocks", "all"]


def spatial_mean(maps: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image channel"]:
    """Global average pool. (On channels-last maps this order of axes has a backward pass 3 to 8 times faster than `mean`.)"""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


FEWEST_STRIDED = 8  # input channels of a strided 1x1 convolution that is left to torch: an AVX2 vector of float32
FIXED_LOGIT = 1e4  # of a fixed gate; neither the shift nor the noise of training comes near it


class Gate(nn.Module):
    """Logits (image, channel) from a block's input, equal within a group; computed in float32 whatever the maps are.

    fixed: of every decision, 1 for always open, -1 for always shut (a logit of +-1e4 without gradient), 0 for by image.
    """

    fixed: Tensor

    def __init__(self, inputs: int, hidden: int, channels: int, bias: float | None, group: int = 1) -> None:
        super().__init__()
        self.n_channels, self.group = channels, group
        self.reduce = nn.Linear(inputs, hidden, bias=False)
        self.norm = BatchNorm(hidden)
        self.expand = nn.Linear(hidden, n_groups(channels, group), bias=bias is not None)
        self.initial_bias = bias
        self.register_buffer("fixed", torch.zeros(n_groups(channels, group)))
        self.register_load_state_dict_pre_hook(_none_fixed)

    def forward(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image channel"]:
        """Relevance of every channel; a gate opens where it is 0 or more."""
        with torch.autocast(pooled.device.type, enabled=False):
            decisions = self.expand(torch.relu(self.norm(self.reduce(pooled.to(self.reduce.weight.dtype)))))
            fixed = self.fixed.to(decisions)
            decisions = torch.where(fixed == 0, decisions, FIXED_LOGIT * fixed)
            return by_group(decisions, group=self.group, n_channels=self.n_channels)

    def fixed_channels(self) -> Float[Tensor, " channel"]:
        """`fixed` for every channel."""
        return by_group(self.fixed[None], group=self.group, n_channels=self.n_channels)[0]


def _none_fixed(gate: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights saved before gates could be fixed have none that is."""
    state.setdefault(f"{prefix}fixed", torch.zeros_like(cast(Gate, gate).fixed))


@dataclass(frozen=True)
class GateSetting:
    """How gates are drawn in one pass: with noise from `generator` (training), or without (inference).

    masks: gates to use instead, one (image, channel) or (channel,) of 0 and 1 per gate, taken from the front.
    """

    generator: torch.Generator | None
    temperature: float
    shift: Tensor
    masks: list[Tensor] | None = None
    all_open: bool = False

    def draw(self, logits: Tensor, group: int = 1) -> Tensor:
        """Gates of exactly 0 or 1 with a straight-through gradient; masks, and gates kept open, have none.

        group: neighbouring channels that share their logit; they share the noise too.
        """
        if self.masks is not None:
            return self.masks.pop(0).to(logits).expand_as(logits)
        if self.all_open:
            return torch.ones_like(logits)
        noise = None
        if self.generator is not None:
            rank = torch.distributed.get_rank() if n_processes() > 1 else 0
            n_images, n_channels = logits.shape
            part, drawn = (rank, n_processes()), n_groups(n_channels, group)
            noise = logistic_noise(n_images, drawn, self.generator, part=part, device=logits.device)
            noise = by_group(noise, group=group, n_channels=n_channels)
        return straight_through_gate(logits + self.shift, noise, temperature=self.temperature)


@dataclass
class GateRecord:
    """Logits (shift included) and gates (image, channel) of every gate of a pass, in the order they were met."""

    logits: list[Tensor]
    gates: list[Tensor]


def _convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d | None:
    """A 3x3 or 1x1 convolution, or None where one side has no channel left."""
    if not inputs or not outputs:
        return None
    kind = StridedPointwise if kernel == 1 and stride > 1 else nn.Conv2d
    return kind(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)


class StridedPointwise(nn.Conv2d):
    """A 1x1 convolution with a stride; with few inputs, the pixels are picked first and convolved without a stride.

    The same numbers. On processors without AVX-512, torch (2.13 to 2.15, oneDNN) computes wrong weight gradients of strided 1x1
    convolutions of 4 channels in channels-last order, or crashes (docs/log.md).
    """

    def forward(self, input: Tensor) -> Tensor:
        """(image, channel, height, width), as of `nn.Conv2d`."""
        if self.in_channels >= FEWEST_STRIDED:
            return super().forward(input)
        down, across = self.stride
        return functional.conv2d(input[..., ::down, ::across], self.weight, self.bias)


def _norms(passes: Sequence[str], channels: int) -> nn.ModuleDict:
    return nn.ModuleDict({name: BatchNorm(channels) for name in passes})


class Block(nn.Module):
    """BasicBlock or Bottleneck, by its shape. An inner width of 0 leaves the constant that batch-norm makes of zeros."""

    def __init__(self, shape: BlockShape, passes: Sequence[Pass], shortcut_passes: Sequence[str], bias: float | None) -> None:
        super().__init__()
        self.shape = shape
        widths = (shape.inputs, *shape.inner, shape.outputs)
        kernels, strides = ((1, 3, 1), (1, shape.stride, 1)) if shape.is_bottleneck else ((3, 3), (shape.stride, 1))
        self.convolutions = nn.ModuleList(
            [
                _convolution(inputs, outputs, kernel, stride) or nn.Identity()
                for inputs, outputs, kernel, stride in zip(widths[:-1], widths[1:], kernels, strides, strict=True)
            ]
        )
        self.norms = nn.ModuleList([_norms(passes, channels) for channels in widths[1:]])
        self.shortcut = _convolution(shape.inputs, shape.outputs, 1, shape.stride) if shape.has_downsample else None
        self.shortcut_norms = _norms(shortcut_passes, shape.outputs) if shape.has_downsample else None
        gated = shape.gated if "gated" in passes else ()
        self.gates = nn.ModuleDict(
            {str(n): Gate(shape.inputs, shape.gate_hidden, shape.inner[n], bias, shape.gate_group) for n in gated}
        )

    def forward(self, maps: Tensor, name: str, setting: GateSetting | None, record: GateRecord) -> Tensor:
        """relu(residual + shortcut). name: the pass, for its batch-norms; setting: how gates are drawn (None: all open)."""
        pooled = spatial_mean(maps) if setting is not None and len(self.gates) else None
        residual = maps
        for number, (convolution, norms) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            residual = self._convolved(residual, number, convolution)
            if not residual.shape[1]:
                continue
            residual = norm_of(cast(nn.ModuleDict, norms), name)(residual)
            if number + 1 == len(self.convolutions):
                break
            residual = torch.relu(residual)
            if pooled is not None and str(number) in self.gates:
                residual = residual * self._gate(number, pooled, setting, record).to(residual.dtype)[:, :, None, None]
        return torch.relu(residual + self._shortcut(maps, name))

    def _gate(self, number: int, pooled: Tensor, setting: GateSetting | None, record: GateRecord) -> Tensor:
        logits = self.gates[str(number)](pooled)
        gates = setting.draw(logits, self.shape.gate_group) if setting is not None else torch.ones_like(logits)
        record.logits.append(logits + setting.shift if setting is not None else logits)
        record.gates.append(gates)
        return gates

    def _convolved(self, maps: Tensor, number: int, convolution: nn.Module) -> Tensor:
        if isinstance(convolution, nn.Conv2d):
            return convolution(maps)
        width = (*self.shape.inner, self.shape.outputs)[number]
        side = self.shape.output_size(maps.shape[-1]) if number == (1 if self.shape.is_bottleneck else 0) else maps.shape[-1]
        return maps.new_zeros((len(maps), width, side, side))

    def _shortcut(self, maps: Tensor, name: str) -> Tensor:
        if self.shortcut is None or self.shortcut_norms is None:
            return maps
        return norm_of(self.shortcut_norms, name)(self.shortcut(maps))


def norm_of(norms: nn.ModuleDict, name: str) -> BatchNorm:
    """The pass's own batch-norm, or the one that both share."""
    return cast(BatchNorm, norms[name if name in norms else "shared"])


class Stem(nn.Module):
    """Convolution, batch-norm, ReLU and, for large images, max-pooling."""

    def __init__(self, shape: StemShape, passes: Sequence[str]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, shape.channels, shape.kernel, shape.stride, shape.padding, bias=False)
        self.norms = _norms(passes, shape.channels)
        self.pooled = shape.pooled

    def forward(self, images: Tensor, name: str) -> Tensor:
        """Maps of the stem."""
        maps = torch.relu(norm_of(self.norms, name)(self.convolution(images)))
        return nn.functional.max_pool2d(maps, 3, stride=2, padding=1) if self.pooled else maps


@dataclass(frozen=True)
class GatedOutput:
    """What a pass gives. Of the dense pass: no gates, and a MAC share of 1.

    features: (image, feature), average-pooled. gates, logits: (image, channel) for every gate. mac_share: mean over the images,
    differentiable through the gates. hard_share: the share of the same images by logit >= 0, as at inference, no gradient.
    """

    features: Float[Tensor, "image feature"]
    mac_share: Float[Tensor, ""]
    hard_share: Float[Tensor, ""]
    gates: tuple[Tensor, ...] = ()
    logits: tuple[Tensor, ...] = ()

    @property
    def densities(self) -> Float[Tensor, " gate"]:
        """Mean share of open channels of every gate, differentiable."""
        return torch.stack([gate.mean() for gate in self.gates]) if self.gates else torch.ones(0)

    @property
    def rates(self) -> Float[Tensor, " channel"]:
        """Probability that a channel is open in training, mean over the images, gate after gate; differentiable."""
        return torch.cat([torch.sigmoid(logits).mean(0) for logits in self.logits]) if self.logits else torch.ones(0)


class GatedResNet(nn.Module):
    """A ResNet for square images with a dense and a gated pass; with `passes` ("dense",) an ordinary one without gates.

    `model(images, gated=True, generator=g)` draws gates with noise from g (training); without a generator gates are those of
    inference. images: (image, 3, size, size), any float dtype; channels-last is faster on CPU.
    """

    logit_shift: Tensor

    def __init__(
        self,
        shape: ResNetShape,
        *,
        size: int,
        passes: Sequence[Pass] = ("dense", "gated"),
        separate_norms: SeparateNorms = "blocks",
        gate_bias: float | None = None,
        temperature: float = TEMPERATURE,
    ) -> None:
        super().__init__()
        self.shape, self.size, self.passes, self.temperature = shape, size, tuple(passes), temperature
        self.macs = count_macs(shape, size)
        outer = list(self.passes) if separate_norms == "all" or len(self.passes) == 1 else ["shared"]
        self.stem = Stem(shape.stem, outer)
        self.blocks = nn.ModuleList([Block(block, self.passes, outer, gate_bias) for block in shape.blocks])
        self.register_buffer("logit_shift", torch.zeros(()))

    def initialise(self, generator: torch.Generator, *, zero_residual: bool = False) -> "GatedResNet":
        """Convolutions He-normal over outputs, as torchvision's; gates uniform in +-1/sqrt(inputs), torch's own default.

        zero_residual: the last batch-norm of each block starts at weight 0, so that blocks start as their shortcut (SimSiam).
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            elif isinstance(module, nn.Linear):
                nn.init.uniform_(module.weight, -(module.in_features**-0.5), module.in_features**-0.5, generator=generator)
            elif isinstance(module, BatchNorm):
                module.reset_parameters()
        for module in self.modules():
            if isinstance(module, Gate) and module.initial_bias is not None:
                nn.init.constant_(module.expand.bias, module.initial_bias)
            if isinstance(module, Block) and zero_residual:
                for norm in cast(nn.ModuleDict, module.norms[-1]).values():
                    nn.init.zeros_(cast(BatchNorm, norm).weight)
        return self

    def gate_parameters(self) -> list[nn.Parameter]:
        """Parameters of the gates alone; they get no weight decay."""
        return [p for module in self.modules() if isinstance(module, Gate) for p in module.parameters()]

    def forward(
        self,
        images: Float[Tensor, "image 3 height width"],
        gated: bool = False,
        generator: torch.Generator | None = None,
        masks: Sequence[Tensor] | None = None,
        *,
        all_open: bool = False,
    ) -> GatedOutput:
        """One pass. Raises `InputError` for a gated pass of a network without gates.

        masks: gates to impose on a gated pass instead of its own (0 and 1, (image, channel) or (channel,) for every gate).
        `hard_share` is then still that of the network's own gates. all_open: every gate kept open (warm-up).
        """
        name = "gated" if gated else "dense"
        if name not in self.passes:
            raise InputError(f"gated: this network has no {name} pass; it has: {', '.join(self.passes)}")
        if masks is not None and (not gated or len(masks) != len(self.shape.gate_channels)):
            what = f"{len(masks)} came" if gated else "this pass is dense"
            raise InputError(f"masks: one for each of the {len(self.shape.gate_channels)} gates of a gated pass; {what}")
        imposed = None if masks is None else list(masks)
        setting = GateSetting(generator, self.temperature, self.logit_shift, imposed, all_open) if gated else None
        record = GateRecord([], [])
        maps = self.stem(images, name)
        for block in self.blocks:
            maps = block(maps, name, setting, record)
        features = spatial_mean(maps)
        if not gated:
            one = torch.ones((), device=images.device)
            return GatedOutput(features, one, one)
        share = self.macs.share([gate.mean(1) for gate in record.gates])
        with torch.no_grad():
            hard = self.macs.share([open_gates(logits).mean(1) for logits in record.logits])
        return GatedOutput(features, share, hard, tuple(record.gates), tuple(record.logits))


def copy_norms(network: GatedResNet, *, source: Pass = "dense", to: Pass = "gated") -> None:
    """Copy every batch-norm that the passes do not share from one pass to the other."""
    for module in network.modules():
        if isinstance(module, nn.ModuleDict) and source in module and to in module:
            module[to].load_state_dict(module[source].state_dict())
