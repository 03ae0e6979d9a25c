"""Oracles: the correlations of a slow loop over swaps and resamples; no difference; a planted one."""

import numpy as np
import pytest

from pulvinar.scores import encoding_gain
from pulvinar.scores.encoding import correlations, standardised
from pulvinar.scores.encoding_gain import _swapped, gain
from pulvinar.scores.resampling import share_interval


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
        gain(
            *predictions(noise_a=1.5, noise_b=1.5, seed=seed),
            generator=np.random.default_rng(seed),
            n_permutations=99,
            n_bootstrap=9,
        )
        for seed in range(40)
    ]
    assert sum(one.difference_p_value <= 0.05 for one in found) <= 6
    assert abs(np.mean([one.share_improved for one in found]) - 0.5) < 0.06
    assert abs(np.mean([one.share_improved_chance for one in found]) - 0.5) < 0.02


def test_swaps_are_those_of_the_slow_loop():
    a, b, measured = (standardised(values) for values in predictions(noise_a=1.0, noise_b=2.0, n_images=20, n_voxels=4))
    a, b, measured = a + 0.3, 2 * b - 1, measured * np.array([1, 2, 5, 0.1])  # of any mean and length; targets of any length
    swaps = np.random.default_rng(1).random((5, 20)) < 0.5
    for row, swap in zip(_swapped(swaps, a, b, measured), swaps, strict=True):
        one, two = np.where(swap[:, None], b, a), np.where(swap[:, None], a, b)
        np.testing.assert_allclose(row, correlations(one, measured) - correlations(two, measured), atol=1e-10)


def test_the_model_against_itself_has_no_gain():
    a, _, measured = predictions(noise_a=1.0, noise_b=2.0)
    found = gain(a, a, measured, generator=np.random.default_rng(0), n_permutations=20)
    assert (found.difference, found.difference_low, found.difference_high) == (0, 0, 0)
    assert found.share_improved == 0
    assert (found.difference_p_value, found.share_improved_chance, found.share_improved_chance_95) == (1, 0, 0)
    wilson = share_interval(np.zeros(25), np.zeros(1))
    assert (found.share_improved_low, found.share_improved_high) == pytest.approx(wilson)


def test_predictions_without_variance_count_as_zero():
    a, b, measured = predictions(noise_a=1.0, noise_b=2.0)
    b[:, 0] = 3.0
    found = gain(a, b, measured, generator=np.random.default_rng(0), n_permutations=20)
    assert np.isfinite(found.difference)
    assert gain(a, b, np.ones_like(a), generator=np.random.default_rng(0)) is None


@pytest.mark.parametrize("per_block", [2048, 5])
def test_everything_is_the_slow_loop(monkeypatch, per_block):
    """Oracle: correlations of each resample and of each swap, one after the other, with the same generator's draws.

    Of 14 voxels one is measured as a constant (left out) and one predicted so by either model (r = 0); other scales, too.
    """
    monkeypatch.setattr(encoding_gain, "VOXELS_PER_BLOCK", per_block)
    a, b, measured = predictions(noise_a=1.5, noise_b=1.9, n_images=20, n_voxels=14)
    a, b, measured = 3 * a + 1, 0.2 * b - 4, measured + 2
    measured[:, 4], a[:, 7], b[:, 9] = 2.0, 1.0, -1.0
    found = gain(a, b, measured, generator=np.random.default_rng(3), n_bootstrap=30, n_permutations=40)
    kept, generator = np.arange(14) != 4, np.random.default_rng(3)
    ours, theirs, target = (np.nan_to_num(standardised(values[:, kept])) for values in (a, b, measured))
    counts = generator.multinomial(20, np.full(20, 1 / 20), size=30)
    swaps = generator.random((40, 20)) < 0.5

    def r(prediction, wanted=target):
        return np.nan_to_num(correlations(prediction, wanted))

    drawn = []
    for count in counts:
        again = [np.repeat(values, count, axis=0) for values in (ours, theirs, target)]
        drawn.append(r(again[0], again[2]) - r(again[1], again[2]))
    swapped = [r(np.where(swap[:, None], theirs, ours)) - r(np.where(swap[:, None], ours, theirs)) for swap in swaps]
    observed, drawn, swapped = r(ours) - r(theirs), np.array(drawn), np.array(swapped)
    assert found.difference == pytest.approx(observed.mean())
    assert found.share_improved == (observed > 0).mean()
    ends = np.quantile(drawn.mean(1), [0.025, 0.975])
    assert (found.difference_low, found.difference_high) == pytest.approx(tuple(ends))
    ends = np.quantile((drawn > 0).mean(1), [0.025, 0.975])
    assert (found.share_improved_low, found.share_improved_high) == pytest.approx(tuple(ends))
    assert found.difference_p_value == (1 + (swapped.mean(1) >= observed.mean()).sum()) / 41
    assert 0.05 < found.difference_p_value < 1
    assert found.share_improved_chance == pytest.approx((swapped > 0).mean())
    assert found.share_improved_chance_95 == pytest.approx(np.percentile((swapped > 0).mean(1), 95))
    assert found.row()["difference_low"] == found.difference_low


@pytest.mark.parametrize(("n_images", "n_voxels"), [(30, 5), (6, 12)])
def test_a_share_of_all_voxels_has_the_width_of_as_many_units_as_are_independent(n_images, n_voxels):
    """Oracle: Wilson's interval of n of n, n no more than images or voxels; 500 resamples where nothing is said."""
    measured = np.random.default_rng(0).standard_normal((n_images, n_voxels))
    wilson = share_interval(np.ones(min(n_images, n_voxels)), np.ones(500))
    for other, difference in ((-measured, 2), (np.zeros_like(measured), 1)):
        found = gain(measured / 7, other, measured, generator=np.random.default_rng(0), n_permutations=3)
        assert (found.share_improved_low, found.share_improved_high) == pytest.approx(wilson)
        assert found.difference == pytest.approx(difference)
    a, b, target = predictions(noise_a=1, noise_b=1.2, n_images=n_images, n_voxels=n_voxels)
    few = gain(a, b, target, generator=np.random.default_rng(0), n_permutations=3)
    assert few == gain(a, b, target, generator=np.random.default_rng(0), n_permutations=3, n_bootstrap=500)
