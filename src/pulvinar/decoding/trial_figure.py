"""Test trials to look at: the image that was seen, and the five that were retrieved for it."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pulvinar.report.drawing import BOTH, INK, MUTED, RULE, SELECTED_ONLY, bare
from pulvinar.report.run_folder import Examples

N_COLUMNS = 2
GAP = 0.35  # between the seen and the retrieved images, in image widths


def draw(examples: Examples, gallery_size: float | None) -> Figure:
    """All example trials, best rank first, in two columns; the seen image is framed where it is among the five."""
    order = np.argsort(examples.rank, kind="stable")
    n_rows = -(-len(order) // N_COLUMNS)
    figure = Figure(figsize=(10, 0.7 * n_rows + 0.4))
    axes = figure.subplots(n_rows, N_COLUMNS, squeeze=False).T.ravel()
    figure.subplots_adjust(
        left=0.004, right=0.996, top=1 - 0.32 / figure.get_figheight(), bottom=0.01, wspace=0.04, hspace=0.06
    )
    for place, axis in enumerate(axes):
        if place >= len(order):
            axis.set_axis_off()
            continue
        draw_trial(axis, examples, int(order[place]), gallery_size)
        if place % n_rows == 0:
            heading(axis, examples.retrieved.shape[1])
    return figure


def heading(axis: Axes, n_retrieved: int, *, size: float = 9) -> None:
    """What the pictures below are, over the uppermost trial."""
    for left, text in ((0.5, "seen"), (1 + GAP + n_retrieved / 2, "retrieved, best first")):
        axis.text(left, 1.1, text, ha="center", va="bottom", size=size, color=MUTED)


def draw_trial(axis: Axes, examples: Examples, trial: int, gallery_size: float | None, *, size: float = 9.5) -> None:
    """One trial in a row of unit squares: seen, retrieved 1 to 5, its rank in words."""
    rank, n_retrieved = int(examples.rank[trial]), examples.retrieved.shape[1]
    _picture(axis, examples.seen[trial], 0)
    for place in range(n_retrieved):
        left = 1 + GAP + place
        _picture(axis, examples.retrieved[trial, place], left)
        if place + 1 == rank:
            axis.add_patch(Rectangle((left + 0.02, 0.02), 0.96, 0.96, fill=False, edgecolor=BOTH, linewidth=3.2))
    right = 1 + GAP + n_retrieved + 0.18
    colour = BOTH if rank == 1 else INK if rank <= n_retrieved else SELECTED_ONLY
    axis.text(right, 0.56, f"rank {rank:,}", va="bottom", size=size, weight="bold", color=colour)
    axis.text(right, 0.46, f"of {gallery_size:,.0f}" if gallery_size else "", va="top", size=size - 1, color=MUTED)
    axis.set(xlim=(-0.05, right + 1.25), ylim=(-0.03, 1.03))
    bare(axis)


def _picture(axis: Axes, image: np.ndarray, left: float) -> None:
    axis.imshow(image, extent=(left + 0.02, left + 0.98, 0.02, 0.98), interpolation="antialiased")
    axis.add_patch(Rectangle((left + 0.02, 0.02), 0.96, 0.96, fill=False, edgecolor=RULE, linewidth=0.6))
