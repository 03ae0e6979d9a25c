"""Networks for inference in which the channels that the gates leave shut are not computed, and which are exact all the same.

Of every gated convolution the channels that never open on a calibration set are dropped. The gate networks stay whole: every
kept channel is still multiplied by its gate (an always-on one can close), and an image whose gate asks for dropped channels
gets the missing part added. The convolution W behind the gated one is linear, so with h = gate * relu(...)

    y = W_keep h_keep + [if missed] W_drop h_drop,

no weight is stored twice, and only the missed images compute the second term. Batch-norms are folded (deploy/folding.py). A
Bottleneck with two gates has the same at both, one behind the other.

All forms are one class: `masked` is the network that keeps every channel, `dense` the one without gates, `static` one whose
mask is the same for all images. So they differ in what they compute and in nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.data.pixels import require_normalised
from pulvinar.deploy.calibration import calibrate
from pulvinar.deploy.compact_block import CompactBlock, CompactGate, Convolution, Record, others
from pulvinar.deploy.compact_macs import CompactMacs, compact_macs
from pulvinar.deploy.folding import FoldedBlock, Weights, folded, folded_block
from pulvinar.networks.gated_resnet import Block, GatedResNet, Pass, norm_of
from pulvinar.networks.narrow import narrowed
from pulvinar.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pulvinar.networks.resnet_shape import ResNetShape

Form = Literal["compact", "masked", "dense", "static"]
Colours = tuple[float, float, float]


@dataclass(frozen=True)
class CompactOutput:
    """features (image, feature); of every gate the logits (image, channel), original order, and whether an image missed.

    An image misses at a gate if it opens a dropped channel there.
    """

    features: Float[Tensor, "image feature"]
    logits: tuple[Tensor, ...]
    misses: tuple[Bool[Tensor, " image"], ...]


class CompactNetwork(nn.Module):
    """A ResNet for inference: normalised images (image, 3, size, size) -> features (image, feature).

    kept: for every gate of `shape` the channels that stay (the others are the fallback's); None: no gates at all.
    fallback: add what dropped channels would have given (exact); without it an image that misses is computed wrongly.
    mean, sd: per colour, of pixels in [0, 1]; the normalisation that its images have had, for files and exports.
    calibration: what the calibration images said (`Calibration.facts`), where there were any.
    """

    def __init__(self, shape: ResNetShape, *, size: int, kept: Sequence[Tensor] | None, form: Form = "compact") -> None:
        super().__init__()
        if kept is not None and len(kept) != len(shape.gate_channels):
            raise InputError(f"kept: {len(kept)} lists of channels came, {shape.network} has {len(shape.gate_channels)} gates")
        self.shape, self.size, self.form, self.fallback = shape, size, form, True
        self.kept = None if kept is None else tuple(indices.long() for indices in kept)
        self.mean, self.sd = cast(Colours, IMAGENET_MEAN), cast(Colours, IMAGENET_STD)
        self.calibration: dict[str, Any] | None = None
        stem = shape.stem
        self.stem = Convolution(3, stem.channels, stem.kernel, stem.stride, padding=stem.padding)
        lists = None if kept is None else list(kept)
        self.blocks = nn.ModuleList(
            [CompactBlock(block, None if lists is None else [lists.pop(0) for _ in block.gated]) for block in shape.blocks]
        )
        self.requires_grad_(False).eval()

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """The average-pooled features. `InputError` for what no normalisation leaves (`pixels.require_normalised`)."""
        return self._run(images, Record())

    def inspect(self, images: Float[Tensor, "image 3 height width"], *, gates: Sequence[Tensor] | None = None) -> CompactOutput:
        """The features with what the gates did. gates: (image, channel) to impose, gate by gate; logits are still its own."""
        record = Record(imposed=None if gates is None else list(gates))
        features = self._run(images, record)
        logits = tuple(found.index_select(1, gate.back) for found, gate in zip(record.logits, self.gates(), strict=True))
        return CompactOutput(features, logits, tuple(record.misses))

    def _run(self, images: Tensor, record: Record) -> Tensor:
        if not torch.compiler.is_compiling():  # numbers are not known while a graph is made
            require_normalised(images.detach(), "images", mean=self.mean)
        maps = torch.relu(self.stem(images))
        if self.shape.stem.pooled:
            maps = nn.functional.max_pool2d(maps, 3, stride=2, padding=1)
        for block in self.blocks:
            maps = block(maps, record, fallback=self.fallback)
        return maps.mean((2, 3))

    def gates(self) -> list[CompactGate]:
        """The gate networks, in the order in which an image meets them."""
        return [cast(CompactGate, gate) for block in self.blocks for gate in cast(CompactBlock, block).gates.values()]

    def no_fallback(self, *, without: bool = True) -> "CompactNetwork":
        """This network, from now on without (or again with) the fallback; misses are still counted."""
        self.fallback = not without
        return self

    @property
    def dropped(self) -> tuple[Tensor, ...]:
        """For every gate the channels that only the fallback computes, ascending."""
        if self.kept is None:
            return ()
        return tuple(others(kept, n) for kept, n in zip(self.kept, self.shape.gate_channels, strict=True))

    @property
    def settled(self) -> tuple[bool, ...]:
        """For every block, whether its gates are constants, so that no image misses there and no gate is computed."""
        return tuple(cast(CompactBlock, block).settled for block in self.blocks)

    @property
    def can_miss(self) -> tuple[bool, ...]:
        """For every gate, whether there is something dropped that an image could ask for."""
        blocks = zip(self.blocks, self.settled, strict=True)
        constant = [settled for block, settled in blocks for _ in cast(CompactBlock, block).gated]
        return tuple(bool(len(dropped)) and not settled for dropped, settled in zip(self.dropped, constant, strict=True))

    @property
    def macs(self) -> CompactMacs:
        """Its multiply-adds in closed form: without misses, and what a missed image adds at each gate."""
        return compact_macs(self.shape, self.size, self.kept, self.settled)

    def fill(self, stem: Weights, blocks: Sequence[FoldedBlock]) -> "CompactNetwork":
        """Take the weights of a whole network."""
        with torch.no_grad():
            self.stem.weight.copy_(stem[0])
            cast(Tensor, self.stem.bias).copy_(stem[1])
        for block, weights in zip(self.blocks, blocks, strict=True):
            cast(CompactBlock, block).fill(weights)
        return self

    def with_kept(self, kept: Sequence[Tensor] | None, form: Form) -> "CompactNetwork":
        """The same weights, bit for bit, cut otherwise: these channels kept; None: no gates."""
        if self.kept is None and kept is not None:
            raise InputError(f"network: this {self.form} form has no gates any more, so it has no masked or compact form")
        made = CompactNetwork(self.shape, size=self.size, kept=kept, form=form).to(self.stem.weight)
        made.fill(
            (self.stem.weight, cast(Tensor, self.stem.bias)), [cast(CompactBlock, block).whole() for block in self.blocks]
        )
        made.mean, made.sd = self.mean, self.sd
        return made

    def masked(self) -> "CompactNetwork":
        """The reference that computes every channel and multiplies it by its gate."""
        return self.with_kept([torch.arange(channels) for channels in self.shape.gate_channels], "masked")

    def dense(self) -> "CompactNetwork":
        """Every channel and no gates, for timings: its features are those of gates that are always open."""
        return self.with_kept(None, "dense")


def _filled(network: GatedResNet, source: Pass, kept: Sequence[Tensor] | None, form: Form) -> CompactNetwork:
    made = CompactNetwork(network.shape, size=network.size, kept=kept, form=form)
    made.to(device=network.logit_shift.device, dtype=network.stem.convolution.weight.dtype)
    stem = folded(network.stem.convolution, norm_of(network.stem.norms, source))
    return made.fill(stem, [folded_block(cast(Block, block), source, network.logit_shift) for block in network.blocks])


def require_gates(network: GatedResNet) -> None:
    """`InputError` where a network has no gated pass; it says what can be done with it."""
    if "gated" not in network.passes or not network.shape.gate_channels:
        raise InputError(
            f"network: this {network.shape.network} has no gates, only a {' and a '.join(network.passes)} pass, so there is "
            "nothing to compact by input; its batch-norms can be folded (dense_network), a narrow or static one included"
        )
    if network.shape.gate_form != "subset":
        raise InputError(
            f"network: its gates choose {network.shape.gate_form}, not channels; it is used in pieces (choice_network, "
            f"--form {network.shape.gate_form})"
        )


def compact(
    network: GatedResNet,
    calibration: Float[Tensor, "image 3 height width"] | Iterable[Tensor],
    *,
    rare: float = 0.0,
    multiple: int = 1,
    batch_size: int = 250,
) -> CompactNetwork:
    """The gated pass without the channels that stay shut on the calibration images; equal to the masked network on every image.

    calibration: normalised images, or batches of them. rare: also drop channels that open for at most this share of the
    calibration images: fewer multiply-adds for most images, more misses. multiple: keep a multiple of so many channels of each
    gate, filled up with those that come nearest to opening. Equal up to gates whose logit lies within rounding of
    zero (deploy/equality.py counts them). `InputError` for a network without gates, images of another size, or too few.
    """
    require_gates(network)
    found = calibrate(network, calibration, rare=rare, multiple=multiple, batch_size=batch_size)
    made = _filled(network, "gated", found.kept, "compact")
    made.calibration = found.facts()
    return made


def compact_to(network: GatedResNet, kept: Sequence[Tensor]) -> CompactNetwork:
    """As `compact`, keeping these channels of every gate, whoever chose them."""
    require_gates(network)
    return _filled(network, "gated", kept, "compact")


def masked_network(network: GatedResNet) -> CompactNetwork:
    """The reference: every channel computed and multiplied by its gate, batch-norms folded."""
    require_gates(network)
    return _filled(network, "gated", [torch.arange(channels) for channels in network.shape.gate_channels], "masked")


def dense_network(network: GatedResNet, *, source: Pass | None = None) -> CompactNetwork:
    """Every channel, no gates, batch-norms folded; the dense pass where there is one.

    Also the form of narrow networks and students, which have no gates to begin with.
    """
    return _filled(network, source or ("dense" if "dense" in network.passes else "gated"), None, "dense")


def static_network(network: GatedResNet, kept: Sequence[Tensor], *, source: Pass = "gated") -> CompactNetwork:
    """One mask for all images made real: these channels of every gate, no gates, batch-norms folded.

    Equal to `network(images, gated=True, masks=...)` with this constant mask.
    """
    return _filled(narrowed(network, kept, source=source), "dense", None, "static")
