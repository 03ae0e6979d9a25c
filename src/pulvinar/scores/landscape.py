"""Models as points of a plane by what they predict: Bhattacharyya dissimilarity and intensive principal components.

    D(u, v) = -(1/N) sum_n log sum_c sqrt(p_u(c | n) p_v(c | n)),      W = -1/2 L D L,   L = 1 - 1/M

(Quinn et al. 2019, visualizing probabilistic models with InPCA; Mao et al. 2024). Components are the eigenvectors of W in
order of |eigenvalue|. D is no squared Euclidean distance, so some eigenvalues are negative: along those components models that
differ come *nearer*. They are kept and marked, never dropped.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import logsumexp

from pulvinar.core.errors import InputError

ROUNDING = 1e-10  # eigenvalues below this share of the largest are rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Landscape:
    """Coordinates of the models, component by component in order of |eigenvalue|.

    negative: components whose square counts against the dissimilarity:
    D(u, v) = sum_k sign_k (x_uk - x_vk)^2, sign_k = -1 there. share: |eigenvalue| as a share of their sum.
    """

    coordinates: Float[np.ndarray, "model component"]
    eigenvalues: Float[np.ndarray, " component"]
    negative: Bool[np.ndarray, " component"]
    share: Float[np.ndarray, " component"]


def bhattacharyya(log_probabilities: Float[np.ndarray, "model image n_classes"]) -> Float[np.ndarray, "model model"]:
    """D(u, v) in nats, symmetric, 0 on the diagonal and only between equal predictions, infinite where nothing overlaps.

    log_probabilities: of the classes, per model and image; `InputError` where an image's do not sum to 1 (to 1e-4).
    """
    given = log_probabilities.astype(np.float64)
    total = logsumexp(given, axis=2)
    if not (np.abs(total) < 1e-4).all():
        model, image = (int(place) for place in np.argwhere(~(np.abs(total) < 1e-4))[0])
        raise InputError(
            f"log_probabilities: those of model {model}, image {image} sum to {np.exp(total[model, image]):.4g}; 1 is needed"
        )
    half = given / 2 - total[..., None] / 2
    found = np.zeros((len(half), len(half)))
    for row in range(len(half)):
        for column in range(row):
            distance = -logsumexp(half[row] + half[column], axis=1).mean()
            found[row, column] = found[column, row] = max(0.0, float(distance))
    return found


def intensive_components(dissimilarity: Float[np.ndarray, "model other"]) -> Landscape:
    """InPCA of a dissimilarity (see the module). The sign of a component is free: its largest coordinate is positive.

    Raises `InputError` for a matrix that is not square, symmetric and finite with a diagonal of 0, or of fewer than 3 models.
    """
    given = dissimilarity.astype(np.float64)
    if given.shape != (len(given), len(given)) or len(given) < 3:
        raise InputError(f"dissimilarity: square, of 3 models or more, is needed; {given.shape} came")
    if not np.isfinite(given).all():
        raise InputError("dissimilarity: infinite or NaN; two models share no class that both hold possible")
    if not np.allclose(given, given.T) or not np.allclose(np.diagonal(given), 0):
        raise InputError("dissimilarity: symmetric with a diagonal of 0 is needed")
    centring = np.eye(len(given)) - 1 / len(given)
    values, vectors = np.linalg.eigh(-centring @ given @ centring / 2)
    order = np.argsort(-np.abs(values), kind="stable")
    values, vectors = values[order], vectors[:, order]
    kept = np.abs(values) > ROUNDING * np.abs(values).max()
    values, vectors = values[kept], vectors[:, kept]
    largest = vectors[np.abs(vectors).argmax(0), np.arange(len(values))]
    sizes = np.abs(values)
    return Landscape(
        coordinates=vectors * np.sqrt(sizes) * np.sign(largest),
        eigenvalues=values,
        negative=values < 0,
        share=sizes / sizes.sum(),
    )
