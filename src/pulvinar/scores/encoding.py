"""Scores of encoding models: predicted against measured responses (image, voxel), per voxel and for regions.

A voxel whose measured responses do not vary has no correlation: NaN, left out of means and counted. One that is predicted as a
constant has none either, but in means and tests counts as r = 0 (`scored_correlations`, ours): a model that says nothing where
it knows nothing must not gain by that.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval

VOXELS_PER_BLOCK = 2048
ZERO_CEILING = 1e-14  # what replaces a ceiling of 0 in the Algonauts 2023 score
LEAST_SPREAD = 1e-6  # of a voxel, as a share of its largest value: less is rounding


@dataclass(frozen=True, kw_only=True, eq=False)
class Ceiling:
    """Noise ceiling of each voxel as a share of variance in [0, 1], and where it is from; None, with the reason, if unknown."""

    r2: Float[np.ndarray, " voxel"] | None
    source: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class PermutationTest:
    """Correlations against those with the images permuted (the same permutations for all voxels).

    p_values: one-sided, (b + 1) / (m + 1), per voxel; NaN without a correlation. mean_r: of the mean over voxels, one per
    permutation: the null of a region.
    """

    p_values: Float[np.ndarray, " voxel"]
    mean_r: Float[np.ndarray, " permutation"]


def standardised(values: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and length 1, float64; NaN where a column does not vary."""
    block = values.astype(np.float64)
    least = LEAST_SPREAD * np.abs(block).max(0) * np.sqrt(len(block))
    block -= block.mean(0)
    length = np.linalg.norm(block, axis=0)
    return block / np.where(length > least, length, np.nan)


def varying(values: Float[np.ndarray, "image voxel"]) -> Bool[np.ndarray, " voxel"]:
    """Whether each column varies by more than rounding; what does not has no correlation and no R^2."""
    columns = blocks_of(values.shape[1], VOXELS_PER_BLOCK)
    return np.concatenate([np.isfinite(standardised(values[:, block])[0]) for block in columns])


def correlations(
    predicted: Float[np.ndarray, "image voxel"], measured: Float[np.ndarray, "image voxel"]
) -> Float[np.ndarray, " voxel"]:
    """Pearson r of every voxel over images, in [-1, 1]; NaN where predicted or measured responses do not vary.

    Raises `InputError` for fewer than 3 images.

    >>> measured = np.array([[0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])  # 3 images, 2 voxels
    >>> correlations(2 * measured + 5, measured).round(6).tolist()
    [1.0, 1.0]
    """
    _require_pairs(predicted, measured)
    out = np.empty(predicted.shape[1])
    for columns in blocks_of(predicted.shape[1], VOXELS_PER_BLOCK):
        out[columns] = (standardised(predicted[:, columns]) * standardised(measured[:, columns])).sum(0)
    return np.clip(out, -1.0, 1.0)


def scored_correlations(
    predicted: Float[np.ndarray, "image voxel"], measured: Float[np.ndarray, "image voxel"]
) -> Float[np.ndarray, " voxel"]:
    """`correlations` with 0 where the prediction does not vary; NaN only where the measured responses do not."""
    return np.where(varying(measured), np.nan_to_num(correlations(predicted, measured)), np.nan)


def _require_pairs(predicted: np.ndarray, measured: np.ndarray) -> None:
    if predicted.shape != measured.shape:
        raise InputError(f"predicted and measured responses differ in shape: {predicted.shape} and {measured.shape}")
    if len(predicted) < 3:
        raise InputError(f"a correlation over images needs 3 or more, {len(predicted)} came")


def explained_variance(
    predicted: Float[np.ndarray, "image voxel"], measured: Float[np.ndarray, "image voxel"]
) -> Float[np.ndarray, " voxel"]:
    """R^2 = 1 - sum (y - yhat)^2 / sum (y - mean y)^2 of every voxel, at most 1, negative where the mean is better; NaN where
    measured responses do not vary.

    >>> measured = np.array([[0.0], [1.0], [2.0]])
    >>> explained_variance(measured + 1, measured).round(6).tolist()
    [-0.5]
    """
    _require_pairs(predicted, measured)
    out = np.empty(predicted.shape[1])
    for columns in blocks_of(predicted.shape[1], VOXELS_PER_BLOCK):
        block = measured[:, columns].astype(np.float64)
        residual = ((block - predicted[:, columns]) ** 2).sum(0)
        total = ((block - block.mean(0)) ** 2).sum(0)
        out[columns] = 1 - residual / np.where(varying(block), total, np.nan)
    return out


