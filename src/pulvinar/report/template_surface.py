"""fsaverage5 as nilearn bundles it, and which vertices of fsaverage stand on it: a mesh to draw encoded vertices on.

fsaverage (163,842 vertices a hemisphere) refines fsaverage5 (10,242): its first 10,242 vertices are those of fsaverage5, so
that values are taken there and nothing is interpolated. The rest of the vertices is not drawn.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from pulvinar.data.geometry import Geometry

FSAVERAGE, FSAVERAGE5 = 163_842, 10_242
SIDES = ("lh", "rh")


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateVertices:
    """Of the encoded voxels: those that stand on fsaverage5 (place, side 0 left 1 right, vertex there), of how many."""

    place: np.ndarray
    side: np.ndarray
    vertex: np.ndarray
    n_voxels: int


@cache
def inflated() -> tuple[Geometry, Geometry, np.ndarray]:
    """Left and right inflated hemisphere with every vertex, and the sulcal depth of both (2, vertex), no unit."""
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    mesh = load_fsaverage("fsaverage5")["inflated"]
    depth = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal").data
    every = np.arange(FSAVERAGE5)
    found = [
        Geometry.from_surface(every, mesh.parts[side].coordinates.astype(float), mesh.parts[side].faces)
        for side in ("left", "right")
    ]
    return found[0], found[1], np.stack([depth.parts["left"], depth.parts["right"]])


def on_template(geometry: Geometry) -> TemplateVertices | None:
    """Which voxels stand on fsaverage5; None where the data are not on fsaverage.

    They are where points were read as vertices of it (`template`), or a mesh of two times 163,842 vertices came along.
    """
    if geometry.template == "fsaverage":
        side = (geometry.coordinates[:, 0] > 0).astype(int)
        number = geometry.coordinates[:, 1].astype(int)
    elif geometry.kind == "surface" and len(np.asarray(geometry.mesh_coordinates)) == 2 * FSAVERAGE:
        side, number = np.divmod(np.asarray(geometry.vertex), FSAVERAGE)
    else:
        return None
    place = np.flatnonzero(number < FSAVERAGE5)
    return TemplateVertices(place=place, side=side[place], vertex=number[place], n_voxels=len(number))
