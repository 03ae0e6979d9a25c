"""RidgeEncoder: responses of voxels from features of images, with a penalty (and a layer) per voxel."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, check_cv
from sklearn.utils import check_array, check_consistent_length, check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _get_feature_names, check_is_fitted, validate_data

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.array_files import single_precision
from pulvinar.encoding.encoder import ALPHAS, best_layers
from pulvinar.learning.inputs import checked_names, listed, refuse_masked, rows_of_fold
from pulvinar.learning.parameters import check_parameters, refuse_parameter
from pulvinar.linear import ridge, ridge_layer
from pulvinar.linear.banded_ridge import BandedRidge, fit_banded
from pulvinar.scores.encoding import correlations, varying

LayerChoice = Literal["voxel", "roi", "single", "concatenated", "banded"]
CHOICES = ("voxel", "roi", "single", "concatenated", "banded")


class RidgeEncoder(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression from image features to voxels; alpha per voxel, and with several layers a layer per voxel or ROI.

    One eigendecomposition per layer and fold serves all alphas and voxels (formulas: `pulvinar.linear.ridge`). Where features
    outnumber images the kernel form is used. What is computed in float64 is float64 where X is, float32 where X is float32.

    Parameters
    ----------
    alphas : float or iterable of float, default=(0.1, 1, ..., 1e11)
        Penalties to choose from, on the squared weights, in units of the features' sum of squares over images. Any iterable; an
        iterator is kept as the tuple of its values.
    cv : int, "loo" or splitter, default=5
        Folds that choose alpha and layer: a number (consecutive folds, unshuffled, as himalaya and scikit-learn; with `groups`
        of `fit` scikit-learn's GroupKFold), "loo" for leave-one-out in closed form, a scikit-learn splitter, which gets
        `groups`, or an iterable of (train, held out). The score is minus the squared error, averaged over folds.
    fit_intercept : bool, default=True
    layer : {"voxel", "roi", "single", "concatenated", "banded"}, default="voxel"
        With several layers (X a list of arrays): which one predicts. The best of each voxel; of each ROI (`rois` of `fit`), by
        the mean over its voxels of the error in units of their variance; of all voxels together; or all layers in one
        ridge; or banded ridge, a penalty per layer and voxel (himalaya; `best_alphas_` are then over the sum of the shares).
    n_components : int or None, default=None
        Keep this many principal components of the training images before the ridge, computed anew in each fold (where they
        are few, among somewhat more leading components of all images of `fit`: `pulvinar.linear.ridge_layer`).
    n_draws : int, default=50
        Draws of layer shares, for banded ridge.
    voxels_per_block : int, default=4096
        Voxels in memory at a time.
    device : str, default="cpu"
        A torch device.
    random_state : int, RandomState instance or None, default=0
        Seed of the draws of banded ridge; nothing else is random.

    Attributes
    ----------
    best_alphas_ : ndarray of shape (n_voxels,)
    best_layers_ : ndarray of shape (n_voxels,)
        Place of the chosen layer; 0 throughout for a single, concatenated or banded fit.
    cv_scores_ : ndarray of shape (n_voxels,)
        Cross-validated score at the choice: chosen and reported on the same folds, hence optimistic.
    layer_scores_ : ndarray of shape (n_layers, n_voxels)
        The best score of each layer.
    shares_ : ndarray of shape (n_layers, n_voxels)
        Of a banded fit, the share of each layer.
    intercept_ : ndarray of shape (n_voxels,)
    coef_ : ndarray of shape (n_voxels, n_features)
        Computed when asked for; features of all layers side by side.
    n_features_in_ : int
        Features of all layers together.
    feature_names_in_ : ndarray of str
        One per feature, where X (or every layer) has names.

    Examples
    --------
    >>> import numpy as np
    >>> from pulvinar.estimators import RidgeEncoder
    >>> rng = np.random.default_rng(0)
    >>> X, W = rng.standard_normal((200, 10)), rng.standard_normal((10, 3))
    >>> encoder = RidgeEncoder(alphas=[0.1, 10, 1000]).fit(X, X @ W)
    >>> encoder.best_alphas_.tolist()
    [0.1, 0.1, 0.1]
    """

    # where scikit-learn routes metadata, `groups` is asked for: a fit that never hears of runs would leak in silence
    __metadata_request__fit: ClassVar[dict[str, bool]] = {"groups": True}
    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "alphas": [Interval(Real, 0, None, closed="neither"), Iterable],
        "cv": ["cv_object", StrOptions({"loo"})],
        "fit_intercept": ["boolean"],
        "layer": [StrOptions(set(CHOICES))],
        "n_components": [Interval(Integral, 1, None, closed="left"), None],
        "n_draws": [Interval(Integral, 1, None, closed="left")],
        "voxels_per_block": [Interval(Integral, 1, None, closed="left")],
        "device": [str, torch.device],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        alphas: float | Iterable[float] = ALPHAS,
        *,
        cv: Any = 5,
        fit_intercept: bool = True,
        layer: LayerChoice = "voxel",
        n_components: int | None = None,
        n_draws: int = 50,
        voxels_per_block: int = 4096,
        device: str = "cpu",
        random_state: Any = 0,
    ) -> None:
        self.alphas = tuple(alphas) if isinstance(alphas, Iterator) else alphas  # an iterator has one walk in it
        self.cv = cv
        self.fit_intercept = fit_intercept
        self.layer = layer
        self.n_components = n_components
        self.n_draws = n_draws
        self.voxels_per_block = voxels_per_block
        self.device = device
        self.random_state = random_state

    def fit(self, X: Any, y: Any, rois: Any = None, groups: Any = None) -> Self:
        """Choose alpha (and layer) of every voxel by cross-validation, then fit all images.

        X: features (image, feature), or a list of such arrays, one per layer. y: responses (image, voxel) or (image,).
        rois: a label per voxel, for layer="roi". groups: (image,), such as runs, or pictures that images are crops or repeats
        of; images of a group are on one side of every fold of `cv`. Raises ValueError (`InputError`) for what cannot be used.
        """
        alphas = self._checked_settings()
        self._sizes: list[int] = []
        self._banded: BandedRidge | None = None
        self._given_list = _is_list(X)
        refuse_masked(X=X, y=y)
        layers = self._checked_layers(X, reset=True)
        if y is None:
            raise InputError("RidgeEncoder requires y to be passed, but the target y is None")
        y = check_array(y, dtype=[np.float64, np.float32], ensure_2d=False, allow_nd=True, input_name="y")
        if layers[0].dtype == np.float32:
            y = single_precision(y.reshape(len(y), -1), "y").reshape(y.shape)
        y = y.astype(layers[0].dtype, copy=False)
        if y.ndim > 2:
            raise InputError(f"y: (image, voxel) is needed, {y.shape} came")
        check_consistent_length(layers[0], y)
        self._flat = y.ndim == 1
        responses = y.reshape(len(y), -1)
        sharing, folds = self._checked_rois(rois, responses.shape[1]), self._folds(layers[0], responses, groups)
        if folds is not None and self.layer == "banded":
            return self._fit_banded(layers, responses, alphas, folds)
        return self._fit_ridge(layers, _tensor(responses), torch.from_numpy(alphas), sharing, folds)

    def _checked_settings(self) -> np.ndarray:
        """The alphas, ascending, of settings that go together."""
        check_parameters(self)
        alphas = self._sorted_alphas()
        if self.layer == "banded" and isinstance(self.cv, str):
            raise InputError("cv: banded ridge is searched over folds, not by leave-one-out in closed form; give a number")
        if self.n_components is not None and (self.layer == "banded" or isinstance(self.cv, str)):
            what = "banded ridge" if self.layer == "banded" else "leave-one-out in closed form"
            raise InputError(f"n_components: {what} keeps all components, {self.n_components} came; give none, or folds")
        try:
            torch.empty(0, device=self.device)
        except (RuntimeError, AssertionError) as error:
            raise refuse_parameter(self, "device", f"a device of torch that is here ({str(error).splitlines()[0]})") from error
        return alphas

    def _sorted_alphas(self) -> np.ndarray:
        given = listed(self.alphas)
        try:
            alphas = np.array(given, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise refuse_parameter(self, "alphas", "numbers above 0") from error
        bad = alphas.ndim != 1 or not len(alphas) or not (np.isfinite(alphas) & (alphas > 0)).all()
        if bad or any(isinstance(alpha, str | bool | np.bool_) for alpha in given) or isinstance(self.alphas, str | bytes):
            raise refuse_parameter(self, "alphas", "one or more finite numbers above 0 (a row of them)")
        return np.sort(alphas)

    def _checked_layers(self, X: Any, *, reset: bool) -> list[np.ndarray]:
        """The layers as arrays of one floating type, with as many images each, and the features that were fitted."""
        if isinstance(X, Mapping):
            raise InputError(f"X: one array, or a list of layers, is needed; a mapping of {', '.join(map(str, X))} came")
        if not _is_list(X):
            if not reset and self._given_list and len(self._sizes) > 1:
                raise InputError(f"X: a list of {len(self._sizes)} layers is needed, as in fit; {type(X).__name__} came")
            layers = [validate_data(self, X, reset=reset, dtype=[np.float64, np.float32], ensure_min_samples=2 if reset else 1)]
        else:
            layers = self._checked_list(X, reset=reset)
        sizes = [values.shape[1] for values in layers]
        if reset:
            self._sizes = sizes
        elif sizes != self._sizes:
            raise InputError(f"X: layers of {self._sizes} features were fitted, {sizes} came")
        return layers

    def _checked_list(self, X: Sequence[Any], *, reset: bool) -> list[np.ndarray]:
        layers = [
            check_array(values, dtype=[np.float64, np.float32], input_name=f"X, layer {number}")
            for number, values in enumerate(X)
        ]
        check_consistent_length(*layers)
        dtype = np.result_type(*layers)
        if reset and len(layers[0]) < 2:
            raise InputError("X: 2 images or more are needed")
        names = [_get_feature_names(values) for values in X]
        if reset:
            self._layer_names = names
            self.n_features_in_ = sum(values.shape[1] for values in layers)
            self.__dict__.pop("feature_names_in_", None)
            if all(of_layer is not None for of_layer in names):
                self.feature_names_in_ = np.concatenate(names)
        elif self._given_list:
            for number, (fitted, came) in enumerate(zip(self._layer_names, names, strict=False)):
                if fitted is not None and came is not None and list(fitted) != list(came):
                    raise InputError(
                        f"X, layer {number}: The feature names should match those that were passed during fit, in their order; "
                        f"{list(came[:3])} came, {list(fitted[:3])} were fitted"
                    )
        return [values.astype(dtype, copy=False) for values in layers]

    def _checked_rois(self, rois: Any, n_voxels: int) -> np.ndarray:
        """A group of voxels that shares a layer, per voxel."""
        if self.layer != "roi":
            if rois is not None:
                warnings.warn(f"rois: they count with layer='roi' only, not with {self.layer!r}", UserWarning, stacklevel=3)
            return np.zeros(n_voxels, np.int64) if self.layer == "single" else np.arange(n_voxels)
        if rois is None:
            raise InputError("rois: layer='roi' needs a label per voxel (fit(X, y, rois=...)), none came")
        return np.unique(checked_names(rois, n_voxels, argument="rois", what="voxel"), return_inverse=True)[1]

    def _folds(self, X: np.ndarray, responses: np.ndarray, groups: Any) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """Training and held-out images of each fold; None for leave-one-out."""
        if groups is not None:
            groups = checked_names(groups, len(X), argument="groups", what="image")
        if isinstance(self.cv, str):
            if groups is not None:
                raise InputError("groups: leave-one-out in closed form holds out single images; give cv=LeaveOneGroupOut()")
            return None
        count = self.cv is None or isinstance(self.cv, Integral)
        splitter = check_cv(GroupKFold(self.cv or 5) if count and groups is not None else self.cv)
        folds = [
            (rows_of_fold(train, len(X)), rows_of_fold(held_out, len(X)))
            for train, held_out in splitter.split(X, responses, groups)
        ]
        if not folds:
            raise InputError("cv: one fold or more is needed, none came")
        for train, held_out in folds:
            if not len(train) or not len(held_out):
                raise InputError("cv: a fold has no training or no held-out images")
            if shared := np.intersect1d(train, held_out).tolist():
                raise InputError(
                    f"cv: a fold has {len(shared)} images on both sides (first image {shared[0]}); alpha would be chosen on "
                    "images that were fitted"
                )
            if groups is not None and np.isin(groups[train], groups[held_out]).any():
                warnings.warn("groups: the folds of cv have images of one group on both sides", UserWarning, stacklevel=3)
                break
        return folds

    def _fit_ridge(
        self,
        layers: list[np.ndarray],
        responses: torch.Tensor,
        alphas: torch.Tensor,
        sharing: np.ndarray,
        rows: list[tuple[np.ndarray, np.ndarray]] | None,
    ) -> Self:
        if self.layer == "concatenated":
            layers = [np.concatenate(layers, axis=1)]
        folds = None if rows is None else [(self._on_device(train), self._on_device(held_out)) for train, held_out in rows]
        n_voxels = responses.shape[1]
        blocks = blocks_of(n_voxels, self.voxels_per_block)
        scores, places = np.empty((len(layers), n_voxels)), np.empty((len(layers), n_voxels), np.int64)
        ready: dict[int, ridge_layer.Layer] = {}  # layers that are small enough to keep for the last fit

        def read(block: slice) -> torch.Tensor:
            return responses[:, block].to(self.device)

        for number, values in enumerate(layers):
            layer = self._prepare(values, alphas)
            if len(layers) == 1 or layer.reduction is not None:
                ready[number] = layer
            found = ridge.search(layer, folds, alphas.to(self.device), read, blocks, n_components=self.n_components)
            for block, of_block in found:
                place, best = ridge.best_alpha(of_block.cpu(), alphas)
                places[number, block], scores[number, block] = place.numpy(), best.numpy()
        self.best_layers_ = best_layers(in_units_of_variance(scores, responses.numpy()), sharing)
        chosen = (self.best_layers_, np.arange(n_voxels))
        self.layer_scores_, self.cv_scores_ = scores, scores[chosen]
        self.best_alphas_ = alphas.numpy()[places[chosen]].astype(layers[0].dtype)
        self._refit(layers, responses, ready)
        return self

    def _on_device(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(rows).to(self.device)

    def _prepare(self, values: np.ndarray, alphas: torch.Tensor) -> ridge_layer.Layer:
        features = _tensor(values).to(self.device)
        smallest = float(alphas.min())
        return ridge_layer.prepare(
            features, fit_intercept=self.fit_intercept, smallest_alpha=smallest, n_components=self.n_components
        )

    def _refit(
        self, layers: list[np.ndarray], responses: torch.Tensor, ready: dict[int, ridge_layer.Layer]
    ) -> None:  # fmt: skip
        """All images, each voxel with its layer and alpha."""
        self._fitted: list[_Fitted] = []
        mean = responses.mean(0) if self.fit_intercept else responses.new_zeros(responses.shape[1])
        self._centre = mean.numpy()
        for number, values in enumerate(layers):
            voxels = np.flatnonzero(self.best_layers_ == number)
            if not len(voxels):
                continue
            alphas = torch.from_numpy(self.best_alphas_[voxels])
            layer = ready.pop(number) if number in ready else self._prepare(values, alphas)
            part = ridge.whole(layer, n_components=self.n_components)
            weights = responses.new_empty(len(part.eigenvalues), len(voxels))
            for block in blocks_of(len(voxels), self.voxels_per_block):
                own = (responses[:, voxels[block]] - mean[voxels[block]]).to(self.device)
                projected = ridge.coordinates(part, ridge.moments(layer, part, own)[0])
                weights[:, block] = ridge.weights(part, projected, alphas[block].to(self.device)).cpu()
            self._fitted.append(self._predictor(number, voxels, _tensor(values).to(self.device), layer, part, weights))

    def _predictor(
        self,
        number: int,
        voxels: np.ndarray,
        features: torch.Tensor,
        layer: ridge_layer.Layer,
        part: ridge.Fold,
        weights: torch.Tensor,
    ) -> "_Fitted":
        """What predicts the voxels of a layer, without the features of the fitted images where these are not needed."""
        if layer.kernel:
            return _Fitted(number, voxels, layer, part, None, weights)
        few = len(voxels) < len(weights)
        axes = ridge.axes(layer, part, features=features, weights=weights.to(self.device) if few else None)
        return _Fitted(number, voxels, layer, part, axes, None if few else weights)

    def _fit_banded(
        self,
        layers: list[np.ndarray],
        responses: np.ndarray,
        alphas: np.ndarray,
        folds: list[tuple[np.ndarray, np.ndarray]],
    ) -> Self:
        self._fitted = []
        fitted = fit_banded(
            layers,
            responses,
            alphas,
            folds,
            fit_intercept=self.fit_intercept,
            n_draws=self.n_draws,
            voxels_per_block=self.voxels_per_block,
            seed=seed_of(self.random_state),
        )
        self.best_layers_ = np.zeros(responses.shape[1], np.int64)
        self.best_alphas_, self.cv_scores_, self.shares_ = fitted.alphas, fitted.cv_scores, fitted.shares
        self.layer_scores_ = fitted.cv_scores[None]
        self._banded = fitted
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Predicted responses (image, voxel) of new images; (image,) where y was. X: as in `fit`."""
        check_is_fitted(self)
        layers = self._checked_layers(X, reset=False)
        if self._banded is not None:
            predicted = self._banded.predict(layers)
        else:
            if self.layer == "concatenated":
                layers = [np.concatenate(layers, axis=1)]
            predicted = np.empty((len(layers[0]), len(self._centre)), layers[0].dtype)
            for fitted in self._fitted:
                voxels = fitted.voxels
                own = fitted.predict(_tensor(layers[fitted.number]).to(self.device)).numpy() + self._centre[voxels]
                if len(voxels) == predicted.shape[1]:
                    predicted = own
                else:
                    predicted[:, voxels] = own
        return predicted[:, 0] if self._flat else predicted

    def voxel_scores(self, X: Any, y: Any) -> np.ndarray:
        """Pearson r of predicted and measured responses, per voxel (voxel,); NaN where either is constant."""
        predicted, measured = self._predicted_and_measured(X, y)
        return correlations(predicted, measured)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Mean R2 over the voxels whose responses y vary over these images; a warning says how many do not.

        scikit-learn's R2 of a constant target is 1 or 0, which says nothing about the model. NaN, with a warning, where no
        voxel varies.
        """
        predicted, measured = self._predicted_and_measured(X, y)
        varies = varying(measured)
        if not varies.any():
            warnings.warn(f"y: no voxel varies over these {len(measured)} images; R2 is not defined", UndefinedMetricWarning, 2)
            return float("nan")
        if not varies.all():
            left_out = f"{int((~varies).sum())} of {len(varies)} voxels do not vary over these images"
            warnings.warn(f"y: {left_out} and are left out of the mean R2", UserWarning, stacklevel=2)
        return float(r2_score(measured[:, varies], predicted[:, varies], sample_weight=sample_weight))

    def _predicted_and_measured(self, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Both (image, voxel)."""
        predicted = self.predict(X)
        measured = check_array(y, dtype=[np.float64, np.float32], ensure_2d=False, allow_nd=True, input_name="y")
        check_consistent_length(predicted, measured)
        if measured.reshape(len(measured), -1).shape != predicted.reshape(len(predicted), -1).shape or measured.ndim > 2:
            raise InputError(f"y: responses {predicted.shape} are predicted, {measured.shape} came")
        return predicted.reshape(len(predicted), -1), measured.reshape(len(measured), -1)

    @property
    def coef_(self) -> np.ndarray:
        """Weights of the features (voxel, feature), layers side by side; (feature,) where y was (image,)."""
        check_is_fitted(self)
        ends = np.cumsum([0, *self._sizes])
        if self.layer == "concatenated":
            ends = np.array([0, ends[-1]])
        out = np.zeros((len(self.best_layers_), self.n_features_in_), self.best_alphas_.dtype)
        if self._banded is not None:
            for number, values in enumerate(self._banded.coefficients()):
                out[:, ends[number] : ends[number + 1]] = values.T
        for fitted in self._fitted:
            values = fitted.coefficients().numpy()
            out[fitted.voxels, ends[fitted.number] : ends[fitted.number] + len(values)] = values.T
        return out[0] if self._flat else out

    @property
    def intercept_(self) -> np.ndarray:
        """What is predicted of features that are all zero (voxel,); a number where y was (image,)."""
        check_is_fitted(self)
        zeros = [np.zeros((1, size), self.best_alphas_.dtype) for size in self._sizes]
        return self.predict(zeros if self._given_list else zeros[0])[0]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        return tags


@dataclass(frozen=True, eq=False)
class _Fitted:
    """What predicts the voxels of one layer: by axes, and weights unless they are in the axes, or by the kernel form."""

    number: int
    voxels: np.ndarray
    layer: ridge_layer.Layer
    part: ridge.Fold
    axes: torch.Tensor | None
    weights: torch.Tensor | None

    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """Predicted responses less their mean (image, voxel)."""
        features = features.to(self.layer.mean.dtype)
        if self.axes is None:
            rows = ridge.rows_of(self.layer, self.part, features).cpu()
        else:
            rows = ((features - self.layer.mean) @ self.axes).cpu()
        return rows if self.weights is None else rows @ self.weights

    def coefficients(self) -> torch.Tensor:
        """Weights of the features (feature, voxel)."""
        axes = (ridge.axes(self.layer, self.part) if self.axes is None else self.axes).cpu()
        return axes if self.weights is None else axes @ self.weights


def _is_list(X: Any) -> bool:
    """Whether X is layers, not one array."""
    return isinstance(X, list | tuple) and len(X) > 0 and np.ndim(X[0]) == 2


def in_units_of_variance(scores: np.ndarray, responses: np.ndarray) -> np.ndarray:
    """Scores (layer, voxel) over the voxels' variances; 0 for a voxel that does not vary, so that it has no say in a layer."""
    varies, variance = varying(responses), responses.var(0, dtype=np.float64)
    return np.where(varies, scores / np.where(varies, variance, 1.0), 0.0)


def seed_of(random_state: Any) -> int:
    """The integer itself, or one drawn."""
    return int(random_state) if isinstance(random_state, Integral) else int(check_random_state(random_state).randint(2**31 - 1))


def _tensor(values: np.ndarray) -> torch.Tensor:
    """An array as a tensor, without a copy where it is writable."""
    return torch.from_numpy(np.require(values, requirements=("C", "W")))
