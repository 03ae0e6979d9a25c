"""CIFAR-10, binary version: 50,000 training and 10,000 test images of 32 x 32, 10 classes."""

import os

import numpy as np

from pulvinar.data.binary_images import find_folder, read_class_names, read_records
from pulvinar.data.dataset import Dataset, Facts, PublishedFile
from pulvinar.data.image_set import ImageSet, without_copies

SHAPES = {"train": (50_000, 32, 32, 3), "test": (10_000, 32, 32, 3), "classes": 10}
FOLDER = "cifar-10-batches-bin"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set from the unpacked folder of the binary version, or the folder that it lies in.

    A file is records of one byte of label and 3 x 1024 bytes of pixels, colour by colour, row by row. Training images that are
    in the test set pixel for pixel are left out of training, with a warning. `FileError` for another download (the pickled
    Python version, the MATLAB version) says which one is read; a file cut short is named.
    """
    folder = find_folder(
        path, FOLDER, TRAIN[0], name="CIFAR-10", url=DATASET.facts.url, foreign=("data_batch_1", "data_batch_1.mat")
    )
    parts = [read_records(folder / file, n_classes=(10,), side=32) for file in TRAIN]
    images, labels = (np.concatenate([part[index] for part in parts]) for index in (0, 1))
    test, test_labels = read_records(folder / TEST, n_classes=(10,), side=32)
    train, train_labels = without_copies(images, labels[:, 0], test, name="CIFAR-10")
    return ImageSet(
        name="cifar10",
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels[:, 0],
        class_names=read_class_names(folder / "batches.meta.txt", n_classes=10),
    )


DATASET = Dataset(
    name="cifar10",
    facts=Facts(
        citation="Krizhevsky A. Learning multiple layers of features from tiny images. University of Toronto, 2009.",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        licence="none stated; the page asks for the citation",
        files=(
            PublishedFile(
                path="cifar-10-binary.tar.gz",
                source="https://www.cs.toronto.edu/~kriz",
                n_bytes=170_052_171,
                checksum="md5:c32a1d4ab5d03f1284b67883e8d87530",
                unpack=True,
            ),
        ),
    ),
    load=load,
)
