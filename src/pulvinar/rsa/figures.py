"""Figures of an RSA run: models beside both ceilings and the null, RDMs, arrangement of the images, importance of stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import rankdata

from pulvinar.report.drawing import BOTH, INK, MUTED, REFERENCE_ONLY, RULE, UNMEASURED, WEIGHTS, bare
from pulvinar.report.tables import label

Row = Mapping[str, Any]
UNITS = {"mean_scale": "mean scale (start = 1)", "share": "share of contribution", "drop": "drop of rho when left out"}


def scores(rows: Sequence[Row], ceiling: Mapping[str, float], method: str) -> Figure:
    """Percent of the upper ceiling for every row of one target, with interval, null, and the lower ceiling as a line."""
    figure = Figure(figsize=(8.8, 0.34 * len(rows) + 1.5), layout="constrained")
    axis = figure.subplots()
    for place, row in enumerate(rows):
        _bar(axis, place, row, is_ours=row["name"] == method)
    axis.axvline(100, color=INK, linewidth=1, label="upper ceiling")
    lower = 100 * ceiling["lower"] / ceiling["upper"]
    axis.axvline(lower, color=INK, linewidth=1, linestyle=(0, (4, 2)), label=f"lower ceiling ({lower:.0f} %)")
    axis.plot([], [], "|", color=MUTED, markersize=9, label="95th percentile of the null")
    axis.set_yticks(range(len(rows)), [label(row["name"]) for row in rows], color=INK)
    for text, row in zip(axis.get_yticklabels(), rows, strict=True):
        if row["name"] == method:
            text.set(weight="bold", color=BOTH)
    drawn = [value for row in rows for value in (row["percent"], row["null_percent_95"], *row["percent_interval"])]
    axis.set(
        ylim=(len(rows) - 0.4, -0.6),
        xlim=(min(0.0, 1.04 * min(drawn)), max(104.0, 1.04 * max(drawn))),
        xlabel="explained, percent of the upper noise ceiling (R², unseen images; lines: 95 % intervals)",
    )
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, borderaxespad=0.1)
    return figure


def _bar(axis: Axes, place: int, row: Row, *, is_ours: bool) -> None:
    colour = BOTH if is_ours else MUTED
    bounds = row["percent_interval"]
    axis.plot(bounds, [place] * len(bounds), color=colour, linewidth=2.4 if is_ours else 1.5, alpha=0.75, solid_capstyle="butt")
    axis.plot(row["percent"], place, "o", color=colour, markersize=8 if is_ours else 6, markeredgecolor="white")
    axis.plot(row["null_percent_95"], place, "|", color=MUTED, markersize=9)


def rdms(predicted: np.ndarray, measured: Mapping[str, np.ndarray], order: np.ndarray) -> Figure:
    """The predicted RDM beside the subjects' mean of every target, as ranks of the pairs, images in the given order."""
    panels = {"predicted (unseen images)": predicted, **{f"measured: {name}": rdm for name, rdm in measured.items()}}
    figure = Figure(figsize=(3.6 * len(panels), 3.7), layout="constrained")
    for axis, (name, rdm) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        image = axis.imshow(_ranks(rdm)[np.ix_(order, order)], cmap=WEIGHTS, vmin=0, vmax=1, interpolation="nearest")
        bare(axis)
        axis.set_facecolor(UNMEASURED)
        axis.set_title(name)
    figure.colorbar(image, ax=figure.axes, shrink=0.8, label="rank of dissimilarity", ticks=[0, 1])
    return figure


def _ranks(rdm: np.ndarray) -> np.ndarray:
    """Every pair's rank, from 0 (most alike) to 1; NaN stays."""
    upper = np.triu_indices(len(rdm), 1)
    values = rdm[upper]
    known = np.isfinite(values)
    ranks = np.full(len(values), np.nan)
    ranks[known] = (rankdata(values[known]) - 1) / max(1, known.sum() - 1)  # pairs that tie share a rank
    ranked = np.zeros_like(rdm, dtype=float)
    ranked[upper] = ranks
    return ranked + ranked.T


def arrangement(predicted: np.ndarray, measured: Mapping[str, np.ndarray], images: np.ndarray | None) -> Figure:
    """Images placed so that their distances follow each RDM (metric multidimensional scaling, Torgerson 1952)."""
    panels = {"predicted": predicted, **{f"measured: {name}": rdm for name, rdm in measured.items()}}
    figure = Figure(figsize=(4.6 * len(panels), 4.7), layout="constrained")
    anchor = None
    for axis, (name, rdm) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        points = classical_scaling(np.where(np.isfinite(rdm), rdm, np.nanmean(rdm)))
        anchor = points if anchor is None else anchor
        _scatter(axis, _turned(points, anchor), images)
        axis.set_title(f"{name}; projection (MDS)")
    return figure


def classical_scaling(rdm: np.ndarray) -> np.ndarray:
    """(image, 2) coordinates from the two leading eigenvectors of the doubly centred squared dissimilarities."""
    centring = np.eye(len(rdm)) - 1 / len(rdm)
    values, vectors = np.linalg.eigh(-0.5 * centring @ rdm**2 @ centring)
    return vectors[:, -2:][:, ::-1] * np.sqrt(np.clip(values[-2:][::-1], 0, None))


def _turned(points: np.ndarray, anchor: np.ndarray) -> np.ndarray:
    """Points turned and mirrored to lie as near to the anchor as they can (orthogonal Procrustes)."""
    left, _, right = np.linalg.svd(points.T @ anchor)
    return points @ left @ right


def _scatter(axis: Axes, points: np.ndarray, images: np.ndarray | None) -> None:
    points = points / max(1e-12, float(np.abs(points).max()))
    half = 0.055
    for row, (x, y) in enumerate(points):
        if images is None:
            axis.plot(x, y, "o", color=BOTH, markersize=4)
        else:
            axis.imshow(images[row], extent=(x - half, x + half, y - half, y + half), zorder=row)
    bare(axis)
    axis.set(xlim=(-1.1, 1.1), ylim=(-1.1, 1.1))


def importance(stages: Sequence[Row]) -> Figure:
    """Mean scale (figure 2 of the paper), share of contribution and drop when left out, of every stage, with intervals."""
    figure = Figure(figsize=(10, 0.34 * len(stages) + 1.4), layout="constrained")
    places = np.arange(len(stages))
    for number, (axis, (key, name)) in enumerate(zip(figure.subplots(1, 3, sharey=True), UNITS.items(), strict=True)):
        values = np.array([row[key] for row in stages])
        bounds = np.array([row[f"{key}_interval"] for row in stages])
        axis.barh(places, values, color=REFERENCE_ONLY, height=0.62)
        axis.hlines(places, bounds[:, 0], bounds[:, 1], color=BOTH, linewidth=2)
        axis.axvline(1 if key == "mean_scale" else 0, color=INK, linewidth=0.8)
        axis.set_title(f"{name} [95 %]")
        axis.grid(axis="x", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
        if number == 0:
            axis.set_yticks(places, [row["stage"] for row in stages], color=INK)
            axis.invert_yaxis()
    return figure
