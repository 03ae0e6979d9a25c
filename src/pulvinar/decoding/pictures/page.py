"""The page of reconstructed pictures: pixel correlation beside identification for every row, the table, the grid."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.decoding.pictures import picture_grid
from pulvinar.decoding.pictures.reconstruction import LABELS, PUBLISHED, score_table
from pulvinar.report import tables
from pulvinar.report.drawing import BOTH, INK, MUTED, RULE, SELECTED_ONLY
from pulvinar.report.published_tables import published_beside
from pulvinar.report.run_folder import Run
from pulvinar.scores.table import csv_text


def drawers(run: Run) -> dict[str, Callable[[], Figure]]:
    """'tradeoff': PixCorr beside two-way identification of every row, with intervals."""
    return {} if run.evaluation is None else {"tradeoff": partial(_tradeoff, run.evaluation)}


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    return {} if run.evaluation is None else {"scores.csv": csv_text(records(run))}


def records(run: Run) -> list[dict[str, Any]]:
    """The rows of the score table."""
    if run.evaluation is None:
        return []
    raw = [{"name": row["name"], "description": row["description"], "sees_answer": row["sees_answer"]} for row in run.rows]
    scored = score_table(run.evaluation).records()
    return [given | record | given for given, record in zip(raw, scored, strict=True)]


def content(run: Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What pictures.html is filled with."""
    return {
        "tiles": _tiles(run),
        "summary": None if run.evaluation is None else _summary(run.evaluation),
        "reconstructions": reconstructions(run),
        "published": published_beside(run, run.rows[0] if run.rows else {}, PUBLISHED),
    }


def _summary(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "table": score_table(evaluation, words=tables.label),
        "left_out": list(evaluation.get("skipped", {}).values()),
        "rules_broken": evaluation.get("rules_broken", ()),
    }


def reconstructions(run: Run) -> list[dict[str, Any]]:
    """Each folder of reconstructions that lies in the run: its grid and table."""
    return [
        {
            "folder": folder.name,
            "generator": summary.get("settings", {}).get("generator", {}).get("kind", "embedded"),
            "drawn": {"grid": folder / "grid"} if (folder / "grid.png").is_file() else {},
            **_summary(summary),
        }
        for folder, summary in picture_grid.folders(run.folder)
    ]


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for name in list((run.evaluation or {}).get("metrics", {}))[:4]:
        between = tables.said_interval(run.rows[0][f"{name}_interval"], "{:.3f}".format)
        made.append((LABELS.get(name, name), f"{run.rows[0][name]:.3f}", between))
    return made


def _tradeoff(summary: Mapping[str, Any]) -> Figure:
    rows = list(summary["rows"])
    shown = ["pixcorr", *[name for name, facts in summary["metrics"].items() if facts["kind"] == "two_way"][-2:]]
    figure = Figure(figsize=(9, 0.31 * len(rows) + 1.0), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, shown, strict=True):
        for place, row in enumerate(rows):
            colour = BOTH if place == 0 else SELECTED_ONLY if row["sees_answer"] else INK
            axis.plot(row[f"{name}_interval"], [place, place], color=colour, linewidth=1.4, alpha=0.6)
            axis.plot(row[name], place, "o", color=colour, markersize=5)
        if name != "pixcorr":
            axis.axvline(0.5, color=MUTED, linewidth=0.8, linestyle="dashed")
        what = LABELS.get(name, name) if name == "pixcorr" else f"two-way identification,\n{LABELS.get(name, name)}"
        axis.set(xlabel=f"{what} [95 %]")
        axis.grid(axis="x", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), [row["name"] + ("*" if row["sees_answer"] else "") for row in rows], color=INK)
    axes[0].set(ylim=(len(rows) - 0.4, -0.6))
    return figure
