"""Representational dissimilarity matrices (RDMs) from patterns, and the bookkeeping of their pairs.

A condensed RDM holds the upper triangle without the diagonal, in row order: (0, 1), (0, 2), ..., (1, 2), ... (as rsatoolbox,
and scipy's squareform). All functions take any leading axes, keep gradients, and leave autocast, so that a half-precision
training loop does not round the products.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError, MissingDependencyError

ROWS_PER_PRODUCT = 128  # conditions per matrix product; the lower triangle of the other blocks is never computed


def correlation_rdm(patterns: Float[Tensor, "*batch condition feature"]) -> Float[Tensor, "*batch pair"]:
    """Correlation distance of every pair of rows, condensed.

    d_ij = 1 - r(x_i, x_j), in [0, 2]. Kriegeskorte et al. 2008. In the precision that comes in (half precision: float32); the
    absolute error is then a few 1e-7 in float32, also where patterns share a large offset, since rows are centred twice.
    Raises `DegenerateError` naming a row without variance, `InputError` for one that is not finite or a single feature.

    >>> patterns = torch.tensor([[0.0, 1.0, 2.0], [0.0, 2.0, 4.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    >>> correlation_rdm(patterns).round(decimals=6).abs().tolist()
    [0.0, 2.0, 2.0]
    """
    if patterns.shape[-1] < 2:
        raise InputError(f"correlation RDM: 2 features or more are needed, {patterns.shape[-1]} came")
    with torch.autocast(patterns.device.type, enabled=False):
        units = _unit_rows(_full_precision(patterns), "correlation RDM")
        return 1 - _products_of_pairs(units)


def squared_euclidean_rdm(patterns: Float[Tensor, "*batch condition feature"]) -> Float[Tensor, "*batch pair"]:
    """Squared Euclidean distance of every pair of rows per feature, condensed.

    d_ij = |x_i - x_j|^2 / n_features, as rsatoolbox. From inner products of patterns less their mean over conditions, in
    float64 inside, because |x_i|^2 + |x_j|^2 - 2 x_i.x_j loses the digits of near pairs. Not negative.

    >>> squared_euclidean_rdm(torch.tensor([[0.0, 0.0], [2.0, 2.0]])).tolist()
    [4.0]
    """
    _check_finite(patterns, "Euclidean RDM")
    with torch.autocast(patterns.device.type, enabled=False):
        values = patterns.double()
        values = values - values.mean(dim=-2, keepdim=True)
        squares = values.square().sum(-1)
        first, second = pair_rows(values.shape[-2], values.device)
        distances = squares[..., first] + squares[..., second] - 2 * _products_of_pairs(values)
        return (distances.clamp(min=0) / patterns.shape[-1]).to(_full_precision(patterns).dtype)


def euclidean_rdm(patterns: Float[Tensor, "*batch condition feature"]) -> Float[Tensor, "*batch pair"]:
    """Root of `squared_euclidean_rdm`: the root mean square difference of every pair of rows. (rsatoolbox has the square.)

    >>> euclidean_rdm(torch.tensor([[0.0, 0.0], [2.0, 2.0]])).tolist()
    [2.0]
    """
    return squared_euclidean_rdm(patterns).sqrt()


def squared_mahalanobis_rdm(
    patterns: Float[Tensor, "condition feature"], precision: Float[Tensor, "feature feature"]
) -> Float[Tensor, " pair"]:
    """(x_i - x_j) P (x_i - x_j)' / n_features for every pair of rows, condensed, by rsatoolbox.

    precision: P, the inverse noise covariance. rsatoolbox estimates it from residuals
    (`rsatoolbox.data.noise.prec_from_residuals`). float64 inside.

    >>> squared_mahalanobis_rdm(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.diag(torch.tensor([3.0, 1.0])))
    tensor([6.])
    """
    _check_finite(patterns, "Mahalanobis RDM")
    _check_precision(precision, patterns.shape[-1])
    toolbox = _rsatoolbox()
    dataset = toolbox.data.Dataset(patterns.detach().cpu().double().numpy())
    rdms = toolbox.rdm.calc_rdm(dataset, method="mahalanobis", noise=precision.detach().cpu().double().numpy())
    return torch.from_numpy(rdms.get_vectors()[0]).to(patterns)


def crossnobis_rdm(
    patterns: Float[Tensor, "observation feature"],
    conditions: Sequence[Any] | Shaped[np.ndarray, " observation"],
    folds: Sequence[Any] | Shaped[np.ndarray, " observation"],
    precision: Float[Tensor, "feature feature"] | None = None,
) -> Float[Tensor, " pair"]:
    """Cross-validated squared Mahalanobis distance of every pair of conditions, condensed.

    d_ij = k_ii + k_jj - 2 k_ij, k_ij the mean of x P y' / n_features over all observations x of i and y of j that lie in
    different folds; unbiased (0 on average where two conditions are equal, so single values can be negative). Where every fold
    has every condition as often, that is the mean over folds of (x_i - x_j) P (y_i - y_j)', y of the other folds (Walther et
    al. 2016); elsewhere rsatoolbox's `calc_rdm_unbalanced`. There an offset that all patterns of a fold share does not cancel:
    take the folds' means off first. Conditions come out in sorted order (`numpy.unique`); each is needed in two folds or more.
    precision: inverse noise covariance; the identity by default. float64 inside.

    >>> patterns = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 0.0], [4.0, 0.0]])  # (2 x 4 + 0 x 0) / 2 features
    >>> crossnobis_rdm(patterns, ["face", "house", "face", "house"], [1, 1, 2, 2])
    tensor([4.])
    """
    _check_finite(patterns, "crossnobis RDM")
    names, parts = np.asarray(conditions), np.asarray(folds)
    if len(names) != len(patterns) or len(parts) != len(patterns):
        raise InputError(f"crossnobis RDM: {len(patterns)} observations, but {len(names)} conditions and {len(parts)} folds")
    (present, code), fold = np.unique(names, return_inverse=True), np.unique(parts, return_inverse=True)[1].reshape(-1)
    code = code.reshape(-1)
    if fold.max() == 0:
        raise InputError("crossnobis RDM: 2 folds or more are needed, 1 came")
    n_folds = np.bincount(np.unique(np.stack([code, fold]), axis=1)[0])
    if n_folds.min() < 2:
        raise InputError(f"crossnobis RDM: condition {present[n_folds.argmin()]} lies in one fold only; each needs two or more")
    if precision is not None:
        _check_precision(precision, patterns.shape[-1])
    with torch.autocast(patterns.device.type, enabled=False):
        values = patterns.detach().double()
        whitened = values if precision is None else values @ precision.detach().to(values)
        kernel = _products_across_folds(values, whitened, torch.from_numpy(code).to(values.device), fold)
        own, (first, second) = kernel.diagonal(), pair_rows(len(present), values.device)
        return ((own[first] + own[second] - 2 * kernel[first, second]) / patterns.shape[-1]).to(patterns.dtype)


def _products_across_folds(values: Tensor, whitened: Tensor, code: Tensor, fold: np.ndarray) -> Tensor:
    """k (condition, condition): mean inner product of observations in different folds; all pairs less those of one fold."""
    sums, others, counts = _sums(values, whitened, code)
    products, pairs = sums @ others.mT, torch.outer(counts, counts)
    for number in np.unique(fold):
        inside = torch.from_numpy(np.flatnonzero(fold == number)).to(values.device)
        present, own = torch.unique(code[inside], return_inverse=True)
        sums, others, counts = _sums(values[inside], whitened[inside], own)
        products[present[:, None], present] -= sums @ others.mT
        pairs[present[:, None], present] -= torch.outer(counts, counts)
    return products / pairs


def _sums(values: Tensor, whitened: Tensor, code: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sums of both over the observations of each condition, and how many they are."""
    counts = torch.bincount(code).to(values.dtype)
    empty = values.new_zeros(len(counts), values.shape[-1])
    return empty.index_add(0, code, values), empty.index_add(0, code, whitened), counts


