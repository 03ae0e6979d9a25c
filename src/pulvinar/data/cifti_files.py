"""CIFTI files (.dscalar.nii, .dlabel.nii): cortical vertices of both hemispheres, through nibabel."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import reads, require_file
from pulvinar.data.brain_files import open_image

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
