"""The score of the test images without a near training image. Oracle: means of the ranks by hand; numpy's own average."""

import numpy as np
import pytest

from pulvinar.decoding.evaluation import _apart
from pulvinar.report.tables import near_training
from pulvinar.scores.retrieval import retrieval_scores


def retrieval():
    """Ten images: an embedding each, the first six predicted rightly, the others as the one after."""
    true = np.eye(10) + 0.01 * np.random.default_rng(0).normal(size=(10, 10))
    predicted = true[[0, 1, 2, 3, 4, 5, 7, 8, 9, 6]]
    return retrieval_scores(predicted, true, generator=np.random.default_rng(0), n_permutations=20, n_bootstrap=50)


def test_only_images_without_a_near_one_count_in_the_same_gallery():
    is_near = np.isin(np.arange(10), [0, 1, 2, 3])
    found = _apart(retrieval(), is_near, 0)
    for direction in ("brain_to_image", "image_to_brain"):
        assert found[f"apart_{direction}_top1"] == pytest.approx(2 / 6)
        low, high = found[f"apart_{direction}_top1_interval"]
        assert 0 <= low < 2 / 6 < high <= 1


def test_without_an_image_left_and_without_a_score_there_is_none():
    assert set(_apart(retrieval(), np.ones(10, bool), 0).values()) == {None}
    assert set(_apart(None, np.zeros(10, bool), 0).values()) == {None}


def test_both_scores_are_said():
    summary = {"by": ["clip"], "near_from_cosine": 0.82, "n_test_images": 10, "n_near": 4, "largest_cosine": 0.97}
    row = {"brain_to_image_top1": 0.6, "brain_to_image_top1_interval": [0.3, 0.9]}
    row |= _apart(retrieval(), np.isin(np.arange(10), [0, 1, 2, 3]), 0)
    said = near_training(summary, row).replace("\u00a0", " ")
    assert said.startswith("4 of 10 test images have a near training image (cosine of clip at 0.82 or more).")
    assert "60 % [30 %, 90 %] of all, 33 % [" in said
    assert "of the 6 others" in said
    assert "No test image has a near" in near_training({**summary, "n_near": 0}, row)
    assert near_training({**summary, "n_near": 10}, {**row, "apart_brain_to_image_top1": None}).endswith("there is no score.")
    assert near_training(None, row) == ""
