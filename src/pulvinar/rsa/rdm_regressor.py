"""RDMRegressor: scales of features, stage by stage, so that their dissimilarities match measured ones."""

import warnings
from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import scipy.sparse
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import check_is_fitted, validate_data

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.data.dissimilarities import check_rdm
from pulvinar.learning.inputs import checked_names, listed, refuse_masked
from pulvinar.learning.parameters import check_parameters, refuse_parameter
from pulvinar.rsa.aggregation import Layout, MeasuredRDMs, nested_scales
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.rsa.stage_mask import Features, feature_products
from pulvinar.scores.rdm import condense, count_images, expand
from pulvinar.scores.rdm_comparison import ALIASES, METHODS, compare


class RDMRegressor(BaseEstimator):
    """Learn scales of stages, channels or features whose correlation distances match the RDMs of subjects.

    The embedding of an image is the concatenation of the features of all stages, each times its scale; the predicted RDM entry
    is the correlation distance of two embeddings (Gaziv 2019; `pulvinar.rsa.stage_mask` has the formulas). How strongly
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
    identity_weights : iterable of float, default=(0.03, 0.3)
        Pulls to the start that inner folds choose among; 0 for none.
    non_negative : bool, default=False
        Whether scales are kept at 0 or above.
    learning_rate : float, default=0.02
        Of Adam.
    n_steps : int, default=160
        Steps at most; each is over all pairs.
    n_folds : int, default=4
        Folds of images that choose.
    network : pulvinar.networks.staged.StagedNetwork, default=None
        The network that turns images into features, where X is images.
    pool : int, default=4
        Where X is images: maps are averaged to pool x pool places; 0 leaves them.
    comparison : str, default="spearman"
        What `score` compares RDMs by, one of `pulvinar.scores.rdm_comparison.METHODS`: tau-a and tau-b, for example. Inner
        folds always choose by Spearman.
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
    n_missing_pairs_ : ndarray of shape (n_subjects,)
        Pairs that a subject's RDM does not have (NaN). They are left out.

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

    # where scikit-learn routes metadata, `groups` is asked for: a fit that never hears of them would leak in silence
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "resolution": [StrOptions({"stage", "channel", "feature"})],
        "loss": [StrOptions({"correlation", "l1", "mse"})],
        "balance": [StrOptions({"none", "stage", "channel"})],
        "centring": [StrOptions({"embedding", "channel"})],
        "use_reliability": ["boolean"],
        "identity_weights": [Interval(Real, 0, np.inf, closed="left"), Iterable],
        "non_negative": ["boolean"],
        "learning_rate": [Interval(Real, 0, np.inf, closed="neither")],
        "n_steps": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "network": [callable, None],
        "pool": [Interval(Integral, 0, None, closed="left")],
        "comparison": [StrOptions({*METHODS, *ALIASES})],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        *,
        resolution: Literal["stage", "channel", "feature"] = "channel",
        loss: Literal["correlation", "l1", "mse"] = "correlation",
        balance: Literal["none", "stage", "channel"] = "none",
        centring: Literal["embedding", "channel"] = "embedding",
        use_reliability: bool = True,
        identity_weights: float | Iterable[float] = (0.03, 0.3),
        non_negative: bool = False,
        learning_rate: float = 0.02,
        n_steps: int = 160,
        n_folds: int = 4,
        network: Any = None,
        pool: int = 4,
        comparison: str = "spearman",
        random_state: Any = 0,
    ) -> None:
        self.resolution = resolution
        self.loss = loss
        self.balance = balance
        self.centring = centring
        self.use_reliability = use_reliability
        self.identity_weights = tuple(identity_weights) if isinstance(identity_weights, Iterator) else identity_weights
        self.non_negative = non_negative
        self.learning_rate = learning_rate
        self.n_steps = n_steps
        self.n_folds = n_folds
        self.network = network
        self.pool = pool
        self.comparison = comparison
        self.random_state = random_state

    def fit(self, X: Any, y: Any, groups: Any = None) -> Self:
        """Learn the scales.

        X: per stage an array (image, feature) or (image, channel, height, width), as a list or a dict by name; one array
        (image, feature) is a single stage; or images, uint8 (image, height, width, 3) or a list of them, where `network` is
        given. y: RDMs (subject, image, image) or one (image, image), or condensed ones as squareform and rsatoolbox have
        them, (subject, pair) or (pair,), pairs in the order (0, 1), (0, 2), ..., (1, 2), .... NaN is a pair that was not
        measured: it is left out, and so is the diagonal. groups: (image,), such as source pictures; images of a group are
        never on both sides of an inner fold.

        Raises ValueError (`InputError`, `DegenerateError`) for values that cannot be used.
        """
        identity_weights = self._checked_settings()
        refuse_masked(X=list(X.values()) if isinstance(X, Mapping) else X, y=y)
        maps = self._maps(X, reset=True)
        features = self._products(maps)
        rdms = _measured(y, features.n_images)
        self.n_missing_pairs_ = torch.isnan(rdms[:, 0]).sum(1).numpy()
        if self.n_missing_pairs_.any():
            n_pairs = rdms.shape[-1]
            warnings.warn(
                f"y: {int(self.n_missing_pairs_.sum())} of {n_pairs * len(rdms)} pairs are missing (NaN; at most "
                f"{int(self.n_missing_pairs_.max())} of {n_pairs} in a subject) and are left out",
                UserWarning,
                stacklevel=2,
            )
        names = [str(row) for row in range(features.n_images)]
        if groups is not None:
            names = [str(name) for name in checked_names(groups, features.n_images, argument="groups", what="image")]
        measured = MeasuredRDMs(rdms, time_sampling="average", use_reliability=self.use_reliability)
        config = AggregationConfig(
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
            loss=self.loss,
            learning_rate=self.learning_rate,
            epochs=self.n_steps,
            non_negative=self.non_negative,
            identity_weights=tuple(identity_weights),
            n_inner_folds=self.n_folds,
        )
        found = nested_scales(
            {"": Layout(variants=[features], balance=self.balance)},
            [measured],
            torch.ones(features.n_images, 1, dtype=torch.bool),
            names,
            config,
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
        maps = self._maps(X, reset=False)
        shapes = {name: tuple(values.shape[1:]) for name, values in maps.items()}
        if shapes != self._shapes:
            raise InputError(f"X: stages of {self._shapes} were fitted, {shapes} came")
        maps = {name: maps[name] for name in self._shapes}  # stages are known by name, in whatever order they come
        condensed = self._products(maps).rdm(self._flat_scales[:, None])[:, 0]
        return expand(condensed.double()).clamp(0, 2).numpy()

    def score(self, X: Any, y: Any) -> float:
        """Mean over subjects of the signed similarity (`comparison`) of the predicted with the measured RDM, in [-1, 1].

        A subject's missing pairs (NaN) are left out.
        """
        check_parameters(self)
        square = self.predict(X)
        predicted, rdms = condense(torch.from_numpy(square)), _measured(y, len(square))[:, 0]
        return float(np.mean([_similarity(predicted, rdm, self.comparison) for rdm in rdms]))

    def _checked_settings(self) -> tuple[float, ...]:
        """The identity weights, of settings that fit."""
        check_parameters(self)
        given = listed(self.identity_weights)
        fits = [isinstance(value, Real) and not isinstance(value, bool) and 0 <= float(value) < np.inf for value in given]
        if not given or not all(fits):
            raise refuse_parameter(self, "identity_weights", "one or more numbers of 0 or more")
        return tuple(float(value) for value in given)

    def _maps(self, X: Any, *, reset: bool) -> dict[str, torch.Tensor]:
        """Stage -> (image, channel, height, width), float64 but for maps of single precision."""
        if self.network is not None:
            from pulvinar.networks.staged import extract

            return {name: torch.from_numpy(values) for name, values in extract(self.network, X, pool=self.pool or None).items()}
        if getattr(X, "ndim", 0) == 4:
            return {"stage 1": _as_maps("stage 1", X)}
        if _is_table(X):
            X = validate_data(self, X, reset=reset, dtype=(np.float64, np.float32), ensure_min_samples=3 if reset else 2)
            return {"stage 1": _as_maps("stage 1", X)}
        self.__dict__.pop("feature_names_in_", None)
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


def _is_table(X: Any) -> bool:
    """Whether X is one array (image, feature), of whatever kind, and no collection of stages."""
    if isinstance(X, Mapping) and not scipy.sparse.issparse(X):
        return False
    if isinstance(X, list | tuple):
        return len(X) > 0 and np.ndim(X[0]) == 1
    return bool(getattr(X, "ndim", 2) <= 2)


def _as_maps(name: str, values: Any) -> torch.Tensor:
    array = np.asarray(values)
    if array.ndim not in (2, 4) or array.dtype.kind not in "fiu" or array.dtype == np.uint8:
        raise InputError(
            f"X, {name}: (image, feature) or (image, channel, height, width) is needed, {array.dtype} {array.shape} came"
            + ("; give `network` to fit images" if array.dtype == np.uint8 else "")
        )
    single = array.ndim == 4 and array.dtype in (np.float16, np.float32)  # maps are large
    array = array.astype(np.float32 if single else np.float64)  # products lose what stands far from 0
    return torch.from_numpy(array.reshape(*array.shape, *(1,) * (4 - array.ndim)))


def _measured(y: Any, n_images: int) -> torch.Tensor:
    """(subject, 1, pair), NaN where a pair is missing."""
    if y is None:
        raise InputError("RDMRegressor requires y to be passed, but the target y is None")
    given = np.asarray(y)
    if isinstance(y, Mapping) or given.dtype.kind not in "biufO":
        what = f"a mapping of {', '.join(map(str, y))}" if isinstance(y, Mapping) else str(given.dtype)
        raise InputError(f"y: an array or a list of RDMs of numbers is needed, {what} came")
    rdms = given.astype(np.float64)
    if rdms.ndim in (1, 2) and not (rdms.ndim == 2 and rdms.shape[0] == rdms.shape[1]):
        rdms = rdms.reshape(-1, rdms.shape[-1])
        if rdms.shape[1] != n_images * (n_images - 1) // 2:
            raise InputError(f"y: {_shape_hint(rdms.shape[1])} for features of {n_images} images")
        rdms = expand(torch.from_numpy(rdms)).numpy()
    rdms = rdms[None] if rdms.ndim == 2 else rdms
    if rdms.ndim != 3:
        raise InputError(f"y: RDMs (subject, image, image) or (image, image) are needed, {rdms.shape} came")
    whole = [_condensed(rdm, f"y, subject {subject}") for subject, rdm in enumerate(rdms)]
    if rdms.shape[-1] != n_images:
        raise InputError(f"y: RDMs over {rdms.shape[-1]} images for features of {n_images} images")
    return torch.stack(whole)[:, None]


def _shape_hint(n_pairs: int) -> str:
    try:
        return f"condensed RDMs over {count_images(n_pairs)} images"
    except InputError:
        return f"rows of {n_pairs}, which are neither square nor condensed RDMs,"


def _condensed(rdm: np.ndarray, name: str) -> torch.Tensor:
    """(pair,) of a square RDM; one side of a pair stands for both, and the diagonal may be missing."""
    if rdm.ndim != 2 or rdm.shape[0] != rdm.shape[1]:
        raise InputError(f"{name}: a square matrix is needed, {rdm.shape} came")
    missing = np.isnan(rdm)
    rdm = np.where(missing, rdm.T, rdm)
    rdm = np.where(np.eye(len(rdm), dtype=bool) & np.isnan(rdm), 0.0, rdm)
    missing = np.isnan(rdm)
    present = rdm[~missing & ~np.eye(len(rdm), dtype=bool)]
    if len(present) < 2 * 3:
        raise DegenerateError(f"{name}: {len(present) // 2} pairs were measured (others are NaN); 3 or more are needed")
    check_rdm(np.where(missing, present.mean(), rdm), name)
    return condense(torch.from_numpy(rdm))


def _similarity(predicted: torch.Tensor, measured: torch.Tensor, method: str) -> float:
    """Over the pairs that were measured."""
    present = torch.isfinite(measured)
    if not bool(present.all()) and method.startswith("whitened"):
        raise InputError(f"y: {int((~present).sum())} pairs are missing, and {method} needs all")
    return float(compare(predicted[present], measured[present], method=method))
