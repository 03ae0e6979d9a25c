"""Oracles: scipy.stats (permutation_test, bootstrap), closed forms, coverage of planted truth."""

import numpy as np
import pytest
from scipy import stats

from pulvinar.core.errors import InputError
from pulvinar.scores.resampling import (
    bootstrap_shares,
    interval_text,
    paired_difference,
    percentile_interval,
    permutation_null,
    share_interval,
    sign_flip_p_value,
    wilson_interval,
)


def scipy_sign_flip(differences: np.ndarray) -> float:
    return stats.permutation_test(
        (differences, np.zeros_like(differences)), lambda a, b: np.sum(a - b), permutation_type="samples", n_resamples=np.inf
    ).pvalue


@pytest.mark.parametrize("n_units", [2, 4, 11])
def test_exact_sign_flip_is_that_of_scipy(n_units):
    differences = np.random.default_rng(n_units).normal(0.4, 1, n_units)
    p_value = sign_flip_p_value(differences, generator=np.random.default_rng(0))
    np.testing.assert_allclose(p_value, scipy_sign_flip(differences), rtol=1e-12)
    assert sign_flip_p_value(-differences, generator=np.random.default_rng(0)) == p_value  # two-sided


def test_exact_sign_flip_counts_ties_and_leaves_zeros_out():
    differences = np.array([1.0, 1, 1, -1, 0, 0, 1, 1])
    p_value = sign_flip_p_value(differences, generator=np.random.default_rng(0))
    np.testing.assert_allclose(p_value, scipy_sign_flip(differences), rtol=1e-12)
    # |sum| >= 4 in 2 * (C(6,0) + C(6,1)) of 64 patterns
    np.testing.assert_allclose(p_value, 14 / 64)
    many_zeros = np.concatenate([differences, np.zeros(500)])  # still the exact p
    assert sign_flip_p_value(many_zeros, generator=np.random.default_rng(0)) == p_value
    assert sign_flip_p_value(np.zeros(5), generator=np.random.default_rng(0)) == 1.0


def test_monte_carlo_sign_flip_approaches_the_exact_one_and_is_never_zero():
    differences = np.random.default_rng(3).normal(0.4, 1, 15)
    exact = scipy_sign_flip(differences)
    sampled = sign_flip_p_value(differences, generator=np.random.default_rng(0), n_permutations=20_000)
    assert abs(sampled - exact) < 4 * np.sqrt(exact * (1 - exact) / 20_000)
    assert sign_flip_p_value(np.ones(40), generator=np.random.default_rng(0), n_permutations=999) == 1 / 1000


def test_permutation_null_on_known_values():
    null = permutation_null(0.8, np.arange(100) / 100)
    np.testing.assert_allclose([null.mean, null.percentile_95, null.above_null], [0.495, 0.9405, 0.305])
    assert null.p_value == 21 / 101  # .80 to .99 are as high
    with pytest.raises(InputError, match="at least one"):
        permutation_null(0.8, np.zeros(0))


def test_bootstrap_interval_of_a_mean_is_near_that_of_scipy():
    values = np.random.default_rng(0).normal(2, 1, 200)
    shares = bootstrap_shares(200, 20_000, np.random.default_rng(1))
    np.testing.assert_allclose(shares.sum(1), 1)
    ours = percentile_interval(shares @ values)
    scipys = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(2))
    np.testing.assert_allclose(ours, scipys.confidence_interval, atol=0.01)


def test_percentile_interval_of_evenly_spaced_values():
    np.testing.assert_allclose(percentile_interval(np.linspace(0, 1, 1001)), (0.025, 0.975))
    np.testing.assert_allclose(percentile_interval(np.linspace(0, 1, 1001), level=0.5), (0.25, 0.75))
    with pytest.raises(InputError, match="level"):
        percentile_interval(np.zeros(3), level=1.0)


