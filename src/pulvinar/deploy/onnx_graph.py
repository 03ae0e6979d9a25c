"""A compact network as an ONNX graph, node by node, so that what a runtime does is what stands here.

Input `images` (batch, 3, size, size) float32, red, green, blue in [0, 1]; the normalisation is inside. An image with a pixel
outside of that (0 to 255, normalised already, NaN) gets features and logits of NaN, since ONNX has no way to refuse one.
Outputs, the first of which is enough: `features` (batch, feature); of a form with gates also `logits` (batch, channel), all
gates one after the other in the original order of channels, and `misses` (batch, gate) bool. `If` computes what dropped
channels add: on the missed rows alone, gathered and scattered back ("rows"), or on the whole batch ("batch") for runtimes
without such shapes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pulvinar.core.errors import InputError
from pulvinar.data.pixels import TOLERANCE
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.compact_block import CompactBlock, CompactGate, Convolution
from pulvinar.networks.resnet_shape import ResNetShape

Missing = Literal["rows", "batch", "none"]
IR_VERSION = 9


class Graph:
    """Nodes and weights of a graph that grows; the methods give the name of their result.

    any_size: images may have any height and width; then no constant may have the size of maps.
    """

    def __init__(self, root: "Graph | None" = None, *, any_size: bool = False) -> None:
        self.root: Graph = self if root is None else root
        self.any_size = any_size
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.n_names = 0

    def name(self, stem: str) -> str:
        """A new name; no branch repeats a name of the graph around it."""
        self.root.n_names += 1
        return f"{stem}_{self.root.n_names}"

    def op(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """A node with one output."""
        output = output or self.name(kind.lower())
        self.nodes.append(helper.make_node(kind, list(inputs), [output], name=f"node_{output}", **attributes))
        return output

    def weight(self, values: Any, stem: str = "constant") -> str:
        """A stored array."""
        name = self.name(stem)
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def whole(self, *values: int) -> str:
        """Whole numbers, stored."""
        return self.weight(np.array(values, np.int64))

    def layer(self, layer: nn.Module, stem: str) -> list[str]:
        """The stored weight and, if there is one, bias."""
        return [self.weight(value.numpy(force=True), f"{stem}.{kind}") for kind, value in layer.named_parameters()]

    def linear(self, layer: nn.Module, rows: str, stem: str) -> str:
        """A linear layer of (row, input)."""
        return self.op("Gemm", rows, *self.layer(layer, stem), transB=1)

    def columns(self, rows: str, start: int, stop: int) -> str:
        """Columns from start to stop."""
        return self.op("Slice", rows, self.whole(start), self.whole(stop), self.whole(1))

    def at_least_zero(self, values: str) -> str:
        """Whether a value is 0 or more."""
        return self.op("GreaterOrEqual", values, self.weight(np.float32(0)))

    def gates(self, logits: str) -> str:
        """1 where a logit is 0 or more, else 0, as (row, channel, 1, 1)."""
        opened = self.op("Cast", self.at_least_zero(logits), to=TensorProto.FLOAT)
        return self.op("Unsqueeze", opened, self.whole(2, 3))

    def in_range(self, images: str) -> str:
        """(row,) whether all pixels lie in [0, 1], give or take half a step of 8 bits; NaN does not.

        By comparisons, which rounding does not touch: converters put casts anywhere when they make float16 of a graph.
        """
        lowest, highest = (self.weight(np.float32(value)) for value in (-TOLERANCE, 1 + TOLERANCE))
        inside = self.op("And", self.op("GreaterOrEqual", images, lowest), self.op("LessOrEqual", images, highest))
        beyond = self.count(self.op("Not", inside), 1, 2, 3, keepdims=0)
        return self.op("Equal", beyond, self.weight(np.int32(0)))

    def count(self, true: str, *axes: int, keepdims: int) -> str:
        """How many are true over these axes (none: all). A sum: ONNX Runtime's shape inference knows no other reduction."""
        given = [self.whole(*axes)] if axes else []
        return self.op("ReduceSum", self.op("Cast", true, to=TensorProto.INT32), *given, keepdims=keepdims)

    def any_at_least_zero(self, values: str, *axes: int, keepdims: int) -> str:
        """Whether one or more over these axes (none: all) are 0 or more."""
        return self.op("Greater", self.count(self.at_least_zero(values), *axes, keepdims=keepdims), self.weight(np.int32(0)))

    def where(self, rows: str, values: str, other: float, *, axes: Sequence[int] = (1,), output: str | None = None) -> str:
        """`values` in these rows, `other` in the rest. axes: those of `values` but the first."""
        return self.op(
            "Where", self.op("Unsqueeze", rows, self.whole(*axes)), values, self.weight(np.float32(other)), output=output
        )

    def branch(self, nodes: "Graph", output: str, shape: Sequence[int | str | None]) -> onnx.GraphProto:
        """A branch of an `If` with this output."""
        value = helper.make_tensor_value_info(output, TensorProto.FLOAT, shape)
        return helper.make_graph(nodes.nodes, self.name("branch"), [], [value], initializer=nodes.weights)


