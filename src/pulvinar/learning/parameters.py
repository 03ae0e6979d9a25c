"""Refusal of wrong constructor arguments, in scikit-learn's words and as one of its errors."""

from typing import Any

import numpy as np
from sklearn.utils._param_validation import InvalidParameterError, validate_parameter_constraints

from pulvinar.core.errors import InputError


class ParameterError(InputError, InvalidParameterError):
    """A constructor argument that does not fit; ValueError and TypeError, as scikit-learn's own."""


class _Truth:
    """A truth value where no truth value fits: to Python it is the number 0 or 1."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __repr__(self) -> str:
        return repr(self.value)


def check_parameters(estimator: Any) -> None:
    """Raise `ParameterError` for the first argument that is none of its `_parameter_constraints`: what came, and what fits."""
    constraints, values = estimator._parameter_constraints, estimator.get_params(deep=False)
    for name, value in values.items():
        if isinstance(value, bool | np.bool_) and "boolean" not in constraints[name]:
            values[name] = _Truth(value)
    try:
        validate_parameter_constraints(constraints, values, caller_name=type(estimator).__name__)
    except InvalidParameterError as error:
        raise ParameterError(str(error)) from error


def refuse_parameter(estimator: Any, name: str, wanted: str) -> ParameterError:
    """The error for a value that is of the right type, in the same words."""
    return ParameterError(
        f"The {name!r} parameter of {type(estimator).__name__} must be {wanted}. Got {getattr(estimator, name)!r} instead."
    )
