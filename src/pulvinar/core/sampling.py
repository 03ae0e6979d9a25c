"""Rows taken a few at a time: evenly spread over all, in blocks, or in folds by group."""

from collections.abc import Sequence

import numpy as np


def evenly_spaced(n_rows: int, n_chosen: int) -> np.ndarray:
    """Rows (indices) spread evenly from the first to the last, all of them where there are no more than `n_chosen`.

    >>> evenly_spaced(9, 3).tolist(), evenly_spaced(2, 3).tolist()
    ([0, 4, 8], [0, 1])
    """
    return np.unique(np.linspace(0, n_rows - 1, min(n_chosen, n_rows)).astype(int))


def blocks_of(n_rows: int, n_per_block: int) -> list[slice]:
    """Consecutive rows, so many at a time.

    >>> blocks_of(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
    """
    return [slice(start, min(start + n_per_block, n_rows)) for start in range(0, n_rows, n_per_block)]


def dealt_folds(groups: Sequence[object] | np.ndarray, order: np.ndarray, n_folds: int) -> np.ndarray:
    """Fold of each row (row,): groups, in this order of their sorted names, are dealt over the folds one after the other.

    Rows of a group share a fold; folds differ by one group at most. order: a permutation of the groups. Whoever asks draws it,
    with the generator that its other numbers come from.

    >>> dealt_folds(["b", "a", "c", "a"], np.array([2, 0, 1]), 2).tolist()
    [0, 1, 0, 1]
    """
    fold = np.empty(len(order), np.int64)
    fold[order] = np.arange(len(order)) % n_folds
    return fold[np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)]
