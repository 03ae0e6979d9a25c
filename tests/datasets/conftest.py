"""Writers of the official image formats, from the descriptions on their pages."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def pictures() -> Callable[..., np.ndarray]:
    """Random pictures (image, height, width, 3): no two alike."""

    def make(n_images: int, side: int, seed: int = 0, width: int | None = None) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (n_images, side, width or side, 3), dtype=np.uint8)

    return make


def write_records(path: Path, images: np.ndarray, *labels: np.ndarray) -> None:
    """CIFAR's binary version: label bytes, then 1024 red, green and blue bytes, row by row."""
    with path.open("wb") as file:
        for row, image in enumerate(images):
            file.write(bytes(int(label[row]) for label in labels))
            for colour in range(3):
                for line in image[:, :, colour]:
                    file.write(bytes(line.tolist()))


def write_columns(path: Path, images: np.ndarray) -> None:
    """STL-10's binary version: red, green and blue, each column by column."""
    with path.open("wb") as file:
        for image in images:
            for colour in range(3):
                for column in range(image.shape[1]):
                    file.write(bytes(image[:, column, colour].tolist()))


@pytest.fixture
def cifar10_folder(tmp_path, pictures) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder in CIFAR-10's layout with 3 images a batch, its images (18, 32, 32, 3) and labels (18,)."""
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    images, labels = pictures(18, 32), np.arange(18) % 10
    for number in range(5):
        part = slice(3 * number, 3 * number + 3)
        write_records(folder / f"data_batch_{number + 1}.bin", images[part], labels[part])
    write_records(folder / "test_batch.bin", images[15:], labels[15:])
    (folder / "batches.meta.txt").write_text("\n".join(f"kind {n}" for n in range(10)) + "\n\n")
    return folder, images, labels


@pytest.fixture
def cifar100_folder(tmp_path, pictures) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder in CIFAR-100's layout: 6 training and 4 test images, fine labels (10,)."""
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    images, fine = pictures(10, 32), np.arange(90, 100)
    for name, part in (("train", slice(0, 6)), ("test", slice(6, 10))):
        write_records(folder / f"{name}.bin", images[part], fine[part] // 5, fine[part])
    (folder / "fine_label_names.txt").write_text("\n".join(f"fine {n}" for n in range(100)))
    return folder, images, fine


@pytest.fixture
def stl10_folder(tmp_path, pictures) -> tuple[Path, np.ndarray]:
    """A folder in STL-10's layout: 4 unlabelled, 3 training, 2 test images."""
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = pictures(9, 96)
    for name, part in (("unlabeled", slice(0, 4)), ("train", slice(4, 7)), ("test", slice(7, 9))):
        write_columns(folder / f"{name}_X.bin", images[part])
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 3]))
    (folder / "test_y.bin").write_bytes(bytes([2, 2]))
    return folder, images


@pytest.fixture
def class_folder(tmp_path, pictures) -> tuple[Path, np.ndarray]:
    """FOLDER/train and FOLDER/test with classes cat and dog, 3 + 2 images each of 10 x 8 pixels."""
    images = pictures(10, 10, width=8)
    row = 0
    for side, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            folder = tmp_path / "pets" / side / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(images[row]).save(folder / f"{number}.png")
                row += 1
    return tmp_path / "pets", images
