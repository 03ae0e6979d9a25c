"""How like the seen images reconstructed ones are: pixel correlation, structural similarity, identification by features.

Pictures are float (image, height, width, 3) in [0, 1], one row of `seen` for each row of `reconstructed`; resizing (425
pixels in the literature) is the caller's. Definitions of MindEye2 (Scotti et al. 2024) and of the papers beside it.

Two-way identification of reconstruction j: the share of the other images i whose features correlate less with the
reconstruction's than the features of the image that was seen do,

    s_j = 1/(n-1) sum_{i != j} [ r(seen_i, made_j) < r(seen_j, made_j) ],   chance .5.

Ours: equal correlations count half, so that a picture which is the same for every image scores exactly .5 on average (in
MindEye2's code they count as failures). A picture or feature vector without variance has no correlation: it counts as 0 (ours).
"""

import numpy as np
from jaxtyping import Float, Int, Num

from pulvinar.core.errors import InputError

VALUES_PER_BLOCK = 2**25  # float64 numbers held at once
SIDE = 425  # pixels at which the literature compares pictures


def pixel_correlation(
    reconstructed: Float[np.ndarray, "made made_height made_width 3"], seen: Float[np.ndarray, "image height width 3"]
) -> Float[np.ndarray, " image"]:
    """PixCorr: Pearson correlation over all pixels and colours of each reconstruction with its image, in [-1, 1].

    >>> seen = np.random.default_rng(0).random((2, 16, 16, 3))
    >>> pixel_correlation(1 - seen, seen).round(6).tolist()
    [-1.0, -1.0]
    """
    _require_pairs(reconstructed, seen)
    ours, theirs = _standardised(reconstructed), _standardised(seen)
    return np.einsum("rv,rv->r", ours, theirs)


def structural_similarity(
    reconstructed: Float[np.ndarray, "made made_height made_width 3"], seen: Float[np.ndarray, "image height width 3"]
) -> Float[np.ndarray, " image"]:
    """SSIM of the grey pictures (Wang et al. 2004), Gaussian weights of width 1.5 pixels, population covariance, range 1.

    scikit-image with gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1. Edges of 11 pixels and more.

    >>> seen = np.random.default_rng(0).random((2, 16, 16, 3))
    >>> structural_similarity(seen, seen).round(6).tolist()
    [1.0, 1.0]
    """
    from skimage.color import rgb2gray
    from skimage.metrics import structural_similarity as ssim

    _require_pairs(reconstructed, seen)
    if min(reconstructed.shape[1:3]) < 11:
        raise InputError(f"structural similarity: 11 x 11 pixels or more are needed, {reconstructed.shape[1:3]} came")
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(rgb2gray(reconstructed), rgb2gray(seen), strict=True)
    return np.array([ssim(ours, theirs, **options) for ours, theirs in pairs])


def correlation_table(
    seen: Num[np.ndarray, "image ..."], reconstructed: Num[np.ndarray, "made ..."]
) -> Float[np.ndarray, "image image"]:
    """Pearson correlation of each seen image's features (row) with each reconstruction's (column); 0 where one is constant.

    float64, some rows at a time. With pictures instead of features its diagonal is PixCorr.

    >>> features = np.random.default_rng(0).normal(size=(3, 8))
    >>> np.diag(correlation_table(features, features)).round(6).tolist()
    [1.0, 1.0, 1.0]
    """
    _require_pairs(reconstructed, seen)
    table = np.empty((len(seen), len(seen)))
    rows = max(1, VALUES_PER_BLOCK // max(1, seen[:1].size))
    blocks = [slice(start, start + rows) for start in range(0, len(seen), rows)]
    for of_seen in blocks:
        theirs = _standardised(seen[of_seen])
        for of_made in blocks:
            table[of_seen, of_made] = theirs @ _standardised(reconstructed[of_made]).T
    return table


def identification_table(correlations: Float[np.ndarray, "image image"]) -> Float[np.ndarray, "image image"]:
    """Entry (i, j): two-way identification of reconstruction j, were i the image that was seen; the diagonal is the score."""
    n_images = len(correlations)
    if n_images < 2:
        raise InputError(f"two-way identification: two or more images are needed, {n_images} came")
    rounded = np.round(correlations, 12)  # equal features tie in whatever order their products were summed
    table = np.empty_like(rounded)
    for column in range(n_images):
        values = rounded[:, column]
        ordered = np.sort(values)
        below, not_above = np.searchsorted(ordered, values, "left"), np.searchsorted(ordered, values, "right")
        table[:, column] = (below + (not_above - below - 1) / 2) / (n_images - 1)
    return table


def two_way_identification(correlations: Float[np.ndarray, "image image"]) -> Float[np.ndarray, " image"]:
    """Two-way identification of each reconstruction j, in [0, 1]; chance .5 (MindEye2, Scotti et al. 2024).

    s_j = 1/(n-1) sum_{i != j} [ r(seen_i, made_j) < r(seen_j, made_j) ]; equal correlations count half (ours).
    correlations: r(seen_i, made_j) in row i, column j, as `correlation_table` gives them. Raises `InputError` for one image.

    >>> two_way_identification(np.array([[0.9, 0.1], [0.3, 0.2]])).tolist()  # the first is found
    [1.0, 1.0]
    """
    return np.diag(identification_table(correlations)).copy()


def correlation_distance(
    reconstructed: Num[np.ndarray, "made ..."], seen: Num[np.ndarray, "image ..."]
) -> Float[np.ndarray, " image"]:
    """1 - Pearson correlation of each reconstruction's features with its image's, in [0, 2]; lower is better."""
    _require_pairs(reconstructed, seen)
    return 1 - np.einsum("rv,rv->r", _standardised(reconstructed), _standardised(seen))


def mismatched_means(
    table: Float[np.ndarray, "image image"], permutations: Int[np.ndarray, "permutation image"]
) -> Float[np.ndarray, " permutation"]:
    """Mean score with images permuted: reconstruction j is scored against image permutations[., j]. The null of a mean."""
    return table[permutations, np.arange(len(table))].mean(1)


def _standardised(values: np.ndarray) -> Float[np.ndarray, "row value"]:
    """Rows less their mean, of length one, float64; constant rows are zero."""
    flat = values.reshape(len(values), -1).astype(np.float64)
    if not np.isfinite(flat).all():
        raise InputError(f"pictures or features: row {int(np.argmin(np.isfinite(flat).all(1)))} has a value that is not finite")
    scale = np.abs(flat).max(1, keepdims=True)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    constant = length <= 1e-12 * scale * flat.shape[1] ** 0.5
    return np.where(constant, 0.0, flat / np.where(constant, 1.0, length))


def _require_pairs(reconstructed: np.ndarray, seen: np.ndarray) -> None:
    if reconstructed.shape != seen.shape or not len(seen):
        raise InputError(
            f"reconstructions and seen images: one or more of the same shape are needed, {reconstructed.shape} and "
            f"{seen.shape} came"
        )
