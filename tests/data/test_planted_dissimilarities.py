"""Oracles: scipy's correlation distance, the law of large numbers, the course in time that was asked for."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.planted_dissimilarities import embedding_rdm, gaussian_course, subject_rdms, timed_subject_rdms

RNG = np.random.default_rng(0)
FEATURES = {"early": RNG.standard_normal((10, 4, 3)), "late": RNG.standard_normal((10, 1, 5))}
PAIRS = np.triu_indices(10, 1)


def test_embedding_rdm_is_scipys_correlation_distance_of_the_scaled_features():
    per_channel = np.array([0.5, -2.0, 1.0])
    embedding = np.concatenate([(FEATURES["early"] * per_channel).reshape(10, -1), 0.3 * FEATURES["late"].reshape(10, -1)], 1)
    expected = squareform(pdist(embedding, "correlation"))
    np.testing.assert_allclose(embedding_rdm(FEATURES, {"early": per_channel, "late": 0.3}), expected, atol=1e-12)


def test_scales_must_fit_the_stages():
    with pytest.raises(NotFoundError, match="stages are early, late"):
        embedding_rdm(FEATURES, {"early": 1.0})
    with pytest.raises(InputError, match="each of 5 channels"):
        embedding_rdm(FEATURES, {"early": 1.0, "late": np.ones(4)})
    with pytest.raises(InputError, match="different numbers of images"):
        embedding_rdm({**FEATURES, "late": FEATURES["late"][:9]}, {"early": 1.0, "late": 1.0})


def test_the_mean_over_many_subjects_is_the_rdm_and_each_is_a_distance():
    rdm = embedding_rdm(FEATURES, {"early": 1.0, "late": 1.0})
    subjects = subject_rdms(rdm, n_subjects=4000, noise=2.0, rng=np.random.default_rng(1))
    error = (subjects.mean(0) - rdm)[PAIRS]
    standard_error = subjects.std(0)[PAIRS] / np.sqrt(4000)
    assert np.abs(error / standard_error).max() < 4.5  # 45 pairs; a cut-off on one side only gives 40
    assert np.array_equal(subjects, np.swapaxes(subjects, 1, 2))
    assert subjects.min() >= 0
    assert subjects.max() <= 2
    assert not np.diagonal(subjects, axis1=1, axis2=2).any()


def test_small_noise_has_the_asked_standard_deviation_and_a_share_that_follows_the_image():
    rdm = embedding_rdm(FEATURES, {"early": 1.0, "late": 1.0})
    noise = (subject_rdms(rdm, n_subjects=3000, noise=0.05, rng=np.random.default_rng(2)) - rdm)[:, *PAIRS]
    np.testing.assert_allclose(noise.std(0), 0.05 * rdm[PAIRS].std(), rtol=0.06)
    correlation = np.corrcoef(noise.T)
    shares_an_image = correlation[0, 1], correlation[0, 5]  # (0, 1) with (0, 2), and with (0, 6)
    np.testing.assert_allclose(shares_an_image, 0.25, atol=0.06)
    np.testing.assert_allclose(correlation[0, -1], 0, atol=0.06)  # (0, 1) with (8, 9)


def test_meg_follows_the_course_and_its_noise_is_correlated_in_time():
    rdm = embedding_rdm(FEATURES, {"early": 1.0, "late": 1.0})
    course = gaussian_course(5, 0.25)
    np.testing.assert_allclose(course, np.exp([-2, -0.5, 0, -0.5, -2]))
    assert gaussian_course(1, 0.25).tolist() == [1.0]
    subjects = timed_subject_rdms(rdm, n_subjects=3000, course=course, noise=0.05, carry=0.6, rng=np.random.default_rng(3))
    assert subjects.shape == (3000, 5, 10, 10)
    values, middle = subjects[:, :, *PAIRS], rdm[PAIRS].mean()
    expected = middle + course[:, None] * (rdm[PAIRS] - middle)
    np.testing.assert_allclose(values.mean(0), expected, atol=5 * 0.05 * rdm[PAIRS].std() / np.sqrt(3000))
    noise = values - expected
    lag = [np.corrcoef(noise[:, 0, 7], noise[:, step, 7])[0, 1] for step in (1, 2)]
    np.testing.assert_allclose(lag, [0.6, 0.36], atol=0.06)
