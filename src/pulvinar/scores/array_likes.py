"""The scores of `pulvinar.metrics` for what numpy makes arrays of: lists, tables, tensors, whole numbers.

What an argument must be is read from its annotation: its axes, and whether floats, whole numbers or truth values.
"""

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from typing import Any, get_args, get_origin

import numpy as np
from jaxtyping import AbstractArray

from pulvinar.core.errors import InputError


@functools.cache
def takes_array_likes(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of array-likes. Raises `InputError` where one has other axes or values than its annotation says."""
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        bound = signature.bind(*given, **named)
        seen: dict[str, tuple[str, int]] = {}
        for name, value in bound.arguments.items():
            annotation = signature.parameters[name].annotation
            made = bound.arguments[name] = _made(value, annotation, f"{function.__name__}: {name}")
            if _is_array(annotation):
                _require_one_size(made, annotation, f"{function.__name__}: {name}", seen)
        return function(*bound.args, **bound.kwargs)

    call.__module__ = "pulvinar.metrics"  # where pickle finds it
    return call


def _made(value: Any, annotation: Any, what: str) -> Any:
    if get_origin(annotation) is types.UnionType:  # a number, texts or None stand beside arrays
        arrays = [one for one in get_args(annotation) if _is_array(one)]
        return value if value is None or np.isscalar(value) or not arrays else _made(value, arrays[0], what)
    if get_origin(annotation) is Sequence and _is_array(get_args(annotation)[0]):
        return [_made(one, get_args(annotation)[0], f"{what}[{number}]") for number, one in enumerate(value)]
    if annotation is np.ndarray:
        return np.asarray(value)
    return _array(value, annotation, what) if _is_array(annotation) else value


def _is_array(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, AbstractArray)


def _array(value: Any, annotation: Any, what: str) -> np.ndarray:
    try:
        array = np.asarray(value.detach().cpu() if hasattr(value, "detach") else value)
    except ValueError:
        raise InputError(f"{what} is no array: its rows have different lengths") from None
    axes = annotation.dim_str.split()
    n_named = sum(axis[0] not in ".*" for axis in axes)
    sizes_fit = all(not axis.isdecimal() or axis == str(size) for axis, size in zip(axes, array.shape, strict=False))
    if array.ndim < n_named or (array.ndim > n_named and n_named == len(axes)) or not sizes_fit:
        raise InputError(f"{what} has axes ({', '.join(axes)}); an array of shape {array.shape} came")
    return _of_dtype(array, annotation.dtypes, what)


def _require_one_size(array: np.ndarray, annotation: Any, what: str, seen: dict[str, tuple[str, int]]) -> None:
    """An axis of one name has one size in all arguments. seen: of each axis, the argument and its shape, and the size."""
    for axis, size in zip(annotation.dim_str.split(), array.shape, strict=False):
        first, known = seen.setdefault(axis, (f"{what.partition(': ')[2]} of shape {array.shape}", size))
        if size != known and axis[0] not in ".*":
            raise InputError(f"{what} of shape {array.shape} differs in {axis} from {first}")


def _of_dtype(array: np.ndarray, dtypes: Any, what: str) -> np.ndarray:
    """Whole numbers and truth values become floats where those are wanted, 0 and 1 truth values; what fits stays as it is."""
    if not isinstance(dtypes, Sequence):  # of any
        return array
    if "bool" in dtypes:
        words, kinds, zeros_and_ones = "truth values", "b", array.dtype.kind in "iu" and np.isin(array, (0, 1)).all()
        array = array.astype(bool) if zeros_and_ones else array
    elif "float64" in dtypes:
        words, kinds = "numbers", "fiu"
        not_yet = array.dtype.kind == "b" or (array.dtype.kind in "iu" and "int64" not in dtypes)
        array = array.astype(np.float64) if not_yet else array
    else:
        words, kinds = "whole numbers", "iu"
    if array.dtype.kind not in kinds:
        raise InputError(f"{what} needs {words}; an array of shape {array.shape} and type {array.dtype} came")
    return array
