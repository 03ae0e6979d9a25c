"""Rows taken a few at a time: evenly spread over all, or in blocks."""

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
