"""Oracles: the rules written out on a line of voxels, closed forms, and a budget that must hold for any mask."""

import numpy as np
import pytest
import scipy.sparse

from pulvinar.core.errors import InputError
from pulvinar.data.geometry import Geometry
from pulvinar.selection.voxel_mask import close_round, low_pass_score, survivors_allowed, voxel_budget

IDENTITY = scipy.sparse.eye_array(10, format="csr")


def grid(*shape: int) -> scipy.sparse.csr_array:
    return Geometry.from_mask(np.ones(shape, bool), affine=np.eye(4)).low_pass(1.0)


def closed(mask, low_pass=IDENTITY, **changes):
    settings = {"budget": 3, "threshold": 0.1, "round_number": 1, "n_rounds": 4, "combine": "none", "schedule": "threshold"}
    return close_round(np.asarray(mask, np.float32), low_pass, **(settings | changes))


def test_budget_as_count_or_share():
    assert voxel_budget(17, 100) == 17
    assert voxel_budget(np.int64(17), 100) == 17
    assert voxel_budget(100, 100) == 100
    assert voxel_budget(0.25, 99) == 25  # 24.75
    assert voxel_budget(1.0, 99) == 99
    assert voxel_budget(1e-6, 99) == 1
    assert voxel_budget(1, 99) == 1


@pytest.mark.parametrize("budget", [0, -3, 101, 0.0, -0.5, 1.5, float("nan"), True])
def test_budgets_that_do_not_fit_are_refused(budget):
    with pytest.raises(InputError, match="n_voxels"):
        voxel_budget(budget, 100)


def test_survivors_follow_the_geometric_path_down_to_the_budget():
    allowed = [survivors_allowed(8000, 280, round_number=r, n_rounds=5) for r in range(1, 6)]
    assert allowed == [int(np.ceil(8000 * (280 / 8000) ** (r / 5) - 1e-6)) for r in range(1, 6)]
    assert allowed[-1] == 280
    ratios = np.divide(allowed[1:], allowed[:-1])
    np.testing.assert_allclose(ratios, 0.035**0.2, rtol=0.005)
    assert survivors_allowed(50, 50, round_number=1, n_rounds=3) == 50


def test_scores_are_the_mask_its_low_pass_and_their_geometric_mean():
    low_pass, mask = grid(4, 3, 2), np.random.default_rng(0).random(24).astype(np.float32)
    dense = low_pass.toarray()
    smoothed = np.array([sum(dense[i, j] * mask[j] for j in range(24)) for i in range(24)])
    np.testing.assert_allclose(low_pass_score(mask, low_pass, "none"), mask)
    np.testing.assert_allclose(low_pass_score(mask, low_pass, "smooth"), smoothed)
    np.testing.assert_allclose(low_pass_score(mask, low_pass, "geometric"), np.sqrt(mask * smoothed))


def test_a_weak_voxel_among_strong_ones_passes_smoothing_but_not_the_geometric_mean():
    mask, low_pass = np.zeros(27, np.float32), grid(3, 3, 3)
    mask[[4, 10, 12, 14, 16, 22]] = 1.0  # the six neighbours of the centre, voxel 13
    assert low_pass_score(mask, low_pass, "smooth")[13] > low_pass_score(mask, low_pass, "smooth")[4]
    assert low_pass_score(mask, low_pass, "geometric")[13] == 0


def test_a_mask_of_ones_stays_one_to_the_edge():
    np.testing.assert_allclose(low_pass_score(np.ones(24, np.float32), grid(4, 3, 2), "smooth"), 1.0)


def test_exactly_the_budget_above_the_threshold_ends_the_rounds():
    outcome = closed([0.5, 0, 0.2, 0, 0, 0.1, 0.3, 0.05, 0, 0])  # .1 is not above .1
    assert outcome.path == "threshold: exactly the budget"
    assert np.flatnonzero(outcome.kept).tolist() == [0, 2, 6]


def test_a_threshold_of_zero_counts_what_is_above_it():
    outcome = closed([0.5, 0, 0.2, 0, 0, 0, 0.3, 0, 0, 0], threshold=0.0)
    assert outcome.path == "threshold: exactly the budget"
    assert np.flatnonzero(outcome.kept).tolist() == [0, 2, 6]


@pytest.mark.parametrize("unit", [1.0, 1e9])
@pytest.mark.parametrize("combine", ["geometric", "smooth", "none"])
def test_of_too_many_voxels_those_with_the_largest_score_are_kept(unit, combine):
    """Oracle: the score sorted. What lies below the threshold, which makes ties differ, must not count more than the score."""
    rng, low_pass = np.random.default_rng(2), grid(5, 4, 3)
    for _ in range(20):
        mask = unit * rng.random(60)
        settings = {"threshold": 0.3 * unit, "combine": combine, "budget": 5, "schedule": "geometric", "round_number": 4}
        outcome = close_round(mask, low_pass, **settings, n_rounds=4)
        assert outcome.path == "schedule"
        np.testing.assert_array_equal(np.flatnonzero(outcome.kept), np.sort(np.argsort(-outcome.score)[:5]))


