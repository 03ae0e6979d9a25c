"""Seen, reconstructed and retrieved pictures side by side, each with its scores; and what a reconstruction folder holds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pulvinar.core.errors import FileError
from pulvinar.core.storage import read_json
from pulvinar.report.drawing import BOTH, INK, MUTED, RULE, bare, save, style

LARGEST_GRID = 24  # images in grid.png; all of them are in scores.csv
N_COLUMNS = 3  # trials beside each other
GAP = 0.16  # between seen, made and retrieved pictures, in picture widths
TEXT = 0.36  # height of the line of scores below a picture, in picture widths


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """What is drawn. seen, reconstructed: uint8 (image, height, width, 3); retrieved: (image, match, height, width, 3).

    right: which retrieved pictures are the seen one (image, match), None where the gallery does not hold it.
    scores: metric -> per image; two-way identification and distances by their own names.
    """

    ids: Sequence[str]
    seen: np.ndarray
    reconstructed: np.ndarray
    retrieved: np.ndarray
    retrieved_from: str
    right: np.ndarray | None
    scores: Mapping[str, np.ndarray]


def write(folder: Path, grid: Grid, summary: Mapping[str, Any], *, simulated: bool) -> Path:
    """grid.png in the folder: at most 24 trials, evenly over all of them; the path. simulated: of planted responses."""
    with mpl.rc_context(style()):
        save(draw(grid, summary), folder, "grid", simulated=simulated, formats=("png",))
    return folder / "grid.png"


def draw(grid: Grid, summary: Mapping[str, Any]) -> Figure:
    """Rows of trials, three beside each other; headings name the columns, the title says what the numbers are."""
    n_shown = min(len(grid.ids), LARGEST_GRID)
    places = np.linspace(0, len(grid.ids) - 1, n_shown).round().astype(int)  # evenly, where there are more
    n_rows = -(-n_shown // N_COLUMNS)
    n_retrieved = grid.retrieved.shape[1]
    width = 2 + 2 * GAP + n_retrieved
    inch = 15.0 / (N_COLUMNS * (width + 0.35))
    head = 1.15
    figure = Figure(figsize=(15.0, head + n_rows * (1 + TEXT) * inch + 0.1))
    axes = figure.subplots(n_rows, N_COLUMNS, squeeze=False)
    top = 1 - head / figure.get_figheight()
    figure.subplots_adjust(left=0.008, right=0.992, top=top, bottom=0.005, wspace=0.05, hspace=0.0)
    named = identification(summary)
    for place, axis in enumerate(axes.ravel()):
        axis.set(xlim=(-0.05, width + 0.1), ylim=(-TEXT, 1.0))
        bare(axis)
        if place < n_shown:
            _trial(axis, grid, int(places[place]), named)
    for axis in axes[0, : min(N_COLUMNS, n_shown)]:
        for middle, text in (
            (0.5, "seen"),
            (1.5 + GAP, "reconstructed"),
            (2 + 2 * GAP + n_retrieved / 2, "retrieved, best first"),
        ):
            axis.text(middle, 1.04, text, ha="center", va="bottom", size=9, color=MUTED)
    lead, rest = caption(grid, summary)
    height = figure.get_figheight()
    figure.text(0.008, 1 - 0.12 / height, lead, size=15, weight="bold", va="top")
    figure.text(0.008, 1 - 0.45 / height, rest, size=9.5, va="top", color=MUTED)
    return figure


def _trial(axis: Axes, grid: Grid, place: int, named: str | None) -> None:
    _picture(axis, grid.seen[place], 0)
    _picture(axis, grid.reconstructed[place], 1 + GAP)
    for match in range(grid.retrieved.shape[1]):
        left = 2 + 2 * GAP + match
        _picture(axis, grid.retrieved[place, match], left)
        if grid.right is not None and grid.right[place, match]:
            axis.add_patch(Rectangle((left + 0.02, 0.02), 0.96, 0.96, fill=False, edgecolor=BOTH, linewidth=3))
    axis.text(0.02, -0.03, _short(grid.ids[place]), va="top", size=7.5, color=MUTED)
    caption = f"PixCorr {grid.scores['pixcorr'][place]:.2f}   SSIM {grid.scores['ssim'][place]:.2f}"
    if named is not None:
        caption += f"   {named} {grid.scores[named][place]:.0%}"
    axis.text(1 + GAP + 0.02, -0.03, caption, va="top", size=8, color=INK)


def _short(name: str) -> str:
    return name if len(name) <= 14 else f"{name[:13]}…"


def _picture(axis: Axes, image: np.ndarray, left: float) -> None:
    axis.imshow(image, extent=(left + 0.02, left + 0.98, 0.02, 0.98), interpolation="antialiased")
    axis.add_patch(Rectangle((left + 0.02, 0.02), 0.96, 0.96, fill=False, edgecolor=RULE, linewidth=0.6))


def identification(summary: Mapping[str, Any]) -> str | None:
    """The measure whose two-way identification is shown: the last in the table; those asked for come after the fixed."""
    named = [name for name, facts in summary["metrics"].items() if facts["kind"] == "two_way"]
    return named[-1] if named else None


def caption(grid: Grid, summary: Mapping[str, Any]) -> tuple[str, str]:
    """The finding against the controls, and what the numbers and frames are."""
    rows = {row["name"]: row for row in summary["rows"]}
    ours, named = summary["rows"][0], identification(summary)
    metrics = ["pixcorr", *([named] if named else [])]
    lead = f"{ours['description']}: " + ", ".join(f"{_label(name)} {ours[name]:.2f}" for name in metrics)
    others = [name for name in ("best gallery match", "mean image", "shuffled brains") if name in rows]
    versus = "; ".join(f"{name} " + " / ".join(f"{rows[name][metric]:.2f}" for metric in metrics) for name in others)
    shown = f"{min(len(grid.ids), LARGEST_GRID)} of {summary['n_images']} test images, taken by place and not by score"
    frames = " Framed: the seen image itself." if grid.right is not None else ""
    two_way = f" Percent: two-way identification by {named}, chance 50 %." if named else ""
    first = f"Against: {versus}." if versus else ""
    return lead, f"{first}\n{shown}. Retrieved from {grid.retrieved_from}.{frames}{two_way}"


def _label(name: str) -> str:
    return {"pixcorr": "PixCorr", "ssim": "SSIM"}.get(name, f"two-way ({name})")


def folders(run: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """Reconstructions that lie in a run folder, by name: their folder and summary."""
    found: list[tuple[Path, Mapping[str, Any]]] = []
    for path in sorted(run.glob("reconstructions*/summary.json")):
        summary = read_json(path)
        if not isinstance(summary, dict) or not summary.get("rows") or "metrics" not in summary:
            raise FileError(f"{path}: a summary of reconstructions with rows and metrics is needed")
        found.append((path.parent, summary))
    return found
