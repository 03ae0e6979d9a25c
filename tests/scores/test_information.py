"""The InfoNCE bound: a Gaussian channel's known information, the null, the largest value, hand-worked losses."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.special import log_softmax

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores import information
from pulvinar.scores.information import cosine_similarity, info_nce, information_bound, refit_inverse_temperature


def channel(nats: float, *, dim: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """y = rho x + noise, dimension by dimension: I = -dim/2 log(1 - rho^2)."""
    rng, rho = np.random.default_rng(seed), np.sqrt(1 - np.exp(-2 * nats / dim))
    x = rng.standard_normal((n, dim))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, dim)), float(rho)


def log_ratio(x: np.ndarray, y: np.ndarray, rho: float) -> np.ndarray:
    """log p(y|x) / p(y) of the channel: the best similarity there is."""
    return (rho * x @ y.T - rho**2 * ((x**2).sum(1)[:, None] + (y**2).sum(1)) / 2) / (1 - rho**2)


@pytest.mark.long
@pytest.mark.parametrize(("nats", "dim"), [(0.5, 1), (1.0, 8), (1.5, 32)])
def test_interval_holds_the_information_of_a_gaussian_channel(nats, dim):
    """Oracle: the channel's mutual information in closed form; the temperature of the true log ratio is 1."""
    x, y, rho = channel(nats, dim=dim, n=450, seed=3)
    found = information_bound(log_ratio(x, y, rho), generator=np.random.default_rng(0), n_permutations=2, n_repeats=1)
    assert found.low < nats < found.high
    assert found.high - found.low < 0.6
    assert found.temperature == pytest.approx(1.0, abs=0.2)
    assert found.p_value == pytest.approx(1 / 3)


@pytest.mark.long
def test_intervals_hold_the_truth_in_most_channels():
    """30 channels of 1 nat, a 95 % interval: at least 25 hold it (binomial: P < 1e-3 for fewer)."""
    held = 0
    for seed in range(30):
        x, y, rho = channel(1.0, dim=4, n=120, seed=seed)
        found = information_bound(
            log_ratio(x, y, rho), generator=np.random.default_rng(seed), n_permutations=1, n_repeats=1, n_bootstrap=200
        )
        held += found.low < 1.0 < found.high
    assert held >= 25


def test_cosine_is_a_lower_bound():
    x, y, _ = channel(1.5, dim=32, n=300, seed=0)
    found = information_bound(cosine_similarity(x, y), generator=np.random.default_rng(0), n_permutations=1, n_repeats=2)
    assert 1.0 < found.nats < 1.55


@pytest.mark.long
def test_shuffled_responses_hold_no_information():
    for seed in range(3):
        x, y, _ = channel(1.5, dim=8, n=80, seed=seed)
        shuffled = y[np.random.default_rng(seed).permutation(80)]
        found = information_bound(cosine_similarity(x, shuffled), generator=np.random.default_rng(0), n_permutations=20)
        assert abs(found.nats) < 0.08
        assert found.p_value > 0.05


def test_never_more_than_log_k():
    """Perfect similarity: log K, of the K that was asked for."""
    for size in (None, 10):
        found = information_bound(50 * np.eye(60), generator=np.random.default_rng(0), n_candidates=size, n_permutations=2)
        assert found.largest == pytest.approx(np.log(size or 30))
        assert found.nats == pytest.approx(found.largest, abs=1e-6)
        assert found.high <= found.largest


def test_hand_worked_losses_and_temperature():
    """softmax of (log 3, 0) at its first is 3/4; similarities that say nothing cost log K at any temperature."""
    np.testing.assert_allclose(info_nce(np.array([[np.log(3), 0], [0, np.log(3)]])), np.log(4 / 3))
    np.testing.assert_allclose(info_nce(np.ones((7, 7))), np.log(7))
    assert refit_inverse_temperature(np.ones((7, 7))) == 0
    anti = 1 - np.eye(20)  # the worst similarity: the coldest temperature is the best, and the loss stays log K
    assert info_nce(anti * refit_inverse_temperature(anti)).mean() == pytest.approx(np.log(20), abs=0.01)


def test_what_cannot_be_is_refused():
    rng = np.random.default_rng(0)
    for bad, words in ((rng.random((10, 9)), "square"), (rng.random((7, 7)), "8 images"), (np.full((9, 9), np.nan), "NaN")):
        with pytest.raises(InputError, match=words):
            information_bound(bad, generator=rng)
    with pytest.raises(InputError, match="2 to 5"):
        information_bound(rng.random((10, 10)), generator=rng, n_candidates=6)
    with pytest.raises(DegenerateError, match="row 1 of responses"):
        cosine_similarity(np.ones((2, 3)), np.array([[1.0, 0, 0], [0, 0, 0]]))


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_temperature_is_the_best_of_all(noise):
    """Oracles: 400 temperatures tried one by one; a similarity c times as large has a temperature c times as high."""
    rng = np.random.default_rng(0)
    scores = 5 * (np.eye(12) + noise * rng.standard_normal((12, 12)))
    found = refit_inverse_temperature(scores)
    tried = [info_nce(scores * inverse).mean() for inverse in np.logspace(-3, 3, 400) / scores.std()]
    assert info_nce(scores * found).mean() <= min(tried) + 1e-9
    assert refit_inverse_temperature(scores / 40) == pytest.approx(40 * found, rel=1e-4)


