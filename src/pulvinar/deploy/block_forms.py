"""Four ways to compute a gated block, all equal to the masked one up to the order of summation.

masked     every kept channel is computed and multiplied by its gate; an image that misses goes through the compact block
gathered   one image: the weights of its open channels are taken out of the block's, and only those channels computed
patterns   images with the same open channels go together; the weights of a pattern are packed once and kept for the next image
           that has it (the least recently used are forgotten)
sorted k   the batch is sorted into k buckets of similar gates; a bucket computes the union of its open channels, each image
           multiplied by its own gates

Channels stand in the order of the block's gates: kept ones first, then dropped ones. So a missed channel is a channel like any
other in the last three forms, which need no fallback.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Bool
from torch import Tensor

from pulvinar.deploy.compact_block import CompactBlock, CompactGate, Convolution, Record
from pulvinar.deploy.packed import PackedConvolution
from pulvinar.networks.macs import BlockMacs

MAX_PATTERNS = 32  # kept packed, per block


def buckets(opened: Bool[Tensor, "image channel"], n_buckets: int) -> list[Tensor]:
    """Rows of images with similar gates together, in at most so many parts of nearly equal size.

    Images are sorted by their place on the leading direction of the gates' variation (three steps of power iteration).
    """
    centred = opened.float() - opened.float().mean(0)
    direction = torch.linspace(-1, 1, centred.shape[1])
    for _ in range(3):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp(min=1e-12)
    order = (centred @ direction).argsort(stable=True)
    return [rows for rows in order.tensor_split(n_buckets) if len(rows)]


class BlockForms:
    """A gated block of a compact network, to be run in any form.

    macs: of the whole block. While `counting`, what the forms do is added to `work`, and `opened` has the gates of the last
    call (image, channel), original order. A block without gates has the masked form only.
    """

    def __init__(self, block: CompactBlock, macs: BlockMacs, *, max_patterns: int = MAX_PATTERNS) -> None:
        self.block, self.macs, self.max_patterns = block, macs, max_patterns
        self.shortcut = None if block.shortcut is None else _packed(block.shortcut, relu=False)
        self.kept = [_packed(cast(Convolution, convolution), relu=True) for convolution in block.convolutions]
        self.n_kept = [len(block.kept[number]) for number in block.gated]
        self.sizes = [block.shape.inner[number] for number in block.gated]
        self._whole: list[tuple[Tensor, Tensor]] = []
        self.cache: OrderedDict[bytes, list[PackedConvolution]] = OrderedDict()
        self.n_found, self.n_packed = 0, 0
        self.counting, self.work = False, 0.0
        self.opened: list[Tensor] = []

    @property
    def whole(self) -> list[tuple[Tensor, Tensor]]:
        """Weight and bias of every convolution with all its channels; put together when first asked for."""
        if not self._whole:
            self._whole = whole_convolutions(self.block)
        return self._whole

    def run(self, maps: Tensor, form: str) -> Tensor:
        """relu(residual + shortcut) by this form: 'masked', 'gathered', 'patterns', 'sorted 4'."""
        if not self.block.gated or self.block.settled:
            if self.counting:
                self.opened = [gate.expand.bias[gate.back].expand(len(maps), -1) >= 0 for gate in self._gates()]
            return self._computed(maps, self.kept)
        pooled, gates = maps.mean((2, 3)), self._gates()
        opened = [gate(pooled) >= 0 for gate in gates]
        if self.counting:
            self.opened = [found[:, gate.back] for found, gate in zip(opened, gates, strict=True)]
        if form == "masked":
            return self.masked(maps, opened)
        if form == "gathered":
            return torch.cat([self.gathered(maps[n : n + 1], [gate[n] for gate in opened]) for n in range(len(maps))])
        if form == "patterns":
            return self.patterns(maps, opened)
        return self.sorted(maps, opened, int(form.split()[1]))

    def _gates(self) -> list[CompactGate]:
        return [cast(CompactGate, gate) for gate in self.block.gates.values()]

    def masked(self, maps: Tensor, opened: Sequence[Tensor]) -> Tensor:
        """Kept channels times their gates; the images that miss go through the compact block, by themselves."""
        gates = [gate[:, :n] for gate, n in zip(opened, self.n_kept, strict=True)]
        missed = torch.stack([gate[:, n:].any(1) for gate, n in zip(opened, self.n_kept, strict=True)]).any(0)
        rows = missed.nonzero()[:, 0]
        if not len(rows):
            return self._computed(maps, self.kept, gates)
        self._count(self.sizes, len(rows))
        again = self.block(maps[rows], Record([], []))
        if len(rows) == len(maps):
            return again
        hits = (~missed).nonzero()[:, 0]
        out = self._computed(maps[hits], self.kept, [gate[hits] for gate in gates])
        return _placed([out, again], [hits, rows])

    def gathered(self, maps: Tensor, opened: Sequence[Tensor]) -> Tensor:
        """One image through its own open channels. opened: (channel,) for every gate."""
        return self._computed(maps, self._taken([gate.nonzero()[:, 0] for gate in opened]))

    def patterns(self, maps: Tensor, opened: Sequence[Tensor]) -> Tensor:
        """Images of one pattern together, by weights that are packed once."""
        joined = torch.cat(list(opened), 1)
        if len(joined) == 1:
            return self._computed(maps, self._pattern(joined[0]))
        keys: dict[bytes, list[int]] = {}
        for row, pattern in enumerate(joined.numpy()):
            keys.setdefault(pattern.tobytes(), []).append(row)
        rows = [torch.tensor(part) for part in keys.values()]
        parts = [self._computed(maps[part], self._pattern(joined[part[0]])) for part in rows]
        return parts[0] if len(parts) == 1 else _placed(parts, rows)

    def sorted(self, maps: Tensor, opened: Sequence[Tensor], n_buckets: int) -> Tensor:
        """Buckets of similar images through the union of their open channels."""
        rows = buckets(torch.cat(list(opened), 1), n_buckets)
        parts = []
        for part in rows:
            unions = [gate[part].any(0).nonzero()[:, 0] for gate in opened]
            gates = [gate[part][:, union] for gate, union in zip(opened, unions, strict=True)]
            parts.append(self._computed(maps[part], self._taken(unions), gates))
        return _placed(parts, rows)

    def forget(self, cache: "OrderedDict[bytes, list[PackedConvolution]] | None" = None) -> None:
        """Go back to these packed patterns (none), and count from nothing."""
        self.cache = OrderedDict() if cache is None else OrderedDict(cache)
        self.n_found = self.n_packed = 0

    def _pattern(self, opened: Tensor) -> list[PackedConvolution]:
        key = opened.numpy().tobytes()
        if key in self.cache:
            self.cache.move_to_end(key)
            self.n_found += 1
            return self.cache[key]
        parts = opened.split(self.sizes)
        self.cache[key] = self._taken([part.nonzero()[:, 0] for part in parts])
        self.n_packed += 1
        if len(self.cache) > self.max_patterns:
            self.cache.popitem(last=False)
        return self.cache[key]

    def _taken(self, channels: Sequence[Tensor]) -> list[PackedConvolution]:
        """The convolutions with these channels of every gate."""
        by_number = dict(zip(self.block.gated, channels, strict=True))
        made = []
        for number, (convolution, (weight, bias)) in enumerate(zip(self.block.convolutions, self.whole, strict=True)):
            rows, columns = by_number.get(number), by_number.get(number - 1)
            cut = weight if columns is None else weight.index_select(1, columns)
            cut, offset = (cut, bias) if rows is None else (cut.index_select(0, rows), bias[rows])
            made.append(_packed(cast(Convolution, convolution), relu=True, weight=cut, bias=offset))
        return made

    def _computed(
        self, maps: Tensor, convolutions: Sequence[PackedConvolution], gates: Sequence[Tensor] | None = None
    ) -> Tensor:
        """The block by these convolutions; gates (image, channel) multiply what they gate, None: all are open."""
        self._count([convolutions[number].weight.shape[0] for number in self.block.gated], len(maps))
        shortcut = maps if self.shortcut is None else self.shortcut(maps)
        now = maps
        for number, convolution in enumerate(convolutions[:-1]):
            now = convolution(now)
            if gates is not None and number in self.block.gated:
                now = now * gates[self.block.gated.index(number)].to(now.dtype)[:, :, None, None]
        return convolutions[-1](now, plus=shortcut)

    def _count(self, widths: Sequence[int], n_images: int) -> None:
        if not self.counting:
            return
        inner: list[Tensor | int | float] = list(self.block.shape.inner)
        for number, width in zip(self.block.gated, widths, strict=True):
            inner[number] = width
        self.work += n_images * (
            float(self.macs.total(inner)) + (self.macs.gates if self.block.gated and not self.block.settled else 0)
        )


def _packed(like: Convolution, *, relu: bool, weight: Tensor | None = None, bias: Tensor | None = None) -> PackedConvolution:
    """A packed convolution of this one's stride and padding, with its weights or others."""
    if weight is None:
        weight, bias = like.weight.detach(), None if like.bias is None else like.bias.detach()
    return PackedConvolution(weight, bias, stride=like.stride, padding=like.padding, relu=relu)


def _placed(parts: Sequence[Tensor], rows: Sequence[Tensor]) -> Tensor:
    """The parts of a batch, each on its rows."""
    return torch.cat(list(parts))[torch.cat(list(rows)).argsort()]


def whole_convolutions(block: CompactBlock) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution with all channels, those of gates in their order: kept ones first."""
    orders = {int(name): cast(CompactGate, gate).order for name, gate in block.gates.items()}
    made = []
    for number, (weight, bias) in enumerate(block.whole().convolutions):
        rows, columns = (orders.get(n, torch.arange(weight.shape[n != number])) for n in (number, number - 1))
        made.append((weight[rows][:, columns].contiguous(), bias[rows]))
    return made
