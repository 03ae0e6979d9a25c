"""The InfoNCE bound: a Gaussian channel's known information, the null, the largest value, hand-worked losses."""

import numpy as np
import pytest

from pulvinar.errors import DegenerateError, InputError
from pulvinar.metrics.information import cosine_similarity, info_nce, information_bound, refit_inverse_temperature


def channel(nats: float, *, dim: int, n: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """y = rho x + noise, dimension by dimension: I = -dim/2 log(1 - rho^2)."""
    rng, rho = np.random.default_rng(seed), np.sqrt(1 - np.exp(-2 * nats / dim))
    x = rng.standard_normal((n, dim))
    return x, rho * x + np.sqrt(1 - rho**2) * rng.standard_normal((n, dim)), float(rho)


def log_ratio(x: np.ndarray, y: np.ndarray, rho: float) -> np.ndarray:
    """log p(y|x) / p(y) of the channel: the best similarity there is."""
    return (rho * x @ y.T - rho**2 * ((x**2).sum(1)[:, None] + (y**2).sum(1)) / 2) / (1 - rho**2)


@pytest.mark.parametrize(("nats", "dim"), [(0.5, 1), (1.0, 8), (1.5, 32)])
def test_interval_holds_the_information_of_a_gaussian_channel(nats, dim):
    """Oracle: the channel's mutual information in closed form; the temperature of the true log ratio is 1."""
    x, y, rho = channel(nats, dim=dim, n=700, seed=3)
    found = information_bound(log_ratio(x, y, rho), generator=np.random.default_rng(0), n_permutations=5, n_repeats=2)
    assert found.low < nats < found.high
    assert found.high - found.low < 0.5
    assert found.temperature == pytest.approx(1.0, abs=0.2)
    assert found.p_value == pytest.approx(1 / 6)


def test_intervals_hold_the_truth_in_most_channels():
    """30 channels of 1 nat, a 95 % interval: at least 25 hold it (binomial: P < 1e-3 for fewer)."""
    held = 0
    for seed in range(30):
        x, y, rho = channel(1.0, dim=4, n=200, seed=seed)
        found = information_bound(
            log_ratio(x, y, rho), generator=np.random.default_rng(seed), n_permutations=1, n_repeats=1, n_bootstrap=500
        )
        held += found.low < 1.0 < found.high
    assert held >= 25


def test_cosine_is_a_lower_bound():
    x, y, _ = channel(1.5, dim=32, n=400, seed=0)
    found = information_bound(cosine_similarity(x, y), generator=np.random.default_rng(0), n_permutations=5)
    assert 1.0 < found.nats < 1.55


def test_shuffled_responses_hold_no_information():
    for seed in range(3):
        x, y, _ = channel(1.5, dim=8, n=120, seed=seed)
        shuffled = y[np.random.default_rng(seed).permutation(120)]
        found = information_bound(cosine_similarity(x, shuffled), generator=np.random.default_rng(0), n_permutations=40)
        assert abs(found.nats) < 0.06
        assert found.p_value > 0.02


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
