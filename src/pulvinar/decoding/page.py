"""The page of a decoding run: where the kept voxels are, the controls, what was retrieved, how the selection went."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.data.geometry import Geometry
from pulvinar.decoding import curves_figure, roi_figure, score_figure, summary_picture, trial_figure
from pulvinar.decoding import views as brain_views
from pulvinar.decoding.pictures import page as pictures_page
from pulvinar.decoding.pictures import reconstruction
from pulvinar.report import brain_maps, published_tables, tables
from pulvinar.report.findings import coverage
from pulvinar.report.panels import on_fsaverage5
from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.settings import PROTOCOLS, facts_of_evaluation, other_rois
from pulvinar.report.viewer import Viewer
from pulvinar.scores.table import Table, csv_text

PLACES = {  # kind of geometry -> what its picture shows
    "volume": "Axial slices that hold most of the voxels concerned (left is left); the broken lines in the view from the "
    "right, a projection of all voxels, show where they lie.",
    "surface": "The sides from which most of the voxels concerned are seen; darker grey was not measured.",
    "greyordinates": "The sides from which most of the vertices concerned are seen; what lies below the cortex is not drawn.",
    "points": "These voxels came as bare points, without grid or mesh: projections of all of them.",
}
STAND_IN = "These voxels are vertices of {}, whose mesh is not on this machine"
ELSEWHERE = "The published numbers are of another data set and other subjects: they say what is usual, not what is better."

PUBLISHED = (*tables.PUBLISHED, *reconstruction.PUBLISHED)


def drawers(run: Run) -> dict[str, Callable[[], Figure]]:
    """What the run has pieces for: 'roi', 'curves', 'scores', 'trials', and 'summary' (1600 x 900 pixels)."""
    found: dict[str, Callable[[], Figure]] = {}
    evaluation = run.evaluation or {}
    if run.maps is not None:
        weights = roi_figure.SCORED if (run.facts.get("selection") or {}).get("chosen_by") else roi_figure.LEARNED
        found["roi"] = partial(roi_figure.draw, run.maps, str(evaluation.get("reference") or ""), weights=weights)
    if curves_figure.curves(run.records):
        found["curves"] = partial(curves_figure.draw, run.records, run.facts.get("selection") or {})
    if run.rows:
        found["scores"] = partial(score_figure.draw, evaluation, run.method)
    if run.examples is not None and len(run.examples.rank):
        found["trials"] = partial(trial_figure.draw, run.examples, evaluation.get("gallery_size"))
    if run.maps is not None and run.evaluation is not None:
        found["summary"] = partial(summary_picture.draw, run, run.maps, run.evaluation)
    return found


def views(run: Run) -> dict[str, Viewer]:
    """The interactive view of the voxels."""
    return brain_views.views(run)


def records(run: Run) -> list[dict[str, Any]]:
    """The rows of the score table."""
    return tables.records(run.rows, run.method) if run.rows else []


def table_files(run: Run) -> dict[str, str]:
    """File name -> text of the score table, for artifacts/."""
    if not run.rows:
        return {}
    text = tables.score_table(run.rows, run.method).text(math.inf)
    return {"scores.csv": csv_text(records(run)), "scores.txt": f"{text}\n"}


def content(run: Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What decoding.html is filled with; the maps for brain viewers are written on the way."""
    evaluation = run.evaluation or {}
    without = run.maps is None or run.maps.reference is None
    return {
        "tiles": _key(run),
        "places": "" if run.maps is None else _places(run.maps.geometry),
        "reference": evaluation.get("reference"),
        "no_reference": _no_reference(run) if without else "",
        "coverage": coverage(run),
        "map_files": [str(path.relative_to(run.folder)) for path in brain_maps.write(run)],
        "evaluated": run.evaluation is not None,
        "method": tables.label(run.method),
        "table": tables.score_table(run.rows, run.method, told=True),
        "standing": tables.standing(run.rows, run.method),
        "headroom": tables.headroom(evaluation.get("headroom")),
        "labels": _labels(run),
        "trials": _trials(run),
        "reconstructions": pictures_page.reconstructions(run),
        "selection": {"path": "", "chosen_by": ""} | (run.facts.get("selection") or {}),
        "published": published(run),
        "facts_of_evaluation": facts_of_evaluation(run),
    }


def _places(geometry: Geometry) -> str:
    """What the picture of the voxels shows."""
    if not geometry.is_stand_in:
        return PLACES[geometry.kind]
    stand_in = STAND_IN.format(geometry.template)
    if on_fsaverage5(geometry) is not None:
        return f"{stand_in}: drawn on fsaverage5 are those among its first 10,242 of a hemisphere. {PLACES['surface']}"
    return f"{stand_in}: the picture shows left and right, and their numbers, not where they lie."


