"""RDMs of subjects from one .npz file: arrays by name, images and categories beside them if the file has them."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import track, warn
from pulvinar.core.storage import read_arrays, reads, refuse_existing, require_file, to_jsonable, write_arrays
from pulvinar.data.array_files import ID_KEYS, TEXT, as_names, only_names
from pulvinar.data.dissimilarities import (
    Dissimilarities,
    SubjectRDMs,
    from_condensed,
    images_of_pairs,
    refuse_similarities,
    refuse_turned_pairs,
    tidy_rdm,
)
from pulvinar.data.image_folder import central_square
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.pixels import require_pixels
from pulvinar.data.stimuli import Stimuli

OFFICIAL_NAMES = {  # of the Algonauts 2019 challenge's MATLAB files -> target
    "EVC_RDMs": "evc",
    "IT_RDMs": "it",
    "MEG_RDMs_early": "meg_early",
    "MEG_RDMs_late": "meg_late",
}
FMRI_PREFIX = "fmri_"
LARGEST_PICTURES = 2**31  # bytes, in memory and in the file
MEASURED_PREFIXES = (FMRI_PREFIX, "meg_")  # a single matrix of such a name is that of one subject, not a model
MODEL_STACK, MODEL_NAMES = "model_rdms", "model_names"
IMAGES, CATEGORY, SUBJECTS, TIMES, MEASURE = "images", "category", "subjects", "times", "measure"
SOURCES, SIMULATED, MADE_FROM = "sources", "simulated", "made_from"
CONDITION_KEYS = ("names", "conditions", "conds", "stimuli")  # name the images too, beside those of any file (ID_KEYS)
OTHER_TEXTS = (CATEGORY, SUBJECTS, SOURCES, MODEL_NAMES, MEASURE, MADE_FROM, "category_labels")
NOT_RDMS = (
    *(IMAGES, CATEGORY, SUBJECTS, TIMES, MEASURE, MODEL_STACK, MODEL_NAMES, "category_vectors", "category_labels"),
    *(SOURCES, SIMULATED, MADE_FROM),
    *(*ID_KEYS, *CONDITION_KEYS),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RDMArrays:
    """What a file of RDMs holds, checked. targets: of subjects; models: (image, image). names: of the images, or None.

    left_out: arrays that look like RDMs by their shape and are none -> why.
    """

    path: Path
    targets: Mapping[str, SubjectRDMs]
    models: Mapping[str, np.ndarray]
    names: ImageNames | None
    arrays: Mapping[str, np.ndarray]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def n_images(self) -> int:
        """How many images all of them are over."""
        return next((target.n_images for target in self.targets.values()), None) or len(next(iter(self.models.values())))


@reads("an .npz of RDMs")
def read_npz(path: str | os.PathLike[str]) -> Dissimilarities:
    """The RDMs of an .npz file, whose arrays are told apart by their shape:

    (subject, image, image) and (subject, time, image, image) are targets; a prefix `fmri_` is dropped from their names, and the
    official names EVC_RDMs, IT_RDMs, MEG_RDMs_early, MEG_RDMs_late become evc, it, meg_early, meg_late. A square matrix is a
    model, unless its name begins with fmri_ or meg_ (then: one subject). `model_rdms` (model, image, image) with `model_names`
    are models too. All may be condensed: (subject, pair), (pair,), the upper triangle in row order. Beside them, each if it is
    there: `images` (image, height, width, 3) uint8, `ids` (else image_01, ...), `category` (labels of the images), `subjects`
    (names, for the targets with as many subjects), `times` (milliseconds), `measure` (a text, such as crossnobis), `sources`
    (the picture that each image was made from; folds keep one together), `simulated` (true: planted).
    Other arrays are left alone; where there are RDMs of subjects, so are square ones that are no RDM over these images (said).

    Raises `FileError` for a file that cannot be read, `InputError` naming file and array where an RDM is not one (not square,
    not symmetric, not finite, diagonal not zero, over another number of images) or there is none, `DegenerateError` where an
    RDM has no variance.
    """
    found = read_npz_arrays(path)
    if not found.targets:
        names = ", ".join(found.models)
        raise InputError(f"{path}: no RDMs of subjects: no array is (subject, image, image); models: {names}")
    try:
        stimuli = _stimuli(found)
        trust = {} if found.names else {"order of the RDMs": f"{found.path.name} holds no names of its images"}
        models = {name: rdm for name, rdm in found.models.items() if not np.isnan(rdm).any()}
        for name in set(found.models) - set(models):
            warn(f"{path}: model '{name}' has missing pairs and is left out")
        return Dissimilarities(
            name=Path(path).stem,
            stimuli=stimuli,
            targets=found.targets,
            models=models,
            on_trust=trust,
            simulated=bool(np.all(found.arrays.get(SIMULATED, False))),
        )
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


@reads("an .npz of RDMs")
def read_npz_arrays(path: str | os.PathLike[str]) -> RDMArrays:
    """Targets, models and names of an .npz file as `read_npz` tells them apart; there may be no target, or no model."""
    path = require_file(path)
    if path.suffix.lower() != ".npz":
        raise FileError(f"{path}: RDMs of subjects are read from .npz, not from '{path.suffix or path.name}'")
    arrays = read_arrays(path)
    try:
        squares = _squares(arrays)
        measured, none_of_subjects = _targets(squares, arrays)
        targets = {target.name: target for target in measured}
        n_images = _common_size({name: target.n_images for name, target in targets.items()})
        models, left_out = _models(squares, arrays, n_images)
        left_out |= none_of_subjects
        if not targets and not models:
            raise InputError(f"no RDMs: no array is (subject, image, image) or (image, image); there are {_shapes(arrays)}")
        n_images = _common_size(
            {name: target.n_images for name, target in targets.items()} | {name: len(rdm) for name, rdm in models.items()}
        )
        measure = str(arrays[MEASURE]) if MEASURE in arrays and arrays[MEASURE].ndim == 0 else None
        for name, target in targets.items():
            refuse_similarities(target.rdms, f"RDMs '{name}'", measure)
        for name, model in models.items():
            refuse_similarities(model, f"model RDM '{name}'", measure)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    for name, why in left_out.items():
        warn(f"{path}: '{name}' is left out, it is no RDM over the {n_images} images: {why}")
    names = names_of_images(path, arrays, n_images or 0)
    return RDMArrays(path=path, targets=targets, models=models, names=names, arrays=arrays, left_out=left_out)


def _common_size(sizes: Mapping[str, int]) -> int | None:
    if len(set(sizes.values())) > 1:
        raise InputError(f"the RDMs are over different numbers of images: {dict(sizes)}")
    return next(iter(sizes.values()), None)


def names_of_images(path: Path, arrays: Mapping[str, np.ndarray], n_images: int) -> ImageNames | None:
    """The names of the images that stand beside the RDMs of a file (`ids`, `conditions`, ...); None if there are none.

    Where nothing is called so, the only texts that are as many as the images and all different (`only_names`).
    """
    keys = [key for key in (*ID_KEYS, *CONDITION_KEYS) if key in arrays]
    if len(keys) > 1:
        raise InputError(f"{path}: names of the images stand in {' and '.join(keys)}; keep one of them")
    key = keys[0] if keys else _unusual_key(path, arrays, n_images)
    if key is None:
        return None
    found = as_names(arrays[key], f"{path}: '{key}'")
    if len(found) != n_images:
        raise InputError(f"{path}: '{key}' has {len(found)} names, but the RDMs are over {n_images} images")
    return ImageNames(found, str(path))


def _unusual_key(path: Path, arrays: Mapping[str, np.ndarray], n_images: int) -> str | None:
    texts = {name: values for name, values in arrays.items() if values.dtype.kind in TEXT and name not in OTHER_TEXTS}
    fitting = {name: as_names(values, f"{path}: '{name}'") for name, values in texts.items() if values.shape == (n_images,)}
    return only_names(fitting, str(path), ID_KEYS[1])


def _is_numeric(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf"


def _is_named(name: str) -> bool:
    return name in OFFICIAL_NAMES or name.startswith(MEASURED_PREFIXES)


def _squares(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that can be RDMs, condensed ones made square.

    An array of 1 or 2 axes is condensed where its name says that it is measured, or where its pairs are those of the images
    that the square arrays are over (of any images, if there are none).
    """
    numbers = {name: values for name, values in arrays.items() if name not in NOT_RDMS and _is_numeric(values)}
    square = {name: values for name, values in numbers.items() if values.ndim > 1 and values.shape[-1] == values.shape[-2]}
    sizes = {values.shape[-1] for values in square.values()}
    found = {}
    for name, values in numbers.items():
        n_images = images_of_pairs(values.shape[-1]) if 0 < values.ndim < 3 and name not in square else None
        condensed = n_images is not None and (_is_named(name) or n_images in sizes or not sizes)
        if condensed:
            refuse_turned_pairs(values.shape, f"'{name}'")
        found[name] = from_condensed(values) if condensed else values
    return found