def condense(square: Float[Tensor, "*batch image image"]) -> Float[Tensor, "*batch pair"]:
    """The upper triangle of square RDMs (…, image, image) by rows: pairs (0, 1), (0, 2), …, (1, 2), …, as scipy's squareform.

    >>> condense(torch.tensor([[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]])).tolist()
    [1.0, 2.0, 3.0]
    """
    first, second = pair_rows(square.shape[-1], square.device)
    return square[..., first, second]


def expand(condensed: Float[Tensor, "*batch pair"]) -> Float[Tensor, "*batch image image"]:
    """Square, symmetric RDMs with a zero diagonal, from condensed ones (…, pair).

    Raises `InputError` for a number of pairs that no number of images has.

    >>> expand(torch.tensor([1.0, 2.0, 3.0])).tolist()
    [[0.0, 1.0, 2.0], [1.0, 0.0, 3.0], [2.0, 3.0, 0.0]]
    """
    n_images = count_images(condensed.shape[-1])
    first, second = pair_rows(n_images, condensed.device)
    square = condensed.new_zeros(*condensed.shape[:-1], n_images, n_images)
    square[..., first, second] = condensed
    square[..., second, first] = condensed
    return square


def count_images(n_pairs: int) -> int:
    """Images of a condensed RDM; `InputError` where the number of pairs is not n (n - 1) / 2.

    >>> count_images(4186)
    92
    """
    n_images = round((1 + (1 + 8 * n_pairs) ** 0.5) / 2)
    if n_images < 2 or n_images * (n_images - 1) // 2 != n_pairs:
        raise InputError(f"condensed RDM: n (n - 1) / 2 pairs are needed for n images, {n_pairs} came")
    return n_images


