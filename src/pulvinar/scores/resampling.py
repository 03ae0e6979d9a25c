"""Permutation, bootstrap and intervals: what the scores share. Randomness comes in as a numpy Generator.

Every interval is at `LEVEL`. It is written `.68 [.63, .73]`, by `interval_text`, under a heading or in a sentence that says
"95 %" (docs/words.md); a result file says `interval_level`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.special
from jaxtyping import Float

from pulvinar.core.errors import InputError

ROWS_PER_BLOCK = 1000  # resamples held in memory at once
LEVEL = 0.95  # of every interval
NO_SPREAD = 1e-12  # scores that differ by less are the same


@dataclass(frozen=True, kw_only=True)
class PermutationNull:
    """A score beside what it is when there is nothing to find.

    mean, percentile_95: of the score over permutations. above_null: the score less that mean. p_value: one-sided,
    (b + 1) / (m + 1) with b of m permutations as high as the score or higher; never 0 (Phipson & Smyth 2010).
    """

    mean: float
    percentile_95: float
    above_null: float
    p_value: float


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Mean of a - b over the same images (and groups), its bootstrap interval, and sign-flip p-values.

    p_value_images: signs of whole images are flipped (these groups, other images). p_value_groups: signs of whole groups
    are flipped (these images, other subjects or seeds); None where there are no groups.
    """

    difference: float
    low: float
    high: float
    p_value_images: float
    p_value_groups: float | None


def permutation_null(observed: float, permuted: Float[np.ndarray, " permutation"]) -> PermutationNull:
    """The null of a score from its values under permutation: mean, 95th percentile, and p = (b + 1) / (m + 1), in (0, 1].

    b of m permuted values are at least the observed one. Higher must be better (Phipson & Smyth 2010).

    >>> permutation_null(0.9, np.linspace(0, 0.5, 99)).p_value
    0.01
    """
    if len(permuted) == 0:
        raise InputError("permutation null: at least one permutation is needed, 0 came")
    mean = float(permuted.mean())
    as_high = int((permuted >= observed - 1e-12).sum())
    return PermutationNull(
        mean=mean,
        percentile_95=float(np.percentile(permuted, 95)),
        above_null=observed - mean,
        p_value=(as_high + 1) / (len(permuted) + 1),
    )


