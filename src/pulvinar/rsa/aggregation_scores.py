"""What learned scales are compared with, and which stages they rest on.

Baselines are trained on the training images of the same splits, their choices made in inner folds. A mean scale per stage is
confounded by the magnitude and number of channels, so importance is given as scale, share of contribution and the drop when a
stage is left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.progress import bar
from pulvinar.rsa.aggregation import COLUMNS_AT_ONCE, ChosenScales, Layout, MeasuredRDMs, inner_folds
from pulvinar.rsa.evaluation import Scored, Splits, differences
from pulvinar.rsa.products import product
from pulvinar.rsa.stage_mask import Balance, FeatureProducts, Features, kept_scales, starting_scales
from pulvinar.scores.rdm_comparison import compare
from pulvinar.scores.resampling import percentile_interval

RIDGE_ALPHAS = (1e-3, 1e-2, 1e-1)  # of feature-reweighted RSA, as a share of the largest eigenvalue
RIDGE_STEPS = 80


def predictions(layouts: Mapping[str, Layout], chosen: Sequence[ChosenScales]) -> Tensor:
    """(pair, split) RDMs of the scales of every split."""
    return _of_splits(layouts, chosen, None)


def _of_splits(layouts: Mapping[str, Layout], chosen: Sequence[ChosenScales], stages: Sequence[str] | None) -> Tensor:
    """(pair, split) RDMs of some stages (None: of all), the splits that chose one layout together."""
    made: dict[int, Tensor] = {}
    for name in dict.fromkeys(part.chosen.layout for part in chosen):
        places = [place for place, part in enumerate(chosen) if part.chosen.layout == name]
        features, scales = layouts[name].features, torch.stack([chosen[place].scales for place in places], dim=1)
        if stages is not None:
            features, scales = features.only(stages), scales[kept_scales(features, stages)]
        made |= dict(zip(places, features.rdm(scales).T, strict=True))
    return torch.stack([made[place] for place in range(len(chosen))], dim=1)


def baselines(
    layouts: Mapping[str, Layout],
    measured: Sequence[MeasuredRDMs],
    splits: Splits,
    groups: Sequence[str],
    *,
    n_folds: int,
    seed: int,
) -> dict[str, Tensor]:
    """Name -> (pair,) or (pair, split) predictions; concatenations of every layout's features, single stages of the first's.

    The best single stage is chosen among the stages of all layouts.
    """
    named: dict[str, Features] = {}
    for name, layout in layouts.items():
        if not any(layout.features is features for features in named.values()):
            named[name] = layout.features
    rows: dict[str, Tensor] = {}
    for name, features in named.items():
        suffix = "" if len(named) == 1 else f", {name}"
        rows[f"unweighted concatenation{suffix}"] = unweighted(features)
        rows[f"stage-normalised concatenation{suffix}"] = normalised(features, splits, "stage")
        rows[f"channel-normalised concatenation{suffix}"] = normalised(features, splits, "channel")
    every = {f"{stage}, {name}": rdm for name, part in named.items() for stage, rdm in single_stages(part).items()}
    rows["best single stage (chosen in training)"] = best_stage(every, measured, splits)[0]
    features = next(iter(layouts.values())).features
    alone = single_stages(features)
    rows |= {f"stage {name} alone": rdm for name, rdm in alone.items()}
    many = features.n_scales > len(features.stages)
    if isinstance(features, FeatureProducts) and many and splits.held_out_pairs is None:
        rows["feature-reweighted RSA"] = reweighted(features, measured, splits, groups, n_folds=n_folds, seed=seed)
    return rows


def unweighted(features: Features) -> Tensor:
    """(pair,) RDM of the concatenation as it is."""
    return features.rdm(torch.ones(features.n_scales, 1))[:, 0]


def normalised(features: Features, splits: Splits, balance: Balance) -> Tensor:
    """(pair, split) RDM of the concatenation with every stage or channel at the same variance over the training images."""
    starts = [starting_scales(features, balance, torch.nonzero(column)[:, 0]) for column in splits.training.T]
    return features.rdm(torch.stack(starts, dim=1))


def single_stages(features: Features) -> dict[str, Tensor]:
    """Stage -> (pair,) RDM of its features alone."""
    return {stage: unweighted(features.only([stage])) for stage in features.stages}


def set_means(measured: Sequence[MeasuredRDMs]) -> list[Tensor]:
    """(pair,) mean RDM over the targets of each set of images; NaN for pairs of other sets."""
    sets = dict.fromkeys(target.image_set for target in measured)
    return [torch.stack([one.mean for one in measured if one.image_set == place]).mean(0) for place in sets]


def best_stage(alone: Mapping[str, Tensor], measured: Sequence[MeasuredRDMs], splits: Splits) -> tuple[Tensor, list[str]]:
    """(pair, split) RDM of the stage whose Spearman rho with the subjects' mean is highest on the training pairs; its names.

    With several sets of images: rho averaged over the sets.
    """
    means = set_means(measured)
    trained = splits.pairs(0)
    rdms = torch.stack(list(alone.values()))
    columns, names = [], []
    for pairs in trained.T:
        kept = [pairs & torch.isfinite(mean) for mean in means]
        rho = [compare(rdms[:, own], mean[own]) for own, mean in zip(kept, means, strict=True)]
        best = int(torch.stack(rho).sum(0).argmax())
        columns.append(rdms[best])
        names.append(list(alone)[best])
    return torch.stack(columns, dim=1), names


def reweighted(
    features: FeatureProducts,
    measured: Sequence[MeasuredRDMs],
    splits: Splits,
    groups: Sequence[str],
    *,
    n_folds: int,
    seed: int,
) -> Tensor:
    """(pair, split) feature-reweighted RSA: non-negative ridge of the mean RDM on every channel's squared distances.

    Minimises |D w + c - y|^2 / n_pairs + alpha L |w|^2, w >= 0, by accelerated projected gradient, L the largest eigenvalue;
    alpha chosen in inner folds over images (Jozwik et al. 2016, Kaniuth & Hebart 2022). Distances of a channel have spread 1.
    """
    distances = _distances(features)
    largest = _largest_eigenvalue(distances)
    target = _one_target(set_means(measured))
    per_block = max(1, COLUMNS_AT_ONCE // (len(RIDGE_ALPHAS) * (n_folds + 1)))
    n_splits = splits.training.shape[1]
    chosen: list[Tensor] = []
    with bar("feature-reweighted RSA", n_splits) as shown:
        for start in range(0, n_splits, per_block):
            block = splits.training[:, start : start + per_block].T
            folds = [inner_folds(training, groups, n_folds, seed + start + place) for place, training in enumerate(block)]
            chosen += _reweighted_block(distances, target, block, folds, n_folds, largest)
            shown.advance(len(block))
    return torch.stack(chosen, dim=1)


def _one_target(means: Sequence[Tensor]) -> Tensor:
    """The mean RDM; of several sets of images each standardised, and NaN for pairs across them."""
    if len(means) == 1:
        return means[0]
    known = [torch.isfinite(mean) for mean in means]
    standard = [(mean - mean[own].mean()) / mean[own].std() for mean, own in zip(means, known, strict=True)]
    return torch.stack(standard).nanmean(0)


def _distances(features: FeatureProducts) -> Tensor:
    """(pair, feature) squared distances of every channel, of spread 1."""
    first, second = torch.triu_indices(features.n_images, features.n_images, offset=1)
    distances = (features.own[first] + features.own[second] - 2 * features.between).clamp_min(0)
    return distances / distances.std(0).clamp_min(1e-12)


def _reweighted_block(
    distances: Tensor, target: Tensor, training: Tensor, folds: Sequence[Tensor], n_folds: int, largest: float
) -> list[Tensor]:
    """Of each split (split, image), the prediction (pair,) with the alpha that its inner folds chose; all fitted together."""
    first, second = torch.triu_indices(training.shape[1], training.shape[1], offset=1)
    held_out = torch.stack([fold == number for fold in folds for number in (*range(n_folds), -2)], dim=1)  # the last: none
    used = training.T.repeat_interleave(n_folds + 1, 1) & ~held_out
    known = torch.isfinite(target)
    target = target.nan_to_num()
    weights = (used[first] & used[second] & known[:, None]).float().repeat_interleave(len(RIDGE_ALPHAS), 1)
    fitted = _non_negative_ridge(distances, target, weights, torch.tensor(RIDGE_ALPHAS).repeat(held_out.shape[1]), largest)
    predicted = (distances @ fitted).reshape(len(target), len(folds), n_folds + 1, len(RIDGE_ALPHAS))
    chosen = []
    for place, fold in enumerate(folds):
        scores = torch.zeros(len(RIDGE_ALPHAS))
        for number in range(n_folds):
            pairs = (fold[first] == number) & (fold[second] == number) & known
            found = torch.nan_to_num(torch.corrcoef(torch.cat([predicted[pairs, place, number].T, target[pairs][None]])))
            scores += found[-1, :-1]
        chosen.append(predicted[:, place, n_folds, int(scores.argmax())])
    return chosen


def _largest_eigenvalue(distances: Tensor) -> float:
    """Of D' D / n_pairs, by power iteration."""
    vector = torch.ones(distances.shape[1], 1)
    for _ in range(20):
        vector = distances.T @ (distances @ vector)
        vector = vector / vector.norm()
    return float((distances @ vector).norm() ** 2) / len(distances)


