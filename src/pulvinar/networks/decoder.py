"""Brain -> image embedding: a linear input layer per subject, and what all subjects share.

The shared part is an MLP, a linear map to the embedding (the output b: one vector, or a token each for the places
of the image), a projector for retrieval (h = H(b), every token by itself) and a regression head for reconstruction (P(b)),
after MindEye2 (Scotti et al. 2024) and TROI (section 2.1). With `prior_layers` a diffusion prior on b stands instead of the
head (networks/diffusion_prior.py): P(b) is b, its condition, and what is reconstructed from is a sample (`reconstructed`).

Two mixers:
- `residual` (default). Every nonlinear part starts at zero beside a linear path (blocks, projector, head), and input layers
  start small. With 600 trials this is what decides: on a planted world the same decoder from ordinary initial weights
  identified .23 of 300 images, so .51 (docs/log.md).
- `compat`: MindEye2's, for comparison with its results. Its mixer acts on a sequence of length one, where its second
  normalisation returns a constant: the blocks over hidden units get no gradient at all, and voxels -> tokens is linear plus a
  constant. Projector without the linear path; torch's ordinary initial weights.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

if TYPE_CHECKING:
    from pulvinar.networks.diffusion_prior import DiffusionPrior

Mixer = Literal["residual", "compat"]


class ResidualBlock(nn.Module):
    """x + Linear(Dropout(GELU(Linear(LayerNorm(x)))))."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.expand, self.contract = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "row hidden"], dropout: torch.Generator | Tensor | None) -> Float[Tensor, "row hidden"]:
        """The formula above; dropout as in `drop`."""
        inside = nn.functional.gelu(self.expand(self.norm(x)))
        return x + self.contract(drop(inside, self.dropout, dropout))


def drop(x: Tensor, rate: float, dropout: torch.Generator | Tensor | None) -> Tensor:
    """Dropout by factors that are given, or drawn here from a generator; none when it is None (evaluation)."""
    if dropout is None or rate == 0:
        return x
    factors = _dropout_factors(x.shape, rate, dropout) if isinstance(dropout, torch.Generator) else dropout
    return (x * factors.to(x.device)).to(x.dtype)


def _dropout_factors(shape: Sequence[int], rate: float, generator: torch.Generator) -> Tensor:
    """0 for what is dropped, 1 / (1 - rate) for what stays."""
    return (torch.rand(shape, generator=generator, device=generator.device) >= rate) / (1 - rate)


