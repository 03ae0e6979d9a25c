"""RidgeEncoder against himalaya, scikit-learn, refits in a slow loop, and planted truths."""

import warnings

import numpy as np
import pytest
import torch
from himalaya import backend as himalaya_backend
from himalaya.kernel_ridge import KernelRidgeCV
from himalaya.ridge import RidgeCV as HimalayaRidgeCV
from sklearn import config_context
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.metrics import r2_score
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, cross_val_score
from sklearn.pipeline import make_pipeline

from pulvinar.core.errors import InputError
from pulvinar.estimators import RidgeEncoder

ALPHAS = np.logspace(-1, 5, 7)
TALL, WIDE = (150, 40), (60, 130)


def problem(shape, n_voxels=25, *, dtype=np.float32, noise=2.0, seed=0, decay=0.0):
    """Features, planted responses of voxels with different signal, and features of new images."""
    rng = np.random.default_rng(seed)
    scale = np.arange(1, shape[1] + 1) ** -decay
    features = rng.standard_normal(shape) * scale + 3
    weights = rng.standard_normal((shape[1], n_voxels)) * rng.random(n_voxels)
    responses = (features - 3) @ weights + noise * rng.standard_normal((shape[0], n_voxels)) + 5
    new = rng.standard_normal((30, shape[1])) * scale + 3
    return features.astype(dtype), responses.astype(dtype), new.astype(dtype)


@pytest.mark.long
@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_himalaya_is_matched(shape, fit_intercept, decay):
    """Oracle: himalaya's RidgeCV (float64): the same alphas, scores, and predictions, to 1e-4."""
    X, y, new = problem(shape, decay=decay)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = HimalayaRidgeCV(alphas=ALPHAS, cv=5, fit_intercept=fit_intercept).fit(X.astype(float), y.astype(float))
    ours = RidgeEncoder(ALPHAS, cv=5, fit_intercept=fit_intercept).fit(X, y)
    np.testing.assert_allclose(ours.best_alphas_, theirs.best_alphas_, rtol=1e-4)
    np.testing.assert_allclose(ours.cv_scores_, theirs.cv_scores_, rtol=1e-4)
    scale = y.std(0)
    np.testing.assert_allclose(ours.predict(new) / scale, theirs.predict(new.astype(float)) / scale, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_himalaya_kernel_ridge_is_matched(shape):
    """Oracle: himalaya's KernelRidgeCV, which has no intercept."""
    X, y, new = (values.astype(np.float64) for values in problem(shape))
    theirs = KernelRidgeCV(alphas=ALPHAS, cv=4, kernel="linear").fit(X, y)
    ours = RidgeEncoder(ALPHAS, cv=4, fit_intercept=False).fit(X, y)
    np.testing.assert_allclose(ours.best_alphas_, theirs.best_alphas_)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-6, atol=1e-8)


