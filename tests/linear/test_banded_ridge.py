"""Banded ridge against a slow loop: scikit-learn's Ridge for every draw of shares, every alpha and every fold."""

import builtins

import numpy as np
import pytest
from himalaya import backend
from himalaya.kernel_ridge import generate_dirichlet_samples
from sklearn.linear_model import Ridge

from pulvinar.core.errors import MissingDependencyError
from pulvinar.linear.banded_ridge import fit_banded, himalaya_backend

ALPHAS = np.array([0.3, 10.0, 300.0])
FOLDS = [(np.arange(8, 24), np.arange(8)), (np.r_[0:8, 12:24], np.arange(8, 12)), (np.arange(12), np.arange(12, 24))]


def problem(widths=(40, 5), dtype=np.float64):
    """Layers of 24 images (more features than images, and fewer) in other units, away from 0; five voxels, one constant."""
    rng = np.random.default_rng(0)
    layers = [(rng.standard_normal((24, width)) + 2) * 10.0**place for place, width in enumerate(widths)]
    signal = sum((part - part.mean(0)) @ rng.standard_normal((part.shape[1], 5)) / part.std() for part in layers)
    responses = (signal + 3 * rng.standard_normal((24, 5))) * [1, 1, 20, 0, 0.1] + 7
    new = [(rng.standard_normal((6, width)) + 2) * 10.0**place for place, width in enumerate(widths)]
    return [part.astype(dtype) for part in layers], responses.astype(dtype), [part.astype(dtype) for part in new]


def fit(layers, responses, *, alphas=ALPHAS, **changes):
    settings = {"fit_intercept": True, "n_draws": 6, "voxels_per_block": 2, "seed": 3}
    return fit_banded(layers, responses, alphas, FOLDS, **(settings | changes))


def slow(layers, responses, new, *, fit_intercept, n_draws, seed):
    """Shares, alphas, scores and predictions of the best draw and alpha of each voxel, each tried by scikit-learn's Ridge."""
    layers, responses, new = (
        [part.astype(float) for part in layers],
        responses.astype(float),
        [part.astype(float) for part in new],
    )
    centred = [part - part.mean(0) if fit_intercept else part for part in layers]
    size = np.array([np.square(part).sum(1).mean() for part in centred])
    draws = np.ones((1, 1))
    if len(layers) > 1:
        draws = generate_dirichlet_samples(n_draws, len(layers), random_state=seed)
        draws[0] = 1 / len(layers)
    best = [{"score": -np.inf} for _ in responses.T]
    for draw in draws:
        scale = draw / size
        X, outside = (np.hstack([part * np.sqrt(s) for part, s in zip(parts, scale, strict=True)]) for parts in (layers, new))
        for alpha in ALPHAS / size.mean():
            model = Ridge(alpha, fit_intercept=fit_intercept, solver="svd")
            errors = [np.square(responses[b] - model.fit(X[a], responses[a]).predict(X[b])).mean(0) for a, b in FOLDS]
            predicted = model.fit(X, responses).predict(outside)
            for voxel, score in enumerate(-np.mean(errors, 0)):
                if score > best[voxel]["score"]:
                    best[voxel] = {
                        "score": score,
                        "shares": scale / scale.sum(),
                        "alpha": alpha / scale.sum(),
                        "predicted": predicted[:, voxel],
                    }
    return {name: np.array([one[name] for one in best]).T for name in best[0]}


@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("widths", [(40, 5), (5, 24, 7), (30,)], ids=str)
def test_the_search_is_the_slow_loop_over_draws_alphas_and_folds(widths, fit_intercept):
    layers, responses, new = problem(widths)
    found = fit(layers, responses, fit_intercept=fit_intercept, n_draws=6 if len(widths) > 1 else 0)  # one layer has one share
    wanted = slow(layers, responses, new, fit_intercept=fit_intercept, n_draws=6, seed=3)
    varied = [0, 1, 2, 4] if fit_intercept else [0, 1, 2, 3, 4]  # for the constant voxel every draw is as good
    np.testing.assert_allclose(found.shares[:, varied], wanted["shares"][:, varied], rtol=1e-7)
    np.testing.assert_allclose(found.alphas[varied], wanted["alpha"][varied], rtol=1e-7)
    np.testing.assert_allclose(found.cv_scores, wanted["score"], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.predict(new), wanted["predicted"], rtol=1e-6)
    whole = np.hstack(new) @ np.vstack(found.coefficients()) + found.intercept
    centres = sum(mean @ part for mean, part in zip(found.means, found.coefficients(), strict=True))
    np.testing.assert_allclose(found.predict(new), whole - centres, rtol=1e-9)
    assert [axes is None for axes in found.axes] == [width <= 24 for width in widths]