def unique_variance(
    joint: Float[np.ndarray, " voxel"], without: Float[np.ndarray, " voxel"]
) -> Float[np.ndarray, " voxel"]:  # fmt: skip
    """Variance that features explain beyond others: R^2 of both together less R^2 of the others alone (variance partitioning).

    Both on the same held-out images. A prediction that is worse than the mean explains nothing: its R^2 counts as 0 (ours), so
    that a poor baseline does not lend its failure to the features.

    >>> unique_variance(np.array([0.30, 0.30]), np.array([0.25, -0.10])).round(6).tolist()
    [0.05, 0.3]
    """
    return np.maximum(joint, 0.0) - np.maximum(without, 0.0)


def algonauts_2023(
    r: Float[np.ndarray, " vertex"], ceiling: Float[np.ndarray, " ceiling_vertex"]
) -> Float[np.ndarray, " vertex"]:  # fmt: skip
    """Noise-normalised score of each vertex in [0, 100], as the Algonauts Project 2023 defines it (Gifford et al. 2023).

    min(100, 100 max(r, 0)^2 / NC), with NC = 0 replaced by 1e-14; the challenge's score is the mean over vertices.
    NaN where r is. ceiling: NC, a share of variance in [0, 1]; raises `InputError` above 1 or below 0.

    >>> algonauts_2023(np.array([0.3, -0.2, 0.9]), np.array([0.36, 0.36, 0.36])).round(6).tolist()
    [25.0, 0.0, 100.0]
    """
    if len(ceiling) != len(r):
        raise InputError(f"noise ceilings: {len(ceiling)} came for {len(r)} voxels")
    bad = ~((ceiling >= 0) & (ceiling <= 1))
    if bad.any():
        raise InputError(
            f"noise ceilings: {int(bad.sum())} are outside [0, 1], the first {ceiling[bad][0]:g} (voxel {int(np.argmax(bad))});"
            " a share of variance is needed (divide percent by 100)"
        )
    limits = np.where(ceiling == 0, ZERO_CEILING, ceiling.astype(np.float64))
    return np.minimum(100.0, 100.0 * np.maximum(r.astype(np.float64), 0.0) ** 2 / limits)


def ceiling_from_repeats(
    trials: Float[np.ndarray, "trial voxel"],
    stimulus_ids: np.ndarray,
    scored_repeats: Int[np.ndarray, " image"],
    *,
    minimum_repeated_stimuli: int = 20,
) -> Ceiling:
    """Ceiling of the mean responses that are scored, from trials z-scored within their session (Allen et al. 2022).

    scored_repeats: trials averaged for each scored image. None with the reason where too few stimuli have repeats.

    >>> rng = np.random.default_rng(0)
    >>> ids = np.repeat(np.arange(40), 3)
    >>> trials = np.repeat(rng.normal(size=(40, 1)), 3, axis=0) + rng.normal(size=(120, 1))  # as much noise as signal
    >>> found = ceiling_from_repeats(trials, ids, np.full(40, 3))
    >>> found.r2.round(2).tolist(), found.source
    ([0.61], 'repeats of 40 stimuli (80 degrees of freedom)')
    """
    found = signal_to_noise(trials, stimulus_ids, minimum_repeated_stimuli=minimum_repeated_stimuli)
    if found.ncsnr is None:
        return Ceiling(r2=None, reason=found.reason)
    words = f"repeats of {found.n_repeated_stimuli} stimuli ({found.degrees_of_freedom} degrees of freedom)"
    return Ceiling(r2=ceiling_r2(found.ncsnr, scored_repeats), source=words)


def mean_or_none(values: Float[np.ndarray, " voxel"]) -> float | None:
    """Mean over the voxels that have a value; None where none has."""
    finite = np.isfinite(values)
    return float(values[finite].mean()) if finite.any() else None


def share_improved(r: Float[np.ndarray, " voxel"], baseline: Float[np.ndarray, " voxel"]) -> float | None:
    """Share of voxels that are predicted better than by the baseline, of those with a correlation by the features.

    A voxel that only the baseline cannot predict (NaN) counts with a baseline of 0. None where there is no voxel.
    """
    has = np.isfinite(r)
    if not has.any():
        return None
    return float((r[has] > np.nan_to_num(baseline[has])).mean())


