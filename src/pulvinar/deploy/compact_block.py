"""A block that computes the channels it keeps, and the others only for images that ask for them.

Its convolutions are cut into parts: from kept to kept channels (computed for every image), from kept to dropped (`enter`), from
dropped to kept (`leave`) and, in a Bottleneck with two gates, from dropped to dropped (`between`). Together they are the whole
convolution, each weight once.

A gate whose logits are constants (training fixed them), open for every kept channel and shut for every dropped one, is settled:
nothing can miss it and it multiplies by 1, so neither it nor its fallback is computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.deploy import folding
from pulvinar.deploy.folding import FoldedBlock, Weights, kernels_and_strides
from pulvinar.networks.resnet_shape import BlockShape


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

    def forward(self, maps: Tensor) -> Tensor:
        """(image, input, height, width) -> (image, output, height, width)."""
        if self.weight.shape[0] and self.weight.shape[1]:
            return functional.conv2d(maps, self.weight, self.bias, self.stride, self.padding)
        height, width = (self.output_size(side) for side in maps.shape[2:])
        value = maps.new_zeros(self.weight.shape[0]) if self.bias is None else self.bias
        return value[:, None, None].expand(len(maps), -1, height, width)

    def output_size(self, size: int) -> int:
        """Side of the maps behind it."""
        return (size + 2 * self.padding - self.weight.shape[-1]) // self.stride + 1


class CompactGate(nn.Module):
    """Logits of one gate, kept channels first (`order` has their numbers); open where a logit is 0 or more."""

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
    def opens_exactly(self, n_kept: int) -> bool:
        """Whether it opens the first `n_kept` of its channels, and no other, for every image there could be."""
        expected = torch.arange(len(self.order), device=self.order.device) < n_kept
        return not bool(self.expand.weight.any()) and bool(((self.expand.bias >= 0) == expected).all())

    @torch.no_grad()
    def fill(self, weights: folding.FoldedGate) -> None:
        """Take the weights of a whole gate."""
        for layer, (weight, bias), rows in (
            (self.reduce, weights.reduce, slice(None)),
            (self.expand, weights.expand, self.order),
        ):
            layer.weight.copy_(weight[rows])
            layer.bias.copy_(bias[rows])

    def whole(self) -> folding.FoldedGate:
        """The gate's weights in the original order of channels."""
        expand = (self.expand.weight[self.back], self.expand.bias[self.back])
        return folding.FoldedGate((self.reduce.weight, self.reduce.bias), expand)


@dataclass
class Record:
    """What the gates of a pass did, gate by gate: logits (image, channel), kept channels first, and misses (image,).

    imposed: gates (image, channel), original order, to use in turn instead of the network's own; None: its own.
    """

    logits: list[Tensor] = field(default_factory=list)
    misses: list[Tensor] = field(default_factory=list)
    imposed: list[Tensor] | None = None


@dataclass(frozen=True)
class GateDecisions:
    """Of one gate: whether it opens the kept channels (image, kept) and the dropped ones, and who opens a dropped one."""

    kept: Tensor
    dropped: Tensor
    missed: Tensor


@dataclass(frozen=True)
class Part:
    """A layer that holds these rows and columns (None: all) of convolution `number`."""

    number: int
    layer: Convolution
    rows: Tensor | None
    columns: Tensor | None