def test_paired_difference_over_images_has_the_normal_interval():
    generator = np.random.default_rng(0)
    a, b = generator.normal(0.3, 1, 400), generator.normal(0, 1, 400)
    found = paired_difference(a, b, generator=np.random.default_rng(1))
    half = 1.96 * (a - b).std() / np.sqrt(400)
    np.testing.assert_allclose(found.difference, (a - b).mean())
    np.testing.assert_allclose([found.low, found.high], found.difference + np.array([-half, half]), atol=0.012)
    assert found.p_value_groups is None
    assert abs(found.p_value_images - stats.ttest_rel(a, b).pvalue) < 0.002


def test_paired_difference_over_groups_takes_their_spread_in():
    """Crossed bootstrap of planted group effects: variance of the mean = variance of groups / n (images do not vary)."""
    group_effects = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    a = np.repeat(group_effects[:, None], 50, axis=1)
    found = paired_difference(a, np.zeros_like(a), generator=np.random.default_rng(1), n_bootstrap=20_000)
    half = 1.96 * group_effects.std() / np.sqrt(6)
    np.testing.assert_allclose([found.low, found.high], 0.25 + np.array([-half, half]), atol=0.012)
    np.testing.assert_allclose(found.p_value_groups, 2 / 32)  # one difference is 0: 2^5 patterns, two as extreme


def test_paired_difference_swaps_sign_and_leaves_undrawn_images_out():
    a, b = np.array([1.0, 0, np.nan, 1, 1]), np.array([0.0, 0, 1, 0, 1])
    forward = paired_difference(a, b, generator=np.random.default_rng(0))
    backward = paired_difference(b, a, generator=np.random.default_rng(0))
    assert forward.difference == -backward.difference == 0.5
    np.testing.assert_allclose([forward.low, forward.high], [-backward.high, -backward.low])


@pytest.mark.parametrize("shapes", [((4,), (5,)), ((2, 4), (4,)), ((0,), (0,)), ((1, 1, 4), (1, 1, 4))])
def test_paired_difference_refuses_what_does_not_pair(shapes):
    with pytest.raises(InputError, match="paired difference"):
        paired_difference(np.zeros(shapes[0]), np.zeros(shapes[1]), generator=np.random.default_rng(0))


