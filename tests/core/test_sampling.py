"""Oracles: closed forms."""

import numpy as np
import pytest

from pulvinar.core.sampling import blocks_of, evenly_spaced


def test_blocks_are_consecutive_and_hold_every_row_once():
    assert blocks_of(10, 4) == [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert blocks_of(8, 4) == [slice(0, 4), slice(4, 8)]
    assert blocks_of(3, 4) == [slice(0, 3)]


@pytest.mark.parametrize("n_rows", [1, 2, 16, 17, 1000])
def test_rows_are_spread_from_the_first_to_the_last(n_rows):
    rows = evenly_spaced(n_rows, 16)
    assert len(rows) == min(n_rows, 16)
    assert (rows[0], rows[-1]) == (0, n_rows - 1)
    assert np.ptp(np.diff(rows)) <= 1 if len(rows) > 1 else True
