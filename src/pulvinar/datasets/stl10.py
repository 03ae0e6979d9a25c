"""STL-10, binary version: 100,000 unlabelled, 5,000 training and 8,000 test images of 96 x 96, 10 classes."""

import os
from pathlib import Path

import numpy as np

from pulvinar.data.binary_images import find_folder, read_bytes, read_class_names, read_planes, require_classes
from pulvinar.data.dataset import Dataset, Facts, PublishedFile
from pulvinar.data.image_set import ImageSet, without_copies

SHAPES = {"unlabelled": (100_000, 96, 96, 3), "train": (5_000, 96, 96, 3), "test": (8_000, 96, 96, 3), "classes": 10}
FOLDER = "stl10_binary"
SIDE = 96


def load(path: str | os.PathLike[str]) -> ImageSet:
    """The image set: unlabelled images (label -1), then the labelled training images; from the unpacked folder or its parent.

    Pixels lie colour by colour and *column by column*; labels are 1..10 on disk, 0..9 here. All unlabelled images take 2.8 GB
    of memory. Training images that are in the test set pixel for pixel are left out, with a warning.
    """
    folder = find_folder(
        path, FOLDER, "unlabeled_X.bin", name="STL-10", url=DATASET.facts.url, foreign=("train.mat", "unlabeled.mat")
    )
    unlabelled = read_planes(folder / "unlabeled_X.bin", side=SIDE)
    labelled, labels = _labelled(folder, "train")
    test, test_labels = _labelled(folder, "test")
    images = np.concatenate([unlabelled, labelled])
    every = np.concatenate([np.full(len(unlabelled), -1), labels])
    train, train_labels = without_copies(images, every, test, name="STL-10")
    return ImageSet(
        name="stl10",
        train=train,
        test=test,
        train_labels=train_labels,
        test_labels=test_labels,
        class_names=read_class_names(folder / "class_names.txt", n_classes=10),
    )


def _labelled(folder: Path, side: str) -> tuple[np.ndarray, np.ndarray]:
    images = read_planes(folder / f"{side}_X.bin", side=SIDE)
    place = folder / f"{side}_y.bin"
    labels = read_bytes(place, n_expected=len(images)).astype(np.int64)
    require_classes(place, labels, first=1, last=10)
    return images, labels - 1


DATASET = Dataset(
    name="stl10",
    facts=Facts(
        citation="Coates A, Lee H, Ng AY. An analysis of single-layer networks in unsupervised feature learning. AISTATS 2011.",
        url="https://ai.stanford.edu/~acoates/stl10/stl10_binary.tar.gz",
        licence="none stated; images from ImageNet, whose terms hold",
        files=(
            PublishedFile(
                path="stl10_binary.tar.gz",
                source="https://ai.stanford.edu/~acoates/stl10",
                checksum="md5:91f7769df0f17e558f3565bffb0c7dfb",  # as torchvision has it
                unpack=True,
            ),
        ),
    ),
    load=load,
)
