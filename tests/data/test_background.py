"""Oracles: pictures whose background is known."""

import numpy as np

from pulvinar.data.background import background_mask, on_grey


def disc(colour=(255, 255, 255)) -> tuple[np.ndarray, np.ndarray]:
    """A picture of a red disc with a hole of the background's colour, and its background."""
    y, x = np.mgrid[:60, :80]
    distance = np.hypot(y - 30, x - 40)
    image = np.full((60, 80, 3), colour, np.uint8)
    image[(distance < 20) & (distance > 6)] = (200, 20, 20)
    return image, distance >= 20


def test_the_background_is_found_and_holes_are_not():
    for colour in ((255, 255, 255), (128, 128, 128), (0, 0, 0)):
        image, background = disc(colour)
        np.testing.assert_array_equal(background_mask(image), background)


def test_a_photograph_is_left_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (50, 40, 3)).astype(np.uint8)
    assert not background_mask(image).any()
    assert on_grey(image) is image


def test_a_background_that_is_not_white_stays():
    for colour in ((0, 0, 0), (120, 200, 40)):
        image, _ = disc(colour)
        assert on_grey(image) is image


def test_a_white_background_becomes_grey_and_the_object_stays():
    image, background = disc()
    noisy = np.clip(image.astype(int) - np.random.default_rng(0).integers(0, 6, image.shape), 0, 255).astype(np.uint8)
    grey = on_grey(noisy)
    assert (grey[background] == 128).all()
    np.testing.assert_array_equal(grey[~background], noisy[~background])


def test_the_92_objects_stand_as_on_the_grey_version(shared_data):
    """Oracle: the same pictures on grey, as another group published them (their edges are smoothed otherwise)."""
    white = np.load(shared_data / "rdm92_algonauts" / "rdm92_algonauts2019.npz")["images"]
    grey = np.load(shared_data / "rdm92_kriegeskorte" / "rdm92_kriegeskorte2008_dev.npz")["images"]
    gap = np.abs(np.stack([on_grey(image) for image in white]).astype(int) - grey.astype(int)).mean((1, 2, 3))
    before = np.abs(white.astype(int) - grey.astype(int)).mean((1, 2, 3))
    assert np.median(gap) < 6  # 4.6; without, 69
    assert np.median(before) > 30
