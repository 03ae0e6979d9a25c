"""How much a predictor of responses knows about the images, in nats: the InfoNCE bound on held-out images.

    I(image; response) >= log K - InfoNCE,   InfoNCE = -mean_i log softmax_j(s_ij / temperature)_i

(van den Oord et al. 2018; Poole et al. 2019), s_ij the similarity of image i with response j among K images. It is a lower
bound for any fixed similarity and can never exceed log K: where it comes near log K, more images are needed to say more.
The temperature is refit on one half of the images and the bound is read off the other half, both ways (ours: refitting on the
scored images would be optimistic).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval, permutation_null

COLDEST, HOTTEST = 1e-3, 1e3  # of the inverse temperature, in units of one over the spread of the similarities (ours)


@dataclass(frozen=True, kw_only=True)
class InformationBound:
    """Lower bound in nats, with a bootstrap interval over images, beside its largest possible value and its null.

    n_candidates: K, images in one softmax. temperature: geometric mean of the refit ones. null_mean, null_percentile_95,
    p_value: with the responses given to other images, through the same refit.
    """

    nats: float
    low: float
    high: float
    largest: float
    n_candidates: int
    n_images: int
    temperature: float
    null_mean: float
    null_percentile_95: float
    p_value: float


def cosine_similarity(
    images: Float[np.ndarray, "image dim"], responses: Float[np.ndarray, "image dim"]
) -> Float[np.ndarray, "image image"]:
    """Cosine of every row of `images` with every row of `responses`, in [-1, 1]; a row of zeros raises `DegenerateError`."""
    parts = []
    for name, values in (("images", images), ("responses", responses)):
        length = np.linalg.norm(values.astype(np.float64), axis=1, keepdims=True)
        if not (length > 0).all() or not np.isfinite(length).all():
            raise DegenerateError(f"similarity: row {int(np.argmin(np.nan_to_num(length[:, 0])))} of {name} has no direction")
        parts.append(values / length)
    return parts[0] @ parts[1].T


def info_nce(scores: Float[np.ndarray, "image image"]) -> Float[np.ndarray, " image"]:
    """Loss of each image in nats: -log softmax of its row at its own response; log K where the similarities say nothing.

    >>> info_nce(np.zeros((4, 4))).round(6).tolist()  # log 4
    [1.386294, 1.386294, 1.386294, 1.386294]
    """
    return logsumexp(scores, axis=1) - np.diagonal(scores)


def refit_inverse_temperature(scores: Float[np.ndarray, "image image"]) -> float:
    """1 / temperature of the smallest mean InfoNCE; convex in it, searched between 1e-3 and 1e3 over the scores' spread."""
    spread = float(scores.std())
    if not spread > 0:
        return 0.0
    grid = np.logspace(np.log10(COLDEST), np.log10(HOTTEST), 13)
    losses = [info_nce(scores * (step / spread)).mean() for step in grid]
    best = int(np.argmin(losses))
    low, high = np.log(grid[max(best - 1, 0)]), np.log(grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(
        lambda power: info_nce(scores * (np.exp(power) / spread)).mean(), bounds=(low, high), method="bounded"
    )
    return float(np.exp(found.x) / spread)


def information_bound(
    similarity: Float[np.ndarray, "image response"],
    *,
    generator: np.random.Generator,
    n_candidates: int | None = None,
    n_repeats: int = 4,
    n_permutations: int = 100,
    n_bootstrap: int = 2000,
    level: float = 0.95,
) -> InformationBound:
    """Lower bound of the information about the images: log K - InfoNCE in nats, on images that no temperature was fit on.

    It can be at most log K (`largest`), and is below 0 where the similarity says nothing (van den Oord et al. 2018; Poole et
    al. 2019). similarity: of image i (row) with response j (column), row i belongs to column i; any similarity that was learnt
    on other images. n_candidates: K; None: half of the images, the most there can be. n_repeats: random halves that are
    averaged (the null takes one). The interval counts an image both as what is asked for and as a candidate of the others.
    Raises `InputError` for a matrix that is not square or finite, or fewer than 8 images.

    >>> rng = np.random.default_rng(0)
    >>> found = information_bound(2 * np.eye(40) + rng.normal(size=(40, 40)), generator=rng)
    >>> 0 < found.low < found.nats < found.high < found.largest
    True
    """
    n_images = len(similarity)
    if similarity.shape != (n_images, n_images) or n_images < 8:
        raise InputError(f"similarity: square, of 8 images or more, is needed; {similarity.shape} came")
    if not np.isfinite(similarity).all():
        raise InputError("similarity: NaN or infinite values came")
    largest = n_images // 2
    size = largest if n_candidates is None else n_candidates
    if not 2 <= size <= largest:
        raise InputError(f"n_candidates: 2 to {largest} fit {n_images} images (half of them set the temperature), {size} came")
    scores = similarity.astype(np.float64)
    values, temperatures = _repeated(scores, size, n_repeats, generator)
    nats = float(np.nanmean(values[0]))
    influence = values[1][np.isfinite(values[1])]
    shares = bootstrap_shares(len(influence), n_bootstrap, generator)
    low, high = percentile_interval(shares @ influence, level=level)
    null = np.empty(n_permutations)
    for number in range(n_permutations):
        order = generator.permutation(n_images)
        null[number] = np.nanmean(_repeated(scores[:, order], size, 1, generator)[0][0])
    against = permutation_null(nats, null)
    with np.errstate(divide="ignore"):
        temperature = float(np.exp(-np.mean(np.log(temperatures)))) if min(temperatures) > 0 else float("inf")
    return InformationBound(
        nats=nats,
        low=low,
        high=min(high, float(np.log(size))),
        largest=float(np.log(size)),
        n_candidates=size,
        n_images=n_images,
        temperature=temperature,
        null_mean=against.mean,
        null_percentile_95=against.percentile_95,
        p_value=against.p_value,
    )


def _repeated(
    scores: Float[np.ndarray, "image image"], size: int, n_repeats: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "2 image"], list[float]]:
    """Per image the bound and its influence on the mean bound, averaged over repeats; and the inverse temperatures."""
    total, count, inverse = np.zeros((2, len(scores))), np.zeros(len(scores)), []
    for _ in range(n_repeats):
        order = generator.permutation(len(scores))
        halves = np.array_split(order, 2)
        for fit, scored in (halves, halves[::-1]):
            inverse.append(refit_inverse_temperature(_groups(scores, fit, size)[0]))
            for rows, block in zip(_rows(scored, size), _groups(scores, scored, size), strict=True):
                losses = info_nce(block * inverse[-1])
                asked = np.exp(block * inverse[-1] - logsumexp(block * inverse[-1], axis=1, keepdims=True)).sum(0)
                total[:, rows] += np.log(size) - losses, np.log(size) - losses - (asked - 1)
                count[rows] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, total / count, np.nan), inverse


def _rows(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """As many groups of `size` images as there are; the rest is left out."""
    return [rows[start : start + size] for start in range(0, len(rows) - size + 1, size)]


def _groups(scores: np.ndarray, rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [scores[np.ix_(group, group)] for group in _rows(rows, size)]
