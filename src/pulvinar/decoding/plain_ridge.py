"""The plain rival of every decoder: ridge regression from voxels to the embedding of the images.

Outputs are linear in the training targets, so the weights of the training images in each output are found once, however wide
the embedding is. The penalty is one for all dims: the one that identifies best. Each training image is left out in turn and
its embedding predicted from the others; these predictions and the true embeddings are ranked by cosine in both directions, as
evaluation ranks those of test images, and the mean log rank (1 is first) is least. Where penalties tie in it, as all do with
targets of one dim, the squared error of left-out images is least.

Leaving out is closed form: with H(a) y what ridge with penalty a, intercept and all, predicts of its own images, image i left
out is predicted as ((H y)_i - H_ii y_i) / (1 - H_ii) (Allen 1974), for all penalties from one eigendecomposition, on as many
columns with the same inner products as there are images.

Ours: the log, so that an image far down does not outweigh one near the top; what is left out and identified is the mean of an
image's trials; images of a cosine above .95 are not in each other's gallery, whatever an evaluation is set to; of more than
2,000 images 1,000, drawn with a fixed seed, are left out and identified among each other.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pulvinar.core.errors import DegenerateError
from pulvinar.data.responses import mean_over_repeats
from pulvinar.decoding.data import Trials

# In units of the mean squared singular value of the training responses; our choice of range.
ALPHAS = tuple(10.0 ** np.arange(-3, 4.5, 0.5))
DIMS_PER_BLOCK = 8192
CRITERION = "identification"  # by which the penalty is chosen; another rule needs another name: predictions are kept under it
NEAR_DUPLICATE = 0.95  # cosine; an evaluation's default
SHORTEST = 1e-6  # of the longest embedding; what is shorter has no direction
MOST_IDENTIFIED, N_IDENTIFIED = 2000, 1000  # images


def ridge_outputs(
    train: Trials, voxels: Sequence[int] | np.ndarray, shown: Float[Tensor, "trial voxel"]
) -> Float[Tensor, "trial dim"]:
    """Predicted embedding, in the units of the target, of each trial shown, from ridge on these voxels (indices) of `train`.

    Trials of an image are averaged, and count by their number. The intercept is not penalised. Raises `DegenerateError` where
    the responses are the same to every image.
    """
    x, _, counts = mean_over_repeats(train.responses[:, torch.as_tensor(voxels)].numpy(), train.stimulus_ids)
    first = np.unique(np.asarray(train.stimulus_ids), return_index=True)[1]
    targets = train.target[torch.from_numpy(np.sort(first))]  # in order of first appearance, as the means
    ridge = _Ridge.of(x.astype(np.float64), counts.astype(np.float64))
    alpha = best_alpha(ridge, targets, [alpha * ridge.unit for alpha in ALPHAS])
    return torch.from_numpy(ridge.shares_of(shown.numpy(), alpha).astype(np.float32)) @ targets


@dataclass(frozen=True, kw_only=True, eq=False)
class _Ridge:
    """Ridge on these images with every penalty: an output is shares @ targets, and no share depends on the targets.

    With left the centred responses in a basis of eigenvectors: shares(a) = share + left @ diag(1 / (values + a)) @ right.T.
    counts, share: trials of each image, and its part of all trials. unit: mean squared singular value of the responses.
    """

    mean: Float[np.ndarray, " voxel"]
    basis: Float[np.ndarray, "voxel component"]
    values: Float[np.ndarray, " component"]
    left: Float[np.ndarray, "image component"]
    right: Float[np.ndarray, "image component"]
    counts: Float[np.ndarray, " image"]
    unit: float

    @classmethod
    def of(cls, x: Float[np.ndarray, "image voxel"], counts: Float[np.ndarray, " image"]) -> "_Ridge":
        mean, roots = counts @ x / counts.sum(), np.sqrt(counts)[:, None]
        centred = x - mean
        weighted = centred * roots
        unit = float(np.square(weighted).sum()) / min(weighted.shape)
        if not 0 < unit < np.inf:
            raise DegenerateError(f"ridge: responses of {x.shape[1]} voxels to {len(x)} training images; they do not vary")
        wide = x.shape[1] > len(x)
        values, vectors = np.linalg.eigh(weighted @ weighted.T if wide else weighted.T @ weighted)
        basis = weighted.T @ vectors if wide else vectors
        left = centred @ basis
        right = vectors * roots if wide else left * counts[:, None]
        return cls(
            mean=mean, basis=basis, values=np.maximum(values, 0), left=left, right=right, counts=counts, unit=unit
        )  # eigenvalues of a matrix without negative ones may be below zero by rounding

    @property
    def share(self) -> Float[np.ndarray, " image"]:
        return self.counts / self.counts.sum()

    def shares_of(self, shown: Float[np.ndarray, "trial voxel"], alpha: float) -> Float[np.ndarray, "trial image"]:
        """Weight of each training image in each output."""
        return self.share + (shown.astype(np.float64) - self.mean) @ self.basis / (self.values + alpha) @ self.right.T

    def left_out(
        self, images: Int[np.ndarray, " asked"], targets: Float[np.ndarray, "image column"], alphas: Sequence[float]
    ) -> Iterator[np.ndarray]:
        """Of each penalty, what is predicted of these images (asked, column) when they are left out one at a time."""
        mean, weighted, own = self.share @ targets, self.right.T @ targets, self.left[images] * self.right[images]
        for alpha in alphas:
            scale = 1 / (self.values + alpha)
            itself = (self.share[images] + own @ scale)[:, None]
            fitted = mean + (self.left[images] * scale) @ weighted
            yield (fitted - itself * targets[images]) / (1 - itself)


def best_alpha(ridge: _Ridge, targets: Float[Tensor, "image dim"], alphas: Sequence[float]) -> float:
    """The penalty with the least mean log rank of left-out images; of those that tie, the one of least squared error."""
    scores = left_out_scores(ridge, targets, alphas)
    least = min(score for score, _ in scores)
    return min((error, alpha) for alpha, (score, error) in zip(alphas, scores, strict=True) if score <= least + 1e-9)[1]


def left_out_scores(ridge: _Ridge, targets: Float[Tensor, "image dim"], alphas: Sequence[float]) -> list[tuple[float, float]]:
    """Of each penalty the mean log rank of left-out images over both directions, and their squared error by trials.

    An image is alone in its gallery, and so first, where all others are near-duplicates or dims are one. Images without a
    direction (length zero) are in no gallery and not asked for.
    """
    columns = _narrow(targets)
    asked, length = np.arange(len(columns)), np.linalg.norm(columns, axis=1)
    if len(asked) > MOST_IDENTIFIED and targets.shape[1] > 1:
        asked = np.sort(np.random.default_rng(0).permutation(asked)[:N_IDENTIFIED])
    true, known = columns[asked], np.flatnonzero(length[asked] > SHORTEST * length.max())
    unit = true[known] / length[asked][known, None]
    gallery = unit @ unit.T <= NEAR_DUPLICATE if targets.shape[1] > 1 else np.zeros((len(known), len(known)), bool)
    np.fill_diagonal(gallery, False)
    scores = []
    for predicted in ridge.left_out(asked, columns, alphas):
        error = float(ridge.counts[asked] @ np.square(predicted - true).sum(1))
        reached = np.linalg.norm(predicted[known], axis=1, keepdims=True)
        cosines = predicted[known] @ unit.T / np.maximum(reached, np.finfo(float).tiny)
        logs = [np.log(_ranks(similarity, gallery)).sum() for similarity in (cosines, cosines.T)]
        scores.append((float(sum(logs)) / (2 * len(asked)), error))
    return scores


def _ranks(
    similarity: Float[np.ndarray, "query candidate"], gallery: Bool[np.ndarray, "query candidate"]
) -> Float[np.ndarray, " query"]:
    """Of the right candidate, that of the query's own row; 1 is first, a tie counts half a place."""
    right = similarity.diagonal()[:, None]
    return 1 + ((similarity > right) & gallery).sum(1) + ((similarity == right) & gallery).sum(1) / 2


def _narrow(targets: Float[Tensor, "image dim"]) -> Float[np.ndarray, "image column"]:
    """Columns with the inner products of the targets; no more of them than images."""
    if targets.shape[1] <= len(targets):
        return targets.double().numpy()
    gram = torch.zeros(len(targets), len(targets), dtype=torch.float64)
    for block in targets.split(DIMS_PER_BLOCK, dim=1):
        gram += block.double() @ block.double().T
    values, vectors = np.linalg.eigh(gram.numpy())
    return vectors * np.sqrt(np.maximum(values, 0.0))
