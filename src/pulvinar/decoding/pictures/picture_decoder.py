"""Embedding -> picture and voxels -> picture, small enough to be trained on the user's own images. The embedded default.

`PictureDecoder`: the picture is the linear one (embedding -> principal components of the training pixels, ridge in closed
form) plus what a convolutional part adds, which starts at zero. `LowLevelBranch`: voxels -> latents of an image autoencoder,
as MindEye2's blurry pictures (Scotti et al. 2024). The architecture of both is ours.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.decoding.pictures.image_autoencoder import PixelComponents
from pulvinar.networks.decoder import ResidualBlock, drawn_like, drop, initialise

GRID = 8  # pixels of the picture along an edge of one place in the convolutional part
SMALLEST_SIDE = 16


class PictureDecoder(nn.Module):
    """Embedding (row, dim) -> picture (row, 3, side, side) in about [0, 1]. side: a multiple of 8."""

    def __init__(self, components: PixelComponents, *, dim: int, side: int, width: int) -> None:
        super().__init__()
        self.components, self.side, self.width = components, side, width
        self.linear = nn.Linear(dim, components.n_components)
        self.spread_out = nn.Linear(dim, width * (side // GRID) ** 2)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.enlarge = nn.Conv2d(width, 4 * (width // 2), 3, padding=1)
        self.third = nn.Conv2d(width // 2 + 12, width // 2, 3, padding=1)
        self.last = nn.Conv2d(width // 2, 3 * 16, 3, padding=1)

    def forward(self, embedding: Float[Tensor, "row dim"]) -> Float[Tensor, "row 3 _ _"]:
        """The linear picture plus the convolutional part."""
        rough = self.components.decode(self.linear(embedding))
        rough = functional.interpolate(rough, (self.side // 2, self.side // 2), mode="bilinear", antialias=True)
        x = self.spread_out(embedding).reshape(len(embedding), self.width, self.side // GRID, self.side // GRID)
        x = x + self.first(functional.gelu(x))
        x = x + self.second(functional.gelu(x))
        x = functional.pixel_shuffle(self.enlarge(functional.gelu(x)), 2)  # (row, width / 2, side / 4, side / 4)
        x = self.third(functional.gelu(torch.cat([x, functional.pixel_unshuffle(rough - 0.5, 2)], dim=1)))
        detail = functional.pixel_shuffle(self.last(functional.gelu(x)), 4)
        return functional.interpolate(rough, (self.side, self.side), mode="bilinear") + detail

    @torch.no_grad()
    def initialise(
        self,
        embedding: Float[Tensor, "image dim"],
        latents: Float[Tensor, "image component"],
        generator: torch.Generator,
        *,
        ridge: float,
    ) -> None:
        """The linear part by ridge regression on training images, (E'E + ridge n I)^-1 E'Z; the rest random, ending in zero."""
        initialise(self, generator)
        for part in self.modules():
            if isinstance(part, nn.Conv2d):
                spread = part.weight[0].numel() ** -0.5
                part.weight.copy_(drawn_like(part.weight, generator).normal_(0, spread, generator=generator))
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]
        self.last.weight.zero_()
        x, z = embedding.double(), latents.double()
        centre, offset = x.mean(0), z.mean(0)
        gram = (x - centre).T @ (x - centre) + ridge * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        weight = torch.linalg.solve(gram, (x - centre).T @ (z - offset))
        self.linear.weight.copy_(weight.T)
        self.linear.bias.copy_(offset - centre @ weight)


class LowLevelBranch(nn.Module):
    """z-scored voxels (row, voxel) -> latents (row, *shape) of an image autoencoder: linear, and a residual block from zero."""

    def __init__(self, n_voxels: int, *, hidden: int, shape: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.shape, self.dropout = tuple(shape), dropout
        self.input = nn.Linear(n_voxels, hidden)
        self.block = ResidualBlock(hidden, dropout)
        self.output = nn.Linear(hidden, int(torch.tensor(self.shape).prod()))

    def forward(self, responses: Float[Tensor, "row voxel"], generator: torch.Generator | None = None) -> Tensor:
        """The latents. With a generator, dropout is on."""
        hidden = drop(self.input(drop(responses, self.dropout, generator)), self.dropout, generator)
        return self.output(self.block(hidden, generator)).reshape(len(responses), *self.shape)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator, *, scale: float) -> None:
        """Random linear maps, the input's small as in the decoder; the nonlinear part starts at zero."""
        initialise(self, generator)
        self.input.weight.mul_(scale)
        self.block.contract.weight.zero_()
