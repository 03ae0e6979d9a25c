"""Oracles: slow loop from the equations, planted variance components, correlation of averaged repeats with the true signal."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.scores import noise_ceiling
from pulvinar.scores.noise_ceiling import ceiling_r2, signal_to_noise


def planted(repeats: np.ndarray, signal_sd: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """z-scored trials in random order with known signal standard deviation per voxel; and their stimulus numbers."""
    generator = np.random.default_rng(seed)
    stimulus = generator.permutation(np.repeat(np.arange(len(repeats)), repeats))
    signal = generator.normal(0, 1, (len(repeats), len(signal_sd))) * signal_sd
    return signal[stimulus] + generator.normal(0, 1, (len(stimulus), len(signal_sd))) * np.sqrt(1 - signal_sd**2), stimulus


def test_planted_variance_components_are_found():
    """Over 30 seeds the mean of 200 voxels was at most 2.4 of its standard errors off; without signal at most 0.014."""
    repeats = np.tile([1, 2, 3], 400)
    signal_sd = np.repeat([0.0, 0.3, 0.6, 0.9], 200)
    responses, stimulus = planted(repeats, signal_sd, 0)
    found = signal_to_noise(responses.astype(np.float32), stimulus)
    true = signal_sd / np.sqrt(1 - signal_sd**2)
    by_level = np.square(found.ncsnr).reshape(4, 200).mean(1)
    expected = np.square(true).reshape(4, 200).mean(1)
    # squares, so that only the cut at 0 biases
    spread = np.square(found.ncsnr).reshape(4, 200).std(1) / np.sqrt(200)
    assert (np.abs(by_level - expected)[1:] < 4 * spread[1:]).all()
    assert by_level[0] < 0.03
    assert (found.n_repeated_stimuli, found.degrees_of_freedom) == (800, 400 + 800)


def test_equals_the_equations_spelled_out(monkeypatch):
    repeats = np.random.default_rng(1).integers(1, 5, 60)
    responses, stimulus = planted(repeats, np.linspace(0.2, 0.9, 7), 1)
    expected = []
    for voxel in responses.T:
        sums = [((voxel[stimulus == s] - voxel[stimulus == s].mean()) ** 2).sum() for s in range(60)]
        noise = sum(sums) / sum(n - 1 for n in repeats)
        expected.append(np.sqrt(max(0.0, voxel.var(ddof=1) - noise)) / np.sqrt(noise))
    monkeypatch.setattr(noise_ceiling, "VOXELS_PER_BLOCK", 3)
    found = signal_to_noise(responses, [f"image{s}" for s in stimulus])
    np.testing.assert_allclose(found.ncsnr, expected, rtol=1e-10)


def test_ceiling_is_the_squared_correlation_of_averages_with_the_signal():
    generator = np.random.default_rng(2)
    signal, ncsnr, n_trials = generator.normal(0, 1, 200_000), 0.7, 3
    average = signal + generator.normal(0, 1 / ncsnr, (n_trials, 200_000)).mean(0)
    np.testing.assert_allclose(ceiling_r2(np.array([ncsnr]), n_trials), np.corrcoef(signal, average)[0, 1] ** 2, atol=0.004)


def test_ceiling_with_mixed_repeats_is_the_published_formula():
    ncsnr, a, b, c = np.array([0.0, 0.5, 2.0, np.inf]), 5, 4, 3
    repeats = np.repeat([3, 2, 1], [a, b, c])
    share = (a / 3 + b / 2 + c) / (a + b + c)
    expected = [0.0, 0.25 / (0.25 + share), 4 / (4 + share), 1.0]
    np.testing.assert_allclose(ceiling_r2(ncsnr, repeats), expected)
    np.testing.assert_allclose(ceiling_r2(ncsnr, np.full(9, 3)), ceiling_r2(ncsnr, 3))


def test_constant_and_noiseless_voxels():
    stimulus = np.repeat(np.arange(30), 2)
    responses = np.stack([np.full(60, 0.1), np.random.default_rng(0).normal(0, 1, 30)[stimulus]], axis=1)
    with np.errstate(all="raise"):  # neither is worth a warning
        ncsnr = signal_to_noise(responses, stimulus).ncsnr
        assert ceiling_r2(ncsnr, 2).tolist() == [0, 1]
    np.testing.assert_array_equal(ncsnr, [0.0, np.inf])


def test_too_few_repeats_are_unavailable_with_the_reason():
    stimulus = np.concatenate([np.repeat(np.arange(19), 2), np.arange(100, 200)])
    found = signal_to_noise(np.zeros((len(stimulus), 3)), stimulus)
    assert found.ncsnr is None
    assert found.n_repeated_stimuli == 19
    assert found.reason == "19 stimuli have repeats, 20 or more are needed"
    assert signal_to_noise(np.zeros((len(stimulus), 3)), stimulus, minimum_repeated_stimuli=19).ncsnr is not None
    assert signal_to_noise(np.zeros((5, 3)), np.arange(5), minimum_repeated_stimuli=0).ncsnr is None


def test_refuses_what_cannot_be_used():
    responses = np.zeros((60, 3))
    responses[7, 2] = np.nan
    with pytest.raises(InputError, match="voxel 2 has a value that is not finite"):
        signal_to_noise(responses, np.repeat(np.arange(30), 2))
    with pytest.raises(InputError, match="60 trials but 59 stimulus ids"):
        signal_to_noise(responses, ["a"] * 59)
    with pytest.raises(InputError, match="one trial or more"):
        ceiling_r2(np.ones(2), np.array([1, 0]))
    with pytest.raises(InputError, match="negative"):
        ceiling_r2(np.array([-1.0]), 1)


def test_the_voxel_and_the_counts_are_right_in_later_blocks(monkeypatch):
    monkeypatch.setattr(noise_ceiling, "VOXELS_PER_BLOCK", 3)
    responses = np.random.default_rng(0).standard_normal((60, 9))
    responses[7, 7] = np.inf
    with pytest.raises(InputError, match="voxel 7 has a value that is not finite"):
        signal_to_noise(responses, np.repeat(np.arange(30), 2))
    mixed = signal_to_noise(responses[:, :2], np.repeat(np.arange(21), [1, *[2] * 19, 21]))
    assert (mixed.n_repeated_stimuli, mixed.degrees_of_freedom) == (20, 19 + 20)
    few = signal_to_noise(responses[:, :2], np.repeat(np.arange(20), [1, *[2] * 18, 23]))
    assert (few.n_repeated_stimuli, few.degrees_of_freedom) == (19, 18 + 22)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_noise_below_a_millionth_of_the_spread_is_rounding(scale):
    """Closed form: repeats m + a and m - a of 30 stimuli leave a noise variance of 2 a^2."""
    m = np.tile([-1.0, 1.0], 15)[:, None]
    ids = np.repeat(np.arange(30), 2)
    total = 60 / 59
    for a, ratio in ((6e-7, np.inf), (8e-7, np.sqrt(total / 2) / 8e-7)):
        responses = scale * np.concatenate([m + a, m - a], axis=1).reshape(60, 1)
        np.testing.assert_allclose(signal_to_noise(responses, ids).ncsnr, ratio, rtol=1e-5)


def test_one_repeated_stimulus_is_the_least_there_is_and_single_precision_is_enough():
    """Oracle: the formula, 1 - noise / total, in float64."""
    responses = np.array([[1.0, 5], [2, 5.5], [4, 1], [8, 2]])
    ids = ["a", "a", "b", "c"]
    for minimum in (0, 1):
        found = signal_to_noise(responses.astype(np.float32), ids, minimum_repeated_stimuli=minimum)
        noise = np.array([0.5, 0.125])
        np.testing.assert_allclose(found.ncsnr, np.sqrt(responses.var(0, ddof=1) / noise - 1), rtol=1e-12)
        assert (found.n_repeated_stimuli, found.degrees_of_freedom) == (1, 1)
    assert signal_to_noise(responses, list("abcd"), minimum_repeated_stimuli=0).reason.endswith("1 or more are needed")
    single = np.float32([0.3, 1.7])
    np.testing.assert_array_equal(ceiling_r2(single, 2), ceiling_r2(single.astype(float), np.array([2, 2])))
    assert ceiling_r2(single, 1).dtype == np.float64
    with pytest.raises(InputError, match="one trial or more"):
        ceiling_r2(np.ones(2), np.zeros(0, int))