def pair_rows(n_images: int, device: torch.device | None = None) -> tuple[Int[Tensor, " pair"], Int[Tensor, " pair"]]:
    """First and second image of every pair, in condensed order."""
    first, second = torch.triu_indices(n_images, n_images, offset=1, device=device)
    return first, second


def pair_index(first: Int[Tensor, "*pairs"], second: Int[Tensor, "*pairs"], n_images: int) -> Int[Tensor, "*pairs"]:
    """Place in a condensed RDM of the pairs of two different images, in either order."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return low * n_images - low * (low + 1) // 2 + high - low - 1


def pairs_among(images: Int[Tensor, " chosen"], n_images: int) -> Int[Tensor, " pair"]:
    """Places in a condensed RDM over n_images of the pairs whose images are both among `images` (rows, each once)."""
    first, second = pair_rows(len(images), images.device)
    return pair_index(images[first], images[second], n_images)


def pairs_between(images: Int[Tensor, " chosen"], others: Int[Tensor, " other"], n_images: int) -> Int[Tensor, " pair"]:
    """Places in a condensed RDM of the pairs with one image in each of two sets that share none."""
    if torch.isin(images, others).any():
        raise InputError("pairs between two sets of images: an image stands in both")
    return pair_index(images[:, None].expand(-1, len(others)), others.expand(len(images), -1), n_images).flatten()


def _products_of_pairs(rows: Tensor) -> Tensor:
    """Inner product of every pair of rows, condensed; large blocks of the lower triangle are never computed."""
    n_rows = rows.shape[-2]
    if n_rows > ROWS_PER_PRODUCT and rows.device.type == "cpu" and not (rows.requires_grad and torch.is_grad_enabled()):
        return _products_by_blas(rows)
    pieces = []
    for start in range(0, n_rows, ROWS_PER_PRODUCT):
        block = rows[..., start : start + ROWS_PER_PRODUCT, :] @ rows[..., start:, :].mT
        first, second = torch.triu_indices(block.shape[-2], block.shape[-1], offset=1, device=rows.device)
        pieces.append(block[..., first, second])
    return torch.cat(pieces, dim=-1)


def _products_by_blas(rows: Tensor) -> Tensor:
    """The same without gradient by BLAS's symmetric product, half of the multiplications (1.3 times the blocks, measured)."""
    n_rows, n_features = rows.shape[-2:]
    product = scipy.linalg.blas.dsyrk if rows.dtype == torch.float64 else scipy.linalg.blas.ssyrk
    first, second = pair_rows(n_rows)
    upper = first * n_rows + second
    matrices = rows.detach().reshape(-1, n_rows, n_features).contiguous().numpy()
    condensed = [torch.from_numpy(product(1.0, matrix.T, trans=1, lower=1).T).view(-1)[upper] for matrix in matrices]
    return torch.stack(condensed).reshape(*rows.shape[:-2], -1)


def _unit_rows(patterns: Tensor, name: str) -> Tensor:
    """Rows less their mean, of length 1."""
    mean = patterns.mean(dim=-1, keepdim=True)
    centred = patterns - mean
    centred -= centred.mean(dim=-1, keepdim=True)  # what rounding of the first mean left
    length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    _check_lengths(length.detach()[..., 0], mean.detach()[..., 0], patterns.shape[-1], name)
    return centred / length if centred.requires_grad else centred.div_(length)


def _check_lengths(length: Tensor, mean: Tensor, n_features: int, name: str) -> None:
    wrong = torch.nonzero(~torch.isfinite(length))
    if len(wrong):
        raise InputError(f"{name}: pattern {_place(wrong[0])} is not finite")
    smallest = 4 * torch.finfo(length.dtype).eps * n_features**0.5 * mean.abs()
    flat = torch.nonzero(length <= smallest)
    if len(flat):
        raise DegenerateError(f"{name}: pattern {_place(flat[0])} has no variance over its {n_features} features")


def _check_finite(patterns: Tensor, name: str) -> None:
    wrong = torch.nonzero(~torch.isfinite(patterns.detach()).all(-1))
    if len(wrong):
        raise InputError(f"{name}: pattern {_place(wrong[0])} is not finite")


def _check_precision(precision: Tensor, n_features: int) -> None:
    if precision.shape != (n_features, n_features) or not torch.allclose(precision, precision.mT, rtol=1e-4, atol=1e-8):
        raise InputError(f"precision: a symmetric ({n_features}, {n_features}) matrix is needed, {tuple(precision.shape)} came")


def _place(index: Tensor) -> int | tuple[int, ...]:
    place = tuple(index.tolist())
    return place[0] if len(place) == 1 else place


def _full_precision(patterns: Tensor) -> Tensor:
    return patterns.float() if patterns.dtype in (torch.float16, torch.bfloat16) else patterns


def _rsatoolbox() -> Any:
    """The library, imported when it is first needed."""
    try:
        import rsatoolbox
    except ImportError as error:
        raise MissingDependencyError("Mahalanobis RDMs need rsatoolbox: pip install 'pulvinar[rsa]'") from error
    return rsatoolbox
