"""Figures of self-supervised runs: accuracy against the MAC share reached, channels per gate, training curves, embeddings.

Each is written as PNG and SVG under `artifacts/figures/` of the run (or of the folder of runs).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pulvinar.core.errors import InputError, MissingDependencyError
from pulvinar.core.progress import log
from pulvinar.core.storage import fingerprint, read_arrays, read_json, reads, require_folder, write_arrays
from pulvinar.gating.runs import KINDS, PooledRow, find_runs, pool
from pulvinar.report.drawing import BOTH, INK, MUTED, OUTLINE, REFERENCE_ONLY, RULE, SELECTED_ONLY, group_colours, save, style
from pulvinar.report.run_folder import is_simulated

TITLES = {"knn": "Nearest neighbour (1-NN)", "linear": "Linear probe"}
NAMES = {
    "gated": "gated",
    "dense": "dense",
    "static": "static mask",
    "static_random": "random static mask",
    "random_gates": "random gates",
    "pruned": "pruned by magnitude",
    "pixels": "raw pixels",
}
MARKS = {"gated": "o", "dense": "s", "static": "D", "static_random": "d", "random_gates": "x", "pruned": "v"}
CHANNELS = {
    "always_on": ("always open", BOTH),
    "dependent": ("decided by image", REFERENCE_ONLY),
    "always_off": ("always shut", "#ecebe6"),
}
FEATURES = Path("predictions") / "features.npz"  # of test images, by branch, and their labels
UMAP = Path("artifacts") / "embedding.npz"  # where test images were placed by it, once somebody asked
FEWEST_PLACED = 100  # test images; of fewer a map shows nothing
CURVES = (
    ("mac_share", "MAC share (of inference)"),
    ("feature_rank", "Effective rank of the features"),
    ("view_agreement", "Views that find each other"),
)


def figure(run: str | os.PathLike[str]) -> dict[str, Path]:
    """Draw what a run, or a folder of runs, has pieces for, and write it; name -> path without suffix."""
    folder = Path(run) / "artifacts" / "figures"
    with mpl.rc_context(style()):
        made = {name: draw() for name, draw in drawers(run).items()}
        for name, drawn in made.items():
            save(drawn, folder, name, simulated=any(_is_simulated(run) for run in find_runs(run)))
    return {name: folder / name for name in made}


def _is_simulated(run: Path) -> bool:
    return is_simulated(read_json(run / "run.json"), None)


def drawers(run: str | os.PathLike[str]) -> dict[str, Callable[[], Figure]]:
    """accuracy (an evaluated run or folder of runs), channels (an evaluated run with gates), curves (a run with records).

    choices: of an evaluated run of levels or routes.

    embedding (a run whose test features were kept): their principal components, or UMAP where it was asked for once.
    """
    folder = require_folder(run, "folder of a run")
    made: dict[str, Callable[[], Figure]] = {}
    single, evaluated = (folder / "run.json").is_file(), (folder / "evaluation.json").is_file()
    if not single or evaluated:
        made["accuracy"] = lambda: draw_accuracy(pool(find_runs(folder)))
    evaluation = read_json(folder / "evaluation.json") if evaluated else {}
    if evaluation.get("channels"):
        made["channels"] = partial(draw_channels, evaluation["channels"])
    if evaluation.get("choices"):
        made["choices"] = partial(draw_choices, evaluation["choices"])
    if evaluated and (features := _features(folder)):
        made["embedding"] = partial(embedding, folder, features)
    records = _records(folder) if single else []
    if records:
        made["curves"] = partial(draw_curves, records, evaluation.get("budget"))
    return made


@reads("a run")
def _records(folder: Path) -> list[dict[str, Any]]:
    import json

    path = folder / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines()] if path.is_file() else []


def draw_accuracy(rows: Sequence[PooledRow]) -> Figure:
    """Accuracy against the MAC share reached: a colour per group of runs, a mark per branch, bars are 95 % intervals.

    Intervals are over seeds and test images; small dots are single seeds. Every mark stands at its own share: marks at the same
    share lie over each other, open ones on top. Raw pixels, which have no network, are a line.
    """
    made = Figure(figsize=(10.4, 4.4), layout="constrained")
    groups = list(dict.fromkeys(row.group for row in rows))
    colours = dict(zip(groups, group_colours(len(groups)), strict=True))
    axes = made.subplots(1, 2)
    for axis, kind in zip(axes, KINDS, strict=True):
        for row in rows:
            if row.branch != "pixels":
                _point(axis, row, kind, colours[row.group])
        pixels = [row.score(kind) for row in rows if row.branch == "pixels"]
        if pixels:
            axis.axhline(100 * float(np.mean(pixels)), color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axis.set(
            title=TITLES[kind], xlabel="multiply-adds of the dense network (%)", ylabel="accuracy on test images (%) [95 %]"
        )
        axis.grid(axis="y", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
        _share_axis(axis, [100 * share for row in rows for share in row.mac_shares if np.isfinite(share)])
    _legend(made, rows, colours)
    return made


def _share_axis(axis: Axes, shares: Sequence[float]) -> None:
    """Percent of the multiply-adds, logarithmic where no share is 0; room on both sides for marks at the ends."""
    if not shares or min(shares) <= 0:
        axis.set_xlim(-3, 1.06 * max([*shares, 1.0]))
        return
    axis.set_xscale("log")
    ticks = [tick for tick in (1, 2, 5, 10, 20, 30, 50, 100) if 0.8 * min(shares) <= tick <= 1.2 * max(shares)]
    axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axis.xaxis.set_minor_formatter(FuncFormatter(lambda value, place: ""))
    axis.set_xlim(0.85 * min(shares), 1.15 * max(shares))


def _point(axis: Axes, row: PooledRow, kind: str, colour: str) -> None:
    share, score = 100 * row.mac_share, 100 * row.score(kind)
    low, high = (100 * bound for bound in row.interval(kind))
    own = row.branch in ("gated", "dense")
    axis.plot([share, share], [low, high], color=colour, linewidth=1.4, alpha=0.55, zorder=2)
    if len(row.seeds) > 1:
        each = 100 * row.correct[kind].mean(1)
        axis.plot(100 * row.mac_shares, each, ".", color=colour, markersize=3.5, alpha=0.7, zorder=3)
    axis.plot(
        share,
        score,
        MARKS.get(row.branch, "*"),
        color=colour,
        markersize=8.5 if own else 6.5,
        markerfacecolor=colour if own or row.branch == "random_gates" else "none",
        markeredgecolor=colour,
        markeredgewidth=1.3,
        alpha=0.8,
        zorder=4 if own else 5,
    )


def _legend(made: Figure, rows: Sequence[PooledRow], colours: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=5, label=group.replace("_", " ")) for group, colour in colours.items()]
    for branch in dict.fromkeys(row.branch for row in rows):
        label = NAMES.get(branch, branch)
        if branch == "pixels":
            handles.append(Line2D([], [], color=MUTED, linewidth=0.9, linestyle=(0, (4, 3)), label=label))
            continue
        own = branch in ("gated", "dense")
        face = MUTED if own else "white"
        handles.append(
            Line2D([], [], color=MUTED, marker=MARKS.get(branch, "*"), linestyle="", markerfacecolor=face, label=label)
        )
    made.legend(handles=handles, loc="outside lower center", ncols=min(6, len(handles)), fontsize=8.5)


def draw_channels(channels: Mapping[str, Any]) -> Figure:
    """Share of each gate's channels that is always open, decided by image, always shut; a tick marks the mean open share."""
    gates = channels["gates"]
    made = Figure(figsize=(7.6, 3.4), layout="constrained")
    axis = made.subplots()
    places = np.arange(1, len(gates) + 1)
    below = np.zeros(len(gates))
    for kind, (label, colour) in CHANNELS.items():
        heights = np.array([100 * gate[kind] / gate["channels"] for gate in gates])
        whole = f"{label}, {100 * channels[kind]:.0f} % of all"
        axis.bar(places, heights, bottom=below, color=colour, edgecolor=OUTLINE, linewidth=0.6, width=0.74, label=whole)
        below += heights
    for place, gate in zip(places, gates, strict=True):
        axis.plot([place - 0.37, place + 0.37], [100 * gate["density"]] * 2, color=INK, linewidth=1.6)
    axis.plot([], [], color=INK, linewidth=1.6, label="mean share open")
    axis.set(xlabel="gate (block)", ylabel="channels (%)", ylim=(0, 100), xlim=(0.4, len(gates) + 0.6))
    axis.set_xticks(places, [f"{n}\n{gate['channels']}" for n, gate in zip(places, gates, strict=True)])
    axis.set_xlabel("block, and its number of gated channels")
    made.legend(loc="outside upper center", ncols=2, fontsize=8.5)
    return made


