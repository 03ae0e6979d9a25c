"""The meshes of a subject's hemispheres, from files or by a name, and the geometry of vertices on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import warn
from pulvinar.data.brain_files import read_surface
from pulvinar.data.geometry import Geometry
from pulvinar.data.hemispheres import vertex_points
from pulvinar.data.named_meshes import N_VERTICES, fitting, template, where_to_get
from pulvinar.data.surface_files import SIDES, require_side, stated_structures

__all__ = ["Hemispheres", "fitting", "hemispheres_of", "n_vertices_of"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Hemispheres:
    """Left and right mesh, one after the other: coordinates (vertex, 3) in mm, faces (face, 3), None where they are not here.

    counts: vertices of the left and the right one, 0 for one that is not there. name: such as 'fsaverage5'; empty for files.
    """

    name: str
    counts: tuple[int, int]
    points: np.ndarray | None
    faces: np.ndarray | None

    def n_vertices(self, side: str) -> int:
        """How many vertices the left or right hemisphere has."""
        return self.counts[SIDES.index(side)]

    def said(self, side: str) -> str:
        """How many that are, for messages."""
        return f"{self.name or 'the mesh of surface'} has {self.n_vertices(side):,} in the {side} hemisphere"

    def geometry(self, vertices: Mapping[str, np.ndarray], *, form: str) -> Geometry:
        """Vertices by side, numbered from 0 in each, left before right; stand-in points, said, where the mesh is not here."""
        empty = np.zeros(0, np.int64)
        left, right = (np.asarray(vertices.get(side, empty)) for side in SIDES)
        if self.points is None or self.faces is None:
            warn(
                f"{self.name}: its coordinates are not on this machine, so nothing is smoothed over it, and it is drawn on "
                f"fsaverage5 or not at all ({where_to_get(self.name)})",
                once=True,
            )
            return replace(vertex_points(left, right, template=self.name), form=form)
        joint = np.concatenate([left, right + self.counts[0]])
        return Geometry.from_surface(joint, self.points, self.faces, n_left=self.counts[0], template=self.name, form=form)

    def joint_geometry(self, vertices: np.ndarray | None) -> Geometry:
        """Vertices numbered over both hemispheres, the right ones counted on from the left; None: every vertex."""
        given = np.arange(sum(self.counts)) if vertices is None else np.asarray(vertices)
        if self.points is not None and self.faces is not None:
            return Geometry.from_surface(
                given, self.points, self.faces, n_left=self.counts[0], template=self.name, form="gifti"
            )
        if (
            given.ndim != 1
            or given.dtype.kind not in "iu"
            or given.min(initial=0) < 0
            or given.max(initial=0) >= sum(self.counts)
        ):
            raise InputError(f"vertices: whole numbers from 0 to {sum(self.counts) - 1}, those of {self.name}, are needed")
        on_left = given < self.counts[0]
        if (np.diff(on_left.astype(int)) > 0).any() or len(np.unique(given)) < len(given):
            raise InputError(
                f"vertices: those of the left hemisphere come first, each once ({self.name} is not on this machine)"
            )
        return self.geometry({"left": given[on_left], "right": given[~on_left] - self.counts[0]}, form="gifti")


def hemispheres_of(name: str, files: Sequence[Path], side: str) -> Hemispheres:
    """The meshes of a name, or of files: left and right, or one whose side is said.

    Raises `InputError` for a single file without a side, and for a file that says or is named as the other hemisphere.
    """
    if name:
        known = template(name)
        counts = (known.n_vertices, known.n_vertices)
        if known.left is None or known.right is None:
            return Hemispheres(name=known.name, counts=counts, points=None, faces=None)
        points, faces = (np.concatenate(pair) for pair in zip(known.left, _moved(known.right, counts[0]), strict=True))
        return Hemispheres(name=known.name, counts=counts, points=points, faces=faces)
    if len(files) == 1 and not side:
        raise InputError(f"{files[0]}: of which hemisphere? Write surface = {{ left = ... }} or surface = {{ right = ... }}")
    if len(files) > 2:
        raise InputError(f"surface: {len(files)} files came; the left and the right hemisphere are two")
    sides = [side] if side else list(SIDES)
    sizes = {"left": 0, "right": 0}
    for own, path in zip(sides, files, strict=True):
        require_side(path, own, stated_structures(path))
        sizes[own] = len(read_surface([path])[0])
    points, faces = read_surface(files)
    return Hemispheres(name="", counts=(sizes["left"], sizes["right"]), points=points, faces=faces)


def _moved(mesh: tuple[np.ndarray, np.ndarray], by: int) -> tuple[np.ndarray, np.ndarray]:
    return mesh[0], mesh[1] + by


def n_vertices_of(geometry: Geometry, side: str) -> int:
    """How many vertices a hemisphere of the mesh has on which these voxels lie."""
    if geometry.is_stand_in:
        return N_VERTICES[geometry.template]
    n_left, mesh = geometry.n_left, geometry.mesh_coordinates
    if n_left is None or mesh is None:
        raise InputError(f"geometry: a {geometry.kind} does not say how many vertices its {side} hemisphere has")
    return n_left if side == "left" else len(mesh) - n_left