@dataclass(frozen=True)
class Maps:
    """The name of maps (batch, channels, side, side); no name where there is no channel."""

    name: str | None
    channels: int
    side: int


def convolved(graph: Graph, layer: Convolution, maps: Maps, stem: str, like: str) -> Maps:
    """The maps behind a convolution. like: a tensor with the same batch, for the constant maps of a layer without inputs."""
    outputs, kernel = layer.weight.shape[0], layer.weight.shape[-1]
    side = layer.output_size(maps.side)
    if not outputs:
        return Maps(None, 0, side)
    if maps.name is None and graph.root.any_size:
        raise InputError(f"any size: {stem} has no inputs left, so its maps are constants of the size of {side} pixels")
    if maps.name is None:
        bias = np.zeros(outputs, np.float32) if layer.bias is None else layer.bias.numpy(force=True)
        batch = graph.op("Slice", graph.op("Shape", like), graph.whole(0), graph.whole(1))
        shape = graph.op("Concat", batch, graph.whole(outputs, side, side), axis=0)
        return Maps(graph.op("Expand", graph.weight(bias.reshape(1, -1, 1, 1), f"{stem}.bias"), shape), outputs, side)
    name = graph.op(
        "Conv",
        maps.name,
        *graph.layer(layer, stem),
        kernel_shape=[kernel, kernel],
        strides=[layer.stride] * 2,
        pads=[layer.padding] * 4,
    )
    return Maps(name, outputs, side)


