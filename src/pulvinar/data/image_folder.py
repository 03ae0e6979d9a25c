"""Pictures of a folder as one array of one size, by class folders where there are any."""

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from pulvinar.core import checksums
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log, track, warn
from pulvinar.core.storage import atomic_path, checksum, fingerprint, read_json, reading, set_aside, write_json
from pulvinar.data.image_set import ImageSet, without_copies
from pulvinar.data.pictures import SUFFIXES, FolderContent, Notes, Picture, PictureOptions, decode, look_into, say_left_out

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation")  # the first that is there
LIKE_A_SIDE = re.compile(
    rf"({'|'.join((*TRAIN_NAMES, *TEST_NAMES))})[-_ ]*(set|images?|imgs?|pictures?|photos?|data|dataset|split|stimuli)\d*"
)
DECODED_BY = 3  # raised when the pixels of a file, or what stands in the cache, come out otherwise


@dataclass(frozen=True, kw_only=True)
class Listing:
    """Files of one side in order of class and name; `labels` and `class_names` are empty where there are no class folders.

    left_out: what is in the folders and is not read, a line for each folder and kind.
    """

    paths: list[Path]
    labels: list[int]
    class_names: tuple[str, ...]
    left_out: list[str]


def list_side(folder: Path, class_names: Sequence[str] | None = None) -> Listing:
    """Images in class folders, or directly in the folder (then without labels).

    class_names: the classes to take, in order (others are left out); None: every folder, sorted by name, or as numbers where
    all are whole numbers. Hidden folders and those of the system (__MACOSX) are no classes.
    Raises `InputError` naming an empty class, one that is not there, or a mixture of class folders and loose images;
    `FileError` if there is no image at all.
    """
    content = look_into(folder)
    if content.pictures and content.folders:
        raise InputError(
            f"{folder}: holds images (e.g. {content.pictures[0].name}) and folders (e.g. {content.folders[0].name}); one or "
            "the other"
        )
    if content.pictures and class_names is None:
        return Listing(paths=list(content.pictures), labels=[], class_names=(), left_out=content.left_out())
    folders = _by_class(content)
    names = tuple(class_names) if class_names is not None else tuple(_in_order(folders))
    left_out = content.left_out()
    if unused := [name for name in folders if name not in names]:
        left_out.append(f"left out of {folder}: {len(unused)} folders that are none of the classes asked for")
    paths: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(names):
        if name not in folders:
            raise InputError(f"{folder}: no folder of class '{name}'; there are: {', '.join(folders) or 'none'}")
        inside = look_into(folders[name]).without_folders()
        if not inside.pictures:
            note = "; ".join([f"{', '.join(SUFFIXES)} files are read", *inside.left_out()])
            raise InputError(f"{folders[name]}: the class '{name}' is empty; {note}")
        paths += inside.pictures
        labels += [number] * len(inside.pictures)
        left_out += inside.left_out()
    if not paths:
        raise FileError(f"{folder}: no image; {', '.join(SUFFIXES)} files are read, in class folders or directly")
    return Listing(paths=paths, labels=labels, class_names=names, left_out=left_out)


def _by_class(content: FolderContent) -> dict[str, Path]:
    """Class -> folder. A name is the same whether its accents are one character or two, as unpacking elsewhere leaves them."""
    found: dict[str, Path] = {}
    for path in content.folders:
        name = unicodedata.normalize("NFC", path.name)
        if name in found:
            raise InputError(f"{content.folder}: two folders are named '{name}', with accents of one and of two characters")
        found[name] = path
    return found


def _in_order(names: Iterable[str]) -> list[str]:
    """Sorted as numbers where all are whole numbers (2 before 10), else as text."""
    names = sorted(names)
    return sorted(names, key=int) if all(name.isdecimal() for name in names) else names