def draw_choices(found: Mapping[str, Any]) -> Figure:
    """Share of the images that take each level, block by block, or each route; the title has the share that changes."""
    made = Figure(figsize=(7.6, 3.4), layout="constrained")
    axis = made.subplots()
    by_route = found["form"] == "routes"
    if by_route:
        shares = 100 * np.array(found["choices"][0]["shares"])
        axis.bar(np.arange(1, len(shares) + 1), shares, color=BOTH, edgecolor=OUTLINE, linewidth=0.6, width=0.74)
        axis.set_xticks(np.arange(1, len(shares) + 1))
    else:
        shares = 100 * np.array([choice["shares"] for choice in found["choices"]])
        places, below = np.arange(1, len(shares) + 1), np.zeros(len(shares))
        blues = mpl.colors.LinearSegmentedColormap.from_list("levels", ["#ecebe6", BOTH])
        for number, heights in enumerate(shares.T):
            colour = blues(number / max(1, shares.shape[1] - 1))
            label = f"level {number + 1}" + (" (narrowest)" if not number else "")
            axis.bar(places, heights, bottom=below, color=colour, edgecolor=OUTLINE, linewidth=0.6, width=0.74, label=label)
            below += heights
        axis.set_xticks(places)
        made.legend(loc="outside right center", fontsize=8.5)
    words = f"{100 * found['changed']:.0f} % of the images do not take the most frequent {'route' if by_route else 'level'}"
    axis.set(xlabel="route" if by_route else "block", ylabel="images (%)", ylim=(0, 100), title=words)
    return made


