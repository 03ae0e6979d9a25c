"""Brain -> image embedding: a linear input layer per subject, and what all subjects share.

The shared part is a residual MLP, a linear map to the embedding (the backbone's output b), a projector for retrieval
(h = H(b)) and a regression head for reconstruction (P(b)), after MindEye2 (Scotti et al. 2024) and TROI (section 2.1).

Differs from MindEye2, and why. Its 'mixer' acts on a sequence of length one, where its normalisation returns a constant and
its first block gets no gradient: voxels -> tokens is linear there. Here the MLP is a real one, but every nonlinear part
starts at zero beside a linear path (blocks, projector, head), and input layers start small. With 600 trials this is what
decides: on a planted world the same decoder from ordinary initial weights identified .23 of 300 images, so .51 (docs/log.md).
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """x + Linear(Dropout(GELU(Linear(LayerNorm(x)))))."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.expand, self.contract = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.dropout = dropout

    def forward(self, x: Float[Tensor, "row hidden"], generator: torch.Generator | None) -> Float[Tensor, "row hidden"]:
        """The formula above. With a generator, dropout is on."""
        inside = nn.functional.gelu(self.expand(self.norm(x)))
        return x + self.contract(drop(inside, self.dropout, generator))


def drop(x: Tensor, rate: float, generator: torch.Generator | None) -> Tensor:
    """Dropout whose random numbers come from `generator`; none when generator is None (evaluation)."""
    if generator is None or rate == 0:
        return x
    keep = torch.rand(x.shape, generator=generator, device=x.device) >= rate
    return x * keep / (1 - rate)


@dataclass(frozen=True)
class Decoded:
    """The three outputs, each (row, dim): backbone b, projector h (retrieval), regression c (reconstruction)."""

    backbone: Tensor
    projected: Tensor
    regressed: Tensor


class SharedDecoder(nn.Module):
    """What all subjects share: hidden (row, hidden) -> `Decoded`."""

    def __init__(self, *, hidden: int, dim: int, n_blocks: int, dropout: float) -> None:
        super().__init__()
        self.hidden, self.dropout = hidden, dropout
        blocks = [ResidualBlock(hidden, dropout) for _ in range(n_blocks)]
        self.blocks = nn.ModuleList(blocks)
        self.output = nn.Linear(hidden, dim)
        last = nn.Linear(hidden, dim)
        self.projector = nn.Sequential(
            *[nn.LayerNorm(dim), nn.GELU(), nn.Linear(dim, hidden)],
            *[nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, hidden)],
            *[nn.LayerNorm(hidden), nn.GELU(), last],
        )
        self.start_at_zero = [last.weight, *[block.contract.weight for block in blocks]]
        self.regression = nn.Linear(dim, dim)

    def forward(self, hidden: Float[Tensor, "row hidden"], generator: torch.Generator | None = None) -> Decoded:
        """b, h = b + H(b) and P(b). With a generator, dropout is on."""
        x = drop(hidden, self.dropout, generator)
        for block in self.blocks:
            x = block(x, generator)
        backbone = self.output(x)
        return Decoded(backbone, backbone + self.projector(backbone), self.regression(backbone))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Random linear maps; nonlinear parts start at zero and the regression head at the identity."""
        initialise(self, generator)
        for weight in self.start_at_zero:
            weight.zero_()
        nn.init.eye_(self.regression.weight)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator, *, scale: float = 1.0) -> None:
    """Fill every Linear with normal weights of standard deviation scale / sqrt(fan-in), zero biases, from `generator`.

    Norms go back to weight 1 and bias 0.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear):
            part.weight.normal_(0, scale * part.in_features**-0.5, generator=generator)
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
