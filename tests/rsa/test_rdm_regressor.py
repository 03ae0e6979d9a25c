"""Oracles: planted scales, the explicit RDM of the scaled features, scikit-learn's own conventions, scipy's Spearman."""

import numpy as np
import pytest
import scipy.stats
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from pulvinar.core.errors import InputError
from pulvinar.estimators import RDMRegressor


def world(n_images=40, n_subjects=5, noise=0.05, seed=0):
    rng = np.random.default_rng(seed)
    stages = [rng.normal(size=(n_images, 12, 2, 2)), rng.normal(size=(n_images, 8))]
    scales = [np.repeat([2.0, 0.2], 6), np.repeat([0.2, 2.0], 4)]
    embedding = np.concatenate([(stages[0] * scales[0][:, None, None]).reshape(n_images, -1), stages[1] * scales[1]], axis=1)
    rdm = 1 - np.corrcoef(embedding)
    disturbance = rng.normal(size=(n_subjects, n_images, n_images)) * noise
    rdms = rdm + (disturbance + disturbance.transpose(0, 2, 1)) * (1 - np.eye(n_images))
    return stages, scales, rdms


def test_planted_scales_are_recovered_and_new_images_are_predicted():
    stages, scales, rdms = world()
    train, test = np.arange(30), np.arange(30, 40)
    model = RDMRegressor(n_folds=3).fit([part[train] for part in stages], rdms[:, train][:, :, train])
    learned = np.abs(np.concatenate(model.scales_))
    assert (
        scipy.stats.spearmanr(learned, np.concatenate(scales)).statistic > 0.75
    )  # .84 to .87 over seeds 0 to 4, ties in truth
    assert learned[:6].min() > learned[6:12].max()
    new = [part[test] for part in stages]
    unweighted = 1 - np.corrcoef(np.concatenate([part.reshape(10, -1) for part in new], axis=1))
    upper = np.triu_indices(10, 1)
    before = scipy.stats.spearmanr(unweighted[upper], rdms[:, test][:, :, test].mean(0)[upper]).statistic
    assert model.score(new, rdms[:, test][:, :, test]) > before + 0.1


def test_prediction_is_the_rdm_of_the_scaled_features_and_score_is_spearman():
    stages, _, rdms = world()
    model = RDMRegressor(n_steps=20, n_folds=3).fit({"early": stages[0], "late": stages[1]}, rdms)
    assert model.stages_ == ("early", "late")
    scaled = np.concatenate(
        [(stages[0] * model.scales_[0][:, None, None]).reshape(40, -1), stages[1] * model.scales_[1]], axis=1
    )
    predicted = model.predict({"early": stages[0], "late": stages[1]})
    np.testing.assert_allclose(predicted, 1 - np.corrcoef(scaled), atol=1e-5)
    upper = np.triu_indices(40, 1)
    expected = np.mean([scipy.stats.spearmanr(predicted[upper], rdm[upper]).statistic for rdm in rdms])
    assert model.score({"early": stages[0], "late": stages[1]}, rdms) == pytest.approx(expected, abs=1e-6)
    assert model.n_features_in_ == 56


def test_conventions_of_scikit_learn():
    stages, _, rdms = world(n_images=20)
    model = RDMRegressor(n_steps=5, n_folds=2, random_state=3)
    assert clone(model).get_params() == model.get_params()
    with pytest.raises(NotFittedError):
        model.predict(stages)
    first, second = model.fit(stages, rdms).scales_, clone(model).fit(stages, rdms).scales_
    assert all((one == other).all() for one, other in zip(first, second, strict=True))
    assert model.fit(stages, rdms) is model
    assert (model.identity_weight_, model.n_steps_) in model.inner_scores_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda stages, rdms: ([stages[0], stages[1][:-1]], rdms), "the same images"),
        (lambda stages, rdms: (stages, rdms[:, :-1, :-1]), "over 19 images"),
        (lambda stages, rdms: (stages, rdms[:, :-1]), "square"),
        (lambda stages, rdms: (stages, 1 - rdms), "diagonal"),
        (lambda stages, rdms: (stages, np.where(np.eye(20), 0, np.nan)), "0 pairs were measured"),
        (lambda stages, rdms: (stages, np.where(np.eye(20, k=2) + np.eye(20, k=-2), np.inf, rdms)), "finite"),
        (lambda stages, rdms: (stages, rdms[:, *np.triu_indices(19, 1)]), "condensed RDMs over 19 images"),
        (lambda stages, rdms: (stages, rdms[:4, 0, :5]), "rows of 5, which are neither square"),
        (lambda stages, rdms: (stages, rdms + np.triu(np.ones((20, 20)), 1)), "symmetric"),
        (lambda stages, rdms: (np.zeros((2, 20, 4, 4, 3), np.uint8), rdms), "network"),
        (lambda stages, rdms: ([], rdms), "one stage"),
    ],
)
def test_bad_input_is_named(change, message):
    stages, _, rdms = world(n_images=20)
    X, y = change(stages, rdms)
    with pytest.raises(InputError, match=message):
        RDMRegressor(n_steps=2, n_folds=2).fit(X, y)


