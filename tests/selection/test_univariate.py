"""Oracles: scikit-learn (f_classif, Ridge in slow loops), scipy's F test, planted truth."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import KMeans
from sklearn.feature_selection import f_classif
from sklearn.linear_model import Ridge

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.selection import univariate
from pulvinar.selection.univariate import anova_f, anova_labels, cross_validated_encoding_r2, top_voxels


def encoding_world(n_stimuli: int, n_dims: int, n_voxels: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trials in random order, 1 to 3 repeats; every voxel follows the embedding, with noise that grows over voxels."""
    generator = np.random.default_rng(seed)
    features = generator.normal(0, 1, (n_stimuli, n_dims)) * np.geomspace(1, 0.1, n_dims) + 0.3
    stimulus = generator.permutation(np.repeat(np.arange(n_stimuli), generator.integers(1, 4, n_stimuli)))
    signal = features @ generator.normal(0, 1, (n_dims, n_voxels)) / np.sqrt(n_dims)
    noise = generator.normal(0, 1, (len(stimulus), n_voxels)) * np.geomspace(0.1, 10, n_voxels)
    return signal[stimulus] + noise + 2.0, features[stimulus], stimulus


def slow_encoding_r2(responses, embedding, stimulus, *, seed, n_folds, alphas, choose_alpha):
    """scikit-learn's Ridge on single trials; alpha by refitting without each training stimulus."""
    n_stimuli = stimulus.max() + 1
    fold_of = (np.random.default_rng(seed).permutation(n_stimuli) % n_folds)[stimulus]
    residual, total = 0.0, 0.0
    for fold in range(n_folds):
        train, test = np.flatnonzero(fold_of != fold), np.flatnonzero(fold_of == fold)
        centred = embedding[train] - embedding[train].mean(0)
        # repeats are rows of one stimulus, sqrt(count) of them: the same singular values
        scale = np.square(centred).sum() / np.linalg.matrix_rank(centred)
        errors = np.zeros((len(alphas), responses.shape[1]))
        for left_out in np.unique(stimulus[train]):
            inner, out = train[stimulus[train] != left_out], train[stimulus[train] == left_out]
            for place, alpha in enumerate(alphas):
                model = Ridge(alpha * scale).fit(embedding[inner], responses[inner])
                # of the mean response, weighted by repeats; the variance around that mean is the same for every alpha
                errors[place] += np.square(responses[out] - model.predict(embedding[out])).sum(0)
        if choose_alpha == "global":
            errors = np.repeat(errors.sum(1, keepdims=True), responses.shape[1], axis=1)
        predicted = np.empty((len(test), responses.shape[1]))
        for voxel, place in enumerate(errors.argmin(0)):
            model = Ridge(alphas[place] * scale).fit(embedding[train], responses[train, voxel])
            predicted[:, voxel] = model.predict(embedding[test])
        residual += np.square(responses[test] - predicted).sum(0)
        total += np.square(responses[test] - responses[train].mean(0)).sum(0)
    return 1 - residual / total


@pytest.mark.long
@pytest.mark.parametrize("n_dims", [1, 6, 18, 80])  # fewer than stimuli, a dimension short of all that is left, and more
@pytest.mark.parametrize("choose_alpha", ["per_voxel", "global"])
def test_encoding_r2_is_the_slow_loop_of_scikit_learn(monkeypatch, n_dims, choose_alpha):
    responses, embedding, stimulus = encoding_world(30, n_dims, 5, seed=1)
    settings = {"seed": 3, "n_folds": 3, "alphas": (0.01, 0.3, 10.0), "choose_alpha": choose_alpha}
    monkeypatch.setattr(univariate, "VOXELS_PER_BLOCK", 2)
    found = cross_validated_encoding_r2(responses, embedding, stimulus, **settings)
    np.testing.assert_allclose(found, slow_encoding_r2(responses, embedding, stimulus, **settings), atol=2e-4)


