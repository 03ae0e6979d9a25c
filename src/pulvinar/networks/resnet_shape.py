"""The numbers of a ResNet: channels, strides and map sizes of every block, before any weight exists.

ResNet-18, -34 (BasicBlock) and -50 (Bottleneck with the stride in its 3x3 convolution, as torchvision has it). Stems:

- imagenet: 7x7, stride 2, padding 3, then 3x3 max-pooling of stride 2.
- cifar:    3x3, stride 1, padding 1, no pooling.
- papers:   cifar's with padding 2 up to 64 pixels (the maps grow by 2: 34 x 34 for 32), imagenet's above. With it ResNet-18
            has the multiply-adds that the papers print for 32 pixels (7.03E8).
- auto:     cifar's up to 64 pixels, imagenet's above.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.selection.channel_gate import n_groups

Stem = Literal["auto", "cifar", "imagenet", "papers"]
GatedConvs = Literal["conv1", "conv2", "both"]
GateForm = Literal["subset", "levels", "routes"]  # networks/gates.py

STAGES = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}
BASE_CHANNELS = 64
EXPANSION = 4  # of a Bottleneck's outputs over its inner channels
LARGEST_SMALL_IMAGE = 64
GATE_REDUCTION = 4  # both papers


def network_name(name: str) -> str:
    """The name, if it is a network we have; `NotFoundError` otherwise."""
    if name not in STAGES:
        raise NotFoundError(f"network '{name}' is not known{suggest(name, list(STAGES))}")
    return name


@dataclass(frozen=True)
class StemShape:
    """A square convolution from 3 channels, and whether max-pooling follows."""

    channels: int
    kernel: int
    stride: int
    padding: int
    pooled: bool

    def sizes(self, size: int) -> tuple[int, int]:
        """Side of the maps after the convolution, and after the pooling."""
        convolved = (size + 2 * self.padding - self.kernel) // self.stride + 1
        return convolved, (convolved - 1) // 2 + 1 if self.pooled else convolved


@dataclass(frozen=True)
class BlockShape:
    """Channels of a block. inner: (k,) conv1's outputs in a BasicBlock, (k1, k2) conv1's and conv2's in a Bottleneck.

    gated: which of the inner convolutions have a gate on their outputs (indices into `inner`). gate_group: neighbouring
    channels that one decision of a gate opens or shuts. levels: ascending shares of the channels that a gate chooses from,
    the last 1; empty: it chooses channels.
    """

    inputs: int
    inner: tuple[int, ...]
    outputs: int
    stride: int
    gated: tuple[int, ...] = (0,)
    gate_group: int = 1
    levels: tuple[float, ...] = ()

    @property
    def is_bottleneck(self) -> bool:
        """Whether the block has three convolutions."""
        return len(self.inner) == 2

    @property
    def has_downsample(self) -> bool:
        """Whether the shortcut is a 1x1 convolution."""
        return self.stride != 1 or self.inputs != self.outputs

    @property
    def gate_hidden(self) -> int:
        """Hidden channels of a gate: inputs // 4, at least 1."""
        return max(1, self.inputs // GATE_REDUCTION)

    def gate_decisions(self, convolution: int) -> int:
        """Outputs of the gate of this inner convolution: its channels over `gate_group`, rounded up; of levels one less."""
        return len(self.levels) - 1 if self.levels else n_groups(self.inner[convolution], self.gate_group)

    def level_widths(self, convolution: int) -> tuple[int, ...]:
        """The numbers of channels that the gate of this inner convolution chooses from; `InputError` if two are the same."""
        channels = self.inner[convolution]
        widths = tuple(int(share * channels + 0.5) for share in self.levels)
        if list(widths) != sorted(set(widths)) or widths[-1] != channels:
            raise InputError(
                f"gate_levels: ascending shares up to 1 are needed that give {channels} channels different widths; "
                f"{', '.join(map(str, self.levels))} give {', '.join(map(str, widths))}"
            )
        return widths

    def output_size(self, size: int) -> int:
        """Side of the maps behind the 3x3 convolution with the stride (padding 1)."""
        return (size - 1) // self.stride + 1


@dataclass(frozen=True)
class ResNetShape:
    """A whole network up to the average pool. routes: masks of the whole network that the images are divided among, or 0."""

    network: str
    stem: StemShape
    blocks: tuple[BlockShape, ...]
    routes: int = 0

    @property
    def gate_form(self) -> GateForm:
        """What gates choose."""
        return "routes" if self.routes else "levels" if self.blocks[0].levels else "subset"

    @property
    def router_hidden(self) -> int:
        """Hidden channels of the router: stem channels // 4, at least 1."""
        return max(1, self.stem.channels // GATE_REDUCTION)

    @property
    def n_features(self) -> int:
        """Length of the average-pooled feature vector: 512 x width (ResNet-50: 2048 x width)."""
        return self.blocks[-1].outputs

    @property
    def gate_channels(self) -> tuple[int, ...]:
        """Channels of every gate, in the order in which the network meets them."""
        return tuple(block.inner[convolution] for block in self.blocks for convolution in block.gated)

    def with_inner(self, inner: Sequence[Sequence[int]]) -> "ResNetShape":
        """The same network with other inner widths, block by block, and neither levels nor routes."""
        if len(inner) != len(self.blocks):
            raise InputError(f"inner: {len(inner)} blocks came, {self.network} has {len(self.blocks)}")
        return replace(
            self,
            blocks=tuple(
                replace(block, inner=tuple(widths), levels=()) for block, widths in zip(self.blocks, inner, strict=True)
            ),
            routes=0,
        )


def stem_shape(stem: Stem, *, size: int, channels: int) -> StemShape:
    """The stem for square images of `size` pixels."""
    small = size <= LARGEST_SMALL_IMAGE
    if stem == "imagenet" or (stem in ("auto", "papers") and not small):
        return StemShape(channels, kernel=7, stride=2, padding=3, pooled=True)
    return StemShape(channels, kernel=3, stride=1, padding=2 if stem == "papers" else 1, pooled=False)


def resnet_shape(
    network: str,
    *,
    size: int,
    stem: Stem = "auto",
    width: float = 1.0,
    gated_convs: GatedConvs = "conv2",
    gate_group: int = 1,
    levels: tuple[float, ...] = (),
    routes: int = 0,
) -> ResNetShape:
    """The shape of resnet18, resnet34 or resnet50 for square images of `size` pixels.

    width: multiplies every channel count, stem and outputs included. gated_convs: which inner convolutions of a Bottleneck
    are gated (DGNet's habit: conv2; a BasicBlock has one, conv1). gate_group: channels of one decision. levels, routes: what
    gates choose instead of channels. `InputError` where the width leaves no channel, the image no pixel, a group has none, or
    levels and routes cannot be had.
    """
    stages = STAGES[network_name(network)]
    base = round(BASE_CHANNELS * width)
    if base < 1:
        raise InputError(f"width: {width} leaves {BASE_CHANNELS * width:.2f} of {BASE_CHANNELS} channels; give 1/64 or more")
    if size < 8:
        raise InputError(f"size: images of {size} pixels; 8 or more are needed")
    if gate_group < 1:
        raise InputError(f"gate_group: {gate_group} channels in a group; 1 or more are needed")
    blocks, inputs = [], base
    for stage, n_blocks in enumerate(stages):
        channels = base * 2**stage
        for number in range(n_blocks):
            stride = 2 if stage and not number else 1
            blocks.append(replace(_block(network, inputs, channels, stride, gated_convs, gate_group), levels=levels))
            inputs = blocks[-1].outputs
    made = ResNetShape(network, stem_shape(stem, size=size, channels=base), tuple(blocks), routes)
    _require_form(made)
    return made


def _block(network: str, inputs: int, channels: int, stride: int, gated_convs: GatedConvs, group: int) -> BlockShape:
    if network != "resnet50":
        return BlockShape(inputs, (channels,), channels, stride, gate_group=group)
    gated = {"conv1": (0,), "conv2": (1,), "both": (0, 1)}[gated_convs]
    return BlockShape(inputs, (channels, channels), EXPANSION * channels, stride, gated, group)


def _require_form(shape: ResNetShape) -> None:
    """`InputError` for levels and routes that cannot be had."""
    first = shape.blocks[0]
    if shape.routes == 1 or shape.routes < 0 or (shape.routes and first.levels):
        raise InputError(f"routes: 2 or more, without levels, are needed; {shape.routes} came")
    if not first.levels:
        return
    if len(first.levels) < 2 or len(first.gated) > 1 or first.gate_group > 1:
        raise InputError(
            f"gate_levels: two or more, one gated convolution in a block and no groups are needed; {first.levels}, "
            f"{len(first.gated)} and groups of {first.gate_group} came"
        )
    for block in shape.blocks:
        block.level_widths(block.gated[0])


def shape_of(state: dict[str, Any]) -> ResNetShape:
    """A shape from its plain values, as `dataclasses.asdict` gives them and JSON keeps them."""
    blocks = tuple(BlockShape(**with_tuples(block)) for block in state["blocks"])
    return ResNetShape(state["network"], StemShape(**state["stem"]), blocks, state.get("routes", 0))


def with_tuples(state: dict[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples they were."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in state.items()}


def is_standard(shape: ResNetShape) -> bool:
    """Whether it is the network of this name as torchvision and timm have it: full width, the stem of large images."""
    return shape.stem == stem_shape("imagenet", size=224, channels=BASE_CHANNELS) and has_standard_blocks(shape)


def has_standard_blocks(shape: ResNetShape) -> bool:
    """Whether every block has the channels of the network of this name at full width."""
    whole = resnet_shape(shape.network, size=224)
    return [(b.inputs, b.inner, b.outputs, b.stride) for b in shape.blocks] == [
        (b.inputs, b.inner, b.outputs, b.stride) for b in whole.blocks
    ]
