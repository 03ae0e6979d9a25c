"""What decides which channels an image gets: gates of channels, of nested widths, and routes through the whole network.

All share one small network ("Dynamic channel selection", equation 2): averaged maps -> C_in -> C_in // 4 (no bias) ->
batch-norm -> ReLU -> outputs; and all end in one logit per channel and image, open where it is 0 or more, so that budgets,
noise and settling are the same for each.

subset   (papers) a logit for every channel of the block, or for every group of neighbours.
levels   (ours) a block runs its first w_0, w_1, ... or all channels. The outputs z are a logit a_1 = z_1 and steps down from
         it, a_j = a_{j-1} - softplus(z_j). Channel c with w_{j-1} <= c < w_j has the logit a_j, the first w_0 are always open.
         So a wider level never opens without the narrower ones. All channels of an image share one draw of noise: an ordinal
         choice.
routes   (ours) K masks of the whole network are learnt, one logit for each decision, and a router behind the stem gives an
         image one of them: the largest of its K outputs, in training with Gumbel noise and the gradient of the softmax
         (selection/route_choice.py). An image's logits are those of its mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.networks.batch_norm import BatchNorm, n_processes
from pulvinar.networks.resnet_shape import BlockShape, ResNetShape
from pulvinar.selection.channel_gate import (
    by_group,
    logistic_noise,
    n_groups,
    open_gates,
    straight_through_gate,
)
from pulvinar.selection.route_choice import gumbel_noise, straight_through_choice

FIXED_LOGIT = 1e4  # of a fixed gate; neither the shift nor the noise of training comes near it


class GateModule(nn.Module):
    """The small network that all gates share: averaged maps -> hidden -> outputs, in float32 whatever the maps are.

    initial_bias: of the outputs; None: they have no bias.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, bias: float | None) -> None:
        super().__init__()
        self.reduce = nn.Linear(inputs, hidden, bias=False)
        self.norm = BatchNorm(hidden)
        self.expand = nn.Linear(hidden, outputs, bias=bias is not None)
        self.initial_bias = bias

    def decide(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image output"]:
        """The outputs."""
        with torch.autocast(pooled.device.type, enabled=False):
            return self.expand(torch.relu(self.norm(self.reduce(pooled.to(self.reduce.weight.dtype)))))

    def start(self, generator: torch.Generator) -> None:
        """Initial values of what is no plain layer."""
        if self.initial_bias is not None:
            nn.init.constant_(self.expand.bias, self.initial_bias)


class Gate(GateModule):
    """Logits (image, channel) from a block's input, equal within a group; computed in float32 whatever the maps are.

    fixed: of every decision, 1 for always open, -1 for always shut (a logit of +-1e4 without gradient), 0 for by image.
    """

    fixed: Tensor

    def __init__(self, inputs: int, hidden: int, channels: int, bias: float | None, group: int = 1) -> None:
        super().__init__(inputs, hidden, n_groups(channels, group), bias)
        self.n_channels, self.group = channels, group
        self.register_buffer("fixed", torch.zeros(n_groups(channels, group)))
        self.register_load_state_dict_pre_hook(_none_fixed)

    def forward(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image channel"]:
        """Relevance of every channel; a gate opens where it is 0 or more."""
        decisions = self.decide(pooled)
        fixed = self.fixed.to(decisions)
        decisions = torch.where(fixed == 0, decisions, FIXED_LOGIT * fixed)
        return by_group(decisions, group=self.group, n_channels=self.n_channels)

    def fixed_channels(self) -> Float[Tensor, " channel"]:
        """`fixed` for every channel."""
        return by_group(self.fixed[None], group=self.group, n_channels=self.n_channels)[0]


def _none_fixed(gate: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights saved before gates could be fixed have none that is."""
    state.setdefault(f"{prefix}fixed", torch.zeros_like(cast(Gate, gate).fixed))


class LevelGate(GateModule):
    """Logits (image, channel) from a block's input that never rise from one channel to the next; the module has the formula."""

    places: Tensor

    def __init__(self, inputs: int, hidden: int, widths: Sequence[int], bias: float | None) -> None:
        super().__init__(inputs, hidden, len(widths) - 1, bias)
        self.widths = tuple(widths)
        sizes = torch.tensor([self.widths[0], *(b - a for a, b in zip(self.widths, self.widths[1:], strict=False))])
        self.register_buffer("places", torch.arange(len(sizes)).repeat_interleave(sizes), persistent=False)

    def forward(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image channel"]:
        """Relevance of every channel."""
        levels = self.levels(pooled)
        return torch.cat([torch.full_like(levels[:, :1], FIXED_LOGIT), levels], 1)[:, self.places]

    def levels(self, pooled: Float[Tensor, "image input"]) -> Float[Tensor, "image step"]:
        """a_1, a_2, ...: descending; as many of them as are 0 or more is the level."""
        found = self.decide(pooled)
        return torch.cat([found[:, :1], -functional.softplus(found[:, 1:])], 1).cumsum(1)

    def start(self, generator: torch.Generator) -> None:
        """The bias is that of the first step alone; the others start at 0, a step of log 2."""
        if self.initial_bias is not None:
            nn.init.zeros_(self.expand.bias)
            nn.init.constant_(self.expand.bias[:1], self.initial_bias)


@dataclass(frozen=True)
class Routing:
    """What a router did. chances: (image, route), softmax without noise. drawn, plain: logits (image, channel) of every gate,
    of the routes drawn with noise and of those of inference.
    """

    chances: Float[Tensor, "image route"]
    drawn: list[Tensor]
    plain: list[Tensor]


class Router(GateModule):
    """Divides images among `routes` masks of the whole network. sizes: channels of every gate; group: of one decision.

    masks: (route, decision), logits of all gates one after the other. They start at the bias with a spread of 1, so that the
    routes differ from the first step on.
    """

    def __init__(
        self, inputs: int, hidden: int, routes: int, sizes: Sequence[int], bias: float | None, *, group: int = 1
    ) -> None:
        super().__init__(inputs, hidden, routes, None)
        self.initial_bias, self.sizes, self.group = bias, tuple(sizes), group
        self.masks = nn.Parameter(torch.zeros(routes, sum(n_groups(size, group) for size in sizes)))

    def start(self, generator: torch.Generator) -> None:
        """Masks that differ."""
        nn.init.normal_(self.masks, self.initial_bias or 0.0, 1.0, generator=generator)

    def forward(self, pooled: Float[Tensor, "image input"], generator: torch.Generator | None, temperature: float) -> Routing:
        """The logits of the image's route. generator: of the noise of training; None: the routes of inference."""
        logits = self.decide(pooled)
        plain = self._masked(straight_through_choice(logits, None, temperature=temperature))
        drawn = list(plain)
        if generator is not None:
            rank = torch.distributed.get_rank() if n_processes() > 1 else 0
            n_images, n_routes = logits.shape
            noise = gumbel_noise(n_images, n_routes, generator, part=(rank, n_processes()), device=logits.device)
            drawn = self._masked(straight_through_choice(logits, noise, temperature=temperature))
        return Routing(torch.softmax(logits, 1), drawn, plain)

    def _masked(self, chosen: Float[Tensor, "image route"]) -> list[Tensor]:
        with torch.autocast(chosen.device.type, enabled=False):
            return self.by_gate(chosen.to(self.masks.dtype) @ self.masks)

    def by_gate(self, decisions: Float[Tensor, "row decision"]) -> list[Tensor]:
        """Logits (row, channel) of every gate."""
        parts = decisions.split([n_groups(size, self.group) for size in self.sizes], dim=1)
        return [by_group(part, group=self.group, n_channels=size) for part, size in zip(parts, self.sizes, strict=True)]


def gates_of_block(shape: BlockShape, bias: float | None) -> nn.ModuleDict:
    """The gates of a block, by the number of the convolution that they gate."""

    def gate(n: int) -> GateModule:
        if shape.levels:
            return LevelGate(shape.inputs, shape.gate_hidden, shape.level_widths(n), bias)
        return Gate(shape.inputs, shape.gate_hidden, shape.inner[n], bias, shape.gate_group)

    return nn.ModuleDict({str(n): gate(n) for n in shape.gated})


def router_of(shape: ResNetShape, bias: float | None) -> Router:
    """The router of a network that has routes."""
    group = shape.blocks[0].gate_group
    return Router(shape.stem.channels, shape.router_hidden, shape.routes, shape.gate_channels, bias, group=group)


def chosen_levels(logits: Float[Tensor, "image channel"], widths: Sequence[int]) -> Int[Tensor, " image"]:
    """The level of every image, from 0: the index of the width that the gates of inference open."""
    opened = open_gates(logits).sum(1).long()
    return torch.searchsorted(torch.tensor(list(widths), device=logits.device), opened)


@dataclass(frozen=True)
class GateSetting:
    """How gates are drawn in one pass: with noise from `generator` (training), or without (inference).

    masks: gates to use instead, one (image, channel) or (channel,) of 0 and 1 per gate, taken from the front. routing: of a
    network with routes, whose gates have their logits from there.
    """

    generator: torch.Generator | None
    temperature: float
    shift: Tensor
    masks: list[Tensor] | None = None
    all_open: bool = False
    routing: Routing | None = None

    def draw(self, logits: Tensor, group: int = 1) -> Tensor:
        """Gates of exactly 0 or 1 with a straight-through gradient; masks, and gates kept open, have none.

        group: neighbouring channels that share their logit; they share the noise too.
        """
        if self.masks is not None:
            return self.masks.pop(0).to(logits).expand_as(logits)
        if self.all_open:
            return torch.ones_like(logits)
        noise = None
        if self.generator is not None:
            rank = torch.distributed.get_rank() if n_processes() > 1 else 0
            n_images, n_channels = logits.shape
            part, drawn = (rank, n_processes()), n_groups(n_channels, group)
            noise = logistic_noise(n_images, drawn, self.generator, part=part, device=logits.device)
            noise = by_group(noise, group=group, n_channels=n_channels)
        return straight_through_gate(logits + self.shift, noise, temperature=self.temperature)


@dataclass
class GateRecord:
    """Logits (shift included) and gates (image, channel) of every gate of a pass, in the order they were met."""

    logits: list[Tensor]
    gates: list[Tensor]