def draw_curves(records: Sequence[Mapping[str, Any]], budget: Mapping[str, Any] | None) -> Figure:
    """The loss and its terms over epochs; beside them the MAC share with the budget asked, and the health of the features."""
    curves = [(key, title) for key, title in CURVES if any(record.get(key) is not None for record in records)]
    made = Figure(figsize=(2.9 * max(3, 1 + len(curves)), 2.9), layout="constrained")  # one or two panels are not blown up
    axes = made.subplots(1, 1 + len(curves), squeeze=False)[0]
    epochs = [record.get("epoch", n + 1) for n, record in enumerate(records)]
    own = {
        "epoch",
        "phase",
        "loss",
        "multiplier",
        "logit_shift",
        *(key for key, _ in CURVES),
        "feature_spread",
        "images_per_second",
    }
    terms = [key for key in dict.fromkeys(key for record in records for key in record) if key not in own]
    values_of = {key: [record.get(key) for record in records] for key in terms}
    numbers = [
        key
        for key, values in values_of.items()
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    ]
    for colour, key in zip((INK, *group_colours(len(numbers))), ["loss", *numbers], strict=True):
        values = [record.get(key, np.nan) for record in records]
        axes[0].plot(epochs, values, color=colour, linewidth=1.8 if key == "loss" else 1.1, label=key.replace("_", " "))
    axes[0].set_title("Loss and its terms")
    axes[0].legend(fontsize=7.5)
    for axis, (key, title) in zip(axes[1:], curves, strict=True):
        axis.plot(epochs, [record.get(key, np.nan) for record in records], color=BOTH, linewidth=1.6)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        if key == "mac_share" and budget and budget.get("asked") is not None:
            axis.axhline(budget["asked"], color=SELECTED_ONLY, linewidth=1, linestyle=(0, (4, 3)))
            axis.annotate("asked", (epochs[0], budget["asked"]), xytext=(2, 3), textcoords="offset points", size=8)
    for axis in axes:
        axis.set_xlabel("epoch")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        axis.grid(axis="y", color=RULE, linewidth=0.6)
    return made


