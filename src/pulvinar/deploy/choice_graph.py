"""A network of levels or routes as an ONNX graph: whole pieces in the branches of ordinary `If`s.

Input `images` as of deploy/onnx_graph.py: (batch, 3, size, size) float32 in [0, 1], the normalisation inside, NaN for an image
outside. Outputs: `features` (batch, feature), `scores` (batch, score) of all choosers one after the other, and `choices`
(batch, chooser) int64, the option taken.

one image   the batch is one; `If`s one in the other choose the piece, and nothing is gathered. The fastest form at batch 1.
any batch   every option is an `If` that runs its piece on the images that take it, gathered and scattered back.
masked      the reference: every channel computed, then multiplied by the row of its option.
"""

from collections.abc import Callable, Sequence
from typing import Literal, cast

import numpy as np
import onnx
from onnx import TensorProto, helper
from torch import Tensor

from pulvinar.deploy.choices import ChoiceNetwork, Chooser
from pulvinar.deploy.compact_block import CompactBlock, Convolution
from pulvinar.deploy.onnx_graph import BlockWriter, Graph, Maps, convolved, finished, normalised_images, stem_maps

Batch = Literal["one", "any"]
Through = Callable[[Graph, str], str]


class _Writer:
    """Writes the segments of a network into a graph."""

    def __init__(self, network: ChoiceNetwork, graph: Graph, batch: Batch) -> None:
        self.network, self.graph, self.batch = network, graph, batch
        self.scores: list[str] = []
        self.choices: list[str] = []  # (batch, 1) each

    def segment(self, chooser: Chooser, blocks: Sequence[int], maps: Maps) -> Maps:
        """The maps behind the blocks of one chooser."""
        option = self._choose(chooser, cast(str, maps.name))
        shape = self.network.shape.blocks[blocks[-1]]
        side = maps.side
        for number in blocks:
            side = self.network.shape.blocks[number].output_size(side)
        if self.network.computes_all:
            return self._masked(blocks, maps, option)

        def through(graph: Graph, given: str, number: int) -> str:
            now = Maps(given, maps.channels, maps.side)
            for block in blocks:
                now = BlockWriter(graph, self.network.pieces[block][number], f"block{block}.option{number}", "none").write(now)
            return cast(str, now.name)

        behind = [shape.outputs, side, side]
        write = self._one if self.batch == "one" else self._any
        return Maps(write(cast(str, maps.name), option, through, behind), shape.outputs, side)

    def _choose(self, chooser: Chooser, maps: str) -> str:
        """Write scores and choice; the name of the option (batch, 1)."""
        graph, stem = self.graph, f"chooser{len(self.choices)}"
        pooled = graph.op("Flatten", graph.op("GlobalAveragePool", maps), axis=1)
        found = graph.linear(
            chooser.expand, graph.op("Relu", graph.linear(chooser.reduce, pooled, f"{stem}.reduce")), f"{stem}.expand"
        )
        n_scores = chooser.expand.weight.shape[0]
        if chooser.descending:
            steps = [graph.columns(found, 0, 1)]
            if n_scores > 1:
                steps.append(graph.op("Neg", graph.op("Softplus", graph.columns(found, 1, n_scores))))
                found = graph.op("CumSum", graph.op("Concat", *steps, axis=1), graph.weight(np.int64(1)))
            passed = graph.op("Cast", graph.at_least_zero(found), to=TensorProto.INT64)
            option = graph.op("ReduceSum", passed, graph.whole(1), keepdims=1)
        else:
            option = graph.op("ArgMax", found, axis=1, keepdims=1)
        self.scores.append(found)
        self.choices.append(option)
        return option

    def _one(self, maps: str, option: str, through: Callable[[Graph, str, int], str], behind: list[int]) -> str:
        """`If`s one in the other; the last option needs none."""
        only = self.graph.op("Squeeze", option, self.graph.whole(0, 1))

        def chosen(graph: Graph, number: int) -> str:
            if number + 1 == self.network.n_options:
                return through(graph, maps, number)
            then, other = Graph(graph.root), Graph(graph.root)
            branches = [(then, through(then, maps, number)), (other, chosen(other, number + 1))]
            made = [graph.branch(nodes, self._named(nodes, output, maps), [1, *behind]) for nodes, output in branches]
            asked = graph.op("Equal", only, graph.weight(np.int64(number)))
            return graph.op("If", asked, then_branch=made[0], else_branch=made[1])

        return chosen(self.graph, 0)

    def _any(self, maps: str, option: str, through: Callable[[Graph, str, int], str], behind: list[int]) -> str:
        """An `If` for every option, on the rows that take it."""
        graph = self.graph
        rows_of = graph.op("Squeeze", option, graph.whole(1))
        batch = graph.op("Slice", graph.op("Shape", maps), graph.whole(0), graph.whole(1))
        zero = onnx.numpy_helper.from_array(np.zeros(1, np.float32))
        now = graph.op("ConstantOfShape", graph.op("Concat", batch, graph.whole(*behind), axis=0), value=zero)
        for number in range(self.network.n_options):
            taken = graph.op("Equal", rows_of, graph.weight(np.int64(number)))
            wanted = graph.op("Greater", graph.count(taken, keepdims=0), graph.weight(np.int32(0)))
            then, other = Graph(graph.root), Graph(graph.root)
            rows = then.op("Squeeze", then.op("NonZero", taken), then.whole(0))
            piece = through(then, then.op("Gather", maps, rows, axis=0), number)
            placed = then.op("ScatterND", now, then.op("Unsqueeze", rows, then.whole(1)), piece)
            same = other.op("Identity", now)
            made = [graph.branch(nodes, output, ["batch", *behind]) for nodes, output in ((then, placed), (other, same))]
            now = graph.op("If", wanted, then_branch=made[0], else_branch=made[1])
        return now

    @staticmethod
    def _named(nodes: Graph, output: str, given: str) -> str:
        """An output of a branch must be made in it."""
        return nodes.op("Identity", output) if output == given else output

    def _masked(self, blocks: Sequence[int], maps: Maps, option: str) -> Maps:
        flat = self.graph.op("Squeeze", option, self.graph.whole(1))
        for number in blocks:
            tables = self.network.tables(number)
            maps = _masked_block(
                self.graph, cast(CompactBlock, self.network.whole[number]), f"block{number}", maps, tables, flat
            )
        return maps