UPPER = np.triu_indices(20, 1)
QUICK = {"n_steps": 20, "n_folds": 2, "identity_weights": (0.03,)}


@pytest.mark.long
@pytest.mark.parametrize("loss", ["correlation", "l1", "mse"])
def test_condensed_rdms_and_a_missing_diagonal_change_nothing(loss):
    """Invariance: the same RDMs in the forms in which people have them; one side of a pair is enough."""
    stages, _, rdms = world(n_images=20)
    square = RDMRegressor(loss=loss, **QUICK).fit(stages, rdms)
    one_side = np.where(np.tri(20, k=-1, dtype=bool), np.nan, rdms)
    for form in (rdms[:, *UPPER], np.where(np.eye(20, dtype=bool), np.nan, rdms), one_side):
        found = RDMRegressor(loss=loss, **QUICK).fit(stages, form)
        assert not found.n_missing_pairs_.any()
        assert all(np.array_equal(a, b) for a, b in zip(found.scales_, square.scales_, strict=True))
    assert square.score(stages, rdms[:, *UPPER]) == square.score(stages, rdms)


@pytest.mark.parametrize("loss", ["correlation", "l1", "mse"])
def test_missing_pairs_have_no_say_and_are_counted(loss):
    """Invariance: what stood in a pair before it went missing in all subjects does not matter. Oracle of the score: scipy."""
    stages, _, rdms = world(n_images=20)
    missing = np.zeros((20, 20), bool)
    missing[[2, 5, 9], [7, 11, 14]] = missing[[7, 11, 14], [2, 5, 9]] = True
    gaps = np.where(missing, np.nan, rdms)
    gaps[1, 0, 3] = gaps[1, 3, 0] = np.nan
    with pytest.warns(UserWarning, match="16 of 950 pairs are missing .* at most 4 of 190 in a subject"):
        found = RDMRegressor(loss=loss, **QUICK).fit(stages, gaps)
    assert found.n_missing_pairs_.tolist() == [3, 4, 3, 3, 3]
    whole = RDMRegressor(loss=loss, **QUICK).fit(stages, rdms)
    assert np.isfinite(np.concatenate(found.scales_)).all()
    assert 0 < np.abs(np.concatenate(found.scales_) - np.concatenate(whole.scales_)).max() < 0.2
    predicted = found.predict(stages)[UPPER]
    expected = []
    for rdm in gaps:
        there = np.isfinite(rdm[UPPER])
        expected.append(scipy.stats.spearmanr(predicted[there], rdm[UPPER][there]).statistic)
    assert found.score(stages, gaps) == pytest.approx(np.mean(expected), abs=1e-6)


@pytest.mark.parametrize(("name", "variant"), [("tau-b", "b"), ("tau_b", "b")])
def test_the_score_by_kendalls_tau(name, variant):
    """Oracle: scipy's kendalltau."""
    stages, _, rdms = world(n_images=20)
    model = RDMRegressor(comparison=name, **QUICK).fit(stages, rdms)
    wanted = [scipy.stats.kendalltau(model.predict(stages)[UPPER], rdm[UPPER], variant=variant).statistic for rdm in rdms]
    assert model.score(stages, rdms) == pytest.approx(np.mean(wanted), abs=1e-6)


def test_one_array_is_one_stage():
    stages, _, rdms = world(n_images=20)
    listed, bare = RDMRegressor(**QUICK).fit([stages[1]], rdms), RDMRegressor(**QUICK).fit(stages[1], rdms)
    np.testing.assert_array_equal(bare.scales_[0], listed.scales_[0])
    assert bare.n_features_in_ == 8


def test_other_stages_than_the_fitted_are_refused():
    stages, _, rdms = world(n_images=20)
    model = RDMRegressor(n_steps=2, n_folds=2).fit(stages, rdms)
    with pytest.raises(InputError, match="were fitted"):
        model.predict(stages[:1])


def test_stages_of_a_mapping_are_known_by_name():
    stages, _, rdms = world(n_images=20)
    named = {"late": stages[1], "later": stages[1][:, ::-1] + 1.0}
    model = RDMRegressor(n_steps=4, n_folds=2).fit(named, rdms)
    turned = model.predict(dict(reversed(named.items())))
    np.testing.assert_array_equal(turned, model.predict(named))


@pytest.mark.parametrize("resolution", ["stage", "channel", "feature"])
def test_features_far_from_zero_keep_their_distances(resolution):
    """Oracle: numpy's correlation of the scaled features; in single precision the distances would be off by .003."""
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(12, 6)) + 100, (rng.normal(size=(12, 5)) + 100).astype(np.float32)
    model = RDMRegressor(resolution=resolution, n_steps=5, identity_weights=(0.03,)).fit([near, far], 1 - np.corrcoef(near))
    scaled = np.concatenate([model.scales_[0] * near, model.scales_[1] * far.astype(np.float64)], axis=1)
    np.testing.assert_allclose(model.predict([near, far]), 1 - np.corrcoef(scaled), atol=1e-9)
