"""Banded ridge: one penalty per layer and voxel, found by himalaya's random search over shares of the layers.

    prediction = sum_k g_k X_k X_k' a,  shares g on the simplex and alpha chosen per voxel by cross-validation
Dupre la Tour, Eickenberg, Nunez-Elizalde & Gallant 2022 (Feature-space selection with banded ridge regression), kernel form.
With an intercept, features and responses are centred on the training images of each fold: with one layer the scores, alphas and
predictions are those of `pulvinar.linear.ridge`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from pulvinar.core.errors import MissingDependencyError


@contextlib.contextmanager
def himalaya_backend(name: str = "numpy") -> Iterator[Any]:
    """himalaya with this backend; the one that was set before comes back at the end (it is global there)."""
    try:
        from himalaya import backend
    except ImportError as error:
        raise MissingDependencyError(
            "banded ridge is himalaya's: it needs the library himalaya; pip install 'pulvinar[encoding]'"
        ) from error
    before = backend.get_backend()
    try:
        yield backend.set_backend(name)
    finally:
        backend.set_backend(before)


@dataclass(frozen=True, kw_only=True, eq=False)
class BandedRidge:
    """A banded fit: predictions are `sum_k (x_k - mean_k) axes_k weights_k + intercept`.

    means: of each layer's features. axes: (feature, image), the centred training images of a layer with more features than
    images; None, and weights (feature, voxel) of the features themselves, of one with fewer: there the dual weights are
    differences of large numbers that float32 would not hold. shares: of the layers (layer, voxel), summing to 1. alphas:
    (voxel,). cv_scores: minus the mean squared error over folds (voxel,).
    """

    means: Sequence[Float[np.ndarray, " _"]]
    axes: Sequence[Float[np.ndarray, "_ image"] | None]
    weights: Sequence[Float[np.ndarray, "_ voxel"]]
    shares: Float[np.ndarray, "layer voxel"]
    intercept: Float[np.ndarray, " voxel"]
    alphas: Float[np.ndarray, " voxel"]
    cv_scores: Float[np.ndarray, " voxel"]

    def predict(self, layers: Sequence[Float[np.ndarray, "new_image _"]]) -> Float[np.ndarray, "new_image voxel"]:
        """Predicted responses to new images."""
        total = np.broadcast_to(self.intercept, (len(layers[0]), len(self.intercept))).astype(self.intercept.dtype)
        for values, mean, axes, weights in zip(layers, self.means, self.axes, self.weights, strict=True):
            rows = values - mean
            total += (rows if axes is None else rows @ axes) @ weights
        return total

    def coefficients(self) -> list[Float[np.ndarray, "_ voxel"]]:
        """Weights of each layer's features."""
        return [values if axes is None else axes @ values for axes, values in zip(self.axes, self.weights, strict=True)]


def fit_banded(
    layers: Sequence[Float[np.ndarray, "image _"]],
    responses: Float[np.ndarray, "image voxel"],
    alphas: Float[np.ndarray, " alpha"],
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    fit_intercept: bool,
    n_draws: int,
    voxels_per_block: int,
    seed: int,
) -> BandedRidge:
    """Banded ridge by random search over `n_draws` Dirichlet draws of shares (the first is equal shares).

    folds: training and held-out images of each. Layers are scaled to kernels of equal mean diagonal (over all these images)
    before the search, so that equal shares mean equal parts; `scales` undo that. A layer that does not
    vary (where no intercept is fitted: of zeros) has the share 0. Voxels are searched in units of their spread,
    in float64: himalaya gives an alpha that rounding makes unusable the score -1e5, which must be the worst there is.
    """
    with himalaya_backend():
        from himalaya.kernel_ridge import solve_multiple_kernel_ridge_random_search

        means = [values.mean(0) if fit_intercept else np.zeros(values.shape[1], values.dtype) for values in layers]
        centred = [values - means[place] for place, values in enumerate(layers)]
        kernels = np.stack([values @ values.T for values in (part.astype(np.float64) for part in centred)])
        varies = np.array([np.ptp(part, axis=0).any() if fit_intercept else part.any() for part in centred])
        varies |= not varies.any()
        size = np.maximum(np.trace(kernels, axis1=1, axis2=2) / len(responses), np.finfo(np.float32).tiny)
        size[~varies] = np.inf  # so that a layer that says nothing has no share
        spread = responses.std(0, dtype=np.float64)
        spread = np.where(spread > 0, spread, 1.0)
        deltas, dual, scores, *offset = solve_multiple_kernel_ridge_random_search(
            kernels / size[:, None, None],
            (responses - (responses.mean(0) if fit_intercept else 0)) / spread,
            n_iter=n_draws if len(layers) > 1 else np.ones((1, 1)),
            alphas=alphas / size[varies].mean(),
            cv=folds,
            fit_intercept=fit_intercept,
            return_weights="dual",
            progress_bar=False,
            random_state=seed,
            n_targets_batch=voxels_per_block,
            n_targets_batch_refit=voxels_per_block,
        )
    scales = np.exp(np.asarray(deltas)) / size[:, None]  # share / alpha of the kernels as they are
    dtype, alphas_found = responses.dtype, 1 / scales.sum(0)
    intercept = responses.mean(0) + np.asarray(offset[0]) * spread if fit_intercept else np.zeros(len(spread))
    found = [_layer_weights(values, np.asarray(dual) * spread * scales[place]) for place, values in enumerate(centred)]
    return BandedRidge(
        means=means,
        axes=[axes for axes, _ in found],
        weights=[weights.astype(dtype) for _, weights in found],
        shares=(scales * alphas_found).astype(dtype),
        intercept=intercept.astype(dtype),
        alphas=alphas_found.astype(dtype),
        cv_scores=np.asarray(scores).max(0) * spread**2,
    )


def _layer_weights(centred: np.ndarray, dual: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """Axes and weights of a layer (see `BandedRidge`) from its dual weights (image, voxel), float64."""
    if centred.shape[1] > centred.shape[0]:
        return centred.T, dual
    return None, centred.T @ dual  # in float64, the type of the dual weights
