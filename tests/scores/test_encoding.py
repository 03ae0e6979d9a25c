"""Encoding scores against numpy, scipy, hand-worked cases and planted noise."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from sklearn.metrics import r2_score

from pulvinar.core.errors import InputError
from pulvinar.scores import encoding as scores


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


def test_explained_variance_is_that_of_scikit_learn(pair):
    predicted, measured = pair[0] + 0.3, pair[1] + np.arange(40)
    wanted = r2_score(measured, predicted, multioutput="raw_values")
    np.testing.assert_allclose(scores.explained_variance(predicted, measured), wanted)


def test_a_correlation_is_never_beyond_1():
    """The products of 2,000 voxels with themselves: rounding leaves some above 1."""
    values = np.random.default_rng(0).standard_normal((9, 2000))
    assert (scores.standardised(values) ** 2).sum(0).max() > 1
    assert scores.correlations(values, values).max() == 1
    assert scores.correlations(-values, values).min() == -1


def test_algonauts_2023_clips_as_the_challenge_does():
    """Hand-worked: 100 r^2/NC; above 100 it is 100; a negative r counts 0; with NC = 0 any positive r gives 100."""
    r, ceiling = np.array([0.3, 0.9, -0.5, 0.1, 0.0, -0.1, 0.4]), np.array([0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 1.0])
    np.testing.assert_allclose(scores.algonauts_2023(r, ceiling), [18, 100, 0, 100, 0, 0, 16])


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
    assert np.isnan(scores.false_discovery_rate(np.full(3, np.nan))).all()
    high = np.array([0.9, 0.95, 0.99])
    np.testing.assert_allclose(scores.false_discovery_rate(high), [0.99] * 3)
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
    """Better than the baseline, or than 0 where the baseline has no correlation; as good is not better."""
    r, baseline = np.array([0.5, 0.1, np.nan, 0.2, -0.1, 0.3]), np.array([0.4, 0.3, 0.1, np.nan, np.nan, 0.3])
    assert scores.share_improved(r, baseline) == pytest.approx(2 / 5)
    assert scores.share_improved(np.array([np.nan]), np.array([0.0])) is None


def test_shapes_that_differ_are_refused(pair):
    with pytest.raises(InputError, match="shape"):
        scores._require_pairs(pair[0][:-1], pair[1])
    with pytest.raises(InputError, match="shape"):
        scores._require_pairs(pair[0][:, :-1], pair[1])
    for score in (scores.correlations, scores.explained_variance):
        with pytest.raises(InputError, match="3 or more"):
            score(pair[0][:2], pair[1][:2])
        assert len(score(pair[0][:3], pair[1][:3])) == 40
    for score in (scores.permutation_test, scores.mean_r_interval):
        with pytest.raises(InputError, match="3 or more"):
            score(pair[0][:2], pair[1][:2], generator=np.random.default_rng(0))
    with pytest.raises(InputError, match="n_permutations: 1 or more is needed, 0 came"):
        scores.permutation_test(*pair, generator=np.random.default_rng(0), n_permutations=0)
    with pytest.raises(InputError, match="3 came for 2 voxels"):
        scores.algonauts_2023(np.zeros(2), np.full(3, 0.5))


@pytest.mark.parametrize("n_images", [4, 400])
def test_a_spread_below_a_millionth_of_the_largest_value_is_rounding(n_images):
    """1 + a and 1 - a in turn have a standard deviation of a, the largest value is 1 + a; so is -5 times as much."""
    signs = np.tile([1.0, -1.0], n_images // 2)
    values = np.stack([f * (1 + a * signs) for f in (1, -5) for a in (0.99e-6, 1.01e-6)], axis=1)
    assert scores.varying(values).tolist() == [False, True, False, True]
    made = scores.standardised(values)
    np.testing.assert_allclose(made[:, 1], signs / np.sqrt(n_images), rtol=1e-6)
    assert np.isnan(made[:, [0, 2]]).all()
    measured = np.stack([signs, values[:, 0]], axis=1)
    assert np.isnan(scores.explained_variance(measured, measured)).tolist() == [False, True]
    with np.errstate(all="raise"):
        assert not scores.varying(np.zeros((n_images, 1))).any()


def test_blocks_of_voxels_do_not_matter(pair, monkeypatch):
    """40 voxels, two of them constant, in blocks of 7, give what one block gives; a score of few voxels is theirs alone."""
    predicted, measured = pair[0].copy(), pair[1].copy()
    measured[:, [6, 20]] = 0.1

    def everything():
        generator = np.random.default_rng(0)
        test = scores.permutation_test(predicted, measured, generator=generator, n_permutations=9)
        interval = scores.mean_r_interval(predicted, measured, generator=generator, n_bootstrap=9)
        made = [function(predicted, measured) for function in (scores.correlations, scores.explained_variance)]
        return [*made, scores.varying(measured), test.p_values, test.mean_r, np.array(interval)]

    whole = everything()
    monkeypatch.setattr(scores, "VOXELS_PER_BLOCK", 7)
    for blocked, wanted in zip(everything(), whole, strict=True):
        np.testing.assert_allclose(blocked, wanted, rtol=1e-12, atol=1e-8)  # permutations are in single precision
    assert np.flatnonzero(np.isnan(whole[0])).tolist() == [6, 20]
    assert np.flatnonzero(np.isnan(whole[1])).tolist() == [6, 20]
    varying = np.setdiff1d(np.arange(40), [6, 20])
    few = scores.permutation_test(
        predicted[:, varying], measured[:, varying], generator=np.random.default_rng(0), n_permutations=9
    )
    np.testing.assert_allclose(few.mean_r, whole[4], rtol=1e-6)
    np.testing.assert_allclose(few.p_values, whole[3][varying])


def test_the_permutation_test_is_the_loop(pair):
    """Oracle: correlations of predictions in permuted orders, one after the other; 1,000 orders where nothing is said."""
    predicted, measured = pair[0][:, :6], pair[1][:, :6]
    found = scores.permutation_test(predicted, measured, generator=np.random.default_rng(5), n_permutations=50)
    orders = np.random.default_rng(5).permuted(np.tile(np.arange(60), (50, 1)), axis=1)
    null = np.stack([scores.correlations(predicted[order], measured) for order in orders])
    np.testing.assert_allclose(found.mean_r, null.mean(1), atol=1e-6)
    as_high = (null >= scores.correlations(predicted, measured)).sum(0)
    np.testing.assert_allclose(found.p_values, (as_high + 1) / 51)
    assert 0.1 < found.p_values.max() < 1
    assert scores.permutation_test(measured, measured, generator=np.random.default_rng(5)).p_values.max() == 1 / 1001
    one, order = (
        scores.permutation_test(predicted[:, -1:], measured[:, -1:], generator=np.random.default_rng(5), n_permutations=1),
        np.random.default_rng(5).permuted(np.arange(60)[None], axis=1)[0],
    )
    np.testing.assert_allclose(one.mean_r, scores.correlations(predicted[order, -1:], measured[:, -1:]), atol=1e-6)
    nothing = scores.permutation_test(predicted, np.ones_like(measured), generator=np.random.default_rng(5), n_permutations=3)
    assert np.isnan(nothing.p_values).all()
    assert nothing.mean_r.tolist() == [0, 0, 0]


def test_permutations_that_change_nothing_are_as_high():
    """Closed form: of two pairs of equal images 4 of the 24 orders leave all as it is, and those alone are as high."""
    values = np.tile(np.array([[0.1], [0.1], [0.7], [0.7]]), (1, 3)) * [1, 3, 7]
    found = scores.permutation_test(values, values, generator=np.random.default_rng(0), n_permutations=500)
    orders = np.random.default_rng(0).permuted(np.tile(np.arange(4), (500, 1)), axis=1)
    same = (values[orders, 0] == values[:, 0]).all(1).sum()
    assert 60 < same < 110
    np.testing.assert_allclose(found.p_values, (same + 1) / 501)


def test_scores_of_single_precision_are_those_of_the_same_numbers_in_double(pair):
    single = [(values + 1000).astype(np.float32) for values in pair]
    double = [values.astype(np.float64) for values in single]
    for score in (scores.correlations, scores.explained_variance, scores.scored_correlations):
        np.testing.assert_array_equal(score(*single), score(*double))
    r, ceiling = np.float32([0.3, 0.2]), np.float32([0.7, 0.9])
    wanted = scores.algonauts_2023(r.astype(float), ceiling.astype(float))
    np.testing.assert_array_equal(scores.algonauts_2023(r, ceiling), wanted)


def test_the_interval_is_95_percent_of_500_resamples_or_what_is_asked_for(pair):
    made = [scores.mean_r_interval(*pair, generator=np.random.default_rng(4), **settings) for settings in (
        {}, {"n_bootstrap": 500, "level": 0.95}, {"level": 0.5}
    )]  # fmt: skip
    assert made[0] == made[1]
    assert made[0][0] < made[2][0] < made[2][1] < made[0][1]
    assert np.isnan(scores.mean_r_interval(pair[0], np.ones((60, 40)), generator=np.random.default_rng(0))).all()


def test_weighted_correlations_are_those_of_repeated_images(pair):
    """Oracle: correlations of each image as often as it was drawn."""
    counts = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=3)
    x, y = pair[0] + 3, 2 * pair[1] - 5
    wanted = [scores.correlations(*(np.repeat(values, count, axis=0) for values in (x, y))) for count in counts]
    np.testing.assert_allclose(scores.weighted_correlations(counts / 60, x, y), wanted, rtol=1e-8)
    alone = np.zeros((1, 60))
    alone[0, 5] = 1
    with np.errstate(all="raise"):
        assert np.isnan(scores.weighted_correlations(alone, np.round(x), np.round(y))).all()


def test_a_ceiling_says_what_it_is_from_and_needs_20_repeated_stimuli():
    """Oracle: the ceiling of the formula 1 / (1 + 1 / (n ncsnr^2)), n the scored repeats."""
    trials = np.random.default_rng(0).standard_normal((40, 5)) + np.repeat(np.random.default_rng(1).random((20, 5)), 2, axis=0)
    ids, repeats = np.repeat(np.arange(20), 2), np.array([1, 2, 2])
    found = scores.ceiling_from_repeats(trials, ids, repeats)
    ratio = scores.signal_to_noise(trials, ids).ncsnr
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found.r2, 1 / (1 + np.mean(1 / repeats) / ratio**2))
    assert (found.source, found.reason) == ("repeats of 20 stimuli (20 degrees of freedom)", "")
    few = scores.ceiling_from_repeats(trials[2:], ids[2:], repeats)
    assert (few.r2, few.source) == (None, "")
    assert scores.ceiling_from_repeats(trials[2:], ids[2:], repeats, minimum_repeated_stimuli=19).r2 is not None
