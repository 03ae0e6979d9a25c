"""fsaverage5 as nilearn bundles it, and which vertices of fsaverage stand on it: a mesh to draw encoded vertices on.

fsaverage (163,842 vertices a hemisphere) refines fsaverage5 (10,242): its first 10,242 vertices are those of fsaverage5, so
that values are taken there and nothing is interpolated. The rest of the vertices is not drawn.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.ndimage

from pulvinar.data.geometry import Geometry
from pulvinar.report.panels import VIEWS

FSAVERAGE, FSAVERAGE5 = 163_842, 10_242
PIXELS_PER_MM, SAMPLES = 2.2, 8  # of a picture; points along an edge of a face
SIDES = ("lh", "rh")


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateVertices:
    """Of the encoded voxels: those that stand on fsaverage5 (place, side 0 left 1 right, vertex there), of how many."""

    place: np.ndarray
    side: np.ndarray
    vertex: np.ndarray
    n_voxels: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A hemisphere as one viewer sees it: the nearest vertex of every pixel (height, width), -1 beside it, and its shading.

    width, height: in mm.
    """

    vertex: np.ndarray
    shade: np.ndarray
    width: float
    height: float


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


@cache
def picture(side: int, view: str) -> Picture:
    """One hemisphere (0 left, 1 right) from one of `panels.VIEWS`: the foremost face of every pixel, and its nearest corner."""
    left, right, _ = inflated()
    geometry = (left, right)[side]
    points, faces = np.asarray(geometry.mesh_coordinates), np.asarray(geometry.mesh_faces)
    flat = points @ np.array(VIEWS[view], float).T
    normals = np.cross(points[faces[:, 1]] - points[faces[:, 0]], points[faces[:, 2]] - points[faces[:, 0]])
    outward = np.sign(np.sum(normals * (points[faces].mean(1) - points.mean(0))))
    normals *= 1 if outward.sum() > 0 else -1
    slope = normals @ np.array(VIEWS[view][2], float) / np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    front = np.flatnonzero(slope > 0)
    low, size = flat[:, :2].min(0), np.ptp(flat[:, :2], axis=0)
    steps = np.arange(SAMPLES + 1)
    weights = np.array([(a, b, SAMPLES - a - b) for a in steps for b in steps if a + b <= SAMPLES]) / SAMPLES
    where = np.einsum("sc,fcd->fsd", weights, flat[faces[front]])
    corner = faces[front][:, weights.argmax(1)]
    column = ((where[..., 0] - low[0]) * PIXELS_PER_MM).astype(int).reshape(-1)
    row = ((low[1] + size[1] - where[..., 1]) * PIXELS_PER_MM).astype(int).reshape(-1)
    shape = int(size[1] * PIXELS_PER_MM) + 1, int(size[0] * PIXELS_PER_MM) + 1
    nearest_last = np.argsort(where[..., 2].reshape(-1), kind="stable")
    vertex, shade = np.full(shape, -1), np.zeros(shape)
    place = row[nearest_last], column[nearest_last]
    vertex[place] = corner.reshape(-1)[nearest_last]
    shade[place] = np.repeat(slope[front], len(weights))[nearest_last]
    inside = scipy.ndimage.binary_closing(np.pad(vertex >= 0, 3), iterations=2)[3:-3, 3:-3]
    source = scipy.ndimage.distance_transform_edt(vertex < 0, return_distances=False, return_indices=True)
    vertex, shade = np.where(inside, vertex[tuple(source)], -1), shade[tuple(source)]
    return Picture(vertex=vertex, shade=0.62 + 0.38 * shade, width=float(size[0]), height=float(size[1]))


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