@pytest.mark.parametrize("repeats", [1, 2], ids=["one trial each", "repeats"])
def test_alphas_are_those_of_refits_also_where_they_are_tiny_and_dimensions_outnumber_stimuli(repeats):
    """Oracle: scikit-learn's Ridge refitted without each stimulus. By rounding alone the smallest alpha used to win."""
    generator = np.random.default_rng(4)
    stimulus = np.repeat(np.arange(24), repeats)
    embedding = generator.normal(0, 1, (24, 90))[stimulus]
    responses = generator.normal(0, 1, (len(stimulus), 12))
    alphas = (1e-8, 1e-6, 1e-4, 1.0, 100.0)
    settings = {"seed": 0, "n_folds": 2, "alphas": alphas, "choose_alpha": "per_voxel"}
    found = cross_validated_encoding_r2(responses, embedding, stimulus, **settings)
    np.testing.assert_allclose(found, slow_encoding_r2(responses, embedding, stimulus, **settings), atol=1e-4)


def test_a_stimulus_that_fits_itself_is_refused():
    embedding = np.c_[np.eye(30)[:, :5], np.random.default_rng(0).normal(0, 1e-3, (30, 2))]
    with pytest.raises(DegenerateError, match="at 1e-12 a stimulus fits itself"):
        cross_validated_encoding_r2(np.ones((30, 1)), embedding, np.arange(30), seed=0, alphas=(1.0, 1e-12))


def test_leave_one_out_is_exact_where_a_stimulus_is_almost_all_of_a_dimension():
    """Oracle: the slow loop. In float32 the error of such a stimulus at a tiny alpha would be rounding, and a large one win."""
    generator = np.random.default_rng(6)
    embedding = np.c_[generator.normal(0, 1, (24, 3)), np.arange(24) == 5, np.arange(24) == 6]
    responses = (embedding[:, :3] @ generator.normal(0, 1, (3, 4))) + 1e-3 * generator.normal(0, 1, (24, 4))
    settings = {"seed": 0, "n_folds": 3, "alphas": (2e-9, 1.0), "choose_alpha": "per_voxel"}
    found = cross_validated_encoding_r2(responses, embedding, np.arange(24), **settings)
    np.testing.assert_allclose(found, slow_encoding_r2(responses, embedding, np.arange(24), **settings), atol=1e-4)
    assert found.min() > 0.99


def test_dimensions_of_the_size_of_rounding_do_not_count():
    """Invariance: alphas are in units of the mean squared singular value, of those that are any."""
    responses, embedding, stimulus = encoding_world(30, 1, 4, seed=1)
    beside = np.c_[embedding, 1e-8 * np.sin(17.0 * stimulus)]
    settings = {"seed": 0, "alphas": (1.0, 3.0, 10.0)}
    wanted = cross_validated_encoding_r2(responses, embedding, stimulus, **settings)
    np.testing.assert_allclose(cross_validated_encoding_r2(responses, beside, stimulus, **settings), wanted, atol=1e-4)


def test_five_folds_and_at_most_half_as_many_as_stimuli():
    responses, embedding, stimulus = encoding_world(10, 3, 2, seed=0)
    default = cross_validated_encoding_r2(responses, embedding, stimulus, seed=0)
    np.testing.assert_array_equal(default, cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, n_folds=5))
    with pytest.raises(InputError, match="2 to 5 for 10 stimuli, 6 came"):
        cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, n_folds=6)
    one = cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, alphas=(1.0,))
    several = cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, alphas=(1.0, 1.0))
    np.testing.assert_array_equal(one, several)
    with pytest.raises(InputError, match="alphas"):
        cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, alphas=())


def test_encoding_r2_finds_planted_voxels_and_none_in_noise():
    """Over 15 seeds the least of 10 planted voxels was .58 or more, the best of 30 without signal .014 or less."""
    responses, embedding, stimulus = encoding_world(200, 20, 60, seed=0)
    responses[:, 30:] = np.random.default_rng(5).normal(0, 1, (len(stimulus), 30))
    found = cross_validated_encoding_r2(responses.astype(np.float32), embedding, [f"image{s}" for s in stimulus], seed=0)
    assert found[:10].min() > 0.3
    assert found[30:].max() < 0.05
    assert abs(found[30:].mean()) < 0.02


def test_encoding_r2_keeps_repeats_in_one_fold():
    """Voxels that follow a random number of each stimulus: nothing to predict once its repeats are held out together.

    Over 15 seeds the best of 20 voxels was at most .18; with repeats in other folds it would be near 1.
    """
    generator = np.random.default_rng(0)
    stimulus = np.repeat(np.arange(60), 3)
    embedding = generator.normal(0, 1, (60, 100))[stimulus]
    responses = generator.normal(0, 1, (60, 20))[stimulus]
    assert cross_validated_encoding_r2(responses, embedding, stimulus, seed=0).max() < 0.3