def _masked_block(graph: Graph, block: CompactBlock, stem: str, maps: Maps, tables: dict[int, Tensor], option: str) -> Maps:
    like, now = cast(str, maps.name), maps
    for number, layer in enumerate(block.convolutions):
        now = convolved(graph, cast(Convolution, layer), now, f"{stem}.convolution{number}", like)
        if number + 1 == len(block.convolutions):
            break
        name = graph.op("Relu", cast(str, now.name))
        if number in tables:
            rows = graph.op("Gather", graph.weight(tables[number].numpy(), f"{stem}.masks{number}"), option, axis=0)
            name = graph.op("Mul", name, graph.op("Unsqueeze", rows, graph.whole(2, 3)))
        now = Maps(name, now.channels, now.side)
    shortcut = maps if block.shortcut is None else convolved(graph, block.shortcut, maps, f"{stem}.shortcut", like)
    return Maps(graph.op("Relu", graph.op("Add", cast(str, now.name), cast(str, shortcut.name))), now.channels, now.side)


def graph_of_choices(network: ChoiceNetwork, *, batch: Batch, opset: int) -> onnx.ModelProto:
    """The network as an ONNX model, checked. batch: one image at a time, or any number of them."""
    graph = Graph()
    right, images = normalised_images(graph, network)
    writer, maps = _Writer(network, graph, batch), stem_maps(graph, network, images)
    for chooser, blocks in network.segments:
        maps = writer.segment(chooser, blocks, maps)
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", cast(str, maps.name)), axis=1)
    graph.where(right, pooled, np.nan, output="features")
    graph.where(right, graph.op("Concat", *writer.scores, axis=1), np.nan, output="scores")
    graph.op("Concat", *writer.choices, axis=1, output="choices")
    n_scores = sum(chooser.expand.weight.shape[0] for chooser, _ in network.segments)
    rows: int | str = 1 if batch == "one" else "batch"
    outputs = [
        helper.make_tensor_value_info("features", TensorProto.FLOAT, [rows, network.shape.n_features]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [rows, n_scores]),
        helper.make_tensor_value_info("choices", TensorProto.INT64, [rows, len(writer.choices)]),
    ]
    return finished(graph, outputs, [rows, 3, network.size, network.size], opset=opset)