def test_temperatures_are_searched_over_six_decades_of_the_spread():
    """The worst similarity is best at the coldest temperature, 1,000 spreads; one in which each is best, at the hottest."""
    anti = 1 - np.eye(20)
    assert 1 <= 1000 * refit_inverse_temperature(anti) * anti.std() < 1.01
    barely = np.eye(4) + np.diag([-1e-3] * 4) + 2e3 * np.arange(4)[:, None]  # rows differ, columns hardly
    assert 0.99 < refit_inverse_temperature(barely) * barely.std() / 1000 <= 1


@pytest.mark.long
@pytest.mark.parametrize(("n_images", "size"), [(17, None), (17, 3), (12, 4), (8, 2)])
def test_the_bound_is_the_slow_loop(n_images, size):
    """Oracle: softmaxes one by one, over the same halves; the temperature is that of the first group of the other half."""
    rng = np.random.default_rng(1)
    similarity = np.eye(n_images) + 0.6 * rng.standard_normal((n_images, n_images))
    k = size or n_images // 2

    def slow(scores, n_repeats, generator):
        bound, influence = ([[] for _ in range(n_images)] for _ in range(2))
        inverse = []
        for _ in range(n_repeats):
            halves = np.array_split(generator.permutation(n_images), 2)
            for fit, scored in (halves, halves[::-1]):
                inverse.append(refit_inverse_temperature(scores[np.ix_(fit[:k], fit[:k])]))
                for group in (scored[start : start + k] for start in range(0, len(scored), k)):
                    if len(group) == k:
                        table = log_softmax(inverse[-1] * scores[np.ix_(group, group)], axis=1)
                        for place, image in enumerate(group):
                            bound[image].append(np.log(k) + table[place, place])
                            influence[image].append(bound[image][-1] - (np.exp(table[:, place]).sum() - 1))
        kept = [image for image in range(n_images) if bound[image]]
        return (*([np.mean(rows[image]) for image in kept] for rows in (bound, influence)), inverse)

    settings = {"n_candidates": size, "n_repeats": 3, "n_permutations": 7, "n_bootstrap": 50, "level": 0.8}
    found = information_bound(similarity, generator=np.random.default_rng(2), **settings)
    generator = np.random.default_rng(2)
    bound, influence, inverse = slow(similarity, 3, generator)
    counts = generator.multinomial(len(influence), np.full(len(influence), 1 / len(influence)), size=50)
    ends = np.quantile(counts @ influence / len(influence), [0.1, 0.9])
    null = []
    for _ in range(7):
        order = generator.permutation(n_images)
        null.append(np.mean(slow(similarity[:, order], 1, generator)[0]))
    assert found.nats == pytest.approx(np.mean(bound))
    assert (found.low, found.high) == pytest.approx((ends[0], min(ends[1], np.log(k))))
    assert found.temperature == pytest.approx(np.exp(-np.mean(np.log(inverse))))
    assert (found.n_images, found.n_candidates, found.largest) == (n_images, k, pytest.approx(np.log(k)))
    assert found.null_mean == pytest.approx(np.mean(null))
    assert found.null_percentile_95 == pytest.approx(np.percentile(null, 95))
    assert found.p_value == (1 + np.sum(np.array(null) >= found.nats)) / 8


def test_a_similarity_that_says_nothing_has_no_temperature(monkeypatch):
    """Closed form: log K - log K = 0 for every permutation; four repeats, 100 permutations, 2,000 resamples by default."""
    with np.errstate(all="raise"):
        found = information_bound(np.full((9, 9), 0.3), generator=np.random.default_rng(0))
    assert (found.nats, found.temperature, found.p_value) == (pytest.approx(0, abs=1e-12), np.inf, 1)
    monkeypatch.setattr(information, "refit_inverse_temperature", lambda scores: 3.0)
    similarity = np.eye(16) + 0.1 * np.random.default_rng(3).standard_normal((16, 16))
    said = {"n_candidates": 8, "n_repeats": 4, "n_permutations": 100, "n_bootstrap": 2000, "level": 0.95}
    default, spelled = (information_bound(similarity, generator=np.random.default_rng(0), **one) for one in ({}, said))
    assert default == spelled
    assert default.p_value == pytest.approx(1 / 101)
    single = similarity.astype(np.float32)
    few = {"n_permutations": 2, "n_bootstrap": 5}
    one, other = (
        information_bound(values, generator=np.random.default_rng(0), **few) for values in (single, single.astype(float))
    )
    assert one == other


def test_cosines_are_those_of_scipy_and_directions_are_needed():
    rng = np.random.default_rng(4)
    images, responses = rng.standard_normal((5, 7)), rng.standard_normal((5, 7)) * 30
    np.testing.assert_allclose(cosine_similarity(images, responses), 1 - cdist(images, responses, "cosine"), atol=1e-12)
    for value in (0, np.nan, np.inf):
        spoilt = images.copy()
        spoilt[[2, 4]] = value
        for pair, name in (((spoilt, responses), "images"), ((responses, spoilt), "responses")):
            with pytest.raises(DegenerateError, match=f"row {2 if value != np.inf else '.'} of {name} has no direction"):
                cosine_similarity(*pair)
    for size in (1, 0, 6):
        with pytest.raises(InputError, match="2 to 5 fit 10 images"):
            information_bound(rng.random((10, 10)), generator=rng, n_candidates=size)
    tall = np.ones((8, 8))
    tall[3, 3] = np.inf
    with pytest.raises(InputError, match="infinite"):
        information_bound(tall, generator=rng)
