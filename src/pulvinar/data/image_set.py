"""A set of images of one size to learn from, with labels where there are any, and its test images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulvinar.core.errors import InputError, LeakError
from pulvinar.core.notebook import Shown, listed
from pulvinar.core.progress import log, warn
from pulvinar.core.sampling import evenly_spaced
from pulvinar.core.storage import fingerprint
from pulvinar.data.image_labels import as_labels
from pulvinar.data.pixels import require_pixels

BYTES_COMPARED = 2**29  # of training images, above which nobody looks whether a picture stands in two classes (CIFAR: 2**27)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImageSet(Shown):
    """Training and test images, in memory or memory-mapped.

    train, test: uint8 (image, height, width, 3). train_labels, test_labels: whole numbers (image,), indices into
    `class_names`; None where images have no label (self-supervised training needs none, its evaluation does).
    train_labels may hold -1 for images without one (STL-10's unlabelled split). They may come as (image, 1), one-hot, or
    counted from another number than 0 (`image_labels.as_labels`). notes: what was done to pictures and labels, and what was
    left out. source: where it was opened from, as `--data` names it; empty for what was made in memory.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    train_labels: np.ndarray | None = None
    test_labels: np.ndarray | None = None
    class_names: Sequence[str] = ()
    notes: Sequence[str] = ()
    source: str = ""

    def __post_init__(self) -> None:
        for side, images, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            require_pixels(images, f"{self.name}: {side} images")
            if labels is not None and np.shape(labels)[:1] != (len(images),):
                raise InputError(f"{self.name}: {side} labels of shape {np.shape(labels)} for {len(images)} images")
        if len(set(self.class_names)) < len(self.class_names):
            raise InputError(f"{self.name}: class names stand twice: {', '.join(self.class_names)}")
        self._take_labels()
        if len(self.test) and self.train.shape[1:] != self.test.shape[1:]:
            raise InputError(f"{self.name}: training images are {self.train.shape[1:]}, test images {self.test.shape[1:]}")
        shared = copies(self.train, self.test)
        if len(shared):
            raise LeakError(
                f"{self.name}: {len(shared)} training images stand in the test set too, e.g. training row {shared[0]}; "
                "leave them out of one side"
            )
        self._say_contradictions()

    def _take_labels(self) -> None:
        """The labels as indices of the classes, however they were written."""
        labels = as_labels(self.train_labels, self.test_labels, self.class_names, name=self.name)
        taken = {"train_labels": labels.train, "test_labels": labels.test, "class_names": labels.class_names}
        for name, value in {**taken, "notes": (*self.notes, *labels.notes)}.items():
            object.__setattr__(self, name, value)
        for note in labels.notes:
            log(f"{self.name}: {note}")

    def _say_contradictions(self) -> None:
        """A picture that stands in two classes teaches neither; of sets that come with some (CIFAR-100), it is said.

        Larger sets than `BYTES_COMPARED`, which may be memory maps, are not read through for it.
        """
        if self.train_labels is None or self.train.nbytes > BYTES_COMPARED:
            return
        first: dict[int, int] = {}
        rows = np.flatnonzero(self.train_labels >= 0).tolist()
        same = [(first.setdefault(hash(self.train[row].tobytes()), row), row) for row in rows]
        pairs = [pair for pair in same if self.train_labels[pair[0]] != self.train_labels[pair[1]]]
        if pairs:
            names = [self.class_names[label] if self.class_names else label for label in self.train_labels[list(pairs[0])]]
            note = (
                f"{len(pairs)} training images stand in a second class too, e.g. rows {pairs[0][0]} and {pairs[0][1]} in "
                f"{names[0]} and {names[1]}"
            )
            warn(f"{self.name}: {note}")
            object.__setattr__(self, "notes", (*self.notes, note))

    def _shown(self) -> tuple[str, dict[str, str]]:
        """A title and a few facts."""
        shown = {
            "images": f"{len(self.train):,} to train, {len(self.test):,} to test, {self.size[0]} x {self.size[1]} pixels",
            "classes": f"{self.n_classes:,}: {listed(self.class_names)}" if self.class_names else f"{self.n_classes:,}",
            "notes": f"{len(self.notes)}, in .notes" if self.notes else "",
        }
        return f"ImageSet '{self.name}'", shown

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.train.shape[1], self.train.shape[2]

    @property
    def side(self) -> int:
        """Side of the images in pixels; `InputError` where they are not square."""
        height, width = self.size
        if height != width:
            raise InputError(f"{self.name}: square images are needed, these are {height} x {width}; crop or resize them first")
        return height

    @property
    def n_classes(self) -> int:
        """How many classes there are: the names given, else one more than the largest label."""
        if self.class_names:
            return len(self.class_names)
        labels = [part for part in (self.train_labels, self.test_labels) if part is not None and len(part)]
        return 1 + max((int(part.max()) for part in labels), default=-1)

    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Training images that have a label, and the labels; `InputError` where there are none."""
        if self.train_labels is None or not (self.train_labels >= 0).any():
            raise InputError(f"{self.name}: no training image has a label; neighbours and linear probes need labels")
        rows = self.train_labels >= 0
        return (self.train, self.train_labels) if rows.all() else (self.train[rows], self.train_labels[rows])

    def tested(self) -> tuple[np.ndarray, np.ndarray]:
        """Test images and their labels; `InputError` where there are none."""
        if self.test_labels is None or not len(self.test):
            raise InputError(f"{self.name}: no labelled test images; there are {len(self.test)} test images")
        return self.test, self.test_labels

    def require_batch(self, batch_size: int) -> None:
        """`InputError` if one batch cannot be filled with training images."""
        if len(self.train) < batch_size:
            raise InputError(
                f"{self.name}: {len(self.train)} training images, fewer than a batch of {batch_size}; "
                f"set batch_size to {len(self.train)} or less, or bring more images"
            )

    def fingerprint(self) -> str:
        """Changes when a sample of the images, the labels or the sizes change."""
        samples = []
        for images in (self.train, self.test):
            rows = evenly_spaced(len(images), 256)
            samples.append(np.ascontiguousarray(images[rows]))
        labels = [part for part in (self.train_labels, self.test_labels) if part is not None]
        return fingerprint(self.name, self.train.shape, self.test.shape, *samples, *labels)


def copies(train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Rows of training images that equal a test image in every pixel, ascending."""
    if not len(test) or train.shape[1:] != test.shape[1:]:
        return np.zeros(0, int)
    tested = {hash(image.tobytes()) for image in test}  # 64 bits: a chance match among 10^10 pairs has p < 1e-9
    return np.array([row for row, image in enumerate(train) if hash(image.tobytes()) in tested], int)


def without_copies(
    train: np.ndarray, labels: np.ndarray | None, test: np.ndarray, *, name: str
) -> tuple[np.ndarray, np.ndarray | None]:
    """Training images and labels less those that are in the test set; a warning says how many. For sets that come with some."""
    shared = copies(train, test)
    if not len(shared):
        return train, labels
    warn(f"{name}: {len(shared)} training images are in the test set too and are left out of training")
    kept = np.delete(np.arange(len(train)), shared)
    return train[kept], None if labels is None else labels[kept]
