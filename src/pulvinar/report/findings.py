"""What a run found, in one sentence computed from its numbers, and what a reader must be warned of."""

from typing import NamedTuple

import numpy as np

from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.tables import count, in_sentence, percent, verdict


class Headline(NamedTuple):
    """The finding in two parts: voxels kept and score; then chance, and the control it is compared with."""

    lead: str
    rest: str


def headline(run: Run) -> Headline:
    """'300 of 8,000 voxels kept; 61 % of 300 images identified' and 'Chance is 0.3 %; annotated ROI 58 % with 1,100 voxels.'

    A score that does not pass the 95th percentile of the permutation null is said not to be above chance.
    """
    kept = _kept(run)
    row = run.row(run.method)
    if run.evaluation is None or row is None:
        reason = "The run was not evaluated." if run.evaluation is None else "This run has no score."
        return Headline(kept, reason)
    lead = f"{kept}; {percent(row[SCORE])} of {count(run.evaluation.get('gallery_size'))} images identified"
    return Headline(lead, f"{_chance(run)}{_control(run)}.")


def _kept(run: Run) -> str:
    selection = run.facts.get("selection") or {}
    if selection.get("n_voxels") is None:
        return "No selection was recorded"
    candidates = f" of {count(selection['n_candidates'])}" if selection.get("n_candidates") is not None else ""
    return f"{count(selection['n_voxels'])}{candidates} voxels kept"


def _chance(run: Run) -> str:
    evaluation, row = run.evaluation or {}, run.row(run.method) or {}
    said = f"Chance is {percent(evaluation.get('chance'))}"
    limit = (evaluation.get("null") or {}).get("percentile_95")
    if limit is not None and row[SCORE] <= limit:
        said += f", and the score is not above it (95th percentile of the null {percent(limit)})"
    return said


def _control(run: Run) -> str:
    """The annotated ROI if it was scored, else all voxels, else the best control there is."""
    controls = [row for row in run.rows if row["name"] != run.method and row.get(SCORE) is not None]
    if not controls:
        return "; no control was scored"
    named = {row["name"]: row for row in controls}
    row = named.get("annotated") or named.get("all") or max(controls, key=lambda row: row[SCORE])
    voxels = f" with {count(row['n_voxels'])} voxels" if row.get("n_voxels") is not None else ""
    tie = " (a tie)" if verdict(row, run.method) == "tie" else ""
    return f"; {in_sentence(row['name'])} {percent(row[SCORE])}{voxels}{tie}"


def cautions(run: Run) -> list[str]:
    """What limits the numbers: an unfinished run, broken rules, the safety path, areas that were missed, unread lines."""
    said = []
    status = run.facts.get("status")
    if status != "finished":
        said.append(f"The run is not finished (status: {status}); what follows is what was written so far.")
    said += [f"A rule of evidence was broken: {rule}" for rule in (run.evaluation or {}).get("rules_broken") or ()]
    path = str((run.facts.get("selection") or {}).get("path") or "")
    if path.startswith("safety"):
        reason = path.removeprefix("safety").lstrip(": ") or "no reason was recorded"
        said.append(
            f"The threshold did not reach the voxel budget by itself ({reason}): the top of the smoothed mask was taken."
        )
    missed = [str(area.get("name") or area.get("area")) for area in coverage(run) if not area["n_selected"]]
    if missed:
        said.append(f"No voxel was kept in: {', '.join(missed)}.")
    if run.n_unread_lines:
        said.append(f"{run.n_unread_lines} line(s) of metrics.jsonl could not be read; the curves leave them out.")
    return said


def coverage(run: Run) -> list[dict]:
    """Voxels and kept voxels of each area, from the evaluation, else counted from the maps; empty without areas."""
    stored = (run.evaluation or {}).get("coverage")
    if stored:
        return [dict(area) for area in stored]
    if run.maps is None or run.maps.area is None:
        return []
    area, selected = run.maps.area, run.maps.selected
    numbers = [int(number) for number in np.unique(area) if number != 0]
    return [
        {"area": n, "name": f"area {n}", "n_voxels": int(np.sum(area == n)), "n_selected": int(np.sum(selected[area == n]))}
        for n in numbers
    ]
