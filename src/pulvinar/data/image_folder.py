"""Pictures of a folder as one array of one size, by class folders where there are any."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pulvinar.data.image_files import read_image
from pulvinar.data.image_set import ImageSet, without_copies
from pulvinar.errors import FileError, InputError
from pulvinar.progress import track, warn
from pulvinar.storage import atomic_path, fingerprint, reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm")
TEST_NAMES = ("test", "val")


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Files of one side in order of class and name; `labels` and `class_names` are empty where there are no class folders."""

    paths: list[Path]
    labels: list[int]
    class_names: tuple[str, ...]


def list_side(folder: Path, class_names: Sequence[str] | None = None) -> Listing:
    """Images in class folders, or directly in the folder (then without labels).

    class_names: the classes to take, in order (others are left out); None: every folder, sorted by name.
    Raises `InputError` naming an empty class, one that is not there, or a mixture of class folders and loose images;
    `FileError` if there is no image at all.
    """
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of images")
    loose = _images(folder)
    folders = [path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")]
    if loose and folders:
        raise InputError(
            f"{folder}: holds images (e.g. {loose[0].name}) and folders (e.g. {folders[0].name}); one or the other"
        )
    if loose and class_names is None:
        return Listing(paths=loose, labels=[], class_names=())
    names = tuple(class_names) if class_names is not None else tuple(path.name for path in folders)
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        if not (folder / name).is_dir():
            raise InputError(
                f"{folder}: no folder of class '{name}'; there are: {', '.join(p.name for p in folders) or 'none'}"
            )
        found = _images(folder / name)
        if not found:
            raise InputError(f"{folder / name}: the class '{name}' is empty; {', '.join(SUFFIXES)} files are read")
        paths += found
        labels += [number] * len(found)
    if not paths:
        raise FileError(f"{folder}: no image; {', '.join(SUFFIXES)} files are read, in class folders or directly")
    return Listing(paths=paths, labels=labels, class_names=names)


def _images(folder: Path) -> list[Path]:
    inside = sorted(folder.iterdir())
    return [path for path in inside if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()]


def open_folder(
    root: str | os.PathLike[str],
    *,
    name: str | None = None,
    size: int | None = None,
    skip_corrupt: bool = False,
    classes: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    drop_copies: bool = False,
) -> ImageSet:
    """An image set from ROOT/train and ROOT/test (or val), each of class folders or flat; or from a ROOT that is one side.

    size: None takes the pictures as they are, all of one size and mode. A number resizes the shorter side to it (bicubic,
    antialiased) and takes the central square, in RGB. skip_corrupt: leave unreadable pictures out, with a warning, instead of
    refusing them. cache: folder for the decoded pixels, which are then memory-mapped instead of held in memory. drop_copies:
    leave training pictures that equal a test picture out, with a warning, instead of refusing them.
    """
    root = Path(root)
    train_folder = root / "train" if (root / "train").is_dir() else root
    test_folder = next((root / side for side in TEST_NAMES if (root / side).is_dir()), None)
    if test_folder is not None and train_folder is root:
        raise FileError(f"{root}: has {test_folder.name}/ but no train/")
    train = list_side(train_folder, classes)
    test = None if test_folder is None else list_side(test_folder, classes)
    if test is not None and train.class_names and test.class_names:
        _same_classes(test_folder, train, test)
    first = train.paths[0]
    pixels, kept = read_pictures(train.paths, first=first, size=size, skip_corrupt=skip_corrupt, cache=cache)
    labels = np.array(train.labels)[kept] if train.labels else None
    if test is None:
        tested, tested_labels = np.zeros((0, *pixels.shape[1:]), np.uint8), None
    else:
        tested, kept = read_pictures(test.paths, first=first, size=size, skip_corrupt=skip_corrupt, cache=cache)
        tested_labels = np.array(test.labels)[kept] if test.labels and train.class_names else None
    if drop_copies:
        pixels, labels = without_copies(pixels, labels, tested, name=str(root))
    return ImageSet(
        name=name or root.name,
        train=pixels,
        test=tested,
        train_labels=labels,
        test_labels=tested_labels,
        class_names=train.class_names,
    )


def _same_classes(folder: Path | None, train: Listing, test: Listing) -> None:
    if train.class_names != test.class_names:
        odd = sorted(set(train.class_names) ^ set(test.class_names))
        raise InputError(f"{folder}: training and test classes differ: {', '.join(odd[:5])}{' …' if len(odd) > 5 else ''}")


def read_pictures(
    paths: Sequence[Path],
    *,
    first: Path,
    size: int | None,
    skip_corrupt: bool,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (image, height, width, 3), and which of the paths they are (indices).

    first: the picture whose size and mode all must share where `size` is None. A picture of another is refused by name.
    """
    if size is None:
        shape = _require_alike(paths, first, skip_corrupt)
    elif size < 1:
        raise InputError(f"size: 1 pixel or more, {size} came")
    else:
        shape = (size, size)
    stored = (
        None if cache is None else Path(cache) / f"{fingerprint([_stamp(path) for path in paths], shape, skip_corrupt)}.npy"
    )
    if stored is not None and stored.is_file():
        kept = _kept_of(stored)
        return np.load(stored, mmap_mode="r", allow_pickle=False)[: len(kept)], kept
    if stored is None:
        pixels = np.empty((len(paths), *shape, 3), np.uint8)
        kept = _fill(pixels, paths, size, skip_corrupt)
        return pixels[: len(kept)], kept
    with atomic_path(stored) as temporary:
        mapped = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(paths), *shape, 3))
        kept = _fill(mapped, paths, size, skip_corrupt)
        mapped.flush()
        with atomic_path(_kept_path(stored)) as rows, rows.open("wb") as file:
            np.save(file, kept)
    return np.load(stored, mmap_mode="r", allow_pickle=False)[: len(kept)], kept


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"


def _kept_path(stored: Path) -> Path:
    return stored.with_suffix(".rows.npy")


def _kept_of(stored: Path) -> np.ndarray:
    with reading(_kept_path(stored), "an array"):
        return np.load(_kept_path(stored), allow_pickle=False)


def _fill(pixels: np.ndarray, paths: Sequence[Path], size: int | None, skip_corrupt: bool) -> np.ndarray:
    """Decode into the array; the indices of the paths that could be read."""
    kept: list[int] = []
    skipped: list[Path] = []
    for row, path in enumerate(track(paths, "reading images", len(paths))):
        try:
            picture = _decode(path)
        except FileError:
            if not skip_corrupt:
                raise
            skipped.append(path)
            continue
        pixels[len(kept)] = picture if size is None else _central_square(picture, size)
        kept.append(row)
    if skipped:
        warn(f"{len(skipped)} of {len(paths)} images cannot be read and are left out, e.g. {skipped[0]}")
    if not kept:
        raise FileError(f"{paths[0].parent}: none of {len(paths)} images can be read")
    return np.array(kept)


def _decode(path: Path) -> np.ndarray:
    try:
        return read_image(path)
    except FileError as error:
        raise FileError(f"{error}; skip_corrupt=true leaves such images out") from error


def _require_alike(paths: Sequence[Path], first: Path, skip_corrupt: bool) -> tuple[int, int]:
    """Height and width that all pictures share; the first that differs in size or mode is named. Reads headers alone."""
    common: tuple[tuple[int, int], str] | None = None
    reference = first
    for path in [first, *paths]:
        header = _header(path)
        if header is None:
            if not skip_corrupt:
                _decode(path)
            continue
        if common is None:
            common, reference = header, path
        elif header != common:
            kinds = [f"{size[1]} x {size[0]} px (height x width), mode {mode}" for size, mode in (header, common)]
            raise InputError(
                f"{path}: {kinds[0]}, but {reference.name} is {kinds[1]}; images of one size and mode are needed, "
                "or give a size (size=96) to which all are resized, in RGB"
            )
    if common is None:
        raise FileError(f"{first.parent}: none of {len(paths)} images can be read")
    return common[0][1], common[0][0]


def _header(path: Path) -> tuple[tuple[int, int], str] | None:
    """(width, height) and Pillow mode, or None where it is no readable image."""
    from PIL import Image

    try:
        with reading(path, "an image"), Image.open(path) as image:
            return image.size, image.mode
    except FileError:
        return None


def _central_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` (Pillow bicubic, antialiased), then the central square."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = size / min(height, width)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    resized = np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    return resized[top : top + size, left : left + size]