def _is_measured(name: str, values: np.ndarray) -> bool:
    """Whether an array is meant as RDMs of subjects; one of a fitting name or dtype that is not square is refused later."""
    square = values.ndim in (3, 4) and values.shape[-1] == values.shape[-2]
    return square or (_is_named(name) and values.ndim >= 2) or (values.ndim == 3 and values.dtype.kind == "f")


def _targets(squares: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray]) -> tuple[list[SubjectRDMs], dict[str, str]]:
    """RDMs of subjects, and arrays that are none and whose name does not claim it, beside others that are -> why."""
    stacks = {name: values for name, values in squares.items() if _is_measured(name, values)}
    subjects = [str(name) for name in arrays.get(SUBJECTS, ())]
    lengths = {name: 1 if values.ndim == 2 else len(values) for name, values in stacks.items()}
    if subjects and len(subjects) not in lengths.values():
        raise InputError(f"'{SUBJECTS}' has {len(subjects)} names, but the RDMs are of {lengths} subjects")
    names = {name: OFFICIAL_NAMES.get(name, name.removeprefix(FMRI_PREFIX)) for name in stacks}
    if len(set(names.values())) != len(names):
        raise InputError(f"two arrays stand for the same RDMs: {names}")
    found: list[SubjectRDMs] = []
    wrong: dict[str, InputError] = {}
    for name, values in stacks.items():
        try:
            found.append(
                SubjectRDMs(
                    name=names[name],
                    rdms=values[None] if values.ndim == 2 else values,
                    subjects=tuple(subjects) if len(subjects) == lengths[name] else (),
                    times=arrays.get(TIMES) if values.ndim == 4 else None,
                )
            )
        except InputError as error:
            wrong[name] = error
    claimed = [error for name, error in wrong.items() if _is_named(name)]
    if wrong and (claimed or not found):
        raise claimed[0] if claimed else next(iter(wrong.values()))
    return found, {name: str(error) for name, error in wrong.items()}


