"""Views of voxels that carry colours: slices of a volume, renderings of a surface, projections of bare points.

A panel paints any colouring of the voxels, so that the selection and the learned weights are shown from the same places.
Left is left (neurological convention).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_rgb

from pulvinar.data.geometry import Geometry
from pulvinar.data.named_meshes import template
from pulvinar.report.drawing import INK, MUTED, OUTLINE, UNMEASURED, bare

Paint = Callable[[Axes, np.ndarray, np.ndarray], None]
MARGIN = 0.6  # around the voxels of a plane, in voxels


@dataclass(frozen=True)
class Panel:
    """One view. paint(axis, colours (voxel, 3) in [0, 1], priority (voxel,)): the higher priority lies on top.

    width and height in mm: panels beside each other are drawn at one scale. sides: what lies at the left and at the right edge
    of the picture (L and R of the head, A front, P back). to_scale: lengths in it are those in the head (not if inflated).
    """

    title: str
    paint: Paint
    width: float
    height: float
    sides: tuple[str, str] = ("L", "R")
    to_scale: bool = True

    def mark(self, axis: Axes, *, scale_bar: bool = False) -> None:
        """Write the sides into the lower corners of a painted axis, and a bar of 10, 20 or 50 mm above the right one."""
        for text, x, place in zip(self.sides, (0.0, 1.0), ("left", "right"), strict=True):
            axis.text(x, 0, text, transform=axis.transAxes, ha=place, va="bottom", size=7, color=MUTED)
        if scale_bar and self.to_scale:
            length = next((size for size in (50, 20) if size <= self.width / 3), 10)
            x_limits, y_limits = axis.get_xlim(), axis.get_ylim()
            right, low, tall = x_limits[1], y_limits[0], y_limits[1] - y_limits[0]
            axis.plot([right - length, right], [low + 0.14 * tall] * 2, color=INK, linewidth=1.4, solid_capstyle="butt")
            axis.text(right, low + 0.16 * tall, f"{length} mm", ha="right", va="bottom", size=6.5, color=MUTED)
            axis.set(xlim=x_limits, ylim=y_limits)


def panels(geometry: Geometry, interest: np.ndarray, n_panels: int) -> list[Panel]:
    """The `n_panels` views (fewer where there are not so many) that show most of the voxels of `interest` (voxel, bool)."""
    makers = {"volume": _slices, "surface": _renderings, "points": _projections, "greyordinates": _cortex}
    if geometry.is_stand_in and (shown := on_fsaverage5(geometry)) is not None:
        surface, places = shown
        found = _renderings(surface, interest[places], n_panels)
        return [replace(panel, paint=partial(_paint_some, panel.paint, places)) for panel in found]
    return makers[geometry.kind](geometry, interest, n_panels)


def on_fsaverage5(geometry: Geometry) -> tuple[Geometry, np.ndarray] | None:
    """Voxels that stand for vertices of fsaverage or fsaverage6, on the mesh of fsaverage5, and which they are (indices).

    The first 10,242 vertices of a hemisphere are those of fsaverage5; of others there is None.
    """
    mesh, number = template("fsaverage5"), geometry.own_vertex
    if geometry.template not in ("fsaverage", "fsaverage6") or number is None or mesh.left is None or mesh.right is None:
        return None
    places = np.flatnonzero(number < mesh.n_vertices)
    if not len(places):
        return None
    joint = number[places] + np.where(geometry.coordinates[places, 0] > 0, mesh.n_vertices, 0)
    points = np.concatenate([mesh.left[0], mesh.right[0]])
    faces = np.concatenate([mesh.left[1], mesh.right[1] + mesh.n_vertices])
    return Geometry.from_surface(joint, points, faces), places


@dataclass(frozen=True)
class _Grid:
    """A volume turned so that its axes run left to right, back to front, bottom to top."""

    index: np.ndarray  # (voxel, 3)
    shape: tuple[int, int, int]
    zoom: np.ndarray  # (3,) mm
    height: np.ndarray  # (slice,) mm, at the centre of each axial slice


def _turned(geometry: Geometry) -> _Grid:
    from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation

    orientation = io_orientation(geometry.affine)
    place = apply_orientation(geometry.to_volume(np.arange(geometry.n_voxels), fill=-1), orientation)
    index = np.argwhere(place >= 0)[np.argsort(place[place >= 0])]
    affine = geometry.affine @ inv_ornt_aff(orientation, geometry.shape)
    centre = (np.array(place.shape) - 1) / 2
    heights = [(affine @ [centre[0], centre[1], z, 1])[2] for z in range(place.shape[2])]
    return _Grid(index, place.shape, np.linalg.norm(affine[:3, :3], axis=0), np.array(heights))


def chosen_slices(n_of_interest: np.ndarray, n_slices: int) -> list[int]:
    """The slices (in order) that show most voxels of interest, without showing the same blobs again and again.

    n_of_interest: voxels of interest per slice (slice,). Greedy from the fullest down; once a slice is taken, its two
    neighbours count a third, because they look much the same.

    >>> chosen_slices(np.array([3, 9, 8, 7, 0, 0, 2, 5, 6, 4]), 3)
    [1, 3, 8]
    """
    gain = n_of_interest.astype(float)
    chosen: list[int] = []
    while len(chosen) < n_slices and gain.any():
        place = int(gain.argmax())
        gain[max(place - 1, 0) : place + 2] /= 3
        gain[place] = 0
        chosen.append(place)
    return sorted(chosen) or [len(n_of_interest) // 2]


def _slices(geometry: Geometry, interest: np.ndarray, n_panels: int) -> list[Panel]:
    """Axial slices, and first a view from the side with a line where each of them lies."""
    grid = _turned(geometry)
    per_slice = np.bincount(grid.index[interest, 2], minlength=grid.shape[2])
    places = chosen_slices(per_slice, n_panels - 1)
    heights = [place + 0.5 for place in places]
    size = (np.ptp(grid.index, axis=0) + 1 + 2 * MARGIN) * grid.zoom
    side = Panel("from the right\n(projection)", partial(_paint_side, grid, heights), size[1], size[2], SIDES["from the right"])
    top = [Panel(_in_mm(grid.height[p]), partial(_paint_slice, grid, p), size[0], size[1]) for p in places]
    return [side, *top]


def _in_mm(height: float) -> str:
    return f"z = {height:.0f} mm".replace("-0 ", "0 ").replace("-", "−")


def _paint_slice(grid: _Grid, place: int, axis: Axes, colours: np.ndarray, priority: np.ndarray) -> None:
    here = grid.index[:, 2] == place
    _paint_plane(axis, grid, grid.index[here][:, :2], colours[here], priority[here], axes=(0, 1))


def _paint_side(grid: _Grid, heights: list[float], axis: Axes, colours: np.ndarray, priority: np.ndarray) -> None:
    _paint_plane(axis, grid, grid.index[:, 1:], colours, priority, axes=(1, 2))
    places = np.array(heights) * grid.zoom[2]
    axis.hlines(places, *axis.get_xlim(), colors=MUTED, linewidths=0.6, linestyles="dashed")


def _paint_plane(
    axis: Axes, grid: _Grid, index: np.ndarray, colours: np.ndarray, priority: np.ndarray, *, axes: tuple[int, int]
) -> None:
    """Voxels (voxel, 2) of a plane as a picture, in mm, with the outline of what was measured."""
    width, height = (grid.shape[a] for a in axes)
    across, up = (grid.zoom[a] for a in axes)
    picture, measured = np.ones((width, height, 3)), np.zeros((width, height), bool)
    order = np.argsort(priority, kind="stable")
    picture[tuple(index[order].T)] = colours[order]
    measured[tuple(index.T)] = True
    extent = (0, width * across, 0, height * up)
    axis.imshow(picture.transpose(1, 0, 2), origin="lower", extent=extent, interpolation="nearest")
    axis.add_collection(LineCollection(outline(measured) * [across, up], colors=OUTLINE, linewidths=0.7))
    low, high = grid.index.min(0), grid.index.max(0) + 1
    axis.set_xlim((low[axes[0]] - MARGIN) * across, (high[axes[0]] + MARGIN) * across)
    axis.set_ylim((low[axes[1]] - MARGIN) * up, (high[axes[1]] + MARGIN) * up)
    bare(axis)


def outline(mask: np.ndarray) -> np.ndarray:
    """Edges between true and false pixels of a plane (x, y), as segments (segment, 2, 2) in pixels.

    >>> len(outline(np.ones((2, 3), bool)))
    10
    """
    padded = np.pad(mask, 1)
    x, y = np.nonzero(padded[1:, 1:-1] != padded[:-1, 1:-1])
    upright = np.stack([np.stack([x, y], 1), np.stack([x, y + 1], 1)], axis=1)
    x, y = np.nonzero(padded[1:-1, 1:] != padded[1:-1, :-1])
    flat = np.stack([np.stack([x, y], 1), np.stack([x + 1, y], 1)], axis=1)
    return np.concatenate([upright, flat]).astype(float)


# right, up and toward the viewer, in mm axes (x to the right ear, y to the nose, z to the crown)
VIEWS = {
    "from behind": ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    "from below": ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
    "from the left": ((0, -1, 0), (0, 0, 1), (-1, 0, 0)),
    "from the right": ((0, 1, 0), (0, 0, 1), (1, 0, 0)),
    "from above": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "from the front": ((-1, 0, 0), (0, 0, 1), (0, 1, 0)),
}
SIDES = {  # what lies at the left and the right edge of the picture
    "from behind": ("L", "R"),
    "from below": ("R", "L"),
    "from the left": ("A", "P"),
    "from the right": ("P", "A"),
    "from above": ("L", "R"),
    "from the front": ("R", "L"),
}


@dataclass(frozen=True)
class _Rendering:
    """A mesh as one viewer sees it. flat: right, up, toward the viewer, in mm (vertex, 3); slope: cosine (face,)."""

    flat: np.ndarray
    faces: np.ndarray
    slope: np.ndarray
    vertex: np.ndarray  # (voxel,)

    def paint(self, axis: Axes, colours: np.ndarray, priority: np.ndarray) -> None:
        """The faces turned to the viewer, far ones first, shaded by their slope; a face takes the middle of its corners."""
        colour, rank = np.tile(to_rgb(UNMEASURED), (len(self.flat), 1)), np.full(len(self.flat), -np.inf)
        colour[self.vertex], rank[self.vertex] = colours, priority
        shown = np.flatnonzero(self.slope > 0)
        shown = shown[np.argsort(self.flat[self.faces[shown], 2].mean(1))]
        corners = self.faces[shown]
        middle = np.take_along_axis(corners, np.argsort(rank[corners], axis=1)[:, 1:2], axis=1)[:, 0]
        painted = colour[middle] * (0.62 + 0.38 * self.slope[shown])[:, None]
        outlines = list(self.flat[corners][:, :, :2])
        axis.add_collection(PolyCollection(outlines, facecolors=painted, edgecolors=painted, linewidths=0.25, rasterized=True))
        low, high = self.flat[:, :2].min(0), self.flat[:, :2].max(0)
        spare = np.where(high > low, 0.0, max(float((high - low).max()), 1.0) / 6)  # a mesh that is seen edge-on
        (left, bottom), (right, top) = low - spare, high + spare
        axis.set(xlim=(left, right), ylim=(bottom, top))
        bare(axis)


def _renderings(geometry: Geometry, interest: np.ndarray, n_panels: int) -> list[Panel]:
    """The views in which the faces of interest have the largest area turned toward the viewer."""
    points, faces, vertex = (np.asarray(a) for a in (geometry.mesh_coordinates, geometry.mesh_faces, geometry.vertex))
    normals = _outward(points, faces)
    concerned = np.zeros(len(points), bool)
    concerned[vertex[interest]] = True
    areas = normals[concerned[faces].sum(1) >= 2]
    seen = {name: np.clip(areas @ np.array(view[2], float), 0, None).sum() for name, view in VIEWS.items()}
    names = sorted(seen, key=lambda name: -seen[name])[: min(n_panels, 4)]
    length = np.maximum(np.linalg.norm(normals, axis=1), 1e-12)
    found = []
    for name in (name for name in VIEWS if name in names):
        flat = points @ np.array(VIEWS[name], float).T
        width, height, _ = np.maximum(np.ptp(flat, axis=0), 1e-9)
        rendering = _Rendering(flat, faces, normals @ np.array(VIEWS[name][2], float) / length, vertex)
        found.append(Panel(name, rendering.paint, width, height, SIDES[name]))
    return found


def _cortex(geometry: Geometry, interest: np.ndarray, n_panels: int) -> list[Panel]:
    """The vertices among greyordinates as a surface; what lies below the cortex is not drawn."""
    on = np.flatnonzero(np.asarray(geometry.vertex) >= 0)
    surface = Geometry.from_surface(
        np.asarray(geometry.vertex)[on], np.asarray(geometry.mesh_coordinates), np.asarray(geometry.mesh_faces)
    )
    return [
        replace(panel, paint=partial(_paint_some, panel.paint, on)) for panel in _renderings(surface, interest[on], n_panels)
    ]


def _paint_some(paint: Paint, places: np.ndarray, axis: Axes, colours: np.ndarray, priority: np.ndarray) -> None:
    paint(axis, colours[places], priority[places])


def _outward(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Face normals (face, 3) of length twice the area, pointing out of the mesh as a whole."""
    a, b, c = (points[faces[:, corner]] for corner in range(3))
    normals = np.cross(b - a, c - a)
    inward = np.sum(normals * ((a + b + c) / 3 - points.mean(0))) < 0
    return -normals if inward else normals


