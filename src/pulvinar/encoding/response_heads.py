"""What stands between a network and brains while it is tuned, and the loss there: a contrastive head, and a linear one.

Both take (image features, responses, subject) and give the two sides that their loss compares, (image, dim) each. Contrastive
head (Mulrooney & Brockmeier 2024): a linear map without bias from the network's output, and one from each subject's voxels, to
`hidden`; then one perceptron for both sides, Linear-BN-ReLU-Linear-BN-ReLU-Linear. Its batch-norms keep statistics (and scales)
for each side (ours: shared running statistics would be those of neither side, so that held-out images could not be scored).
"""

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.learning.contrastive import info_nce
from pulvinar.learning.precision import precise
from pulvinar.learning.processes import mean_over_processes
from pulvinar.networks.batch_norm import BatchNorm

HIDDEN_SHARE, OUTPUT_SHARE, POOLED_OUTPUT_SHARE = 0.8, 0.2, 0.25  # of the voxels; pooled: of `hidden`
FEWEST, MOST = 16, 1024  # dimensions, where the paper's shares of very small or large ROIs are of no use (ours)
COLDEST = 0.01  # a learnt temperature is not below (as in CLIP)


def head_widths(n_voxels: Mapping[str, int], *, hidden: int | None, output: int | None) -> tuple[int, int]:
    """(hidden, output): .8 and .2 of the voxels; pooled: the mean number of voxels, and a quarter of that (the paper's).

    Between 16 and 1024 (ours). What is given is taken as it is.
    """
    mean = sum(n_voxels.values()) / len(n_voxels)
    own = hidden or _bounded(mean * (HIDDEN_SHARE if len(n_voxels) == 1 else 1.0))
    return own, output or _bounded(mean * OUTPUT_SHARE if len(n_voxels) == 1 else own * POOLED_OUTPUT_SHARE)


def _bounded(width: float) -> int:
    return max(FEWEST, min(MOST, int(width)))


class _Perceptron(nn.Module):
    """Linear, batch-norm, ReLU, twice, and Linear; a batch-norm for each side, everything else shared."""

    def __init__(self, hidden: int, output: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(hidden, width, bias=False) for width in (hidden, hidden, output)])
        self.norms = nn.ModuleDict({side: nn.ModuleList([BatchNorm(hidden), BatchNorm(hidden)]) for side in ("image", "brain")})

    def forward(self, rows: Tensor, side: str) -> Tensor:
        norms: nn.ModuleList = self.norms[side]  # type: ignore[assignment]
        for layer, norm in zip(self.layers, norms, strict=False):
            rows = torch.relu(norm(layer(rows)))
        return self.layers[-1](rows)


class ContrastiveHead(nn.Module):
    """Image features and responses -> embeddings to compare by their cosine; see the module.

    temperature: of the similarities; a parameter where `learn_temperature`. symmetric: of the loss (`info_nce`).
    """

    chance_is = "log(batch)"

    def __init__(
        self,
        n_features: int,
        n_voxels: Mapping[str, int],
        *,
        hidden: int | None = None,
        output: int | None = None,
        temperature: float = 0.3,
        learn_temperature: bool = False,
        symmetric: bool = False,
    ) -> None:
        super().__init__()
        self.symmetric = symmetric
        width, dim = head_widths(n_voxels, hidden=hidden, output=output)
        self.image = nn.Linear(n_features, width, bias=False)
        self.place = {name: place for place, name in enumerate(n_voxels)}
        self.brains = nn.ModuleList([nn.Linear(n, width, bias=False) for n in n_voxels.values()])
        self.perceptron = _Perceptron(width, dim)
        self.log_temperature = nn.Parameter(torch.tensor(temperature).log(), requires_grad=learn_temperature)

    @property
    def temperature(self) -> Float[Tensor, ""]:
        """What similarities are divided by."""
        return self.log_temperature.exp().clamp(min=COLDEST)

    def forward(
        self, features: Float[Tensor, "image feature"], responses: Float[Tensor, "image voxel"], subject: str
    ) -> tuple[Float[Tensor, "image dim"], Float[Tensor, "image dim"]]:
        """(embedding of the images, embedding of the responses)."""
        images = self.perceptron(self.image(features), "image")
        return images, self.perceptron(self.brains[self.place[subject]](responses), "brain")

    def loss(self, ours: Float[Tensor, "image dim"], theirs: Float[Tensor, "image dim"]) -> Float[Tensor, ""]:
        """InfoNCE: each image has to find its response among those of the batch (of all processes, in each of which it is)."""
        return info_nce(ours, theirs, temperature=mean_over_processes(self.temperature), symmetric=self.symmetric)

    def chance(self, n_images: int, responses: Tensor) -> float:
        """The loss of a model that knows nothing, on a batch of so many images."""
        return math.log(n_images)


class RegressionHead(nn.Module):
    """Image features -> predicted responses of a subject: one linear map each (the paper's baseline: output -> V)."""

    chance_is = "mean"

    def __init__(self, n_features: int, n_voxels: Mapping[str, int]) -> None:
        super().__init__()
        self.place = {name: place for place, name in enumerate(n_voxels)}
        self.brains = nn.ModuleList([nn.Linear(n_features, n) for n in n_voxels.values()])

    def forward(
        self, features: Float[Tensor, "image feature"], responses: Float[Tensor, "image voxel"], subject: str
    ) -> tuple[Float[Tensor, "image voxel"], Float[Tensor, "image voxel"]]:
        """(predicted responses, the responses themselves)."""
        return self.brains[self.place[subject]](features), responses

    def loss(self, ours: Float[Tensor, "image voxel"], theirs: Float[Tensor, "image voxel"]) -> Float[Tensor, ""]:
        """Mean squared error."""
        return functional.mse_loss(precise(ours), precise(theirs))

    def chance(self, n_images: int, responses: Tensor) -> float:
        """The loss of predicting zeros, the mean of z-scored responses."""
        return float(responses.square().mean())
