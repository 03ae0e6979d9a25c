"""Responses in CIFTI, and numbers of CIFTI files at the voxels of any geometry that tells left from right."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import log
from pulvinar.core.storage import reads
from pulvinar.data.brain_files import AFFINE_TOLERANCE
from pulvinar.data.cifti_files import CORTEX, Greyordinates, chosen_places, read_greyordinates
from pulvinar.data.geometry import Geometry
from pulvinar.data.surface_meshes import Hemispheres, n_vertices_of

__all__ = ["Greyordinates", "cifti_geometry", "of_every_voxel", "places_of", "read_cifti_responses"]

SIDE_OF = {CORTEX["lh"]: "left", CORTEX["rh"]: "right"}


@reads("CIFTI")
def read_cifti_responses(path: Path, array: str | None, parts: Sequence[str]) -> Greyordinates:
    """Responses (trial, place) of a dense series or of scalars, at the places of `parts` ('left', 'right', 'subcortex').

    A row is a trial. `InputError` for labels, and for parts that the file does not have.
    """
    if array is not None:
        raise InputError(f"{path}: every row of a CIFTI file of responses is a trial; '{array}' was asked for")
    found = read_greyordinates(path)
    if found.rows == "label":
        raise InputError(f"{path}: holds labels, not responses")
    places = chosen_places(found, parts)
    if len(places) < len(found.structure):
        log(f"{path}: {len(places):,} of {len(found.structure):,} greyordinates are taken ({', '.join(parts)})")
    return found.take(places)


def cifti_geometry(found: Greyordinates, meshes: Hemispheres | None) -> Geometry:
    """Where the places of a CIFTI file are: on the meshes, and below the cortex in the file's volume.

    meshes: None for places below the cortex alone.

    `InputError` where the file counts other vertices than the meshes, and where places below the cortex stand beside a mesh
    whose coordinates are not here.
    """
    on = found.vertex >= 0
    if meshes is None or not on.any():
        return _volume(found, on)
    for structure, side in SIDE_OF.items():
        count = found.n_vertices.get(structure)
        if count is not None and (found.structure == structure).any() and count != meshes.n_vertices(side):
            raise InputError(f"{found.path}: counts {count:,} vertices in the {side} hemisphere; {meshes.said(side)}")
    halves = {side: found.vertex[found.structure == structure] for structure, side in SIDE_OF.items()}
    surface = meshes.geometry(halves, form="cifti")
    first = {side: np.flatnonzero(found.structure[on] == structure) for structure, side in SIDE_OF.items()}
    order = np.argsort(np.concatenate([first["left"], first["right"]]), kind="stable")
    surface = surface.take(order)  # left and right as the file has them
    if on.all():
        return surface
    if surface.is_stand_in:
        raise InputError(
            f"{found.path}: with the subcortex, positions in mm are needed, and {meshes.name} is not on this machine; give the "
            "mesh as surface = { left = ..., right = ... }"
        )
    return Geometry.from_greyordinates(surface, _volume(found, on), found.structure)


def _volume(found: Greyordinates, on: np.ndarray) -> Geometry:
    if found.shape is None or found.affine is None:
        raise InputError(f"{found.path}: does not say where its places below the cortex lie")
    return Geometry.from_index(found.index[~on], shape=found.shape, affine=found.affine)


def places_of(geometry: Geometry) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CIFTI's name of the structure, vertex (-1 for none) and index in the volume (-1 for none) of every voxel.

    `InputError` for a geometry that does not tell left from right.
    """
    sides, vertex = geometry.side, geometry.own_vertex
    if sides is None or vertex is None:
        raise InputError(f"CIFTI does not go with a {geometry.kind} that does not say left from right; give an array (voxel,)")
    index = np.full((geometry.n_voxels, 3), -1) if geometry.index is None else geometry.index
    structure = geometry.structure
    if structure is None:
        structure = np.where(sides == "lh", CORTEX["lh"], CORTEX["rh"])
    return structure, np.where(sides == "", -1, vertex), index


def of_every_voxel(what: str, path: Path, name: str | None, geometry: Geometry, elsewhere: float | None) -> np.ndarray:
    """One number per voxel from a map of a CIFTI file, found by structure and vertex; True where a voxel has a label.

    name: which of several maps, or which label of a .dlabel.nii. elsewhere: of voxels that the file does not have; None refuses
    them.
    """
    found = read_greyordinates(path)
    row = _chosen_map(found, name, what)
    structures, vertex, index = places_of(geometry)
    for structure, side in SIDE_OF.items():
        count, own = found.n_vertices.get(structure), n_vertices_of(geometry, side)
        if count is not None and own and own != count:
            raise InputError(f"{path}: counts {count:,} vertices in the {side} hemisphere; the responses {own:,}")
    if (vertex < 0).any() and found.affine is not None and geometry.affine is not None:
        near = np.allclose(found.affine, geometry.affine, rtol=0, atol=AFFINE_TOLERANCE)
        if found.shape != geometry.shape or not near:
            raise InputError(f"{path}: {what}: its volume {found.shape} is another than that of the responses {geometry.shape}")
    places = {key: place for place, key in enumerate(found.keys())}
    own_keys = zip(structures.tolist(), vertex.tolist(), *index.T.tolist(), strict=True)
    place = np.array([places.get(key, -1) for key in own_keys], dtype=np.int64)
    values = np.where(place >= 0, row[place], 0.0 if elsewhere is None else elsewhere)
    if (place < 0).any():
        missing = int((place < 0).sum())
        if elsewhere is None or missing == len(place):
            raise InputError(f"{path}: {what}: {missing} of the {len(place)} voxels are not among its places")
        log(f"{path}: {what}: {missing} of the {len(place)} voxels are not among its places, and count as {elsewhere:g}")
    return values


def _chosen_map(found: Greyordinates, name: str | None, what: str) -> np.ndarray:
    if found.rows == "label" and name is not None:
        having = [row for row, table in enumerate(found.labels) if name in table.values()]
        if len(having) != 1:
            labels = sorted({label for table in found.labels for label in table.values()})
            several = "no label" if not having else f"{len(having)} maps with a label"
            raise NotFoundError(f"{found.path}: {several} '{name}'{suggest(name, labels)}")
        keys = [key for key, label in found.labels[having[0]].items() if label == name]
        return np.isin(found.values[having[0]], keys).astype(float)
    if name is not None:
        if found.names.count(name) != 1:
            raise NotFoundError(f"{found.path}: no map '{name}'{suggest(name, list(found.names))}")
        return found.values[found.names.index(name)].astype(float)
    if len(found.values) != 1:
        raise InputError(
            f"{found.path}: {what}: holds {len(found.values)} maps; name one of {', '.join(found.names[:5])}: "
            "{ file = ..., array = ... }"
        )
    return found.values[0].astype(float)
