"""Encoding scores against numpy, scipy, hand-worked cases and planted noise."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from pulvinar.errors import InputError
from pulvinar.metrics import encoding as scores


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    measured = rng.standard_normal((60, 40))
    return measured * np.linspace(0, 1, 40) + rng.standard_normal((60, 40)), measured


def test_correlations_are_those_of_numpy(pair):
    """Oracle: np.corrcoef, voxel by voxel."""
    wanted = [np.corrcoef(pair[0][:, voxel], pair[1][:, voxel])[0, 1] for voxel in range(40)]
    np.testing.assert_allclose(scores.correlations(*pair), wanted, rtol=1e-10)


def test_a_voxel_without_variance_has_no_correlation(pair):
    predicted, measured = pair[0].astype(np.float32), pair[1].astype(np.float32)
    measured[:, 3], predicted[:, 5] = 0.1, -7.3
    r = scores.correlations(predicted, measured)
    assert np.flatnonzero(np.isnan(r)).tolist() == [3, 5]
    assert scores.mean_or_none(r) == pytest.approx(np.nanmean(r))
    assert scores.mean_or_none(np.full(3, np.nan)) is None


def test_a_constant_prediction_counts_as_no_correlation(pair):
    """Half of the voxels predicted as a constant: mean r, its interval and its null are half of the others'."""
    predicted, measured = pair[0][:, 20:].copy(), pair[1][:, 20:].copy()
    other, same = predicted.copy(), {"n_bootstrap": 200}
    other[:, ::2] = 3.0
    kept = slice(1, None, 2)
    r = scores.scored_correlations(other, measured)
    np.testing.assert_allclose(r[kept], scores.correlations(predicted, measured)[kept])
    assert (r[::2] == 0).all()
    half = [scores.mean_r_interval(other, measured, generator=np.random.default_rng(0), **same)]
    alone = [scores.mean_r_interval(predicted[:, kept], measured[:, kept], generator=np.random.default_rng(0), **same)]
    np.testing.assert_allclose(half, np.array(alone) / 2)
    test = scores.permutation_test(other, measured, generator=np.random.default_rng(0), n_permutations=50)
    assert (test.p_values[::2] == 1).all()
    whole = scores.permutation_test(
        predicted[:, kept], measured[:, kept], generator=np.random.default_rng(0), n_permutations=50
    )
    np.testing.assert_allclose(test.mean_r, whole.mean_r / 2, atol=1e-7)
    measured[:, 0] = 1.0
    assert np.flatnonzero(np.isnan(scores.scored_correlations(other, measured))).tolist() == [0]


def test_explained_variance_is_one_less_the_residual_share():
    """Hand-worked: residuals 1, 0, 1 of deviations -1, 0, 1 leave 1 - 2/2 = 0; a perfect voxel has 1."""
    predicted, measured = np.array([[0.0, 1], [2, 2], [2, 3]]), np.array([[1.0, 1], [2, 2], [3, 3]])
    np.testing.assert_allclose(scores.explained_variance(predicted, measured), [0, 1])
    np.testing.assert_allclose(scores.unique_variance(np.array([0.5, 0.4, -1.0]), np.array([0.2, -0.3, 0.1])), [0.3, 0.4, -0.1])


def test_algonauts_2023_clips_as_the_challenge_does():
    """Hand-worked: 100 r^2/NC; above 100 it is 100; a negative r counts 0; with NC = 0 any positive r gives 100."""
    r, ceiling = np.array([0.3, 0.9, -0.5, 0.1, 0.0, -0.1]), np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.0])
    np.testing.assert_allclose(scores.algonauts_2023(r, ceiling), [18, 100, 0, 100, 0, 0])


@pytest.mark.parametrize("ceiling", [[0.5, 1.2], [-0.1, 0.5], [np.nan, 0.5], [50.0, 30.0]])
def test_ceilings_outside_0_to_1_are_refused(ceiling):
    with pytest.raises(InputError, match=r"outside \[0, 1\].*percent"):
        scores.algonauts_2023(np.zeros(2), np.array(ceiling))


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_planted_ceilings_are_recovered(noise):
    """Planted truth: signal variance 1, noise variance s^2, three repeats: ceiling 1 / (1 + s^2 / 3), within 3 s.e."""
    rng = np.random.default_rng(1)
    signal = rng.standard_normal((200, 80))
    trials = np.repeat(signal, 3, axis=0) + noise * rng.standard_normal((600, 80))
    trials = (trials - trials.mean(0)) / trials.std(0)
    found = scores.ceiling_from_repeats(trials, np.repeat(np.arange(200), 3), np.full(50, 3))
    standard_error = found.r2.std() / np.sqrt(80)
    assert abs(found.r2.mean() - 1 / (1 + noise**2 / 3)) < 3 * standard_error + 0.004
    few = scores.ceiling_from_repeats(trials[:30], np.repeat(np.arange(10), 3), np.full(5, 3))
    assert few.r2 is None
    assert "10 stimuli have repeats" in few.reason


def test_permutation_p_values_are_uniform_without_an_effect_and_small_with_one():
    """Closed form: the smallest p of m permutations is 1 / (m + 1); under the null p has mean about one half."""
    rng = np.random.default_rng(2)
    measured = rng.standard_normal((50, 300))
    null = scores.permutation_test(rng.standard_normal((50, 300)), measured, generator=rng, n_permutations=199)
    assert abs(null.p_values.mean() - 0.5) < 0.06
    assert abs(null.mean_r.mean()) < 0.01
    strong = scores.permutation_test(measured + rng.standard_normal((50, 300)), measured, generator=rng, n_permutations=199)
    np.testing.assert_allclose(strong.p_values, 1 / 200)


def test_false_discovery_rate_is_that_of_scipy():
    """Oracle: scipy.stats.false_discovery_control; a voxel without p stays without q."""
    p_values = np.random.default_rng(3).random(50) ** 3
    np.testing.assert_allclose(scores.false_discovery_rate(p_values), false_discovery_control(p_values))
    with_nan = np.append(p_values, np.nan)
    np.testing.assert_allclose(scores.false_discovery_rate(with_nan)[:-1], false_discovery_control(p_values))
    assert np.isnan(scores.false_discovery_rate(with_nan)[-1])


def test_interval_of_the_mean_r_is_that_of_a_loop(pair):
    """Oracle: correlations of resampled images, one resample after the other, with the same generator's draws."""
    low, high = scores.mean_r_interval(*pair, generator=np.random.default_rng(4), n_bootstrap=200)
    shares = np.random.default_rng(4).multinomial(60, np.full(60, 1 / 60), size=200)
    means = [scores.correlations(*(values[np.repeat(np.arange(60), count)] for values in pair)).mean() for count in shares]
    np.testing.assert_allclose([low, high], np.quantile(means, [0.025, 0.975]), rtol=1e-8)


def test_share_improved_counts_voxels():
    r, baseline = np.array([0.5, 0.1, np.nan, 0.2]), np.array([0.4, 0.3, 0.1, np.nan])
    assert scores.share_improved(r, baseline) == pytest.approx(2 / 3)
    assert scores.share_improved(np.array([np.nan]), np.array([0.0])) is None


def test_shapes_that_differ_are_refused(pair):
    with pytest.raises(InputError, match="shape"):
        scores._require_pairs(pair[0][:-1], pair[1])
    with pytest.raises(InputError, match="3 or more"):
        scores.correlations(pair[0][:2], pair[1][:2])
