"""The scores of `pulvinar.metrics` and `pulvinar.rsa` for what numpy makes arrays of: lists, tables, tensors, whole numbers.

What an argument must be is read from its annotation: its axes, and whether floats, whole numbers or truth values. A function of
tensors gives arrays, unless a tensor came: then tensors, with their gradients.
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
def takes_array_likes(function: Callable[..., Any], public: str) -> Callable[..., Any]:
    """The same function of array-likes. Raises `InputError` where one has other axes or values than its annotation says.

    public: the module in which pickle finds it.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        bound = signature.bind(*given, **named)
        seen: dict[str, tuple[str, int]] = {}
        of_tensors = [name for name in bound.arguments if _is_of_tensors(signature.parameters[name].annotation)]
        tensors = {name for name in of_tensors if hasattr(bound.arguments[name], "detach")}
        for name, value in bound.arguments.items():
            annotation = signature.parameters[name].annotation
            if name in tensors:
                continue
            made = bound.arguments[name] = _made(value, annotation, f"{function.__name__}: {name}")
            if _is_array(annotation):
                _require_one_size(made, annotation, f"{function.__name__}: {name}", seen)
        for name in set(of_tensors) - tensors:
            bound.arguments[name] = _tensor(bound.arguments[name])
        found = function(*bound.args, **bound.kwargs)
        return found.numpy(force=True) if of_tensors and not tensors and hasattr(found, "detach") else found

    call.__module__ = public
    return call


def _is_of_tensors(annotation: Any) -> bool:
    """Whether an argument is a tensor, or one or None."""
    kinds = get_args(annotation) if get_origin(annotation) is types.UnionType else (annotation,)
    return any(_is_array(kind) and hasattr(kind.array_type, "detach") for kind in kinds)


def _tensor(value: Any) -> Any:
    import torch

    return value if value is None else torch.from_numpy(np.ascontiguousarray(value))


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
    sizes_fit = all(not axis.isdecimal() or axis == str(size) for axis, size in _sizes(axes, array.shape))
    if array.ndim < n_named or (array.ndim > n_named and n_named == len(axes)) or not sizes_fit:
        raise InputError(f"{what} has axes ({', '.join(axes)}); an array of shape {array.shape} came")
    return _of_dtype(array, annotation.dtypes, what)


def _sizes(axes: list[str], shape: tuple[int, ...]) -> list[tuple[str, int]]:
    """Every single axis and its size; those behind one that stands for any number are the last."""
    n_before = next((place for place, axis in enumerate(axes) if axis[0] in ".*"), len(axes))
    behind = axes[n_before + 1 :]
    return [*zip(axes[:n_before], shape, strict=False), *zip(behind, shape[len(shape) - len(behind) :], strict=False)]


def _require_one_size(array: np.ndarray, annotation: Any, what: str, seen: dict[str, tuple[str, int]]) -> None:
    """An axis of one name has one size in all arguments. seen: of each axis, the argument and its shape, and the size."""
    for axis, size in _sizes(annotation.dim_str.split(), array.shape):
        first, known = seen.setdefault(axis, (f"{what.partition(': ')[2]} of shape {array.shape}", size))
        if size != known:
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
