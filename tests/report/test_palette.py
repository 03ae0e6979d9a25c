"""Groups are told apart by every kind of colour vision. Oracles: Machado et al. 2009 and CIEDE2000 of scikit-image."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from skimage.color import deltaE_ciede2000, rgb2lab

from pulvinar.report.drawing import GROUPS, group_colours

MISSING = {  # severity 1, on linear RGB; Machado, Oliveira and Fernandes 2009, table of the supplement
    "red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def seen(colours, cone):
    """CIE Lab of colours as somebody without this cone sees them; None: with all."""
    rgb = np.array([to_rgb(colour) for colour in colours])
    if cone is not None:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ np.array(MISSING[cone]).T, 0, 1)
        rgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return rgb2lab(rgb[None])[0]


def smallest_difference(colours):
    """Of any two colours, over all kinds of vision."""
    found = []
    for cone in (None, *MISSING):
        lab = seen(colours, cone)
        between = deltaE_ciede2000(lab[:, None], lab[None])
        found.append(between[~np.eye(len(lab), dtype=bool)].min())
    return min(found)


@pytest.mark.parametrize(("n_groups", "least"), [(2, 50), (4, 31), (6, 20), (10, 17)])
def test_groups_differ_for_every_kind_of_colour_vision(n_groups, least):
    assert smallest_difference(group_colours(n_groups)) > least


def test_groups_stand_out_from_white_and_the_measure_sees_a_bad_palette():
    assert min(smallest_difference(["white", colour]) for colour in GROUPS) > 20
    assert smallest_difference(["#ff0000", "#00a000", "#0000ff", "#7a7a00"]) < 12  # red and olive without green cones
