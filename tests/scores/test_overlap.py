"""Oracles: scikit-learn's precision, recall and F1; counts spelled out."""

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from pulvinar.core.errors import InputError
from pulvinar.scores.overlap import coverage_per_area, overlap, stability


def test_overlap_is_that_of_scikit_learn():
    generator = np.random.default_rng(0)
    selected, reference = generator.random(200) < 0.3, generator.random(200) < 0.6
    found = overlap(selected, reference)
    np.testing.assert_allclose(found.precision, precision_score(reference, selected))
    np.testing.assert_allclose(found.recall, recall_score(reference, selected))
    np.testing.assert_allclose(found.dice, f1_score(reference, selected))  # Dice of sets is F1
    assert (found.n_selected, found.n_reference) == (selected.sum(), reference.sum())
    assert found.n_both == (selected & reference).sum()
    assert found.reason == ""


def test_empty_sets_leave_scores_undefined_with_the_reason():
    some, none = np.array([True, False, True]), np.zeros(3, bool)
    no_reference = overlap(some, none)
    assert (no_reference.precision, no_reference.recall, no_reference.dice) == (0.0, None, 0.0)
    assert no_reference.reason == "the reference has no voxels"
    no_selection = overlap(none, some)
    assert (no_selection.precision, no_selection.recall, no_selection.dice) == (None, 0.0, 0.0)
    assert no_selection.reason == "the selection has no voxels"
    neither = overlap(none, none)
    assert (neither.precision, neither.recall, neither.dice) == (None, None, None)
    assert neither.reason == "the selection and the reference have no voxels"


def test_coverage_counts_each_area_and_ignores_labels_of_none():
    areas = np.array([0, -1, 2, 2, 2, 2, 7, 7, 7])
    selected = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    found = coverage_per_area(selected, areas, names={2: "V2", 9: "absent"})
    assert list(found) == ["V2", "7"]
    assert (found["V2"].n_voxels, found["V2"].n_selected, found["V2"].share, found["V2"].covered) == (4, 1, 0.25, True)
    assert (found["7"].n_voxels, found["7"].n_selected, found["7"].share, found["7"].covered) == (3, 0, 0.0, False)


def test_areas_without_names_are_called_by_their_labels():
    """From label 1 on; an area without a name keeps its label beside those that have one."""
    areas, selected = np.array([3, 1, 1, 0, 3, -2]), np.array([0, 1, 0, 1, 0, 1], bool)
    assert {name: area.share for name, area in coverage_per_area(selected, areas).items()} == {"1": 0.5, "3": 0.0}
    assert list(coverage_per_area(selected, areas)) == ["1", "3"]
    assert list(coverage_per_area(selected, areas, names={1: "V1"})) == ["V1", "3"]
    assert coverage_per_area(selected, np.zeros(6, int)) == {}


def test_different_numbers_of_voxels_are_refused():
    with pytest.raises(InputError, match="reference has 4 voxels, the selection 3"):
        overlap(np.zeros(3, bool), np.zeros(4, bool))
    with pytest.raises(InputError, match="area map has 4 voxels, the selection 3"):
        coverage_per_area(np.zeros(3, bool), np.zeros(4, int))


def test_stability_is_the_mean_dice_over_pairs_and_chance_is_what_random_sets_give():
    rng = np.random.default_rng(0)
    masks = [rng.permutation(np.arange(200) < 40) for _ in range(4)]
    found = stability(masks)
    pairs = [2 * (a & b).sum() / (a.sum() + b.sum()) for number, a in enumerate(masks) for b in masks[number + 1 :]]
    assert found.n_pairs == 6
    assert found.dice == pytest.approx(np.mean(pairs))
    assert (found.low, found.high) == (min(pairs), max(pairs))
    assert found.chance == pytest.approx(0.2)
    many = stability([rng.permutation(np.arange(200) < 40) for _ in range(60)])
    assert many.dice == pytest.approx(many.chance, abs=0.01)  # 1,770 pairs, spread .06 each
    assert stability([masks[0], masks[0]]).dice == 1


def test_stability_of_sets_of_other_sizes_is_the_mean_over_their_pairs():
    """Sizes 1, 2 and 4 of 8 voxels: Dice 2/3, 0 and 2 * 1 / 6; by chance 2 |A| |B| / 8 / (|A| + |B|)."""
    sets = [np.isin(np.arange(8), chosen) for chosen in ([0], [0, 1], [1, 2, 3, 4])]
    found = stability(sets)
    assert found.dice == pytest.approx((2 / 3 + 0 + 1 / 3) / 3)
    assert (found.low, found.high, found.n_pairs) == (0, pytest.approx(2 / 3), 3)
    assert found.chance == pytest.approx((4 / 8 / 3 + 8 / 8 / 5 + 16 / 8 / 6) / 3)
    assert stability([sets[0], sets[2]]).dice == 0


def test_stability_needs_two_selections_that_are_not_empty():
    with pytest.raises(InputError, match="1 selections"):
        stability([np.ones(3, bool)])
    with pytest.raises(InputError, match="empty"):
        stability([np.ones(3, bool), np.zeros(3, bool)])
