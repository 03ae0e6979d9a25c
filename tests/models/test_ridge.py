"""The ridge beneath RidgeEncoder: shared products of alphas against one solution per alpha, and precision."""

import pytest
import torch

from pulvinar.errors import InputError
from pulvinar.models import ridge

ALPHAS = torch.logspace(-2, 6, 9, dtype=torch.float64)


def problem(n_images, n_features, *, decay=0.0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(n_images, n_features, generator=generator, dtype=torch.float64)
    features *= torch.arange(1, n_features + 1) ** -decay
    return (features + 1).to(dtype), torch.randn(n_images, 7, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("n_images", "n_features"), [(90, 30), (40, 70)])
@pytest.mark.parametrize("n_voxels", [1, 100_000])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 1e-3)])
def test_predictions_of_all_alphas_are_those_of_one_solution_each(n_images, n_features, n_voxels, dtype, tolerance):
    """Oracle: torch.linalg.solve of the normal equations in float64, on the centred training images of the fold."""
    features, responses = problem(n_images, n_features, dtype=dtype)
    layer = ridge.prepare(features, fit_intercept=True, smallest_alpha=0.01)
    held_out = torch.arange(0, n_images, 4)
    train = torch.tensor([row for row in range(n_images) if row % 4])
    part = ridge.fold(layer, train, held_out)
    shared = ridge.share_products(part, ALPHAS, kernel=layer.kernel, n_voxels=n_voxels)
    sums, mean = ridge.moments(layer, part, responses - responses.mean(0))
    inside, outcome = features[train].double(), (responses - responses.mean(0))[train].double()
    centred, target = inside - inside.mean(0), outcome - outcome.mean(0)
    for alpha, predicted in zip(ALPHAS, ridge.predictions(part, shared, sums), strict=True):
        solution = torch.linalg.solve(
            centred.T @ centred + alpha * torch.eye(n_features, dtype=torch.float64), centred.T @ target
        )
        wanted = (features[held_out].double() - inside.mean(0)) @ solution
        torch.testing.assert_close(predicted.double(), wanted, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(mean.double(), outcome.mean(0), atol=1e-6, rtol=1e-6)


def test_both_ways_of_sharing_are_taken():
    """Few voxels: coordinates first; many: maps made once. (Otherwise the test above would see one way only.)"""
    layer = ridge.prepare(problem(40, 70)[0], fit_intercept=True, smallest_alpha=0.01)
    part = ridge.fold(layer, torch.arange(5, 40), torch.arange(5))
    ways = [ridge.share_products(part, ALPHAS, kernel=True, n_voxels=count).on_moments for count in (1, 100_000)]
    assert ways == [False, True]


def test_precision_follows_the_spectrum():
    """float32 where the smallest alpha is of the size of the eigenvalues, float64 where they span ten orders."""
    flat, steep = (problem(80, 30, decay=decay, dtype=torch.float32)[0] for decay in (0.0, 3.5))
    assert ridge.prepare(flat, fit_intercept=True, smallest_alpha=0.1).products.dtype == torch.float32
    assert ridge.prepare(steep, fit_intercept=True, smallest_alpha=1e-6).products.dtype == torch.float64
    assert ridge.prepare(steep, fit_intercept=True, smallest_alpha=1.0).products.dtype == torch.float32


def test_of_equal_scores_the_larger_alpha_is_taken():
    place, score = ridge.best_alpha(torch.tensor([[-1.0, -2.0], [-1.0, -1.0], [-1.0, -3.0]]), torch.tensor([1.0, 10.0, 100.0]))
    assert place.tolist() == [2, 1]
    torch.testing.assert_close(score, torch.tensor([-1.0, -1.0], dtype=torch.float64))


def test_features_that_are_not_finite_are_refused():
    features, _ = problem(20, 5)
    features[3, 2] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        ridge.prepare(features, fit_intercept=True, smallest_alpha=1.0)
