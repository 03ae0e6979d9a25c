"""A scale per stage, channel or feature of a network, so that the scaled features' dissimilarities match a target.

Learning to aggregate (Gaziv 2019, sections 2.1 and 2.2). The embedding of an image is the concatenation of the features of all
stages, each multiplied by its scale b; the predicted RDM entry is the correlation distance of two embeddings. With

    P_c(i, j) = sum over the features of scale c of f(i) f(j),    S_c(i) = sum over the same features of f(i)

and D the length of the embedding, D times the covariance of two embeddings has the closed form

    cov(i, j) = sum_c b_c^2 P_c(i, j) - (sum_c b_c S_c(i)) (sum_c b_c S_c(j)) / D,    d_ij = 1 - cov_ij / sqrt(cov_ii cov_jj).

The second term couples the channels and keeps the sign of b. P and S are computed once; training never runs the network.
Scales have columns (one for each fold and penalty): a single matrix product serves all of them.

Ours: `centring` (the paper centres the embedding; "channel" centres every channel over its positions, so that S = 0), `balance`
(the paper starts from the features as they are; "stage" gives every stage, "channel" every channel, the same variance at the
start), the penalties and the correlation loss. The paper does not say which standard deviation N is: unbiased.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.rsa.products import product

Resolution = Literal["stage", "channel", "feature"]
Centring = Literal["embedding", "channel"]
Balance = Literal["none", "stage", "channel"]
Loss = Literal["l1", "mse", "correlation"]

NOISE_SHARE = 0.25  # alpha of equation 1
NOISE_POWER = 1.0  # beta of equation 1
SMALLEST_VARIANCE = 1e-3  # of a balanced channel, as a share of the mean: a silent channel is not blown up


def _pairs(n_images: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """First and second image of every pair, in condensed order."""
    first, second = torch.triu_indices(n_images, n_images, offset=1, device=device)
    return first, second


class _Scaled:
    """What is known of features whose scales are learnt, in whatever form they are kept. stage: place of each scale's stage."""

    stage: Tensor

    @property
    def by_image(self) -> Tensor:
        """A row per image."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        """Precision of what is kept, and of scales that are learnt from it."""
        return self.by_image.dtype

    @property
    def n_images(self) -> int:
        """How many images."""
        return len(self.by_image)

    @property
    def n_scales(self) -> int:
        """How many scales there are to learn."""
        return len(self.stage)


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureProducts(_Scaled):
    """What training and prediction need of the features of some images: inner products per scale.

    between: P of every pair, condensed order. own: P of every image with itself. sums: S. lengths: features of each scale.
    stage: place of each scale's stage in `stages`.
    """

    stages: tuple[str, ...]
    between: Float[Tensor, "pair scale"]
    own: Float[Tensor, "image scale"]
    sums: Float[Tensor, "image scale"]
    lengths: Float[Tensor, " scale"]
    stage: Int[Tensor, " scale"]

    @property
    def by_image(self) -> Tensor:
        """A row per image."""
        return self.own

    def rdm(
        self, scales: Float[Tensor, "scale column"], chosen: Int[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "entry column"]:
        """Correlation distances of the scaled embeddings, condensed, by the closed form; of the chosen pairs only, if given."""
        first, second = _pairs(self.n_images, self.own.device)
        between = self.between
        if chosen is not None:
            first, second, between = first[chosen], second[chosen], between[chosen]
        squares, total = scales.square(), self.sums @ scales
        n_features = self.lengths.sum()
        spread = (self.own @ squares - total.square() / n_features).clamp_min(torch.finfo(total.dtype).tiny).sqrt()
        (one, other), (length, width) = ([part.index_select(0, rows) for rows in (first, second)] for part in (total, spread))
        covariance = product(between, squares) - one * other / n_features
        return 1 - covariance / (length * width)

    def variances(self, rows: Int[Tensor, " row"]) -> Float[Tensor, " scale"]:
        """Variance of each scale's features over these images and all positions, times the number of positions."""
        return self.own[rows].mean(0) - self.sums[rows].mean(0).square() / self.lengths

    def only(self, stages: Sequence[str]) -> "FeatureProducts":
        """The same for some stages."""
        kept = kept_scales(self, stages)
        return FeatureProducts(
            stages=self.stages,
            between=self.between[:, kept],
            own=self.own[:, kept],
            sums=self.sums[:, kept],
            lengths=self.lengths[kept],
            stage=self.stage[kept],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureMaps(_Scaled):
    """The features themselves, for one scale per feature, where inner products per scale would be larger than the features."""

    stages: tuple[str, ...]
    values: Float[Tensor, "image scale"]
    stage: Int[Tensor, " scale"]

    @property
    def by_image(self) -> Tensor:
        """A row per image."""
        return self.values

    def rdm(
        self, scales: Float[Tensor, "scale column"], chosen: Int[Tensor, " chosen"] | None = None
    ) -> Float[Tensor, "entry column"]:
        """Correlation distances of the scaled embeddings, condensed; of the chosen pairs only, if given."""
        first, second = _pairs(self.n_images, self.values.device)
        if chosen is not None:
            first, second = first[chosen], second[chosen]
        columns = []
        for column in scales.T:
            embedding = self.values * column
            embedding = embedding - embedding.mean(1, keepdim=True)
            unit = embedding / embedding.norm(dim=1, keepdim=True).clamp_min(torch.finfo(embedding.dtype).tiny)
            columns.append(1 - (unit @ unit.T)[first, second])
        return torch.stack(columns, dim=1)

    def variances(self, rows: Int[Tensor, " row"]) -> Float[Tensor, " scale"]:
        """Variance of each feature over these images."""
        return self.values[rows].var(0, correction=0)

    def only(self, stages: Sequence[str]) -> "FeatureMaps":
        """The same for some stages."""
        kept = kept_scales(self, stages)
        return FeatureMaps(stages=self.stages, values=self.values[:, kept], stage=self.stage[kept])


Features = FeatureProducts | FeatureMaps


def per_stage(features: Features) -> FeatureProducts:
    """The products of the same features with one scale per stage, as `feature_products` makes them from the maps."""
    n_stages, stage = len(features.stages), features.stage
    if isinstance(features, FeatureMaps):
        parts = [_stage_products(features.values[:, stage == place], "stage") for place in range(n_stages)]
        between, own, sums = (torch.cat([part[index] for part in parts], dim=1) for index in range(3))
        lengths = torch.cat([part[3] for part in parts])
    else:
        between, own, sums, lengths = (
            values.new_zeros(*values.shape[:-1], n_stages).index_add(-1, stage, values)
            for values in (features.between, features.own, features.sums, features.lengths)
        )
    places = torch.arange(n_stages, device=stage.device)
    return FeatureProducts(stages=features.stages, between=between, own=own, sums=sums, lengths=lengths, stage=places)


def kept_scales(features: Features, stages: Sequence[str]) -> Bool[Tensor, " scale"]:
    """Which scales belong to these stages."""
    wanted = [features.stages.index(name) for name in stages]
    return torch.isin(features.stage, torch.tensor(wanted, device=features.stage.device))


def feature_products(
    maps: Mapping[str, Float[Tensor, "image channel height width"]],
    *,
    resolution: Resolution = "channel",
    centring: Centring = "embedding",
) -> Features:
    """The products of every pair of images, computed once, from the stages' maps, in their precision. Differentiable.

    One overall factor makes the mean variance of the embeddings 1, so that precision and rates do not depend on the network.
    Raises `InputError` for features that are not finite, `DegenerateError` where an image's embedding has no variance.
    """
    for name, values in maps.items():
        if not torch.isfinite(values).all():
            raise InputError(f"features of stage '{name}': not finite")
    centred = {name: _centre(values, centring) for name, values in maps.items()}
    _require_varying(centred)
    if resolution == "feature":
        return _feature_maps(centred)
    parts = [_stage_products(values, resolution) for values in centred.values()]
    stage = torch.cat([torch.full((part[0].shape[1],), place, device=part[0].device) for place, part in enumerate(parts)])
    between, own, sums = (torch.cat([part[index] for part in parts], dim=1) for index in range(3))
    lengths = torch.cat([part[3] for part in parts])
    size = (own.sum(1) - sums.sum(1).square() / lengths.sum()).mean()
    if not size > 0:
        raise DegenerateError("features: no image's embedding has any variance")
    return FeatureProducts(
        stages=tuple(maps),
        between=between / size,
        own=own / size,
        sums=sums / size.sqrt(),
        lengths=lengths,
        stage=stage,
    )


def _centre(values: Tensor, centring: Centring) -> Tensor:
    return values if centring == "embedding" else values - values.mean((2, 3), keepdim=True)


def _stage_products(values: Tensor, resolution: Resolution) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """between, own, sums, lengths of one stage. values: (image, channel, height, width); (image, feature) for one scale."""
    first, second = _pairs(len(values), values.device)
    rows = values.flatten(2).transpose(0, 1) if resolution == "channel" else values.flatten(1)[None]  # scale image feature
    products = rows @ rows.transpose(1, 2)
    own = products.diagonal(dim1=1, dim2=2).T
    return products[:, first, second].T, own, rows.sum(2).T, rows.new_full((len(rows),), float(rows.shape[2]))


def _feature_maps(centred: Mapping[str, Tensor]) -> FeatureMaps:
    values = torch.cat([part.flatten(1) for part in centred.values()], dim=1)
    stage = torch.cat(
        [torch.full((part[0].numel(),), place, device=part.device) for place, part in enumerate(centred.values())]
    )
    size = (values - values.mean(1, keepdim=True)).square().sum(1).mean().sqrt()
    if not size > 0:
        raise DegenerateError("features: no image's embedding has any variance")
    return FeatureMaps(stages=tuple(centred), values=values / size, stage=stage)


def _require_varying(centred: Mapping[str, Tensor]) -> None:
    """`DegenerateError` for an image all of whose features are equal: it correlates with none, 0 / 0."""
    lowest = torch.stack([values.detach().flatten(1).amin(1) for values in centred.values()]).amin(0)
    highest = torch.stack([values.detach().flatten(1).amax(1) for values in centred.values()]).amax(0)
    flat = (lowest == highest).nonzero().flatten().tolist()
    if flat:
        raise DegenerateError(
            f"features: the embedding of image {flat[0]} (from 0) has no variance, and so no correlation ({len(flat)} of "
            f"{len(lowest)} images). Leave such images out"
        )


def starting_scales(features: Features, balance: Balance, rows: Int[Tensor, " row"]) -> Float[Tensor, " scale"]:
    """The factor that each scale starts from (its "identity"), from the features of these images only.

    none: 1. stage: 1 over the root of the stage's total variance; channel: of the scale's own. Mean square 1.
    """
    variance = features.variances(rows)
    if balance == "none":
        return torch.ones_like(variance)
    if balance == "stage":
        totals = variance.new_zeros(len(features.stages)).index_add(0, features.stage, variance)
        variance = totals[features.stage]
    factors = variance.clamp_min(SMALLEST_VARIANCE * float(variance.mean())).rsqrt()
    return factors / factors.square().mean().sqrt()


def reliability_weights(rdms: Float[Tensor, "subject pair"]) -> Float[Tensor, " pair"]:
    """Equation 1: w = (N + alpha mean N)^-beta, N the standard deviation over subjects; mean 1. One subject: all 1.

    N is over the subjects that have a pair (others are NaN); pairs of fewer than two get the mean of N (ours).
    """
    present = torch.isfinite(rdms)
    counts = present.sum(0)
    several = counts > 1
    if not several.any():
        return torch.ones_like(rdms[0])
    if present.all():
        noise = rdms.std(0)
    else:
        centred = torch.where(present, rdms - rdms.nanmean(0), 0.0)
        noise = (centred.square().sum(0) / (counts - 1).clamp_min(1)).sqrt()
        noise = torch.where(several, noise, noise[several].mean())
    if not noise.mean() > 0:
        return torch.ones_like(noise)
    weights = (noise + NOISE_SHARE * noise.mean()) ** -NOISE_POWER
    return weights / weights.mean()


def rdm_loss(
    predicted: Float[Tensor, "entry column"],
    measured: Float[Tensor, "subject entry"],
    weights: Float[Tensor, "entry column"],
    loss: Loss,
) -> Float[Tensor, " column"]:
    """Weighted reconstruction error of the RDMs of all subjects by one prediction, per column.

    l1, mse: mean over subjects and pairs (paper). correlation (ours): 1 - weighted Pearson r with the subjects' mean RDM, which
    leaves gain and offset of the prediction free. Missing pairs (NaN) are left out; a mean is over the subjects that have one.
    Where no pair is left, the loss does not depend on the scales.
    """
    present = torch.isfinite(measured)
    if loss == "correlation":
        weights = weights * present.any(0)[:, None]
        total = weights.sum(0).clamp_min(1e-30)
        mean = (measured.mean(0) if present.all() else measured.nanmean(0).nan_to_num())[:, None]
        ours = predicted - (weights * predicted).sum(0) / total
        theirs = mean - (weights * mean).sum(0) / total
        spread = ((weights * ours.square()).sum(0) * (weights * theirs.square()).sum(0)).clamp_min(1e-30).sqrt()
        return 1 - (weights * ours * theirs).sum(0) / spread
    error = torch.zeros_like(predicted)
    for subject, has in zip(measured, present, strict=True):
        gap = torch.where(has[:, None], predicted - subject.nan_to_num()[:, None], 0.0)
        error = error + (gap.abs() if loss == "l1" else gap.square())
    return (weights * error).sum(0) / (weights * present.sum(0)[:, None]).sum(0).clamp_min(1e-30)


def identity_penalty(scales: Float[Tensor, "scale column"]) -> Float[Tensor, " column"]:
    """Mean of (b - 1)^2: pulls every scale to the identity."""
    return (scales - 1).square().mean(0)


def group_penalty(scales: Float[Tensor, "scale column"], stage: Int[Tensor, " scale"]) -> Float[Tensor, " column"]:
    """Mean over stages of the root mean square scale (group lasso): can silence whole stages."""
    counts = torch.bincount(stage).clamp_min(1).to(scales)
    sums = scales.new_zeros(len(counts), scales.shape[1]).index_add(0, stage, scales.square())
    return (sums / counts[:, None] + 1e-12).sqrt().mean(0)


def stage_mean_penalty(scales: Float[Tensor, "scale column"], stage: Int[Tensor, " scale"]) -> Float[Tensor, " column"]:
    """Mean of (b - mean b of the stage)^2: shrinks the channels of a stage to one common scale."""
    counts = torch.bincount(stage).clamp_min(1).to(scales)
    means = scales.new_zeros(len(counts), scales.shape[1]).index_add(0, stage, scales) / counts[:, None]
    return (scales - means[stage]).square().mean(0)