def _key(run: Run) -> list[tuple[str, str, str]]:
    """The four numbers to remember."""
    row, selection = run.row(run.method) or {}, run.facts.get("selection") or {}
    tiles = []
    if selection.get("n_voxels") is not None and selection.get("n_candidates"):
        share = tables.percent(selection["n_voxels"] / selection["n_candidates"])
        tiles.append(("voxels kept", tables.count(selection["n_voxels"]), f"{share} of {selection['n_candidates']:,}"))
    for key, name in ((SCORE, "brain → image, top-1"), ("image_to_brain_top1", "image → brain, top-1")):
        if row.get(key) is not None:
            tiles.append((name, tables.percent(row[key]), tables.said_interval(row.get(f"{key}_interval"), tables.percent)))
    if row.get("precision") is not None:
        reference = (run.evaluation or {}).get("reference") or "reference"
        recall = f"recall {row['recall']:.2f}" if row.get("recall") is not None else ""
        tiles.append((f"precision, {reference} voxels", f"{row['precision']:.2f}", recall))
    return tiles


def _no_reference(run: Run) -> str:
    """Why found and missed voxels cannot be told apart."""
    if run.evaluation is None:
        return "The run was not evaluated: no reference to tell found and missed voxels apart by is in it."
    if note := other_rois(run.evaluation):
        return f"Found and missed voxels cannot be told apart: {note}."
    return "No truth and no annotated ROI came with these data, so found and missed voxels cannot be told apart."


def published(run: Run) -> list[tuple[Table, str]]:
    """Published rows by protocol and gallery, each beside our number of the same, apart where we have none; and a warning."""
    groups: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for entry in run.published:
        groups.setdefault((entry.get("protocol"), entry.get("gallery_size")), []).append(entry)
    return [_published_under(run, entries, *under) for under, entries in groups.items()]


def _published_under(
    run: Run, entries: list[Mapping[str, Any]], protocol: str | None, gallery_size: int | None
) -> tuple[Table, str]:
    name = str(run.facts.get("data", {}).get("name", "these data"))
    galleries = (run.evaluation or {}).get("protocols") or {}
    ours, warning = _scores_under(run, protocol, entries), ELSEWHERE
    if protocol is not None:
        gallery = (galleries.get(protocol) or {}).get("gallery_size")
        warning += f" Their gallery: {PROTOCOLS.get(protocol, protocol)}."
        if gallery != gallery_size:
            ours = {}
            warning += " This run has no number of that protocol and size (it needs 300 test images), so they stand apart."
        name += f", gallery of {tables.count(gallery)}" if ours else ""
    beside = [(f"{tables.label(run.method)}, this run", name, ours)] if ours else []
    return published_tables.published(entries, beside, columns=PUBLISHED), warning


def _scores_under(run: Run, protocol: str | None, entries: list[Mapping[str, Any]]) -> dict[str, Any]:
    """This run's values of the published metrics under a protocol (None: as the headline); empty without a score."""
    row, headline = run.row(run.method) or {}, (run.evaluation or {}).get("protocol")
    prefix = "" if protocol in (None, headline) else f"{protocol}_"
    keys = {str(entry["metric"]): f"{prefix}{entry['metric']}" for entry in entries}
    return {metric: row[key] for metric, key in keys.items() if row.get(key) is not None}


def _labels(run: Run) -> str:
    """What other papers call the two directions."""
    note, called = [], {column.key: column.label for column in PUBLISHED}
    for paper, names in ((run.evaluation or {}).get("labels") or {}).items():
        pairs = [
            f"“{name}” is {called.get(value, value)}" if isinstance(value, str) else f"“{name}” {tables.percent(value, 1)}"
            for name, value in names.items()
        ]
        note.append(f" Labels of {paper}: {', '.join(pairs)}.")
    return "".join(note)


def _trials(run: Run) -> str:
    """What the picture of test trials shows; empty without them."""
    if run.examples is None:
        return ""
    n_right, n_trials = int((run.examples.rank == 1).sum()), len(run.examples.rank)
    row = run.row(run.method)
    overall = f" Over all test images the share of rank 1 is {tables.percent(row[SCORE])}." if row else ""
    return (
        f"{n_trials} test trials picked to show right and wrong ones ({n_right} right), not a random sample.{overall} "
        "Framed: the image that was seen. Without a frame it is not among the five."
    )
