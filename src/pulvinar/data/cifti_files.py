"""CIFTI files (.dtseries.nii, .dscalar.nii, .dlabel.nii): cortex, and on request what lies below it, through nibabel."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reads, require_file
from pulvinar.data.brain_files import open_image
from pulvinar.data.named_meshes import N_VERTICES, sizes

CIFTI_SUFFIXES = (".dtseries.nii", ".dscalar.nii", ".dlabel.nii")
CORTEX = {"lh": "CIFTI_STRUCTURE_CORTEX_LEFT", "rh": "CIFTI_STRUCTURE_CORTEX_RIGHT"}


@dataclass(frozen=True, kw_only=True, eq=False)
class CorticalMaps:
    """Maps on cortex: values (map, place), the hemisphere ('lh', 'rh') and vertex number of each place, and label names.

    labels: key -> name of each map of a .dlabel.nii; empty for others. columns: places among all greyordinates of the file.
    names: of the maps, where the file has them.
    """

    path: Path
    values: np.ndarray
    side: np.ndarray
    vertex: np.ndarray
    columns: np.ndarray
    labels: tuple[dict[int, str], ...] = ()
    names: tuple[str, ...] = ()

    def places_of(self, side: np.ndarray, vertex: np.ndarray) -> np.ndarray:
        """Where these vertices are here; -1 for those that are not."""
        place = {(half, int(number)): row for row, (half, number) in enumerate(zip(self.side, self.vertex, strict=True))}
        return np.array([place.get((half, int(number)), -1) for half, number in zip(side, vertex, strict=True)], dtype=np.int64)


@reads("CIFTI")
def read_cortex(path: str | os.PathLike[str]) -> CorticalMaps:
    """The cortical places of a CIFTI file with one map per row (subcortical ones are left out).

    Raises `FileError` if it is missing, truncated or not CIFTI, `InputError` if it has no cortical vertices.
    """
    import nibabel

    path = require_file(path, "CIFTI file")
    with open_image(path, "CIFTI") as image:
        if not isinstance(image, nibabel.Cifti2Image):
            raise FileError(f"{path}: not CIFTI; .dscalar.nii or .dlabel.nii is needed")
        rows, places = image.header.get_axis(0), image.header.get_axis(1)
        if not isinstance(places, nibabel.cifti2.BrainModelAxis):
            raise FileError(f"{path}: its columns are not places in the brain")
        values = np.asarray(image.dataobj)
        labels = tuple(rows.label) if isinstance(rows, nibabel.cifti2.LabelAxis) else ()
        map_names = tuple(map(str, rows.name)) if isinstance(rows, nibabel.cifti2.ScalarAxis) else ()
    structures = {side: np.flatnonzero(places.name == structure) for side, structure in CORTEX.items()}
    columns = np.concatenate(list(structures.values()))
    if not len(columns):
        raise InputError(f"{path}: has no cortical vertices")
    if values.ndim != 2 or values.shape[1] != len(places):
        raise FileError(f"{path}: {values.shape} values for {len(places)} places")
    return CorticalMaps(
        path=path,
        values=values[:, columns],
        side=np.concatenate([np.full(len(found), side) for side, found in structures.items()]),
        vertex=np.asarray(places.vertex)[columns],
        columns=columns,
        labels=tuple({int(key): str(entry[0]) for key, entry in table.items()} for table in labels),
        names=map_names,
    )


# --- responses --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, eq=False)
class Greyordinates:
    """Values (row, place) of a CIFTI file, and where its places are.

    rows: what a row is ('series', 'scalar' or 'label'); names: of the rows, where the file has them. structure: what
    CIFTI calls the part of the brain of every place; vertex: its number in the mesh of its hemisphere, -1 below the cortex;
    index (place, 3) in the volume of `shape` and `affine`, -1 on the cortex. n_vertices: structure -> vertices of its mesh.
    """

    path: Path
    values: np.ndarray
    rows: str
    names: tuple[str, ...]
    labels: tuple[dict[int, str], ...]
    structure: np.ndarray
    vertex: np.ndarray
    index: np.ndarray
    n_vertices: dict[str, int]
    shape: tuple[int, ...] | None
    affine: np.ndarray | None

    def take(self, places: np.ndarray) -> "Greyordinates":
        """Only these places (indices)."""
        own = {name: getattr(self, name)[places] for name in ("structure", "vertex", "index")}
        return replace(self, values=self.values[:, places], **own)

    def require_same(self, other: "Greyordinates") -> None:
        """Raise `InputError` where another file has other places, or the same ones in another order."""
        same = self.n_vertices == other.n_vertices and self.keys() == other.keys()
        if not same:
            raise InputError(
                f"{self.path} and {other.path} differ in their greyordinates ({len(self.structure):,} and "
                f"{len(other.structure):,}, or in another order); the runs of a subject need the same"
            )

    def mesh_name(self) -> str:
        """The mesh known by name that has as many vertices, where it is the only one; `InputError` asks for it otherwise."""
        counts = {self.n_vertices[name] for name in set(self.structure.tolist()) & set(CORTEX.values())}
        having = [name for name, count in N_VERTICES.items() if {count} == counts]
        if len(having) == 1:
            return having[0]
        raise InputError(
            f"{self.path}: counts {' and '.join(f'{count:,}' for count in sorted(counts))} vertices in a hemisphere; say which "
            f"mesh that is with surface: {' or '.join(having) if having else 'its files'}. Known are {sizes()}"
        )

    def keys(self) -> list[tuple[str, int, int, int, int]]:
        """What names every place: structure, vertex, index."""
        index = self.index.tolist()
        return [
            (name, number, *place)
            for name, number, place in zip(self.structure.tolist(), self.vertex.tolist(), index, strict=True)
        ]


PARTS = {"left": CORTEX["lh"], "right": CORTEX["rh"], "subcortex": ""}


def is_cifti(path: Path) -> bool:
    """Whether this is the name of a CIFTI file of series, scalars or labels."""
    return path.name.lower().endswith(CIFTI_SUFFIXES)


@reads("CIFTI")
def read_greyordinates(path: str | os.PathLike[str]) -> Greyordinates:
    """All places of a .dtseries.nii, .dscalar.nii or .dlabel.nii, a row for every time, map or label map.

    The brain may lie along either axis of the file. Slopes are applied. Raises `FileError` if it is missing, truncated or not
    CIFTI; `InputError` for parcels, connectivity and whatever else has not places of the brain along one axis alone.
    """
    import nibabel
    from nibabel.cifti2 import BrainModelAxis, LabelAxis, ScalarAxis, SeriesAxis

    path = require_file(path, "CIFTI file")
    kinds: dict[Any, str] = {SeriesAxis: "series", ScalarAxis: "scalar", LabelAxis: "label"}
    with open_image(path, "CIFTI") as image:
        if not isinstance(image, nibabel.Cifti2Image):
            raise FileError(f"{path}: not CIFTI; {' or '.join(CIFTI_SUFFIXES)} is needed")
        axes = [image.header.get_axis(number) for number in range(image.ndim)]
        brain = [number for number, axis in enumerate(axes) if isinstance(axis, BrainModelAxis)]
        if len(axes) != 2 or len(brain) != 1 or type(axes[1 - brain[0]]) not in kinds:
            raise InputError(
                f"{path}: its axes are {' and '.join(type(axis).__name__.removesuffix('Axis') for axis in axes)}; places "
                "of the brain (BrainModel) and a series, scalars or labels are needed, as in a .dtseries.nii or .dscalar.nii"
            )
        places, rows = axes[brain[0]], axes[1 - brain[0]]
        values = np.asarray(image.dataobj)
        if values.shape != tuple(map(len, axes)):
            raise FileError(f"{path}: {values.shape} values for axes of {tuple(map(len, axes))}")
        values = values.T if brain[0] == 0 else values
        on = np.asarray(places.surface_mask)
        index = np.where(on[:, None], -1, np.asarray(places.voxel)).astype(np.int64)
        named = list(map(str, rows.name)) if hasattr(rows, "name") else []
        return Greyordinates(
            path=path,
            values=values,
            rows=kinds[type(rows)],
            names=tuple(named),
            labels=tuple({int(key): str(entry[0]) for key, entry in table.items()} for table in rows.label)
            if isinstance(rows, LabelAxis)
            else (),
            structure=np.asarray(places.name, dtype=np.str_),
            vertex=np.where(on, np.asarray(places.vertex), -1).astype(np.int64),
            index=index,
            n_vertices={str(name): int(count) for name, count in places.nvertices.items()},
            shape=None if places.volume_shape is None else tuple(map(int, places.volume_shape)),
            affine=None if places.affine is None else np.asarray(places.affine, float),
        )


def chosen_places(found: Greyordinates, parts: Sequence[str]) -> np.ndarray:
    """Places (indices, in the order of the file) of 'left', 'right' and 'subcortex'; `InputError` where there are none."""
    masks = {
        part: found.structure == structure if structure else ~np.isin(found.structure, list(CORTEX.values()))
        for part, structure in PARTS.items()
    }
    empty = [part for part in parts if not masks[part].any()]
    if empty:
        raise InputError(f"{found.path}: has no places of {', '.join(empty)}; set greyordinates to what it has")
    chosen = np.any([masks[part] for part in parts], axis=0)
    odd = np.isin(found.structure, list(CORTEX.values())) != (found.vertex >= 0)
    if (odd & chosen).any():
        name = found.structure[odd & chosen][0]
        raise InputError(f"{found.path}: {name} has vertices where a volume is needed, or the other way round")
    return np.flatnonzero(chosen)
