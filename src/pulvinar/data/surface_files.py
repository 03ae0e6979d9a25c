"""Numbers per vertex of one hemisphere: GIFTI (.func.gii, .shape.gii, .label.gii) and FreeSurfer's .mgh and .mgz.

Both hemispheres of a mesh with a name have as many vertices, so a file under the wrong side would fit. Where a file says its
side itself (AnatomicalStructurePrimary of GIFTI) or its name does (`lh.`, `hemi-R`, `.L.`), it is compared.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.brain_files import open_image
from pulvinar.data.gifti_sizes import require_plausible_gifti
from pulvinar.data.named_meshes import fitting

GIFTI_SUFFIXES, MGH_SUFFIXES = (".gii",), (".mgh", ".mgz")
VERTEX_SUFFIXES = (*GIFTI_SUFFIXES, *MGH_SUFFIXES)
SIDES = ("left", "right")
STRUCTURES = {"CortexLeft": "left", "CortexRight": "right"}
STRUCTURE_KEY = "AnatomicalStructurePrimary"
NAMES = {  # marks in a file's name, between other signs
    "left": re.compile(r"(?<![A-Za-z0-9])(lh|LH|hemi-L|hemi-lh|left|L(?=\.))(?![A-Za-z0-9])"),
    "right": re.compile(r"(?<![A-Za-z0-9])(rh|RH|hemi-R|hemi-rh|right|R(?=\.))(?![A-Za-z0-9])"),
}
MESH_INTENTS = ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")
LABEL, NODE_INDEX = "NIFTI_INTENT_LABEL", "NIFTI_INTENT_NODE_INDEX"


def is_vertex_file(path: Path) -> bool:
    """Whether this is the name of a file of numbers per vertex."""
    return path.name.lower().endswith(VERTEX_SUFFIXES)


def require_side(path: Path, side: str, stated: Sequence[str] = ()) -> None:
    """Raise `InputError` where a file, or its name, says that it is of the other hemisphere than `side` ('left', 'right').

    stated: what the file itself says, as GIFTI writes it.
    """
    said = {STRUCTURES[text] for text in stated if text in STRUCTURES}
    if said and said != {side}:
        raise InputError(f"{path}: given as {side}, but its {STRUCTURE_KEY} is {', '.join(dict.fromkeys(stated))}")
    named = {other for other, mark in NAMES.items() if mark.search(path.name)}
    if not said and len(named) == 1 and named != {side}:
        raise InputError(f"{path}: given as {side}, but its name says {named.pop()}")


@reads("numbers per vertex")
def read_vertex_series(path: Path, *, n_vertices: int, side: str) -> np.ndarray:
    """Responses (trial, vertex) of one hemisphere, in the type of the file.

    GIFTI: an array per trial in the order of the file, or one of two axes, of which one has `n_vertices`. .mgh: its frames.
    Raises `FileError` for a file that is missing or damaged, `InputError` for a mesh, labels, values of some vertices only,
    another number of vertices, an array (n, n), or a file of the other hemisphere.
    """
    path = require_file(path, "file of a surface")
    values = _frames_of_mgh(path) if path.name.lower().endswith(MGH_SUFFIXES) else _series_of_gifti(path, n_vertices, side)
    require_side(path, side)
    return _of_vertices(path, values, n_vertices)


@reads("numbers per vertex")
def read_vertex_map(path: Path, *, n_vertices: int, side: str, label: str | None = None) -> np.ndarray:
    """One number per vertex (vertex,) of one hemisphere; of a .label.gii with `label`, True where it has this label.

    `InputError` and `FileError` as `read_vertex_series`; also for several maps in one file. `NotFoundError`: an unknown label.
    """
    path = require_file(path, "file of a surface")
    require_side(path, side)
    if path.name.lower().endswith(MGH_SUFFIXES):
        values, names = _frames_of_mgh(path), None
    else:
        image = _gifti(path, side)
        values = np.stack([_flat(path, array) for array in image.darrays]) if image.darrays else np.zeros((0, 0))
        labelled = bool(image.darrays) and _intent(image.darrays[0]) == LABEL
        names = {one.label: one.key for one in image.labeltable.labels} if labelled else None
    if len(values) != 1:
        raise InputError(f"{path}: one map is needed, {len(values)} came")
    (found,) = _of_vertices(path, values, n_vertices)
    if label is None:
        return found
    if names is None:
        raise InputError(f"{path}: '{label}' was asked for, but this is no .label.gii with named labels")
    if label not in names:
        raise NotFoundError(f"{path}: no label '{label}'{suggest(label, list(names))}")
    return found == names[label]


def _of_vertices(path: Path, values: np.ndarray, n_vertices: int) -> np.ndarray:
    if values.dtype.kind not in "biuf":
        raise InputError(f"{path}: numbers are needed, {values.dtype} came")
    if 0 in values.shape:
        raise InputError(f"{path}: holds no values, shape {values.shape}")
    if values.shape[1] != n_vertices:
        count = values.shape[1]
        raise InputError(f"{path}: {count:,} vertices; the mesh of this hemisphere has {n_vertices:,}{fitting(count)}")
    return values


def _series_of_gifti(path: Path, n_vertices: int, side: str) -> np.ndarray:
    arrays = _gifti(path, side).darrays
    if any(_intent(array) == LABEL for array in arrays):
        raise InputError(f"{path}: holds labels, not responses")
    shapes = {np.shape(array.data) for array in arrays}
    if len(arrays) != 1 or np.ndim(arrays[0].data) != 2 or 1 in np.shape(arrays[0].data):
        if len(shapes) > 1:
            raise InputError(f"{path}: its {len(arrays)} arrays differ in shape ({sorted(shapes)[:3]}); a trial is an array")
        return np.stack([_flat(path, array) for array in arrays]) if arrays else np.zeros((0, n_vertices))
    values = np.asarray(arrays[0].data)
    fitting = [axis for axis in (0, 1) if values.shape[axis] == n_vertices]
    if len(fitting) == 2:
        raise InputError(f"{path}: an array {values.shape}: which axis is the trial? Save an array for every trial")
    return values.T if fitting == [0] else values


def _flat(path: Path, array: Any) -> np.ndarray:
    """Values (vertex,) of an array of one axis, or of two of which one has one entry."""
    data = np.asarray(array.data)
    if data.ndim > 2 or (data.ndim == 2 and 1 not in data.shape):
        raise InputError(f"{path}: an array of shape {data.shape}; one number per vertex is needed")
    return data.reshape(-1)


def _intent(array: Any) -> str:
    from nibabel.nifti1 import intent_codes

    return str(intent_codes.niistring[array.intent])


def stated_structures(path: Path) -> list[str]:
    """What a GIFTI file says of its hemisphere, 'CortexLeft' and the like, as often as it says it."""
    return _opened_gifti(path)[1]


def _opened_gifti(path: Path) -> tuple[Any, list[str]]:
    import nibabel

    with reading(path, "GIFTI"):
        require_plausible_gifti(path)
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.GiftiImage):
            raise FileError(f"{path}: not GIFTI")
        stated = [str(meta.get(STRUCTURE_KEY, "")) for meta in (image.meta, *(array.meta for array in image.darrays))]
    return image, [text for text in stated if text]


def _gifti(path: Path, side: str) -> Any:
    image, stated = _opened_gifti(path)
    intents = [_intent(array) for array in image.darrays]
    if any(intent in MESH_INTENTS for intent in intents):
        raise InputError(f"{path}: a mesh, without values; name it as surface")
    if NODE_INDEX in intents:
        raise InputError(f"{path}: holds values of some vertices only (a node index); save all vertices of the hemisphere")
    require_side(path, side, stated)
    return image


def _frames_of_mgh(path: Path) -> np.ndarray:
    """Values (frame, vertex) of a .mgh or .mgz file of a surface."""
    import nibabel

    with open_image(path, "FreeSurfer's MGH") as image:
        if not isinstance(image, nibabel.MGHImage):
            raise FileError(f"{path}: not FreeSurfer's MGH")
        shape, values = image.shape, np.asarray(image.dataobj)
    if len(shape) not in (3, 4):
        raise InputError(f"{path}: (vertex, 1, 1, trial) is needed, shape {shape} came")
    if shape[1:3] != (1, 1):
        raise InputError(
            f"{path}: (vertex, 1, 1, trial) is needed, shape {shape} came: a volume, or a surface that was folded "
            "(mri_surf2surf and mri_vol2surf do not fold it with --noreshape)"
        )
    return np.ascontiguousarray(values.reshape(shape[0], -1).T)  # (vertex, frame) -> (frame, vertex)