@pytest.mark.parametrize(("n_right", "n"), [(48, 48), (0, 48), (1, 1), (0, 1), (7, 20), (999, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_interval_is_that_of_scipy(n_right, n, level):
    found = stats.binomtest(n_right, n).proportion_ci(confidence_level=level, method="wilson")
    np.testing.assert_allclose(wilson_interval(n_right, n, level=level), (found.low, found.high), atol=1e-12)


def test_a_share_without_spread_has_a_width_and_one_with_spread_its_bootstrap():
    """Oracles: scipy's Wilson interval; numpy's quantiles."""
    generator = np.random.default_rng(0)
    resamples = bootstrap_shares(48, 500, generator)
    for value in (0.0, 1.0):
        values = np.full(48, value)
        expected = stats.binomtest(int(48 * value), 48).proportion_ci(method="wilson")
        np.testing.assert_allclose(share_interval(values, resamples @ values), (expected.low, expected.high), atol=1e-12)
    seeds = np.ones((3, 48))  # three seeds on the same images are 48 images
    assert share_interval(seeds, np.ones(500), n_units=48) == share_interval(np.ones(48), np.ones(500))
    mixed = (np.arange(48) < 30).astype(float)
    np.testing.assert_allclose(share_interval(mixed, resamples @ mixed), np.quantile(resamples @ mixed, [0.025, 0.975]))


def test_a_difference_of_shares_that_is_the_same_on_all_images_has_a_width():
    """Oracle: the lower Wilson bound of n of n; what may be left is at most that far away, and inside [-1, 1]."""
    left = 1 - stats.binomtest(48, 48).proportion_ci(method="wilson").low
    every, none = np.ones(48), np.zeros(48)
    for a, b, low, high in ((every, every, -left, left), (every, none, 1 - left, 1.0), (none, every, -1.0, left - 1)):
        found = paired_difference(a, b, generator=np.random.default_rng(0), of_shares=True)
        np.testing.assert_allclose((found.low, found.high), (low, high), atol=1e-12)
    assert paired_difference(every, every, generator=np.random.default_rng(0)).high == 0  # not known to be shares


def test_all_or_none_right_end_at_1_and_0_exactly():
    """Closed form: at p = 1 the upper end is (1 + z^2 / n) / (1 + z^2 / n), of which rounding leaves a little more or less."""
    for n in range(1, 60):
        assert wilson_interval(n, n)[1] == 1
        assert wilson_interval(0, n)[0] == 0


@pytest.mark.parametrize(("n_right", "n"), [(2, 1), (-1, 4), (0, 0)])
def test_a_share_that_is_none_is_refused(n_right, n):
    with pytest.raises(InputError, match="0 to n right"):
        wilson_interval(n_right, n)


@pytest.mark.parametrize("n_units", [3, 12])
def test_sign_flips_are_the_loop_over_patterns(n_units):
    """Drawn 1,000 at a time where 2^n patterns are too many; where they are not, nothing is drawn and the p is scipy's."""
    differences = np.random.default_rng(5).normal(0.3, 1, n_units)
    for n_permutations in (2**n_units, 2**n_units - 1, 1, 1500):
        generator, same = np.random.default_rng(1), np.random.default_rng(1)
        p_value = sign_flip_p_value(differences, generator=generator, n_permutations=n_permutations)
        if 2**n_units <= n_permutations:
            assert generator.random() == same.random()
            assert p_value == pytest.approx(scipy_sign_flip(differences), rel=1e-12)
            continue
        b = 0
        for start in range(0, n_permutations, 1000):
            for flips in same.integers(0, 2, (min(1000, n_permutations - start), n_units)):
                total = sum(-one if flip else one for one, flip in zip(differences, flips, strict=True))
                b += abs(total) >= abs(differences.sum()) - 1e-9
        assert p_value == (b + 1) / (n_permutations + 1)
    assert sign_flip_p_value(np.ones(13), generator=np.random.default_rng(0)) == 2 / 2**13
    drawn = 10_001 * sign_flip_p_value(np.ones(14), generator=np.random.default_rng(0))
    assert drawn == pytest.approx(round(drawn), abs=1e-9)


def test_paired_differences_are_the_loop_over_groups_and_images():
    """Groups are drawn first, then images; an image that any group lacks is left out; then signs of images, then of groups."""
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 1, (4, 15)), rng.normal(0, 1, (4, 15))
    a[2, 3], b[0, 7] = np.nan, np.inf
    settings = {"n_bootstrap": 40, "n_permutations": 30, "level": 0.8}
    found = paired_difference(a, b, generator=np.random.default_rng(2), **settings)
    kept = np.delete(a - b, [3, 7], axis=1)
    generator = np.random.default_rng(2)
    groups = generator.multinomial(4, np.full(4, 1 / 4), size=40)
    images = generator.multinomial(13, np.full(13, 1 / 13), size=40)
    means = [np.repeat(np.repeat(kept, g, axis=0), i, axis=1).mean() for g, i in zip(groups, images, strict=True)]
    assert found.difference == pytest.approx(kept.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.1, 0.9])))
    by_image = sign_flip_p_value(kept.mean(0), generator=generator, n_permutations=30)
    assert (found.p_value_images, found.p_value_groups) == (by_image, pytest.approx(scipy_sign_flip(kept.mean(1))))
    assert 0.05 < found.p_value_images < 1
    single = a[0].astype(np.float32), b[1].astype(np.float32)
    double = [values.astype(float) for values in single]
    one, other = (paired_difference(*pair, generator=np.random.default_rng(2), **settings) for pair in (single, double))
    assert one == other
    with pytest.raises(InputError, match="no image with a score"):
        paired_difference(np.full(3, np.nan), np.zeros(3), generator=generator)


