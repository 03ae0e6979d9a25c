"""Figures of an encoding run: ROIs with ceilings and subjects, layers by ROI, transfer, information, landscape, salience."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from pulvinar.encoding.files import region_masks
from pulvinar.encoding.maps import VoxelMaps
from pulvinar.report.drawing import BOTH, BRAIN, INK, MUTED, OUTLINE, REFERENCE_ONLY, RULE, SELECTED_ONLY, WEIGHTS, bare

Row = Mapping[str, Any]
MARKS = {"lh": ("<", "left hemisphere"), "rh": (">", "right hemisphere")}


def ceilings(maps: Sequence[VoxelMaps]) -> dict[str, float]:
    """ROI -> noise ceiling of its mean r: mean over voxels of the root of the ceiling, then over subjects; where known."""
    found: dict[str, list[float]] = {}
    for one in maps:
        if "ceiling" in one.arrays:
            for (roi, side), inside in region_masks(one.arrays).items():
                if side == "both":
                    found.setdefault(roi, []).append(float(np.nanmean(np.sqrt(one.arrays["ceiling"][inside]))))
    return {roi: float(np.mean(values)) for roi, values in found.items()}


def rois(rows: Sequence[Row], ceiling: Mapping[str, float]) -> Figure:
    """A bar per ROI: mean r over subjects; dots for subjects, triangles for hemispheres, marks for null, ceiling, untuned."""
    names = list(dict.fromkeys(row["roi"] for row in rows))
    figure = Figure(figsize=(8.4, 0.34 * len(names) + 1.5), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
        here = [row for row in rows if row["roi"] == name and row["r_nested"] is not None]
        whole = [row for row in here if row["hemisphere"] == "both"]
        scores = [row["r_nested"] for row in whole]
        if scores:
            axis.barh(place, np.mean(scores), color=REFERENCE_ONLY, height=0.62)
        else:
            axis.text(0, place, " no score", va="center", size=8, color=MUTED, style="italic")
        if len(whole) == 1:
            axis.plot([whole[0]["r_nested_low"], whole[0]["r_nested_high"]], [place] * 2, color=BOTH, linewidth=1.4)
        axis.plot(scores, [place] * len(scores), "o", color=BOTH, markersize=4.5, markeredgecolor="white", markeredgewidth=0.5)
        axis.plot([row["null_percentile_95"] for row in whole], [place] * len(whole), "|", color=MUTED, markersize=9)
        for lift, (side, (mark, _)) in zip((0.2, -0.2), MARKS.items(), strict=True):
            values = [row["r_nested"] for row in here if row["hemisphere"] == side]
            if values:
                axis.plot(np.mean(values), place + lift, mark, color=INK, markersize=4)
        untuned = [row["r_untuned"] for row in whole if row.get("r_untuned") is not None]
        if untuned:
            axis.plot(np.mean(untuned), place, "D", markerfacecolor="none", color=SELECTED_ONLY, markersize=5)
        if name in ceiling:
            axis.plot([ceiling[name]] * 2, [place - 0.38, place + 0.38], color=INK, linewidth=1.6)
    _key(axis, rows, bool(ceiling))
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set(ylim=(len(names) - 0.4, -0.6), xlabel="Pearson r, mean over voxels (outer test images)")
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=4, fontsize=8, handletextpad=0.4, columnspacing=1.2)
    return figure


def _key(axis: Axes, rows: Sequence[Row], with_ceiling: bool) -> None:
    several = len({row["subject"] for row in rows}) > 1
    axis.plot([], [], "o", color=BOTH, markersize=4.5, label="a subject" if several else "the subject, 95 % interval")
    axis.plot([], [], "|", color=MUTED, markersize=9, label="95th percentile of the null")
    sides = {row["hemisphere"] for row in rows}
    for side, (mark, text) in MARKS.items():
        if side in sides:
            axis.plot([], [], mark, color=INK, markersize=4, label=text)
    if any(row.get("r_untuned") is not None for row in rows):
        axis.plot([], [], "D", markerfacecolor="none", color=SELECTED_ONLY, markersize=5, label="untuned")
    if with_ceiling:
        axis.plot([], [], color=INK, linewidth=1.6, label="noise ceiling")


LayerScores = tuple[list[str], list[str], np.ndarray, np.ndarray]  # layers, ROIs, (layer, ROI) scores and votes


def layer_by_roi(maps: Sequence[VoxelMaps]) -> LayerScores | None:
    """Layers, ROIs, inner held-out R^2 (layer, ROI) as means over voxels and subjects, and votes: voxels that took each layer.

    A voxel that a layer predicts worse than its mean counts 0 (ours): else voxels without signal hide the others. One that does
    not vary (NaN) is left out. None where a run keeps no scores of layers, or has one layer only.
    """
    if not maps or len(maps[0].layer_names) < 2 or any("layer_scores" not in one.arrays for one in maps):
        return None
    layers = maps[0].layer_names
    names = list(dict.fromkeys(roi for one in maps for roi, _ in region_masks(one.arrays)))
    scores, votes = np.zeros((len(layers), len(names), len(maps))), np.zeros((len(layers), len(names)))
    scores[:] = np.nan
    for number, one in enumerate(maps):
        for (roi, side), inside in region_masks(one.arrays).items():
            if side == "both":
                own = one.arrays["layer_scores"][:, inside & np.isfinite(one.arrays["layer_scores"]).all(0)]
                if own.shape[1]:
                    scores[:, names.index(roi), number] = np.maximum(own, 0).mean(1)
                votes[:, names.index(roi)] += np.bincount(one.arrays["layer"][inside].astype(int), minlength=len(layers))
    return layers, names, np.nanmean(scores, axis=2), votes


def layers(found: LayerScores) -> Figure:
    """Heat map of layer x ROI; the layer that most voxels of an ROI took is outlined, with the share that took it."""
    names, regions, scores, votes = found
    figure = Figure(figsize=(max(4.5, 1.6 + 0.62 * len(regions)), 0.42 * len(names) + 1.5), layout="constrained")
    axis = figure.subplots()
    largest = max(float(np.nanmax(scores)), 1e-3)
    picture = axis.imshow(scores, cmap=WEIGHTS, vmin=0, vmax=largest, aspect="auto")
    for column in range(len(regions)):
        chosen = int(votes[:, column].argmax())
        share = votes[chosen, column] / votes[:, column].sum()
        axis.add_patch(
            Rectangle((column - 0.5, chosen - 0.5), 1, 1, fill=False, edgecolor=SELECTED_ONLY, linewidth=2, zorder=3)
        )
        for row in range(len(names)):
            dark = scores[row, column] > 0.45 * largest
            text = f"{scores[row, column]:.2f}" + (f"\n{100 * share:.0f} %" if row == chosen else "")
            axis.text(column, row, text, ha="center", va="center", size=7, color="white" if dark else INK)
    axis.set_xticks(range(len(regions)), regions, rotation=35, ha="right", color=INK)
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axis, shrink=0.8, aspect=18)
    bar.outline.set_visible(False)
    bar.set_label("R², inner held-out images", size=8.5)
    return figure


def transfer(result: Mapping[str, Any]) -> Figure:
    """Share of voxels improved, network x subject; own cells outlined, a star where the difference of r has p below .05."""
    models, subjects = list(result["models"]), list(result["subjects"])
    cells = {(cell["model"], cell["subject"]): cell for cell in result["cells"]}
    share = np.array([[cells[m, s]["gain"]["share_improved"] for s in subjects] for m in models])
    figure = Figure(figsize=(2.2 + 0.85 * len(subjects), 1.3 + 0.5 * len(models)), layout="constrained")
    axis = figure.subplots()
    picture = axis.imshow(share, cmap=WEIGHTS, vmin=0, vmax=1, aspect="auto")
    for row, model in enumerate(models):
        for column, subject in enumerate(subjects):
            cell = cells[model, subject]
            star = "*" if cell["gain"]["difference_p_value"] < 0.05 else ""
            colour = "white" if share[row, column] > 0.55 else INK
            axis.text(column, row, f"{100 * share[row, column]:.0f}{star}", ha="center", va="center", size=9, color=colour)
            if cell["is_own"]:
                axis.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=SELECTED_ONLY, linewidth=2, zorder=3)
                )
    axis.set_xticks(range(len(subjects)), subjects, rotation=30, ha="right", color=INK)
    axis.set_yticks(range(len(models)), models, color=INK)
    axis.set(xlabel="encoded subject", ylabel="network")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(picture, ax=axis, shrink=0.9, aspect=14, ticks=[0, 0.5, 1])
    bar.outline.set_visible(False)
    bar.set_label("share improved", size=8.5)
    return figure


def information(result: Mapping[str, Any]) -> Figure:
    """Lower bound in nats of every ROI with its interval, a dot per subject, beside the null and log K."""
    rows = [row for row in result["rows"] if row["hemisphere"] == "both"]
    names = list(dict.fromkeys(row["roi"] for row in rows))
    figure = Figure(figsize=(8.4, 0.34 * len(names) + 1.4), layout="constrained")
    axis = figure.subplots()
    for place, name in enumerate(names):
        here = [row for row in rows if row["roi"] == name]
        for number, row in enumerate(here):
            lift = place + 0.5 * (number + 0.5) / len(here) - 0.25
            axis.plot([row["low"], row["high"]], [lift, lift], color=BOTH, linewidth=1.6)
            axis.plot(row["nats"], lift, "o", color=BOTH, markersize=4.5, markeredgecolor="white", markeredgewidth=0.5)
            axis.plot(row["null_percentile_95"], lift, "|", color=MUTED, markersize=8)
    largest = rows[0]["largest"]
    axis.axvline(0, color=OUTLINE, linewidth=0.8)
    axis.plot([], [], "o-", color=BOTH, markersize=4.5, label="a subject, 95 % interval over images")
    axis.plot([], [], "|", color=MUTED, markersize=8, label="95th percentile of the null")
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set(ylim=(len(names) - 0.4, -0.6))
    axis.set_xlabel(f"nats, lower bound (at most log {rows[0]['n_candidates']} = {largest:.2f} can be shown)")
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    figure.legend(loc="outside upper left", ncols=2, fontsize=8)
    return figure


def landscape(result: Mapping[str, Any]) -> Figure:
    """Models in the plane of the two components with the largest |eigenvalue|; a component that counts negatively is dashed."""
    place, share, negative = (np.array(result[name]) for name in ("coordinates", "share", "negative"))
    if place.shape[1] == 1:
        place = np.hstack([place, np.zeros_like(place)])
    figure = Figure(figsize=(6.2, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.set_title("Projection (InPCA) of the models' class probabilities", size=9)
    axis.axhline(0, color=RULE, linewidth=0.8)
    axis.axvline(0, color=RULE, linewidth=0.8)
    axis.plot(place[:, 0], place[:, 1], "o", color=BOTH, markersize=7, markeredgecolor="white")
    for text, (x, y) in _labels_of_places(result["names"], place[:, :2]):
        axis.annotate(text, (x, y), xytext=(6, 4), textcoords="offset points", size=8.5, color=INK)
    axis.margins(0.18)
    for number, spine in zip(range(len(share)), ("bottom", "left"), strict=False):
        text = f"component {number + 1} ({100 * share[number]:.0f} % of |eigenvalues|)"
        if negative[number]:
            axis.spines[spine].set(linestyle=(0, (4, 3)), color=SELECTED_ONLY, linewidth=1.4)
            text += ", negative: counts against distance"
        (axis.xaxis if number == 0 else axis.yaxis).set_label_text(text, color=SELECTED_ONLY if negative[number] else INK)
    return figure


def _labels_of_places(names: Sequence[str], place: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """A label for each place; models that lie on one, such as the same untuned network of several runs, share it."""
    step = 1e-6 * max(float(np.ptp(place)), 1e-12)
    together: dict[tuple[int, ...], list[int]] = {}
    for number, row in enumerate(np.rint(place / step).astype(int)):
        together.setdefault(tuple(row), []).append(number)
    first = [own[0] for own in together.values()]
    more = [f" and {len(own) - 1} more" if len(own) > 1 else "" for own in together.values()]
    return [(f"{names[number]}{text}", place[number]) for number, text in zip(first, more, strict=True)]


def salience(arrays: Mapping[str, np.ndarray]) -> Figure:
    """Pictures, and the salience of both hemispheres' models on them and on their mirror images, each over its own maximum."""
    images = arrays["images"]
    rows = [("picture", None, False), ("left hemisphere", "lh", False), ("right hemisphere", "rh", False)]
    rows += [("left, mirrored", "lh_mirrored", True), ("right, mirrored", "rh_mirrored", True)]
    figure = Figure(figsize=(10, 1.22 * len(rows)))
    axes = figure.subplots(len(rows), len(images), squeeze=False, gridspec_kw={"wspace": 0.03, "hspace": 0.03})
    figure.subplots_adjust(left=0.125, right=0.995, top=0.995, bottom=0.005)
    for axis_row, (title, key, mirrored) in zip(axes, rows, strict=True):
        for number, axis in enumerate(axis_row):
            shown = images[number][:, ::-1] if mirrored else images[number]
            grey = shown.mean(2) / 255
            if key is None:
                axis.imshow(shown)
            else:
                side = len(shown)
                axis.imshow(grey, cmap="gray", vmin=0, vmax=1.25, extent=(0, side, side, 0))
                heat = arrays[key][number]
                heat = heat / max(float(heat.max()), 1e-12)
                axis.imshow(_enlarged(heat, side), cmap="inferno", vmin=0, vmax=1, alpha=0.55)
                axis.axvline(side / 2, color=BRAIN, linewidth=0.7, linestyle=(0, (3, 3)))
            bare(axis)
        axis_row[0].set_ylabel(title, size=8.5, color=INK, rotation=0, ha="right", va="center", labelpad=6)
    return figure


def _enlarged(heat: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.fromarray(heat.astype(np.float32)).resize((side, side), Image.Resampling.BILINEAR))
