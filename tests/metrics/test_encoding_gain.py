"""Oracles: the correlations of a slow loop over swaps and resamples; no difference; a planted one."""

import numpy as np
import pytest

from pulvinar.metrics.encoding import correlations, standardised
from pulvinar.metrics.encoding_gain import _swapped, gain


def predictions(*, noise_a: float, noise_b: float, n_images: int = 60, n_voxels: int = 25, seed: int = 0):
    rng = np.random.default_rng(seed)
    measured = rng.standard_normal((n_images, n_voxels))
    return (
        measured + noise_a * rng.standard_normal((n_images, n_voxels)),
        measured + noise_b * rng.standard_normal((n_images, n_voxels)),
        measured,
    )


def test_a_better_model_is_found_better():
    better, worse, measured = predictions(noise_a=1.0, noise_b=2.0)
    found = gain(better, worse, measured, generator=np.random.default_rng(0))
    expected = correlations(better, measured) - correlations(worse, measured)
    assert found.difference == pytest.approx(expected.mean())
    assert found.share_improved == (expected > 0).mean()
    assert 0 < found.difference_low < found.difference < found.difference_high
    assert found.share_improved_low > found.share_improved_chance_95 > 0.5
    assert found.difference_p_value == pytest.approx(1 / 501)


def test_equally_good_models_are_not_told_apart():
    """Over 40 worlds without a difference p is below .05 in about 2, and the mean share improved is one half."""
    found = [
        gain(*predictions(noise_a=1.5, noise_b=1.5, seed=seed), generator=np.random.default_rng(seed), n_permutations=99)
        for seed in range(40)
    ]
    assert sum(one.difference_p_value <= 0.05 for one in found) <= 6
    assert abs(np.mean([one.share_improved for one in found]) - 0.5) < 0.06
    assert abs(np.mean([one.share_improved_chance for one in found]) - 0.5) < 0.02


def test_swaps_are_those_of_the_slow_loop():
    a, b, measured = (standardised(values) for values in predictions(noise_a=1.0, noise_b=2.0, n_images=20, n_voxels=4))
    swaps = np.random.default_rng(1).random((5, 20)) < 0.5
    for row, swap in zip(_swapped(swaps, a, b, measured), swaps, strict=True):
        one, two = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        np.testing.assert_allclose(row, correlations(one, measured) - correlations(two, measured), atol=1e-10)


def test_the_model_against_itself_has_no_gain():
    a, _, measured = predictions(noise_a=1.0, noise_b=2.0)
    found = gain(a, a, measured, generator=np.random.default_rng(0), n_permutations=20)
    assert (found.difference, found.difference_low, found.difference_high) == (0, 0, 0)
    assert found.share_improved == 0


def test_predictions_without_variance_count_as_zero():
    a, b, measured = predictions(noise_a=1.0, noise_b=2.0)
    b[:, 0] = 3.0
    found = gain(a, b, measured, generator=np.random.default_rng(0), n_permutations=20)
    assert np.isfinite(found.difference)
    assert gain(a, b, np.ones_like(a), generator=np.random.default_rng(0)) is None