def open_folder(
    root: str | os.PathLike[str],
    *,
    name: str | None = None,
    size: int | None = None,
    skip_corrupt: bool = False,
    classes: Sequence[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    drop_copies: bool = False,
    options: PictureOptions | None = None,
) -> ImageSet:
    """An image set from ROOT/train and ROOT/test (or val), each of class folders or flat; or from a ROOT that is one side.

    size: None takes the pictures as they are, all of one size and mode. A number resizes the shorter side to it (bicubic,
    antialiased) and takes the central square, in RGB. skip_corrupt: leave unreadable pictures out, with a warning, instead of
    refusing them. cache: folder for the decoded pixels, which are then memory-mapped instead of held in memory. drop_copies:
    leave training pictures that equal a test picture out, with a warning, instead of refusing them. options: how a file is
    read. What was left out or done to pictures is said, and stands in the set's notes.
    """
    root, options = Path(root), options or PictureOptions()
    train_folder, test_folder, notes = _sides(root)
    train = list_side(train_folder, classes)
    test = None if test_folder is None else list_side(test_folder, classes)
    if test_folder is not None and test is not None and train.class_names and test.class_names:
        _require_same_classes(test_folder, train, test)
    left_out = [*notes, *train.left_out, *(test.left_out if test else [])]
    say_left_out(left_out)
    given = {"size": size, "skip_corrupt": skip_corrupt, "cache": cache, "options": options}
    first = train.paths[0]
    pixels, kept, done = read_pictures(train.paths, first=first, **given)  # type: ignore[arg-type]
    labels = np.array(train.labels)[kept] if train.labels else None
    if test is None:
        tested, tested_labels = np.zeros((0, *pixels.shape[1:]), np.uint8), None
    else:
        tested, kept, more = read_pictures(test.paths, first=first, **given)  # type: ignore[arg-type]
        tested_labels = np.array(test.labels)[kept] if test.labels and train.class_names else None
        done = [*done, *more]
    for line in done:
        log(line)
    if drop_copies:
        pixels, labels = without_copies(pixels, labels, tested, name=str(root))
    return ImageSet(
        name=name or root.name,
        train=pixels,
        test=tested,
        train_labels=labels,
        test_labels=tested_labels,
        class_names=train.class_names,
        notes=(*left_out, *done),
    )


def _sides(root: Path) -> tuple[Path, Path | None, list[str]]:
    """Folders of training and test images, however their names are written, and what is left out beside them."""
    content = look_into(root)
    named = {path.name.lower(): path for path in content.folders}
    train = next((named[side] for side in TRAIN_NAMES if side in named), None)
    test = next((named[side] for side in TEST_NAMES if side in named), None)
    if train is None:
        if test is not None:
            raise FileError(f"{root}: has {test.name}/ but no train/")
        if sides := [name for name in named if LIKE_A_SIDE.fullmatch(name)]:
            raise InputError(f"{root}: '{named[sides[0]].name}' reads like a side, not like a class; name it train or test")
        return root, None, []
    used = (train, test)
    beside = sorted([*content.pictures, *(path for path in content.folders if path not in used), *content.others])
    shown = ", ".join(path.name for path in beside[:5]) + (", …" if len(beside) > 5 else "")
    return train, test, [f"left out of {root}: {shown}, beside {train.name}/"] if beside else []


def _require_same_classes(folder: Path, train: Listing, test: Listing) -> None:
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
    options: PictureOptions | None = None,
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels uint8 (image, height, width, 3), which of the paths they are (indices), and what was done to them.

    first: the picture whose size and mode all must share where `size` is None. A picture of another is refused by name.
    """
    if size is not None and size < 1:
        raise InputError(f"size: 1 pixel or more, {size} came")
    options = options or PictureOptions()
    reader = _Reader(paths, first, size, skip_corrupt, options)
    if cache is None:
        pixels = np.empty((len(paths), *reader.shape, 3), np.uint8)
        kept = reader.fill(pixels)
        return pixels[: len(kept)], kept, reader.lines()
    key = fingerprint(DECODED_BY, [_stamp(path) for path in paths], reader.shape, skip_corrupt, options)
    stored = Path(cache) / f"{key}.npy"
    if stored.is_file() and (found := _stored_pictures(stored)) is not None:
        return found
    with atomic_path(stored) as temporary:
        mapped = open_memmap(temporary, mode="w+", dtype=np.uint8, shape=(len(paths), *reader.shape, 3))
        set_aside(temporary, temporary.stat().st_size)
        kept = reader.fill(mapped)
        mapped.flush()
        facts = {"rows": kept, "notes": reader.lines(), "sha256": checksum(temporary)}
        write_json(stored.with_suffix(".json"), facts, sealed=True)
    return np.load(stored, mmap_mode="r", allow_pickle=False)[: len(kept)], kept, reader.lines()


def _stored_pictures(stored: Path) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
    """What an earlier call kept; None, with a warning, where it is damaged (or an older version kept no checksum)."""
    beside = stored.with_suffix(".json")
    try:
        facts = read_json(beside)
        checksums.require(stored, facts["sha256"], written_in=beside.name)
        with reading(stored, "an array"):
            pixels, kept = np.load(stored, mmap_mode="r", allow_pickle=False), np.array(facts["rows"], int)
        return pixels[: len(kept)], kept, facts["notes"]
    except (FileError, KeyError, TypeError, ValueError) as error:
        warn(f"decoded images are read again, what was kept of them is damaged: {error}")
        return None


def _stamp(path: Path) -> str:
    state = path.stat()
    return f"{path.resolve()} {state.st_size} {state.st_mtime_ns}"


class _Reader:
    """Reads pictures into an array: all of one size and mode, or resized."""

    def __init__(
        self, paths: Sequence[Path], first: Path, size: int | None, skip_corrupt: bool, options: PictureOptions
    ) -> None:
        self.paths, self.size, self.skip_corrupt, self.options = paths, size, skip_corrupt, options
        self.notes, self.shape = Notes(), (size or 0, size or 0)
        if size is None:
            self.reference, self.common = self._first([first, *paths])
            self.shape = self.common.pixels.shape[:2]

    def _first(self, paths: Sequence[Path]) -> tuple[Path, Picture]:
        """The first picture that can be read: what all others must be like."""
        for path in paths:
            if (picture := self._read(path)) is not None:
                return path, picture
        raise FileError(f"{paths[0].parent}: none of {len(self.paths)} images can be read")

    def _read(self, path: Path) -> Picture | None:
        """The picture; None where it cannot be read and is to be skipped."""
        try:
            return decode(path, self.options)
        except FileError as error:
            if self.skip_corrupt:
                return None
            raise FileError(f"{error}; skip_corrupt=true leaves such images out") from error

    def fill(self, pixels: np.ndarray) -> np.ndarray:
        """Decode into the array; the indices of the paths that could be read."""
        kept: list[int] = []
        skipped: list[Path] = []
        for row, path in enumerate(track(self.paths, "reading images", len(self.paths))):
            picture = self._read(path)
            if picture is None:
                skipped.append(path)
                self.notes.add(path, ("cannot be read and left out",))
                continue
            pixels[len(kept)] = self._fitted(path, picture)
            self.notes.add(path, picture.notes)
            kept.append(row)
        if skipped:
            warn(f"{len(skipped)} of {len(self.paths)} images cannot be read and are left out, e.g. {skipped[0]}")
        if not kept:
            raise FileError(f"{self.paths[0].parent}: none of {len(self.paths)} images can be read")
        return np.array(kept)

    def _fitted(self, path: Path, picture: Picture) -> np.ndarray:
        if self.size is not None:
            return central_square(picture.pixels, self.size)
        if picture.pixels.shape != self.common.pixels.shape or picture.mode != self.common.mode:
            kinds = [
                f"{p.pixels.shape[0]} x {p.pixels.shape[1]} px (height x width), mode {p.mode}" for p in (picture, self.common)
            ]
            raise InputError(
                f"{path}: {kinds[0]}, but {self.reference.name} is {kinds[1]}; images of one size and mode are needed, "
                "or give a size (size=96) to which all are resized, in RGB"
            )
        return picture.pixels

    def lines(self) -> list[str]:
        """What was done to the pictures, and how many were skipped."""
        place = os.path.commonpath([path.parent for path in self.paths])
        return [f"{place}: {line}" for line in self.notes.lines(len(self.paths))]


def central_square(picture: np.ndarray, size: int) -> np.ndarray:
    """Shorter side to `size` (Pillow bicubic, antialiased), then the central square."""
    from PIL import Image

    height, width = picture.shape[:2]
    scale = size / min(height, width)
    shape = (max(size, round(width * scale)), max(size, round(height * scale)))
    resized = np.asarray(Image.fromarray(picture).resize(shape, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - size) // 2, (resized.shape[1] - size) // 2
    return resized[top : top + size, left : left + size]
