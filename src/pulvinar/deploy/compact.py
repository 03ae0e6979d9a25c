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
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pulvinar.deploy.calibration import Calibration, calibrate
from pulvinar.deploy.compact_macs import CompactMacs, compact_macs
from pulvinar.deploy.folding import Convolution, folded
from pulvinar.errors import InputError
from pulvinar.models.gated_resnet import Block, Gate, GatedResNet, Pass, norm_of
from pulvinar.models.narrow import narrowed
from pulvinar.models.resnet_shape import BlockShape, ResNetShape

Form = Literal["compact", "masked", "dense", "static"]


class FoldedGate(nn.Module):
    """Logits of one gate, kept channels first (`order` has the original numbers); open where a logit is 0 or more."""

    order: Tensor
    back: Tensor

    def __init__(self, inputs: int, hidden: int, order: Tensor) -> None:
        super().__init__()
        self.reduce = nn.utils.skip_init(nn.Linear, inputs, hidden)
        self.expand = nn.utils.skip_init(nn.Linear, hidden, len(order))
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("back", order.argsort(), persistent=False)

    def forward(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image channel"]:
        """The logits."""
        return self.expand(torch.relu(self.reduce(pooled)))

    @torch.no_grad()
    def fill(self, gate: Gate, shift: Tensor) -> None:
        """Take the weights of a gate; the network's shift of all logits goes into the bias."""
        weight, bias = folded(gate.reduce, gate.norm)
        self.reduce.weight.copy_(weight)
        self.reduce.bias.copy_(bias)
        self.expand.weight.copy_(gate.expand.weight[self.order])
        offset = shift.double().expand(len(self.order))
        self.expand.bias.copy_(offset if gate.expand.bias is None else offset + gate.expand.bias[self.order])


@dataclass
class Record:
    """What the gates of a pass did, gate by gate: logits (image, channel), kept channels first, and misses (image,)."""

    logits: list[Tensor]
    misses: list[Tensor]


@dataclass(frozen=True)
class CompactOutput:
    """features (image, feature); of every gate the logits (image, channel), original order, and whether an image missed.

    An image misses at a gate if it opens a dropped channel there.
    """

    features: Float[Tensor, "image feature"]
    logits: tuple[Tensor, ...]
    misses: tuple[Bool[Tensor, " image"], ...]


@dataclass(frozen=True)
class Asked:
    """Of one gate: whether it opens the kept channels (image, kept) and the dropped ones, and who opens a dropped one."""

    kept: Tensor
    dropped: Tensor
    missed: Tensor


class CompactBlock(nn.Module):
    """A block of which the gated convolutions keep some of their channels; without `kept` none is gated.

    kept: for every gated convolution the channels that stay, in this order; None for a block without gates, as wide as `shape`.
    """

    def __init__(self, shape: BlockShape, kept: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.shape = shape
        self.gated = shape.gated if kept is not None else ()
        self.kept = {number: indices.long() for number, indices in zip(self.gated, kept or (), strict=True)}
        self.dropped = {number: _others(indices, shape.inner[number]) for number, indices in self.kept.items()}
        widths = (shape.inputs, *[len(self.kept[n]) if n in self.kept else w for n, w in enumerate(shape.inner)], shape.outputs)
        lost = (0, *[len(self.dropped[n]) if n in self.dropped else 0 for n in range(len(shape.inner))], 0)
        sizes = _kernels_and_strides(shape)
        self.convolutions = nn.ModuleList([Convolution(widths[n], widths[n + 1], *size) for n, size in enumerate(sizes)])
        self.shortcut = Convolution(shape.inputs, shape.outputs, 1, shape.stride) if shape.has_downsample else None
        self.gates = nn.ModuleDict()
        self.enter, self.between, self.leave = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for n in self.gated:
            name, order = str(n), torch.cat([self.kept[n], self.dropped[n]])
            self.gates[name] = FoldedGate(shape.inputs, shape.gate_hidden, order)
            if lost[n + 1]:
                self.enter[name] = Convolution(widths[n], lost[n + 1], *sizes[n])
                self.leave[name] = Convolution(lost[n + 1], widths[n + 2], *sizes[n + 1], bias=False)
                if lost[n]:
                    self.between[name] = Convolution(lost[n], lost[n + 1], *sizes[n], bias=False)

    def forward(self, maps: Tensor, record: Record, *, fallback: bool = True) -> Tensor:
        """relu(residual + shortcut)."""
        asked = self._asked(maps, record)
        hidden = [maps]
        for number, convolution in enumerate(self.convolutions):
            now = convolution(hidden[-1])
            if fallback and str(number - 1) in self.enter:
                now = self._with_missing(number - 1, now, hidden, asked)
            if number + 1 == len(self.convolutions):
                break
            now = torch.relu(now)
            if number in asked:
                now = now * asked[number].kept.to(now.dtype)[:, :, None, None]
            hidden.append(now)
        return torch.relu(now + (maps if self.shortcut is None else self.shortcut(maps)))

    def _asked(self, maps: Tensor, record: Record) -> dict[int, Asked]:
        """What the gates ask for; their logits and misses go into the record."""
        if not self.gated:
            return {}
        pooled, found = maps.mean((2, 3)), {}
        for number in self.gated:
            logits = self.gates[str(number)](pooled)
            opened, n_kept = logits >= 0, len(self.kept[number])
            missing = opened[:, n_kept:]
            found[number] = Asked(opened[:, :n_kept], missing, missing.any(1))
            record.logits.append(logits)
            record.misses.append(found[number].missed)
        return found

    def _with_missing(self, number: int, now: Tensor, hidden: list[Tensor], asked: dict[int, Asked]) -> Tensor:
        """`now` with what the dropped channels of gate `number` add to it, for the images that ask for them."""
        missed = asked[number].missed
        rows = missed.nonzero()[:, 0]
        if not len(rows):
            return now
        every = len(rows) == len(missed)
        part = self.leave[str(number)](self.dropped_maps(number, None if every else rows, hidden, asked))
        return now + part if every else now.index_add(0, rows, part)

    def dropped_maps(self, number: int, rows: Tensor | None, hidden: list[Tensor], asked: dict[int, Asked]) -> Tensor:
        """Gated maps of the dropped channels of these images (None: all). hidden: what went into each convolution."""
        name = str(number)
        now = self.enter[name](hidden[number] if rows is None else hidden[number][rows])
        if name in self.between:
            now = now + self.between[name](self.dropped_maps(number - 1, rows, hidden, asked))
        opened = asked[number].dropped
        return torch.relu(now) * (opened if rows is None else opened[rows]).to(now.dtype)[:, :, None, None]

    @torch.no_grad()
    def fill(self, block: Block, source: str, shift: Tensor) -> None:
        """Take the weights of this block, batch-norms of the pass `source` folded."""
        for number, convolution in enumerate(block.convolutions):
            rows, columns = self.kept.get(number), self.kept.get(number - 1)
            lost, lost_columns = self.dropped.get(number), self.dropped.get(number - 1)
            weight, bias = _folded_convolution(block, number, convolution, source)
            cast(Convolution, self.convolutions[number]).fill(weight, bias, outputs=rows, inputs=columns)
            name, before = str(number), str(number - 1)
            if name in self.enter:
                cast(Convolution, self.enter[name]).fill(weight, bias, outputs=lost, inputs=columns)
            if name in self.between:
                cast(Convolution, self.between[name]).fill(weight, None, outputs=lost, inputs=lost_columns)
            if before in self.leave:
                cast(Convolution, self.leave[before]).fill(weight, None, outputs=rows, inputs=lost_columns)
        if self.shortcut is not None:
            norms = cast(nn.ModuleDict, block.shortcut_norms)
            self.shortcut.fill(*folded(cast(nn.Conv2d, block.shortcut), norm_of(norms, source)))
        for name, gate in self.gates.items():
            cast(FoldedGate, gate).fill(cast(Gate, block.gates[name]), shift)


def _others(kept: Tensor, n_channels: int) -> Tensor:
    """The channels that are not kept, ascending; `InputError` where `kept` names none or one twice."""
    left = torch.ones(n_channels, dtype=torch.bool)
    if (len(kept) and not 0 <= int(kept.min()) <= int(kept.max()) < n_channels) or len(kept.unique()) != len(kept):
        raise InputError(f"kept: indices of {n_channels} channels are needed, each once; {kept.tolist()[:8]} … came")
    left[kept.long()] = False
    return left.nonzero()[:, 0]


def _kernels_and_strides(shape: BlockShape) -> tuple[tuple[int, int], ...]:
    return ((1, 1), (3, shape.stride), (1, 1)) if shape.is_bottleneck else ((3, shape.stride), (3, 1))


def _folded_convolution(block: Block, number: int, convolution: nn.Module, source: str) -> tuple[Tensor, Tensor]:
    """Weight and bias; also of a convolution that is not there because one of its sides has no channel."""
    norm = norm_of(cast(nn.ModuleDict, block.norms[number]), source)
    if isinstance(convolution, nn.Conv2d):
        return folded(convolution, norm)
    widths = (block.shape.inputs, *block.shape.inner, block.shape.outputs)
    kernel = _kernels_and_strides(block.shape)[number][0]
    weight = torch.zeros(widths[number + 1], widths[number], kernel, kernel, dtype=torch.float64)
    _, bias = folded(_nothing(norm.num_features), norm)
    return weight, bias


def _nothing(channels: int) -> nn.Linear:
    """A layer of zeros: what batch-norm makes of it is its constant."""
    layer = nn.Linear(1, channels, bias=False)
    nn.init.zeros_(layer.weight)
    return layer


class CompactNetwork(nn.Module):
    """A ResNet for inference: normalised images (image, 3, size, size) -> features (image, feature).

    kept: for every gate of `shape` the channels that stay (the others are the fallback's); None: no gates at all.
    fallback: add what dropped channels would have given (exact); without it an image that misses is computed wrongly.
    """

    def __init__(self, shape: ResNetShape, *, size: int, kept: Sequence[Tensor] | None, form: Form = "compact") -> None:
        super().__init__()
        if kept is not None and len(kept) != len(shape.gate_channels):
            raise InputError(f"kept: {len(kept)} lists of channels came, {shape.network} has {len(shape.gate_channels)} gates")
        self.shape, self.size, self.form, self.fallback = shape, size, form, True
        self.kept = None if kept is None else tuple(indices.long() for indices in kept)
        stem = shape.stem
        self.stem = Convolution(3, stem.channels, stem.kernel, stem.stride, padding=stem.padding)
        lists = None if kept is None else list(kept)
        self.blocks = nn.ModuleList(
            [CompactBlock(block, None if lists is None else [lists.pop(0) for _ in block.gated]) for block in shape.blocks]
        )
        self.calibration: Calibration | None = None
        self.eval()

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """The average-pooled features."""
        return self._run(images, Record([], []))

    def inspect(self, images: Float[Tensor, "image 3 height width"]) -> CompactOutput:
        """The features with what the gates did."""
        record = Record([], [])
        features = self._run(images, record)
        gates = [cast(FoldedGate, gate) for block in self.blocks for gate in cast(CompactBlock, block).gates.values()]
        logits = tuple(found.index_select(1, gate.back) for found, gate in zip(record.logits, gates, strict=True))
        return CompactOutput(features, logits, tuple(record.misses))

    def _run(self, images: Tensor, record: Record) -> Tensor:
        maps = torch.relu(self.stem(images))
        if self.shape.stem.pooled:
            maps = nn.functional.max_pool2d(maps, 3, stride=2, padding=1)
        for block in self.blocks:
            maps = block(maps, record, fallback=self.fallback)
        return maps.mean((2, 3))

    def no_fallback(self, *, without: bool = True) -> "CompactNetwork":
        """This network, from now on without (or again with) the fallback; misses are still counted."""
        self.fallback = not without
        return self

    @property
    def dropped(self) -> tuple[Tensor, ...]:
        """For every gate the channels that only the fallback computes, ascending."""
        if self.kept is None:
            return ()
        return tuple(_others(kept, n) for kept, n in zip(self.kept, self.shape.gate_channels, strict=True))

    @property
    def macs(self) -> CompactMacs:
        """Its multiply-adds in closed form: without misses, and what a missed image adds at each gate."""
        return compact_macs(self.shape, self.size, self.kept)


def _filled(network: GatedResNet, source: Pass, kept: Sequence[Tensor] | None, form: Form) -> CompactNetwork:
    made = CompactNetwork(network.shape, size=network.size, kept=kept, form=form)
    made.to(device=network.logit_shift.device, dtype=network.stem.convolution.weight.dtype)
    made.stem.fill(*folded(network.stem.convolution, norm_of(network.stem.norms, source)))
    for old, new in zip(network.blocks, made.blocks, strict=True):
        cast(CompactBlock, new).fill(cast(Block, old), source, network.logit_shift)
    return made.requires_grad_(False).eval()


def require_gates(network: GatedResNet) -> None:
    """`InputError` where a network has no gated pass; it says what can be done with it."""
    if "gated" not in network.passes or not network.shape.gate_channels:
        raise InputError(
            f"network: this {network.shape.network} has no gates, only a {' and a '.join(network.passes)} pass, so there is "
            "nothing to compact by input; its batch-norms can be folded (dense_network), a narrow or static one included"
        )


def compact(
    network: GatedResNet,
    calibration: Float[Tensor, "image 3 height width"] | Iterable[Tensor],
    *,
    rare: float = 0.0,
    batch_size: int = 250,
) -> CompactNetwork:
    """The gated pass without the channels that stay shut on the calibration images; equal to the masked network on every image.

    calibration: normalised images, or batches of them. rare: also drop channels that open for at most this share of the
    calibration images: fewer multiply-adds for most images, more misses. Equal up to gates whose logit lies within rounding of
    zero (deploy/equality.py counts them). `InputError` for a network without gates, images of another size, or too few.
    """
    require_gates(network)
    found = calibrate(network, calibration, rare=rare, batch_size=batch_size)
    made = _filled(network, "gated", found.kept, "compact")
    made.calibration = found
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
