"""Networks for use whose blocks, or whose whole, are one of a few pre-cut pieces, chosen by image: levels and routes.

levels: every block is there at each of its widths, and its gate chooses one of them. routes: everything behind the stem is
there once for every mask, and the router chooses one. A piece has its batch-norms folded and no gates; it runs on all images of
a batch that take it, gathered and scattered back, so what is not chosen is not computed.

The features are those of the gated pass. `masked` computes every channel and multiplies: the reference. A folder keeps the
whole weights once; pieces are cut when they are needed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.data.pixels import require_normalised
from pulvinar.deploy.compact import Colours, CompactNetwork
from pulvinar.deploy.compact_block import CompactBlock, Convolution, Record
from pulvinar.deploy.folding import FoldedBlock, Weights, folded, folded_block
from pulvinar.networks.gated_resnet import Block, GatedResNet, norm_of
from pulvinar.networks.gates import GateModule, LevelGate
from pulvinar.networks.macs import count_macs
from pulvinar.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pulvinar.networks.resnet_shape import ResNetShape

Options = tuple[tuple[Tensor, ...], ...]  # gate by gate, of every option the channels that run


class Chooser(nn.Module):
    """A gate or router, its batch-norm folded: averaged maps (image, input) -> scores, and the option that they mean.

    Of levels the scores descend (networks/gates.py) and as many of them as are 0 or more is the level; of routes the first
    largest one is the route.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, *, descending: bool) -> None:
        super().__init__()
        self.reduce = nn.utils.skip_init(nn.Linear, inputs, hidden)
        self.expand = nn.utils.skip_init(nn.Linear, hidden, outputs)
        self.descending = descending

    def forward(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image score"]:
        """The scores."""
        found = self.expand(torch.relu(self.reduce(pooled)))
        if not self.descending:
            return found
        return torch.cat([found[:, :1], -nn.functional.softplus(found[:, 1:])], 1).cumsum(1)

    def option(self, scores: Float[Tensor, "image score"]) -> Int[Tensor, " image"]:
        """The option that every image takes."""
        return (scores >= 0).sum(1) if self.descending else scores.argmax(1)


@dataclass(frozen=True)
class ChoiceOutput:
    """features (image, feature); scores (image, score) and choices (image,), the option taken, of every chooser."""

    features: Float[Tensor, "image feature"]
    scores: tuple[Tensor, ...]
    choices: tuple[Int[Tensor, " image"], ...]


@dataclass(frozen=True, kw_only=True)
class ChoiceMacs:
    """Multiply-adds. dense: the whole network without gates. fixed: stem and choosers. options: by chooser, of each option."""

    dense: int
    fixed: int
    options: tuple[tuple[int, ...], ...]

    def share(self, choices: Sequence[Int[Tensor, " image"]]) -> float:
        """Mean share of `dense` over images that take these options."""
        chosen = [
            torch.tensor(each, dtype=torch.float64)[taken.cpu()] for each, taken in zip(self.options, choices, strict=True)
        ]
        return float(torch.stack(chosen).sum(0).mean() + self.fixed) / self.dense


class ChoiceNetwork(nn.Module):
    """A ResNet for inference that runs pieces: normalised images (image, 3, size, size) -> features (image, feature).

    shape: one with levels or routes. options: for every gate, of every level or route the channels that run. masked: compute
    everything and multiply. mean, sd: per colour, of pixels in [0, 1], the normalisation that images have had.
    """

    def __init__(self, shape: ResNetShape, *, size: int, options: Options) -> None:
        super().__init__()
        if shape.gate_form == "subset":
            raise InputError("shape: one with levels or routes is needed; gates of channels are made compact instead")
        self.shape, self.size, self.options = shape, size, options
        self.mean, self.sd = cast(Colours, IMAGENET_MEAN), cast(Colours, IMAGENET_STD)
        self.computes_all = False
        stem = shape.stem
        self.stem = Convolution(3, stem.channels, stem.kernel, stem.stride, padding=stem.padding)
        self.whole = nn.ModuleList([CompactBlock(block, None) for block in shape.with_inner(_inner(shape)).blocks])
        if shape.routes:
            choosers = [Chooser(stem.channels, shape.router_hidden, shape.routes, descending=False)]
        else:
            choosers = [
                Chooser(block.inputs, block.gate_hidden, len(block.levels) - 1, descending=True) for block in shape.blocks
            ]
        self.choosers = nn.ModuleList(choosers)
        self._pieces: list[list[CompactBlock]] | None = None
        self.requires_grad_(False).eval()

    @property
    def form(self) -> str:
        """levels or routes; masked where it computes everything."""
        return "masked" if self.computes_all else self.shape.gate_form

    def masked(self, *, masked: bool = True) -> "ChoiceNetwork":
        """The same weights in the form that computes every channel and multiplies, or (False) in pieces."""
        made = ChoiceNetwork(self.shape, size=self.size, options=self.options).to(self.stem.weight)
        made.load_state_dict(self.state_dict())
        made.mean, made.sd, made.computes_all = self.mean, self.sd, masked
        return made

    def dense(self) -> CompactNetwork:
        """Every channel and no gates, for timings."""
        made = CompactNetwork(self.shape.with_inner(_inner(self.shape)), size=self.size, kept=None, form="dense")
        made.to(self.stem.weight).fill(
            (self.stem.weight, cast(Tensor, self.stem.bias)), [cast(CompactBlock, block).whole() for block in self.whole]
        )
        made.mean, made.sd = self.mean, self.sd
        return made

    @property
    def segments(self) -> list[tuple[Chooser, list[int]]]:
        """Every chooser with the blocks that it decides about: of levels one, of routes all."""
        choosers = [cast(Chooser, chooser) for chooser in self.choosers]
        every = list(range(len(self.shape.blocks)))
        return [(choosers[0], every)] if self.shape.routes else [(c, [n]) for c, n in zip(choosers, every, strict=True)]

    @property
    def n_options(self) -> int:
        """Levels or routes that there are."""
        return len(self.options[0])

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """The average-pooled features. `InputError` for what no normalisation leaves (`pixels.require_normalised`)."""
        return self.inspect(images).features

    def inspect(
        self, images: Float[Tensor, "image 3 height width"], *, choices: Sequence[Int[Tensor, " image"]] | None = None
    ) -> ChoiceOutput:
        """The features with what was chosen. choices: options to impose, by chooser; scores are still its own."""
        require_normalised(images.detach(), "images", mean=self.mean)
        maps = torch.relu(self.stem(images))
        if self.shape.stem.pooled:
            maps = nn.functional.max_pool2d(maps, 3, stride=2, padding=1)
        scores: list[Tensor] = []
        taken: list[Tensor] = []
        for number, (chooser, blocks) in enumerate(self.segments):
            scores.append(chooser(maps.mean((2, 3))))
            taken.append(chooser.option(scores[-1]) if choices is None else choices[number])
            maps = self._masked(maps, blocks, taken[-1]) if self.computes_all else self._in_pieces(maps, blocks, taken[-1])
        return ChoiceOutput(maps.mean((2, 3)), tuple(scores), tuple(taken))

    def _in_pieces(self, maps: Tensor, blocks: Sequence[int], option: Tensor) -> Tensor:
        """Images that take the same option go through its pieces together."""

        def through(maps: Tensor, number: int) -> Tensor:
            for block in blocks:
                maps = self.pieces[block][number](maps, Record())
            return maps

        return by_option(maps, option, through)

    def _masked(self, maps: Tensor, blocks: Sequence[int], option: Tensor) -> Tensor:
        for number in blocks:
            masks = {gated: table.to(maps)[option] for gated, table in self.tables(number).items()}
            maps = _masked_block(cast(CompactBlock, self.whole[number]), maps, masks)
        return maps

    def gates_of_block(self, number: int) -> dict[int, tuple[Tensor, ...]]:
        """By gated convolution of a block, the channels of every option."""
        before = sum(len(block.gated) for block in self.shape.blocks[:number])
        return {gated: self.options[before + place] for place, gated in enumerate(self.shape.blocks[number].gated)}

    def tables(self, number: int) -> dict[int, Float[Tensor, "option channel"]]:
        """By gated convolution of a block, a row of 0 and 1 for every option."""
        found = {}
        for gated, options in self.gates_of_block(number).items():
            found[gated] = torch.zeros(len(options), self.shape.blocks[number].inner[gated])
            for row, kept in zip(found[gated], options, strict=True):
                row[kept] = 1.0
        return found

    @property
    def pieces(self) -> list[list[CompactBlock]]:
        """Of every block a piece for each option, cut from the whole weights when first asked for."""
        if self._pieces is None:
            self._pieces = [
                [self._cut(number, option) for option in range(self.n_options)] for number in range(len(self.whole))
            ]
        return self._pieces

    def _cut(self, number: int, option: int) -> CompactBlock:
        block = cast(CompactBlock, self.whole[number])
        kept = {gated: options[option] for gated, options in self.gates_of_block(number).items()}
        inner = tuple(len(kept[n]) if n in kept else width for n, width in enumerate(block.shape.inner))
        weights = block.whole()
        cut: list[Weights] = []
        for n, (weight, bias) in enumerate(weights.convolutions):
            rows, columns = kept.get(n), kept.get(n - 1)
            own = weight if rows is None else weight[rows]
            cut.append((own if columns is None else own[:, columns], bias if rows is None else bias[rows]))
        made = CompactBlock(replace(block.shape, inner=inner), None).to(self.stem.weight)
        made.fill(FoldedBlock(cut, weights.shortcut))
        return made.to(memory_format=torch.channels_last).requires_grad_(False).eval()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ChoiceNetwork":
        self._pieces = None  # of other weights from now on
        return cast(ChoiceNetwork, super()._apply(fn, recurse))

    def load_state_dict(self, *given: Any, **options: Any) -> Any:
        """As of every module; pieces are cut anew."""
        self._pieces = None
        return super().load_state_dict(*given, **options)

    @property
    def macs(self) -> ChoiceMacs:
        """Its multiply-adds in closed form."""
        counted = count_macs(self.shape, self.size)

        def cost(number: int, option: int) -> int:
            kept = {gated: len(options[option]) for gated, options in self.gates_of_block(number).items()}
            return int(counted.blocks[number].total([kept.get(n, w) for n, w in enumerate(self.shape.blocks[number].inner)]))

        options = [tuple(sum(cost(n, o) for n in blocks) for o in range(self.n_options)) for _, blocks in self.segments]
        return ChoiceMacs(dense=counted.dense, fixed=counted.stem + counted.gates, options=tuple(options))


def by_option(maps: Tensor, option: Int[Tensor, " image"], through: Callable[[Tensor, int], Tensor]) -> Tensor:
    """`through(maps, option)` for the images of every option, in the order in which they came."""
    found = option.unique().tolist()
    if len(found) == 1:
        return through(maps, found[0])
    rows = [(option == number).nonzero()[:, 0] for number in found]
    parts = [through(maps[each], number) for each, number in zip(rows, found, strict=True)]
    return torch.cat(parts)[torch.cat(rows).argsort()]


def _inner(shape: ResNetShape) -> list[tuple[int, ...]]:
    return [block.inner for block in shape.blocks]


def _masked_block(block: CompactBlock, maps: Tensor, masks: dict[int, Tensor]) -> Tensor:
    """relu(residual + shortcut) with every channel computed, then multiplied."""
    residual = maps
    for number, convolution in enumerate(block.convolutions):
        residual = convolution(residual)
        if number + 1 < len(block.convolutions):
            residual = torch.relu(residual)
            if number in masks:
                residual = residual * masks[number][:, :, None, None]
    return torch.relu(residual + (maps if block.shortcut is None else block.shortcut(maps)))


def options_of(network: GatedResNet) -> Options:
    """For every gate of a trained network, of every level or route the channels that run, ascending."""
    shape = network.shape
    if network.router is None:
        widths = [block.level_widths(convolution) for block in shape.blocks for convolution in block.gated]
        return tuple(tuple(torch.arange(width) for width in each) for each in widths)
    logits = network.router.by_gate(network.router.masks.detach() + network.logit_shift)
    return tuple(tuple((row >= 0).nonzero()[:, 0].cpu() for row in part) for part in logits)


def choice_network(network: GatedResNet) -> ChoiceNetwork:
    """The gated pass of a network of levels or routes, in pieces. `InputError` for other gates, or none."""
    if "gated" not in network.passes or network.shape.gate_form == "subset":
        raise InputError(
            f"network: levels or routes are needed; this {network.shape.network} has "
            f"{'gates of channels' if 'gated' in network.passes else 'no gates'}"
        )
    made = ChoiceNetwork(network.shape, size=network.size, options=options_of(network))
    made.to(device=network.logit_shift.device, dtype=network.stem.convolution.weight.dtype)
    weight, bias = folded(network.stem.convolution, norm_of(network.stem.norms, "gated"))
    made.stem.weight.copy_(weight)
    cast(Tensor, made.stem.bias).copy_(bias)
    for whole, block in zip(made.whole, network.blocks, strict=True):
        cast(CompactBlock, whole).fill(folded_block(cast(Block, block), "gated", network.logit_shift))
    if network.router is not None:
        gates: list[GateModule] = [network.router]
    else:
        gates = [cast(LevelGate, gate) for block in network.blocks for gate in cast(Block, block).gates.values()]
    for chooser, gate in zip(made.choosers, gates, strict=True):
        _fill_chooser(cast(Chooser, chooser), gate, network.logit_shift)
    return made


@torch.no_grad()
def _fill_chooser(chooser: Chooser, gate: GateModule, shift: Tensor) -> None:
    """Take a gate's weights. The shift of all logits is in the first level's bias; a router has it in its masks."""
    weight, bias = folded(gate.reduce, gate.norm)
    chooser.reduce.weight.copy_(weight)
    chooser.reduce.bias.copy_(bias)
    chooser.expand.weight.copy_(gate.expand.weight)
    chooser.expand.bias.zero_() if gate.expand.bias is None else chooser.expand.bias.copy_(gate.expand.bias)
    if chooser.descending:
        chooser.expand.bias[0] += shift
