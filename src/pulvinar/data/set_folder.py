"""What the folders of data sets have in common: embeddings beside the pictures, and the truth of a planted world."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log
from pulvinar.core.storage import read_arrays
from pulvinar.data.array_files import read_ids
from pulvinar.data.feature_tables import SUFFIXES, read_rows
from pulvinar.data.image_files import ImageFiles, list_images
from pulvinar.data.planted_layout import SOURCES, TRUTH
from pulvinar.data.source_options import TrialOptions
from pulvinar.data.stimuli import ReadImage, Stimuli
from pulvinar.data.tables import sources_of


def find_one(root: Path, name: str, *, below: Sequence[str] = ("", "*")) -> Path:
    """The one file of this name in the folder, or one level below it; `FileError` if there is none, or more than one."""
    found = sorted({path for place in below for path in root.glob(f"{place}/{name}" if place else name)})
    if len(found) != 1:
        several = " and ".join(str(path.relative_to(root)) for path in found[:3])
        raise FileError(f"{root / name}: {f'{several} are there; keep one of them' if found else 'no such file'}")
    return found[0]


def choose_subjects(root: Path, present: Sequence[str], wanted: Sequence[str], *, what: str) -> list[str]:
    """The subjects asked for, or all that are there; `FileError` says which files are looked for where there are none."""
    if not present:
        raise FileError(f"{root}: no {what} there")
    missing = [name for name in wanted if name not in present]
    if missing:
        raise FileError(f"{root}: no {what} of {', '.join(missing)}; there are those of {', '.join(present)}")
    return list(dict.fromkeys(wanted)) or list(present)


def choose_target(names: Sequence[str], wanted: str | None) -> str:
    """The new subject: the one asked for, or the first."""
    if wanted is not None and wanted not in names:
        raise InputError(f"target: {wanted} is not among the subjects that are read ({', '.join(names)})")
    return wanted or names[0]


def title(root: Path, name: str, subjects: Sequence[str]) -> str:
    """What an experiment is called: the data set and its subjects, or that it is a planted world in its layout."""
    what = f"Planted world in the layout of {name}" if (root / TRUTH).is_dir() else name
    return f"{what} ({', '.join(subjects)})"


def with_annotated(masks: Mapping[str, np.ndarray], regions: Sequence[str] | None = None) -> dict[str, np.ndarray]:
    """ROIs that hold a voxel, and 'annotated', which methods take where nothing else is said: all of these regions together."""
    kept = {region: mask for region, mask in masks.items() if mask.any()}
    inside = [mask for region, mask in kept.items() if regions is None or region in regions]
    return kept | ({"annotated": np.any(inside, axis=0)} if inside else {})


def pictures_in(folder: Path, ids: Sequence[str], *, origin: Path) -> ImageFiles | None:
    """The pictures of these ids, in a folder or in folders inside it; None, said, where the folder is not there.

    origin: what asks for them, as errors name it.
    """
    if not folder.is_dir():
        log(f"{folder} is not there; going on without images")
        return None
    names, paths = list_images(folder)
    rows = names.rows(ids, origin=str(origin), what="pictures")
    return ImageFiles([paths[row] for row in rows])


def stimuli_of(
    root: Path,
    ids: Sequence[str],
    options: TrialOptions,
    *,
    read_image: ReadImage | None,
    labels: Sequence[str] | None = None,
) -> Stimuli:
    """Stimuli whose pictures differ by the data set's own list, with the embeddings in `features/` or those that are named.

    Embeddings are joined by the names in their files (`array_files.read_ids`); a file without names is refused.
    """
    folder = root / "features"
    places = options.features or tuple(str(path) for path in sorted(folder.glob("*")) if path.suffix in SUFFIXES)
    if not places:
        log(f"no embedding of the images: methods that decode need one; put it into {folder}, or give features=FILE")
    return Stimuli(
        ids=ids,
        sources=sources_of(root / SOURCES, ids),
        labels=labels,
        features=dict(_named_rows(place, ids) for place in places),
        read_image=read_image,
        pixel_keys=ids,
    )


def _named_rows(place: str, ids: Sequence[str]) -> tuple[str, np.ndarray]:
    """Name and rows of an embedding, found by the names in its file; `InputError` where there are none."""
    path, colon, _ = place.rpartition(":")
    file = path if colon and Path(path).is_file() else place
    if read_ids(file) is None:
        raise InputError(
            f"{file}: says not which row is which picture; store the names beside the numbers (.npz with an array 'id', or a "
            ".csv of the same name with a column 'id')"
        )
    return read_rows(place, np.zeros(len(ids), np.int64), n_rows=len(ids), ids=ids)


def truth_of(root: Path, subject: str, pick: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    """The answers of a planted world for a subject, `pick` taking those of its voxels; empty where the data were measured."""
    path = root / TRUTH / f"{subject}.npz"
    return {name: pick(values) for name, values in read_arrays(path).items()} if path.is_file() else {}
