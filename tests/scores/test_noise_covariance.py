"""Oracles: rsatoolbox's estimates from the same residuals, and closed forms."""

import numpy as np
import pytest
from rsatoolbox.data.noise import cov_from_residuals, prec_from_residuals

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.noise_covariance import condition_means, noise_precision, noise_variance, residuals_of


@pytest.fixture
def measured() -> tuple[np.ndarray, np.ndarray]:
    """20 conditions, one to five times, over 12 correlated voxels of unlike spread."""
    generator = np.random.default_rng(0)
    code = np.repeat(np.arange(20), generator.integers(1, 6, 20))
    mixing = np.eye(12) + 0.3 * generator.standard_normal((12, 12))
    values = generator.standard_normal((len(code), 12)) @ mixing * np.linspace(0.5, 4, 12)
    order = generator.permutation(len(code))
    return values[order] + 5 * code[order][:, None], code[order]


@pytest.mark.parametrize("method", ["shrinkage_diag", "shrinkage_eye"])
def test_precision_is_that_of_rsatoolbox(measured: tuple[np.ndarray, np.ndarray], method: str) -> None:
    residuals, n_free = residuals_of(*measured)
    expected = prec_from_residuals(residuals, dof=n_free, method=method)
    np.testing.assert_allclose(noise_precision(residuals, n_free=n_free, method=method), expected, rtol=1e-8, atol=1e-10)
    assert not np.allclose(expected, np.linalg.inv(cov_from_residuals(residuals, dof=n_free, method="full")), rtol=1e-3)


def test_variance_is_that_of_rsatoolbox(measured: tuple[np.ndarray, np.ndarray]) -> None:
    residuals, n_free = residuals_of(*measured)
    expected = np.diag(cov_from_residuals(residuals, dof=n_free, method="diag"))
    np.testing.assert_allclose(noise_variance(residuals, n_free=n_free), expected)


def test_residuals_are_trials_less_the_mean_of_their_condition(measured: tuple[np.ndarray, np.ndarray]) -> None:
    values, code = measured
    residuals, n_free = residuals_of(values, code)
    means, counts = condition_means(values, code)
    assert n_free == len(code) - 20 == counts.sum() - 20
    for condition in range(20):
        inside = code == condition
        np.testing.assert_allclose(means[condition], values[inside].mean(0))
        np.testing.assert_allclose(residuals[inside], values[inside] - values[inside].mean(0))


def test_what_gives_no_noise_is_refused(measured: tuple[np.ndarray, np.ndarray]) -> None:
    values, code = measured
    with pytest.raises(DegenerateError, match="no image was shown twice"):
        residuals_of(values[:5], np.arange(5))
    residuals, n_free = residuals_of(values, code)
    residuals[:, 3] = 0.0
    with pytest.raises(DegenerateError, match="1 voxels do not vary"):
        noise_precision(residuals, n_free=n_free)
    with pytest.raises(InputError, match="shrinkage_diag, shrinkage_eye fits, 'full' came"):
        noise_precision(residuals, n_free=n_free, method="full")
