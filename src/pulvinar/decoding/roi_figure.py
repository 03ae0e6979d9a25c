"""The selected voxels beside the reference, and the learned weights, seen from the same places."""

from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from pulvinar.report.drawing import BOTH, BRAIN, REFERENCE_ONLY, SELECTED_ONLY, WEIGHTS
from pulvinar.report.panels import Panel, panels
from pulvinar.report.run_folder import Maps

NEITHER_CODE, REFERENCE_CODE, SELECTED_CODE, BOTH_CODE = range(4)
COLOURS = np.array([to_rgb(colour) for colour in (BRAIN, REFERENCE_ONLY, SELECTED_ONLY, BOTH)])
WORDS = {
    "planted": {BOTH_CODE: "found", REFERENCE_CODE: "missed", SELECTED_CODE: "false alarm"},
    "annotated": {BOTH_CODE: "both", REFERENCE_CODE: "annotated only", SELECTED_CODE: "selected only"},
}
N_PANELS = 7
BOTH_WAYS = np.array([-1, 1])
WIDTH, TALLEST, HEADING, EDGE, GAP = 10.0, 2.4, 0.7, 0.06, 0.1  # inches


def agreement(maps: Maps) -> np.ndarray:
    """Per voxel: 0 neither, 1 reference only, 2 selected only, 3 both. Without a reference, selected voxels have 3."""
    if maps.reference is None:
        return np.where(maps.selected, BOTH_CODE, NEITHER_CODE)
    return maps.reference * REFERENCE_CODE + maps.selected * SELECTED_CODE


def words(maps: Maps, reference: str) -> dict[int, str]:
    """Code -> word of the kinds of voxels; an annotated ROI is no truth, so nothing is called found or missed."""
    return {BOTH_CODE: "selected"} if maps.reference is None else WORDS.get(reference, WORDS["annotated"])


def colour(code: int) -> str:
    """Colour of a kind of voxels."""
    return to_hex(COLOURS[code])


def legend(maps: Maps, reference: str) -> list[Patch]:
    """One patch per kind of voxel, with its count."""
    codes = agreement(maps)
    kinds = words(maps, reference).items()
    patches = [Patch(color=COLOURS[code], label=f"{word} {np.sum(codes == code):,}") for code, word in kinds]
    rest = "not selected" if maps.reference is None else "neither"
    return [*patches, Patch(color=BRAIN, label=f"{rest} {np.sum(codes == NEITHER_CODE):,}")]


LEARNED, SCORED = "Learned weight, after the low-pass", "Score of every voxel"


def draw(maps: Maps, reference: str, *, weights: str = LEARNED) -> Figure:
    """Upper row: selected against the reference ('planted' or 'annotated'). Lower row: what was selected by.

    A volume is shown in the axial slices that hold most of the voxels concerned, a surface and bare points from the sides
    that show most of them.
    """
    shown = panels(maps.geometry, agreement(maps) > 0, N_PANELS if maps.geometry.kind == "volume" else 3)
    highest = max(panel.height for panel in shown)
    available = WIDTH - 2 * EDGE - GAP * (len(shown) - 1)
    inches_per_mm = min(available / sum(panel.width for panel in shown), TALLEST / highest)
    row = highest * inches_per_mm + HEADING
    figure = Figure(figsize=(WIDTH, 2 * row + 0.16))
    total = figure.get_figheight()
    for top, title, colours, priority in (
        (total, _title(maps, reference), *_agreement_colours(maps)),
        (row + 0.08, weights, *_weight_colours(maps)),
    ):
        figure.text(EDGE / WIDTH, (top - 0.1) / total, title, va="top", weight="bold", size=11)
        _row(figure, shown, colours, priority, bottom=top - row, inches_per_mm=inches_per_mm)
    place: dict[str, Any] = {"loc": "upper right", "bbox_to_anchor": (1 - EDGE / WIDTH, 1 - 0.06 / total), "borderaxespad": 0}
    figure.legend(handles=legend(maps, reference), ncols=4, handlelength=1, handleheight=1, **place)
    _colour_bar(figure, _largest(maps), top=(row - 0.02) / total)
    return figure


def _colour_bar(figure: Figure, largest: float, *, top: float) -> None:
    height = 0.1 / figure.get_figheight()
    bar = figure.add_axes((0.8, top - height, 0.185, height))
    figure.colorbar(ScalarMappable(Normalize(0, largest), WEIGHTS), cax=bar, orientation="horizontal")
    bar.tick_params(length=2, labelsize=8)
    bar.spines[:].set_visible(False)


def _title(maps: Maps, reference: str) -> str:
    return "Selected voxels" if maps.reference is None else f"Selected against {reference} voxels"


def _agreement_colours(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    codes = agreement(maps)
    return COLOURS[codes], codes


def _largest(maps: Maps) -> float:
    return max(float(np.nanmax(maps.mask_smoothed, initial=0)), 1e-9)


def _weight_colours(maps: Maps) -> tuple[np.ndarray, np.ndarray]:
    weight = np.nan_to_num(maps.mask_smoothed)
    return WEIGHTS(weight / _largest(maps))[:, :3], weight


def _row(
    figure: Figure, shown: list[Panel], colours: np.ndarray, priority: np.ndarray, *, bottom: float, inches_per_mm: float
) -> None:
    """Panels beside each other at one scale, centred between the edges; `bottom` in inches."""
    width, height = figure.get_size_inches()
    widths = [panel.width * inches_per_mm for panel in shown]
    space = min((width - 2 * EDGE - sum(widths)) / max(len(shown) - 1, 1), 0.9)
    left = (width - sum(widths) - space * (len(shown) - 1)) / 2
    tallest = max(panel.height for panel in shown)
    for number, (panel, wide) in enumerate(zip(shown, widths, strict=True)):
        lift = (tallest - panel.height) * inches_per_mm / 2
        box = (left / width, (bottom + lift) / height, wide / width, panel.height * inches_per_mm / height)
        axis = figure.add_axes(box)
        panel.paint(axis, colours, priority)
        panel.mark(axis, scale_bar=number == len(shown) - 1)
        axis.set_title(panel.title, size=8.5, loc="center", pad=3)
        left += wide + space


def draw_into(figure: Figure, maps: Maps, *, box: dict[str, float], size: float) -> None:
    """The agreement in up to six panels at one scale, in two rows that fill `box` (left, right, top, bottom)."""
    shown = panels(maps.geometry, agreement(maps) > 0, 6)
    half = np.array([max(panel.width for panel in shown), max(panel.height for panel in shown)]) / 2
    grid = figure.add_gridspec(2, -(-max(len(shown), 3) // 2), wspace=0.03, hspace=0.12, **box)
    for place, panel in enumerate(shown):
        axis = figure.add_subplot(grid[place])
        panel.paint(axis, *_agreement_colours(maps))
        middle = np.array([np.mean(axis.get_xlim()), np.mean(axis.get_ylim())])
        axis.set(xlim=middle[0] + half[0] * BOTH_WAYS, ylim=middle[1] + half[1] * BOTH_WAYS)
        panel.mark(axis, scale_bar=place == len(shown) - 1)
        axis.set_title(panel.title, size=size, loc="center", pad=3)