def test_below_the_threshold_the_mask_decides_before_its_neighbours():
    """Plain masks: voxel 2 of .08 is alone, voxel 6 of .07 stands among those of .06; of equals it is the neighbours'."""
    low_pass = Geometry.from_mask(np.ones((10, 1, 1), bool), affine=np.eye(4)).low_pass(1.0)
    outcome = closed([0.9, 0, 0.08, 0, 0, 0.06, 0.07, 0.06, 0, 0], low_pass, budget=2)
    assert np.flatnonzero(outcome.kept).tolist() == [0, 2]
    outcome = closed([0.9, 0, 0, 0.07, 0, 0, 0.07, 0.06, 0, 0], low_pass, budget=2)
    assert np.flatnonzero(outcome.kept).tolist() == [0, 6]


def test_rounds_follow_the_geometric_schedule_and_mean_unless_told_otherwise():
    mask, low_pass = np.linspace(0.2, 1, 60)[np.random.default_rng(3).permutation(60)], grid(5, 4, 3)
    settings = {"budget": 6, "threshold": 0.1, "round_number": 2, "n_rounds": 4}
    ours = close_round(mask, low_pass, **settings)
    named = close_round(mask, low_pass, **settings, combine="geometric", schedule="geometric")
    np.testing.assert_array_equal(ours.kept, named.kept)
    np.testing.assert_array_equal(ours.score, named.score)
    assert ours.kept.sum() == survivors_allowed(60, 6, round_number=2, n_rounds=4) < 60


def test_more_than_the_budget_goes_on_with_what_is_above_the_threshold():
    outcome = closed([0.5, 0.4, 0.2, 0.15, 0.12, 0.05, 0.3, 0.05, 0, 0])
    assert outcome.path is None
    assert np.flatnonzero(outcome.kept).tolist() == [0, 1, 2, 3, 4, 6]


def test_the_geometric_schedule_bounds_the_survivors_of_a_round():
    outcome = closed(np.linspace(0.2, 1, 10), schedule="geometric", round_number=2)
    allowed = survivors_allowed(10, 3, round_number=2, n_rounds=4)  # 10 (3/10)^(1/2) = 5.5
    assert allowed == 6
    assert outcome.path is None
    assert np.flatnonzero(outcome.kept).tolist() == [4, 5, 6, 7, 8, 9]


def test_the_last_round_of_the_schedule_takes_the_largest_scores():
    outcome = closed(np.linspace(0.2, 1, 10), schedule="geometric", round_number=4)
    assert outcome.path == "schedule"
    assert np.flatnonzero(outcome.kept).tolist() == [7, 8, 9]


def test_the_papers_rule_out_of_rounds_falls_back_and_says_so():
    outcome = closed(np.linspace(0.2, 1, 10), round_number=4)
    assert outcome.path == "safety: 10 voxels after the last round"
    assert np.flatnonzero(outcome.kept).tolist() == [7, 8, 9]


def test_undershooting_fills_the_budget_with_the_best_of_those_below_the_threshold():
    outcome = closed([0.5, 0, 0.09, 0, 0, 0.08, 0.3, 0.05, 0, 0])
    assert outcome.path == "safety: 2 voxels were left above the threshold"
    assert np.flatnonzero(outcome.kept).tolist() == [0, 2, 6]


def test_an_empty_mask_still_gives_the_budget():
    outcome = closed(np.zeros(10))
    assert outcome.path == "safety: 0 voxels were left above the threshold"
    assert outcome.kept.sum() == 3


def test_undershooting_prefers_the_neighbours_of_strong_voxels():
    mask, low_pass = np.zeros(125, np.float32), grid(5, 5, 5)
    centre, corner = 62, 0
    mask[centre] = 1.0
    outcome = close_round(mask, low_pass, budget=7, threshold=0.1, round_number=1, n_rounds=3)
    neighbours = {centre, centre - 1, centre + 1, centre - 5, centre + 5, centre - 25, centre + 25}
    assert set(np.flatnonzero(outcome.kept)) == neighbours
    assert not outcome.kept[corner]


@pytest.mark.parametrize("combine", ["geometric", "smooth", "none"])
@pytest.mark.parametrize("schedule", ["geometric", "threshold"])
def test_any_mask_ends_with_exactly_the_budget_and_no_round_keeps_fewer(combine, schedule):
    rng, low_pass, paths = np.random.default_rng(1), grid(5, 4, 3), set()
    for _ in range(80):
        budget, n_rounds = int(rng.integers(1, 61)), int(rng.integers(1, 5))
        alive, previous = np.ones(60, bool), 60
        power = rng.choice([0.1, 1, 4])
        for round_number in range(1, n_rounds + 1):
            mask = (rng.random(60) ** power * (rng.random(60) < rng.choice([0.2, 0.6, 1.0])) * alive).astype(np.float32)
            outcome = close_round(
                mask,
                low_pass,
                budget=budget,
                threshold=0.1,
                round_number=round_number,
                n_rounds=n_rounds,
                combine=combine,
                schedule=schedule,
            )
            if outcome.path is not None:
                break
            assert budget <= outcome.kept.sum() <= previous
            assert not (outcome.kept & ~alive).any()  # a voxel that was cut stays cut while rounds go on
            if schedule == "geometric":
                assert outcome.kept.sum() <= survivors_allowed(60, budget, round_number=round_number, n_rounds=n_rounds)
            alive, previous = outcome.kept, int(outcome.kept.sum())
        assert outcome.path is not None
        assert outcome.kept.sum() == budget
        paths.add(outcome.path.split(":")[0])
    assert "safety" in paths
