"""Oracles: scikit-learn's KNeighborsClassifier, and the weighted vote spelled out."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.nn.functional import normalize

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.linear.neighbours import knn_accuracy


@pytest.fixture
def points() -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Three clouds that overlap, with classes 0, 1, 2."""
    generator = np.random.default_rng(0)
    labels = np.arange(360) % 3
    features = generator.normal(size=(360, 6)) + 1.2 * np.eye(6)[labels]
    features[:, 0] += 100  # lengths far above distances: the expanded square would cancel in float32
    tensor = torch.from_numpy(features).float()
    return tensor[:300], labels[:300], tensor[300:], labels[300:]


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("weighting", ["uniform", "distance"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_predictions_equal_scikit_learn(points, k, weighting, metric):
    bank, labels, queries, truth = points
    if metric == "cosine":
        bank, queries = bank - bank.mean(0), queries - bank.mean(0)
    theirs = KNeighborsClassifier(k, weights=weighting, metric=metric, algorithm="brute").fit(bank.double(), labels)
    ours = knn_accuracy(bank, labels, queries, truth, k=k, weighting=weighting, metric=metric)
    assert (ours.predicted == theirs.predict(queries.double())).mean() > 0.98  # equal but for ties and rounding
    assert ours.accuracy == ours.correct.mean()
    np.testing.assert_array_equal(ours.correct, ours.predicted == truth)
    if k == 1:
        np.testing.assert_array_equal(ours.predicted, theirs.predict(queries.double()))


def test_exponential_weights_equal_a_loop_over_neighbours(points):
    """Wu et al. 2018: a vote of exp(cosine / temperature) for each of the k nearest."""
    bank, labels, queries, truth = points
    bank, queries = bank - bank.mean(0), queries - bank.mean(0)
    ours = knn_accuracy(bank, labels, queries, truth, k=20, metric="cosine", weighting="exponential", temperature=0.1)
    units = [normalize(part.double()).numpy() for part in (bank, queries)]
    for query, predicted in zip(units[1], ours.predicted, strict=True):
        cosine = units[0] @ query
        votes = np.zeros(3)
        for row in np.argsort(-cosine)[:20]:
            votes[labels[row]] += np.exp(cosine[row] / 0.1)
        assert predicted == votes.argmax()


def test_on_unit_length_both_metrics_agree(points):
    bank, labels, queries, truth = points
    euclidean = knn_accuracy(bank, labels, queries, truth, k=3, normalised=True)
    cosine = knn_accuracy(bank, labels, queries, truth, k=3, metric="cosine")
    np.testing.assert_array_equal(euclidean.predicted, cosine.predicted)


def test_a_bank_image_finds_itself(points):
    bank, labels, *_ = points
    assert knn_accuracy(bank, labels, bank, labels, k=7, weighting="distance").accuracy == 1


def test_labels_without_meaning_score_chance():
    """Shuffled labels of 10 classes: within four standard errors of .1."""
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(4000, 8, generator=generator), torch.randint(0, 10, (4000,), generator=generator)
    accuracy = knn_accuracy(features[:2000], labels[:2000], features[2000:], labels[2000:]).accuracy
    assert accuracy == pytest.approx(0.1, abs=4 * (0.09 / 2000) ** 0.5)


def test_what_does_not_fit_is_refused(points):
    bank, labels, queries, truth = points
    with pytest.raises(InputError, match="k: 1 to 300"):
        knn_accuracy(bank, labels, queries, truth, k=301)
    with pytest.raises(InputError, match="299 came"):
        knn_accuracy(bank, labels[:-1], queries, truth)
    with pytest.raises(InputError, match="no label"):
        knn_accuracy(bank, labels - 1, queries, truth)
    with pytest.raises(InputError, match="metric='cosine'"):
        knn_accuracy(bank, labels, queries, truth, weighting="exponential")
    with pytest.raises(DegenerateError, match="NaN"):
        knn_accuracy(bank * torch.nan, labels, queries, truth)
