"""One picture that says what a run found, for a README or a slide."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.decoding import roi_figure, score_figure, trial_figure
from pulvinar.report.drawing import MUTED, STRIP
from pulvinar.report.findings import headline
from pulvinar.report.run_folder import Examples, Maps, Run

N_TRIALS = 3


def draw(run: Run, maps: Maps, evaluation: Mapping[str, Any]) -> Figure:
    """1600 x 900 pixels at 100 dots per inch: the voxels, the scores, some trials. maps and evaluation: the run's."""
    figure = Figure(figsize=(16, 9 - (STRIP if run.simulated else 0)))
    _line(figure, 0.955, headline(run).lead, size=25, weight="bold")
    _line(figure, 0.893, headline(run).rest, size=17, color=MUTED)
    _voxels(figure, maps, str(evaluation.get("reference") or ""))
    has_trials = run.examples is not None and len(run.examples.rank) > 0
    bottom = 0.475 if has_trials else 0.1
    axis = figure.add_axes((0.635, bottom, 0.2, 0.785 - bottom))
    score_figure.draw_into(axis, evaluation, run.method, size=14, with_reasons=False)
    if run.examples is not None and has_trials:
        _trials(figure, run.examples, evaluation)
    return figure


def _line(figure: Figure, height: float, text: str, *, size: float, **look: Any) -> None:
    """Text from the left edge, as large as `size` or as small as it takes to end inside the picture."""
    drawn = figure.text(0.03, height, text, size=size, va="top", **look)
    width = drawn.get_window_extent().width / figure.bbox.width
    drawn.set_fontsize(size * min(1.0, 0.94 / width) if width else size)


def _voxels(figure: Figure, maps: Maps, reference: str) -> None:
    roi_figure.draw_into(figure, maps, box={"left": 0.025, "right": 0.46, "top": 0.745, "bottom": 0.05}, size=13)
    handles = roi_figure.legend(maps, reference)[:3]
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.022, 0.832), "ncols": 3}
    spacing: dict[str, Any] = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.4, "handletextpad": 0.5}
    figure.legend(handles=handles, fontsize=15, **place, **spacing)


def _trials(figure: Figure, examples: Examples, evaluation: Mapping[str, Any]) -> None:
    """The best-ranked, the worst-ranked and some between."""
    order = np.argsort(examples.rank, kind="stable")
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(N_TRIALS, len(order))).round().astype(int))]
    part = figure.add_gridspec(N_TRIALS, 1, left=0.49, right=0.985, top=0.385, bottom=0.025, hspace=0.07)
    for place, trial in enumerate(chosen):
        axis = figure.add_subplot(part[place])
        trial_figure.draw_trial(axis, examples, int(trial), evaluation.get("gallery_size"), size=15)
        axis.set_anchor("W")
        if place == 0:
            trial_figure.heading(axis, examples.retrieved.shape[1], size=13)
