"""Oracles: scikit-learn's own checks; retrieval by hand; a planted linear map; ridge regression."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.estimators import Decoder

SMALL = {"hidden": 32, "epochs": 20}


def planted(n_trials: int = 160, shape: tuple[int, ...] = (8,), noise: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    embedding = rng.standard_normal((n_trials, *shape)) + 3
    flat = embedding.reshape(n_trials, -1)
    responses = 10 + flat @ rng.standard_normal((flat.shape[1], 60)) + noise * rng.standard_normal((n_trials, 60))
    return responses, embedding


@pytest.mark.long
def test_score_is_the_share_of_trials_that_find_their_own_embedding():
    X, Y = planted()
    decoder = Decoder(**SMALL).fit(X[:120], Y[:120])
    found, true = decoder.project(X[120:]), Y[120:] - Y[:120].mean(0)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (found, true)]
    by_hand = np.mean((unit[0] @ unit[1].T).argmax(1) == np.arange(40))
    assert decoder.score(X[120:], Y[120:]) == pytest.approx(by_hand)
    assert by_hand > 0.5  # chance .025
    shuffled = Decoder(**SMALL).fit(X[:120], Y[np.random.default_rng(1).permutation(120)])
    assert shuffled.score(X[120:], Y[120:]) < 0.15


@pytest.mark.long
def test_predictions_are_on_the_scale_of_the_embedding_and_near_ridges():
    X, Y = planted(noise=1.0)
    decoder = Decoder(hidden=64).fit(X[:120], Y[:120])
    predicted = decoder.predict(X[120:])
    ridge = make_pipeline(StandardScaler(), Ridge(10)).fit(X[:120], Y[:120]).predict(X[120:])
    error, of_ridge = (((values - Y[120:]) ** 2).mean() for values in (predicted, ridge))
    assert error < 0.35  # the variance of the embedding is 1
    assert error < 3 * of_ridge


def test_equal_embeddings_share_the_first_place():
    X, Y = planted()
    decoder = Decoder(**SMALL).fit(X[:120], Y[:120])
    apart, twice = (decoder.score(X[rows], Y[rows]) for rows in (slice(120, 160), [*range(120, 160), *range(120, 160)]))
    assert twice == pytest.approx(apart / 2)


def test_tokens_keep_their_shape():
    X, Y = planted(shape=(3, 4))
    decoder = Decoder(**SMALL).fit(X[:120], Y[:120])
    assert decoder.predict(X[120:]).shape == (40, 3, 4)
    assert decoder.project(X[120:]).shape == (40, 12)
    assert decoder.score(X[120:], Y[120:]) > 0.5


@pytest.mark.slow
def test_it_works_inside_cross_validation_and_depends_on_its_seed_alone():
    X, Y = planted()
    assert cross_val_score(Decoder(**SMALL), X, Y, cv=2).mean() > 0.5
    first, again = (clone(Decoder(**SMALL)).fit(X, Y).predict(X[:5]) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - Decoder(**SMALL, random_state=1).fit(X, Y).predict(X[:5])).max() > 1e-3


def test_what_does_not_fit_is_named():
    X, Y = planted(40)
    with pytest.raises(InputError, match="'epochs' parameter of Decoder must be an int in the range"):
        Decoder(epochs=0).fit(X, Y)
    with pytest.raises(InputError, match="'random_state' parameter"):
        Decoder(random_state="x").fit(X, Y)
    with pytest.raises(DegenerateError, match="the same in all trials"):
        Decoder(**SMALL).fit(X, np.ones((40, 3)))
    with pytest.warns(UserWarning, match="3 different whole numbers .* one-hot"):
        Decoder(**SMALL).fit(X, np.arange(40) % 3)
    decoder = Decoder(**SMALL).fit(X, Y)
    with pytest.raises(InputError, match="a row per trial is needed"):
        decoder.score(X, Y[:, :3])
