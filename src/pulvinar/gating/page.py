"""The page of a self-supervised run: accuracy against multiply-adds beside the controls, channels, training, published rows."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.gating import backbone_scores, choice_statistics
from pulvinar.gating import figures as gating_figures
from pulvinar.gating.runs import KINDS
from pulvinar.report import tables
from pulvinar.report.published_tables import published_beside
from pulvinar.report.run_folder import Run
from pulvinar.scores.table import csv_text

Row = Mapping[str, Any]


def drawers(run: Run) -> dict[str, Callable[[], Figure]]:
    """'accuracy', 'channels' and 'embedding' of an evaluated run, 'curves' of one with records."""
    return gating_figures.drawers(run.folder)


def records(run: Run) -> list[dict[str, Any]]:
    """The rows of the score table."""
    return backbone_scores.score_table(run.evaluation).records() if run.rows and run.evaluation else []


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    return {"scores.csv": csv_text(records(run))} if run.rows else {}


def content(run: Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What self_supervised.html is filled with."""
    kinds = [kind for kind in KINDS if kind != "knn" or backbone_scores.n_neighbours(run.evaluation or {}) == 1]  # as printed
    ours = {f"{kind}_{row['branch']}": row[kind] for row in run.rows for kind in kinds}
    ours |= {"mac_share": run.rows[0]["mac_share"]} if run.rows else {}
    return {
        "tiles": _tiles(run),
        "table": backbone_scores.score_table(run.evaluation or {"rows": ()}, words=tables.label),
        "choices": choice_statistics.in_words(found) if (found := (run.evaluation or {}).get("choices")) else "",
        "elsewhere": [_elsewhere(name, evaluation) for name, evaluation in run.elsewhere.items()],
        "published": published_beside(run, ours, backbone_scores.PUBLISHED),
    }


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for row in run.rows[:2]:
        if row["branch"] in ("gated", "dense"):
            between = tables.said_interval(row["linear_interval"], lambda bound: tables.percent(bound, 1))
            made.append((f"{row['branch']}, linear", tables.percent(row["linear"], 1), between))
            share = f"{tables.percent(row['mac_share'], 1)} of the multiply-adds"
            made.append((f"{row['branch']}, 1-NN", tables.percent(row["knn"], 1), share))
    return made


def _elsewhere(name: str, evaluation: Row) -> dict[str, Any]:
    """An evaluation on other images, or one scored in another way."""
    scored = ", ".join(f"{setting} {value}" for setting, value in evaluation.get("changed", {}).items())
    whose = "this run's own images" if evaluation.get("own_images") else "other images"
    return {
        "title": f"{evaluation.get('images', name)}: {whose}{'; ' + scored if scored else ''}",
        "told": f"{evaluation['n_train']:,} training, {evaluation['n_test']:,} test images, chance "
        f"{tables.percent(evaluation['chance'])}.",
        "table": backbone_scores.score_table(evaluation, words=tables.label),
    }