def _non_negative_ridge(distances: Tensor, target: Tensor, weights: Tensor, alphas: Tensor, largest: float) -> Tensor:
    """(feature, column) weights of FISTA; every column has its own 0/1 pair weights and alpha."""
    total = weights.sum(0)
    centre = (distances.T @ weights) / total  # feature column
    goal = (target[:, None] - (target[:, None] * weights).sum(0) / total) * weights
    current = previous = torch.zeros(distances.shape[1], weights.shape[1])
    for step in range(RIDGE_STEPS):
        ahead = current + (step / (step + 3)) * (current - previous)
        left = product(distances, ahead).sub_((centre * ahead).sum(0)).mul_(weights).sub_(goal)
        gradient = (product(distances.T, left) - centre * left.sum(0)) / total + alphas * largest * ahead
        previous, current = current, (ahead - gradient / (largest * (1.5 + alphas))).clamp_min(0)
    return current


def stage_importance(
    layouts: Mapping[str, Layout], chosen: Sequence[ChosenScales], scored: Scored, *, training: Tensor, places: Tensor
) -> list[dict[str, Any]]:
    """Per stage: mean scale, share of contribution, and the drop of rho when it is left out, with intervals.

    mean_scale: over channels and splits, as a multiple of the scale at the start; interval over splits.
    share: of the sum over scales of b^2 times the variance of its features, interval over splits. drop: rho of the whole less
    rho without the stage (its scales set to 0, nothing trained again), on unseen pairs; interval over images and subjects.
    training: (image, split) of all images; places: of the scored set's pairs among all.
    """
    first = next(iter(layouts.values())).features
    if len(first.stages) < 2:
        return []
    rest = [[name for name in first.stages if name != stage] for stage in first.stages]
    without = [_of_splits(layouts, chosen, stages)[places] for stages in rest]
    drops = differences(predictions(layouts, chosen)[places], without, scored)
    return [_of_stage(layouts, chosen, training, place, drop) for place, drop in enumerate(drops)]


def _of_stage(
    layouts: Mapping[str, Layout], chosen: Sequence[ChosenScales], training: Tensor, place: int, drop: Mapping[str, Any]
) -> dict[str, Any]:
    """The row of one stage."""
    first = next(iter(layouts.values())).features
    shares, scales = [], []
    for part, column in zip(chosen, training.T, strict=True):
        layout = layouts[part.chosen.layout]
        images, own = torch.nonzero(column)[:, 0], layout.features.stage == place
        energy = part.scales.square() * layout.features.variances(images)
        shares.append(float(energy[own].sum() / energy.sum()))
        start = starting_scales(layout.features, layout.balance, images)
        scales.append((part.scales / start)[own].mean())
    return {
        "stage": first.stages[place],
        "n_scales": int((first.stage == place).sum()),
        "mean_scale": float(torch.stack(scales).mean()),
        "mean_scale_interval": percentile_interval(torch.stack(scales).numpy()),
        "share": float(np.mean(shares)),
        "share_interval": percentile_interval(np.array(shares)),
        "drop": drop["rho"],
        "drop_interval": drop["interval"],
    }
