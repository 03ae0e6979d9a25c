"""The folder that the Algonauts 2019 challenge distributes, read and written: RDMs of subjects, and the images beside them.

    DIR/Training_Data/92_Image_Set/     92images.mat   92images/*.jpg    target_fmri.mat   target_meg.mat
    DIR/Training_Data/118_Image_Set/    118images.mat  118images/*.jpg   ...
    DIR/Test_Data/                      78images.mat   78images/*.jpg    ...

A set is any folder with target_fmri or target_meg as .mat (either MATLAB version) or .npz. Beside them may lie features.npz
(stage -> (image, place, channel)), and in the folder or one above it the truth.json of a planted world.
"""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import warn
from pulvinar.core.storage import read_arrays, read_json, reads, write_arrays, write_bytes
from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs, require_all_pairs
from pulvinar.data.dissimilarity_files import FMRI_PREFIX, OFFICIAL_NAMES, image_ids, names_of_images
from pulvinar.data.image_files import ImageFiles, list_images
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.matlab_files import read_matlab, read_matlab_structs, write_matlab_7_3
from pulvinar.data.stimuli import ReadImage, Stimuli

SET_FOLDERS = {78: "Test_Data", 92: "Training_Data/92_Image_Set", 118: "Training_Data/118_Image_Set"}
TARGET_FILES = ("target_fmri", "target_meg")
TARGET_SUFFIXES = (".mat", ".npz")
TARGETS = tuple(OFFICIAL_NAMES.values())
STRUCT, NAMES, PIXELS = "visual_stimuli", "names", "pixels"
FEATURES, TRUTH = "features.npz", "truth.json"
JPEG_QUALITY = 95
WINDOW_MS = {"meg_early": (70.0, 90.0), "meg_late": (140.0, 160.0)}  # after image onset (the challenge's own readme)


def set_folder(n_images: int) -> str:
    """Where the set of so many images lies below the top folder."""
    return SET_FOLDERS.get(n_images, f"Training_Data/{n_images}_Image_Set")


def find_sets(top: Path) -> list[Path]:
    """Every folder with targets: `top` itself, and folders up to two levels below it."""
    folders = [top, *sorted(path for pattern in ("*", "*/*") for path in top.glob(pattern) if path.is_dir())]
    return [folder for folder in folders if target_files(folder)]


def target_files(folder: Path) -> list[Path]:
    """target_fmri and target_meg of a folder; `InputError` if one is there in two forms."""
    found = []
    for stem in TARGET_FILES:
        files = [folder / (stem + suffix) for suffix in TARGET_SUFFIXES if (folder / (stem + suffix)).is_file()]
        if len(files) > 1:
            raise InputError(f"{folder}: {' and '.join(file.name for file in files)} are both there; keep one of them")
        found += files
    return found


# --- reading ----------------------------------------------------------------------------------------------------------


@reads("a set of images and RDMs")
def read_set(folder: Path, files: Sequence[Path]) -> Dissimilarities:
    """One set: the targets of these files, over the images in the folder (without pixels, if no image lies there).

    Raises `FileError`, `InputError`, `DegenerateError` or `NotFoundError` naming the file.
    """
    targets: dict[str, SubjectRDMs] = {}
    names: dict[str, ImageNames | None] = {}
    for file in files:
        found, own = read_named_targets(file)
        for name, target in found.items():
            if name in targets:
                raise InputError(f"{file}: {name} stands in another file of {folder} too")
            targets[name], names[name] = target, own
    counts = {name: target.n_images for name, target in targets.items()}
    n_images = next(iter(counts.values()))
    if len(set(counts.values())) != 1:
        raise InputError(f"{folder}: RDMs over different numbers of images: {counts}")
    named = next((own for own in names.values() if own is not None), None)
    stimuli = _read_stimuli(folder, n_images, named)
    listed = ImageNames(list(stimuli.ids), str(folder))
    unnamed = [name for name, own in names.items() if own is None]
    on_trust = {f"order of {name}": f"no names of the images in the file of {name}" for name in unnamed}
    if on_trust:
        warn(f"{folder}: RDMs of {', '.join(unnamed)} hold no names; their rows are "
             f"taken in the order of the images, on trust")  # fmt: skip
    return Dissimilarities(
        name=f"algonauts2019, {n_images} images",
        stimuli=stimuli,
        targets={name: _in_order(target, names[name], listed) for name, target in targets.items()},
        on_trust=on_trust,
        simulated=find_truth(folder) is not None,
    )


