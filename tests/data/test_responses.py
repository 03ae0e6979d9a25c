"""Responses, ROIs and stimuli. Oracles: the array itself, and slow loops over trials."""

import numpy as np
import pytest

from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses, mean_over_repeats
from pulvinar.data.rois import ROIs
from pulvinar.data.stimuli import Stimuli


def made(given: np.ndarray, **more) -> Responses:
    n_trials, n_voxels = given.shape
    fields = {
        "subject": "sub-01",
        "values": given,
        "stimulus_ids": [f"s{trial % 4}" for trial in range(n_trials)],
        "geometry": Geometry.from_points(np.arange(3 * n_voxels, dtype=float).reshape(n_voxels, 3)),
    }
    return Responses(**fields | more)


def random_values(n_trials: int = 200, n_voxels: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n_trials, n_voxels)).astype(np.float32)


def test_count_mismatch_names_both_counts_and_the_subject():
    with pytest.raises(
        InputError,
        match=r"responses and stimuli do not match: 9 trials but 8 stimulus ids \(sub-01\)\. Each trial needs one id",
    ):
        made(random_values(9), stimulus_ids=["a"] * 8)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"values": np.zeros((4, 3))}, "float32 or int16 is needed, float64"),
        ({"values": np.zeros((0, 3), np.float32), "stimulus_ids": []}, r"one trial and one voxel or more .* \(0, 3\)"),
        ({"geometry": Geometry.from_points(np.zeros((2, 3)))}, "3 voxels, but the geometry has 2"),
        ({"scale": 0.0}, "scale must be a positive number, 0.0 came"),
        ({"scale": np.nan}, "scale must be a positive number"),
        ({"sessions": np.zeros(3, int)}, r"sessions of shape \(3,\) for 4 trials"),
        ({"runs": np.array([0, 1, 1.5, 2])}, "runs must be whole numbers"),
        ({"sessions": np.array(list("abcd"))}, "sessions must be whole numbers"),
        ({"rois": ROIs({"V1": np.ones(2)}, n_voxels=2)}, "ROI 'V1' has 2 entries for 3 voxels"),
        ({"noise_ceiling": np.ones(4)}, r"noise_ceiling has shape \(4,\) for 3 voxels"),
    ],
)
def test_what_does_not_fit_is_refused(more, message):
    with pytest.raises(InputError, match=message):
        made(random_values(4, 3), **more)


def test_read_applies_the_scale_and_takes_voxels():
    stored = np.arange(12, dtype=np.int16).reshape(4, 3)
    responses = made(stored, scale=1 / 300)
    np.testing.assert_allclose(responses.read(np.array([3, 0])), stored[[3, 0]] / 300, rtol=1e-6)
    assert responses.read(np.array([1]), np.array([2, 0])).tolist() == [[np.float32(5 / 300), np.float32(3 / 300)]]
    assert responses.read(np.array([1])).dtype == np.float32


def test_sessions_and_runs_default_to_zero_and_lists_become_arrays():
    responses = made(random_values(4), sessions=[0, 0, 1, 1])
    assert responses.runs.tolist() == [0, 0, 0, 0]
    assert responses.sessions.dtype == np.int64
    assert responses.sessions[np.array([0, 3])].tolist() == [0, 1]


def test_bad_voxels_are_found_over_the_trials_in_use_across_blocks():
    values = random_values(200)
    values[:, 0] = 2.5
    values[150, 2] = np.nan
    values[3, 4] = np.inf
    values[:100, 5] = 1.0  # constant in the first hundred trials only
    responses = made(values)
    assert responses.bad_voxels(np.arange(200)).tolist() == [0, 2, 4]
    assert responses.bad_voxels(np.arange(100)).tolist() == [0, 4, 5]
    with pytest.raises(DegenerateError, match=r"3 voxels are constant, NaN or infinite over the 200 .* \[0, 2, 4\]"):
        responses.require_good_voxels(np.arange(200))
    made(random_values()).require_good_voxels(np.arange(200))
    with pytest.raises(InputError, match="no trials"):
        responses.bad_voxels(np.arange(0))


