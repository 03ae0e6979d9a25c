"""Is a model RDM related to measured ones, how sure are we, and is one model better than another: over images and subjects.

Null: the images of the model are permuted, rows and columns together. Ranks of a permuted RDM are the permuted ranks, so
Spearman, Pearson and cosine rank once and take one matrix product; Kendall, the whitened methods, and any score on a subset of
pairs compare anew (a subset changes its members under permutation, so its ranks change too).
Bootstrap: images and subjects are drawn with replacement, independently (crossed). A pair of images a, b stands c_a c_b times
in a resample with counts c; pairs of an image with itself are left out. So a resample is a weighting of the pairs: they are
sorted once, and each resample re-ranks by a cumulative sum of weights (Spearman), or takes weighted moments (Pearson, cosine).
Intervals and tests of differences tell what holds for other images and other subjects. Drawing both at once counts the
measurement noise of a pair three times, so the variance is put together from draws of images alone, of subjects alone, and of
both, as in Schütt et al. 2023 (eLife) and rsatoolbox. It still errs on the wide side (docs/rsa.md has how much).
Everything here runs on the processor, without gradients.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.special
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import track
from pulvinar.scores.rdm import count_images, pair_index, pair_rows
from pulvinar.scores.rdm_ceiling import subject_scores
from pulvinar.scores.rdm_comparison import check_method, compare, tie_bounds, unit_vectors
from pulvinar.scores.resampling import (
    PermutationNull,
    bootstrap_shares,
    permutation_null,
    sign_flip_p_value,
)

RANKED_ONCE = ("spearman", "pearson", "cosine")  # permuting the images permutes their unit vectors; a weighted form exists
ENTRIES_PER_BLOCK = 2**19  # float64 numbers held at once per array: 4 MiB (64 MiB is 2 to 3 times slower, measured)
FEWEST_IMAGES = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreOfRDM:
    """Similarity of one RDM with those of subjects.

    r: mean over subjects, signed. r2: mean of squares, positive by chance alone. subject_r: of each subject.
    null_r, null_r2: images permuted. r_interval, r2_interval: bootstrap over images and subjects (images alone where there is
    one subject), see `bootstrap_interval`; None for the methods that have no weighted form (tau-a, tau-b, whitened).
    """

    r: float
    r2: float
    null_r: PermutationNull
    null_r2: PermutationNull
    r_interval: tuple[float, float] | None
    r2_interval: tuple[float, float] | None
    subject_r: np.ndarray
    n_subjects: int
    n_images: int
    n_pairs: int


@dataclass(frozen=True, kw_only=True)
class ModelDifference:
    """How much better model a is than model b: of r (or of r2), with the bootstrap interval over images and subjects.

    p_value: two-sided t-test on the bootstrap's standard error (other images, other subjects).
    p_value_subjects: signs of subjects flipped (these images, other subjects); None for one subject.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_value_subjects: float | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ResampledScores:
    """Scores in resamples of both images and subjects, of images alone, of subjects alone: (resample, model) or (resample,)."""

    both: np.ndarray
    images: np.ndarray
    subjects: np.ndarray
    n_images: int
    n_subjects: int

    def of_model(self, model: int) -> "ResampledScores":
        """Those of one model."""
        return self._with(lambda scores: scores[:, model])

    def of_difference(self, first: int, second: int) -> "ResampledScores":
        """Scores of one model less those of another."""
        return self._with(lambda scores: scores[:, first] - scores[:, second])

    def _with(self, change: Callable[[np.ndarray], np.ndarray]) -> "ResampledScores":
        return replace(self, both=change(self.both), images=change(self.images), subjects=change(self.subjects))


