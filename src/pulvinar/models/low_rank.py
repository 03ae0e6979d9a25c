"""Low-rank updates beside frozen linear layers (LoRA, Hu et al. 2021): y = W x + a + B A x, B starting at zero.

`attach` puts them into a network, `merge` adds B A to W and leaves plain linear layers behind, so that whoever reads the
network afterwards need not know. The scale of the paper (alpha / rank) is one here; the learning rate does its work.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class LowRankLinear(nn.Module):
    """A frozen linear layer with an update of this rank beside it."""

    def __init__(self, linear: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        weight = linear.weight
        down = torch.empty(rank, linear.in_features).normal_(0, linear.in_features**-0.5, generator=generator)
        self.down = nn.Parameter(down.to(weight.device))
        self.up = nn.Parameter(torch.zeros(linear.out_features, rank, device=weight.device))

    def forward(self, x: Float[Tensor, "*row in"]) -> Float[Tensor, "*row out"]:
        """W x + a + B A x."""
        return self.linear(x) + nn.functional.linear(nn.functional.linear(x, self.down), self.up)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The linear layer with W + B A."""
        self.linear.weight.addmm_(self.up, self.down)
        return self.linear


def attach(network: nn.Module, rank: int, generator: torch.Generator) -> list[nn.Parameter]:
    """Put an update of this rank beside every linear layer (of at most its own rank); the new parameters, in order."""
    new: list[nn.Parameter] = []
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.Linear):
            layer = LowRankLinear(part, min(rank, *part.weight.shape), generator)
            _replace(network, name, layer)
            new += [layer.down, layer.up]
    return new


def merge(network: nn.Module) -> None:
    """Add every update to its layer; nothing is left of `attach` but the changed weights."""
    for name, part in list(network.named_modules()):
        if isinstance(part, LowRankLinear):
            _replace(network, name, part.merged())


def _replace(network: nn.Module, name: str, part: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, part)
