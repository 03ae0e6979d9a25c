"""`pulvinar.metrics` of lists, tables and tensors is that of numpy's arrays (the oracle); errors name the shapes."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch

from pulvinar import metrics
from pulvinar.core.errors import InputError
from pulvinar.scores import encoding, overlap, retrieval

RNG = np.random.default_rng(0)
PREDICTED, MEASURED = RNG.normal(size=(2, 6, 3))


@pytest.mark.parametrize("made", [np.ndarray.tolist, pd.DataFrame, lambda given: torch.tensor(given, requires_grad=True)])
def test_what_numpy_makes_arrays_of_scores_as_arrays_do(made):
    wanted = encoding.correlations(PREDICTED, MEASURED)
    np.testing.assert_array_equal(metrics.correlations(made(PREDICTED), measured=made(MEASURED)), wanted)
    found = metrics.retrieval_scores(
        made(PREDICTED), made(MEASURED), generator=np.random.default_rng(0), excluded=np.zeros((6, 6), int).tolist()
    )
    assert found.scores == retrieval.retrieval_scores(PREDICTED, MEASURED, generator=np.random.default_rng(0)).scores


def test_lists_of_each_kind():
    chosen = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert metrics.overlap([1, 1, 0, 0], [True, False, True, False]) == overlap.overlap(*chosen)
    assert metrics.stability([[1, 1, 0, 0], [1, 0, 1, 0]]) == overlap.stability(chosen)
    assert metrics.ceiling_r2([1, 0], 2).tolist() == metrics.ceiling_r2(np.array([1.0, 0.0]), 2).tolist()
    assert metrics.correlations([[0], [1], [2]], [[1], [2], [4]])[0] == pytest.approx(np.corrcoef([0, 1, 2], [1, 2, 4])[0, 1])
    ids = ["a", "a", "b", "b", "c", "c"]
    wanted = metrics.signal_to_noise(PREDICTED, np.array(ids), minimum_repeated_stimuli=2).ncsnr
    np.testing.assert_array_equal(metrics.signal_to_noise(PREDICTED.tolist(), ids, minimum_repeated_stimuli=2).ncsnr, wanted)
    images = np.zeros((2, 2, 3)), np.zeros((2, 3, 2))
    with pytest.raises(InputError, match="same shape are needed"):  # not of one axis: `...` is any
        metrics.correlation_table(*(image.tolist() for image in images))
    assert metrics.wilson_interval(3, 4) == pytest.approx(metrics.wilson_interval(3.0, 4))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda: metrics.correlations([1.0, 2.0], MEASURED),
            r"correlations: predicted has axes \(image, voxel\); an array of shape \(2,\) came",
        ),
        (lambda: metrics.correlations([[1.0], [2.0, 3.0]], MEASURED), "predicted is no array: its rows have different lengths"),
        (
            lambda: metrics.correlations(PREDICTED[:5].tolist(), MEASURED),
            r"measured of shape \(6, 3\) differs in image from predicted of shape \(5, 3\)",
        ),
        (lambda: metrics.info_nce([[1.0, 2.0]]), r"scores of shape \(1, 2\) differs in image from scores of shape \(1, 2\)"),
        (lambda: metrics.overlap([0, 2], [0, 1]), r"selected needs truth values; an array of shape \(2,\) and type int64 came"),
        (lambda: metrics.false_discovery_rate(["a"]), r"p_values needs numbers; an array of shape \(1,\) and type <U1 came"),
        (
            lambda: metrics.pixel_correlation(np.ones((2, 4, 4)), np.ones((2, 4, 4, 3))),
            r"3\); an array of shape \(2, 4, 4\) came",
        ),
        (lambda: metrics.stability([[1, 0], [[1, 0]]]), r"selections\[1\] has axes \(voxel\); an array of shape \(1, 2\) came"),
    ],
)
def test_errors_name_what_came_and_its_shape(call, said):
    with pytest.raises(InputError, match=said):
        call()


def test_a_function_is_itself_and_pickled_by_its_name():
    assert metrics.correlations is metrics.correlations
    assert pickle.loads(pickle.dumps(metrics.correlations)) is metrics.correlations
