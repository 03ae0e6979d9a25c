"""The ridge beneath RidgeEncoder: shared products of alphas against one solution per alpha, and precision."""

import pytest
import torch

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.linear import ridge, ridge_layer

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


FOLDS = {
    "whole": [(range(7, 40), range(7)), ([*range(7), *range(20, 40)], range(7, 20)), (range(20), range(20, 40))],
    "some are in no fold": [(range(3, 30), range(3)), (range(16), range(30, 38))],
    "as many as there are, on both sides": [(range(30), range(25, 35)), (range(10, 40), range(5, 15))],
    "one": [(range(8, 40), range(8))],
    "a gap beside what is held out": [
        (range(13, 40), range(10)),
        ([*range(7), *range(24, 40)], range(10, 21)),
        (range(18), range(21, 40)),
    ],
}


@pytest.mark.long
@pytest.mark.parametrize("folds", FOLDS.values(), ids=FOLDS)
@pytest.mark.parametrize("n_features", [1, 12, 70])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("dtype", "unit"), [(torch.float64, 1e-6), (torch.float64, 1e4), (torch.float32, 1.0)])
def test_scores_of_a_search_are_those_of_refits(folds, n_features, fit_intercept, dtype, unit):
    """Oracle: scikit-learn's Ridge fold by fold, in any unit of the features; some blocks of voxels are left out."""
    from sklearn.linear_model import Ridge

    features, responses = problem(40, n_features, decay=0.3, dtype=dtype)
    features, responses = unit * features, responses + 3
    alphas, blocks = unit**2 * torch.tensor([0.1, 10.0, 300.0], dtype=torch.float64), [slice(0, 3), slice(5, 7)]
    layer = ridge_layer.prepare(features, fit_intercept=fit_intercept, smallest_alpha=float(alphas[0]))
    pairs = [(torch.tensor([*train]), torch.tensor([*held_out])) for train, held_out in folds]
    X, y = features.double().numpy(), responses.double().numpy()
    wanted = torch.zeros(3, 7, dtype=torch.float64)
    for row, alpha in enumerate(alphas.tolist()):
        for train, held_out in folds:
            model = Ridge(alpha, fit_intercept=fit_intercept, solver="svd").fit(X[[*train]], y[[*train]])
            wanted[row] -= torch.from_numpy(((model.predict(X[[*held_out]]) - y[[*held_out]]) ** 2).mean(0)) / len(folds)
    for n_voxels in (None, 100_000):
        found = list(ridge.search(layer, pairs, alphas, lambda block: responses[:, block], blocks, n_voxels=n_voxels))
        assert [block for block, _ in found] == blocks
        for block, scores in found:
            assert scores.dtype == dtype
            tolerance = 1e-7 if dtype == torch.float64 else 1e-3
            torch.testing.assert_close(scores.double(), wanted[:, block], rtol=tolerance, atol=0)


def test_large_means_of_the_responses_cost_no_precision():
    """Oracle: the search in float64 on the same numbers; each voxel has a mean of its own, far above its spread."""
    features, responses = problem(40, 12, dtype=torch.float32)
    responses = (responses + 3e4 * torch.linspace(-1, 1, 7)).to(torch.float32)
    found = []
    for dtype in (torch.float32, torch.float64):
        layer = ridge_layer.prepare(features.to(dtype), fit_intercept=True, smallest_alpha=0.1)
        folds = [(torch.arange(10, 40), torch.arange(10)), (torch.arange(10), torch.arange(10, 40))]
        [(_, scores)] = ridge.search(layer, folds, ALPHAS, lambda block, dtype=dtype: responses.to(dtype), [slice(0, 7)])
        found.append(scores.double())
    torch.testing.assert_close(*found, rtol=1e-2, atol=0)