def test_encoding_r2_does_not_depend_on_units_or_offset():
    responses, embedding, stimulus = encoding_world(60, 10, 8, seed=2)
    plain = cross_validated_encoding_r2(responses, embedding, stimulus, seed=0)
    scaled = cross_validated_encoding_r2(50 * responses - 7, 0.01 * embedding + 3, stimulus, seed=0)
    np.testing.assert_allclose(scaled, plain, atol=1e-4)
    tiny = cross_validated_encoding_r2(1e-6 * responses, 1e-6 * embedding, stimulus, seed=0)
    np.testing.assert_allclose(tiny, plain, atol=1e-4)
    np.testing.assert_allclose(anova_f(1e-8 * responses, stimulus % 3), anova_f(responses, stimulus % 3))


def test_wide_embeddings_do_not_depend_on_units_offset_or_place():
    """Invariance; columns stand where the blocks of 8,192 that the Gram matrix is summed over meet."""
    responses, embedding, stimulus = encoding_world(40, 6, 4, seed=2)
    plain = cross_validated_encoding_r2(responses, embedding, stimulus, seed=0)
    wide = np.zeros((len(stimulus), 8200))
    wide[:, 8189:8195] = embedding[:, ::-1]  # the largest dimensions last
    for given in (wide, 1e-6 * wide, wide.astype(np.float32), wide + 1e7):
        np.testing.assert_allclose(cross_validated_encoding_r2(responses, given, stimulus, seed=0), plain, atol=1e-4)


def test_constant_voxels_score_zero():
    responses, embedding, stimulus = encoding_world(40, 5, 6, seed=2)
    responses[:, 1:] = [0.1, 1 / 3, 123.456, -7.7, 1e-17]  # means of these are inexact
    np.testing.assert_array_equal(cross_validated_encoding_r2(responses, embedding, stimulus, seed=0)[1:], 0)
    np.testing.assert_array_equal(anova_f(responses, stimulus % 4)[1:], 0)


def test_anova_f_is_that_of_scikit_learn(monkeypatch):
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 5, 90)
    responses = generator.normal(100, 1, (90, 7)) + labels[:, None] * np.linspace(0, 0.5, 7)
    monkeypatch.setattr(univariate, "VOXELS_PER_BLOCK", 3)
    np.testing.assert_allclose(anova_f(responses, labels), f_classif(responses, labels)[0], rtol=1e-9)
    by_name = anova_f(responses.astype(np.float32), [f"class {label}" for label in labels])
    np.testing.assert_allclose(by_name, f_classif(responses, labels)[0], rtol=1e-3)


