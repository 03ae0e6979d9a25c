"""Projector and predictor of self-supervised networks: multilayer perceptrons with batch-norm."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.networks.batch_norm import BatchNorm


class Head(nn.Module):
    """Linear, batch-norm, ReLU, ..., Linear: (image, in) -> (image, out).

    widths: input, hidden ..., output. last_norm: the output has a batch-norm too, without weights (SimSiam's projector).
    Hidden layers have no bias (batch-norm takes it away); the output has one unless it is normalised.
    """

    def __init__(self, widths: Sequence[int], *, last_norm: bool = False) -> None:
        super().__init__()
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            [
                nn.Linear(inputs, outputs, bias=number == last and not last_norm)
                for number, (inputs, outputs) in enumerate(pairwise(widths))
            ]
        )
        norms: list[nn.Module] = [BatchNorm(width) for width in widths[1:-1]]
        norms.append(BatchNorm(widths[-1], affine=False) if last_norm else nn.Identity())
        self.norms = nn.ModuleList(norms)

    def initialise(self, generator: torch.Generator) -> "Head":
        """Weights and biases uniform in +-1/sqrt(inputs), torch's default."""
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                bound = layer.in_features**-0.5
                nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
                if layer.bias is not None:
                    nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        for norm in self.norms:
            if isinstance(norm, BatchNorm):
                norm.reset_parameters()
        return self

    def forward(self, rows: Float[Tensor, "image input"]) -> Float[Tensor, "image output"]:
        """The embedding."""
        for number, (layer, norm) in enumerate(zip(self.layers, self.norms, strict=True)):
            rows = norm(layer(rows))
            if number + 1 < len(self.layers):
                rows = torch.relu(rows)
        return rows
