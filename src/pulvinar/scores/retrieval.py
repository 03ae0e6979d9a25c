"""Retrieval: given the brain, find the image among candidates, and given the image, find the brain.

predicted: embeddings decoded from the brain, one row per test stimulus. true: embeddings of the images, rows in the same order.
Both (stimulus, dim), tokens flattened; candidates are ranked by cosine similarity.
  brain_to_image   the query is a predicted embedding, the candidates are all true ones
  image_to_brain   the query is a true embedding, the candidates are all predicted ones
Protocols: `every_candidate` (the whole test set is the gallery) and `draws` (30 draws of 300 test images without replacement,
mean over draws, as in Scotti et al. 2024, MindEye2, and the papers that follow it).

Ties are broken at random, in expectation: with g candidates above the right one and t others equal to it, its rank is
1 + g + t/2, and it is among the first k with probability min(1, max(0, (k - g) / (t + 1))). Cosines are rounded to 12 decimals,
so that equal embeddings tie in whatever order their products were summed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.scores.resampling import bootstrap_shares, permutation_null, share_interval

Protocol = Literal["every_candidate", "draws"]
Direction = Literal["brain_to_image", "image_to_brain"]
DIRECTIONS: tuple[Direction, ...] = ("brain_to_image", "image_to_brain")
N_DRAWS, N_DRAWN = 30, 300  # Scotti et al. 2024
DIMS_PER_BLOCK = 8192

# The columns of MindEye2 and of papers that follow it: what is called "Image" there has the image as its query.
mindeye2_labels = {"Image": "image_to_brain_top1", "Brain": "brain_to_image_top1"}


@dataclass(frozen=True, kw_only=True, eq=False)
class PerImage:
    """What became of each test image in one direction.

    rank: of the right candidate (1 is first; mean over the draws the image is in). top1, top5: probability that the right
    candidate is first, among the first five (0 or 1 without ties and draws). n_draws: galleries the image was in; where that is
    0, rank, top1 and top5 are NaN. retrieved: rows of the best candidates of the whole gallery, best first; -1 past its end.
    """

    rank: Float[np.ndarray, " stimulus"]
    top1: Float[np.ndarray, " stimulus"]
    top5: Float[np.ndarray, " stimulus"]
    n_draws: Int[np.ndarray, " stimulus"]
    retrieved: Int[np.ndarray, "stimulus place"]

    @property
    def weighted_top1(self) -> Float[np.ndarray, " stimulus"]:
        """top1 times the share of draws the image was in, so that the mean over all images is the score; never NaN."""
        return np.where(self.n_draws > 0, self.top1, 0.0) * self.n_draws / self.n_draws.mean()


@dataclass(frozen=True, kw_only=True, eq=False)
class Retrieval:
    """Scores by name (flat, ready for JSON), and what stands behind them for each image, by direction."""

    protocol: Protocol
    scores: dict[str, float]
    per_image: dict[Direction, PerImage]


def cosine_similarities(
    rows: Float[np.ndarray, "row dim"], columns: Float[np.ndarray, "column column_dim"]
) -> Float[np.ndarray, "row column"]:
    """Cosine of every row of one array with every row of another, in [-1, 1], rounded to 12 decimals.

    float64, in blocks of dims. Raises `InputError` where dims differ or a value is not finite, and `DegenerateError` naming the
    row for an embedding of length zero.

    >>> cosine_similarities(np.array([[2.0, 0.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])).tolist()
    [[1.0, 0.0, -1.0]]
    """
    if rows.shape[1] != columns.shape[1]:
        raise InputError(f"embeddings: {rows.shape[1]} and {columns.shape[1]} dims; cosines need the same")
    product = np.zeros((len(rows), len(columns)))
    square_rows, square_columns = np.zeros(len(rows)), np.zeros(len(columns))
    for dims in blocks_of(rows.shape[1], DIMS_PER_BLOCK):
        block, other = rows[:, dims].astype(np.float64), columns[:, dims].astype(np.float64)
        product += block @ other.T
        square_rows += np.einsum("rd,rd->r", block, block)
        square_columns += np.einsum("cd,cd->c", other, other)
    for square in (square_rows, square_columns):
        if not np.isfinite(square).all():
            raise InputError(f"embeddings: row {int(np.argmin(np.isfinite(square)))} has a value that is not finite")
        if (square == 0).any():
            raise DegenerateError(f"embeddings: row {int(np.argmin(square))} has length zero and no direction")
    return np.round(product / np.sqrt(square_rows)[:, None] / np.sqrt(square_columns), 12)


def protocols_for(n_images: int) -> tuple[Protocol, ...]:
    """The protocols that so many test images allow: draws from 300 on."""
    return ("every_candidate", "draws") if n_images >= N_DRAWN else ("every_candidate",)


def near_duplicates(true: Float[np.ndarray, "stimulus dim"], threshold: float) -> Bool[np.ndarray, "stimulus stimulus"]:
    """Pairs of different test images whose true embeddings have a cosine above the threshold (symmetric, diagonal False)."""
    if not -1 <= threshold <= 1:
        raise InputError(f"near-duplicates: the threshold is a cosine in [-1, 1], {threshold} came")
    pairs = cosine_similarities(true, true) > threshold
    np.fill_diagonal(pairs, False)
    return pairs


def one_of_each_label(labels: Sequence[str]) -> Bool[np.ndarray, "stimulus stimulus"]:
    """Who is not in whose gallery where stimuli are told apart by labels alone: a gallery has one stimulus of each label.

    Of another label it has the one that comes as late among its like as the target among its own (round again where there are
    fewer). Identification among these is classification, with chance 1 / labels.

    >>> (~one_of_each_label(["face", "house", "face", "house"])).astype(int)
    array([[1, 1, 0, 0],
           [1, 1, 0, 0],
           [0, 0, 1, 1],
           [0, 0, 1, 1]])
    """
    places: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        places.setdefault(label, []).append(row)
    excluded = np.ones((len(labels), len(labels)), bool)
    for alike in places.values():
        for number, row in enumerate(alike):
            excluded[row, [others[number % len(others)] for others in places.values()]] = False
    return excluded


def retrieval_scores(
    predicted: Float[np.ndarray, "predicted_stimulus predicted_dim"],
    true: Float[np.ndarray, "stimulus dim"],
    *,
    generator: np.random.Generator,
    protocol: Protocol = "every_candidate",
    excluded: Bool[np.ndarray, "target candidate"] | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 2000,
    n_retrieved: int = 5,
) -> Retrieval:
    """Top-1, top-5 and median rank in both directions, with chance, permutation null, interval and per-image results.

    excluded: row i says which candidates are not in the gallery of target i (see `near_duplicates`), in both directions.
    Draws come first from the generator: two calls with equal seeds score the same draws, which `paired_difference` needs.

    Scores: n_images, gallery_size (mean over targets), chance (mean of 1 / gallery size); then for each direction, as
    `brain_to_image_*` and `image_to_brain_*`: top1, top5, median_rank (mean over draws); top1_low, top1_high, top5_low,
    top5_high (95 %, bootstrap over test images, galleries as they are; Wilson's without spread); top1_null_mean,
    top1_null_percentile_95,
    top1_above_null, top1_p_value. For the null queries are permuted over the whole test set (one permutation for all draws);
    every target keeps its gallery.

    Raises `InputError` where rows do not correspond, a gallery is empty, or 300 images are drawn from fewer.

    >>> rng = np.random.default_rng(0)
    >>> images = rng.normal(size=(50, 16))
    >>> found = retrieval_scores(images + rng.normal(size=(50, 16)), images, generator=rng, n_permutations=99)
    >>> found.scores['brain_to_image_top1'] > found.scores['chance']
    True
    """
    gallery = _whole_gallery(len(predicted), len(true), excluded)
    similarity = cosine_similarities(predicted, true)
    draws = _draws(len(true), protocol, generator)
    sizes = np.concatenate([gallery[np.ix_(draw, draw)].sum(1) for draw in draws])
    scores = {"n_images": float(len(true)), "gallery_size": float(sizes.mean()), "chance": float((1 / sizes).mean())}
    permutations = generator.permuted(np.tile(np.arange(len(true)), (n_permutations, 1)), axis=1)
    shares = bootstrap_shares(len(true), n_bootstrap, generator)
    per_image = {}
    for direction, queries in zip(DIRECTIONS, (similarity, similarity.T), strict=True):
        images, median_rank = _per_image(queries, gallery, draws, n_retrieved)
        per_image[direction] = images
        scores |= {f"{direction}_{name}": value for name, value in _with_interval(images, shares).items()}
        scores[f"{direction}_median_rank"] = median_rank
        null = permutation_null(scores[f"{direction}_top1"], _permuted_top1(queries, gallery, draws, permutations))
        scores[f"{direction}_top1_null_mean"] = null.mean
        scores[f"{direction}_top1_null_percentile_95"] = null.percentile_95
        scores[f"{direction}_top1_above_null"] = null.above_null
        scores[f"{direction}_top1_p_value"] = null.p_value
    return Retrieval(protocol=protocol, scores=scores, per_image=per_image)


def _whole_gallery(
    n_predicted: int, n_true: int, excluded: Bool[np.ndarray, "target candidate"] | None
) -> Bool[np.ndarray, "target candidate"]:
    """Which candidates each target is ranked among: all but the excluded ones; itself always."""
    if n_predicted != n_true:
        raise InputError(f"retrieval: {n_predicted} predicted but {n_true} true embeddings; rows must correspond")
    if n_true < 2:
        raise InputError(f"retrieval: {n_true} test stimuli; a gallery needs two or more")
    if excluded is None:
        return np.ones((n_true, n_true), bool)
    if excluded.shape != (n_true, n_true):
        raise InputError(f"retrieval: excluded must be ({n_true}, {n_true}), one row per target; {excluded.shape} came")
    if excluded.diagonal().any():
        raise InputError(f"retrieval: target {int(np.argmax(excluded.diagonal()))} is excluded from its own gallery")
    if (~excluded).sum(1).min() < 2:
        raise InputError(
            f"retrieval: all other candidates of target {int(np.argmin((~excluded).sum(1)))} are excluded; "
            "raise the near-duplicate threshold"
        )
    return ~excluded


def _draws(n_stimuli: int, protocol: Protocol, generator: np.random.Generator) -> Sequence[Int[np.ndarray, " drawn"]]:
    if protocol == "draws" and n_stimuli < N_DRAWN:
        raise InputError(f"protocol=draws: {N_DRAWN} test images are needed, {n_stimuli} came; use protocol=every_candidate")
    if protocol == "every_candidate" or n_stimuli == N_DRAWN:  # 300 of 300 are the same 300 every time
        return [np.arange(n_stimuli)]
    return [np.sort(generator.choice(n_stimuli, N_DRAWN, replace=False)) for _ in range(N_DRAWS)]


def _places(
    similarity: Float[np.ndarray, "target target"], gallery: Bool[np.ndarray, "target target"]
) -> tuple[Int[np.ndarray, " target"], Int[np.ndarray, " target"]]:
    """Candidates above the right one, and others equal to it; row i is the query whose right candidate is i."""
    right = similarity.diagonal()[:, None]
    above = ((similarity > right) & gallery).sum(1)
    tied = ((similarity == right) & gallery).sum(1) - 1
    return above, tied


def _among_first(k: int, above: Int[np.ndarray, " target"], tied: Int[np.ndarray, " target"]) -> Float[np.ndarray, " target"]:
    return np.clip((k - above) / (tied + 1), 0.0, 1.0)


def _per_image(
    similarity: Float[np.ndarray, "query query"],
    gallery: Bool[np.ndarray, "query query"],
    draws: Sequence[Int[np.ndarray, " drawn"]],
    n_retrieved: int,
) -> tuple[PerImage, float]:
    """Results of each image, and the median rank (mean over draws)."""
    n_stimuli = len(similarity)
    rank, top1, top5 = np.zeros(n_stimuli), np.zeros(n_stimuli), np.zeros(n_stimuli)
    n_draws, medians = np.zeros(n_stimuli, np.int64), []
    for draw in draws:
        above, tied = _places(similarity[np.ix_(draw, draw)], gallery[np.ix_(draw, draw)])
        ranks = 1 + above + tied / 2
        medians.append(np.median(ranks))
        rank[draw] += ranks
        top1[draw] += _among_first(1, above, tied)
        top5[draw] += _among_first(5, above, tied)
        n_draws[draw] += 1
    with np.errstate(invalid="ignore"):  # 0/0: in no draw
        images = PerImage(
            rank=rank / n_draws,
            top1=top1 / n_draws,
            top5=top5 / n_draws,
            n_draws=n_draws,
            retrieved=_best_candidates(similarity, gallery, n_retrieved),
        )
    return images, float(np.mean(medians))


def _best_candidates(
    similarity: Float[np.ndarray, "query query"], gallery: Bool[np.ndarray, "query query"], n_retrieved: int
) -> Int[np.ndarray, "query place"]:
    order = np.argsort(-np.where(gallery, similarity, -np.inf), axis=1, kind="stable")[:, :n_retrieved]
    return np.where(np.take_along_axis(gallery, order, axis=1), order, -1)


def _with_interval(images: PerImage, shares: Float[np.ndarray, "resample stimulus"]) -> dict[str, float]:
    """Top-1 and top-5 over images, each weighted by the draws it is in, with a bootstrap over images."""
    weights = images.n_draws.astype(np.float64)
    drawn = weights > 0
    scores = {}
    for name, values in (("top1", images.top1), ("top5", images.top5)):
        total = np.where(drawn, values, 0.0) * weights
        scores[name] = float(total.sum() / weights.sum())
        scores[f"{name}_low"], scores[f"{name}_high"] = share_interval(values[drawn], (shares @ total) / (shares @ weights))
    return scores


def _permuted_top1(
    similarity: Float[np.ndarray, "query target"],
    gallery: Bool[np.ndarray, "target target"],
    draws: Sequence[Int[np.ndarray, " drawn"]],
    permutations: Int[np.ndarray, "permutation target"],
) -> Float[np.ndarray, " permutation"]:
    """Mean top-1 over targets and draws when target i is asked for by query permutation[i]."""
    total = np.zeros(len(permutations))
    for draw in draws:
        first = _first_by_query(similarity[:, draw], gallery[np.ix_(draw, draw)])
        total += first[permutations[:, draw], np.arange(len(draw))].mean(1)
    return total / len(draws)


def _first_by_query(
    similarity: Float[np.ndarray, "query target"], gallery: Bool[np.ndarray, "target target"]
) -> Float[np.ndarray, "query target"]:
    """Probability that a target comes first in its gallery, for every query that might ask for it."""
    best = similarity == similarity.max(1, keepdims=True)
    first = best / best.sum(1, keepdims=True)
    for target in np.flatnonzero(~gallery.all(1)):  # only queries whose best candidate is not in this gallery change
        changed = np.flatnonzero(best[:, ~gallery[target]].any(1))
        candidates = similarity[np.ix_(changed, np.flatnonzero(gallery[target]))]
        right = similarity[changed, target]
        ties = (candidates == right[:, None]).sum(1)
        first[changed, target] = np.where(candidates.max(1) == right, 1 / ties, 0.0)
    return first
