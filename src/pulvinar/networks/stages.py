"""Where a network can be tapped: its blocks in order of execution, and a few of them as stages.

A *point* is the output of a block (a residual or inception block, a convolution with its norm and activation, a transformer
layer). One forward pass shows which modules run once and give maps. *Stages* are points: by default the last at each
resolution (for SE-ResNeXt-50 the stem and layer1 to layer4 of the paper, 5; all points are 17: stem and 16 blocks). The papers
do not say how other networks are cut; this rule is ours.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError

FEWEST_RESOLUTIONS, MOST_RESOLUTIONS = 4, 8  # outside (plain transformers, parallel branches) stages are spread evenly
DEFAULT_COUNT = 5
PLAIN = (nn.Sequential, nn.ModuleList)
SAME_RESOLUTION = 0.75  # 149 and 147 pixels are one resolution, 147 and 73 are two


@dataclass(frozen=True)
class Output:
    """What a module gave in one pass: its shape, how often it ran, and its place in the order of completion."""

    shape: tuple[int, ...] | None
    calls: int
    order: int


@dataclass(frozen=True)
class Point:
    """A module to tap. `outer`: the module around it with the same output, if that has one resolution (layer1 of layer1.2)."""

    name: str
    outer: str
    side: int
    order: int


@contextmanager
def taking(image_size: int) -> Iterator[None]:
    """Around a pass of images of this size: what a network raises when it does not take them becomes an `InputError`."""
    try:
        yield
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"image_size: the network does not take {image_size} x {image_size} pixels: {error}") from error


def outputs(network: nn.Module, image_size: int) -> dict[str, Output]:
    """Run one grey image through and note what each module gives. Modes are restored, the image is zeros."""
    found: dict[str, Output] = {}
    modes = {module: module.training for module in network.modules()}
    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    with ExitStack() as hooks:
        for name, module in network.named_modules():

            def note(_module: nn.Module, _inputs: object, output: object, name: str = name) -> None:
                shape = tuple(output.shape) if isinstance(output, Tensor) else None
                found[name] = Output(shape, found[name].calls + 1 if name in found else 1, len(found))

            hooks.callback(module.register_forward_hook(note).remove)
        try:
            with torch.no_grad(), taking(image_size):
                network.eval()(torch.zeros(1, 3, image_size, image_size, device=device))
        finally:
            for module, mode in modes.items():
                module.training = mode
    return found


def prefix_tokens(network: nn.Module) -> int:
    """Tokens of a transformer that stand for no place (class token, registers)."""
    return int(getattr(network, "num_prefix_tokens", 1 if hasattr(network, "class_token") else 0))


def channels_first(output: Tensor, *, n_prefix: int = 0) -> Float[Tensor, "image channel height width"]:
    """Any layer's output as maps.

    (image, channel) gets height and width 1. Tokens (image, token, channel) lose their prefix tokens and become the square
    they came from (a column if there is none). (image, height, width, channel) is turned if height = width, channel differs.
    """
    if output.ndim == 2:
        return output[:, :, None, None]
    if output.ndim == 3:
        for first in (n_prefix, 0):
            side = math.isqrt(output.shape[1] - first)
            if side * side == output.shape[1] - first:
                return output[:, first:].transpose(1, 2).unflatten(2, (side, side))
        return output.transpose(1, 2)[..., None]
    if output.ndim == 4:
        channels_last = output.shape[1] == output.shape[2] != output.shape[3]
        return output.permute(0, 3, 1, 2) if channels_last else output
    raise InputError(f"stages: a module gives {tuple(output.shape)}; maps, tokens or vectors per image are needed")


def _side(output: Output | None, n_prefix: int) -> int:
    """Height of the maps of a module that runs once; 0 where there are none."""
    if output is None or output.shape is None or output.calls != 1 or len(output.shape) not in (3, 4):
        return 0
    return channels_first(torch.empty(output.shape, device="meta"), n_prefix=n_prefix).shape[2]


class _Walk:
    """Collects the points of a network from its modules and what they gave."""

    def __init__(self, network: nn.Module, found: dict[str, Output], head: str) -> None:
        self.found, self.n_prefix, self.points = found, prefix_tokens(network), list[Point]()
        self.walk("", network, skip=head.partition(".")[0])
        self.points.sort(key=lambda point: point.order)

    def side(self, name: str) -> int:
        return _side(self.found.get(name), self.n_prefix)

    def add(self, name: str) -> None:
        self.points.append(Point(name, name, self.side(name), self.found[name].order))

    def walk(self, prefix: str, module: nn.Module, skip: str = "") -> None:
        """Blocks below this module. A convolution and the norms and activations after it are one point, at their end."""
        before, convolution = len(self.points), ""
        for child_name, child in module.named_children():
            name = f"{prefix}{child_name}"
            if child_name == skip:
                continue
            if _is_leaf(child):
                if isinstance(child, _ConvNd) and self.side(name):
                    convolution = self._close(convolution) or name
                elif convolution and self._continues(child, convolution, name):
                    convolution = name
                continue
            convolution = self._close(convolution)
            if self._is_container(child, name):
                self.walk(f"{name}.", child)
            elif self.side(name):
                self.add(name)
        self._close(convolution)
        self._name_outer(prefix.rstrip("."), before)

    def _close(self, convolution: str) -> str:
        if convolution:
            self.add(convolution)
        return ""

    def _continues(self, child: nn.Module, convolution: str, name: str) -> bool:
        idle = isinstance(child, nn.Dropout | nn.Identity)
        return not idle and self.side(name) > 0 and self.found[name].shape == self.found[convolution].shape

    def _is_container(self, module: nn.Module, name: str) -> bool:
        """Plain containers, modules without maps, and those that are or hold a row of like blocks (ConvNeXt stage, encoder)."""
        if type(module) in PLAIN or not self.side(name):
            return True
        rows = [(name, module)]
        rows += [(f"{name}.{key}", child) for key, child in module.named_children() if type(child) in PLAIN]
        return any(self._is_row(row_name, row, self.found[name].shape) for row_name, row in rows)

    def _is_row(self, name: str, row: nn.Module, shape: tuple[int, ...] | None) -> bool:
        blocks = list(row.named_children())
        if len(blocks) < 2 or len({type(block) for _, block in blocks}) > 1:
            return False
        first, last = blocks[0][1], self.found.get(f"{name}.{blocks[-1][0]}")
        return not _is_leaf(first) and not isinstance(first, nn.Sequential) and last is not None and last.shape == shape

    def _name_outer(self, name: str, before: int) -> None:
        """The last point of a module of one resolution may go by the module's name."""
        inside = self.points[before:]
        if not inside or not name or len({point.side for point in inside}) > 1 or self.side(name) != inside[-1].side:
            return
        last = inside[-1]
        if self.found[name].shape == self.found[last.name].shape:
            single = name if len(inside) == 1 else last.name
            self.points[-1] = Point(single, name, last.side, last.order)


