"""The functions of `pulvinar.rsa` for numpy too: arrays in, arrays out; tensors in, tensors out, with their gradients."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch

from pulvinar.scores import rdm, rdm_ceiling, rdm_comparison

P = ParamSpec("P")
R = TypeVar("R")


def _takes_arrays(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, which computes on numpy's arrays of numbers as on tensors; what it gives is an array then."""

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        if not any(_are_numbers(value) for value in (*given, *named.values())):
            return function(*given, **named)
        return _array(function(*map(_tensor, given), **{name: _tensor(value) for name, value in named.items()}))

    return call


def _are_numbers(value: Any) -> bool:
    """Patterns and RDMs, not the codes of conditions and folds, which are whole numbers or texts (observation,)."""
    return isinstance(value, np.ndarray) and (value.dtype.kind == "f" or (value.dtype.kind in "iu" and value.ndim > 1))


def _tensor(value: Any) -> Any:
    if not _are_numbers(value):
        return value
    return torch.from_numpy(np.ascontiguousarray(value if value.dtype.kind == "f" else value.astype(np.float64)))


def _array(value: Any) -> Any:
    return value.numpy(force=True) if isinstance(value, torch.Tensor) else value


condense = _takes_arrays(rdm.condense)
correlation_rdm = _takes_arrays(rdm.correlation_rdm)
crossnobis_rdm = _takes_arrays(rdm.crossnobis_rdm)
euclidean_rdm = _takes_arrays(rdm.euclidean_rdm)
expand = _takes_arrays(rdm.expand)
squared_euclidean_rdm = _takes_arrays(rdm.squared_euclidean_rdm)
squared_mahalanobis_rdm = _takes_arrays(rdm.squared_mahalanobis_rdm)
noise_ceiling = _takes_arrays(rdm_ceiling.noise_ceiling)
compare = _takes_arrays(rdm_comparison.compare)
partial_spearman = _takes_arrays(rdm_comparison.partial_spearman)
