"""`pulvinar.rsa` of arrays, lists and tables is that of tensors (the oracle), and gives arrays."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from pulvinar import rsa
from pulvinar.core.errors import InputError

PATTERNS = np.random.default_rng(0).normal(size=(8, 10))
RDM = rsa.correlation_rdm(torch.from_numpy(PATTERNS))
OTHERS = torch.stack([RDM, RDM.flip(0), RDM.roll(1)])


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (rsa.correlation_rdm, (torch.from_numpy(PATTERNS),)),
        (rsa.euclidean_rdm, (torch.from_numpy(PATTERNS),)),
        (rsa.squared_euclidean_rdm, (torch.from_numpy(PATTERNS),)),
        (rsa.expand, (RDM,)),
        (rsa.condense, (rsa.expand(RDM),)),
        (rsa.compare, (RDM, OTHERS[1])),
        (rsa.partial_spearman, (RDM, OTHERS[1], OTHERS[2:])),
    ],
)
def test_arrays_give_the_same_arrays(function, given):
    wanted = function(*given)
    found = function(*(value.numpy() for value in given))
    assert isinstance(wanted, torch.Tensor)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, wanted.numpy())


def test_what_is_no_array_is_left_as_it_is():
    conditions, folds = np.repeat(np.arange(4), 2), np.tile([0, 1], 4)
    found = rsa.crossnobis_rdm(PATTERNS, conditions, folds)
    np.testing.assert_array_equal(found, rsa.crossnobis_rdm(torch.from_numpy(PATTERNS), conditions, folds).numpy())
    assert rsa.noise_ceiling(OTHERS.numpy()) == rsa.noise_ceiling(OTHERS)
    np.testing.assert_array_equal(rsa.euclidean_rdm(np.array([[0, 0], [2, 2]])), [2.0])
    with pytest.raises(InputError, match="2 features or more are needed, 1 came"):
        rsa.correlation_rdm(PATTERNS[:, :1])


def test_lists_and_tables_are_arrays_too_and_a_tensor_among_arrays_gives_tensors():
    np.testing.assert_array_equal(rsa.correlation_rdm(PATTERNS.tolist()), RDM.numpy())
    np.testing.assert_array_equal(rsa.correlation_rdm(pd.DataFrame(PATTERNS)), RDM.numpy())
    learnt = OTHERS[1].clone().requires_grad_()
    similarity = rsa.compare(learnt, RDM.numpy(), method="pearson")
    similarity.backward()
    assert learnt.grad is not None
    assert pickle.loads(pickle.dumps(rsa.compare)) is rsa.compare


def test_what_does_not_fit_is_named_whatever_axes_stand_before():
    with pytest.raises(InputError, match=r"correlation_rdm: patterns has axes \(\*batch, condition, feature\)"):
        rsa.correlation_rdm(PATTERNS[0])
    with pytest.raises(InputError, match=r"partial_spearman: measured of shape \(3, 27\) differs in pair from predicted"):
        rsa.partial_spearman(OTHERS.numpy()[:2], OTHERS.numpy()[:, 1:], OTHERS.numpy())
    with pytest.raises(InputError, match="patterns needs numbers"):
        rsa.euclidean_rdm([["a", "b"], ["c", "d"]])
