"""Labels of image sets as others write them."""

import numpy as np
import pytest

from pulvinar.core.errors import InputError
from pulvinar.data.image_labels import as_labels
from pulvinar.data.image_set import ImageSet

Y, TESTED = np.array([0, 1, 2, 3, 1, 0]), np.array([3, 2, 0])
IMAGES = np.random.default_rng(0).integers(0, 256, (9, 4, 6, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y,
        lambda y: y[:, None].astype(np.uint8),
        lambda y: np.eye(4, dtype=int)[y],
        lambda y: np.eye(4, dtype=np.float32)[y],
        lambda y: y + 1,
        lambda y: y * 10 + 5,
    ],
)
def test_all_ways_of_writing_labels_are_equal(write):
    made = ImageSet(name="few", train=IMAGES[:6], test=IMAGES[6:], train_labels=write(Y), test_labels=write(TESTED))
    assert made.train_labels.tolist() == Y.tolist()
    assert made.test_labels.tolist() == TESTED.tolist()
    assert made.n_classes == 4
    assert made.class_names in ((), tuple(str(value) for value in write(np.arange(4))))


def test_labels_from_1_with_names(capsys):
    names = ("a", "b", "c", "d")
    made = as_labels(Y + 1, TESTED + 1, names, name="few")
    assert (made.train.tolist(), made.test.tolist()) == (Y.tolist(), TESTED.tolist())
    assert made.notes == ("labels 1 to 4 are the 4 class names in order",)
    assert as_labels(np.array([1, 2]), None, names, name="few").train.tolist() == [1, 2]  # from 0, the first class is missing
    assert as_labels(np.array([1, 2]), None, names, name="few").notes == (
        "labels 1 to 2 count the class names from 0: none is 'a'",
    )
    assert as_labels(Y, TESTED, names, name="few").notes == ()
    unlabelled = as_labels(np.array([-1, 4, 1]), None, names, name="few")
    assert unlabelled.train.tolist() == [-1, 3, 0]


@pytest.mark.parametrize(
    ("train", "test", "names", "words"),
    [
        (Y, np.array([7, 2, 0]), (), "test label 7 is none of the training labels, 0, 1, 2, 3"),
        (Y + 1, np.array([0, 2, 1]), (), "test label 0 is none of the training labels, 1, 2, 3, 4"),
        (Y, np.array([4, 2, 0]), ("a", "b", "c", "d"), "test label 4 is not one of the 4 classes"),
        (Y[None], TESTED, (), r"\(image, 1\) or one-hot"),
        (np.eye(4)[Y] * 2, TESTED, (), "one-hot"),
        (np.ones((6, 4)) / 4, TESTED, (), "one-hot"),
        (np.zeros((6, 4), int), TESTED, (), "one-hot"),
        (np.eye(4)[Y][..., None], TESTED, (), "one-hot"),
        (np.eye(4, dtype=int)[Y], np.eye(5, dtype=int)[TESTED], (), "one-hot labels of 4 classes in training, 5 in the test"),
        (Y.astype(float), TESTED, (), "whole numbers, float64 came"),
        (Y - 2, TESTED, (), "train label -2"),
        (Y, np.array([-1, 2, 0]), ("a", "b", "c", "d"), "test label -1; labels are 0 or more"),
        (np.where(Y > 1, 1, -1), np.array([1, 1, 1]), (), "train labels -1 and 1; -1 means that an image has no label"),
    ],
)
def test_what_does_not_fit_is_refused(train, test, names, words):
    with pytest.raises(InputError, match=words):
        as_labels(train, test, names, name="few")
