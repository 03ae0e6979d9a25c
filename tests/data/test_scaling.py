"""z-scoring. Oracle: scipy.stats.zscore, and numpy's mean and std per session."""

import numpy as np
import pytest
import scipy.stats

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.scaling import mean_and_sd, zscore


def responses(n_trials: int = 150, n_voxels: int = 4, **more) -> Responses:
    values = np.random.default_rng(0).normal(1000, 2, (n_trials, n_voxels)).astype(np.float32)
    return Responses(
        subject="sub-01",
        values=values,
        stimulus_ids=["s"] * n_trials,
        geometry=Geometry.from_points(np.arange(3.0 * n_voxels).reshape(n_voxels, 3)),
        **more,
    )


def test_mean_and_sd_far_from_zero():
    given = responses()
    mean, sd = mean_and_sd(given, np.arange(150))
    np.testing.assert_allclose(mean, given.values.astype(float).mean(0), rtol=1e-12)
    np.testing.assert_allclose(sd, given.values.astype(float).std(0), rtol=1e-9)
    with pytest.raises(DegenerateError, match="no trials"):
        mean_and_sd(given, np.arange(0))


def test_train_stats_equals_scipy_on_the_training_trials_and_reaches_the_others():
    given, train, test = responses(), np.arange(100), np.arange(100, 150)
    scaled = zscore(given, train, fit_trials=train, mode="train_stats")
    np.testing.assert_allclose(scaled, scipy.stats.zscore(given.values[train].astype(float), axis=0), atol=2e-4)
    other = zscore(given, test, fit_trials=train, mode="train_stats")
    mean, sd = given.values[train].astype(float).mean(0), given.values[train].astype(float).std(0)
    np.testing.assert_allclose(other, (given.values[test] - mean) / sd, atol=2e-4)
    assert other.dtype == np.float32


def test_per_session_uses_each_sessions_own_non_test_trials():
    given = responses(sessions=np.arange(150) % 3)
    test = np.arange(120, 150)
    scaled = zscore(given, test, fit_trials=np.arange(120), mode="per_session")
    for row, trial in enumerate(test):  # slow loop
        own = given.values[[t for t in range(120) if t % 3 == trial % 3]].astype(float)
        np.testing.assert_allclose(scaled[row], (given.values[trial] - own.mean(0)) / own.std(0), atol=2e-4)


def test_a_constant_voxel_becomes_zero_not_nan():
    given = responses()
    given.values[:, 1] = 1234.5
    scaled = zscore(given, np.arange(150), fit_trials=np.arange(150), mode="train_stats")
    assert np.array_equal(scaled[:, 1], np.zeros(150))


def test_too_few_trials_in_a_session_and_unknown_modes_are_refused():
    given = responses(sessions=np.arange(150) // 100)
    with pytest.raises(DegenerateError, match="session 1 of sub-01 has 9 non-test trials"):
        zscore(given, np.arange(110, 150), fit_trials=np.arange(109), mode="per_session")
    with pytest.raises(InputError, match="train_stats, per_session is needed, 'per_run' came"):
        zscore(given, np.arange(5), fit_trials=np.arange(100), mode="per_run")