def _in_order(target: SubjectRDMs, names: ImageNames | None, listed: ImageNames) -> SubjectRDMs:
    if names is None:
        return target
    rows = names.order_of(listed, what="images")
    return replace(target, rdms=target.rdms[..., rows[:, None], rows])


@reads("RDMs")
def read_targets(path: Path) -> dict[str, SubjectRDMs]:
    """evc, it, meg_early, meg_late, as far as the file has them (under the challenge's names or these)."""
    return read_named_targets(path)[0]


@reads("RDMs")
def read_named_targets(path: Path) -> tuple[dict[str, SubjectRDMs], ImageNames | None]:
    """`read_targets`, and the names of the images in the file's order, where it is an .npz that holds them."""
    arrays = read_matlab(path) if path.suffix.lower() == ".mat" else read_arrays(path)
    known = {name: _target_name(name) for name in arrays if _target_name(name) in TARGETS}
    if not known:
        raise InputError(
            f"{path}: no RDMs of the challenge; it holds {', '.join(arrays) or 'no numeric array'}, "
            f"{', '.join(OFFICIAL_NAMES)} are looked for"
        )
    if len(set(known.values())) != len(known):
        raise InputError(f"{path}: two arrays stand for the same target: {known}")
    targets = {target: _subject_rdms(path, target, name, arrays[name]) for name, target in known.items()}
    return targets, names_of_images(path, arrays, next(iter(targets.values())).n_images)


def _target_name(name: str) -> str:
    return OFFICIAL_NAMES.get(name, name.removeprefix(FMRI_PREFIX))


def _subject_rdms(path: Path, target: str, name: str, values: np.ndarray) -> SubjectRDMs:
    _refuse_reversed_axes(path, name, values)
    n_times = values.shape[1] if values.ndim == 4 else 0
    times = np.linspace(*WINDOW_MS[target], n_times) if target in WINDOW_MS and n_times > 1 else None
    if n_times and target not in WINDOW_MS:
        raise InputError(f"{path}: '{name}' has a time axis {values.shape}; fMRI RDMs are (subject, image, image)")
    try:
        rdms = SubjectRDMs(name=target, rdms=values, times=times)
        require_all_pairs(rdms)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    return rdms


def _refuse_reversed_axes(path: Path, name: str, values: np.ndarray) -> None:
    """(image, image, subject): MATLAB 5 and 7.3 mixed up by whoever wrote the file."""
    square_first = values.ndim in (3, 4) and values.shape[0] == values.shape[1] and values.shape[-1] != values.shape[-2]
    if square_first:
        raise InputError(
            f"{path}: '{name}' is {values.shape} in MATLAB's order, (subject, image, image) or (subject, time, image, image) "
            "is needed. MATLAB 7.3 files (HDF5) store axes reversed, version 5 files do not; whoever wrote this one mixed them "
            "up. Turn the axes with array.T and save them as .npz"
        )


def _read_stimuli(folder: Path, n_images: int, named: ImageNames | None) -> Stimuli:
    ids, read_image = _read_images(folder, n_images, named)
    features: dict[str, np.ndarray] = {}
    if (folder / FEATURES).is_file():
        features = {name: np.asarray(values, np.float32) for name, values in read_arrays(folder / FEATURES).items()}
    truth = find_truth(folder)
    sources = truth["sets"].get(str(n_images), {}).get("sources", ids) if truth else ids
    try:
        return Stimuli(ids=ids, sources=sources, features=features, read_image=read_image)
    except InputError as error:
        raise InputError(f"{folder}: {error}") from error


def _read_images(folder: Path, n_images: int, named: ImageNames | None) -> tuple[list[str], ReadImage | None]:
    """Ids in the order of the RDMs, and the images by row. named: names in a file of RDMs, where one holds them."""
    present = {path.name: path for path in folder.iterdir() if re.fullmatch(r"\d+images(\.mat)?", path.name)}
    table, pictures = present.get(f"{n_images}images.mat"), present.get(f"{n_images}images")
    if present and table is None and pictures is None:
        raise InputError(f"{folder}: RDMs over {n_images} images, but the images are {', '.join(sorted(present))}")
    if table is None and pictures is None:
        return image_ids(n_images) if named is None else list(named.ids), None
    if table is None:
        return _folder_images(pictures, n_images, named)
    listed = ImageNames(_matlab_names(table, n_images), str(table))
    if pictures is None:
        return list(listed.ids), _MatlabImages(table)
    files, paths = list_images(pictures)
    rows = files.order_of(listed, what="images")
    return list(listed.ids), ImageFiles([paths[row] for row in rows])


