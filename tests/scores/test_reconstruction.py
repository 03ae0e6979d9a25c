"""Scores of reconstructions against slow loops, other libraries and the code that the literature runs."""

import numpy as np
import pytest
import scipy.signal
from scipy.spatial.distance import correlation

from pulvinar.core.errors import InputError
from pulvinar.scores import reconstruction


@pytest.fixture
def pictures():
    """Seen pictures, and reconstructions that are partly like them: float (image, 24, 20, 3)."""
    generator = np.random.default_rng(0)
    seen = generator.random((7, 24, 20, 3))
    return 0.6 * seen + 0.4 * generator.random((7, 24, 20, 3)), seen


def test_pixel_correlation_is_numpys(pictures):
    made, seen = pictures
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(made, seen, strict=True)]
    np.testing.assert_allclose(reconstruction.pixel_correlation(made, seen), expected, rtol=1e-12)
    table = reconstruction.correlation_table((255 * seen).astype(np.uint8), made)
    np.testing.assert_allclose(np.diag(table), expected, atol=3e-3)  # 8 bits
    np.testing.assert_allclose(reconstruction.pixel_correlation(3 * made - 1, seen), expected, rtol=1e-12)


def test_structural_similarity_is_the_formula_spelled_out(pictures):
    """Oracle: Wang et al. 2004 with an 11 x 11 Gaussian window of width 1.5, only windows inside the picture."""
    made, seen = pictures
    grey = np.array([0.2125, 0.7154, 0.0721])
    axis = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(axis, axis) / axis.sum() ** 2

    def mean(values):
        return scipy.signal.convolve2d(values, window, mode="valid")

    expected = []
    for one, other in zip(made @ grey, seen @ grey, strict=True):
        centre, target = mean(one), mean(other)
        spread, wanted = mean(one**2) - centre**2, mean(other**2) - target**2
        shared = mean(one * other) - centre * target
        score = (2 * centre * target + 1e-4) * (2 * shared + 9e-4)
        score /= (centre**2 + target**2 + 1e-4) * (spread + wanted + 9e-4)
        expected.append(score.mean())
    np.testing.assert_allclose(reconstruction.structural_similarity(made, seen), expected, rtol=1e-10)
    np.testing.assert_allclose(reconstruction.structural_similarity(seen, seen), 1)


def mindeye2_two_way(made, seen):
    """As MindEye2's evaluation computes it, kept per reconstruction."""
    n = len(seen)
    r = np.corrcoef(seen.reshape(n, -1), made.reshape(n, -1))[:n, n:]
    return (r < np.diag(r)).sum(0) / (n - 1)


def test_two_way_identification_is_mindeye2s(pictures):
    made, seen = pictures
    noisy = made + 40 * np.random.default_rng(1).random(made.shape)
    ours = reconstruction.two_way_identification(reconstruction.correlation_table(seen, noisy))
    np.testing.assert_allclose(ours, mindeye2_two_way(noisy, seen))
    assert 0 < ours.mean() < 1


def test_the_same_picture_for_every_image_is_identified_by_chance(pictures):
    """Closed form: over n images the places 1 to n are taken once each, so the mean is one half, and all ties give it too."""
    made, seen = pictures
    mean_image = np.repeat(seen.mean(0, keepdims=True), len(seen), axis=0)
    assert reconstruction.two_way_identification(reconstruction.correlation_table(seen, mean_image)).mean() == pytest.approx(
        0.5
    )
    constant = reconstruction.correlation_table(seen, np.full_like(made, 0.4))
    assert not constant.any()
    np.testing.assert_allclose(reconstruction.two_way_identification(constant), 0.5)


def test_tables_do_not_depend_on_blocks(pictures, monkeypatch):
    made, seen = pictures
    whole = reconstruction.correlation_table(seen, made)
    monkeypatch.setattr(reconstruction, "VALUES_PER_BLOCK", 3 * seen[0].size)
    np.testing.assert_allclose(reconstruction.correlation_table(seen, made), whole, rtol=1e-12)
    np.testing.assert_allclose(whole, np.corrcoef(seen.reshape(7, -1), made.reshape(7, -1))[:7, 7:], rtol=1e-9)


def test_correlation_distance_is_scipys(pictures):
    made, seen = pictures
    expected = [correlation(a.ravel(), b.ravel()) for a, b in zip(made, seen, strict=True)]
    np.testing.assert_allclose(reconstruction.correlation_distance(made, seen), expected, rtol=1e-10)


def test_the_null_scores_each_reconstruction_against_another_image(pictures):
    made, seen = pictures
    table = reconstruction.identification_table(reconstruction.correlation_table(seen, made))
    permutations = np.random.default_rng(2).permuted(np.tile(np.arange(7), (5, 1)), axis=1)
    slow = []
    for order in permutations:
        correlations = np.corrcoef(seen.reshape(7, -1), made.reshape(7, -1))[:7, 7:]
        scores = [
            np.mean([correlations[i, j] < correlations[order[j], j] for i in range(7) if i != order[j]]) for j in range(7)
        ]
        slow.append(np.mean(scores))
    np.testing.assert_allclose(reconstruction.mismatched_means(table, permutations), slow)


@pytest.mark.parametrize("n_values", [4, 400])
def test_a_row_whose_spread_is_below_rounding_counts_as_zero(n_values):
    """Closed form: f (1 +- a) in turn has the spread f a; below 1e-12 of the largest value, f (1 + a), it is none."""
    signs = np.tile([1.0, -1.0], n_values // 2)
    rows = np.stack([f * (1 + a * signs) for f in (1e-3, 1, 1e3) for a in (0.9e-12, 1.1e-12)])
    with np.errstate(all="raise"):
        table = reconstruction.correlation_table(np.tile(signs, (6, 1)), rows)
        same = reconstruction.pixel_correlation(*np.zeros((2, 2, 3, 3, 3)))
    np.testing.assert_array_equal(table[:, ::2], np.zeros((6, 3)))
    np.testing.assert_allclose(table[:, 1::2], 1, rtol=1e-6)
    assert same.tolist() == [0, 0]


def test_correlations_that_differ_by_less_than_12_decimals_tie():
    """Two images are enough; 4e-13 apart they tie and count half, 4e-12 apart they do not."""
    apart = [np.array([[0.3, 0.5], [0.3 - gap, 0.2]]) for gap in (4e-13, 4e-12)]
    found = [reconstruction.two_way_identification(table) for table in apart]
    assert [row.tolist() for row in found] == [[0.5, 0.0], [1.0, 0.0]]


def test_pictures_of_11_pixels_and_numbers_of_8_bits_are_enough(pictures):
    """Oracle: the same numbers in float64."""
    made, seen = (np.rint(200 * values[:, :11, :11]) for values in pictures)
    assert reconstruction.structural_similarity(made / 255, seen / 255).shape == (7,)
    small = [values.astype(np.uint8) for values in (seen, made)]
    np.testing.assert_array_equal(reconstruction.correlation_table(*small), reconstruction.correlation_table(seen, made))


def test_refusals(pictures):
    made, seen = pictures
    with pytest.raises(InputError, match="same shape"):
        reconstruction.pixel_correlation(made[:3], seen)
    with pytest.raises(InputError, match="two or more"):
        reconstruction.identification_table(np.ones((1, 1)))
    with pytest.raises(InputError, match="11 x 11"):
        reconstruction.structural_similarity(made[:, :8], seen[:, :8])
    made[2, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="row 2"):
        reconstruction.correlation_table(seen, made)