def _models(
    squares: Mapping[str, np.ndarray], arrays: Mapping[str, np.ndarray], n_images: int | None
) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Model RDMs, and what is square, stands beside RDMs of subjects over `n_images` images, and is none -> why."""
    models: dict[str, np.ndarray] = {}
    left_out: dict[str, str] = {}
    if MODEL_STACK in arrays:
        stack = arrays[MODEL_STACK]
        names = [str(name) for name in arrays.get(MODEL_NAMES, [f"model_{row}" for row in range(1, len(stack) + 1)])]
        if stack.ndim not in (2, 3) or len(names) != len(stack) or len(set(names)) != len(names):
            raise InputError(
                f"'{MODEL_STACK}' must be (model, image, image) with one '{MODEL_NAMES}' each, {stack.shape} and {names} came"
            )
        stack = from_condensed(stack) if stack.ndim == 2 else stack
        models.update({name: tidy_rdm(rdm, f"model RDM '{name}'") for name, rdm in zip(names, stack, strict=True)})
    for name, values in squares.items():
        square = values.ndim == 2 and values.shape[0] == values.shape[1]
        if not square or _is_measured(name, values):
            continue
        try:
            if n_images is not None and len(values) != n_images:
                raise InputError(f"model RDM '{name}': it is {values.shape}")
            models[name] = tidy_rdm(values, f"model RDM '{name}'")
        except InputError as error:
            if n_images is None:
                raise
            left_out[name] = str(error)
    return models, left_out


def _stimuli(found: RDMArrays) -> Stimuli:
    arrays, n_images = found.arrays, found.n_images
    images = arrays.get(IMAGES)
    images = None if images is not None and images.dtype.kind in TEXT else images  # names, not pixels
    read_image: Callable[[int], np.ndarray] | None = None
    if images is not None:
        try:
            require_pixels(images, f"'{IMAGES}'")
        except InputError as error:
            raise InputError(f"{error} (leave it out if the RDMs are all you need)") from error
        if len(images) != n_images:
            raise InputError(f"'{IMAGES}' has {len(images)} images, but the RDMs are over {n_images}")
        read_image = images.__getitem__
    ids = list(found.names.ids) if found.names is not None else image_ids(n_images)
    labels = [str(label) for label in arrays[CATEGORY]] if CATEGORY in arrays else None
    sources = as_names(arrays[SOURCES], f"'{SOURCES}'") if SOURCES in arrays else ids
    return Stimuli(ids=ids, sources=sources, labels=labels, read_image=read_image)


def write_npz(
    path: str | os.PathLike[str],
    targets: Mapping[str, SubjectRDMs],
    stimuli: Stimuli,
    *,
    measure: str,
    made_from: Mapping[str, Any],
    image_size: int | None = None,
    simulated: bool = False,
) -> Path:
    """Write RDMs of subjects as `read_npz` reads them, with names, sources, labels and pictures of `stimuli`, their images.

    image_size: side to which pictures are brought (the central square); None: as they are, and without them where they have
    several sizes (said). made_from goes along as JSON text. Raises `FileError` where the file exists or ends otherwise.
    """
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise FileError(f"{path}: RDMs of subjects are written as .npz, not as '{path.suffix or path.name}'")
    refuse_existing(path)
    first = next(iter(targets.values()))
    arrays: dict[str, np.ndarray] = {f"{FMRI_PREFIX}{name}": target.rdms for name, target in targets.items()}
    arrays |= {ID_KEYS[0]: np.array(stimuli.ids), SOURCES: np.array(stimuli.sources), SUBJECTS: np.array(first.subjects)}
    arrays |= {MEASURE: np.array(measure), MADE_FROM: np.array(json.dumps(to_jsonable(dict(made_from))))}
    if simulated:
        arrays[SIMULATED] = np.array(True)
    if stimuli.labels is not None:
        arrays[CATEGORY] = np.array(stimuli.labels)
    pictures = _pictures(stimuli, image_size)
    write_arrays(path, **arrays, **({} if pictures is None else {IMAGES: pictures}))
    return path


def _pictures(stimuli: Stimuli, size: int | None) -> np.ndarray | None:
    """uint8 (image, height, width, 3); None where there are none of one size."""
    if stimuli.read_image is None:
        return None
    found: list[np.ndarray] = []
    for row in track(range(len(stimuli)), "pictures", len(stimuli)):
        pixels = stimuli.image(row)
        found.append(pixels if size is None else central_square(pixels, size))
        if found[-1].shape != found[0].shape:
            warn(
                f"pictures of {found[0].shape[:2]} and {found[-1].shape[:2]} pixels are left out; an image size makes them one"
            )
            return None
        if len(found) * found[0].nbytes > LARGEST_PICTURES:
            raise InputError(
                f"pictures of {found[0].shape[:2]} pixels take more than 2 GB; give a smaller image size, such as 224"
            )
    return np.stack(found)


def image_ids(n_images: int) -> list[str]:
    """image_01, image_02, ... with as many digits as the last one needs (two or more).

    >>> image_ids(2)
    ['image_01', 'image_02']
    """
    digits = max(2, len(str(n_images)))
    return [f"image_{number:0{digits}d}" for number in range(1, n_images + 1)]


def _shapes(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {values.shape}" for name, values in arrays.items()) or "no arrays"
