"""The ridge beneath RidgeEncoder: shared products of alphas against one solution per alpha, and precision."""

import pytest
import torch

from pulvinar.errors import DegenerateError, InputError
from pulvinar.models import ridge, ridge_layer

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
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=0.01)
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


@pytest.mark.parametrize("shape", [(24, 80), (24, 24), (24, 23), (24, 5)], ids=str)
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leave_one_out_is_that_of_refits_at_every_alpha(shape, fit_intercept, dtype):
    """Oracle: scikit-learn's Ridge fitted to all other images. Both e and 1 - h vanish with alpha where features are many."""
    from sklearn.linear_model import Ridge

    features, responses = problem(*shape, decay=0.5, dtype=dtype)
    alphas = torch.tensor([1e-4, 1e-2, 1.0, 1e3], dtype=torch.float64)
    layer = ridge_layer.prepare(features, fit_intercept=fit_intercept, smallest_alpha=1e-4)
    [(_, found)] = ridge.search(layer, None, alphas, lambda block: responses, [slice(0, 7)])
    X, y = features.double().numpy(), responses.double().numpy()
    for alpha, scores in zip(alphas.tolist(), found, strict=True):
        errors = torch.zeros(7, dtype=torch.float64)
        for image in range(len(X)):
            rest = [row for row in range(len(X)) if row != image]
            fitted = Ridge(alpha, fit_intercept=fit_intercept, solver="svd").fit(X[rest], y[rest])
            errors += torch.from_numpy((fitted.predict(X[image : image + 1])[0] - y[image]) ** 2 / len(X))
        torch.testing.assert_close(-scores.double(), errors, rtol=1e-6 if dtype == torch.float64 else 1e-3, atol=0)


def test_leave_one_out_takes_duplicate_images_and_a_steep_spectrum():
    """Oracle: refits; the constant direction must not be mixed with components that are almost as small as rounding."""
    from sklearn.linear_model import Ridge

    features, responses = problem(30, 90, decay=4.0)
    features[1] = features[0]
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=1e-6)
    [(_, found)] = ridge.search(layer, None, torch.tensor([1e-6]).double(), lambda block: responses, [slice(0, 7)])
    X, y = features.numpy(), responses.numpy()
    errors = torch.zeros(7, dtype=torch.float64)
    for image in range(30):
        rest = [row for row in range(30) if row != image]
        fitted = Ridge(1e-6, solver="svd").fit(X[rest], y[rest])
        errors += torch.from_numpy((fitted.predict(X[image : image + 1])[0] - y[image]) ** 2 / 30)
    torch.testing.assert_close(-found[0], errors, rtol=1e-5, atol=0)


def test_leave_one_out_refuses_an_image_that_fits_itself_and_a_choice_of_components():
    features = torch.cat([torch.eye(20)[:, :3], torch.zeros(20, 2)], 1).double()
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=1e-12)
    alphas = torch.tensor([1e-12]).double()
    with pytest.raises(DegenerateError, match="fits itself"):
        list(ridge.search(layer, None, alphas, lambda block: features, [slice(0, 5)]))
    with pytest.raises(InputError, match=r"n_components: .* keeps all components, 2 came"):
        list(ridge.search(layer, None, alphas, lambda block: features, [slice(0, 5)], n_components=2))


def test_both_ways_of_sharing_are_taken():
    """Few voxels: coordinates first; many: maps made once. (Otherwise the test above would see one way only.)"""
    layer = ridge_layer.prepare(problem(40, 70)[0], fit_intercept=True, smallest_alpha=0.01)
    part = ridge.fold(layer, torch.arange(5, 40), torch.arange(5))
    ways = [ridge.share_products(part, ALPHAS, kernel=True, n_voxels=count).on_moments for count in (1, 100_000)]
    assert ways == [False, True]


def test_precision_follows_the_spectrum():
    """float32 where the smallest alpha is of the size of the eigenvalues, float64 where they span ten orders."""
    flat, steep = (problem(80, 30, decay=decay, dtype=torch.float32)[0] for decay in (0.0, 3.5))
    assert ridge_layer.prepare(flat, fit_intercept=True, smallest_alpha=0.1).products.dtype == torch.float32
    assert ridge_layer.prepare(steep, fit_intercept=True, smallest_alpha=1e-6).products.dtype == torch.float64
    assert ridge_layer.prepare(steep, fit_intercept=True, smallest_alpha=1.0).products.dtype == torch.float32


