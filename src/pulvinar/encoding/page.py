"""The page of an encoding run: scores per ROI and hemisphere with nulls and ceilings, and how they were made."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.core.storage import read_json
from pulvinar.data.named_meshes import where_to_get
from pulvinar.encoding import comparison as encoding_comparison
from pulvinar.encoding import figures as pictures
from pulvinar.encoding import image_classification
from pulvinar.encoding import maps as encoding_maps
from pulvinar.encoding.evaluation import left_out_lines, warnings_of
from pulvinar.encoding.scores import PUBLISHED, score_table
from pulvinar.encoding.transfer import left_out
from pulvinar.report import tables, viewer
from pulvinar.report.published_tables import published_beside
from pulvinar.report.run_folder import Run, read_arrays
from pulvinar.report.viewer import Viewer
from pulvinar.scores.resampling import interval_text
from pulvinar.scores.table import csv_text

Row = Mapping[str, Any]
ANALYSES = ("transfer", "information", "classification", "salience", "comparison")


def _whole(run: Run) -> list[Row]:
    """The rows over all voxels, one per subject."""
    return [row for row in run.rows if row["roi"] == "all" and row["hemisphere"] == "both"]


def drawers(run: Run) -> dict[str, Callable[[], Figure]]:
    """'rois', 'layers', a map of every subject ('map-SUBJECT'), and of the analyses whose results lie in the run."""
    drawn: dict[str, Callable[[], Figure]] = {}
    maps = encoding_maps.read_all(run)
    if run.rows:
        drawn["rois"] = lambda: pictures.rois(run.rows, pictures.ceilings(maps))
    if (scores := pictures.layer_by_roi(maps)) is not None:
        drawn["layers"] = partial(pictures.layers, scores)
    drawn |= {f"map-{one.subject}": partial(encoding_maps.draw, one) for one in maps if encoding_maps.can_be_drawn(one)}
    results = _results(run)
    for name, draw in (("transfer", pictures.transfer), ("information", pictures.information)):
        if name in results:
            drawn[name] = partial(draw, results[name])
    if (results.get("classification") or {}).get("landscape"):
        drawn["landscape"] = partial(pictures.landscape, results["classification"]["landscape"])
    arrays = read_arrays(run.folder / "artifacts" / "salience.npz", ("images", "lh", "rh", "lh_mirrored", "rh_mirrored"))
    if arrays is not None:
        drawn["salience"] = partial(pictures.salience, arrays)
    return drawn


def _results(run: Run) -> dict[str, Any]:
    """What `pulvinar encoding` has written into the run: name -> result."""
    paths = {name: run.folder / "artifacts" / f"{name}.json" for name in ANALYSES}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def views(run: Run) -> dict[str, Viewer]:
    """The interactive view of every subject whose voxels have places."""
    space = str((run.facts.get("data") or {}).get("space") or "")
    return {
        one.subject: viewer.make(one.geometry, encoding_maps.layers(one), id=f"brain-{number}", space=space)
        for number, one in enumerate(encoding_maps.read_all(run))
        if encoding_maps.can_be_drawn(one)
    }


def records(run: Run) -> list[dict[str, Any]]:
    """The rows of the score table."""
    return score_table(run.evaluation).records() if run.rows and run.evaluation else []


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    return {"scores.csv": csv_text(records(run))} if run.rows else {}


def content(run: Run, drawn: Mapping[str, Path]) -> dict[str, Any]:
    """What encoding.html is filled with: scores, maps (whose files for brain viewers are written on the way), analyses."""
    evaluation, maps, results = run.evaluation or {"rows": ()}, encoding_maps.read_all(run), _results(run)
    makers = {
        "comparison": _comparison,
        "transfer": _transfer,
        "information": lambda result: str(result["similarity"]),
        "classification": _classification,
        "salience": _salience,
    }
    return {
        "tiles": _tiles(run),
        "table": score_table(evaluation),
        "notes": left_out_lines(run.rows) + (warnings_of(evaluation) if "choices" in evaluation else []),
        "reasons": _reasons(run.rows[0]) if run.rows else [],
        "maps": [
            {
                "subject": one.subject,
                "template": one.geometry.template,
                "how": where_to_get(one.geometry.template) if one.geometry.is_stand_in else "",
                "caption": f"{one.subject}. {encoding_maps.caption(one)}" if encoding_maps.can_be_drawn(one) else "",
            }
            for one in maps
        ],
        "map_files": [path.name for path in encoding_maps.write_files(run, maps)] if maps else [],
        **{name: make(results[name]) if name in results else None for name, make in makers.items()},
        "facts_of_evaluation": _facts(evaluation),
        "published": published_beside(run, _mean_r(run), PUBLISHED),
    }


def _mean_r(run: Run) -> dict[str, float]:
    """As the published numbers are made: layer and alpha chosen on the images that report; empty without."""
    scores = [row["r_optimistic"] for row in _whole(run) if row.get("r_optimistic") is not None]
    return {"r_optimistic": round(float(np.mean(scores)), 3)} if scores else {}


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for row in _whole(run)[:4]:
        if row["r_nested"] is not None:
            between = tables.said_interval((row["r_nested_low"], row["r_nested_high"]), "{:.3f}".format)
            made.append((f"{row['subject']}, r", f"{row['r_nested']:.3f}", between))
    return made


def _transfer(result: Mapping[str, Any]) -> str:
    tests = "; ".join(
        f"{one['name']}: {100 * one['mean']:+.1f} points, {len(one['by_subject'])} subjects, p = {one['p_value']:.3f}"
        for one in result["comparisons"]
    )
    return (
        f"Percent of voxels with a higher r than on the untuned network ({result['data']}). Outlined: tuned on "
        f"that subject. *: difference of mean r, p below .05 over images. {tests}"
        f"{' (signs of subjects flipped).' if tests else ''}{_left_out_of_transfer(result)}"
    )


def _left_out_of_transfer(result: Mapping[str, Any]) -> str:
    """Of every encoded subject; all networks are scored on the same voxels."""
    counts = {cell["subject"]: cell.get("n_voxels_without_r", 0) for cell in result["cells"]}
    return "".join(f" {subject}:{left_out(count)}." for subject, count in counts.items() if count)


def _classification(result: Mapping[str, Any]) -> dict[str, Any]:
    note = (
        f"{result['images']}: {result['n_train']} training and {result['n_test']} test images, {result['n_classes']} "
        f"classes; chance {100 * result['chance']:.1f} %. Logistic regression on frozen, standardised features."
    )
    return {"said": note, "table": image_classification.score_table(result)}


def _salience(result: Mapping[str, Any]) -> str:
    return (
        f"Grad-CAM at {result['convolution']}, {result['subject']}; each map as shares of its "
        f"own maximum; some of {result['n_images']} images (both models have salience there; {result['n_left_out']} left out) "
        f"and their mirror images. Lateralisation index {result['index']:+.3f} "
        f"{interval_text((result['low'], result['high']), '{:+.3f}'.format)} (95 %), p = {result['p_value']:.3f}: above 0 "
        f"where each hemisphere looks at the opposite half. Left share: left hemisphere {result['left_share_lh']:.3f}, right "
        f"{result['left_share_rh']:.3f}."
    )


def _comparison(result: Mapping[str, Any]) -> dict[str, Any]:
    n = len(result["rows"][0]["subjects"])
    return {
        "said": f"Signs of whole subjects flipped, two-sided; {n} subjects cannot give p below {2 / 2**n:.3g}.",
        "table": encoding_comparison.score_table(result["rows"]),
        "whole": [encoding_comparison.whole_text(name, found) for name, found in (result.get("whole") or {}).items()],
    }


def _reasons(row: Row) -> list[str]:
    return [f"{key.removesuffix('_reason').replace('_', ' ')}: {row[key]}" for key in row if key.endswith("_reason")]


def _facts(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How the scores were made, besides what each is."""
    ceilings = "; ".join(f"{name}: {text}" for name, text in (evaluation.get("ceilings") or {}).items())
    facts = {
        "Ceilings": ceilings,
        "Scaling": evaluation.get("scaling"),
        "Baseline": evaluation.get("baseline"),
        "Outer test": evaluation.get("outer"),
    }
    return [(name, str(text)) for name, text in facts.items() if text]
