"""What comes into `fit` beside plain arrays: masked arrays, groups, folds."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from sklearn.utils.validation import column_or_1d

from pulvinar.core.errors import InputError

MISSING = ("nan", "NaT", "<NA>")  # of numpy and pandas, as text


def refuse_masked(**arrays: Any) -> None:
    """`InputError` for a numpy masked array with masked values: scikit-learn drops the mask and takes what is under it."""
    for name, values in arrays.items():
        parts = values if isinstance(values, list | tuple) else [values]
        n_masked = sum(int(np.ma.count_masked(part)) for part in parts if isinstance(part, np.ma.MaskedArray))
        if n_masked:
            raise InputError(
                f"{name}: {n_masked} values are masked, and what stands under a mask is no measurement; leave these rows or "
                "columns out, or fill them in"
            )


def listed(values: Any) -> list[Any]:
    """The numbers of a constructor argument that may be one or any iterable of them."""
    if isinstance(values, np.ndarray) and values.ndim == 0:
        return [values[()]]
    return list(values) if isinstance(values, Iterable) else [values]


def checked_names(names: Any, n_wanted: int, *, argument: str, what: str) -> np.ndarray:
    """A name (text or number) per trial, image or voxel, as `groups` and `rois` are; none may be missing."""
    refuse_masked(**{argument: names})
    names = column_or_1d(names)
    if len(names) != n_wanted:
        raise InputError(f"{argument}: {len(names)} for {n_wanted} {what}s; each {what} needs one")
    missing = [name is None or (not isinstance(name, str) and str(name) in MISSING) for name in names.tolist()]
    if any(missing):
        raise InputError(f"{argument}: {sum(missing)} of {n_wanted} {what}s have none (first {what} {missing.index(True)})")
    try:
        np.unique(names)
    except TypeError as error:
        kinds = sorted({type(name).__name__ for name in names.tolist()})
        raise InputError(f"{argument}: names of one kind, text or numbers, are needed; {', '.join(kinds)} came") from error
    return names


def rows_of_fold(of_fold: Any, n_images: int) -> np.ndarray:
    """Rows of one side of a fold, from indices or a mask over the images."""
    rows = np.asarray(of_fold)
    if rows.dtype == bool and rows.shape == (n_images,):
        return np.flatnonzero(rows)
    if rows.ndim != 1 or rows.dtype.kind not in "iu" or (len(rows) and not 0 <= rows.min() <= rows.max() < n_images):
        span = f" from {rows.min()} to {rows.max()}" if rows.size and rows.dtype.kind in "iu" else ""
        raise InputError(
            f"cv: folds are rows from 0 to {n_images - 1}, or masks of {n_images}; {rows.dtype} {rows.shape}{span} came"
        )
    return rows