@pytest.mark.parametrize("n_components", [1, 4, 100])
@pytest.mark.parametrize("n_features", [12, 70])
def test_few_components_are_those_of_a_principal_component_analysis(n_components, n_features):
    """Oracle: scikit-learn's PCA and Ridge of the training images of each fold; of all images for `whole`."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline

    features, responses = problem(40, n_features, decay=0.3)
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=1.0)
    assert layer.reduction is None
    pairs = [(torch.tensor([*train]), torch.tensor([*held_out])) for train, held_out in FOLDS["whole"]]
    settings = {"n_components": n_components}
    [(_, found)] = ridge.search(layer, pairs, torch.tensor([2.0]).double(), lambda block: responses, [slice(0, 7)], **settings)
    wanted = torch.zeros(7, dtype=torch.float64)
    for train, held_out in pairs:
        pipeline = make_pipeline(PCA(min(n_components, n_features, len(train)), svd_solver="full"), Ridge(2.0))
        predicted = pipeline.fit(features[train], responses[train]).predict(features[held_out])
        wanted -= (torch.from_numpy(predicted) - responses[held_out]).square().mean(0) / 3
    torch.testing.assert_close(found[0], wanted)
    part = ridge.whole(layer, **settings)
    assert len(part.eigenvalues) == min(n_components, n_features, 39)
    assert len(part.held_out) == 0


@pytest.mark.parametrize("n_features", [1, 12, 70])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize(("dtype", "alpha"), [(torch.float64, 0.5), (torch.float32, 0.5), (torch.float32, 1e-3)])
def test_new_images_are_predicted_as_by_scikit_learn(monkeypatch, n_features, fit_intercept, dtype, alpha):
    """Oracle: scikit-learn's Ridge with an alpha per voxel; by rows, by axes, and by weights of the features."""
    from sklearn.linear_model import Ridge

    monkeypatch.setattr(ridge, "ROWS_PER_BLOCK", 7)
    features, responses = problem(50, n_features, decay=1.5, dtype=dtype)
    features, new, responses = features[:40], features[40:], responses[:40] + 3
    alphas = alpha * torch.arange(1, 8, dtype=torch.float64)
    layer = ridge_layer.prepare(features, fit_intercept=fit_intercept, smallest_alpha=alpha)
    part = ridge.whole(layer)
    assert part.rows.dtype == part.vectors.dtype == dtype
    centre = responses.mean(0) if fit_intercept else torch.zeros(7, dtype=dtype)
    model = Ridge(alphas.numpy(), fit_intercept=fit_intercept, solver="cholesky")
    wanted = torch.from_numpy(model.fit(features.double().numpy(), responses.double().numpy()).predict(new.double().numpy()))
    tolerance = 1e-8 if dtype == torch.float64 else 2e-3
    for cross in (None, layer.features.T @ (responses - centre)):
        sums, mean = ridge.moments(layer, part, responses - centre, cross=cross)
        torch.testing.assert_close(mean, torch.zeros(7, dtype=dtype), atol=1e-5, rtol=0)
        weights = ridge.weights(part, ridge.coordinates(part, sums), alphas)
        assert weights.dtype == dtype
        by_rows = ridge.rows_of(layer, part, new) @ weights
        by_axes = (new - layer.mean) @ ridge.axes(layer, part) @ weights
        by_weights = (new - layer.mean) @ ridge.axes(layer, part, weights=weights)
        for predicted in (by_rows, by_axes, by_weights):
            assert predicted.dtype == dtype
            torch.testing.assert_close((predicted + centre).double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.long
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


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_leave_one_out_goes_block_by_block_in_the_precision_of_the_responses(dtype):
    features, responses = problem(24, 9, dtype=dtype)
    layer = ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=0.01)
    [(_, whole)] = ridge.search(layer, None, ALPHAS, lambda block: responses[:, block], [slice(0, 7)])
    blocks = [slice(2, 5), slice(0, 2), slice(5, 7)]
    found = dict(
        zip(("middle", "first", "last"), ridge.search(layer, None, ALPHAS, lambda b: responses[:, b], blocks), strict=True)
    )
    assert [block for block, _ in found.values()] == blocks
    for block, scores in found.values():
        assert scores.dtype == dtype
        torch.testing.assert_close(scores, whole[:, block])


@pytest.mark.parametrize("fit_intercept", [True, False])
def test_leave_one_out_where_the_features_span_the_images_takes_the_smallest_alpha(fit_intercept):
    """Oracle: e_i = (K + alpha)^-1 y / its diagonal, which does not depend on an alpha that vanishes beside the eigenvalues."""
    features, responses = problem(12, 40)
    layer = ridge_layer.prepare(features, fit_intercept=fit_intercept, smallest_alpha=1e-12)
    [(_, found)] = ridge.search(layer, None, torch.tensor([1e-12]).double(), lambda block: responses, [slice(0, 7)])
    errors = torch.zeros(7, dtype=torch.float64)
    for image in range(12):
        rest = torch.tensor([row for row in range(12) if row != image])
        shift = features[rest].mean(0) if fit_intercept else 0.0
        centre = responses[rest].mean(0) if fit_intercept else 0.0
        solution = torch.linalg.lstsq(features[rest] - shift, responses[rest] - centre, driver="gelsd").solution  # least norm
        errors += ((features[image] - shift) @ solution + centre - responses[image]).square() / 12
    torch.testing.assert_close(-found[0], errors, rtol=1e-6, atol=0)


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
    close = torch.tensor([[-1.0, -1.0], [-1.0 - 1e-12, -1.0 - 1e-8]], dtype=torch.float64)  # within rounding, and beyond it
    place, score = ridge.best_alpha(close, torch.tensor([1.0, 10.0]))
    assert place.tolist() == [1, 0]
    torch.testing.assert_close(score, torch.tensor([-1.0 - 1e-12, -1.0], dtype=torch.float64), rtol=1e-15, atol=0)


def test_features_that_are_not_finite_are_refused():
    features, _ = problem(20, 5)
    features[3, 2] = torch.nan
    with pytest.raises(InputError, match="not finite"):
        ridge_layer.prepare(features, fit_intercept=True, smallest_alpha=1.0)


@pytest.mark.long
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