class DeadMixer(nn.Module):
    """MindEye2's mixer at its only setting, a sequence of length one: x + what its token blocks add, a constant.

    Per block, as in its code: x <- A(LayerNorm(x)) + r; r <- x; then over the sequence x <- B(LayerNorm_1(x)) + q; q <- x, with
    r and q both the input at the start. LayerNorm over one number is its bias whatever the number, so what A adds is lost.
    """

    def __init__(self, hidden: int, n_blocks: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.norms = nn.ModuleList([nn.LayerNorm(hidden) for _ in range(n_blocks)])
        self.over_hidden = nn.ModuleList([nn.ModuleList([nn.Linear(hidden, hidden) for _ in (0, 1)]) for _ in range(n_blocks)])
        self.sequence_norms = nn.ModuleList([nn.LayerNorm(1) for _ in range(n_blocks)])
        self.over_sequence = nn.ModuleList([nn.ModuleList([nn.Linear(1, 1) for _ in (0, 1)]) for _ in range(n_blocks)])

    def forward(
        self, x: Float[Tensor, "row hidden"], *dropout: Float[Tensor, "row hidden"] | None
    ) -> Float[Tensor, "row hidden"]:
        """The formula above. dropout: two factors a block, as in `drop`, or none."""
        rate, residual, sequence_residual = self.dropout, x, x[..., None]  # (row, hidden, sequence of 1)
        places = iter(dropout)
        for norm, inner, sequence_norm, over in zip(
            self.norms, self.over_hidden, self.sequence_norms, self.over_sequence, strict=True
        ):
            x = _mlp(inner, norm(x), rate, next(places, None)) + residual
            residual = x
            factors = next(places, None)
            factors = None if factors is None else factors[..., None]
            sequence = _mlp(over, sequence_norm(x[..., None]), rate, factors) + sequence_residual
            sequence_residual, x = sequence, sequence[..., 0]
        return x


def _mlp(layers: nn.Module, x: Tensor, rate: float, dropout: Tensor | None) -> Tensor:
    """Linear(Dropout(GELU(Linear(x))))."""
    first, second = layers.children()
    return second(drop(nn.functional.gelu(first(x)), rate, dropout))


@dataclass(frozen=True)
class Decoded:
    """The three outputs, each (row, token x dim): output b, projector h (retrieval), regression c (reconstruction)."""

    output: Tensor
    projected: Tensor
    regressed: Tensor


@dataclass(frozen=True, kw_only=True)
class DecoderShape:
    """What a shared decoder is built from: widths, depth, and the embedding's tokens (1: pooled) of `dim` numbers each.

    projector_width: None for `hidden` where the embedding is pooled, and `dim` (as in MindEye2) where it has tokens.
    """

    hidden: int
    dim: int
    n_blocks: int
    dropout: float
    n_tokens: int = 1
    mixer: Mixer = "residual"
    projector_width: int | None = None
    prior_layers: int = 0  # of a diffusion prior; 0: a linear regression head
    prior_heads: int = 4
    prior_head_dim: int = 32


class SharedDecoder(nn.Module):
    """What all subjects share: hidden (row, hidden) -> `Decoded`."""

    def __init__(self, shape: DecoderShape) -> None:
        super().__init__()
        self.shape, self.hidden, self.dropout = shape, shape.hidden, shape.dropout
        hidden, dim = shape.hidden, shape.dim
        self.start_at_zero: list[Tensor] = []
        if shape.mixer == "compat":
            self.blocks = nn.ModuleList([DeadMixer(hidden, shape.n_blocks, shape.dropout)])
        else:
            blocks = [ResidualBlock(hidden, shape.dropout) for _ in range(shape.n_blocks)]
            self.blocks = nn.ModuleList(blocks)
            self.start_at_zero += [block.contract.weight for block in blocks]
        self.output = nn.Linear(hidden, shape.n_tokens * dim)
        width = shape.projector_width or (hidden if shape.n_tokens == 1 else dim)
        last = nn.Linear(width, dim)
        self.projector = nn.Sequential(
            *[nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, width)],
            *[nn.LayerNorm(width), nn.GELU(), nn.Linear(width, width)],
            *[nn.LayerNorm(width), nn.GELU(), last],
        )
        if shape.mixer == "residual":
            self.start_at_zero.append(last.weight)
        self.regression: nn.Module = nn.Identity() if shape.prior_layers else nn.Linear(dim, dim)
        self.prior = _prior(shape) if shape.prior_layers else None

    def draw_dropout(self, n_rows: int, generator: torch.Generator) -> Float[Tensor, "place row hidden"] | None:
        """The factors of a forward pass over so many rows, place by place; None where nothing is dropped."""
        shape = self.shape
        if not self.dropout:
            return None
        places = 1 + shape.n_blocks if shape.mixer == "residual" else 2 * shape.n_blocks
        return _dropout_factors((places, n_rows, self.hidden), self.dropout, generator)

    def largest_product(self, n_rows: int) -> int:
        """Multiply-adds of the largest matrix product over so many rows."""
        once, per_token = [self.output.weight.numel(), self.hidden**2], [p.numel() for p in self.projector.parameters()]
        return n_rows * max(*once, self.shape.n_tokens * max(per_token))

    def forward(
        self, hidden: Float[Tensor, "row hidden"], dropout: torch.Generator | Float[Tensor, "place row hidden"] | None = None
    ) -> Decoded:
        """b, h = b + H(b) (`compat`: H(b)) and P(b). With a generator or what `draw_dropout` gave, dropout is on."""
        shape = self.shape
        factors = self.draw_dropout(len(hidden), dropout) if isinstance(dropout, torch.Generator) else dropout
        places = () if factors is None else factors.unbind()
        if shape.mixer == "compat":
            x = self.blocks[0](hidden, *places)
        else:
            at_input, *inside = places or [None] * (1 + shape.n_blocks)
            x = drop(hidden, self.dropout, at_input)
            for block, own in zip(self.blocks, inside, strict=True):
                x = block(x, own)
        output = self.output(x)
        if shape.n_tokens > 1:
            output = output.unflatten(1, (shape.n_tokens, shape.dim))
        inner = self.projector(output)
        projected = output + inner if shape.mixer == "residual" else inner
        parts = (output, projected, self.regression(output))
        return Decoded(*(part.flatten(1) for part in parts))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Random weights, the regression head at the identity. `residual`: nonlinear parts start at zero."""
        if self.shape.mixer == "compat":
            _initialise_as_torch(self, generator)
        else:
            initialise(self, generator)
        for weight in self.start_at_zero:
            weight.zero_()
        if self.prior is not None:
            self.prior.initialise(generator)
        elif isinstance(self.regression, nn.Linear):
            nn.init.eye_(self.regression.weight)
            nn.init.zeros_(self.regression.bias)

    @torch.no_grad()
    def reconstructed(self, decoded: Decoded, *, seed: int = 0) -> Float[Tensor, "row size"]:
        """What pictures are made from: the regression head's output, or a sample of the diffusion prior."""
        if self.prior is None:
            return decoded.regressed
        return self.prior.sample(decoded.output.float(), torch.Generator().manual_seed(seed))


