"""The lateralisation index: planted sides, content that is on one side, no lateralisation, p-values under the null."""

import numpy as np
import pytest

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.scores.lateralisation import corrected_left_share, lateralisation, left_share


def test_left_share_by_hand():
    maps = np.zeros((4, 1, 5))
    maps[0, 0, 0], maps[1, 0, 2], maps[2, 0, 3] = 2, 2, 2
    with np.errstate(all="raise"):
        np.testing.assert_allclose(left_share(maps), [1, 0.5, 0, np.nan])
    np.testing.assert_allclose(left_share(np.ones((1, 3, 4))), 0.5)
    with pytest.raises(InputError, match="0 or more"):
        left_share(-np.ones((1, 2, 2)))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0])
def test_a_share_does_not_depend_on_the_scale_of_the_salience(scale):
    """A gradient's map may sum to far less than 1; a constant map of any scale is half left, also in single precision."""
    maps = np.random.default_rng(3).random((5, 4, 6))
    wanted = maps[:, :, :3].sum((1, 2)) / maps.sum((1, 2))
    np.testing.assert_allclose(left_share(scale * maps), wanted, rtol=1e-12)
    single = (scale * maps).astype(np.float32)
    np.testing.assert_array_equal(left_share(single), left_share(single.astype(np.float64)))


def test_content_on_one_side_cancels_and_a_side_of_the_field_stays():
    """Oracle: salience that moves with the mirrored picture gives 1/2; salience that stays gives its own share."""
    maps = np.random.default_rng(0).random((6, 4, 7)) ** 3
    maps[:, :, :3] *= 4
    np.testing.assert_allclose(corrected_left_share(maps, maps[:, :, ::-1]), 0.5)
    np.testing.assert_allclose(corrected_left_share(maps, maps), left_share(maps))


def test_index_has_the_planted_sign_and_0_without():
    rng = np.random.default_rng(1)
    right_field, left_field = 0.4 + 0.1 * rng.standard_normal(60), 0.6 + 0.1 * rng.standard_normal(60)
    contralateral = lateralisation(right_field, left_field, generator=rng)
    assert contralateral.low < 0.2 < contralateral.high
    assert contralateral.p_value < 0.001
    assert lateralisation(left_field, right_field, generator=rng).index == pytest.approx(-contralateral.index)
    none = lateralisation(left_field, left_field.copy(), generator=rng)
    assert (none.index, none.p_value) == (0, 1)


def test_p_values_are_even_under_the_null():
    """Without lateralisation p < .05 comes in 5 % of 200 worlds (2 to 18 of 200: P > .998)."""
    rng = np.random.default_rng(2)
    low = sum(
        lateralisation(*(0.5 + 0.1 * rng.standard_normal((2, 20))), generator=rng, n_permutations=400, n_bootstrap=10).p_value
        < 0.05
        for _ in range(200)
    )
    assert 2 <= low <= 20


def test_images_without_salience_are_left_out_and_counted():
    shares = np.linspace(0.4, 0.6, 9)
    gone = shares.copy()
    gone[:2] = np.nan
    found = lateralisation(gone, shares, generator=np.random.default_rng(0))
    assert (found.n_images, found.n_left_out) == (7, 2)
    assert lateralisation(gone[:7], shares[:7], generator=np.random.default_rng(0)).n_images == 5
    with pytest.raises(DegenerateError, match="4 images"):
        lateralisation(gone[:6], shares[:6], generator=np.random.default_rng(0))


def test_the_test_and_the_interval_are_as_fine_as_asked_for():
    """Closed form: where all 40 images agree no permutation does as well: p = 1 / (m + 1); 10,000 and 2,000 by default."""
    left, right = np.full(40, 0.4), np.linspace(0.5, 0.6, 40)

    def found(**settings):
        return lateralisation(left, right, generator=np.random.default_rng(0), **settings)

    assert found().p_value == 1 / 10_001
    assert found(n_permutations=9, n_bootstrap=10).p_value == 1 / 10
    assert found(n_permutations=9).low == found(n_permutations=9, n_bootstrap=2000).low
    assert (found().left_share_lh, found().left_share_rh) == pytest.approx((0.4, 0.55))
