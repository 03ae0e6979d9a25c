"""Where the voxels are: a volume grid with its affine, a surface mesh, or bare points; and smoothing over it.

The low-pass is a *normalised* Gaussian over the voxels that exist: out_i = sum_j k(d_ij) m_j / sum_j k(d_ij), with
k(d) = exp(-d^2 / 2 sigma^2) cut at 3 sigma. Plain zero padding would lower the mask at the edge of the brain before any
training (methods/troi). d is Euclidean in a volume and the length along mesh edges on a surface.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # its parts come when they are used

from pulvinar.core.errors import InputError
from pulvinar.core.notebook import counted
from pulvinar.core.progress import warn

CUT_AT_SIGMAS = 3.0
FORMS = ("", "gifti", "cifti", "mgh")
TEXTS = ("template", "form")
CORTEX = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_CORTEX_RIGHT")


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Positions of `n_voxels` measured places.

    coordinates: (voxel, 3) in mm (scanner or template space).
    A volume also has `index` (voxel, 3) into a grid of `shape`, and `affine` (4, 4), voxel index -> mm.
    A surface also has `vertex` (voxel,) into `mesh_coordinates` (vertex, 3), in mm, with `mesh_faces` (face, 3).
    Greyordinates (CIFTI with places below the cortex) have all of these: `vertex` is -1 and `index` not where a place is no
    vertex, and the other way round; `structure` (voxel,) is what CIFTI calls the part of the brain.
    template: the mesh that vertices count in ('fsaverage5', 'fs_LR_32k'), if it has a name. Of points: they stand for vertices
    of it, as it is not here (`data.hemispheres.vertex_points`).
    n_left: of a mesh of both hemispheres, how many vertices the left one has, which come first; None where nothing says it.
    form: 'gifti', 'cifti' or 'mgh': the files that the responses came in, and that maps of the voxels are written in.
    """

    coordinates: np.ndarray
    index: np.ndarray | None = None
    shape: tuple[int, int, int] | None = None
    affine: np.ndarray | None = None
    vertex: np.ndarray | None = None
    mesh_coordinates: np.ndarray | None = None
    mesh_faces: np.ndarray | None = None
    template: str = ""
    n_left: int | None = None
    structure: np.ndarray | None = None
    form: str = ""

    def __post_init__(self) -> None:
        points = self.coordinates
        if points.ndim != 2 or points.shape[1] != 3:
            raise InputError(f"coordinates: (voxel, 3) is needed, {points.shape} came")
        if not np.isfinite(points).all():
            raise InputError(f"coordinates: not finite at voxels {np.flatnonzero(~np.isfinite(points).all(1))[:5].tolist()}")
        if self.form not in FORMS:
            raise InputError(f"geometry.form: one of {', '.join(filter(None, FORMS))}, or nothing, not '{self.form}'")
        if self.n_left is not None and not 0 <= self.n_left <= len([] if (m := self.mesh_coordinates) is None else m):
            raise InputError(f"geometry.n_left: {self.n_left} vertices of the left hemisphere, but the mesh has fewer")
        for name in ("index", "vertex", "structure"):
            rows = getattr(self, name)
            if rows is not None and len(rows) != len(points):
                raise InputError(f"geometry.{name}: {len(rows)} rows for {len(points)} voxels")

    def __repr__(self) -> str:
        voxels = counted(self.n_voxels, "voxel")
        if self.kind == "greyordinates" and self.vertex is not None:
            return f"Geometry: {voxels}, {int((self.vertex >= 0).sum())} of them on a surface, the others below the cortex"
        if self.shape is not None:
            return f"Geometry: {voxels} in a volume of {' x '.join(map(str, self.shape))}"
        if self.mesh_coordinates is not None:
            of = f" ({self.template})" if self.template else ""
            return f"Geometry: {voxels} on a surface of {counted(len(self.mesh_coordinates), 'vertex', 'vertices')}{of}"
        return f"Geometry: {voxels} as points{f' that are vertices of {self.template}' if self.template else ''}"

    @classmethod
    def from_points(cls, coordinates: np.ndarray, *, template: str = "", form: str = "") -> "Geometry":
        """Bare points (voxel, d) in mm, d at most 3; missing axes are zero. template, form: see the class."""
        points = _numbers("coordinates", coordinates)
        if points.ndim != 2 or not 1 <= points.shape[1] <= 3:
            raise InputError(f"coordinates: (voxel, 3) is needed, {points.shape} came")
        return cls(coordinates=np.pad(points, ((0, 0), (0, 3 - points.shape[1]))), template=template, form=form)

    @classmethod
    def from_mask(cls, mask: np.ndarray, affine: np.ndarray) -> "Geometry":
        """The true voxels of a 3-D mask, in C order (as `array[mask]` lists them, and nilearn's masker too)."""
        mask = np.asarray(mask)
        if mask.ndim != 3:
            raise InputError(f"mask: a 3-D volume is needed, {mask.ndim} axes came")
        return cls.from_index(np.argwhere(mask), shape=mask.shape, affine=affine)

    @classmethod
    def from_index(cls, index: np.ndarray, *, shape: tuple[int, ...], affine: np.ndarray) -> "Geometry":
        """Voxels at integer grid positions (voxel, 3) of a volume, each at most once."""
        index, affine = _whole_numbers("index", index), _numbers("affine", affine)
        if len(shape) != 3 or min(shape) < 1 or math.prod(shape) > 2**62:
            raise InputError(f"shape: the three sizes of the grid are needed, {tuple(shape)} came")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
            raise InputError(f"affine: an invertible (4, 4) matrix is needed, {affine.tolist()} came")
        if index.ndim != 2 or index.shape[1] != 3:
            raise InputError(f"index: (voxel, 3) is needed, {index.shape} came")
        if len(index) and ((index < 0).any() or (index >= np.array(shape)).any()):
            raise InputError(f"index: leaves the grid {tuple(shape)}: from {index.min(0)} to {index.max(0)}")
        _refuse_repeated("index", np.ravel_multi_index(tuple(index.T), shape))
        points = index @ affine[:3, :3].T + affine[:3, 3]
        return cls(coordinates=points, index=index, shape=(shape[0], shape[1], shape[2]), affine=affine)

    @classmethod
    def from_surface(
        cls,
        vertex: np.ndarray,
        mesh_coordinates: np.ndarray,
        mesh_faces: np.ndarray,
        *,
        n_left: int | None = None,
        template: str = "",
        form: str = "",
    ) -> "Geometry":
        """Vertices (voxel,), each at most once, of a mesh of triangles (face, 3); `mesh_coordinates` (vertex, 3) in mm.

        n_left, template, form: see the class.
        """
        vertex, faces = _whole_numbers("vertex", vertex), _whole_numbers("mesh_faces", mesh_faces)
        points = _numbers("mesh_coordinates", mesh_coordinates)
        for name, array, wanted in (("mesh_coordinates", points, "(vertex, 3)"), ("mesh_faces", faces, "(face, 3)")):
            if array.ndim != 2 or array.shape[1] != 3:
                raise InputError(f"{name}: {wanted} is needed, {array.shape} came")
        if vertex.ndim != 1:
            raise InputError(f"vertex: (voxel,) is needed, {vertex.shape} came")
        if len(vertex) and not (vertex.min() >= 0 and vertex.max() < len(points)):
            raise InputError(f"vertex: {vertex.min()} to {vertex.max()}, but the mesh has {len(points)} vertices")
        if faces.size and not (faces.min() >= 0 and faces.max() < len(points)):
            raise InputError(f"mesh_faces: {faces.min()} to {faces.max()}, but the mesh has {len(points)} vertices")
        _refuse_repeated("vertex", vertex)
        named: dict[str, Any] = {"n_left": n_left, "template": template, "form": form}
        return cls(coordinates=points[vertex], vertex=vertex, mesh_coordinates=points, mesh_faces=faces, **named)

    @classmethod
    def from_greyordinates(cls, surface: "Geometry", volume: "Geometry", structure: np.ndarray) -> "Geometry":
        """Vertices of a surface and places of a volume together, as CIFTI lists them.

        structure: (voxel,) text, CIFTI's name of the part of the brain of every voxel; those of the cortex are the voxels of
        `surface` in order, all others those of `volume`.
        """
        structure = _texts(structure)
        on = np.isin(structure, CORTEX)
        if (surface.n_voxels, volume.n_voxels) != (int(on.sum()), int((~on).sum())):
            raise InputError(
                f"structure: {int(on.sum())} places of the cortex and {int((~on).sum())} others, but there are "
                f"{surface.n_voxels} vertices and {volume.n_voxels} places of a volume"
            )
        coordinates, vertex, index = np.zeros((len(on), 3)), np.full(len(on), -1), np.full((len(on), 3), -1)
        coordinates[on], coordinates[~on] = surface.coordinates, volume.coordinates
        vertex[on], index[~on] = surface.vertex, volume.index
        mesh: dict[str, Any] = {name: getattr(surface, name) for name in ("mesh_coordinates", "mesh_faces", "n_left", *TEXTS)}
        grid: dict[str, Any] = {"shape": volume.shape, "affine": volume.affine}
        return cls(coordinates=coordinates, vertex=vertex, index=index, structure=structure, **mesh, **grid)

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Any]) -> "Geometry":
        """From what `arrays` gave: a volume, a surface or points, by what is there; `InputError` where something is missing."""
        for key, others in (("index", {"shape", "affine"}), ("vertex", {"mesh_coordinates", "mesh_faces"})):
            if key in arrays and (missing := others - set(arrays)):
                raise InputError(f"geometry has '{key}' but not {sorted(missing)}")
        texts: dict[str, Any] = {name: str(arrays.get(name, "")) for name in TEXTS}
        if "structure" in arrays and {"index", "vertex"} <= set(arrays):
            names = _texts(arrays["structure"])
            on = np.isin(names, CORTEX)
            parts = {"index": ~on, "vertex": on}
            if any(np.shape(arrays[key])[:1] != names.shape for key in parts):
                raise InputError("geometry: index, vertex and structure need a row for every voxel")
            given = {key: value for key, value in arrays.items() if key not in (*parts, "structure")}
            volume, surface = (cls.from_arrays(given | {key: arrays[key][rows]}) for key, rows in parts.items())
            return cls.from_greyordinates(surface, volume, names)
        if "index" in arrays:
            shape = np.asarray(arrays["shape"])
            if shape.shape != (3,) or shape.dtype.kind not in "iu":
                raise InputError(f"geometry/shape must be three whole numbers, {shape.tolist()} came")
            return cls.from_index(arrays["index"], shape=tuple(shape.tolist()), affine=arrays["affine"])
        if "vertex" in arrays:
            n_left = np.asarray(arrays["n_left"]) if "n_left" in arrays else None
            if n_left is not None and (n_left.shape or n_left.dtype.kind not in "iu"):
                raise InputError(f"geometry/n_left must be a whole number, {n_left.tolist()} came")
            surface = cls.from_surface(arrays["vertex"], arrays["mesh_coordinates"], arrays["mesh_faces"])
            return replace(surface, n_left=None if n_left is None else int(n_left), **texts)
        if "coordinates" in arrays:
            return cls.from_points(arrays["coordinates"], **texts)
        raise InputError(f"geometry holds {sorted(arrays)}; index, vertex or coordinates is needed")

    def arrays(self) -> dict[str, np.ndarray]:
        """All that `from_arrays` needs, under the fields' names."""
        given = {name: value for name, value in vars(self).items() if value is not None and not (name in TEXTS and not value)}
        found = {name: np.asarray(value) for name, value in given.items()}
        return found | ({"structure": found["structure"].astype("S")} if self.structure is not None else {})

    @property
    def n_voxels(self) -> int:
        """How many places."""
        return len(self.coordinates)

    @property
    def kind(self) -> str:
        """'volume', 'surface', 'greyordinates' (a surface and a volume) or 'points'."""
        if self.index is not None and self.vertex is not None:
            return "greyordinates"
        return "volume" if self.index is not None else "surface" if self.vertex is not None else "points"

    @property
    def spacing(self) -> float:
        """Median distance to the nearest neighbour, in mm: the unit in which filter widths are given."""
        if self.n_voxels < 2:
            return 1.0
        distance, _ = scipy.spatial.cKDTree(self.coordinates).query(self.coordinates, k=2)
        nonzero = distance[:, 1][distance[:, 1] > 0]
        return float(np.median(nonzero)) if len(nonzero) else 1.0

    @property
    def is_stand_in(self) -> bool:
        """Whether coordinates only name vertices of a mesh that is not here: they are no millimetres."""
        return self.kind == "points" and bool(self.template)

    @property
    def side(self) -> np.ndarray | None:
        """'lh', 'rh', or '' for no vertex, of every voxel (voxel,); None where nothing but coordinates says it."""
        if self.is_stand_in:
            return np.where(self.coordinates[:, 0] < 0, "lh", "rh")
        if self.vertex is None or self.n_left is None:
            return None
        return np.where(self.vertex < 0, "", np.where(self.vertex < self.n_left, "lh", "rh"))

    @property
    def own_vertex(self) -> np.ndarray | None:
        """The number of every voxel (voxel,) in the mesh of its own hemisphere, -1 for no vertex; None where `side` is."""
        if self.is_stand_in:
            return self.coordinates[:, 1].astype(np.int64)
        if self.vertex is None or self.n_left is None:
            return None
        return np.where(self.vertex < self.n_left, self.vertex, self.vertex - self.n_left)

    @property
    def grid_place(self) -> tuple[np.ndarray, ...]:
        """Grid indices per axis, to index a volume with; `InputError` for a surface or bare points."""
        if self.index is None or self.kind != "volume":
            raise InputError(f"geometry: a {self.kind} has no grid")
        return tuple(self.index.T)

    def take(self, voxels: np.ndarray) -> "Geometry":
        """The geometry of some voxels (indices or a boolean mask); the grid or mesh stays."""
        own = {name: rows[voxels] for name in ("index", "vertex", "structure") if (rows := getattr(self, name)) is not None}
        return replace(self, coordinates=self.coordinates[voxels], **own)

    def low_pass(self, sigma: float) -> "scipy.sparse.csr_array":
        """The smoothing operator (voxel, voxel): normalised Gaussian of standard deviation `sigma`, in units of `spacing`.

        Rows sum to one; sigma 0 is the identity, and so is any where coordinates stand in for a mesh that is not here (said).
        Below the cortex, greyordinates are smoothed through the volume, on it along the mesh, and never across.
        """
        if not sigma >= 0:
            raise InputError(f"sigma: 0 or more is needed, {sigma} came")
        if sigma > 0 and self.is_stand_in:
            warn(
                f"the mesh of {self.template} is not here, so nothing is smoothed over its vertices (sigma {sigma:g})",
                once=True,
            )
        if sigma == 0 or self.is_stand_in:
            return scipy.sparse.eye_array(self.n_voxels, format="csr")
        width = sigma * self.spacing
        row, column, distance = self._pairs(CUT_AT_SIGMAS * width)
        every = np.arange(self.n_voxels)
        weight = np.concatenate([np.exp(-0.5 * (distance / width) ** 2), np.ones(self.n_voxels)])
        places = (np.concatenate([row, every]), np.concatenate([column, every]))
        kernel = scipy.sparse.coo_array((weight, places), shape=(self.n_voxels, self.n_voxels)).tocsr()
        return (scipy.sparse.diags_array(1.0 / kernel.sum(axis=1)) @ kernel).tocsr()

    def _pairs(self, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both directions of every pair of voxels within `radius` mm: row, column, distance."""
        if self.kind != "greyordinates" or self.vertex is None:
            return self._mesh_distances(radius) if self.kind == "surface" else self._distances(radius)
        on, below = np.flatnonzero(self.vertex >= 0), np.flatnonzero(self.vertex < 0)
        found = [(on, self.take(on)._mesh_distances(radius)), (below, self.take(below)._distances(radius))]
        rows, columns, distances = zip(*((own[row], own[column], far) for own, (row, column, far) in found), strict=True)
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(distances)

    def _distances(self, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both directions of every pair within `radius` mm, straight through the volume."""
        pairs = scipy.spatial.cKDTree(self.coordinates).query_pairs(radius * (1 + 1e-9), output_type="ndarray")
        distance = np.linalg.norm(self.coordinates[pairs[:, 0]] - self.coordinates[pairs[:, 1]], axis=1)
        row, column = np.concatenate([pairs, pairs[:, ::-1]]).T.astype(np.int64)
        return row, column, np.concatenate([distance, distance])

    def _mesh_distances(self, radius: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Both directions of every pair within `radius` mm along the edges of the mesh."""
        if self.vertex is None or self.mesh_coordinates is None or self.mesh_faces is None:
            raise InputError(f"geometry: a {self.kind} has no mesh to smooth over")
        graph = _edge_graph(self.mesh_coordinates, self.mesh_faces)
        place_of = np.full(graph.shape[0], -1)
        place_of[self.vertex] = np.arange(self.n_voxels)
        rows, columns, distances = [], [], []
        for start in range(0, self.n_voxels, 256):
            sources = self.vertex[start : start + 256]
            reach = scipy.sparse.csgraph.dijkstra(graph, indices=sources, limit=radius * (1 + 1e-9))
            source, vertex = np.nonzero(np.isfinite(reach) & (reach > 0) & (place_of >= 0))
            rows.append(source + start)
            columns.append(place_of[vertex])
            distances.append(reach[source, vertex])
        if not rows:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
        return np.concatenate(rows), np.concatenate(columns), np.concatenate(distances)

    def to_volume(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """Values (voxel,) in their grid (x, y, z), in their type if `fill` fits it; `fill` elsewhere. Only for a volume."""
        if self.index is None or self.shape is None or self.kind != "volume":
            raise InputError(f"geometry: a {self.kind} has no grid to put values into")
        values = np.asarray(values)
        if values.shape != (self.n_voxels,):
            raise InputError(f"values: one per voxel, ({self.n_voxels},), is needed, {values.shape} came")
        fits = values.dtype.kind == "f" or fill in (0, 1) or (values.dtype.kind in "iu" and float(fill).is_integer())
        volume = np.full(self.shape, fill, dtype=values.dtype if fits else np.result_type(values, np.float64))
        volume[tuple(self.index.T)] = values
        return volume


def _texts(given: Any) -> np.ndarray:
    names = np.ravel(given).tolist()
    return np.array([name.decode() if isinstance(name, bytes) else str(name) for name in names], dtype=np.str_)


def _numbers(name: str, given: np.ndarray) -> np.ndarray:
    array = np.asarray(given)
    if array.dtype.kind not in "biuf":
        raise InputError(f"{name}: numbers are needed, {array.dtype} came")
    return array.astype(float)


def _whole_numbers(name: str, given: np.ndarray) -> np.ndarray:
    array = _numbers(name, given)
    if not (array == np.floor(array)).all():  # False for NaN
        raise InputError(f"{name}: whole numbers are needed, {array[array != np.floor(array)][:3].tolist()} came")
    return array.astype(np.int64)


def _refuse_repeated(name: str, places: np.ndarray) -> None:
    values, count = np.unique(places, return_counts=True)
    if len(values) < len(places):
        first = np.flatnonzero(places == values[count > 1][0])[:2].tolist()
        raise InputError(f"{name}: {len(places) - len(values)} places are named twice, first by voxels {first}")


def _edge_graph(points: np.ndarray, faces: np.ndarray) -> "scipy.sparse.csr_array":
    """Mesh edges as a symmetric matrix (vertex, vertex) of lengths in mm."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    edges = np.unique(np.sort(edges, axis=1), axis=0).astype(np.int32)  # what scipy 1.14 walks on
    length = np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1)
    half = scipy.sparse.coo_array((length, (edges[:, 0], edges[:, 1])), shape=(len(points), len(points)))
    return (half + half.T).tocsr()
