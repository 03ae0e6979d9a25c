"""A layer of features made ready for ridge, once for all folds: centred, with its products and their decomposition.

Precision: products are in the type of the features (float32 as a rule); they and the decomposition are float64 where the
smallest alpha is so far below the largest eigenvalue that float32 would not resolve the sum (`RESOLUTION`).

Reduction (ours): where few principal components are asked for, a layer is first reduced to somewhat more leading components of
all its images, and a fold's are looked for among these; responses have no part in it. A fold then decomposes component by
component products instead of image by image ones.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of

RESOLUTION = 3e-4  # smallest (eigenvalue + alpha) / largest eigenvalue that a float32 decomposition resolves to 1e-3 (ours)
REDUCED_RESOLUTION = 1e-5  # the same of the smallest eigenvalue that a reduction keeps (ours; at k components it matters less)
REDUCED_SURPLUS = 1.25  # a layer is reduced to this many times the components asked for, and REDUCED_MORE (ours)
REDUCED_MORE = 32
REDUCED_WORTH = 0.6  # share of images or features that a reduction must leave at most to be made (ours)
LARGE = 2048  # rows from which scipy is not slower than torch (at 4,000 it takes .5 to .7 of the time)
IMAGES_PER_SUM = 64  # images whose features are summed in float32
ROWS_PER_BLOCK = 1024  # images that are in float64 at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One set of features, made ready once: centred, with their products and these products' decomposition.

    features: (image, feature), centred over all images where an intercept is fitted. mean: what was subtracted (input,).
    products: X'X (feature, feature), or XX' (image, image) in the kernel form; float64 where that is needed.
    reduction: of a reduced layer, whose `features` are its leading components (image, component): R (input, component), by
    which they are XR; or, with reduction_of_images, S (image, component), by which they are XX'S. It has no kernel form.
    """

    features: Float[Tensor, "image feature"]
    mean: Float[Tensor, " input"]
    products: Float[Tensor, "row row"]
    eigenvalues: Float[Tensor, " row"]
    vectors: Float[Tensor, "row row"]
    kernel: bool
    fit_intercept: bool
    reduction: Float[Tensor, "origin component"] | None = None
    reduction_of_images: bool = False

    @property
    def n_images(self) -> int:
        """How many images."""
        return len(self.features)


def prepare(
    features: Float[Tensor, "image feature"],
    *,
    fit_intercept: bool,
    smallest_alpha: float,
    n_components: int | None = None,
) -> Layer:
    """A layer ready for any number of folds, voxels and alphas; raises `InputError` where a feature is not finite.

    n_components: how many will be asked for; the layer is reduced where that is few.
    """
    means = _means(features)
    if not bool(torch.isfinite(means).all()):
        raise InputError("features: a value is not finite")
    mean = means.to(features.dtype) if fit_intercept else features.new_zeros(features.shape[1])
    centred = features - mean if fit_intercept else features
    kernel = features.shape[1] > features.shape[0]
    n_kept = _reduced_size(min(features.shape), n_components)
    first, resolution = (1, REDUCED_RESOLUTION) if n_kept else (int(kernel and fit_intercept), RESOLUTION)
    first = (
        min(features.shape) - n_kept if n_kept else min(first, min(features.shape) - 1)
    )  # centring makes one eigenvalue null
    products = products_of(centred, kernel=kernel, dtype=features.dtype)
    values, vectors = decomposed(products)
    if features.dtype != torch.float64 and not _resolved(values[first:], smallest_alpha, resolution):
        products = products_of(centred, kernel=kernel, dtype=torch.float64)
        values, vectors = decomposed(products)
    layer = Layer(
        features=centred,
        mean=mean,
        products=products,
        eigenvalues=values,
        vectors=vectors,
        kernel=kernel,
        fit_intercept=fit_intercept,
    )
    return _reduced(layer, n_kept, smallest_alpha) if n_kept else layer


def _means(features: Tensor) -> Tensor:
    """Mean of each feature, in float64: summed in the features' own type over few images, in float64 over these sums."""
    total = features.new_zeros(features.shape[1], dtype=torch.float64)
    for rows in features.split(IMAGES_PER_SUM):
        total += rows.sum(0)
    return total / len(features)


def _reduced_size(n_rows: int, n_components: int | None) -> int:
    """To how many components a layer is reduced; 0 where it is not worth it."""
    wanted = 0 if n_components is None else round(REDUCED_SURPLUS * n_components) + REDUCED_MORE
    return wanted if wanted <= REDUCED_WORTH * n_rows else 0


def _reduced(layer: Layer, n_kept: int, smallest_alpha: float) -> Layer:
    """The layer as its leading components, in which the products of all images are diagonal."""
    dtype, values = layer.features.dtype, layer.eigenvalues[-n_kept:]
    kept = values > torch.finfo(values.dtype).eps * layer.n_images**0.5 * values[-1]  # what is less is rounding
    values, vectors = values[kept], layer.vectors[:, -n_kept:][:, kept]
    roots = values.sqrt()
    scores = vectors * roots if layer.kernel else layer.features @ vectors.to(dtype)
    exact = dtype == torch.float64 or _resolved(values, smallest_alpha, RESOLUTION)
    values = values if exact else values.double()
    return Layer(
        features=scores.to(dtype),
        mean=layer.mean,
        products=torch.diag(values),
        eigenvalues=values,
        vectors=torch.eye(len(values), dtype=values.dtype, device=values.device),
        kernel=False,
        fit_intercept=layer.fit_intercept,
        reduction=(vectors / roots if layer.kernel else vectors).to(dtype),
        reduction_of_images=layer.kernel,
    )


def products_of(centred: Tensor, *, kernel: bool, dtype: torch.dtype) -> Tensor:
    """X'X, or XX' in the kernel form, summed in this type without a copy of X in it."""
    if dtype == centred.dtype:
        rows = centred if kernel else centred.T
        if rows.device.type == "cpu":  # numpy computes one half of a symmetric product
            return torch.from_numpy(np.matmul(rows.numpy(), rows.numpy().T))
        return rows @ rows.T
    parts = centred.T if kernel else centred  # (summed over, row)
    total = centred.new_zeros(parts.shape[1], parts.shape[1], dtype=dtype)
    for block in blocks_of(len(parts), ROWS_PER_BLOCK):
        part = parts[block].to(dtype)
        total.addmm_(part.T, part)
    return total


def decomposed(products: Float[Tensor, "row row"]) -> tuple[Float[Tensor, " row"], Float[Tensor, "row row"]]:
    """Eigenvalues of a symmetric matrix, largest last, and its eigenvectors in columns."""
    if products.device.type == "cpu" and len(products) >= LARGE:  # the same LAPACK routine in scipy's build
        values, vectors = scipy.linalg.eigh(products.numpy(), driver="evd", check_finite=False)
        return torch.from_numpy(values), torch.from_numpy(vectors)
    found = torch.linalg.eigh(products)
    return found.eigenvalues, found.eigenvectors


def _resolved(values: Tensor, smallest_alpha: float, resolution: float) -> bool:
    """Whether float32 tells the smallest of these eigenvalues and alpha together from nothing."""
    return bool(values[0].clamp(min=0) + smallest_alpha >= resolution * values[-1])
