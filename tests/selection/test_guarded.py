"""Shared ARD behind a guard. Oracles: scikit-learn's Ridge, sums by a loop, and the selections of the two it is between."""

import dataclasses

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import Ridge

from pulvinar.selection import selectors
from pulvinar.selection.cross_fitted_mask import assign_folds, class_targets
from pulvinar.selection.selector import Evidence
from pulvinar.selection.selectors import ard, guarded, univariate


def evidence(seed: int, *, n_trials: int, carried: float) -> Evidence:
    """100 voxels, of which 10 have signal, under a noise that 10 others carry too (`carried`: its size); 15 may stay."""
    rng = np.random.default_rng([seed, 11])
    targets, noise = rng.standard_normal((n_trials, 4)), carried * rng.standard_normal((n_trials, 4))
    responses, mix = rng.standard_normal((n_trials, 100)), rng.standard_normal((4, 10))
    responses[:, :10] = targets @ mix + noise @ mix + rng.standard_normal((n_trials, 10))
    responses[:, 10:20] = noise @ rng.standard_normal((4, 10)) + rng.standard_normal((n_trials, 10))
    responses = ((responses - responses.mean(0)) / responses.std(0)).astype(np.float32)
    return Evidence(responses=responses, targets=targets, stimuli=np.arange(n_trials), n_voxels=15, seed=seed)


def kept(name: str, given: Evidence) -> np.ndarray:
    return selectors.selector(name).select(given).kept


@pytest.mark.slow
def test_the_joint_choice_is_taken_where_noise_is_carried_by_others():
    """Seen over five seeds: a gain of 10 standard errors or more."""
    given = evidence(0, n_trials=80, carried=3.0)
    found = guarded.gain(given)
    assert found.mean > 5 * found.standard_error
    assert_array_equal(kept("guarded", given), kept("ard", given))
    assert (kept("guarded", given) != kept("univariate", given)).any()


def few_weak() -> Evidence:
    rng = np.random.default_rng(2)
    targets, responses = rng.standard_normal((60, 12)), rng.standard_normal((60, 150))
    responses[:, :40] += 0.15 * targets @ rng.standard_normal((12, 40))
    return dataclasses.replace(evidence(0, n_trials=60, carried=0.0), responses=responses.astype(np.float32), targets=targets)


@pytest.mark.slow
def test_single_voxels_are_taken_where_trials_are_few():
    given = few_weak()
    found = guarded.gain(given)
    assert found.mean < found.standard_error
    assert_array_equal(kept("guarded", given), kept("univariate", given))
    assert (kept("guarded", given) != kept("ard", given)).any()


@pytest.mark.long
def test_of_classes_the_single_score_is_anova():
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(4), 12))
    given = few_weak().on_trials(np.arange(48))
    given = dataclasses.replace(given, labels=labels, targets=class_targets(labels), stimuli=labels, _made={})
    assert guarded.gain(given).mean < 0
    assert_array_equal(kept("guarded", given), kept("anova", given))


@pytest.mark.long
def test_the_gain_is_that_of_refits_on_the_trials_outside_each_fold():
    given = evidence(1, n_trials=60, carried=1.0)
    groups = np.repeat(np.arange(20), 3)
    given = dataclasses.replace(given, groups=groups, stimuli=np.arange(60), _made={})
    folds = assign_folds(groups, None, 5, np.random.default_rng(1))
    targets, gained = ard.half_whitened(given.targets), np.zeros(60)
    for fold in range(5):
        held, rest = folds == fold, folds != fold
        assert not set(groups[held]) & set(groups[rest])
        cosines = []
        for one in (ard.SELECTOR, univariate.SELECTOR):
            train = given.on_trials(np.flatnonzero(rest))
            voxels = one.select(train).kept
            x, y = given.responses[rest][:, voxels].astype(float), targets[rest]
            alpha = ard.leave_out(*centred_kernel(x, y), ard.blocks_of_groups(train)).alpha
            predicted = Ridge(alpha=alpha).fit(x, y).predict(given.responses[held][:, voxels]) - y.mean(0)
            true = targets[held] - y.mean(0)
            cosines.append([p @ t / np.linalg.norm(p) / np.linalg.norm(t) for p, t in zip(predicted, true, strict=True)])
        gained[held] = np.subtract(*cosines)
    found = guarded.gain(given)
    assert found.mean == pytest.approx(gained.mean(), abs=1e-5)
    centred = gained - gained.mean()
    variance = sum(centred[groups == group].sum() ** 2 for group in range(20)) / 60**2
    assert_allclose(found.standard_error, np.sqrt(variance), rtol=1e-3)


def centred_kernel(x, y):
    x = x - x.mean(0)
    return x @ x.T, y - y.mean(0)


def test_with_too_few_groups_for_folds_single_voxels_are_taken():
    labels = np.tile(np.arange(3), 20)
    given = dataclasses.replace(
        evidence(0, n_trials=60, carried=3.0),
        labels=labels,
        targets=class_targets(labels),
        stimuli=labels,
        groups=np.repeat(np.arange(3), 20),
    )
    assert_array_equal(kept("guarded", given), kept("anova", given))