@pytest.mark.long
@pytest.mark.parametrize("shape", [TALL, WIDE])
@pytest.mark.parametrize("fit_intercept", [True, False])
def test_scikit_learn_leave_one_out_is_matched(shape, fit_intercept):
    """Oracle: scikit-learn's RidgeCV with alpha_per_target (efficient leave-one-out), and a loop of refits."""
    X, y, new = (values.astype(np.float64) for values in problem(shape, n_voxels=6))
    theirs = RidgeCV(ALPHAS, alpha_per_target=True, fit_intercept=fit_intercept).fit(X, y)
    ours = RidgeEncoder(ALPHAS, cv="loo", fit_intercept=fit_intercept).fit(X, y)
    np.testing.assert_allclose(ours.best_alphas_, theirs.alpha_)
    np.testing.assert_allclose(ours.cv_scores_, theirs.best_score_, rtol=1e-4)
    np.testing.assert_allclose(ours.predict(new), theirs.predict(new), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(ours.intercept_, np.broadcast_to(theirs.intercept_, 6), rtol=1e-5, atol=1e-8)
    errors = np.zeros(6)
    for image in range(len(X)):
        rest = np.delete(np.arange(len(X)), image)
        fitted = Ridge(ours.best_alphas_, fit_intercept=fit_intercept).fit(X[rest], y[rest])
        errors -= (y[image] - fitted.predict(X[image : image + 1])[0]) ** 2 / len(X)
    np.testing.assert_allclose(ours.cv_scores_, errors, rtol=1e-4)


@pytest.mark.parametrize("cv", [KFold(3, shuffle=True, random_state=0), [(np.arange(0, 80), np.arange(100, 150))]])
def test_any_splitter_scores_as_refits_do(cv):
    """Oracle: scikit-learn's Ridge fitted on every fold, also where training and held-out images are not everything."""
    X, y, _ = (values.astype(np.float64) for values in problem(TALL, n_voxels=5))
    ours = RidgeEncoder([10.0], cv=cv).fit(X, y)
    pairs = list(cv.split(X)) if hasattr(cv, "split") else cv
    wanted = [-((y[b] - Ridge(10.0).fit(X[a], y[a]).predict(X[b])) ** 2).mean(0) for a, b in pairs]
    np.testing.assert_allclose(ours.cv_scores_, np.mean(wanted, 0), rtol=1e-6)


@pytest.mark.parametrize("shape", [TALL, WIDE])
def test_components_are_those_of_a_principal_component_analysis_of_the_fold(shape):
    """Oracle: scikit-learn's PCA and Ridge in a pipeline, refitted in each fold."""
    X, y, new = (values.astype(np.float64) for values in problem(shape, n_voxels=4))
    ours = RidgeEncoder([10.0], n_components=12).fit(X, y)
    pipeline = make_pipeline(PCA(12, svd_solver="full"), Ridge(10.0))
    wanted = [-((y[b] - pipeline.fit(X[a], y[a]).predict(X[b])) ** 2).mean(0) for a, b in KFold(5).split(X)]
    np.testing.assert_allclose(ours.cv_scores_, np.mean(wanted, 0), rtol=1e-4)
    np.testing.assert_allclose(ours.predict(new), pipeline.fit(X, y).predict(new), rtol=1e-6)


def test_small_alphas_on_steep_spectra_are_as_in_float64():
    """Oracle: the same fit in float64, where float32 products alone would be off (eigenvalues over ten orders)."""
    X, y, new = problem((200, 80), decay=2.5, dtype=np.float64, noise=0.1)
    exact = RidgeEncoder(np.logspace(-4, 2, 7)).fit(X, y)
    ours = RidgeEncoder(np.logspace(-4, 2, 7)).fit(X.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(ours.cv_scores_, exact.cv_scores_, rtol=2e-3)
    np.testing.assert_allclose(ours.predict(new), exact.predict(new), atol=2e-3 * y.std())


def test_blocks_of_voxels_change_nothing():
    X, y, new = (values.astype(np.float64) for values in problem(TALL))
    whole, blocks = RidgeEncoder(ALPHAS).fit(X, y), RidgeEncoder(ALPHAS, voxels_per_block=4).fit(X, y)
    np.testing.assert_array_equal(whole.best_alphas_, blocks.best_alphas_)
    np.testing.assert_allclose(whole.predict(new), blocks.predict(new), rtol=1e-9, atol=1e-9)


def two_layers(seed=0):
    """Two layers of 200 images; voxels 0-9 follow the first, 10-19 the second."""
    rng = np.random.default_rng(seed)
    layers = [rng.standard_normal((200, 15)), rng.standard_normal((200, 25))]
    signal = np.hstack([layers[0] @ rng.standard_normal((15, 10)), layers[1] @ rng.standard_normal((25, 10))])
    return layers, signal + 2 * rng.standard_normal((200, 20))


def test_the_planted_layer_is_chosen():
    """Planted truth: which layer drives which voxels; per voxel, per ROI, and the better for most where there is one."""
    layers, y = two_layers()
    truth = np.repeat([0, 1], 10)
    np.testing.assert_array_equal(RidgeEncoder(ALPHAS).fit(layers, y).best_layers_, truth)
    by_roi = RidgeEncoder(ALPHAS, layer="roi").fit(layers, y, rois=np.where(truth == 0, "early", "late"))
    np.testing.assert_array_equal(by_roi.best_layers_, truth)
    single = RidgeEncoder(ALPHAS, layer="single").fit(layers, y[:, 4:])
    assert (single.best_layers_ == 1).all()
    np.testing.assert_allclose(
        by_roi.predict(layers)[:, :10], RidgeEncoder(ALPHAS).fit(layers[0], y[:, :10]).predict(layers[0])
    )


def test_a_list_is_predicted_as_its_parts_side_by_side():
    """Oracle: the fit on concatenated arrays."""
    layers, y = two_layers()
    listed = RidgeEncoder(ALPHAS, layer="concatenated").fit(layers, y)
    side = RidgeEncoder(ALPHAS).fit(np.hstack(layers), y)
    np.testing.assert_allclose(listed.predict(layers), side.predict(np.hstack(layers)))
    np.testing.assert_allclose(listed.coef_, side.coef_)
    by_voxel = RidgeEncoder(ALPHAS).fit(layers, y)
    np.testing.assert_allclose(by_voxel.predict(layers), np.hstack(layers) @ by_voxel.coef_.T + by_voxel.intercept_)


def test_banded_ridge_finds_the_layers_and_leaves_himalaya_as_it_was():
    """Planted truth: shares of layers. And himalaya's global backend comes back."""
    layers, y = (values[::2] for values in two_layers()[0]), two_layers()[1][::2]
    layers = list(layers)
    before = himalaya_backend.get_backend().name
    himalaya_backend.set_backend("torch")
    banded = RidgeEncoder(ALPHAS, layer="banded", cv=2, n_draws=12).fit(layers, y)
    left = himalaya_backend.get_backend().name
    himalaya_backend.set_backend(before)
    assert left == "torch"
    assert banded.shares_[0, :10].mean() > 0.8
    assert banded.shares_[1, 10:].mean() > 0.8
    np.testing.assert_allclose(banded.shares_.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(banded.predict(layers), np.hstack(layers) @ banded.coef_.T + banded.intercept_, rtol=1e-5)
    both = RidgeEncoder(ALPHAS, layer="concatenated").fit(layers, y)
    assert banded.cv_scores_.mean() > both.cv_scores_.mean()


@pytest.mark.parametrize("shape", [(40, 6), (24, 60)])
@pytest.mark.parametrize("fit_intercept", [True, False])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_banded_ridge_of_one_layer_is_plain_ridge_fold_by_fold(shape, fit_intercept, dtype):
    """Oracle: the ridge above. Few images far from the origin, so that a mean with the held-out images in it would show."""
    X, y, new = problem(shape, n_voxels=5, dtype=dtype)
    y[:, 3] = 1000 * y[:, 3] + 5000  # beyond the score that himalaya gives to alphas that it rules out
    settings = {"alphas": [1e-6, 0.1, 10.0, 1000.0], "cv": KFold(3), "fit_intercept": fit_intercept}
    plain, banded = RidgeEncoder(**settings).fit(X, y), RidgeEncoder(layer="banded", **settings).fit(X, y)
    tolerance = 1e-6 if dtype == np.float64 else 2e-3
    np.testing.assert_allclose(banded.best_alphas_, plain.best_alphas_, rtol=1e-5)
    np.testing.assert_allclose(banded.cv_scores_, plain.cv_scores_, rtol=tolerance)
    for found, wanted in ((banded.predict(new), plain.predict(new)), (banded.intercept_, plain.intercept_)):
        np.testing.assert_allclose(found / y.std(0), wanted / y.std(0), rtol=tolerance, atol=tolerance)


def test_banded_ridge_of_two_layers_does_not_see_the_held_out_mean():
    """Invariance: a fold that is moved as a whole is predicted as badly by banded ridge as by plain ridge on both layers."""
    rng = np.random.default_rng(0)
    layers, y = [rng.standard_normal((30, 4)), rng.standard_normal((30, 4))], rng.standard_normal((30, 3))
    y[20:] += 100
    settings = {"alphas": [1e9], "cv": [(np.arange(20), np.arange(20, 30))]}
    banded, plain = RidgeEncoder(layer="banded", n_draws=3, **settings), RidgeEncoder(layer="concatenated", **settings)
    np.testing.assert_allclose(banded.fit(layers, y).cv_scores_, plain.fit(layers, y).cv_scores_, rtol=1e-4)


@pytest.mark.parametrize("layer", ["voxel", "banded"])
def test_groups_reach_the_splitter(layer):
    """Oracle: scikit-learn's Ridge refitted without each group."""
    X, y, _ = problem((60, 8), n_voxels=3, dtype=np.float64)
    groups = np.random.default_rng(0).permutation(np.repeat([f"run {run}" for run in range(4)], 15))
    for cv, splitter in ((LeaveOneGroupOut(), LeaveOneGroupOut()), (3, GroupKFold(3))):
        ours = RidgeEncoder([10.0], cv=cv, layer=layer).fit(X, y, groups=groups)
        folds = list(splitter.split(X, y, groups))
        wanted = [-((y[b] - Ridge(10.0).fit(X[a], y[a]).predict(X[b])) ** 2).mean(0) for a, b in folds]
        np.testing.assert_allclose(ours.cv_scores_, np.mean(wanted, 0), rtol=1e-6)
    with pytest.warns(UserWarning, match="one group on both sides|ignored by KFold"):
        RidgeEncoder([10.0], cv=KFold(3), layer=layer).fit(X, y, groups=groups)
    with pytest.raises(InputError, match="cv=LeaveOneGroupOut"):
        RidgeEncoder([10.0], cv="loo").fit(X, y, groups=groups)
    with pytest.raises(ValueError, match="'groups' parameter should not be None"):
        RidgeEncoder([10.0], cv=LeaveOneGroupOut()).fit(X, y)


def test_groups_come_by_metadata_routing():
    X, y, _ = problem((60, 8), n_voxels=3, dtype=np.float64)
    groups = np.repeat(np.arange(6), 10)
    with config_context(enable_metadata_routing=True):
        scores = cross_val_score(RidgeEncoder([10.0], cv=LeaveOneGroupOut()), X, y, cv=GroupKFold(3), params={"groups": groups})
    assert scores.shape == (3,)
    assert np.isfinite(scores).all()


@pytest.mark.parametrize(
    "alphas", [range(1, 4), {3.0, 1.0, 2.0}, {1.0: "a", 2.0: "b", 3.0: "c"}, np.array([3, 1, 2]), iter([1, 3, 2.0])]
)
def test_any_iterable_of_alphas(alphas):
    X, y, new = problem(TALL, n_voxels=3)
    wanted = RidgeEncoder([1.0, 2.0, 3.0]).fit(X, y).predict(new)
    encoder = RidgeEncoder(alphas)
    for one in (encoder, encoder, clone(encoder)):  # a second fit and a copy see them too
        np.testing.assert_array_equal(one.fit(X, y).predict(new), wanted)
    assert RidgeEncoder(2).fit(X, y).best_alphas_.tolist() == [2.0] * 3


def test_the_score_leaves_out_voxels_that_do_not_vary_and_says_how_many():
    """Oracle: scikit-learn's R2 of the voxels that vary; of a constant voxel it is 1 or 0."""
    X, y, _ = problem((60, 5), n_voxels=4, dtype=np.float64, noise=20.0)
    dead = np.c_[y, np.full((60, 8), 7.1)]
    wanted = RidgeEncoder(ALPHAS).fit(X[:40], y[:40]).score(X[40:], y[40:])
    encoder = RidgeEncoder(ALPHAS).fit(X[:40], dead[:40])
    with pytest.warns(UserWarning, match="8 of 12 voxels do not vary over these images and are left out"):
        assert encoder.score(X[40:], dead[40:]) == pytest.approx(wanted)
    assert wanted == pytest.approx(r2_score(y[40:], encoder.predict(X[40:])[:, :4]))
    with pytest.warns(UndefinedMetricWarning, match="no voxel varies"):
        assert np.isnan(encoder.score(X[40:], np.ones((20, 12))))
    weight = np.arange(20.0)
    with pytest.warns(UserWarning, match="8 of 12"):
        weighted = encoder.score(X[40:], dead[40:], sample_weight=weight)
    assert weighted == pytest.approx(r2_score(y[40:], encoder.predict(X[40:])[:, :4], sample_weight=weight))
    with pytest.raises(InputError, match=r"\(20, 12\) are predicted, \(20, 4\) came"):
        encoder.score(X[40:], y[40:])


def test_voxels_that_do_not_vary_have_no_say_in_a_regions_layer():
    """Planted truth: the second layer drives the region. The spread of .1 is rounding, which is no reason for a layer."""
    layers, y = two_layers()
    with_dead = np.c_[y[:, 10:14], np.full((200, 3), 0.1)]
    fitted = RidgeEncoder(ALPHAS, layer="roi").fit(layers, with_dead, rois=np.zeros(7))
    assert (fitted.best_layers_ == 1).all()


def test_names_of_features_are_checked_layer_by_layer():
    pandas = pytest.importorskip("pandas")
    layers, y = two_layers()
    frames = [
        pandas.DataFrame(part, columns=[f"{name}{column}" for column in range(part.shape[1])])
        for name, part in zip("ab", layers, strict=True)
    ]
    fitted = RidgeEncoder(ALPHAS).fit(frames, y)
    assert fitted.n_features_in_ == len(fitted.feature_names_in_) == 40
    assert fitted.feature_names_in_[15] == "b0"
    np.testing.assert_array_equal(fitted.predict(frames), RidgeEncoder(ALPHAS).fit(layers, y).predict(layers))
    with pytest.raises(InputError, match="layer 1: The feature names should match"):
        fitted.predict([frames[0], frames[1][frames[1].columns[::-1]]])
    assert not hasattr(fitted.fit(layers, y), "feature_names_in_")


def test_one_voxel_and_scores():
    X, y, new = (values.astype(np.float64) for values in problem(TALL, n_voxels=3))
    ours = RidgeEncoder(ALPHAS).fit(X, y[:, 0])
    assert ours.predict(new).shape == (30,)
    assert ours.coef_.shape == (40,)
    both = RidgeEncoder(ALPHAS).fit(X, y)
    assert both.score(X, y) == pytest.approx(r2_score(y, both.predict(X)))
    wanted = [np.corrcoef(both.predict(X)[:, voxel], y[:, voxel])[0, 1] for voxel in range(3)]
    np.testing.assert_allclose(both.voxel_scores(X, y), wanted)


def test_voxels_without_variance_are_predicted_by_their_mean():
    X, y, new = problem(TALL)
    y[:, 3] = 7
    ours = RidgeEncoder(ALPHAS).fit(X, y)
    np.testing.assert_allclose(ours.predict(new)[:, 3], 7, rtol=1e-6)
    assert ours.best_alphas_[3] == ALPHAS[-1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"alphas": [0.0, 1.0]}, "alphas"),
        ({"cv": "tenfold"}, "cv"),
        ({"layer": "voxels"}, "layer"),
        ({"layer": "roi"}, "rois"),
        ({"n_components": 0}, "n_components"),
        ({"n_components": 5, "cv": "loo"}, "n_components: leave-one-out"),
        ({"n_components": 5, "layer": "banded"}, "n_components: banded"),
        ({"alphas": []}, "alphas"),
        ({"alphas": "0.1"}, "alphas"),
        ({"alphas": [[1.0, 2.0]]}, "alphas"),
        ({"alphas": [1.0, np.inf]}, "alphas"),
        ({"alphas": [True]}, "alphas"),
        ({"cv": 1}, "cv"),
        ({"device": "abacus"}, "device"),
        ({"layer": "banded", "cv": "loo"}, "banded"),
    ],
)
def test_bad_settings_are_named(settings, words):
    X, y, _ = problem(TALL)
    with pytest.raises(InputError, match=words):
        RidgeEncoder(**settings).fit(X, y)


def test_masks_and_layers_of_another_length_are_refused():
    layers, y = two_layers()
    with pytest.raises(InputError, match="19"):
        RidgeEncoder(layer="roi").fit(layers, y, rois=np.zeros(19))
    fitted = RidgeEncoder().fit(layers, y)
    with pytest.raises(InputError, match="list of 2 layers"):
        fitted.predict(layers[0])
    with pytest.raises(InputError, match=r"\[15, 25\]"):
        fitted.predict([layers[1], layers[0]])
    with pytest.raises(ValueError, match="inconsistent"):
        fitted.fit([layers[0], layers[1][:100]], y)


def test_the_same_bits_twice():
    X, y, new = problem(WIDE)
    first, second = (RidgeEncoder(ALPHAS).fit(X, y).predict(new) for _ in range(2))
    assert torch.equal(torch.from_numpy(first), torch.from_numpy(second))