class BlockWriter:
    """Writes one block into a graph."""

    def __init__(self, graph: Graph, block: CompactBlock, stem: str, missing: Missing) -> None:
        self.graph, self.block, self.stem, self.missing = graph, block, stem, missing
        self.logits: dict[int, str] = {}
        self.asked: dict[int, str] = {}  # logits of dropped channels (batch, dropped)
        self.misses: dict[int, str] = {}
        self.hidden: list[Maps] = []

    def write(self, maps: Maps) -> Maps:
        """relu(residual + shortcut)."""
        self._gates(cast(str, maps.name))
        graph, like = self.graph, cast(str, maps.name)
        self.hidden = [maps]
        for number, layer in enumerate(self.block.convolutions):
            last = number + 1 == len(self.block.convolutions)
            if last and self.hidden[-1].name is None:
                now = self._constant(cast(Convolution, layer))
                break
            now = convolved(graph, cast(Convolution, layer), self.hidden[-1], f"{self.stem}.convolution{number}", like)
            if last:
                break
            now = self._with_missing(number - 1, now)
            if now.name is not None:
                name = graph.op("Relu", now.name)
                if number in self.logits:
                    kept = graph.columns(self.logits[number], 0, now.channels)
                    name = graph.op("Mul", name, graph.gates(kept))
                now = Maps(name, now.channels, now.side)
            self.hidden.append(now)
        shortcut = maps
        if self.block.shortcut is not None:
            shortcut = convolved(graph, self.block.shortcut, maps, f"{self.stem}.shortcut", like)
        shortcut = self._with_missing(number - 1, shortcut)  # beside the convolution, so that runtimes can fuse it with the sum
        total = graph.op("Add", cast(str, now.name), cast(str, shortcut.name))
        return Maps(graph.op("Relu", total), now.channels, now.side)

    def _constant(self, layer: Convolution) -> Maps:
        """What a last convolution without inputs adds everywhere: its bias, to be broadcast in the sum."""
        bias = cast(torch.Tensor, layer.bias).numpy(force=True).reshape(1, -1, 1, 1)
        side = layer.output_size(self.hidden[-1].side)
        return Maps(self.graph.weight(bias, f"{self.stem}.bias"), len(layer.weight), side)

    def _gates(self, maps: str) -> None:
        if not self.block.gated or self.block.settled:
            return
        graph = self.graph
        pooled = graph.op("Flatten", graph.op("GlobalAveragePool", maps), axis=1)
        for number in self.block.gated:
            gate, stem = cast(CompactGate, self.block.gates[str(number)]), f"{self.stem}.gate{number}"
            hidden = graph.op("Relu", graph.linear(gate.reduce, pooled, f"{stem}.reduce"))
            logits = graph.linear(gate.expand, hidden, f"{stem}.expand")
            self.logits[number] = logits
            n_kept, n_channels = len(self.block.kept[number]), len(gate.order)
            if n_kept < n_channels:
                self.asked[number] = graph.columns(logits, n_kept, n_channels)
                self.misses[number] = graph.any_at_least_zero(self.asked[number], 1, keepdims=1)

    def _with_missing(self, number: int, now: Maps) -> Maps:
        """`now` with what the dropped channels of gate `number` add to it."""
        if self.missing == "none" or number not in self.asked or now.name is None:
            return now
        graph = self.graph
        wanted = graph.any_at_least_zero(self.asked[number], keepdims=0)
        shape: list[int | str | None] = ["batch", now.channels, *(2 * [None] if graph.any_size else 2 * [now.side])]
        then, other = Graph(graph.root), Graph(graph.root)
        added = self._added(then, number, now)
        same = other.op("Identity", now.name)
        output = graph.op(
            "If", wanted, then_branch=graph.branch(then, added, shape), else_branch=graph.branch(other, same, shape)
        )
        return Maps(output, now.channels, now.side)

    def _added(self, graph: Graph, number: int, now: Maps) -> str:
        """In a branch: `now` plus the missing part, of the missed rows or of the whole batch."""
        rows = None
        if self.missing == "rows":
            missed = graph.op("Squeeze", self.misses[number], graph.whole(1))
            rows = graph.op("Squeeze", graph.op("NonZero", missed), graph.whole(0))
        dropped = self._dropped(graph, number, rows)
        leave, stem = cast(Convolution, self.block.leave[str(number)]), f"{self.stem}.leave{number}"
        part = cast(str, convolved(graph, leave, dropped, stem, self.asked[number]).name)
        if rows is None:
            return graph.op("Add", cast(str, now.name), part)
        places = graph.op("Unsqueeze", rows, graph.whole(1))
        total = graph.op("Add", graph.op("Gather", cast(str, now.name), rows, axis=0), part)  # no reduction: float16 has none
        return graph.op("ScatterND", cast(str, now.name), places, total)

    def _dropped(self, graph: Graph, number: int, rows: str | None) -> Maps:
        """Gated maps of the dropped channels."""
        name, stem = str(number), f"{self.stem}.dropped{number}"

        def taken(values: str) -> str:
            return values if rows is None else graph.op("Gather", values, rows, axis=0)

        before = self.hidden[number]
        asked = taken(self.asked[number])
        given = Maps(None if before.name is None else taken(before.name), before.channels, before.side)
        now = convolved(graph, cast(Convolution, self.block.enter[name]), given, f"{stem}.enter", asked)
        if name in self.block.between:
            between = cast(Convolution, self.block.between[name])
            more = convolved(graph, between, self._dropped(graph, number - 1, rows), f"{stem}.between", asked)
            now = Maps(graph.op("Add", cast(str, now.name), cast(str, more.name)), now.channels, now.side)
        gated = graph.op("Mul", graph.op("Relu", cast(str, now.name)), graph.gates(asked))
        return Maps(gated, now.channels, now.side)


