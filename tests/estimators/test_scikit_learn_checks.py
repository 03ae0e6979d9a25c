"""scikit-learn's own checks of estimators, and of their arguments, on all four."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from sklearn.base import clone
from sklearn.utils._param_validation import InvalidParameterError
from sklearn.utils.estimator_checks import check_param_validation, parametrize_with_checks

from pulvinar.core.errors import InputError
from pulvinar.estimators import Decoder, RDMRegressor, RidgeEncoder, VoxelSelector
from pulvinar.selection import selectors


class RDMOfTarget(RDMRegressor):
    """RDMRegressor with a target per image, as scikit-learn's checks give one: the RDM is that of the target."""

    def fit(self, X, y, groups=None):
        return super().fit(X, _rdm(y), groups)

    def score(self, X, y):
        return super().score(X, _rdm(y))


def _rdm(y):
    if y is None:
        raise ValueError("RDMOfTarget requires y to be passed, but the target y is None")
    values = np.unique(np.asarray(y).reshape(-1), return_inverse=True)[1]
    return pdist(values[:, None] + 0.01 * np.arange(len(values))[:, None])


RDM_IS_OF_ALL_IMAGES = "an RDM has a row and a column per image: it is not one prediction per image"


def _expected_to_fail(estimator):
    if not isinstance(estimator, RDMOfTarget):
        return {}
    return {
        "check_methods_sample_order_invariance": RDM_IS_OF_ALL_IMAGES,
        "check_methods_subset_invariance": RDM_IS_OF_ALL_IMAGES,
        "check_fit2d_1feature": "a correlation distance needs two features",
        "check_estimators_dtypes": "its data, cut to whole numbers, have an image all of whose features are equal",
    }


LONG = ("ard", "ard_backward")  # half a minute of checks each
WAYS = [one.name for one in selectors.every() if not (one.oracle or one.without_budget or one.name == "cross_fitted")]


@pytest.mark.long
@parametrize_with_checks(
    [
        Decoder(hidden=8, epochs=2),
        RidgeEncoder(alphas=[0.1, 1.0, 10.0], cv=2),
        VoxelSelector(),
        VoxelSelector(n_voxels=1, sigma=0, n_folds=2, n_steps=2),
        *(VoxelSelector(method=name) for name in WAYS if name not in LONG),
        RDMOfTarget(n_steps=2, n_folds=2, identity_weights=(0.1,)),
    ],
    expected_failed_checks=_expected_to_fail,
)
@pytest.mark.filterwarnings("ignore:y. .* different whole numbers")
def test_scikit_learn_accepts_it(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([VoxelSelector(method=name) for name in LONG], expected_failed_checks=_expected_to_fail)
@pytest.mark.filterwarnings("ignore:y. .* different whole numbers")
def test_scikit_learn_accepts_the_ways_that_take_long(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "estimator", [Decoder(), RidgeEncoder(), VoxelSelector(), RDMRegressor()], ids=lambda one: type(one).__name__
)
def test_arguments_are_refused_as_scikit_learn_refuses_them(estimator):
    """Oracle: scikit-learn's check of its own estimators: every argument, a wrong type and every wrong value."""
    check_param_validation(type(estimator).__name__, clone(estimator))
    seeded = clone(estimator).set_params(random_state=True)
    name = next(iter(estimator._parameter_constraints))
    with pytest.raises(
        InputError, match=rf"^The '{name}' parameter of {type(estimator).__name__} must be .* Got \[None\] instead"
    ):
        estimator.set_params(**{name: [None]}).fit(np.eye(12), np.arange(12.0) % 3)
    with pytest.raises(InvalidParameterError, match="Got True instead"):
        seeded.fit(np.eye(12), np.arange(12.0) % 3)
