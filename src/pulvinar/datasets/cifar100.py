"""CIFAR-100, binary version: 50,000 training and 10,000 test images of 32 x 32, 100 fine classes."""

import os

from pulvinar.data.binary_images import find_folder, read_class_names, read_records
from pulvinar.data.dataset import Dataset, Facts, PublishedFile
from pulvinar.data.image_set import ImageSet, without_copies

SHAPES = {"train": (50_000, 32, 32, 3), "test": (10_000, 32, 32, 3), "classes": 100}
FOLDER = "cifar-100-binary"
N_CLASSES = (20, 100)  # coarse and fine, as the labels stand in a record
FINE = 1  # the second label of a record; the first is one of 20 coarse classes


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set with fine labels, from the unpacked folder of the binary version, or the folder that it lies in.

    A record is a coarse and a fine label and 3 x 1024 bytes of pixels. Training images that are in the test set pixel for pixel
    are left out of training, with a warning. `FileError` for another download says which one is read.
    """
    folder = find_folder(path, FOLDER, "train.bin", name="CIFAR-100", url=DATASET.facts.url, foreign=("train", "train.mat"))
    images, labels = read_records(folder / "train.bin", n_classes=N_CLASSES, side=32)
    test, test_labels = read_records(folder / "test.bin", n_classes=N_CLASSES, side=32)
    train, train_labels = without_copies(images, labels[:, FINE], test, name="CIFAR-100")
    return ImageSet(
        name="cifar100",
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels[:, FINE],
        class_names=read_class_names(folder / "fine_label_names.txt", n_classes=100),
    )


DATASET = Dataset(
    name="cifar100",
    facts=Facts(
        citation="Krizhevsky A. Learning multiple layers of features from tiny images. University of Toronto, 2009.",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        licence="none stated; the page asks for the citation",
        files=(
            PublishedFile(
                path="cifar-100-binary.tar.gz",
                source="https://www.cs.toronto.edu/~kriz",
                checksum="md5:03b5dce01913d631647c71ecec9e9cb8",
                unpack=True,
            ),
        ),
    ),
    load=load,
)