def test_draws_follow_the_seed_and_blocks_of_voxels_do_not_count():
    layers, responses, _ = problem()
    whole = fit(layers, responses, voxels_per_block=5)
    np.testing.assert_array_equal(fit(layers, responses).shares, whole.shares)
    assert (fit(layers, responses, seed=4).shares != whole.shares).any()
    more = fit(layers, responses, n_draws=1)
    np.testing.assert_allclose(more.shares, more.shares[:, :1] * np.ones(5))
    assert (whole.cv_scores >= more.cv_scores).all()
    assert (whole.cv_scores > more.cv_scores).any()


@pytest.mark.parametrize("unit", [1e5, 1e-8])
def test_the_unit_of_the_responses_does_not_count(unit):
    """Invariance; the smallest alpha is ruled out by himalaya, by a score that large responses would undercut."""
    layers, responses, new = problem((60,))
    alphas = np.array([1e-22, 10.0, 300.0])
    plain, scaled = fit(layers, responses, alphas=alphas), fit(layers, unit * responses, alphas=alphas)
    varied = [0, 1, 2, 4]
    np.testing.assert_allclose(scaled.alphas[varied], plain.alphas[varied])
    assert plain.alphas.min() > 1
    np.testing.assert_allclose(scaled.cv_scores[varied], unit**2 * plain.cv_scores[varied])
    np.testing.assert_allclose(scaled.predict(new), unit * plain.predict(new))


def test_nothing_is_printed_and_layers_that_are_missing_are_refused(capfd):
    layers, responses, new = problem()
    found = fit(layers, responses)
    assert capfd.readouterr() == ("", "")
    with pytest.raises(ValueError, match="zip"):
        found.predict(new[:1])


def test_everything_has_the_type_of_the_responses():
    layers, responses, new = problem(dtype=np.float32)
    for fit_intercept in (True, False):
        found = fit(layers, responses, fit_intercept=fit_intercept)
        exact = fit(*(problem()[:2]), fit_intercept=fit_intercept)
        for part in (found.shares, found.intercept, found.alphas, *found.weights, *found.means, found.predict(new)):
            assert part.dtype == np.float32
        np.testing.assert_allclose(found.shares, exact.shares, rtol=1e-4)
        np.testing.assert_allclose(found.predict(new), exact.predict(new), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("value", [[0, 0, 0, 0], [0.1, 1 / 3, 7.7, -0.3]], ids=["zeros", "numbers without an exact mean"])
def test_a_layer_that_does_not_vary_has_no_share(value):
    """Oracle: scikit-learn's Ridge on the other layer alone, at the alpha that was found."""
    layers, responses, new = problem(dtype=np.float32)
    found = fit([np.full((24, 4), value, np.float32), layers[1]], responses)
    np.testing.assert_allclose(found.shares, np.repeat([[0], [1]], 5, axis=1))
    assert found.alphas.min() > 0.1  # as large as those asked for
    model = [Ridge(alpha).fit(layers[1], column) for alpha, column in zip(found.alphas, responses.T, strict=True)]
    wanted = np.stack([one.predict(new[1]) for one in model], axis=1)
    np.testing.assert_allclose(found.predict([np.full((6, 4), value, np.float32), new[1]]), wanted, rtol=1e-3, atol=1e-3)


def test_a_constant_layer_counts_where_no_intercept_is_fitted():
    layers, responses, _ = problem()
    found = fit([np.full((24, 4), 0.5), layers[1]], responses, fit_intercept=False)
    assert found.shares[0].min() > 0
    zeros = fit([np.zeros((24, 4)), layers[1]], responses, fit_intercept=False)
    np.testing.assert_allclose(zeros.shares, np.repeat([[0], [1]], 5, axis=1))


def test_without_any_layer_that_varies_the_mean_is_predicted():
    _, responses, _ = problem()
    found = fit([np.full((24, 4), 0.5), np.zeros((24, 2))], responses)
    np.testing.assert_allclose(found.predict([np.ones((2, 4)), np.ones((2, 2))]), np.tile(responses.mean(0), (2, 1)))
    np.testing.assert_allclose(found.shares.sum(0), 1)


def test_without_himalaya_its_name_is_given_and_its_backend_comes_back(monkeypatch):
    before = backend.get_backend().name
    with pytest.raises(ZeroDivisionError), himalaya_backend():
        raise ZeroDivisionError
    assert backend.get_backend().name == before
    given = builtins.__import__

    def without(name, *rest):
        if name.startswith("himalaya"):
            raise ImportError(name)
        return given(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingDependencyError, match=r"pulvinar\[encoding\]"), himalaya_backend():
        pass
