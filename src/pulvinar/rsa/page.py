"""The page of an RSA run: models against ceilings, nulls and confounds, predicted and measured RDMs, what stages carry."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.report import tables
from pulvinar.report.published_tables import published_beside
from pulvinar.report.run_folder import Run, read_arrays
from pulvinar.rsa import evaluation as rsa
from pulvinar.rsa import figures as rsa_figures
from pulvinar.scores.table import csv_text

Row = Mapping[str, Any]


def targets(run: Run) -> list[str]:
    """The measurements that were scored."""
    return list((run.evaluation or {}).get("ceilings") or {})


def rows_of(run: Run, target: str) -> list[Row]:
    """The rows of one target, this run's own first."""
    return [row for row in run.rows if row.get("target") == target]


def drawers(run: Run) -> dict[str, Callable[[], Figure]]:
    """Scores and stage importance of every target; RDMs and arrangement where artifacts/rdms.npz is there."""
    drawn: dict[str, Callable[[], Figure]] = {}
    evaluation = run.evaluation or {}
    for target in targets(run):
        ceiling = evaluation["ceilings"][target]["scored"]
        drawn[f"scores_{target}"] = partial(rsa_figures.scores, rows_of(run, target), ceiling, run.method)
        stages = (evaluation.get("importance") or {}).get(target)
        if stages:
            drawn[f"stages_{target}"] = partial(rsa_figures.importance, stages)
    for path in rdm_files(run):
        arrays = read_arrays(path, ("predicted",))
        if arrays is not None:
            measured = {name.removeprefix("measured_"): rdm for name, rdm in arrays.items() if name.startswith("measured_")}
            drawn[path.stem] = partial(_rdms, arrays["predicted"], measured)
            place = path.stem.replace("rdms", "arrangement", 1)
            drawn[place] = partial(rsa_figures.arrangement, arrays["predicted"], measured, arrays.get("images"))
    return drawn


def rdm_files(run: Run) -> list[Path]:
    """Of every set of images that the run is over."""
    return sorted((run.folder / "artifacts").glob("rdms*.npz"))


def _rdms(predicted: np.ndarray, measured: Mapping[str, np.ndarray]) -> Figure:
    return rsa_figures.rdms(predicted, measured, order_of(next(iter(measured.values()))))


def records(run: Run) -> list[dict[str, Any]]:
    """The rows of the score tables, target after target."""
    found = ((target, rsa.score_table(run.evaluation or {}, target)) for target in targets(run))
    return [{"target": target, **record} for target, table in found for record in table.records()]


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    entries = records(run)
    return {"scores.csv": csv_text(entries)} if entries else {}


def content(run: Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What rsa.html is filled with."""
    evaluation = run.evaluation or {}
    return {
        "tiles": _tiles(run),
        "targets": [
            {
                "name": target,
                "standing": _standing(run, target),
                "ceiling": evaluation["ceilings"][target]["scored"],
                "table": rsa.score_table(evaluation, target, words=tables.label),
            }
            for target in targets(run)
        ],
        "sets": [path.stem.removeprefix("rdms") for path in rdm_files(run)],
        "by_pairs": [
            {"name": target, "table": rsa.score_table(evaluation["held_out_pairs"], target, words=tables.label)}
            for target in targets(run)
            if "held_out_pairs" in evaluation
        ],
        "published": published_beside(run, {}, rsa.PUBLISHED),
    }


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    tiles = []
    for target in targets(run):
        row = rows_of(run, target)[0]
        between = tables.said_interval(row["percent_interval"], "{:.1f}".format)
        tiles.append((f"{target}, of the ceiling", f"{row['percent']:.1f} %", between))
        between = tables.said_interval(row["rho_interval"], "{:+.3f}".format)
        tiles.append((f"{target}, signed rho", f"{row['rho']:+.3f}", between))
    return tiles


def _standing(run: Run, target: str) -> str:
    others = [row for row in rows_of(run, target)[1:] if not row["name"].startswith("confound")]
    if not others:
        return "No baseline was scored."
    n_lower = sum(row["ours_minus_this"]["interval"][0] > 0 for row in others)
    return f"{target}: higher than {n_lower} of {len(others)} baselines by a 95 % interval that excludes zero."


def order_of(rdm: np.ndarray) -> np.ndarray:
    """Images ordered so that alike ones are neighbours (leaves of average linkage)."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    return leaves_list(linkage(rdm[np.triu_indices(len(rdm), 1)].clip(0), "average", optimal_ordering=True))