class CompactBlock(nn.Module):
    """A block of which the gated convolutions keep some of their channels.

    kept: for every gated convolution the channels that stay, in this order; None: the block has no gates and is as wide as
    `shape`.
    """

    def __init__(self, shape: BlockShape, kept: Sequence[Tensor] | None) -> None:
        super().__init__()
        self.shape = shape
        self.gated = shape.gated if kept is not None else ()
        self.kept = {number: indices.long() for number, indices in zip(self.gated, kept or (), strict=True)}
        self.dropped = {number: others(indices, shape.inner[number]) for number, indices in self.kept.items()}
        widths = (shape.inputs, *[len(self.kept[n]) if n in self.kept else w for n, w in enumerate(shape.inner)], shape.outputs)
        lost = (0, *[len(self.dropped[n]) if n in self.dropped else 0 for n in range(len(shape.inner))], 0)
        sizes = kernels_and_strides(shape)
        self.convolutions = nn.ModuleList([Convolution(widths[n], widths[n + 1], *size) for n, size in enumerate(sizes)])
        self.shortcut = Convolution(shape.inputs, shape.outputs, 1, shape.stride) if shape.has_downsample else None
        self.gates = nn.ModuleDict()
        self.enter, self.between, self.leave = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.settled = False
        self.register_load_state_dict_post_hook(lambda *_: self._settle())
        for n in self.gated:
            name, order = str(n), torch.cat([self.kept[n], self.dropped[n]])
            self.gates[name] = CompactGate(shape.inputs, shape.gate_hidden, order)
            if lost[n + 1]:
                self.enter[name] = Convolution(widths[n], lost[n + 1], *sizes[n])
                self.leave[name] = Convolution(lost[n + 1], widths[n + 2], *sizes[n + 1], bias=False)
                if lost[n]:
                    self.between[name] = Convolution(lost[n], lost[n + 1], *sizes[n], bias=False)

    def forward(self, maps: Tensor, record: Record, *, fallback: bool = True) -> Tensor:
        """relu(residual + shortcut)."""
        asked = self.asked(maps, record)
        hidden = [maps]
        for number, convolution in enumerate(self.convolutions):
            now = convolution(hidden[-1])
            if fallback and number - 1 in asked and str(number - 1) in self.enter:
                now = self.with_missing(number - 1, now, hidden, asked)
            if number + 1 == len(self.convolutions):
                break
            now = now.relu_() if cast(Convolution, convolution).weight.numel() else torch.relu(now)
            if number in asked:
                now = now * asked[number].kept.to(now.dtype)[:, :, None, None]
            hidden.append(now)
        return (now + (maps if self.shortcut is None else self.shortcut(maps))).relu_()

    def _settle(self) -> None:
        """Find out whether every gate is a constant that opens what is kept."""
        gates = {number: cast(CompactGate, self.gates[str(number)]) for number in self.gated}
        self.settled = bool(gates) and all(gate.opens_exactly(len(self.kept[number])) for number, gate in gates.items())

    def asked(self, maps: Tensor, record: Record) -> dict[int, GateDecisions]:
        """What the gates ask for, nothing where the block is settled; their logits and misses go into the record."""
        found: dict[int, GateDecisions] = {}
        if self.settled and record.imposed is None:
            for gate in self.gates.values():
                record.logits.append(cast(CompactGate, gate).expand.bias.expand(len(maps), -1))
                record.misses.append(torch.zeros(len(maps), dtype=torch.bool, device=maps.device))
            return found
        pooled = maps.mean((2, 3)) if self.gated else maps
        for number in self.gated:
            gate = cast(CompactGate, self.gates[str(number)])
            logits, n_kept = gate(pooled), len(self.kept[number])
            opened = logits >= 0 if record.imposed is None else record.imposed.pop(0).bool()[:, gate.order]
            missing = opened[:, n_kept:]
            found[number] = GateDecisions(opened[:, :n_kept], missing, missing.any(1))
            record.logits.append(logits)
            record.misses.append(found[number].missed)
        return found

    def with_missing(self, number: int, now: Tensor, hidden: list[Tensor], asked: dict[int, GateDecisions]) -> Tensor:
        """`now` with what the dropped channels of gate `number` add to it, for the images that ask for them."""
        missed = asked[number].missed
        if torch.compiler.is_exporting():  # a traced program can branch, but its branches have the same shapes
            return self._with_missing_traced(number, now, hidden, asked)
        rows = missed.nonzero()[:, 0]
        if not len(rows):
            return now
        every = len(rows) == len(missed)
        part = self.leave[str(number)](self.dropped_maps(number, None if every else rows, hidden, asked))
        return now + part if every else now.index_add(0, rows, part)

    def _with_missing_traced(self, number: int, now: Tensor, hidden: list[Tensor], asked: dict[int, GateDecisions]) -> Tensor:
        """The same as a branch of the traced program, on the whole batch: where nothing is asked for, zeros are added."""

        def added(now: Tensor) -> Tensor:
            return now + self.leave[str(number)](self.dropped_maps(number, None, hidden, asked))

        return torch.cond(asked[number].missed.any(), added, torch.clone, (now,))

    def dropped_maps(self, number: int, rows: Tensor | None, hidden: list[Tensor], asked: dict[int, GateDecisions]) -> Tensor:
        """Gated maps of the dropped channels of these images (None: all). hidden: what went into each convolution."""
        name = str(number)
        now = self.enter[name](hidden[number] if rows is None else hidden[number][rows])
        if name in self.between:
            now = now + self.between[name](self.dropped_maps(number - 1, rows, hidden, asked))
        opened = asked[number].dropped
        return torch.relu(now) * (opened if rows is None else opened[rows]).to(now.dtype)[:, :, None, None]

    def _parts(self) -> Iterator[Part]:
        """Every layer of the residual path, and what it holds of which convolution."""
        for number, convolution in enumerate(self.convolutions):
            rows, columns = self.kept.get(number), self.kept.get(number - 1)
            lost, lost_columns = self.dropped.get(number), self.dropped.get(number - 1)
            yield Part(number, cast(Convolution, convolution), rows, columns)
            for layers, name, own, own_columns in (
                (self.enter, number, lost, columns),
                (self.leave, number - 1, rows, lost_columns),
                (self.between, number, lost, lost_columns),
            ):
                if str(name) in layers:
                    yield Part(number, cast(Convolution, layers[str(name)]), own, own_columns)

    @torch.no_grad()
    def fill(self, weights: FoldedBlock) -> None:
        """Take what each part holds of a whole block's weights."""
        for part in self._parts():
            weight, bias = weights.convolutions[part.number]
            cut = weight if part.rows is None else weight[part.rows]
            part.layer.weight.copy_(cut if part.columns is None else cut[:, part.columns])
            if part.layer.bias is not None:
                part.layer.bias.copy_(bias if part.rows is None else bias[part.rows])
        if self.shortcut is not None and weights.shortcut is not None:
            for own, given in zip((self.shortcut.weight, self.shortcut.bias), weights.shortcut, strict=True):
                cast(Tensor, own).copy_(given)
        for name, gate in self.gates.items():
            cast(CompactGate, gate).fill(weights.gates[int(name)])
        self._settle()

    @torch.no_grad()
    def whole(self) -> FoldedBlock:
        """The whole weights, put together from the parts: what `fill` took."""
        widths = (self.shape.inputs, *self.shape.inner, self.shape.outputs)
        made: list[Weights] = []
        for number, convolution in enumerate(self.convolutions):
            like, outputs = cast(Convolution, convolution).weight, widths[number + 1]
            made.append((like.new_zeros(outputs, widths[number], *like.shape[2:]), like.new_zeros(outputs)))
        for part in self._parts():
            weight, bias = made[part.number]
            rows, columns = (
                torch.arange(n) if chosen is None else chosen
                for n, chosen in zip(weight.shape, (part.rows, part.columns), strict=False)
            )
            weight[rows[:, None], columns] = part.layer.weight
            if part.layer.bias is not None:
                bias[rows] = part.layer.bias
        shortcut = None if self.shortcut is None else (self.shortcut.weight, cast(Tensor, self.shortcut.bias))
        return FoldedBlock(made, shortcut, {int(name): cast(CompactGate, gate).whole() for name, gate in self.gates.items()})


def others(kept: Tensor, n_channels: int) -> Tensor:
    """The channels that are not kept, ascending; `InputError` where `kept` names none or one twice."""
    left = torch.ones(n_channels, dtype=torch.bool)
    if (len(kept) and not 0 <= int(kept.min()) <= int(kept.max()) < n_channels) or len(kept.unique()) != len(kept):
        raise InputError(f"kept: indices of {n_channels} channels are needed, each once; {kept.tolist()[:8]} … came")
    left[kept.long()] = False
    return left.nonzero()[:, 0]
