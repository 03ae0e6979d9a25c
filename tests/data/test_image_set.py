"""What an image set refuses, and what it gives."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError, LeakError
from pulvinar.data.image_set import ImageSet, copies

IMAGES = np.random.default_rng(0).integers(0, 256, (10, 4, 6, 3), dtype=np.uint8)


def image_set(**changes) -> ImageSet:
    given = {"name": "few", "train": IMAGES[:7], "test": IMAGES[7:], "train_labels": np.arange(7) % 3 - 1}
    return ImageSet(**{**given, "test_labels": np.array([0, 1, 1]), **changes})


def test_labelled_images_are_those_with_a_label():
    images, labels = image_set().labelled()
    np.testing.assert_array_equal(images, IMAGES[[1, 2, 4, 5]])
    assert labels.tolist() == [0, 1, 0, 1]
    assert image_set().n_classes == 2
    assert image_set().size == (4, 6)
    np.testing.assert_array_equal(image_set().tested()[0], IMAGES[7:])


def test_fewer_images_than_a_batch_are_refused():
    image_set().require_batch(7)
    with pytest.raises(InputError, match="7 training images, fewer than a batch of 8"):
        image_set().require_batch(8)


def test_a_test_image_in_the_training_set_is_refused():
    with pytest.raises(LeakError, match=r"2 training images stand in the test set too, e\.g\. training row 0"):
        image_set(test=IMAGES[[8, 0, 3]])
    assert copies(IMAGES[:5], IMAGES[[8, 0, 3]]).tolist() == [0, 3]


def test_a_training_image_in_two_classes_is_said(capsys):
    twice = IMAGES[[0, 1, 2, 3, 4, 1, 2]]
    made = image_set(train=twice, train_labels=np.array([0, 1, 0, -1, 1, 0, 0]), class_names=("cat", "dog"))
    said = "1 training images stand in a second class too, e.g. rows 1 and 5 in dog and cat"
    assert made.notes == (said,)
    assert said in capsys.readouterr().err
    assert image_set(train=twice, train_labels=np.array([0, 1, 0, -1, 1, -1, 0])).notes == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": IMAGES[:7].astype(float)}, "uint8"),
        ({"train": IMAGES[:7, ..., :1]}, "uint8"),
        ({"test": IMAGES[7:, :2]}, r"test images \(2, 6, 3\)"),
        ({"train_labels": np.zeros(6, int)}, r"train labels of shape \(6,\) for 7 images"),
        ({"train_labels": np.zeros(7)}, "whole numbers"),
        ({"test_labels": np.array([0, 1, -1])}, "test label -1"),
        ({"class_names": ("a",)}, "not one of the 1 classes"),
        ({"class_names": ("a", "a")}, "class names stand twice: a, a"),
        ({"train_labels": np.int64(1)}, r"train labels of shape \(\) for 7 images"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(InputError, match=words):
        image_set(**changes)


def test_no_test_images_is_no_evaluation():
    with pytest.raises(InputError, match="no labelled test images"):
        image_set(test=IMAGES[:0], test_labels=None).tested()


def test_the_fingerprint_sees_pixels_and_labels():
    changed = IMAGES[7:].copy()
    changed[0, 0, 0, 0] ^= 1
    prints = {image_set().fingerprint(), image_set(test=changed).fingerprint()}
    prints.add(image_set(test_labels=np.array([0, 1, 0])).fingerprint())
    assert len(prints) == 3