def _features(folder: Path) -> dict[str, np.ndarray]:
    """The test features and labels that a run keeps; none of few images."""
    features = read_arrays(folder / FEATURES) if (folder / FEATURES).is_file() else {}
    return {} if len(features.get("label", ())) < FEWEST_PLACED else features


def embedding(folder: Path, given: Mapping[str, np.ndarray]) -> Figure:
    """`draw_embedding` of test features, `given` with their labels ('label'): UMAP's places where `keep_umap` kept them."""
    features, key = _placed(given)
    names = read_json(folder / "evaluation.json").get("class_names", ())
    stored = read_arrays(folder / UMAP) if (folder / UMAP).is_file() else {}
    if str(stored.pop("key", "")) == key:
        return draw_embedding(stored, given["label"], names, by="UMAP")
    return draw_embedding({name: principal_axes(values) for name, values in features.items()}, given["label"], names)


def keep_umap(run: str | os.PathLike[str]) -> None:
    """Place the test images of a run by UMAP, half a minute and more, and keep that in artifacts/embedding.npz for its figure.

    Raises `InputError` for a run that keeps no test features, `MissingDependencyError` without umap-learn.
    """
    folder = require_folder(run, "folder of a run")
    given = _features(folder)
    if not given:
        raise InputError(f"{folder}: keeps no features of test images ({FEATURES}); evaluate a self-supervised run first")
    features, key = _placed(given)
    if not (folder / UMAP).is_file() or str(read_arrays(folder / UMAP).get("key", "")) != key:
        log(f"UMAP of {len(given['label'])} test images: {', '.join(features)}")
        write_arrays(folder / UMAP, key=np.array(key), **place(features))


def _placed(given: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], str]:
    """The features without the labels, and what tells them from others."""
    features = {name: values for name, values in given.items() if name != "label"}
    return features, fingerprint(*features, *features.values())


def principal_axes(values: np.ndarray) -> np.ndarray:
    """The first two principal components (image, 2) of features (image, feature); the larger end of each is positive."""
    centred = values.astype(np.float64) - values.mean(0, dtype=np.float64)
    left, spread, _ = np.linalg.svd(centred, full_matrices=False)
    made = np.zeros((len(values), 2))
    made[:, : min(2, len(spread))] = (left * spread)[:, :2]
    return made * np.where(np.abs(made.min(0)) > made.max(0), -1, 1)


def place(features: Mapping[str, np.ndarray], *, seed: int = 0) -> dict[str, np.ndarray]:
    """UMAP places (image, 2) of features (image, feature), for each entry. `MissingDependencyError` without umap-learn."""
    try:
        import umap
    except ImportError as error:
        raise MissingDependencyError("the UMAP figure needs umap-learn: pip install 'pulvinar[ssl]'") from error
    return {name: umap.UMAP(random_state=seed, n_jobs=1).fit_transform(values) for name, values in features.items()}


def draw_embedding(
    places: Mapping[str, np.ndarray], labels: np.ndarray, class_names: Sequence[str] = (), *, by: str = "PCA"
) -> Figure:
    """Places (image, 2), one panel per entry ('gated', 'dense'), coloured by class (image,); the paper's figure 2, by UMAP."""
    made = Figure(figsize=(4.2 * len(places) + 1.2, 4.2), layout="constrained")
    colours = np.array(group_colours(int(labels.max()) + 1))
    axes = made.subplots(1, len(places), squeeze=False)[0]
    for axis, (name, values) in zip(axes, places.items(), strict=True):
        axis.scatter(values[:, 0], values[:, 1], s=4, c=colours[labels], linewidths=0)
        axis.set(title=f"{NAMES.get(name, name)}; projection ({by})", xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    if 0 < len(class_names) <= 10:
        for number, name in enumerate(class_names):
            axes[-1].scatter([], [], s=14, color=colours[number], label=name)
        made.legend(loc="outside right center", fontsize=8)
    return made
