"""Training of the scales of learning to aggregate: on cached products for many folds at once, or with the network itself.

Every split of the images, every inner fold and every penalty is a column of one matrix of scales, so a nested
cross-validation costs little more than one fit. Optimizer: Adam (paper: rate 1e-2, 40 pairs a step).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import Bar
from pulvinar.core.sampling import dealt_folds
from pulvinar.learning.optimizers import Adam
from pulvinar.rsa import stage_mask
from pulvinar.rsa.aggregation_settings import AggregationConfig, TimeSampling
from pulvinar.rsa.stage_mask import Balance, Features

TIME_SPREAD = 0.25  # standard deviation of the sampled time, as a share of the window (ours; the paper gives none)
COLUMNS_AT_ONCE = 256
N_RECORDS = 20


class MeasuredRDMs:
    """RDMs of the subjects (subject, time, pair) to be reproduced by one prediction; fMRI has one time point.

    NaN where a subject has no pair. image_set: which of several sets of images these are over.
    """

    def __init__(self, rdms: Tensor, *, time_sampling: TimeSampling, use_reliability: bool, image_set: int = 0) -> None:
        self.rdms, self.image_set = rdms.float(), image_set
        n_times = rdms.shape[1]
        places = (torch.arange(n_times) + 0.5) / n_times - 0.5  # of the window's length, from its middle
        chances = torch.exp(-0.5 * (places / TIME_SPREAD) ** 2)
        self.chances = chances / chances.sum() if time_sampling == "gaussian" else torch.full((n_times,), 1 / n_times)
        self.draws = time_sampling == "gaussian" and n_times > 1
        self.expected = torch.einsum("stp,t->sp", self.rdms, self.chances)
        weights = stage_mask.reliability_weights(self.expected)
        self.weights = weights if use_reliability else torch.ones_like(weights)

    @property
    def mean(self) -> Tensor:
        """(pair,) over the subjects that have it; NaN where none has."""
        return self.expected.mean(0) if torch.isfinite(self.expected).all() else self.expected.nanmean(0)

    def sample(self, generator: torch.Generator) -> Tensor:
        """(subject, pair): each entry at a time of its own drawn from the Gaussian, or the average over time."""
        if not self.draws:
            return self.expected
        n_entries = len(self.rdms) * self.rdms.shape[2]
        times = torch.multinomial(self.chances, n_entries, replacement=True, generator=generator)
        return self.rdms.gather(1, times.reshape(len(self.rdms), 1, -1))[:, 0]


@dataclass(frozen=True, kw_only=True)
class Columns:
    """What each column of scales is trained on. pairs: (pair, column), True for training. identity: penalty weights."""

    pairs: Tensor
    identity: Tensor
    start: Tensor


def pairs_of(images: Tensor) -> Tensor:
    """(pair, column): whether both images of a pair are in the column; images: (image, column)."""
    first, second = torch.triu_indices(len(images), len(images), offset=1)
    return images[first] & images[second]


def known_pairs(measured: Sequence[MeasuredRDMs]) -> Tensor:
    """(pair,): whether any subject of any target has the pair (those across sets of images have none)."""
    return torch.stack([torch.isfinite(target.expected).any(0) for target in measured]).any(0)


Record = Callable[[int, Tensor], None]


def train_scales(
    variants: Sequence[Features],
    measured: Sequence[MeasuredRDMs],
    columns: Columns,
    config: AggregationConfig,
    generator: torch.Generator,
    record: Record,
    *,
    n_steps: int,
    shown: Bar | None = None,
) -> None:
    """Adam from b = 1; `record(step, scales)` gets the scales (scale, column), identity factors included, as they go.

    variants: the products of each cached crop; a step draws one of them. Records at step 0 and N_RECORDS times.
    """
    scales = torch.ones_like(columns.start).requires_grad_(True)
    optimizer = Adam([scales], lr=config.learning_rate)
    known = torch.nonzero(known_pairs(measured))[:, 0]
    trained = columns.pairs.float()
    stage = variants[0].stage
    record(0, columns.start)
    for step in range(1, n_steps + 1):
        variant = variants[_draw(len(variants), generator)]
        chosen = _chosen_pairs(trained, known, config.batch_pairs, generator)
        predicted = variant.rdm(scales * columns.start, chosen)
        weights = trained if chosen is None else trained[chosen]
        loss = torch.zeros(scales.shape[1])
        for target in measured:
            rdms, reliability = target.sample(generator), target.weights
            if chosen is not None:
                rdms, reliability = rdms[:, chosen], reliability[chosen]
            loss = loss + stage_mask.rdm_loss(predicted, rdms, weights * reliability[:, None], config.loss) / len(measured)
        loss = loss + columns.identity * stage_mask.identity_penalty(scales)
        if config.group_weight:
            loss = loss + config.group_weight * stage_mask.group_penalty(scales, stage)
        if config.stage_mean_weight:
            loss = loss + config.stage_mean_weight * stage_mask.stage_mean_penalty(scales, stage)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        if config.non_negative:
            scales.data.clamp_(min=0)
        if step % max(1, n_steps // N_RECORDS) == 0 or step == n_steps:
            record(step, scales.detach() * columns.start)
        if shown is not None:
            shown.advance()


def _draw(n_choices: int, generator: torch.Generator) -> int:
    return 0 if n_choices == 1 else int(torch.randint(n_choices, (1,), generator=generator))


def _chosen_pairs(trained: Tensor, known: Tensor, batch_pairs: int | None, generator: torch.Generator) -> Tensor | None:
    """Pairs of this step, enough that a column has `batch_pairs` of its training pairs among them on average. known: places
    of the pairs that were measured; None: all pairs there are."""
    if batch_pairs is None:
        return None if len(known) == len(trained) else known
    share = float(trained[known].mean())
    count = min(len(known), math.ceil(batch_pairs / max(share, 1e-9)))
    return known[torch.randperm(len(known), generator=generator)[:count]]


def folds_of_images(groups: Sequence[str], n_folds: int, generator: torch.Generator) -> Tensor:
    """Fold of each image, random and equally large; images of one source picture share a fold."""
    if (n_groups := len(set(groups))) < n_folds:
        raise InputError(f"folds: {n_groups} source pictures cannot be split into {n_folds} folds")
    return torch.from_numpy(dealt_folds(groups, torch.randperm(n_groups, generator=generator).numpy(), n_folds))


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """One way to lay out the features: the products of the whole pictures, then of cached crops, and where scales start."""

    variants: Sequence[Features]
    balance: Balance = "none"

    @property
    def features(self) -> Features:
        """Of the whole pictures."""
        return self.variants[0]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A setting that inner folds choose among: a layout of the features, the pull to identity, and when to stop."""

    layout: str
    identity_weight: float
    step: int