def score_rdm(
    predicted: Float[Tensor, " pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    **settings: Any,
) -> ScoreOfRDM:
    """Score, null and interval of one RDM: `score_rdms` of a single model, which has the settings."""
    return score_rdms(predicted[None], measured, generator=generator, **settings)[0]


def score_rdms(
    predicted: Float[Tensor, "model pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    method: str = "spearman",
    pairs: Int[Tensor, " scored"] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    level: float = 0.95,
) -> list[ScoreOfRDM]:
    """Score, null and interval of each model; all see the same resamples. pairs: places that are scored; all by default."""
    return score_and_compare(
        predicted,
        measured,
        generator=generator,
        method=method,
        pairs=pairs,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
        level=level,
        compared=False,
    )[0]


def score_and_compare(
    predicted: Float[Tensor, "model pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    method: str = "spearman",
    pairs: Int[Tensor, " scored"] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    level: float = 0.95,
    compared: bool = True,
) -> tuple[list[ScoreOfRDM], list[ModelDifference]]:
    """`score_rdms`, and how much better the first model is than each other one, from the same draws: what a table needs.

    Each is what `score_rdm` and `model_difference` give with a generator in the state in which this one came. No differences
    with compared=False, and for methods that have no weighted form.
    """
    predicted, measured = predicted.detach().cpu(), measured.detach().cpu()
    scored = slice(None) if pairs is None else pairs
    resampled = None
    differences: list[ModelDifference] = []
    if method in RANKED_ONCE:
        resampled = bootstrap_scores(
            predicted, measured, generator=generator, method=method, pairs=pairs, n_bootstrap=n_bootstrap
        )
    rho = [subject_scores(model[scored], measured[..., scored], method=method) for model in predicted]
    if resampled and compared:
        differences = [
            _difference(rho[0] - other, resampled[0].of_difference(0, place), copy.deepcopy(generator), level)
            for place, other in enumerate(rho[1:], start=1)
        ]
    nulls = image_permutation_nulls(
        predicted, measured, generator=generator, method=method, pairs=pairs, n_permutations=n_permutations
    )
    found = []
    for row, (by_subject, (null_r, null_r2)) in enumerate(zip(rho, nulls, strict=True)):
        r, r2 = float(by_subject.mean()), float(by_subject.square().mean())
        found.append(
            ScoreOfRDM(
                r=r,
                r2=r2,
                null_r=null_r,
                null_r2=null_r2,
                r_interval=bootstrap_interval(r, resampled[0].of_model(row), level=level) if resampled else None,
                r2_interval=bootstrap_interval(r2, resampled[1].of_model(row), level=level) if resampled else None,
                subject_r=by_subject.numpy(),
                n_subjects=len(measured),
                n_images=count_images(predicted.shape[-1]),
                n_pairs=measured[..., scored].shape[-1],
            )
        )
    return found, differences


def image_permutation_null(
    predicted: Float[Tensor, " pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    **settings: Any,
) -> tuple[PermutationNull, PermutationNull]:
    """Null of r and null of r2 of one model: `image_permutation_nulls`, which has the settings."""
    return image_permutation_nulls(predicted[None], measured, generator=generator, **settings)[0]


def image_permutation_nulls(
    predicted: Float[Tensor, "model pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    method: str = "spearman",
    pairs: Int[Tensor, " scored"] | None = None,
    n_permutations: int = 1000,
) -> list[tuple[PermutationNull, PermutationNull]]:
    """Null of r and null of r2 when the images of a model are permuted: mean, 95th percentile, one-sided p. All models see the
    same permutations.

    With `pairs`, the images of the measured RDMs are permuted instead (the same distribution), so that `predicted` is needed on
    those pairs only; where these have missing pairs (NaN) those of the models are, and where both have, each permutation is
    scored on the pairs that then both have.
    """
    n_images = _check(predicted, measured, method)
    predicted, measured = predicted.detach().cpu(), measured.detach().cpu()
    scored = slice(None) if pairs is None else pairs
    n_columns = predicted.shape[-1] if pairs is None else len(pairs)
    rows = measured.numel() // measured.shape[-1]
    first, second = (images[scored] for images in pair_rows(n_images))
    ranked_once = pairs is None and method in RANKED_ONCE
    n_block = max(1, ENTRIES_PER_BLOCK // (n_columns * (len(predicted) if ranked_once else rows)))
    starts = range(0, n_permutations, n_block)
    score = _scorer(predicted, measured, pairs, method)
    permuted = [np.zeros((len(predicted), 0, len(measured)))]
    for start in track(starts, "permutations of images", len(starts)):
        count = min(n_block, n_permutations - start)
        orders = torch.from_numpy(generator.permuted(np.tile(np.arange(n_images), (count, 1)), axis=1))
        scores = score(pair_index(orders[:, first], orders[:, second], n_images))
        permuted.append((scores.flatten(3).mean(3) if scores.ndim > 3 else scores).numpy())
    found = []
    for model, by_subject in zip(predicted, np.concatenate(permuted, axis=1), strict=True):  # permutation subject
        observed = subject_scores(model[scored], measured[..., scored], method=method)
        null_r = permutation_null(float(observed.mean()), by_subject.mean(1))
        found.append((null_r, permutation_null(float(observed.square().mean()), np.square(by_subject).mean(1))))
    return found


def _scorer(predicted: Tensor, measured: Tensor, pairs: Tensor | None, method: str) -> Callable[[Tensor], Tensor]:
    """What gives (model, permutation, subject, ...) similarities for places (permutation, pair) of the permuted pairs."""
    has_units = method not in ("tau-a", "tau-b")
    if pairs is None and method in RANKED_ONCE:
        models = unit_vectors(predicted, method=method, name="predicted RDM")
        units = unit_vectors(measured, method=method, name="measured RDM")
        return lambda places: torch.einsum("mkp,s...p->mks...", models[:, places], units)
    if pairs is not None and has_units and not measured.isnan().any():
        models = unit_vectors(predicted[:, pairs], method=method, name="predicted RDM")

        def turned(places: Tensor) -> Tensor:
            units = unit_vectors(measured[..., places], method=method, name="measured RDM")  # subject ... permutation entry
            return (units @ models.mT).movedim(-1, 0).movedim(-1, 1)

        return turned
    return lambda places: torch.stack([_score_anew(model, measured, pairs, places, method) for model in predicted])


def _score_anew(model: Tensor, measured: Tensor, pairs: Tensor | None, places: Tensor, method: str) -> Tensor:
    """(permutation, subject, ...) of one model, compared for every permutation."""
    axes = (slice(None), *[None] * (measured.ndim - 1))
    if pairs is None:
        return compare(model[places][axes], measured, method=method)
    if not measured.isnan().any():
        return compare(model[pairs], measured[..., places].movedim(-2, 0), method=method)
    if not model.isnan().any():
        return compare(model[places][axes], measured[..., pairs], method=method)
    kept = [~model[place].isnan() for place in places]
    return torch.stack(
        [
            compare(model[place[known]], measured[..., pairs][..., known], method=method)
            for place, known in zip(places, kept, strict=True)
        ]
    )


def bootstrap_scores(
    predicted: Float[Tensor, "model pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    method: str = "spearman",
    pairs: Int[Tensor, " scored"] | None = None,
    n_bootstrap: int = 1000,
) -> tuple[ResampledScores, ResampledScores]:
    """r and r2 of each model in resamples of images, of subjects, and of both; the models see the same resamples.

    Spearman, Pearson or cosine. A resample that leaves an RDM without variance (very few images) is dropped.
    Raises `InputError` for another method, `DegenerateError` where more than half of the resamples are dropped.
    """
    n_images = _check(predicted, measured, method)
    predicted, measured = predicted.detach().cpu(), measured.detach().cpu()
    if method not in RANKED_ONCE:
        raise InputError(f"bootstrap over images: {', '.join(RANKED_ONCE)} have a weighted form, {method} came")
    scored = slice(None) if pairs is None else pairs
    first, second = (images[scored] for images in pair_rows(n_images))
    models, rows = predicted[:, scored].double(), measured[..., scored].flatten(0, -2).double()
    full = compare(models[:, None], rows, method=method).reshape(len(models), len(measured), -1).mean(-1)  # model subject
    bounds = [tie_bounds(values) for values in (models, rows)]
    counts = np.rint(bootstrap_shares(n_images, n_bootstrap, generator) * n_images)
    subjects = torch.from_numpy(bootstrap_shares(len(measured), n_bootstrap, generator))
    n_block = max(1, ENTRIES_PER_BLOCK // (rows.numel() + models.numel()))
    starts = range(0, n_bootstrap, n_block)
    found: list[Tensor] = []
    for start in track(starts, "bootstrap over images and subjects", len(starts)):
        drawn = torch.from_numpy(counts[start : start + n_block])
        weights = drawn[:, first] * drawn[:, second]  # resample pair
        scores = _weighted_units(models, bounds[0], weights, method) @ _weighted_units(rows, bounds[1], weights, method).mT
        found.append(scores.reshape(*scores.shape[:2], len(measured), -1).mean(-1))
    rho = torch.cat(found)  # resample model subject
    usable = torch.isfinite(rho).flatten(1).all(1)
    n_dropped = n_bootstrap - int(usable.sum())
    if n_dropped * 2 > n_bootstrap:
        raise DegenerateError(f"bootstrap over {n_images} images: {n_dropped} of {n_bootstrap} resamples have no variance")
    rho, shares = rho[usable], subjects[usable]

    def resampled(scores: Tensor, whole: Tensor) -> ResampledScores:
        return ResampledScores(
            both=torch.einsum("kms,ks->km", scores, shares).numpy(),
            images=scores.mean(-1).numpy(),
            subjects=(shares @ whole.mT).numpy(),
            n_images=n_images,
            n_subjects=len(measured),
        )

    return resampled(rho, full), resampled(rho.square(), full.square())


def bootstrap_interval(observed: float, resampled: ResampledScores, *, level: float = 0.95) -> tuple[float, float]:
    """observed -+ t x standard error, t with min(n_images, n_subjects) - 1 degrees of freedom (one subject: of images)."""
    if not 0 < level < 1:
        raise InputError(f"level: between 0 and 1, {level} came")
    half = float(scipy.special.stdtrit(_degrees_of_freedom(resampled), (1 + level) / 2)) * standard_error(resampled)
    return observed - half, observed + half


def standard_error(resampled: ResampledScores) -> float:
    """Standard error over other images and subjects, of one model's scores (or of a difference of two).

    With v_i, v_s, v_b the variances over draws of n images, of m subjects, and of both (Schütt et al. 2023):
      v = m/(m-1) v_s + n/(n-1) v_i - nm/((n-1)(m-1)) (v_b - v_s - v_i),
    not below its first or second term, and not above v_b. One subject: n/(n-1) v_i.
    """
    of_both, of_images, of_subjects = (float(np.var(x)) for x in (resampled.both, resampled.images, resampled.subjects))
    images = resampled.n_images / (resampled.n_images - 1)
    if resampled.n_subjects == 1:
        return float(np.sqrt(images * of_images))
    subjects = resampled.n_subjects / (resampled.n_subjects - 1)
    variance = subjects * of_subjects + images * of_images - subjects * images * (of_both - of_subjects - of_images)
    return float(np.sqrt(min(max(variance, subjects * of_subjects, images * of_images), of_both)))


def _degrees_of_freedom(resampled: ResampledScores) -> int:
    return min(resampled.n_images, resampled.n_subjects if resampled.n_subjects > 1 else resampled.n_images) - 1


def model_difference(
    predicted_a: Float[Tensor, " pair"],
    predicted_b: Float[Tensor, " pair"],
    measured: Float[Tensor, "subject *time measured_pair"],
    *,
    generator: np.random.Generator,
    method: str = "spearman",
    squared: bool = False,
    pairs: Int[Tensor, " scored"] | None = None,
    n_bootstrap: int = 1000,
    level: float = 0.95,
) -> ModelDifference:
    """Score of model a less that of model b on the same images, subjects and resamples. squared: of r2 instead of r."""
    scored = slice(None) if pairs is None else pairs
    both, measured = torch.stack([predicted_a, predicted_b]).detach().cpu(), measured.detach().cpu()
    resampled = bootstrap_scores(both, measured, generator=generator, method=method, pairs=pairs, n_bootstrap=n_bootstrap)[
        int(squared)
    ]
    of_a, of_b = (subject_scores(rdm[scored], measured[..., scored], method=method) for rdm in both)
    by_subject = of_a.square() - of_b.square() if squared else of_a - of_b
    return _difference(by_subject, resampled.of_difference(0, 1), generator, level)


def _difference(
    by_subject: Tensor, resampled: ResampledScores, generator: np.random.Generator, level: float
) -> ModelDifference:
    """From the differences of every subject and their resamples."""
    difference, error = float(by_subject.mean()), standard_error(resampled)
    low, high = bootstrap_interval(difference, resampled, level=level)
    t_value = abs(difference) / error if error > 0 else 0.0
    return ModelDifference(
        difference=difference,
        low=low,
        high=high,
        p_value=2 * float(scipy.special.stdtr(_degrees_of_freedom(resampled), -t_value)),
        p_value_subjects=sign_flip_p_value(by_subject.numpy(), generator=generator) if resampled.n_subjects > 1 else None,
    )


def _check(predicted: Tensor, measured: Tensor, method: str) -> int:
    """Number of images, if RDMs and method fit."""
    check_method(method)
    if predicted.shape[-1] != measured.shape[-1]:
        raise InputError(f"RDMs to compare: {predicted.shape[-1]} predicted pairs, {measured.shape[-1]} measured")
    n_images = count_images(measured.shape[-1])
    if n_images < FEWEST_IMAGES:
        raise InputError(f"permutations and bootstrap over images: {FEWEST_IMAGES} images or more are needed, {n_images} came")
    return n_images


def _weighted_units(values: Tensor, bounds: tuple[Tensor, Tensor], weights: Tensor, method: str) -> Tensor:
    """(resample, row, pair) vectors whose inner products are the similarity of the weighted pairs; NaN without variance."""
    values = _weighted_ranks(values, bounds, weights) if method == "spearman" else values.expand(len(weights), *values.shape)
    if method != "cosine":
        values = values - (values @ weights[..., None]) / weights.sum(-1)[:, None, None]
    values = values * weights.sqrt()[:, None]
    length = torch.linalg.vector_norm(values, dim=-1, keepdim=True)
    return values / torch.where(length > 0, length, torch.nan)


def _weighted_ranks(values: Tensor, bounds: tuple[Tensor, Tensor], weights: Tensor) -> Tensor:
    """Average rank of each entry among entries that stand `weights` times: those below, plus half of its ties, plus 1/2."""
    order = values.argsort(-1)
    below = torch.zeros(len(weights), *values.shape[:-1], values.shape[-1] + 1, dtype=weights.dtype)
    torch.cumsum(weights[:, order], -1, out=below[..., 1:])
    first, last = (bound.expand(len(weights), *bound.shape) for bound in bounds)
    return (below.gather(-1, first) + below.gather(-1, last + 1) + 1) / 2