def test_take_voxels_takes_everything_along():
    values = random_values(8)
    rois = ROIs({"V1": np.arange(6) < 3}, n_voxels=6)
    responses = made(values, rois=rois, noise_ceiling=np.linspace(0, 1, 6), scale=2.0, runs=np.arange(8))
    kept = responses.take_voxels(np.array([5, 1]))
    assert np.array_equal(kept.values, values[:, [5, 1]])
    assert kept.rois["V1"].tolist() == [False, True]
    assert kept.noise_ceiling.tolist() == [1.0, 0.2]
    assert np.array_equal(kept.geometry.coordinates, responses.geometry.coordinates[[5, 1]])
    assert (kept.scale, kept.runs.tolist()) == (2.0, list(range(8)))


def test_trials_of_some_stimuli_in_order():
    assert made(random_values(8)).trials_of(["s3", "s1"]).tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16])
def test_mean_over_repeats_against_a_loop(dtype):
    values = np.random.default_rng(1).integers(-9, 9, (7, 2, 3)).astype(dtype)
    ids = list("babcbaa")
    mean, order, count = mean_over_repeats(values, ids)
    assert (order, count.tolist()) == (["b", "a", "c"], [3, 3, 1])
    for row, name in enumerate(order):  # slow loop
        own = [values[trial].astype(float) for trial in range(7) if ids[trial] == name]
        np.testing.assert_allclose(mean[row], sum(own) / len(own), rtol=1e-6)
    assert mean.dtype == (np.float64 if dtype == np.int16 else dtype)
    with pytest.raises(InputError, match="7 and 6 trials"):
        mean_over_repeats(values, ids[:-1])


def test_rois_are_boolean_named_and_counted():
    rois = ROIs({"V1": np.array([1, 0, 1]), "V2": np.array([False, True, False])}, n_voxels=3)
    assert rois["V1"].dtype == bool
    assert (list(rois), len(rois), "V3" in rois) == (["V1", "V2"], 2, False)
    with pytest.raises(NotFoundError, match="no ROI named 'v1'; did you mean 'V1'"):
        rois["v1"]
    with pytest.raises(InputError, match="true or false per voxel"):
        ROIs({"V1": np.array([0, 1, 2])}, n_voxels=3)
    with pytest.raises(InputError, match="true or false per voxel"):
        ROIs({"V1": np.array(["yes", "no", "no"])}, n_voxels=3)
    with pytest.raises(InputError, match=r"\(2,\) came for 3 voxels"):
        ROIs({"V1": np.ones(2)}, n_voxels=3)


def test_stimuli_refuse_repeats_wrong_counts_and_values_that_are_not_finite():
    with pytest.raises(InputError, match=r"1 stand twice, among them \['a'\]"):
        Stimuli(ids=["a", "b", "a"], sources=["a", "b", "a"])
    with pytest.raises(InputError, match="one or more are needed"):
        Stimuli(ids=[], sources=[])
    with pytest.raises(InputError, match=r"stimuli\.clip: 3 rows for 2"):
        Stimuli(ids=["a", "b"], sources=["a", "b"], features={"clip": np.zeros((3, 4))})
    with pytest.raises(InputError, match=r"feature 'clip': not finite for stimuli \['b'\]"):
        Stimuli(ids=["a", "b"], sources=["a", "b"], features={"clip": np.array([[0.0], [np.nan]])})


def test_stimuli_are_found_by_id():
    stimuli = Stimuli(ids=["a", "b", "c"], sources=["p", "p", "q"], features={"clip": np.eye(3)})
    assert stimuli.rows(["c", "a"]).tolist() == [2, 0]
    with pytest.raises(NotFoundError, match=r"1 stimulus ids are not among the 3 stimuli, e\.g\. \['z'\]"):
        stimuli.rows(["a", "z"])
    with pytest.raises(NotFoundError, match="no feature 'clap'; did you mean 'clip'"):
        stimuli.feature("clap")
    with pytest.raises(NotFoundError, match="without images"):
        stimuli.image(0)