@dataclass(frozen=True, kw_only=True)
class ChosenScales:
    """The scales of one split, the candidate chosen in its inner folds, and every candidate's inner score."""

    scales: Tensor
    chosen: Candidate
    inner_scores: dict[Candidate, float]


def nested_scales(
    layouts: Mapping[str, Layout],
    measured: Sequence[MeasuredRDMs],
    training: Tensor,
    groups: Sequence[str],
    config: AggregationConfig,
    shown: Bar | None = None,
    *,
    held_out_pairs: Tensor | None = None,
) -> list[ChosenScales]:
    """For every split, the scales trained on all its training pairs with what its own inner folds chose.

    training: (image, split), True where an image is for training. Inner folds are over the training images only; a candidate's
    score is the Spearman correlation, over pairs of two inner held-out images, of its prediction with the subjects' mean RDM,
    averaged over folds (and targets). The weights, folds and steps are those of the config.
    held_out_pairs: (pair, split), for splits of the pairs (the paper's); inner folds are then over the training pairs.
    """
    results: list[ChosenScales] = []
    step = splits_at_once(len(config.identity_weights), config.n_inner_folds)
    trained = pairs_of(training[:, :1])[:, 0] if held_out_pairs is None else ~held_out_pairs[:, 0]
    n_steps = config.n_steps(int((trained & known_pairs(measured)).sum()))
    for start in range(0, training.shape[1], step):
        block = training[:, start : start + step]
        if held_out_pairs is None:
            nested = _nested_by_images(block, groups, config.n_inner_folds, config.seed + start)
        else:
            nested = _nested_by_pairs(block, held_out_pairs[:, start : start + step], config.n_inner_folds, config.seed + start)
        results += _nested_block(layouts, measured, nested, config, config.seed + start, n_steps, shown)
    return results


@dataclass(frozen=True, kw_only=True, eq=False)
class _Nested:
    """Inner folds of some splits. images: (image, split, fold) of the trained images; pairs: (pair, split, fold), trained;
    judged: the same, of the pairs that choose. The last fold is the split's whole training, which judges nothing."""

    images: Tensor
    pairs: Tensor
    judged: Tensor


def _nested_by_images(training: Tensor, groups: Sequence[str], n_folds: int, seed: int) -> _Nested:
    images, judged = [], []
    for split in range(training.shape[1]):
        folds = inner_folds(training[:, split], groups, n_folds, seed + split)
        inside = torch.stack([folds == number for number in (*range(n_folds), -2)], dim=1)  # none has -2
        images.append(training[:, split, None] & ~inside)
        judged.append(pairs_of(inside))
    stacked = torch.stack(images, dim=1)
    return _Nested(
        images=stacked, pairs=pairs_of(stacked.flatten(1)).unflatten(1, stacked.shape[1:]), judged=torch.stack(judged, 1)
    )


def _nested_by_pairs(training: Tensor, held_out: Tensor, n_folds: int, seed: int) -> _Nested:
    judged = []
    for split in range(held_out.shape[1]):
        generator = torch.Generator().manual_seed(seed + split)
        folds = torch.randperm(len(held_out), generator=generator) % n_folds
        inside = torch.stack([folds == number for number in (*range(n_folds), -2)], dim=1)
        judged.append(inside & ~held_out[:, split, None])
    stacked = torch.stack(judged, 1)
    images = training[:, :, None].expand(-1, -1, n_folds + 1)
    return _Nested(images=images, pairs=~held_out[..., None] & ~stacked, judged=stacked)


