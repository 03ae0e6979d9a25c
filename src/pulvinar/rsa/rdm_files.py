"""RDMs of any file that is read (.npz, .npy, rsatoolbox), and two files put into one order by the names of their images."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.core.storage import reads
from pulvinar.data.array_files import read_array, read_ids
from pulvinar.data.dissimilarities import (
    SubjectRDMs,
    from_condensed,
    images_of_pairs,
    refuse_similarities,
    refuse_turned_pairs,
    tidy_rdm,
)
from pulvinar.data.dissimilarity_files import read_npz_arrays
from pulvinar.data.image_ids import ImageNames
from pulvinar.rsa.rsatoolbox_files import PICKLES, SUFFIXES, StoredRDMs, pattern_names, read_rdm_file

Arrays = Mapping[str, np.ndarray]  # name -> (subject, [time,] image, image), or (image, image) for a model


@dataclass(frozen=True, kw_only=True, eq=False)
class RDMFile:
    """RDMs of subjects by target, and models, over one list of images; missing pairs are NaN.

    names: of the images in the order of the rows; None where the file holds none.
    """

    path: str
    targets: Arrays
    models: Arrays
    names: ImageNames | None

    @property
    def n_images(self) -> int:
        """How many images all RDMs of the file are over."""
        return next(iter([*self.targets.values(), *self.models.values()])).shape[-1]

    def take(self, rows: np.ndarray, names: ImageNames) -> "RDMFile":
        """The same over some images, in the order of these rows."""

        def taken(arrays: Arrays) -> Arrays:
            return {name: rdms[..., rows[:, None], rows] for name, rdms in arrays.items()}

        return replace(self, targets=taken(self.targets), models=taken(self.models), names=names)


@reads("RDMs")
def read_rdms(path: str) -> RDMFile:
    """RDMs of an .npz, .npy, or rsatoolbox file. Names stand in the file, or (.npy) in a .csv beside it (`read_ids`).

    Raises `FileError`, `InputError` or `DegenerateError` naming the file and what is wrong in it.
    """
    suffix, name = Path(path).suffix.lower(), Path(path).stem
    if suffix == ".npz":
        found = read_npz_arrays(path)
        targets = {key: target.rdms for key, target in found.targets.items()}
        return RDMFile(path=path, targets=targets, models=found.models, names=found.names)
    if suffix in (*SUFFIXES, *PICKLES):
        return _of_rsatoolbox(path)
    array = _square(np.asarray(read_array(path)), path)
    ids = read_ids(path, array.shape[-1])
    if ids is not None and len(ids) != array.shape[-1]:
        raise InputError(f"{path}: RDMs over {array.shape[-1]} images, but {len(ids)} names")
    names = None if ids is None else ImageNames(ids, path)
    if array.ndim == 2:
        model = _checked(array, f"{path}: '{name}'")
        return RDMFile(path=path, targets={}, models={name: model}, names=names)
    try:
        rdms = SubjectRDMs(name=name, rdms=array).rdms
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    refuse_similarities(rdms, f"{path}: '{name}'")
    return RDMFile(path=path, targets={name: rdms}, models={}, names=names)


def _square(array: np.ndarray, path: str) -> np.ndarray:
    """(image, image), (subject, image, image) or (subject, time, image, image), from condensed RDMs too."""
    n_images = images_of_pairs(array.shape[-1]) if array.ndim in (1, 2) and array.dtype.kind in "biuf" else None
    if n_images is not None and (array.ndim == 1 or array.shape[0] != array.shape[1]):
        refuse_turned_pairs(array.shape, path)
        log(f"{path}: {array.shape} is read as condensed RDMs of {n_images} images, pairs of the upper triangle in row order")
        return from_condensed(array)
    if array.ndim not in (2, 3, 4):
        raise InputError(
            f"{path}: (image, image), (subject, image, image) or (subject, time, ...) is needed, or condensed, n (n - 1) / 2 "
            f"pairs on the last axis; {array.shape} came"
        )
    return array


def _checked(rdm: np.ndarray, name: str, measure: str | None = None) -> np.ndarray:
    tidy = tidy_rdm(rdm, name)
    refuse_similarities(tidy, name, measure)
    return tidy


def _of_rsatoolbox(path: str) -> RDMFile:
    """Its RDMs are the subjects of one target, and each is a model."""
    stored, name = read_rdm_file(path), Path(path).stem
    labels = _labels_of(stored, name)
    rdms = [_checked(rdm, f"{path}: '{label}'", stored.measure) for label, rdm in zip(labels, stored.matrices(), strict=True)]
    try:
        names = pattern_names(stored)
        found = None if names is None else ImageNames(names, path)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    return RDMFile(path=path, targets={name: np.stack(rdms)}, models=dict(zip(labels, rdms, strict=True)), names=found)


def _labels_of(stored: StoredRDMs, stem: str) -> list[str]:
    """A name of its own for each RDM of an rsatoolbox file: its descriptor `name`, numbered where that is not enough."""
    count = len(stored.dissimilarities)
    labels = [str(label) for label in stored.rdm_descriptors.get("name", ())]
    if labels and len(set(labels)) == count:
        return labels
    return [f"{label}_{row}" for row, label in enumerate(labels or [stem] * count, start=1)]


def align(file: RDMFile, reference: RDMFile) -> tuple[RDMFile, str]:
    """The RDMs of a file in the order of another's images, and how they were joined: "by name", or why on trust.

    Raises `NotFoundError` or `InputError` with the first three names that only one of the two has, and where files without
    names are over different numbers of images.
    """
    if file.names is not None and reference.names is not None:
        rows = file.names.order_of(reference.names, what="images")
        reference.names.order_of(file.names, what="images")
        return file.take(rows, reference.names), "by name"
    if file.n_images != reference.n_images:
        raise InputError(f"{file.path}: RDMs over {file.n_images} images, but {reference.path} is over {reference.n_images}")
    unnamed = " and ".join(one.path for one in (file, reference) if one.names is None)
    return file, f"on trust, in the order of the rows: no names of the images in {unnamed}"
