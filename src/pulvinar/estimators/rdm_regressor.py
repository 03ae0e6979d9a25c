"""RDMRegressor: scales of features, stage by stage, so that their dissimilarities match measured ones."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from pulvinar.data.dissimilarities import check_rdm
from pulvinar.errors import InputError
from pulvinar.rsa.compare import compare
from pulvinar.rsa.rdm import condense, expand
from pulvinar.selection.stage_mask import Features, feature_products
from pulvinar.training.aggregation import Layout, MeasuredRDMs, ScaleSettings, nested_scales


class RDMRegressor(BaseEstimator):
    """Learn scales of stages, channels or features whose correlation distances match the RDMs of subjects.

    The embedding of an image is the concatenation of the features of all stages, each times its scale; the predicted RDM entry
    is the correlation distance of two embeddings (Gaziv 2019; `pulvinar.selection.stage_mask` has the formulas). How strongly
    scales are pulled to their start, and when training stops, is chosen on held-out images.

    Parameters
    ----------
    resolution : {"stage", "channel", "feature"}, default="channel"
        What has a scale of its own.
    loss : {"correlation", "l1", "mse"}, default="correlation"
        l1 is the paper's.
    balance : {"none", "stage", "channel"}, default="none"
        What has equal variance over the training images at the start.
    centring : {"embedding", "channel"}, default="embedding"
        Pearson over the whole embedding (paper), or every channel centred over its positions.
    use_reliability : bool, default=True
        Pairs on which subjects differ weigh less (the paper's equation 1).
    identity_weights : sequence of float, default=(0.03, 0.3)
        Pulls to the start that inner folds choose among; 0 for none.
    non_negative : bool, default=False
        Whether scales are kept at 0 or above.
    learning_rate : float, default=0.02
        Of Adam.
    n_steps : int, default=160
        Steps at most; each is over all pairs.
    n_folds : int, default=4
        Folds of images that choose.
    backbone : pulvinar.models.backbones.Backbone, default=None
        The network that turns images into features, where X is images.
    pool : int, default=4
        Where X is images: maps are averaged to pool x pool places; 0 leaves them.
    random_state : int, RandomState instance or None, default=0
        Draws the folds. The same integer gives the same scales.

    Attributes
    ----------
    scales_ : list of ndarray
        Per stage, one number for each scale.
    stages_ : tuple of str
        Names of the stages.
    identity_weight_, n_steps_ : float, int
        What the inner folds chose.
    inner_scores_ : dict
        (identity weight, step) -> Spearman correlation with the mean RDM on pairs of held-out images.
    n_features_in_ : int
        Features of all stages together.

    Examples
    --------
    >>> import numpy as np
    >>> from pulvinar.estimators import RDMRegressor
    >>> rng = np.random.default_rng(0)
    >>> early, late = rng.normal(size=(40, 10)), rng.normal(size=(40, 10))
    >>> rdm = 1 - np.corrcoef(early)
    >>> model = RDMRegressor(resolution="stage", n_steps=100).fit([early, late], rdm)
    >>> bool(abs(model.scales_[0][0]) > 3 * abs(model.scales_[1][0]))
    True
    """

    def __init__(
        self,
        *,
        resolution: Literal["stage", "channel", "feature"] = "channel",
        loss: Literal["correlation", "l1", "mse"] = "correlation",
        balance: Literal["none", "stage", "channel"] = "none",
        centring: Literal["embedding", "channel"] = "embedding",
        use_reliability: bool = True,
        identity_weights: Sequence[float] = (0.03, 0.3),
        non_negative: bool = False,
        learning_rate: float = 0.02,
        n_steps: int = 160,
        n_folds: int = 4,
        backbone: Any = None,
        pool: int = 4,
        random_state: Any = 0,
    ) -> None:
        self.resolution = resolution
        self.loss = loss
        self.balance = balance
        self.centring = centring
        self.use_reliability = use_reliability
        self.identity_weights = identity_weights
        self.non_negative = non_negative
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.n_folds = n_folds
        self.backbone = backbone
        self.pool = pool
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Learn the scales.

        X: per stage an array (image, feature) or (image, channel, height, width), as a list or a dict by name; or images, uint8
        (image, height, width, 3) or a list of them, where `backbone` is given. y: RDMs (subject, image, image), or one (image,
        image). groups: (image,), such as source pictures; images of a group are never on both sides of an inner fold.

        Raises ValueError (`InputError`, `DegenerateError`) for values that cannot be used.
        """
        self._check_settings()
        maps = self._maps(X)
        features = self._products(maps)
        rdms = _measured(y, features.n_images)
        names = [str(row) for row in range(features.n_images)] if groups is None else [str(group) for group in groups]
        if len(names) != features.n_images:
            raise InputError(f"groups: one for each of {features.n_images} images is needed, {len(names)} came")
        measured = MeasuredRDMs(rdms, time_sampling="average", use_reliability=self.use_reliability)
        settings = ScaleSettings(
            loss=self.loss,
            learning_rate=self.learning_rate,
            n_steps=self.n_steps,
            record_every=max(1, self.n_steps // 20),
            non_negative=self.non_negative,
        )
        found = nested_scales(
            {"": Layout(variants=[features], balance=self.balance)},
            [measured],
            torch.ones(features.n_images, 1, dtype=torch.bool),
            names,
            settings=settings,
            identity_weights=tuple(self.identity_weights),
            n_folds=self.n_folds,
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )[0]
        self._flat_scales = found.scales
        self.stages_ = features.stages
        self.scales_ = [found.scales[features.stage == place].numpy() for place in range(len(features.stages))]
        self.identity_weight_, self.n_steps_ = found.chosen.identity_weight, found.chosen.step
        self.inner_scores_ = {(part.identity_weight, part.step): score for part, score in found.inner_scores.items()}
        self._shapes = {name: tuple(values.shape[1:]) for name, values in maps.items()}
        self.n_features_in_ = sum(int(np.prod(shape)) for shape in self._shapes.values())
        return self

    def predict(self, X: Any) -> np.ndarray:
        """The predicted RDM of new images: (image, image), symmetric, in [0, 2], zero diagonal."""
        check_is_fitted(self, "scales_")
        maps = self._maps(X)
        shapes = {name: tuple(values.shape[1:]) for name, values in maps.items()}
        if shapes != self._shapes:
            raise InputError(f"X: stages of {self._shapes} were fitted, {shapes} came")
        condensed = self._products(maps).rdm(self._flat_scales[:, None])[:, 0]
        return expand(condensed.double()).clamp(0, 2).numpy()

    def score(self, X: Any, y: Any) -> float:
        """Mean over subjects of the signed Spearman correlation of the predicted with the measured RDM, in [-1, 1]."""
        predicted = condense(torch.from_numpy(self.predict(X)))
        rdms = _measured(y, len(self.predict(X)))
        return float(compare(predicted, rdms[:, 0]).mean())

    def _check_settings(self) -> None:
        for name, least in (("n_steps", 1), ("n_folds", 2), ("pool", 0)):
            if getattr(self, name) < least:
                raise InputError(f"{name}: {least} or more is needed, {getattr(self, name)} came")
        if not len(self.identity_weights) or min(self.identity_weights) < 0:
            raise InputError(f"identity_weights: one or more numbers of 0 or more are needed, {self.identity_weights} came")
        if not self.learning_rate > 0:
            raise InputError(f"learning_rate: above 0 is needed, {self.learning_rate} came")

    def _maps(self, X: Any) -> dict[str, torch.Tensor]:
        """Stage -> float32 (image, channel, height, width)."""
        if self.backbone is not None:
            from pulvinar.models.backbones import extract

            return {
                name: torch.from_numpy(values) for name, values in extract(self.backbone, X, pool=self.pool or None).items()
            }
        named = dict(X) if isinstance(X, Mapping) else {f"stage {place}": values for place, values in enumerate(X, start=1)}
        if not named:
            raise InputError("X: features of one stage or more are needed, none came")
        maps = {name: _as_maps(name, values) for name, values in named.items()}
        counts = {name: len(values) for name, values in maps.items()}
        if len(set(counts.values())) > 1:
            raise InputError(f"X: every stage has the same images, {counts} came")
        return maps

    def _products(self, maps: dict[str, torch.Tensor]) -> Features:
        return feature_products(maps, resolution=self.resolution, centring=self.centring)


def _as_maps(name: str, values: Any) -> torch.Tensor:
    array = np.asarray(values)
    if array.ndim not in (2, 4) or array.dtype.kind not in "fiu" or array.dtype == np.uint8:
        raise InputError(
            f"X, {name}: (image, feature) or (image, channel, height, width) is needed, {array.dtype} {array.shape} came"
            + ("; give `backbone` to fit images" if array.dtype == np.uint8 else "")
        )
    return torch.from_numpy(array.astype(np.float32).reshape(*array.shape, *(1,) * (4 - array.ndim)))


def _measured(y: Any, n_images: int) -> torch.Tensor:
    """(subject, 1, pair)."""
    rdms = np.asarray(y, dtype=np.float64)
    rdms = rdms[None] if rdms.ndim == 2 else rdms
    if rdms.ndim != 3:
        raise InputError(f"y: RDMs (subject, image, image) or (image, image) are needed, {rdms.shape} came")
    for subject, rdm in enumerate(rdms):
        check_rdm(rdm, f"y, subject {subject}")
    if rdms.shape[-1] != n_images:
        raise InputError(f"y: RDMs over {rdms.shape[-1]} images for features of {n_images} images")
    return condense(torch.from_numpy(rdms[:, None]))