def splits_at_once(n_weights: int, n_folds: int) -> int:
    """Splits whose columns (inner folds, penalties, and one for all training images) are trained together."""
    return max(1, COLUMNS_AT_ONCE // (n_weights * (n_folds + 1)))


def inner_folds(training: Tensor, groups: Sequence[str], n_folds: int, seed: int | torch.Generator) -> Tensor:
    """Fold of each image, -1 for images that are not for training."""
    rows = torch.nonzero(training)[:, 0]
    generator = torch.Generator().manual_seed(seed) if isinstance(seed, int) else seed
    folds = torch.full((len(training),), -1)
    folds[rows] = folds_of_images([groups[row] for row in rows.tolist()], n_folds, generator)
    return folds


def _nested_block(
    layouts: Mapping[str, Layout],
    measured: Sequence[MeasuredRDMs],
    nested: _Nested,
    config: AggregationConfig,
    seed: int,
    n_steps: int,
    shown: Bar | None,
) -> list[ChosenScales]:
    identity_weights, n_folds = config.identity_weights, config.n_inner_folds
    n_splits, n_weights = nested.pairs.shape[1], len(identity_weights)
    images = nested.images.flatten(1).repeat_interleave(n_weights, 1)
    pairs = nested.pairs.flatten(1).repeat_interleave(n_weights, 1)
    identity = torch.tensor(list(identity_weights)).repeat(n_splits * (n_folds + 1))
    scores: list[dict[Candidate, float]] = [{} for _ in range(n_splits)]
    kept: dict[Candidate, Tensor] = {}
    for name, layout in layouts.items():
        start = _starts(layout.features, layout.balance, images)

        def record(step: int, scales: Tensor, name: str = name, features: Features = layout.features) -> None:
            shape = (-1, n_splits, n_folds + 1, n_weights)
            if config.early_stopping or step == n_steps:
                found = _inner_scores(features.rdm(scales).reshape(shape), measured, nested.judged[..., :n_folds])
                for place, weight in enumerate(identity_weights):
                    candidate = Candidate(layout=name, identity_weight=weight, step=step)
                    kept[candidate] = scales.reshape(shape)[:, :, n_folds, place].clone()
                    for split in range(n_splits):
                        scores[split][candidate] = float(found[split, place])

        columns = Columns(pairs=pairs, identity=identity, start=start)
        generator = torch.Generator().manual_seed(seed)
        train_scales(layout.variants, measured, columns, config, generator, record, n_steps=n_steps, shown=shown)
    chosen = [max(found, key=lambda candidate: found[candidate]) for found in scores]
    return [
        ChosenScales(scales=kept[best][:, split], chosen=best, inner_scores=scores[split]) for split, best in enumerate(chosen)
    ]


def _starts(features: Features, balance: Balance, images: Tensor) -> Tensor:
    """(scale, column): the identity of every column, from its own training images."""
    if balance == "none":
        return torch.ones(features.n_scales, images.shape[1], dtype=features.dtype)
    return torch.stack(
        [stage_mask.starting_scales(features, balance, torch.nonzero(column)[:, 0]) for column in images.T], dim=1
    )


def held_out_score(predicted: Tensor, measured: Sequence[MeasuredRDMs], pairs: Tensor) -> float:
    """Spearman correlation of predicted entries (pair,) with the subjects' mean RDM at these places, averaged over targets."""
    return float(sum(_rank_correlations(predicted[None], target.mean[pairs]).sum() for target in measured)) / len(measured)


def _rank_correlations(predicted: Tensor, measured: Tensor) -> Tensor:
    """Of each row of (row, pair) with (pair,), over the pairs that were measured."""
    present = torch.isfinite(measured)
    return (_standard_ranks(predicted[:, present]) * _standard_ranks(measured[present][None])).sum(1)


def _inner_scores(predicted: Tensor, measured: Sequence[MeasuredRDMs], judged: Tensor) -> Tensor:
    """(split, weight): mean over inner folds and targets. predicted: (pair, split, fold, weight); judged: without weights."""
    result = torch.zeros(predicted.shape[1], predicted.shape[3])
    n_folds = judged.shape[2]
    means = [target.mean for target in measured]
    for split in range(predicted.shape[1]):
        for fold in range(n_folds):
            pairs = judged[:, split, fold]
            ours = predicted[pairs, split, fold].T
            for mean in means:
                result[split] += _rank_correlations(ours, mean[pairs]) / (n_folds * len(means))
    return result


def _standard_ranks(values: Tensor) -> Tensor:
    """Ranks of each row less their mean, of length 1. (Ties in the order they come: predictions have none to speak of.)"""
    if values.shape[1] < 3:
        raise DegenerateError(f"inner folds: {values.shape[1]} held-out pairs are too few to choose by; use fewer folds")
    ranks = values.argsort(1).argsort(1).float()
    ranks = ranks - ranks.mean(1, keepdim=True)
    return ranks / ranks.norm(dim=1, keepdim=True)
