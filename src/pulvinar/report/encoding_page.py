"""The page of an encoding run: scores per ROI and hemisphere with nulls and ceilings, and how they were made."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.report import elements, tables
from pulvinar.report.drawing import BOTH, INK, MUTED, REFERENCE_ONLY, RULE
from pulvinar.report.run_folder import Run

Row = Mapping[str, Any]
COLUMNS = {  # key -> heading
    "r_nested": "r, nested",
    "r_optimistic": "r, optimistic",
    "noise_normalised": "noise-normalised, %",
    "share_improved": "share improved",
    "unique_variance": "unique variance",
    "share_significant": "share significant",
}


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {_lead(run)}"


def _whole(run: Run) -> list[Row]:
    """The rows over all voxels, one per subject."""
    return [row for row in run.rows if row["roi"] == "all" and row["hemisphere"] == "both"]


def _lead(run: Run) -> str:
    scores = [row["r_nested"] for row in _whole(run) if row["r_nested"] is not None]
    return f"r = {np.mean(scores):.3f} on held-out images, {len(scores)} subject(s)" if scores else "not evaluated"


def _rest(run: Run) -> str:
    if not _whole(run):
        return "The run was not evaluated."
    first = _whole(run)[0]
    null = f"null: mean {first['null_mean']:+.3f}, 95th percentile {first['null_percentile_95']:+.3f}"
    return f"{first['n_images']} test images that nothing was chosen on; {null}."


def figures(run: Run) -> dict[str, Figure]:
    """'rois': nested r of every ROI and hemisphere, a dot for every subject."""
    regions = list(dict.fromkeys((row["roi"], row["hemisphere"]) for row in run.rows))
    if not regions:
        return {}
    figure = Figure(figsize=(8, 0.3 * len(regions) + 1.2), layout="constrained")
    axis = figure.subplots()
    for place, region in enumerate(regions):
        rows = [row for row in run.rows if (row["roi"], row["hemisphere"]) == region and row["r_nested"] is not None]
        axis.barh(place, np.mean([row["r_nested"] for row in rows] or [0]), color=REFERENCE_ONLY, height=0.62)
        axis.plot([row["r_nested"] for row in rows], [place] * len(rows), "o", color=BOTH, markersize=5)
        axis.plot([row["null_percentile_95"] for row in rows], [place] * len(rows), "|", color=MUTED, markersize=9)
    axis.plot([], [], "o", color=BOTH, markersize=5, label="a subject")
    axis.plot([], [], "|", color=MUTED, markersize=9, label="95th percentile of its null")
    names = [roi if side == "both" else f"{roi}, {side}" for roi, side in regions]
    axis.set_yticks(range(len(regions)), names, color=INK)
    axis.set(ylim=(len(regions) - 0.4, -0.6), xlabel="Pearson r, mean over voxels (outer test images)")
    axis.grid(axis="x", color=RULE, linewidth=0.6)
    axis.set_axisbelow(True)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8, borderaxespad=0.1)
    return {"rois": figure}


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    if not run.rows:
        return {}
    names = ("subject", "roi", "hemisphere", "n_voxels", *COLUMNS)
    return {"scores.csv": tables.csv_text([{name: row.get(name) for name in names} for row in run.rows])}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order."""
    return [
        elements.header(run, _lead(run), _rest(run), _tiles(run), elements.unfinished(run)),
        _regions(run, drawn),
        _evidence(run),
        elements.published(run, _mean_r(run), warning="The published numbers are of other data: they say what is usual."),
        elements.settings(run),
    ]


def _mean_r(run: Run) -> dict[str, float]:
    scores = [row["r_nested"] for row in _whole(run) if row["r_nested"] is not None]
    return {"r_nested": round(float(np.mean(scores)), 3)} if scores else {}


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for row in _whole(run)[:4]:
        low, high = row["r_nested_low"], row["r_nested_high"]
        made.append((f"{row['subject']}, r", f"{row['r_nested']:.3f}", f"interval {low:.3f} to {high:.3f}"))
    return made


def _regions(run: Run, drawn: Mapping[str, Path]) -> str:
    heading = "<h2>ROIs</h2>"
    if not run.rows:
        return heading + elements.absent("The run was not evaluated: evaluation.json is not in its folder.")
    figure = elements.figure(drawn, "rois", "", alt="Nested r of every ROI", format="svg", narrow=True)
    return f"<section>{heading}\n{figure}\n{_table(run.rows)}{_reasons(run.rows[0])}</section>"


def _table(rows: Sequence[Row]) -> str:
    heads = "".join(f'<th class="number">{escape(name)}</th>' for name in COLUMNS.values())
    body = "".join(
        f'<tr><th scope="row">{escape(row["subject"])}</th><td>{escape(row["roi"])}</td><td>{escape(row["hemisphere"])}</td>'
        f'<td class="number">{row["n_voxels"]:,}</td>'
        + "".join(f'<td class="number">{"–" if row.get(key) is None else format(row[key], ".3f")}</td>' for key in COLUMNS)
        + "</tr>"
        for row in rows
    )
    head = f'<tr><th>subject</th><th>ROI</th><th>side</th><th class="number">voxels</th>{heads}</tr>'
    return f'<div class="wide"><table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _reasons(row: Row) -> str:
    said = [f"{key.removesuffix('_reason').replace('_', ' ')}: {row[key]}" for key in row if key.endswith("_reason")]
    return "".join(f"<p><small>None for {escape(text)}.</small></p>" for text in said)


def _evidence(run: Run) -> str:
    evaluation = run.evaluation or {}
    facts = [
        ("r, optimistic", str(evaluation.get("r_optimistic_is", ""))),
        ("Noise-normalised", str(evaluation.get("noise_normalised_is", ""))),
        ("Ceilings", "; ".join(f"{name}: {text}" for name, text in (evaluation.get("ceilings") or {}).items())),
        ("Scaling", str(evaluation.get("scaling", ""))),
        ("Baseline", str(evaluation.get("baseline", ""))),
    ]
    shown = [(name, text) for name, text in facts if text]
    return f"<section><h2>How the numbers were made</h2>\n{elements.fact_list(shown)}</section>" if shown else ""