def test_anova_f_without_variance_inside_classes_is_infinite():
    labels = np.arange(12) % 3
    responses = np.stack([labels * 0.7, np.sin(np.arange(12.0))], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = anova_f(responses, labels)
        assert anova_f(np.ones((12, 1)), labels) == 0
    assert np.isinf(found[0])
    np.testing.assert_allclose(found[1], stats.f_oneway(*[responses[labels == k, 1] for k in range(3)]).statistic)


def test_anova_labels_are_the_planted_clusters():
    generator = np.random.default_rng(0)
    planted = generator.integers(0, 3, 120)
    directions = np.eye(3, 16)[planted] + 0.05 * generator.normal(0, 1, (120, 16))
    embedding = directions * generator.uniform(0.1, 10, (120, 1))  # lengths do not count
    labels = anova_labels(embedding, 3, seed=0)
    assert len({(a, b) for a, b in zip(planted.tolist(), labels.tolist(), strict=True)}) == 3
    np.testing.assert_array_equal(labels, anova_labels(embedding, 3, seed=0))


def test_anova_labels_are_the_best_of_ten_starts_of_k_means():
    """Oracle: scikit-learn. Points without clusters, for which 1, 9 and 11 starts end elsewhere (searched for)."""
    embedding = np.random.default_rng(154).normal(0, 1, (60, 4))
    directions = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    wanted = KMeans(8, n_init=10, random_state=0).fit_predict(directions)
    np.testing.assert_array_equal(anova_labels(embedding, 8, seed=0), wanted)


def test_anova_labels_need_rows_with_a_direction_and_fewer_clusters_than_rows():
    embedding = np.eye(4)[[0, 0, 1, 1, 2]] + np.arange(5)[:, None] * 1e-3 * np.eye(4)[3]
    assert len(set(anova_labels(embedding, 2, seed=0).tolist())) == 2
    assert len(set(anova_labels(embedding, 4, seed=0).tolist())) == 4
    with pytest.raises(InputError, match="2 to 4 for 5 trials, 5 came"):
        anova_labels(embedding, 5, seed=0)
    for bad in (0.0, np.nan, np.inf):
        broken = embedding.copy()
        broken[2] = bad
        with pytest.raises(DegenerateError, match="no direction"):
            anova_labels(broken, 2, seed=0)


def test_every_trial_is_compared_with_its_stimulus():
    """130 trials of 10 stimuli, one of which differs: named, wherever it stands."""
    stimulus = np.arange(130) % 10
    embedding = np.random.default_rng(0).normal(0, 1, (10, 3))[stimulus]
    names = [f"image-{number}" for number in stimulus]
    for trial in range(10, 130):
        differing = embedding.copy()
        differing[trial, 1] += 1
        with pytest.raises(InputError, match=f"stimulus 'image-{trial % 10}' have"):
            cross_validated_encoding_r2(np.zeros((130, 1)), differing, names, seed=0)
    embedding[0], names[0] = np.nan, "alone"
    with pytest.raises(InputError, match="stimulus 'alone' have"):
        cross_validated_encoding_r2(np.zeros((130, 1)), embedding, names, seed=0)


def test_top_voxels_takes_the_lowest_index_of_equals():
    mask = top_voxels(np.array([1.0, 3, 2, 3, 2, -np.inf, 2, np.inf]), 5)
    np.testing.assert_array_equal(np.flatnonzero(mask), [1, 2, 3, 4, 7])
    assert top_voxels(np.zeros(4), 4).all()


def test_refuses_what_cannot_be_used():
    responses, embedding, stimulus = encoding_world(20, 4, 3, seed=0)
    differing = embedding.copy()
    differing[0] += 1
    stimulus[1] = stimulus[0]
    differing[1] = embedding[0]
    with pytest.raises(InputError, match="different"):
        cross_validated_encoding_r2(responses, differing, stimulus, seed=0)
    with pytest.raises(InputError, match="trials but"):
        cross_validated_encoding_r2(responses, embedding[1:], stimulus, seed=0)
    with pytest.raises(InputError, match=f"{len(stimulus)} trials but 7 labels; each"):
        anova_f(responses, stimulus[:7])
    with pytest.raises(InputError, match=f"trials but {len(stimulus) - 1} stimulus ids; each"):
        cross_validated_encoding_r2(responses, embedding, stimulus[1:], seed=0)
    with pytest.raises(InputError, match="alphas"):
        cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, alphas=(1.0, 0.0))
    with pytest.raises(InputError, match="n_folds"):
        cross_validated_encoding_r2(responses, embedding, stimulus, seed=0, n_folds=1)
    with pytest.raises(DegenerateError, match="all the same"):
        cross_validated_encoding_r2(responses, np.ones_like(embedding), stimulus, seed=0)
    responses[2, 1] = np.nan
    with pytest.raises(InputError, match="voxel 1 has a value that is not finite"):
        cross_validated_encoding_r2(responses, np.ones_like(embedding) * stimulus[:, None], stimulus, seed=0)
    with pytest.raises(InputError, match="voxel 1 has a value that is not finite"):
        anova_f(responses, stimulus % 2)
    with pytest.raises(DegenerateError, match="more trials than classes"):
        anova_f(np.eye(4), np.arange(4))
    with pytest.raises(DegenerateError, match="1 classes"):
        anova_f(responses, np.zeros(len(responses)))
    with pytest.raises(InputError, match="n_clusters"):
        anova_labels(embedding, 1, seed=0)
    with pytest.raises(InputError, match="n_voxels"):
        top_voxels(np.zeros(3), 4)
    with pytest.raises(InputError, match="first 1"):
        top_voxels(np.array([0, np.nan]), 1)