def graph_of(network: CompactNetwork, *, missing: Missing, opset: int, any_size: bool = False) -> onnx.ModelProto:
    """The network as an ONNX model, checked. missing: how dropped channels are computed where they are asked for.

    any_size: height and width of the images are free; `InputError` where the network has constant maps.
    """
    graph = Graph(any_size=any_size)
    right, images = normalised_images(graph, network)
    maps = stem_maps(graph, network, images)
    logits: list[str] = []
    orders: list[np.ndarray] = []  # of each gate, the places of its channels among all logits as they are computed
    misses: list[str | None] = []
    for number, block in enumerate(network.blocks):
        writer = BlockWriter(graph, cast(CompactBlock, block), f"block{number}", missing)
        maps = writer.write(maps)
        for gate in writer.block.gated:
            own = cast(CompactGate, writer.block.gates[str(gate)])
            if writer.block.settled:
                logits.append(_constant_rows(graph, own.expand.bias.numpy(force=True), images))
            else:
                logits.append(writer.logits[gate])
            orders.append(own.back.numpy(force=True) + sum(map(len, orders)))
            misses.append(writer.misses.get(gate))
    pooled = graph.op("Flatten", graph.op("GlobalAveragePool", cast(str, maps.name)), axis=1)
    graph.where(right, pooled, np.nan, output="features")
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["batch", network.shape.n_features])]
    if logits:
        outputs += _gate_outputs(graph, logits, np.concatenate(orders), misses, right)
    size: list[int | str] = ["height", "width"] if any_size else [network.size, network.size]
    return finished(graph, outputs, ["batch", 3, *size], opset=opset)


class FromImages(Protocol):
    """What a graph needs to know of a network in front of its blocks."""

    stem: Convolution
    shape: ResNetShape
    size: int
    mean: tuple[float, float, float]
    sd: tuple[float, float, float]


def normalised_images(graph: Graph, network: FromImages) -> tuple[str, str]:
    """(batch,) whether the pixels of an image lie in [0, 1], and the normalised images, zeros where they do not."""
    colours = [np.array(values, np.float32).reshape(1, 3, 1, 1) for values in (network.mean, network.sd)]
    right = graph.in_range("images")
    pixels = graph.where(right, "images", 0.0, axes=(1, 2, 3))  # NaN in one image would decide about the branches of all
    centred = graph.op("Sub", pixels, graph.weight(colours[0], "mean"))
    return right, graph.op("Div", centred, graph.weight(colours[1], "sd"))


def stem_maps(graph: Graph, network: FromImages, images: str) -> Maps:
    """The maps behind the stem."""
    maps = convolved(graph, network.stem, Maps(images, 3, network.size), "stem", images)
    maps = Maps(graph.op("Relu", cast(str, maps.name)), maps.channels, maps.side)
    if not network.shape.stem.pooled:
        return maps
    pooled = graph.op("MaxPool", cast(str, maps.name), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    return Maps(pooled, maps.channels, (maps.side - 1) // 2 + 1)


def finished(
    graph: Graph, outputs: Sequence[onnx.ValueInfoProto], images: Sequence[int | str], *, opset: int
) -> onnx.ModelProto:
    """The model of a graph, checked. images: shape of the input."""
    given = helper.make_tensor_value_info("images", TensorProto.FLOAT, list(images))
    made = helper.make_graph(graph.nodes, "pulvinar", [given], list(outputs), initializer=graph.weights)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def _constant_rows(graph: Graph, values: np.ndarray, like: str) -> str:
    """These values (column,) for every row of the batch."""
    batch = graph.op("Slice", graph.op("Shape", like), graph.whole(0), graph.whole(1))
    shape = graph.op("Concat", batch, graph.whole(len(values)), axis=0)
    return graph.op("Expand", graph.weight(values[None].astype(np.float32)), shape)


def _gate_outputs(
    graph: Graph, logits: list[str], order: np.ndarray, misses: list[str | None], right: str
) -> list[onnx.ValueInfoProto]:
    """Write the outputs `logits` (of all gates, as computed, brought into this order) and `misses`."""
    every = graph.op("Concat", *logits, axis=1)
    if not np.array_equal(order, np.arange(len(order))):
        every = graph.op("Gather", every, graph.weight(order), axis=1)
    graph.where(right, every, np.nan, output="logits")
    none = None
    if any(missed is None for missed in misses):  # a gate that drops nothing cannot be missed
        none = graph.op("Less", graph.columns(every, 0, 1), graph.columns(every, 0, 1))
    graph.op("Concat", *[missed or cast(str, none) for missed in misses], output="misses", axis=1)
    return [
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(order)]),
        helper.make_tensor_value_info("misses", TensorProto.BOOL, ["batch", len(misses)]),
    ]