def test_of_equal_scores_the_larger_alpha_is_taken():
    place, score = ridge.best_alpha(torch.tensor([[-1.0, -2.0], [-1.0, -1.0], [-1.0, -3.0]]), torch.tensor([1.0, 10.0, 100.0]))
    assert place.tolist() == [2, 1]
    torch.testing.assert_close(score, torch.tensor([-1.0, -1.0], dtype=torch.float64))


def test_features_that_are_not_finite_are_refused():
    features, _ = problem(20, 5)
    features[3, 2] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=1.0)


@pytest.mark.parametrize(("n_images", "n_features"), [(160, 300), (300, 160)], ids=["over images", "over features"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_reduced_layer_predicts_as_a_principal_component_analysis_of_the_fold(n_images, n_features, dtype):
    """Oracle: scikit-learn's PCA of the fold's training images and a solve per alpha, in float64."""
    from sklearn.decomposition import PCA

    features, responses = problem(n_images, n_features, decay=1.2, dtype=dtype)
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=0.01, n_components=30)
    assert layer.reduction is not None
    assert layer.features.shape == (n_images, round(30 * ridge_layer.REDUCED_SURPLUS) + ridge_layer.REDUCED_MORE)
    assert layer.reduction_of_images == (n_features > n_images)
    train, held_out = torch.arange(n_images // 4, n_images), torch.arange(n_images // 4)
    outcome = responses - responses.mean(0)
    [(_, found)] = ridge.search(layer, [(train, held_out)], ALPHAS, lambda block: responses, [slice(0, 7)], n_components=30)
    whole = features.double().numpy()
    leading = PCA(layer.features.shape[1], svd_solver="full").fit_transform(whole)
    for given, tolerance in ((leading, 1e-7 if dtype == torch.float64 else 1e-3), (whole, 0.01)):  # beyond them, all
        pca = PCA(30, svd_solver="full").fit(given[train])
        inside, outside = (torch.from_numpy(pca.transform(given[rows])) for rows in (train, held_out))
        mean = outcome[train].double().mean(0)
        for alpha, scores in zip(ALPHAS, found, strict=True):
            weights = torch.linalg.solve(inside.T @ inside + alpha * torch.eye(30), inside.T @ (outcome[train].double() - mean))
            error = (outside @ weights + mean - outcome[held_out].double()).square().mean(0)
            torch.testing.assert_close(-scores.double(), error, rtol=tolerance, atol=0)


@pytest.mark.parametrize(("n_images", "n_features"), [(160, 300), (300, 160)], ids=["over images", "over features"])
def test_axes_of_a_reduced_layer_are_those_of_a_whole_one(n_images, n_features):
    """Oracle: the same decomposition without the reduction; components agree up to their sign."""
    features, responses = problem(n_images, n_features, decay=0.7)
    predictions = []
    for n_components in (None, 30):
        layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=0.01, n_components=n_components)
        part = ridge.whole(layer, n_components=30)
        sums = ridge.moments(layer, part, responses - responses.mean(0))[0]
        weights = ridge.weights(part, ridge.coordinates(part, sums), torch.full((7,), 2.0))
        rows = (features - layer.mean) @ ridge.axes(layer, part, features=features)
        predictions.append(rows @ weights)
        folded = (features - layer.mean) @ ridge.axes(layer, part, features=features, weights=weights)
        torch.testing.assert_close(folded, predictions[-1])
    torch.testing.assert_close(predictions[1], predictions[0])


def test_a_layer_reduced_over_images_asks_for_its_features():
    layer = ridge_layer.prepare(problem(160, 300)[0], fit_intercept=True, smallest_alpha=1.0, n_components=20)
    with pytest.raises(InputError, match="features: the axes of a reduced layer need"):
        ridge.axes(layer, ridge.whole(layer, n_components=20))


@pytest.mark.parametrize("large", [1, 1000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_small_and_large_matrices_are_decomposed_alike(large, dtype, monkeypatch):
    """Both ways (scipy from LARGE rows on, torch below): ascending values, and vectors that give the matrix back."""
    monkeypatch.setattr(ridge_layer, "LARGE", large)
    rows, _ = problem(60, 50, dtype=dtype)
    products = rows.T @ rows
    before = products.clone()
    values, vectors = ridge_layer.decomposed(products)
    assert values.dtype == vectors.dtype == dtype
    assert bool((values.diff() >= 0).all())
    assert torch.equal(products, before)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(vectors * values @ vectors.T, products, rtol=tolerance, atol=tolerance * float(values[-1]))
