"""The run and its controls as dots with intervals, beside chance and the permutation null."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from pulvinar.report.drawing import BOTH, INK, MUTED, RULE
from pulvinar.report.run_folder import SCORE
from pulvinar.report.tables import count, label, percent

Row = Mapping[str, Any]


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Best score first, rows without a score last."""
    return sorted(rows, key=lambda row: -np.inf if row.get(SCORE) is None else row[SCORE], reverse=True)


def draw(evaluation: Mapping[str, Any], method: str) -> Figure:
    """`brain_to_image_top1` of every row with its interval; rows that are not available say so."""
    rows = ordered(evaluation["rows"])
    figure = Figure(figsize=(8.4, 0.42 * len(rows) + 1.3), layout="constrained")
    axis = figure.subplots()
    draw_into(axis, evaluation, method)
    axis.set_xlabel(f"seen image found among {count(evaluation.get('gallery_size'))} (brain → image, top-1 [95 %])")
    return figure


def draw_into(axis: Axes, evaluation: Mapping[str, Any], method: str, *, size: float = 9.5, with_reasons: bool = True) -> None:
    """The dots on an axis. `with_reasons` false leaves out the rows that are not available."""
    rows = [row for row in ordered(evaluation["rows"]) if with_reasons or row.get(SCORE) is not None]
    levels = [level for level in _level_values(evaluation) if level is not None]
    limit = 1.02 * max([0.05, *levels, *(_upper(row) for row in rows)])
    _levels(axis, evaluation, size)
    for place, row in enumerate(rows):
        _dot(axis, place, row, is_ours=row["name"] == method, limit=limit, size=size)
    axis.set_yticks(range(len(rows)), [label(row["name"]) for row in rows], size=size, color=INK)
    for text, row in zip(axis.get_yticklabels(), rows, strict=True):
        if row["name"] == method:
            text.set(weight="bold", color=BOTH)
    axis.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, limit))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axis.tick_params(axis="y", length=0)
    axis.tick_params(axis="x", labelsize=size - 1)
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines["left"].set_visible(False)


def _upper(row: Row) -> float:
    return max([row.get(SCORE) or 0, *(bound for bound in row.get(f"{SCORE}_interval") or () if bound is not None)])


def _level_values(evaluation: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return evaluation.get("chance"), (evaluation.get("null") or {}).get("percentile_95")


def _levels(axis: Axes, evaluation: Mapping[str, Any], size: float) -> None:
    """Chance and the 95th percentile of the permutation null as upright lines."""
    chance, null = _level_values(evaluation)
    if chance is not None:
        axis.axvline(chance, color=INK, linewidth=1, linestyle=(0, (1, 2)), label=f"chance {percent(chance)}")
    if null is not None:
        axis.axvline(
            null, color=MUTED, linewidth=1, linestyle=(0, (4, 2)), label=f"95th percentile of the null {percent(null)}"
        )
    if chance is not None or null is not None:
        axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=size - 1, borderaxespad=0.1)


def _dot(axis: Axes, place: int, row: Row, *, is_ours: bool, limit: float, size: float) -> None:
    score, bounds = row.get(SCORE), row.get(f"{SCORE}_interval")
    if score is None:
        reason = row.get("unavailable") or "no score was stored"
        text = f"not available: {reason}"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.text(0.03 * limit, place, text, va="center", size=size - 1, color=MUTED, style="italic", bbox=box)
        return
    colour = BOTH if is_ours else MUTED
    if bounds is not None and None not in bounds:
        axis.plot(bounds, [place, place], color=colour, linewidth=2.6 if is_ours else 1.6, solid_capstyle="butt", alpha=0.75)
    axis.plot(score, place, "o", color=colour, markersize=size * (0.95 if is_ours else 0.72), markeredgecolor="white")
    columns = [percent(score), f"{count(row['n_voxels'])} voxels" if row.get("n_voxels") is not None else ""]
    for text, offset in zip(columns, (3.9, 11.8), strict=True):
        axis.annotate(
            text,
            (1, place),
            xycoords=("axes fraction", "data"),
            xytext=(offset * (size - 1), 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=size - 1,
            color=colour if is_ours else INK,
            weight="bold" if is_ours else "normal",
            annotation_clip=False,
        )
