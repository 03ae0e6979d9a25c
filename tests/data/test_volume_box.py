"""Boxes. Oracle: places counted by hand in a brain that fills x 2-11, y 4-19, z 1-8 of a grid 14 x 24 x 12."""

import numpy as np
import pytest

from pulvinar.core.errors import ConfigError, InputError
from pulvinar.data.volume_box import box_slices, is_oracle

BRAIN = np.zeros((14, 24, 12), bool)
BRAIN[2:12, 4:20, 1:9] = True
REGION = np.zeros_like(BRAIN)
REGION[3:5, 6:11, 2:4] = True
RAS, LPS = np.diag([1.8, 1.8, 1.8, 1.0]), np.diag([-1.8, -1.8, 1.8, 1.0])


def ends(text: str, affine: np.ndarray = RAS, region: np.ndarray = REGION) -> list[tuple[int, int]]:
    return [(side.start, side.stop) for side in box_slices(text, BRAIN, affine, lambda name: region)]


@pytest.mark.parametrize(
    ("text", "affine", "expected"),
    [
        ("6x5x4", RAS, [(4, 10), (4, 9), (3, 7)]),
        ("6x5x4", LPS, [(4, 10), (15, 20), (3, 7)]),  # the second axis runs backward: the posterior end is at 19
        ("60x40x40", RAS, [(0, 14), (0, 24), (0, 12)]),
        ("4x5x4@general", RAS, [(2, 6), (6, 11), (1, 5)]),
        ("10x5x4@general", RAS, [(0, 10), (6, 11), (1, 5)]),
        ("fit:general", RAS, [(3, 5), (6, 11), (2, 4)]),
        ("1:4,0:24,5:6", RAS, [(1, 4), (0, 24), (5, 6)]),
    ],
)
def test_box(text, affine, expected):
    assert ends(text, affine) == expected


def test_only_boxes_placed_by_a_region_are_oracles():
    assert [is_oracle(text) for text in ("6x5x4", "1:4,0:24,5:6", "6x5x4@general", "fit:general")] == [False, False, True, True]


def test_boxes_that_are_none():
    for text in ("6x5", "a", "1:4,0:24", "6x5x4@", "fit:"):
        with pytest.raises(ConfigError, match="60x40x40"):
            ends(text)
    for text in ("4:4,0:2,0:2", "0:15,0:2,0:2"):
        with pytest.raises(InputError, match="within the grid"):
            ends(text)
    with pytest.raises(InputError, match="is empty"):
        ends("fit:general", region=np.zeros_like(BRAIN))
