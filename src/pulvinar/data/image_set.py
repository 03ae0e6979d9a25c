"""A set of images of one size to learn from, with labels where there are any, and its test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulvinar.errors import InputError, LeakError
from pulvinar.storage import fingerprint


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSet:
    """Training and test images, in memory or memory-mapped.

    train, test: uint8 (image, height, width, 3). train_labels, test_labels: whole numbers (image,), indices into
    `class_names`; None where images have no label (self-supervised training needs none, its evaluation does).
    train_labels may hold -1 for images without one (STL-10's unlabelled split).
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    class_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        for side, images, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            self._check(side, images, labels)
        if len(self.test) and self.train.shape[1:] != self.test.shape[1:]:
            raise InputError(f"{self.name}: training images are {self.train.shape[1:]}, test images {self.test.shape[1:]}")
        seen = {fingerprint(image) for image in self.train}
        shared = [row for row, image in enumerate(self.test) if fingerprint(image) in seen]
        if shared:
            raise LeakError(f"{self.name}: {len(shared)} test images stand in the training set too, e.g. rows {shared[:3]}")

    def _check(self, side: str, images: np.ndarray, labels: np.ndarray | None) -> None:
        if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
            raise InputError(
                f"{self.name}: {side} images are uint8 (image, height, width, 3); {images.dtype} {images.shape} came"
            )
        if labels is None:
            return
        if len(labels) != len(images):
            raise InputError(f"{self.name}: {len(labels)} {side} labels for {len(images)} images")
        if labels.dtype.kind not in "iu":
            raise InputError(f"{self.name}: {side} labels are whole numbers, {labels.dtype} came")
        if self.class_names and len(labels) and int(labels.max()) >= len(self.class_names):
            raise InputError(f"{self.name}: {side} label {int(labels.max())} is not one of the {len(self.class_names)} classes")

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.shape[1], self.train.shape[2]

    def fingerprint(self) -> str:
        """Changes when a sample of the images, the labels or the sizes change."""
        rows = np.unique(np.linspace(0, len(self.train) - 1, min(256, len(self.train))).astype(int))
        labels = [part for part in (self.train_labels, self.test_labels) if part is not None]
        return fingerprint(self.name, self.train.shape, self.test.shape, np.asarray(self.train[rows]), *labels)
