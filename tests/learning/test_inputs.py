"""What comes into `fit` of every estimator: masked arrays, names of groups, folds. Refused where a number would be wrong."""

import numpy as np
import pandas as pd
import pytest

from pulvinar.core.errors import InputError
from pulvinar.estimators import Decoder, RDMRegressor, RidgeEncoder, VoxelSelector
from pulvinar.learning.inputs import checked_names, listed, rows_of_fold

GENERATOR = np.random.default_rng(0)
X, Y = GENERATOR.normal(size=(24, 6)), GENERATOR.normal(size=(24, 4))
RDM = 1 - np.corrcoef(X)
MASKED_X, MASKED_Y = np.ma.masked_greater(X, 1.5), np.ma.masked_greater(Y, 1.5)
ESTIMATORS = {
    "Decoder": (Decoder(hidden=4, epochs=1), X, Y),
    "RDMRegressor": (RDMRegressor(n_steps=2, n_folds=2), [X], (RDM + RDM.T) / 2 * (1 - np.eye(24))),
    "RidgeEncoder": (RidgeEncoder(alphas=(1.0,)), X, Y),
    "VoxelSelector": (VoxelSelector(n_voxels=2), X, Y),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_masked_values_are_refused(name):
    """scikit-learn drops a mask and takes the values under it."""
    estimator, features, target = ESTIMATORS[name]
    masked = [MASKED_X] if isinstance(features, list) else MASKED_X
    with pytest.raises(InputError, match=rf"X: {MASKED_X.mask.sum()} values are masked"):
        estimator.fit(masked, target)
    with pytest.raises(InputError, match=r"y: \d+ values are masked"):
        estimator.fit(features, np.ma.masked_greater(target, np.quantile(target, 0.9)))
    assert estimator.fit(features, np.ma.asarray(target)) is estimator  # no value is masked


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([None] * 3 + ["a"], "groups: 3 of 4 images have none .first image 0"),
        ([1.0, np.nan, 2.0, 1.0], "groups: 1 of 4 images have none .first image 1"),
        (pd.array([1, 2, None, 1], dtype="Int64"), "groups: 1 of 4 images have none .first image 2"),
        (np.array(["a", 1, "a", 1], dtype=object), "names of one kind, text or numbers, are needed; int, str came"),
        ([1, 2, 1], "groups: 3 for 4 images"),
        (np.ma.masked_equal([1, 2, 1, 2], 1), "groups: 2 values are masked"),
    ],
)
def test_names_of_groups_that_do_not_fit_are_refused(names, words):
    with pytest.raises(InputError, match=words):
        checked_names(names, 4, argument="groups", what="image")


def test_names_that_fit():
    for names in (["a", "b", "a", "nan"], np.arange(4)[:, None], pd.Series([2, 1, 1, 2]), pd.Categorical(list("abba"))):
        assert len(checked_names(names, 4, argument="groups", what="image")) == 4


@pytest.mark.parametrize(
    ("fold", "words"),
    [
        ([0.0, 1.0], "float64"),
        ([3, 6], "int64 .* from 3 to 6"),
        ([-1, 0], r"int64 \(2,\) from -1 to 0"),
        (np.array([True, False]), "bool"),
        (np.eye(6, dtype=bool), "bool"),
    ],
)
def test_folds_that_are_no_rows_are_refused(fold, words):
    with pytest.raises(InputError, match=rf"cv: folds are rows from 0 to 5, or masks of 6; {words}"):
        rows_of_fold(fold, 6)


def test_folds_that_share_images_and_none_at_all_are_refused():
    """Alpha would be chosen on images that were fitted: always the smallest."""
    with pytest.raises(InputError, match=r"cv: a fold has 4 images on both sides \(first image 16\)"):
        RidgeEncoder(cv=[(np.arange(20), np.arange(16, 24))]).fit(X, Y)
    with pytest.raises(InputError, match="cv: one fold or more is needed"):
        RidgeEncoder(cv=[]).fit(X, Y)
    assert rows_of_fold(np.arange(6) > 3, 6).tolist() == [4, 5]
    repeated = RidgeEncoder(cv=[(np.tile(np.arange(16), 2), np.arange(16, 24))]).fit(X, Y)
    assert repeated.best_alphas_.shape == (4,)


def test_one_number_or_any_iterable():
    assert listed(np.array(2.0)) == [2.0]
    assert listed(0.5) == [0.5]
    assert listed(value for value in (1, 2)) == [1, 2]
    assert RidgeEncoder(alphas=np.array(2.0)).fit(X, Y).best_alphas_.tolist() == [2.0] * 4
    assert RDMRegressor(n_steps=2, n_folds=2, identity_weights=np.array(0.5)).fit([X], RDM).identity_weight_ == 0.5


def test_single_precision_that_would_lose_the_responses_is_refused():
    far = (Y + 1e6).astype(np.float64)
    with pytest.raises(InputError, match="y: 4 of 4 voxels lose their differences in single precision"):
        RidgeEncoder(alphas=(1.0,)).fit(X.astype(np.float32), far)
    near = RidgeEncoder(alphas=(1.0,)).fit(X, far).coef_
    np.testing.assert_allclose(near, RidgeEncoder(alphas=(1.0,)).fit(X, Y).coef_, atol=1e-7)


def test_a_mapping_of_layers_and_of_rdms_is_refused_by_name():
    with pytest.raises(InputError, match="X: one array, or a list of layers, is needed; a mapping of a, b came"):
        RidgeEncoder().fit({"a": X, "b": X}, Y)
    with pytest.raises(InputError, match="y: an array or a list of RDMs of numbers is needed, a mapping of s1 came"):
        RDMRegressor().fit([X], {"s1": RDM})
    with pytest.raises(InputError, match="complex128 came"):
        RDMRegressor().fit([X], RDM + 0j)
