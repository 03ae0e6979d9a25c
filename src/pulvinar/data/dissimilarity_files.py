"""RDMs of subjects from one .npz file: arrays by name, images and categories beside them if the file has them."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from pulvinar.data.dissimilarities import Dissimilarities, SubjectRDMs, check_rdm
from pulvinar.data.pixels import require_pixels
from pulvinar.data.stimuli import Stimuli
from pulvinar.errors import FileError, InputError
from pulvinar.storage import read_arrays, require_file

OFFICIAL_NAMES = {  # of the Algonauts 2019 challenge's MATLAB files -> target
    "EVC_RDMs": "evc",
    "IT_RDMs": "it",
    "MEG_RDMs_early": "meg_early",
    "MEG_RDMs_late": "meg_late",
}
TRACKS = {"fmri": ("evc", "it"), "meg": ("meg_early", "meg_late")}  # of the same challenge: scored together
FMRI_PREFIX = "fmri_"
MEASURED_PREFIXES = (FMRI_PREFIX, "meg_")  # a single matrix of such a name is that of one subject, not a model
MODEL_STACK, MODEL_NAMES = "model_rdms", "model_names"
IMAGES, IDS, CATEGORY, SUBJECTS, TIMES = "images", "ids", "category", "subjects", "times"
NOT_RDMS = (IMAGES, IDS, CATEGORY, SUBJECTS, TIMES, MODEL_STACK, MODEL_NAMES, "category_vectors", "category_labels")


def read_npz(path: str | os.PathLike[str]) -> Dissimilarities:
    """The RDMs of an .npz file, whose arrays are told apart by their shape:

    (subject, image, image) and (subject, time, image, image) are targets; a prefix `fmri_` is dropped from their names, and the
    official names EVC_RDMs, IT_RDMs, MEG_RDMs_early, MEG_RDMs_late become evc, it, meg_early, meg_late. A square matrix is a
    model, unless its name begins with fmri_ or meg_ (then: one subject). `model_rdms` (model, image, image) with `model_names`
    are models too. Beside them, each if it is there: `images` (image, height, width, 3) uint8, `ids` (else image_01, ...),
    `category` (labels of the images), `subjects` (names, for the targets with as many subjects), `times` (milliseconds).
    Other arrays are left alone.

    Raises `FileError` for a file that cannot be read, `InputError` naming file and array where an RDM is not one (not square,
    not symmetric, not finite, diagonal not zero, over another number of images) or there is none, `DegenerateError` where an
    RDM has no variance.
    """
    stimuli, targets, models = read_npz_parts(path)
    if not targets:
        raise InputError(f"{path}: no RDMs of subjects: no array is (subject, image, image); models: {', '.join(models)}")
    return Dissimilarities(name=Path(path).stem, stimuli=stimuli, targets=targets, models=models)


def read_npz_parts(path: str | os.PathLike[str]) -> tuple[Stimuli, dict[str, SubjectRDMs], dict[str, np.ndarray]]:
    """Stimuli, targets and models of an .npz file as `read_npz` tells them apart; there may be no target, or no model."""
    path = require_file(path)
    if path.suffix.lower() != ".npz":
        raise FileError(f"{path}: RDMs of subjects are read from .npz, not from '{path.suffix or path.name}'")
    arrays = read_arrays(path)
    try:
        targets = {target.name: target for target in _targets(arrays)}
        models = _models(arrays)
        sizes = {name: target.n_images for name, target in targets.items()} | {name: len(rdm) for name, rdm in models.items()}
        if not sizes:
            raise InputError(f"no RDMs: no array is (subject, image, image) or (image, image); there are {_shapes(arrays)}")
        if len(set(sizes.values())) > 1:
            raise InputError(f"the RDMs are over different numbers of images: {sizes}")
        return _stimuli(arrays, next(iter(sizes.values()))), targets, models
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def _is_numeric(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf"


def _is_measured(name: str, values: np.ndarray) -> bool:
    """Whether an array is meant as RDMs of subjects; one of a fitting name or dtype that is not square is refused later."""
    if name in NOT_RDMS or not _is_numeric(values):
        return False
    named = name in OFFICIAL_NAMES or name.startswith(MEASURED_PREFIXES)
    square = values.ndim in (3, 4) and values.shape[-1] == values.shape[-2]
    return square or (named and values.ndim >= 2) or (values.ndim == 3 and values.dtype.kind == "f")


def _targets(arrays: Mapping[str, np.ndarray]) -> list[SubjectRDMs]:
    stacks = {name: values for name, values in arrays.items() if _is_measured(name, values)}
    subjects = [str(name) for name in arrays.get(SUBJECTS, ())]
    lengths = {name: 1 if values.ndim == 2 else len(values) for name, values in stacks.items()}
    if subjects and len(subjects) not in lengths.values():
        raise InputError(f"'{SUBJECTS}' has {len(subjects)} names, but the RDMs are of {lengths} subjects")
    names = {name: OFFICIAL_NAMES.get(name, name.removeprefix(FMRI_PREFIX)) for name in stacks}
    if len(set(names.values())) != len(names):
        raise InputError(f"two arrays stand for the same RDMs: {names}")
    return [
        SubjectRDMs(
            name=names[name],
            rdms=values[None] if values.ndim == 2 else values,
            subjects=tuple(subjects) if len(subjects) == lengths[name] else (),
            times=arrays.get(TIMES) if values.ndim == 4 else None,
        )
        for name, values in stacks.items()
    ]


def _models(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    models: dict[str, np.ndarray] = {}
    if MODEL_STACK in arrays:
        stack = arrays[MODEL_STACK]
        names = [str(name) for name in arrays.get(MODEL_NAMES, [f"model_{row}" for row in range(1, len(stack) + 1)])]
        if stack.ndim != 3 or len(names) != len(stack) or len(set(names)) != len(names):
            raise InputError(
                f"'{MODEL_STACK}' must be (model, image, image) with one '{MODEL_NAMES}' each, {stack.shape} and {names} came"
            )
        models.update(zip(names, stack, strict=True))
    for name, values in arrays.items():
        square = values.ndim == 2 and values.shape[0] == values.shape[1] and _is_numeric(values)
        if square and name not in NOT_RDMS and not _is_measured(name, values):
            models[name] = values
    for name, rdm in models.items():
        check_rdm(rdm, f"model RDM '{name}'")
    return models


def _stimuli(arrays: Mapping[str, np.ndarray], n_images: int) -> Stimuli:
    images = arrays.get(IMAGES)
    read_image: Callable[[int], np.ndarray] | None = None
    if images is not None:
        try:
            require_pixels(images, f"'{IMAGES}'")
        except InputError as error:
            raise InputError(f"{error} (leave it out if the RDMs are all you need)") from error
        if len(images) != n_images:
            raise InputError(f"'{IMAGES}' has {len(images)} images, but the RDMs are over {n_images}")
        read_image = images.__getitem__
    ids = [str(name) for name in arrays[IDS]] if IDS in arrays else image_ids(n_images)
    labels = [str(label) for label in arrays[CATEGORY]] if CATEGORY in arrays else None
    return Stimuli(ids=ids, sources=ids, labels=labels, read_image=read_image)


def image_ids(n_images: int) -> list[str]:
    """image_01, image_02, ... with as many digits as the last one needs (two or more).

    >>> image_ids(2)
    ['image_01', 'image_02']
    """
    digits = max(2, len(str(n_images)))
    return [f"image_{number:0{digits}d}" for number in range(1, n_images + 1)]


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {values.shape}" for name, values in arrays.items()) or "no arrays"