def permutation_test(
    predicted: Float[np.ndarray, "image voxel"],
    measured: Float[np.ndarray, "image voxel"],
    *,
    generator: np.random.Generator,
    n_permutations: int = 1000,
) -> PermutationTest:
    """Whether each voxel's r is above what permuted images give; predictions are permuted, the model is not refitted.

    p of a voxel is (b + 1) / (m + 1), one-sided, in (0, 1]; the same permutations for all voxels. A constant prediction has r =
    0, hence p = 1.

    >>> rng = np.random.default_rng(0)
    >>> measured = rng.normal(size=(30, 2))
    >>> permutation_test(measured, measured, generator=rng, n_permutations=99).p_values.tolist()
    [0.01, 0.01]
    """
    _require_pairs(predicted, measured)
    if n_permutations < 1:
        raise InputError(f"n_permutations: 1 or more is needed, {n_permutations} came")
    n_images, n_voxels = predicted.shape
    orders = generator.permuted(np.tile(np.arange(n_images), (n_permutations, 1)), axis=1)
    p_values, total, n_finite = np.empty(n_voxels), np.zeros(n_permutations), 0
    for columns in blocks_of(n_voxels, VOXELS_PER_BLOCK):
        ours = np.nan_to_num(standardised(predicted[:, columns])).astype(np.float32)
        theirs = standardised(measured[:, columns]).astype(np.float32)
        observed = np.einsum("iv,iv->v", ours, theirs)
        finite = np.isfinite(observed)
        as_high = np.ones(len(observed))
        for number, order in enumerate(orders):
            permuted = np.einsum("iv,iv->v", ours[order], theirs)
            as_high += permuted >= observed - 1e-7
            total[number] += permuted[finite].sum()
        p_values[columns] = np.where(finite, as_high / (n_permutations + 1), np.nan)
        n_finite += int(finite.sum())
    return PermutationTest(p_values=p_values, mean_r=total / max(1, n_finite))


def false_discovery_rate(p_values: Float[np.ndarray, " voxel"]) -> Float[np.ndarray, " voxel"]:
    """q of each voxel: the smallest false discovery rate at which it is found (Benjamini & Hochberg 1995); NaN stays NaN.

    >>> false_discovery_rate(np.array([0.01, 0.04, 0.5])).round(6).tolist()
    [0.03, 0.06, 0.5]
    """
    q_values = np.full(len(p_values), np.nan)
    has = np.flatnonzero(np.isfinite(p_values))
    if not len(has):
        return q_values
    order = has[np.argsort(p_values[has])]
    scaled = p_values[order] * len(has) / np.arange(1, len(has) + 1)
    q_values[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return q_values


def mean_r_interval(
    predicted: Float[np.ndarray, "image voxel"],
    measured: Float[np.ndarray, "image voxel"],
    *,
    generator: np.random.Generator,
    n_bootstrap: int = 500,
    level: float = 0.95,
) -> tuple[float, float]:
    """Percentile interval of the mean r over voxels, from a bootstrap over images. (nan, nan) without a voxel that varies.

    A constant prediction counts as r = 0.
    """
    _require_pairs(predicted, measured)
    has = varying(measured)
    if not has.any():
        return np.nan, np.nan
    shares = bootstrap_shares(len(predicted), n_bootstrap, generator)
    total = np.zeros(n_bootstrap)
    for columns in np.array_split(np.flatnonzero(has), max(1, has.sum() // VOXELS_PER_BLOCK)):
        ours, theirs = np.nan_to_num(standardised(predicted[:, columns])), standardised(measured[:, columns])
        total += np.nan_to_num(weighted_correlations(shares, ours, theirs)).sum(1)
    return percentile_interval(total / has.sum(), level=level)


def weighted_correlations(
    shares: Float[np.ndarray, "resample image"], x: Float[np.ndarray, "image voxel"], y: Float[np.ndarray, "image voxel"]
) -> Float[np.ndarray, "resample voxel"]:
    """Pearson r of every voxel in every resample, images weighted by their shares; NaN where one does not vary."""
    mean_x, mean_y = shares @ x, shares @ y
    products, squares = shares @ (x * y) - mean_x * mean_y, (shares @ x**2 - mean_x**2) * (shares @ y**2 - mean_y**2)
    return products / np.sqrt(np.where(squares > 0, squares, np.nan))