def test_what_is_done_where_nothing_is_said():
    """2,000 resamples, 10,000 permutations, 95 %."""
    rng = np.random.default_rng(7)
    a, b = rng.normal(0.5, 1, (2, 20))
    default, said, few = (
        paired_difference(a, b, generator=np.random.default_rng(0), **settings)
        for settings in ({}, {"n_bootstrap": 2000, "n_permutations": 10_000, "level": 0.95}, {"n_permutations": 5})
    )
    assert default == said
    assert few.p_value_images in [k / 6 for k in range(1, 7)]
    values = rng.random(50)
    assert percentile_interval(values) == percentile_interval(values, level=0.95)
    assert wilson_interval(3, 7) == wilson_interval(3, 7, level=0.95)
    half = np.full(6, 0.5)
    assert share_interval(half, half) == wilson_interval(3, 6) == share_interval(half, half, level=0.95)
    assert share_interval(half, half, level=0.5) == wilson_interval(3, 6, level=0.5)
    assert share_interval(values, values, level=0.5) == percentile_interval(values, level=0.5)
    assert share_interval(values, values) == percentile_interval(values)
    for level in (0.0, 1.0, -0.1, 1.1):
        for interval in (
            lambda level: percentile_interval(values, level=level),
            lambda level: wilson_interval(3, 7, level=level),
        ):
            with pytest.raises(InputError, match="level: between 0 and 1"):
                interval(level)
    same = paired_difference(half, half, generator=rng, of_shares=True, level=0.5)
    assert same.high == pytest.approx(1 - wilson_interval(6, 6, level=0.5)[0])


def test_what_differs_by_rounding_is_the_same():
    """Scores that are 1e-13 apart are one score, and 1e-11 are two; so are a share of n and a little more than n."""
    near, far = np.array([1.0, 1 - 1e-13]), np.array([1.0, 1 - 1e-11])
    resampled = np.array([0.2, 0.4])
    assert share_interval(near, resampled) == pytest.approx(wilson_interval(2, 2))
    assert share_interval(far, resampled) == percentile_interval(resampled)
    assert wilson_interval(1000 + 9e-10, 1000) == wilson_interval(1000, 1000)
    assert wilson_interval(-9e-13, 1000) == wilson_interval(0, 1000)
    for n_right, n in ((1000 + 2e-9, 1000), (-2e-12, 1000)):
        with pytest.raises(InputError, match="0 to n right"):
            wilson_interval(n_right, n)
    assert permutation_null(0.5, np.array([0.5 - 1e-13, 0.1])).p_value == 2 / 3
    assert permutation_null(0.5, np.array([0.5 - 1e-11])).p_value == 1 / 2
    apart = paired_difference(np.ones(2), np.array([0.0, 1e-11]), generator=np.random.default_rng(0), of_shares=True)
    assert apart.low > 0.9  # Wilson's would be far lower
    close = paired_difference(np.ones(2), np.array([0.0, 1e-13]), generator=np.random.default_rng(0), of_shares=True)
    assert close.low == pytest.approx(wilson_interval(2, 2)[0])


def test_an_interval_in_words_and_shares_of_units():
    assert interval_text((0.551, 0.67), "{:.2f}".format) == "[0.55, 0.67]"
    assert interval_text([1, 2], str) == "[1, 2]"
    for none in (None, (), (1.0,), (1.0, None), (None, 1.0), (np.nan, 1.0), (0.0, np.inf), (1, 2, 3)):
        assert interval_text(none, str) == ""
    shares = bootstrap_shares(1, 1, np.random.default_rng(0))
    assert shares.tolist() == [[1.0]]
    counts = np.random.default_rng(3).multinomial(5, np.full(5, 1 / 5), size=4)
    np.testing.assert_array_equal(bootstrap_shares(5, 4, np.random.default_rng(3)), counts / 5)
    for n_units, n_bootstrap in ((0, 1), (1, 0), (-1, 5)):
        with pytest.raises(InputError, match="one unit and one resample or more"):
            bootstrap_shares(n_units, n_bootstrap, np.random.default_rng(0))
