"""Colours, type and saving that all figures share. Figures are made without pyplot: no global state, no window."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from pulvinar.core.storage import atomic_path

INK, MUTED, RULE = "#1f2428", "#6a7078", "#dcdad5"
BRAIN, UNMEASURED, OUTLINE = "#ecebe6", "#c9c6bd", "#b3b0a7"
# Blue pair and vermilion (Okabe and Ito 2008): apart for every kind of colour vision, and three greys in print.
BOTH, REFERENCE_ONLY, SELECTED_ONLY = "#0b4f8a", "#7fbde8", "#d55e00"
# Ten groups, found by search: the smallest CIEDE2000 difference of any two is 17 for normal vision and in a simulation of
# missing red, green or blue cones (Machado et al. 2009), 20 among the first six, and all stand out from white.
GROUPS = (BOTH, SELECTED_ONLY, "#00bef9", "#53110e", "#8b9a84", "#ffc21d", "#271b2d", "#875654", "#86778d", "#4a77e4")
WEIGHTS = LinearSegmentedColormap.from_list("weights", [BRAIN, REFERENCE_ONLY, BOTH, "#052847"])
DOTS_PER_INCH = 170
SIMULATED = "SIMULATED: planted responses, not measured ones"
STRIP = 0.28  # inches above a figure of simulated data, which says so


def style() -> dict[Any, Any]:
    """Matplotlib settings of every figure: the first sans serif of this list that is installed, thin grey axes."""
    installed = set(font_manager.get_font_names())
    family = next((name for name in ("Helvetica Neue", "Arial", "Liberation Sans") if name in installed), "DejaVu Sans")
    return {
        "font.family": [family, "DejaVu Sans"],
        "font.size": 9.5,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": OUTLINE,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "svg.hashsalt": "pulvinar",
        "figure.facecolor": "white",
    }


def group_colours(n_groups: int) -> list[str]:
    """A colour for every group, all different; up to ten are told apart by every kind of colour vision."""
    if n_groups <= len(GROUPS):
        return list(GROUPS[:n_groups])
    return [to_hex(colour) for colour in colormaps["turbo"](np.linspace(0.04, 0.96, n_groups))]


def bare(axis: Axes) -> None:
    """An axis for pictures: no ticks, no frame, equal units."""
    axis.set(xticks=[], yticks=[], facecolor="none")
    axis.spines[:].set_visible(False)
    axis.set_aspect("equal")


def _keep_legends(figure: Figure) -> None:
    """Tie legends outside of the axes to the figure as it is laid out, not to the page, which the strip makes longer."""
    outside = [legend for legend in figure.legends if getattr(legend, "_outside_loc", None)]
    if outside:
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    for legend in outside:
        legend.set_bbox_to_anchor((0, 0, 1, 1), transform=figure.transFigure)


def marked(figure: Figure) -> Figure:
    """The figure, a strip taller, which says that the data are simulated."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    share = height / (height + STRIP)
    anchors = [legend.get_bbox_to_anchor().transformed(figure.transFigure.inverted()) for legend in figure.legends]
    for axis in figure.axes:
        box = axis.get_position(original=True)
        axis.set_position((box.x0, box.y0 * share, box.width, box.height * share))
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position((x, y * share))
    for legend, box in zip(figure.legends, anchors, strict=True):
        legend.set_bbox_to_anchor((box.x0, box.y0 * share, box.width, box.height * share), transform=figure.transFigure)
    figure.set_size_inches(width, height + STRIP)
    place: dict[str, Any] = {"ha": "left", "va": "center", "size": 10, "weight": "bold", "color": SELECTED_ONLY}
    figure.text(0.1 / width, 1 - 0.5 * STRIP / (height + STRIP), SIMULATED, **place)
    return figure


def save(
    figure: Figure,
    folder: Path,
    name: str,
    *,
    simulated: bool,
    formats: tuple[str, ...] = ("png", "svg"),
    dpi: int = DOTS_PER_INCH,
) -> None:
    """Write a figure as `name.png` and `name.svg`, each whole or not at all; the same figure gives the same bytes.

    simulated: a strip above the figure says that the data are.
    """
    metadata = {"png": {"Software": "pulvinar"}, "svg": {"Date": None, "Creator": "pulvinar"}}
    width, height = figure.get_size_inches()
    page = Bbox([[0, 0], [width, height + (STRIP if simulated else 0)]])
    if simulated:
        place: dict[str, Any] = {"ha": "left", "va": "center", "size": 10, "weight": "bold", "color": SELECTED_ONLY}
        figure.text(0.1 / width, 1 + 0.5 * STRIP / height, SIMULATED, **place).set_in_layout(False)
        _keep_legends(figure)
    for kind in formats:
        with atomic_path(folder / f"{name}.{kind}") as temporary:
            figure.savefig(temporary, format=kind, dpi=dpi, metadata=metadata[kind], bbox_inches=page)