def _folder_images(pictures: Path | None, n_images: int, named: ImageNames | None) -> tuple[list[str], ReadImage]:
    """The images of a folder by the names in the RDMs' file; without these by the number that ends each name, or sorted."""
    files, paths = list_images(pictures or "")
    if len(files) != n_images:
        raise InputError(f"{pictures}: {len(files)} images for RDMs over {n_images}")
    rows = _numbered_order(files) if named is None else files.order_of(named, what="images").tolist()
    return [files.ids[row] for row in rows], ImageFiles([paths[row] for row in rows])


def _numbered_order(files: ImageNames) -> list[int]:
    """Rows by the last number in each name; refused where that is no order and the sorted names may be another one."""
    found = [re.findall(r"\d+", name) for name in files.ids]
    numbers = [int(parts[-1]) if parts else -1 for parts in found]
    by_name = sorted(range(len(files)), key=lambda row: files.ids[row])
    by_number = sorted(range(len(files)), key=lambda row: (numbers[row], files.ids[row]))
    if len(set(numbers)) < len(numbers) and by_number != by_name:
        raise InputError(
            f"{files.origin}: which image is in which row of the RDMs? Sorted by name and by number they have "
            "different orders. Store the names beside the RDMs (.npz with 'ids')"
        )
    return by_number


def _matlab_names(table: Path, n_images: int) -> list[str]:
    ids = [str(element[NAMES]) for element in read_matlab_structs(table, STRUCT, [NAMES])]
    if len(ids) != n_images:
        raise InputError(f"{table}: {len(ids)} images for RDMs over {n_images}")
    return ids


class _MatlabImages:
    """Images of a MATLAB struct array, read when the first is asked for: row -> uint8 (height, width, 3)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.pixels: list[np.ndarray] = []

    def __call__(self, row: int) -> np.ndarray:
        """The picture of this row."""
        if not self.pixels:
            self.pixels = [element[PIXELS] for element in read_matlab_structs(self.path, STRUCT, [PIXELS])]
        image = self.pixels[row]
        if image.dtype != np.uint8 or image.ndim not in (2, 3):
            raise FileError(f"{self.path}: image {row + 1} is {image.dtype} {image.shape}; uint8 (height, width, 3) is needed")
        return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def find_truth(folder: Path) -> dict[str, Any] | None:
    """The truth.json of a planted world, from the folder or one of the two above it; None if there is none."""
    for place in [folder, *folder.resolve().parents[:2]]:
        if (place / TRUTH).is_file():
            truth = read_json(place / TRUTH)
            return truth if isinstance(truth, dict) and "sets" in truth and "scales" in truth else None
    return None


# --- writing ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class SetContent:
    """What one set holds. images: uint8 (image, height, width, 3) as stored in the .jpg; targets: name -> (subject, ...)."""

    ids: Sequence[str]
    jpegs: Sequence[bytes]
    images: np.ndarray
    targets: Mapping[str, np.ndarray]
    features: Mapping[str, np.ndarray]


def as_jpeg(image: np.ndarray) -> tuple[bytes, np.ndarray]:
    """An image as the bytes of a .jpg, and the pixels that come back from them."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    with Image.open(io.BytesIO(buffer.getvalue())) as stored:
        return buffer.getvalue(), np.asarray(stored.convert("RGB"))


def write_set(folder: Path, content: SetContent) -> None:
    """Write one set as it is distributed: MATLAB 7.3 targets and images, and a folder of .jpg."""
    n_images = len(content.ids)
    for name, jpeg in zip(content.ids, content.jpegs, strict=True):
        write_bytes(folder / f"{n_images}images" / f"{name}.jpg", jpeg)
    stimuli = [{NAMES: f"{name}.jpg", PIXELS: image} for name, image in zip(content.ids, content.images, strict=True)]
    write_matlab_7_3(folder / f"{n_images}images.mat", {}, {STRUCT: stimuli})
    for file, is_meg in zip(TARGET_FILES, (False, True), strict=True):
        official = {
            key: content.targets[target]
            for key, target in OFFICIAL_NAMES.items()
            if target in content.targets and (target in WINDOW_MS) == is_meg
        }
        if official:
            write_matlab_7_3(folder / f"{file}.mat", official)
    if content.features:
        write_arrays(folder / FEATURES, **{name: np.asarray(values, np.float32) for name, values in content.features.items()})