def _prior(shape: DecoderShape) -> "DiffusionPrior":
    from pulvinar.networks.diffusion_prior import DiffusionPrior

    sizes = {"n_layers": shape.prior_layers, "n_heads": shape.prior_heads, "head_dim": shape.prior_head_dim}
    return DiffusionPrior(dim=shape.n_tokens * shape.dim, n_tokens=shape.n_tokens, **sizes)


def drawn_like(values: Tensor, generator: torch.Generator) -> Tensor:
    """Room for random numbers of this shape where the generator can draw them, to be copied to where the values are."""
    return torch.empty_like(values, device=generator.device)


@torch.no_grad()
def _initialise_as_torch(module: nn.Module, generator: torch.Generator) -> None:
    """nn.Linear's own initial weights and biases, uniform within 1 / sqrt(fan-in), from `generator`."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            for parameter in part.parameters():
                bound = part.in_features**-0.5
                parameter.copy_(drawn_like(parameter, generator).uniform_(-bound, bound, generator=generator))
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator, *, scale: float = 1.0) -> None:
    """Fill every Linear with normal weights of standard deviation scale / sqrt(fan-in), zero biases, from `generator`.

    Norms go back to weight 1 and bias 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            spread = scale * part.in_features**-0.5
            part.weight.copy_(drawn_like(part.weight, generator).normal_(0, spread, generator=generator))
            part.bias.zero_()
        elif isinstance(part, nn.LayerNorm):
            part.reset_parameters()


def input_layer(n_voxels: int, hidden: int, generator: torch.Generator, *, scale: float) -> nn.Linear:
    """A subject's own layer, voxels -> hidden, with small random weights."""
    layer = nn.Linear(n_voxels, hidden)
    initialise(layer, generator, scale=scale)
    return layer


def decayed_and_not(parameters: Iterable[nn.Parameter]) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Matrices, which weight decay acts on, and biases and norms, which it does not."""
    every = list(parameters)
    return [p for p in every if p.ndim > 1], [p for p in every if p.ndim < 2]
