"""Means over voxels leave out those whose measured responses do not vary. Oracle: the same scores without these voxels."""

import numpy as np
import pytest

from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.encoding import scores as scoring
from pulvinar.encoding.comparison import crossed_interval
from pulvinar.encoding.evaluation import left_out_lines
from pulvinar.scores.encoding import Ceiling, explained_variance, varying

N_IMAGES, N_VOXELS, N_DEAD = 40, 12, 8


def predictions(n_dead):
    """Measured and predicted responses of voxels, then of dead ones: constants whose mean is inexact."""
    rng = np.random.default_rng(0)
    measured = rng.standard_normal((N_IMAGES, N_VOXELS))
    parts = [measured + spread * rng.standard_normal(measured.shape) for spread in (0.5, 1.0, 0.8, 0.7)]
    guess = rng.standard_normal((N_IMAGES, N_DEAD))
    dead = np.broadcast_to([0.1, 1 / 3, 7.1, -5.3, 1e-17, 0.0, 1e6, 3e-5], (N_IMAGES, N_DEAD))
    predicted, baseline, joint, untuned = (np.c_[part, guess[:, :n_dead]] for part in parts)
    every = N_VOXELS + n_dead
    return scoring.Predictions(
        predicted=predicted,
        measured=np.c_[measured, dead[:, :n_dead]],
        ceiling=Ceiling(r2=np.full(every, 0.5), source="planted"),
        optimistic=np.r_[np.linspace(0.4, 0.8, N_VOXELS), np.zeros(n_dead)],
        baseline=baseline,
        joint=joint,
        untuned=untuned,
    )


def first_row(n_dead):
    given = predictions(n_dead)
    every = N_VOXELS + n_dead
    points = Geometry.from_points(np.random.default_rng(1).random((every, 3)))
    ids = [f"image-{row}" for row in range(N_IMAGES)]
    responses = Responses(
        subject="one",
        values=np.random.default_rng(2).random((N_IMAGES, every)).astype(np.float32),
        stimulus_ids=ids,
        geometry=points,
    )
    by_voxel = scoring.score_voxels(given, generator=np.random.default_rng(3), n_permutations=50)
    test = scoring.Tested(ids=ids, responses=responses)
    return scoring.score_regions(given, by_voxel, test, np.arange(every), seed=0, n_permutations=50, n_bootstrap=20)[0]


def test_dead_voxels_change_no_mean_and_are_counted():
    alive, with_dead = first_row(0), first_row(N_DEAD)
    assert (with_dead["n_voxels"], with_dead["n_voxels_without_r"]) == (N_VOXELS + N_DEAD, N_DEAD)
    same = [name for name, value in alive.items() if isinstance(value, float)]
    assert {"r_nested", "r_optimistic", "unique_variance", "share_significant", "share_improved", "r_untuned"} <= set(same)
    for name in same:
        assert with_dead[name] == pytest.approx(alive[name], abs=1e-6), name
    assert left_out_lines([alive]) == []
    assert left_out_lines([with_dead])[0].startswith("one: 8 of 20 voxels do not vary over the test images")


def test_what_varies_only_by_rounding_does_not_vary():
    dead = predictions(N_DEAD).measured[:, N_VOXELS:]
    assert not varying(dead).any()
    assert np.isnan(explained_variance(np.zeros_like(dead), dead)).all()
    assert varying(dead + 1e-3 * np.abs(dead).max(0) * np.linspace(-1, 1, N_IMAGES)[:, None])[dead[0] != 0].all()


def test_a_comparison_of_runs_leaves_them_out_and_counts_a_constant_prediction_as_no_correlation():
    rng, ids = np.random.default_rng(0), np.array([f"i{row:02d}" for row in range(N_IMAGES)])
    measured = rng.standard_normal((N_IMAGES, 4))
    ours = measured + rng.standard_normal(measured.shape)
    other = np.c_[ours[:, :2], np.zeros((N_IMAGES, 2))]
    dead = np.full((N_IMAGES, 3), 0.1)

    def run(predicted):
        return {"one": {"id": ids, "measured": np.c_[measured, dead], "predicted": np.c_[predicted, ours[:, :3]]}}

    found = crossed_interval(run(ours), run(other))
    r = [np.corrcoef(ours[:, voxel], measured[:, voxel])[0, 1] for voxel in range(4)]
    assert found["difference"] == pytest.approx((r[2] + r[3]) / 4)
    assert found["n_voxels_without_r"] == 3
