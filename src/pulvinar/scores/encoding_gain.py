"""How much better one encoding model predicts test images than another: difference of mean r, share of voxels improved.

Everything is over images: the interval resamples them, the test swaps the two models' predictions image by image (a voxel is
not an independent unit). Chance of the share is what swapping gives.
"""

from dataclasses import asdict, dataclass

import numpy as np
from jaxtyping import Float

from pulvinar.scores.encoding import correlations, standardised, weighted_correlations
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval, share_interval

VOXELS_PER_BLOCK = 2048


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A less B on the same images: mean over voxels of r_A - r_B, and the share of voxels with r_A > r_B.

    low, high: 95 % bootstrap intervals over images. p_value: one-sided, of the difference, predictions swapped image by image.
    share_improved_chance, share_improved_chance_95: mean and 95th percentile of the share under the swaps.
    """

    difference: float
    difference_low: float
    difference_high: float
    difference_p_value: float
    share_improved: float
    share_improved_low: float
    share_improved_high: float
    share_improved_chance: float
    share_improved_chance_95: float

    def row(self) -> dict[str, float]:
        """As part of a table's row."""
        return asdict(self)


def gain(
    ours: Float[np.ndarray, "image voxel"],
    other: Float[np.ndarray, "image voxel"],
    measured: Float[np.ndarray, "image voxel"],
    *,
    generator: np.random.Generator,
    n_bootstrap: int = 500,
    n_permutations: int = 500,
) -> Gain | None:
    """How much better `ours` predicts `measured` than `other` does. A prediction that does not vary counts as r = 0.

    Predictions are standardised over the images before they are swapped, so that scales do not mix. None where no voxel's
    measured responses vary. Raises `InputError` where the shapes differ or there are fewer than 3 images.
    """
    r_ours, r_other = correlations(ours, measured), correlations(other, measured)
    has = np.flatnonzero(np.isfinite(standardised(measured)[0]))
    if not len(has):
        return None
    observed = np.nan_to_num(r_ours[has]) - np.nan_to_num(r_other[has])
    shares = bootstrap_shares(len(ours), n_bootstrap, generator)
    swaps = generator.random((n_permutations, len(ours))) < 0.5
    boot, null = np.zeros((2, n_bootstrap)), np.zeros((2, n_permutations))  # sum of differences, count of improved
    for columns in np.array_split(has, -(-len(has) // VOXELS_PER_BLOCK)):
        a, b = (np.nan_to_num(standardised(values[:, columns])) for values in (ours, other))
        target = standardised(measured[:, columns])
        drawn = _difference(shares, a, b, target)
        boot += np.stack([drawn.sum(1), (drawn > 0).sum(1)])
        swapped = _swapped(swaps, a, b, target)
        null += np.stack([swapped.sum(1), (swapped > 0).sum(1)])
    boot, null = boot / len(has), null / len(has)
    low, high = percentile_interval(boot[0])
    n_units = min(len(ours), len(has))  # voxels share their images, so they count as no more than these
    share_low, share_high = share_interval(np.append(boot[1], (observed > 0).mean()), boot[1], n_units=n_units)
    return Gain(
        difference=float(observed.mean()),
        difference_low=low,
        difference_high=high,
        difference_p_value=float((1 + (null[0] >= observed.mean() - 1e-12).sum()) / (1 + n_permutations)),
        share_improved=float((observed > 0).mean()),
        share_improved_low=share_low,
        share_improved_high=share_high,
        share_improved_chance=float(null[1].mean()),
        share_improved_chance_95=float(np.percentile(null[1], 95)),
    )


def _difference(shares: np.ndarray, a: np.ndarray, b: np.ndarray, target: np.ndarray) -> np.ndarray:
    """r of a less r of b in every resample (resample, voxel); 0 where one does not vary."""
    return np.nan_to_num(weighted_correlations(shares, a, target)) - np.nan_to_num(weighted_correlations(shares, b, target))


def _swapped(swaps: np.ndarray, a: np.ndarray, b: np.ndarray, target: np.ndarray) -> np.ndarray:
    """r of a less r of b where the images in a row of `swaps` (permutation, image) have changed sides (permutation, voxel).

    With p = a where not swapped else b: sums over images of p, p^2 and p target are those of b plus swaps @ (a's less b's).
    """
    stay = (~swaps).astype(np.float64)
    n = len(target)
    found = []
    for one, two in ((a, b), (b, a)):
        mean = (two.sum(0) + stay @ (one - two)) / n
        square = ((two**2).sum(0) + stay @ (one**2 - two**2)) / n
        product = ((two * target).sum(0) + stay @ (one * target - two * target)) / n
        spread = np.sqrt(np.maximum(square - mean**2, 0) * (target**2).mean(0))
        found.append(np.nan_to_num(product / np.where(spread > 0, spread, np.nan)))
    return found[0] - found[1]
