"""One ResNet with two passes: dense, and gated by a small network in front of every block, or one behind the stem.

A gate looks at the averaged input of its block and multiplies relu(bn(conv(x))) of an inner convolution, and so closes inputs
of the next one; networks/gates.py has the gates, and what they may choose ("Dynamic channel selection", equation 2). Stem,
downsamples and block outputs are never gated. Both passes share every convolution; each has its own batch-norm in the blocks
("Unifying synergies", section 3.1), and by option also in stem and downsamples (`separate_norms` "all"; with "blocks", the
papers' choice, their running statistics mix both passes).

Ours: `gate_bias` (none: no bias, about half the gates open at the start, as the papers' self-supervised code; supervised DGNet
starts at +2), gates of Bottleneck blocks on either or both inner convolutions (networks/macs.py has the formula), gates that
decide on groups of neighbouring channels (`gate_group` of the shape: then the last layer of a gate has one output a group),
`logit_shift`, one number added to every logit, by which a finished network is moved onto its budget, and gates that are fixed:
constants, whatever the image is (`Gate.fixed`; gating/settling.py fixes what is decided).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gates import GateModule, GateRecord, GateSetting, gates_of_block, router_of
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import BlockShape, ResNetShape, StemShape
from pulvinar.selection.channel_gate import TEMPERATURE, open_gates

Pass = Literal["dense", "gated"]
SeparateNorms = Literal["blocks", "all"]


def spatial_mean(maps: Float[Tensor, "image channel height width"]) -> Float[Tensor, "image channel"]:
    """Global average pool. (On channels-last maps this order of axes has a backward pass 3 to 8 times faster than `mean`.)"""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(1)


FEWEST_STRIDED = 8  # input channels of a strided 1x1 convolution that is left to torch: an AVX2 vector of float32


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
    """BasicBlock or Bottleneck, by its shape. An inner width of 0 leaves the constant that batch-norm makes of zeros.

    routed: its gates are those of the image's route, so that it has none of its own.
    """

    def __init__(
        self,
        shape: BlockShape,
        passes: Sequence[Pass],
        shortcut_passes: Sequence[str],
        bias: float | None,
        *,
        routed: bool = False,
    ) -> None:
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
        self.gates = gates_of_block(shape, bias) if "gated" in passes and not routed else nn.ModuleDict()

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
            if setting is not None and number in self.shape.gated:
                residual = residual * self._gate(number, pooled, setting, record).to(residual.dtype)[:, :, None, None]
        return torch.relu(residual + self._shortcut(maps, name))

    def _gate(self, number: int, pooled: Tensor | None, setting: GateSetting, record: GateRecord) -> Tensor:
        if setting.routing is not None:
            logits, drawn = setting.routing.plain.pop(0), setting.routing.drawn.pop(0)
        else:
            logits = drawn = self.gates[str(number)](pooled)
        group = self.shape.inner[number] if self.shape.levels else self.shape.gate_group
        gates = setting.draw(drawn, group)
        record.logits.append(logits + setting.shift)
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
    chances: of a network with routes, the probability of each of them in training.
    """

    features: Float[Tensor, "image feature"]
    mac_share: Float[Tensor, ""]
    hard_share: Float[Tensor, ""]
    gates: tuple[Tensor, ...] = ()
    logits: tuple[Tensor, ...] = ()
    chances: Float[Tensor, "image route"] | None = None

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
        routed = shape.routes > 0
        self.blocks = nn.ModuleList([Block(block, self.passes, outer, gate_bias, routed=routed) for block in shape.blocks])
        self.router = router_of(shape, gate_bias) if routed and "gated" in self.passes else None
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
            if isinstance(module, GateModule):
                module.start(generator)
            if isinstance(module, Block) and zero_residual:
                for norm in cast(nn.ModuleDict, module.norms[-1]).values():
                    nn.init.zeros_(cast(BatchNorm, norm).weight)
        return self

    def gate_parameters(self) -> list[nn.Parameter]:
        """Parameters of the gates alone; they get no weight decay."""
        return [p for module in self.modules() if isinstance(module, GateModule) for p in module.parameters()]

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
        routing = None
        if setting is not None and self.router is not None:
            routing = self.router(spatial_mean(maps), generator, self.temperature)
            setting = replace(setting, routing=routing)
        for block in self.blocks:
            maps = block(maps, name, setting, record)
        features = spatial_mean(maps)
        if not gated:
            one = torch.ones((), device=images.device)
            return GatedOutput(features, one, one)
        share = self.macs.share([gate.mean(1) for gate in record.gates])
        with torch.no_grad():
            hard = self.macs.share([open_gates(logits).mean(1) for logits in record.logits])
        chances = None if routing is None else routing.chances
        return GatedOutput(features, share, hard, tuple(record.gates), tuple(record.logits), chances)


def copy_norms(network: GatedResNet, *, source: Pass = "dense", to: Pass = "gated") -> None:
    """Copy every batch-norm that the passes do not share from one pass to the other."""
    for module in network.modules():
        if isinstance(module, nn.ModuleDict) and source in module and to in module:
            module[to].load_state_dict(module[source].state_dict())