def _is_leaf(module: nn.Module) -> bool:
    return not any(True for child in module.children() for _ in child.parameters())


def find_points(network: nn.Module, found: dict[str, Output], *, head: str) -> list[Point]:
    """The blocks of a network in order of execution; `head` is the module that gives the logits, its branch is left out."""
    points = _Walk(network, found, head).points
    return [point for point in points if point.side > 1] or points


def _resolution_ends(points: Sequence[Point]) -> list[Point]:
    """The last point at each resolution."""
    ends: list[Point] = []
    first = 0
    for point in points:
        if ends and SAME_RESOLUTION < point.side / first < 1 / SAME_RESOLUTION:
            ends[-1] = point
        else:
            ends.append(point)
            first = point.side
    return ends


def choose_stages(
    points: Sequence[Point], found: dict[str, Output], stages: Sequence[str] | int | None, *, network: str
) -> tuple[str, ...]:
    """Names of the modules to tap.

    None: the last point at each resolution, or five points spread evenly where those are fewer
    than four or more than eight. A number:
    that many; the resolutions if there are so many, else points spread evenly from first to last. Names: any modules that run
    once. Raises `InputError` or `NotFoundError`.
    """
    if not isinstance(stages, int | None):
        return _check_names([stages] if isinstance(stages, str) else list(stages), found, network)
    if not points:
        raise InputError(f"{network}: no blocks that give maps were found; name the modules to tap as stages")
    ends = _resolution_ends(points)
    count = stages
    if count is None:
        count = len(ends) if FEWEST_RESOLUTIONS <= len(ends) <= MOST_RESOLUTIONS else min(DEFAULT_COUNT, len(points))
    if not 1 <= count <= len(points):
        raise InputError(f"stages: {network} has {len(points)} points to tap, {count} came; 1 to {len(points)} fit")
    if count == len(ends):
        return tuple(point.outer for point in ends)
    if count == 1:
        return (points[-1].name,)
    rows = [round(step * (len(points) - 1) / (count - 1)) for step in range(count)]
    return tuple(points[row].name for row in rows)


def _check_names(names: Sequence[str], found: dict[str, Output], network: str) -> tuple[str, ...]:
    if not names:
        raise InputError("stages: one or more are needed, none came")
    for name in names:
        if name not in found or not name:
            known = [key for key in found if key]
            shown = suggest(name, known) if len(known) < 40 else suggest(name, known).partition("; there are")[0]
            raise NotFoundError(
                f"stages: {network} has no module '{name}' that runs{shown}; stage_names('{network}') lists them"
            )
        if found[name].calls != 1:
            raise InputError(f"stages: module '{name}' of {network} runs {found[name].calls} times; name one that runs once")
        shape = found[name].shape
        if shape is None or not 2 <= len(shape) <= 4:
            raise InputError(f"stages: module '{name}' of {network} gives no maps, tokens or vectors")
    if len(set(names)) < len(names):
        raise InputError(f"stages: a name stands twice: {', '.join(names)}")
    return tuple(names)