def percentile_interval(samples: Float[np.ndarray, " resample"], *, level: float = LEVEL) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high): the (1 - level) / 2 and (1 + level) / 2 quantiles. Efron 1981.

    >>> low, high = percentile_interval(np.arange(101.0))
    >>> round(low, 6), round(high, 6)
    (2.5, 97.5)
    """
    if not 0 < level < 1:
        raise InputError(f"level: between 0 and 1, {level} came")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def wilson_interval(n_right: float | int, n: int, *, level: float = LEVEL) -> tuple[float, float]:
    """Score interval (low, high) of a share, n_right of n. Wilson 1927.

    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n), p = n_right / n, z the normal quantile of
    (1 + level) / 2. Unlike a bootstrap it has a width where all or none are right. n_right may be a fraction (ties).

    >>> low, high = wilson_interval(8, 10)
    >>> round(low, 3), round(high, 3)
    (0.49, 0.943)
    """
    if not 0 < level < 1:
        raise InputError(f"level: between 0 and 1, {level} came")
    if n < 1 or not -NO_SPREAD <= n_right <= n + NO_SPREAD * n:
        raise InputError(f"share: 0 to n right of n = 1 or more, {n_right} of {n} came")
    share = min(max(n_right / n, 0.0), 1.0)
    z = float(scipy.special.ndtri((1 + level) / 2))
    middle, scale = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * np.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    low = 0.0 if share == 0 else float((middle - half) / scale)  # not what rounding leaves of 0 and 1
    return low, 1.0 if share == 1 else float((middle + half) / scale)


def share_interval(
    values: Float[np.ndarray, "*unit"],
    resampled: Float[np.ndarray, " resample"],
    *,
    n_units: int | None = None,
    level: float = LEVEL,
) -> tuple[float, float]:
    """Interval of a share, the mean of values in [0, 1]: percentiles of its bootstrap; Wilson's where all values are the same.

    Without spread every resample is the same, and a bootstrap would have no width. n_units: how many independent units the
    values stand for (default: their number).
    """
    if np.ptp(values) > NO_SPREAD:
        return percentile_interval(resampled, level=level)
    n_units = values.size if n_units is None else n_units
    return wilson_interval(float(values.flat[0]) * n_units, n_units, level=level)


def interval_text(bounds: Sequence[float | int | None] | None, write: Callable[[float], str]) -> str:
    """An interval as it is written everywhere; empty where there is none.

    >>> interval_text((0.551, 0.67), "{:.2f}".format), interval_text(None, str)
    ('[0.55, 0.67]', '')
    """
    if bounds is None or len(bounds) != 2 or any(bound is None or not np.isfinite(bound) for bound in bounds):
        return ""
    return "[" + ", ".join(write(bound) for bound in bounds if bound is not None) + "]"


def bootstrap_shares(n_units: int, n_bootstrap: int, generator: np.random.Generator) -> Float[np.ndarray, "resample unit"]:
    """Share of each unit in resamples of n_units units with replacement; rows sum to 1. `shares @ values` are their means."""
    if n_units < 1 or n_bootstrap < 1:
        raise InputError(f"bootstrap: one unit and one resample or more are needed, {n_units} and {n_bootstrap} came")
    return generator.multinomial(n_units, np.full(n_units, 1 / n_units), size=n_bootstrap) / n_units


def sign_flip_p_value(
    differences: Float[np.ndarray, " unit"], *, generator: np.random.Generator, n_permutations: int = 10_000
) -> float:
    """Two-sided p that paired differences are symmetric about 0: |sum| against |sum| with signs flipped.

    Exact (all 2^n sign patterns) where that takes no more than `n_permutations`; otherwise Monte Carlo, (b + 1) / (m + 1).
    Never 0. Differences of exactly 0 do not change under a flip and are left out of the count of patterns.
    """
    moving = differences[differences != 0].astype(np.float64)
    n_units = len(moving)
    threshold = abs(moving.sum()) - 1e-12 * np.abs(moving).sum()
    exact = 2**n_units <= n_permutations
    n_patterns = 2**n_units if exact else n_permutations
    as_extreme = 0
    for start in range(0, n_patterns, ROWS_PER_BLOCK):
        rows = np.arange(start, min(start + ROWS_PER_BLOCK, n_patterns))
        flips = rows[:, None] >> np.arange(n_units) & 1 if exact else generator.integers(0, 2, (len(rows), n_units))
        as_extreme += int((np.abs((1 - 2 * flips) @ moving) >= threshold).sum())
    return as_extreme / n_patterns if exact else (as_extreme + 1) / (n_patterns + 1)


def paired_difference(
    scores_a: Float[np.ndarray, "*axes_a"],
    scores_b: Float[np.ndarray, "*axes_b"],
    *,
    generator: np.random.Generator,
    n_bootstrap: int = 2000,
    n_permutations: int = 10_000,
    level: float = LEVEL,
    of_shares: bool = False,
) -> PairedDifference:
    """How much better a is than b on the same test images: per-image scores (image,) or (group, image).

    Groups are subjects or seeds that saw the same images. The bootstrap draws images, and groups independently of them, with
    replacement (crossed). An image whose score is NaN anywhere (it was in no draw of the gallery) is left out.
    of_shares: scores are in [0, 1], right or wrong. Where all images then have the same difference, the bootstrap has no width,
    and the interval is the difference -+ the largest share of other images that fits it (Wilson's, n of n images).
    Raises `InputError` where the shapes differ or no image is left.

    >>> right, wrong = np.array([1.0, 1, 1, 0, 1, 1, 0, 1]), np.array([0.0, 1, 0, 0, 1, 0, 0, 1])
    >>> found = paired_difference(right, wrong, generator=np.random.default_rng(0))
    >>> found.difference, found.low >= 0
    (0.375, True)
    """
    if scores_a.shape != scores_b.shape or scores_a.ndim not in (1, 2):
        raise InputError(
            f"paired difference: (image,) or (group, image), the same for both; {scores_a.shape} and {scores_b.shape} came"
        )
    difference = np.atleast_2d(scores_a.astype(np.float64) - scores_b.astype(np.float64))
    difference = difference[:, np.isfinite(difference).all(0)]
    n_groups, n_images = difference.shape
    if n_groups == 0 or n_images == 0:
        raise InputError(f"paired difference: no image with a score in both is left of {scores_a.shape}")
    groups = bootstrap_shares(n_groups, n_bootstrap, generator)
    images = bootstrap_shares(n_images, n_bootstrap, generator)
    low, high = percentile_interval(((groups @ difference) * images).sum(1), level=level)
    if of_shares and np.ptp(difference) <= NO_SPREAD:
        others = 1 - wilson_interval(n_images, n_images, level=level)[0]
        low, high = max(-1.0, low - others), min(1.0, high + others)
    by_image, by_group = difference.mean(0), difference.mean(1)
    p_value_images = sign_flip_p_value(by_image, generator=generator, n_permutations=n_permutations)
    p_value_groups = None
    if scores_a.ndim == 2:
        p_value_groups = sign_flip_p_value(by_group, generator=generator, n_permutations=n_permutations)
    return PairedDifference(
        difference=float(difference.mean()), low=low, high=high, p_value_images=p_value_images, p_value_groups=p_value_groups
    )
