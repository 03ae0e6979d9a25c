"""How the selection and the training went: voxels alive, and the loss of each phase."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pulvinar.report.drawing import BOTH, INK, MUTED, RULE

PHASES = {"pretrain": "Loss, pretraining", "select": "Loss, stage 1 (selection)", "refit": "Loss, stage 2 (refit)"}

MOST_NUMBERS = 16  # rounds whose numbers fit beside each other

Records = Sequence[Mapping[str, Any]]


def series(records: Records, phase: str, key: str) -> np.ndarray:
    """A value over the epochs of a phase, in the order they were run (epoch,); NaN where it was not written."""
    values = [record.get(key) for record in records if record.get("phase") == phase]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def round_starts(records: Records) -> np.ndarray:
    """Epochs (from 1, over all rounds) with which a round of the selection starts; none where rounds were not written."""
    rounds = series(records, "select", "round")
    if not np.isfinite(rounds).all():
        return np.zeros(0, int)
    return np.flatnonzero(np.diff(rounds, prepend=np.nan) != 0) + 1


def curves(records: Records) -> list[str]:
    """What was recorded: 'alive' (voxels), and the phases whose loss was."""
    alive = np.isfinite(series(records, "select", "n_alive")).any()
    return ["alive"] * bool(alive) + [phase for phase in PHASES if np.isfinite(series(records, phase, "loss")).any()]


def draw(records: Records, selection: Mapping[str, Any]) -> Figure:
    """Voxels alive on a logarithmic axis, then the loss of every phase that was recorded; rounds as bands."""
    drawn, alive = curves(records), series(records, "select", "n_alive")
    figure = Figure(figsize=(10, 2.8), layout=ConstrainedLayoutEngine(w_pad=0.12))
    for axis, name in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        if name in ("alive", "select"):
            _bands(axis, records, len(alive))
        if name == "alive":
            _alive(axis, alive, selection)
        else:
            _loss(axis, series(records, name, "loss"), PHASES[name])
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.grid(axis="y", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
    return figure


def _bands(axis: Axes, records: Records, n_epochs: int) -> None:
    starts = round_starts(records)
    ends = np.append(starts[1:], n_epochs + 1)[: len(starts)]
    for number, (start, end) in enumerate(zip(starts, ends, strict=True), 1):
        if number % 2 == 0:
            axis.axvspan(start - 0.5, end - 0.5, color="#f4f3ef", linewidth=0, zorder=0)
        if len(starts) > MOST_NUMBERS:
            continue
        place = ((start + end) / 2 - 0.5, 0.99)
        axis.text(*place, str(number), transform=axis.get_xaxis_transform(), ha="center", va="top", size=7.5, color=MUTED)


def _alive(axis: Axes, alive: np.ndarray, selection: Mapping[str, Any]) -> None:
    epochs = np.arange(1, len(alive) + 1)
    axis.step(epochs, alive, where="mid", color=BOTH, linewidth=1.6)
    if np.nanmin(alive) > 0:  # none alive has no place on a logarithmic axis
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.set_title("Voxels alive (shaded: every second round)")
    kept = selection.get("n_voxels")
    if kept:
        axis.axhline(kept, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        axis.annotate(f"kept: {kept:,}", (1, kept), xytext=(2, 3), textcoords="offset points", size=8.5)


def _loss(axis: Axes, loss: np.ndarray, title: str) -> None:
    axis.plot(np.arange(1, len(loss) + 1), loss, color=BOTH, linewidth=1.6, marker="o" if len(loss) < 3 else None)
    missing = int((~np.isfinite(loss)).sum())
    axis.set_title(title + (f" ({missing} epochs without a finite value)" if missing else ""))