def _projections(geometry: Geometry, interest: np.ndarray, n_panels: int) -> list[Panel]:
    """Points seen from above, behind and the right; from above only, where they lie on a line or in that plane."""
    extent = np.ptp(geometry.coordinates, axis=0)
    found = []
    for name in ("from above", "from behind", "from the right"):
        directions = np.array(VIEWS[name], float)[:2]
        if name == "from above" or (np.abs(directions) @ extent > 0).all():
            flat = geometry.coordinates @ directions.T
            width, height = 2 * _frame(flat)[1]
            found.append(Panel(f"{name}\n(projection)", partial(_paint_points, flat), width, height, SIDES[name]))
    return found[:n_panels]


def _frame(flat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Middle and half extent (2,) of a picture of points, with a margin; no side less than a third of the other."""
    low, high = flat.min(0), flat.max(0)
    longest = max(float((high - low).max()), 1e-9)
    return (low + high) / 2, 0.54 * np.maximum(high - low, longest / 3)


def _paint_points(flat: np.ndarray, axis: Axes, colours: np.ndarray, priority: np.ndarray) -> None:
    order = np.argsort(priority, kind="stable")
    lifted = priority[order] > priority.min()
    size = np.where(lifted, 2.0, 1.0) * np.clip(8000 / len(flat), 2, 12)
    edge = np.where(lifted[:, None], colours[order], to_rgb(OUTLINE))
    x, y = flat[order].T
    axis.scatter(x, y, s=size, c=colours[order], edgecolors=edge.tolist(), linewidths=0.3, rasterized=len(flat) > 2000)
    bare(axis)
    middle, half = _frame(flat)
    axis.set(xlim=(middle[0] - half[0], middle[0] + half[0]), ylim=(middle[1] - half[1], middle[1] + half[1]))
