"""Decoder: an image embedding from responses of voxels, by the network of cross_subject_decoder for one subject."""

import warnings
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils._param_validation import Interval
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from pulvinar.core.config import LARGEST_SEED, build
from pulvinar.core.errors import ConfigError, DegenerateError, InputError
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.inputs import refuse_masked
from pulvinar.learning.loop import seeded
from pulvinar.learning.parameters import ParameterError, check_parameters
from pulvinar.networks.decoder import Decoded, SharedDecoder, input_layer

ROWS_AT_ONCE = 1024


class Decoder(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """A linear layer on the voxels, a residual MLP that starts linear, a projector for retrieval and a head for regression.

    Trained with BiMixCo, then SoftCLIP, plus squared error (formulas: docs/methods/cross_subject_decoder.md). Responses are
    z-scored, embeddings centred and brought to unit spread, both by what `fit` was given.

    Parameters
    ----------
    hidden : int, default=256
        Width of the network.
    n_blocks : int, default=2
        Residual blocks.
    dropout : float, default=0.15
    epochs : int, default=40
        Passes over the trials; MixCo in the first third, SoftCLIP afterwards.
    batch_size : int, default=24
    learning_rate : float, default=1e-3
        Peak of the one-cycle schedule of AdamW.
    weight_decay : float, default=0.05
        Not on biases and norms.
    temperature : float, default=0.2
        Of BiMixCo and SoftCLIP.
    prior_weight : float, default=5.0
        Weight of the squared error beside the contrastive loss.
    random_state : int, default=0
        Initial weights, order of trials, mixing, dropout.

    Attributes
    ----------
    n_features_in_ : int
        Voxels.
    losses_ : list of float
        Mean loss of each epoch.

    Examples
    --------
    >>> import numpy as np
    >>> from pulvinar.estimators import Decoder
    >>> rng = np.random.default_rng(0)
    >>> embedding = rng.standard_normal((120, 6))
    >>> responses = embedding @ rng.standard_normal((6, 40)) + 0.5 * rng.standard_normal((120, 40))
    >>> decoder = Decoder(hidden=32, epochs=20).fit(responses[:100], embedding[:100])
    >>> decoder.score(responses[100:], embedding[100:]) > 0.5
    True
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        "hidden": [Interval(Integral, 1, None, closed="left")],
        "n_blocks": [Interval(Integral, 0, None, closed="left")],
        "dropout": [Interval(Real, 0, 1, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, np.inf, closed="neither")],
        "weight_decay": [Interval(Real, 0, np.inf, closed="left")],
        "temperature": [Interval(Real, 0, np.inf, closed="neither")],
        "prior_weight": [Interval(Real, 0, np.inf, closed="left")],
        "random_state": [Interval(Integral, 0, LARGEST_SEED, closed="left")],
    }

    def __init__(
        self,
        hidden: int = 256,
        *,
        n_blocks: int = 2,
        dropout: float = 0.15,
        epochs: int = 40,
        batch_size: int = 24,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.05,
        temperature: float = 0.2,
        prior_weight: float = 5.0,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.n_blocks = n_blocks
        self.dropout = dropout
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.prior_weight = prior_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Self:
        """Train on responses X (trial, voxel) and embeddings y (trial, dim), (trial, token, dim) or (trial,).

        Numbers (trial,) are a quantity, never classes: a warning comes where they look like classes. Raises ValueError
        (`InputError`, `DegenerateError`) for what cannot be used or learned from.
        """
        settings = self._settings()
        refuse_masked(X=X, y=y)
        X = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        target = self._targets(y)
        check_consistent_length(X, target)
        _warn_of_classes(target)
        self._shape = target.shape[1:]
        flat = target.reshape(len(target), -1)
        self._mean = flat.mean(0)
        self._spread = float(np.sqrt(np.mean((flat - self._mean) ** 2)))
        if not self._spread > 0:
            raise DegenerateError("y: the embedding is the same in all trials")
        self._voxel_mean, sd = X.mean(0, dtype=np.float64), X.std(0, dtype=np.float64)
        self._voxel_sd = np.where(sd > 0, sd, 1.0)
        n_tokens = self._shape[0] if len(self._shape) == 2 else 1
        generator = seeded(int(self.random_state))
        shared = SharedDecoder(settings.shape(n_tokens=n_tokens, dim=flat.shape[1] // n_tokens))
        shared.initialise(generator)
        layer = input_layer(X.shape[1], settings.hidden, generator, scale=settings.input_scale)
        data = [(self._standardised(X).float(), torch.from_numpy((flat - self._mean) / self._spread).float())]
        trainer = DecoderTrainer(shared, [layer], data, settings, generator, train_shared=True, device=_CPU)
        self.losses_ = [record["loss"] for record in trainer.run()]
        self._network, self._layer = shared.double(), layer.double()  # so that a row's numbers hardly depend on its batch
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Embeddings on the scale of y, in its shape: those of the regression head."""
        flat = np.concatenate([part.regressed.numpy() for part in self._decoded(X)]) * self._spread + self._mean
        return flat.reshape(len(flat), *self._shape)

    def project(self, X: Any) -> np.ndarray:
        """The embeddings to look up images with, (trial, token x dim), to be compared by cosine with centred ones."""
        return np.concatenate([part.projected.numpy() for part in self._decoded(X)])

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Retrieval top-1: the share of trials whose own embedding, of all rows of y, is closest to theirs (cosine)."""
        if sample_weight is not None:
            raise InputError("sample_weight: retrieval has none")
        projected, target = self.project(X), self._targets(y)
        true = target.reshape(len(target), -1)
        if true.shape != projected.shape:
            raise InputError(f"y: {true.shape} numbers for predictions of {projected.shape}; a row per trial is needed")
        cosines = np.round(_unit(projected) @ _unit(true - self._mean).T, 12)
        right = cosines.diagonal()
        first = (cosines <= right[:, None]).all(1)
        return float((first / (cosines == right[:, None]).sum(1)).mean())  # equal embeddings share the first place

    @torch.no_grad()
    def _decoded(self, X: Any) -> list[Decoded]:
        check_is_fitted(self, "losses_")
        X = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        return [self._network(self._layer(rows)) for rows in self._standardised(X).split(ROWS_AT_ONCE)]

    def _standardised(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy((X.astype(np.float64) - self._voxel_mean) / self._voxel_sd)

    def _targets(self, y: Any) -> np.ndarray:
        if y is None:
            raise InputError("Decoder requires y to be passed, but the target y is None")
        target = check_array(y, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="y")
        if target.ndim > 3:
            raise InputError(f"y: (trial, dim) or (trial, token, dim) is needed, {target.shape} came")
        return target

    def _settings(self) -> DecodingSettings:
        check_parameters(self)
        given = {name: value for name, value in self.get_params().items() if name not in ("random_state", "temperature")}
        temperatures = {"temperature": self.temperature, "soft_temperature": self.temperature}
        try:
            return build(DecodingSettings, {**given, **temperatures, "seed": int(self.random_state)}, name="Decoder")
        except ConfigError as error:
            raise ParameterError(str(error).replace("decoding.", "Decoder.")) from error

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # top-1 among many is no R2
        return tags


def _warn_of_classes(target: np.ndarray) -> None:
    """Whole numbers that repeat are often codes of classes, and the distance between codes means nothing."""
    values = np.unique(target)
    if target[0].size == 1 and len(values) <= len(target) / 2 and (values == np.round(values)).all():
        warnings.warn(
            f"y: {len(values)} different whole numbers are taken as a quantity; for classes give one-hot rows (trial, class), "
            "or an embedding of the stimuli",
            UserWarning,
            stacklevel=3,
        )


_CPU = torch.device("cpu")


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length one; a row of length zero, which has no direction, stays."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1.0)
