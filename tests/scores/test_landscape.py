"""InPCA against a case worked by hand, classical scaling, and models whose distances are known."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.scores.landscape import bhattacharyya, intensive_components


def test_dissimilarity_of_two_classes_by_hand():
    """(cos^2 a, sin^2 a) and (cos^2 b, sin^2 b): D = -log cos(a - b); averaged over images."""
    angles = np.array([[0.2, 0.5], [0.6, 1.0], [1.1, 0.3]])  # model, image
    given = 2 * np.log(np.stack([np.cos(angles), np.sin(angles)], axis=-1))
    wanted = -np.log(np.cos(angles[:, None] - angles[None])).mean(-1)
    np.testing.assert_allclose(bhattacharyya(given), wanted, atol=1e-12)


def test_same_predictions_are_at_distance_0_and_shared_shuffles_change_nothing():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((3, 40, 5))
    given = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    found = bhattacharyya(np.concatenate([given, given[:1]]))
    assert found[0, 3] == pytest.approx(0, abs=1e-12)
    assert (found[np.triu_indices(3, 1)] > 0.05).all()
    order, classes = rng.permutation(40), rng.permutation(5)
    np.testing.assert_allclose(bhattacharyya(given[:, order][:, :, classes]), found[:3, :3])


def test_negative_eigenvalue_by_hand():
    """D = [[0,1,9],[1,0,1],[9,1,0]]: eigenvalues 9/2 along (1,0,-1)/sqrt 2 and -5/6 along (1,-2,1)/sqrt 6."""
    found = intensive_components(np.array([[0.0, 1, 9], [1, 0, 1], [9, 1, 0]]))
    np.testing.assert_allclose(found.eigenvalues, [9 / 2, -5 / 6])
    assert found.negative.tolist() == [False, True]
    np.testing.assert_allclose(np.abs(found.coordinates[:, 0]), [1.5, 0, 1.5], atol=1e-12)
    np.testing.assert_allclose(np.abs(found.coordinates[:, 1]), np.sqrt(5 / 36) * np.array([1, 2, 1]))
    np.testing.assert_allclose(found.share, np.array([27, 5]) / 32)


def test_squared_distances_give_classical_scaling_without_negatives():
    """Oracle: points of a plane; their squared distances give them back up to rotation, and nothing is negative."""
    points = np.random.default_rng(1).standard_normal((8, 2))
    squared = ((points[:, None] - points[None]) ** 2).sum(-1)
    found = intensive_components(squared)
    assert found.coordinates.shape == (8, 2)
    assert not found.negative.any()
    np.testing.assert_allclose(((found.coordinates[:, None] - found.coordinates[None]) ** 2).sum(-1), squared)


def test_signed_squares_give_the_dissimilarity_back():
    """Invariance: D(u, v) = sum_k sign_k (x_uk - x_vk)^2 whatever the signs are."""
    rng = np.random.default_rng(2)
    given = rng.random((6, 6))
    given = np.triu(given, 1) + np.triu(given, 1).T
    found = intensive_components(given)
    assert found.negative.any()
    signs = np.where(found.negative, -1, 1)
    difference = found.coordinates[:, None] - found.coordinates[None]
    np.testing.assert_allclose((signs * difference**2).sum(-1), given, atol=1e-12)


def test_probabilities_that_sum_to_1_within_rounding_count_as_if_they_did():
    """Oracle: the same probabilities divided by their sum; single precision is as good as double of the same numbers."""
    rng = np.random.default_rng(3)
    given = np.log(rng.dirichlet(np.ones(4), size=(3, 6)))
    off = given + rng.uniform(-9e-5, 9e-5, size=(3, 6, 1))
    np.testing.assert_allclose(bhattacharyya(off), bhattacharyya(given), rtol=0, atol=1e-12)
    single = given.astype(np.float32)
    found = bhattacharyya(single)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, bhattacharyya(single.astype(np.float64)))


@pytest.mark.parametrize("scale", [1e-13, 1.0, 1e13])
def test_components_scale_with_the_dissimilarity(scale):
    """Closed form: eigenvalues are linear in D, coordinates go with its root; equal models have no component."""
    given = np.array([[0.0, 1, 9], [1, 0, 1], [9, 1, 0]], np.float32)
    found, wanted = intensive_components(given * np.float64(scale)), intensive_components(given)
    assert wanted.coordinates.dtype == np.float64
    np.testing.assert_allclose(wanted.eigenvalues, [9 / 2, -5 / 6], rtol=1e-14)
    np.testing.assert_allclose(found.eigenvalues, scale * wanted.eigenvalues, rtol=1e-12)
    np.testing.assert_allclose(np.abs(found.coordinates), scale**0.5 * np.abs(wanted.coordinates), atol=1e-7 * scale**0.5)
    equal = intensive_components(np.zeros((4, 4)))
    assert (equal.coordinates.shape, equal.eigenvalues.size, equal.share.size) == ((4, 0), 0, 0)


def test_what_cannot_be_is_refused():
    with pytest.raises(InputError, match=r"model 0, image 0 sum to 0\.5"):
        bhattacharyya(np.log(np.full((3, 2, 2), 0.25)))
    with pytest.raises(InputError, match="3 models"):
        intensive_components(np.zeros((2, 2)))
    with pytest.raises(InputError, match="symmetric"):
        intensive_components(np.triu(np.ones((3, 3)), 1))
    with pytest.raises(InputError, match="infinite"):
        intensive_components(np.full((3, 3), np.inf))
