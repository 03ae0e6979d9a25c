"""The page of a decoding run: where the kept voxels are, the controls, what was retrieved, how the selection went."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.report import (
    brain_maps,
    curves_figure,
    elements,
    pictures_page,
    roi_figure,
    score_figure,
    summary_picture,
    tables,
    trial_figure,
)
from pulvinar.report.elements import absent
from pulvinar.report.findings import cautions, coverage, headline
from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.settings import PROTOCOLS, facts_of_evaluation, other_rois
from pulvinar.report.text_table import as_text

ALT = {
    "roi": "The selected voxels against the reference, and the learned weights, from the same places",
    "scores": "Scores of this run and of its controls with 95 % intervals, beside chance and the permutation null",
    "trials": "Test trials: the image that was seen and the five that were retrieved",
    "curves": "Voxels alive and losses over the epochs of each phase",
}
ELSEWHERE = "The published numbers are of another data set and other subjects: they say what is usual, not what is better."


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {headline(run).lead}"


def figures(run: Run) -> dict[str, Figure]:
    """What the run has pieces for: 'roi', 'curves', 'scores', 'trials', and 'summary' (1600 x 900 pixels)."""
    drawn: dict[str, Figure] = {}
    if run.maps is not None:
        drawn["roi"] = roi_figure.draw(run.maps, str((run.evaluation or {}).get("reference") or ""))
    if curves_figure.curves(run.records):
        drawn["curves"] = curves_figure.draw(run.records, run.facts.get("selection") or {})
    if run.rows and run.evaluation is not None:
        drawn["scores"] = score_figure.draw(run.evaluation, run.method)
    if run.examples is not None and len(run.examples.rank):
        gallery_size = (run.evaluation or {}).get("gallery_size")
        drawn["trials"] = trial_figure.draw(run.examples, gallery_size)
    summary = summary_picture.draw(run)
    if summary is not None:
        drawn["summary"] = summary
    return drawn


def table_files(run: Run) -> dict[str, str]:
    """File name -> text of the score table, for artifacts/."""
    if not run.rows:
        return {}
    return {"scores.csv": tables.as_csv(run.rows, run.method), "scores.txt": as_text(run.rows, run.method)}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order; the maps for brain viewers are written on the way."""
    lead, rest = headline(run)
    return [
        elements.header(run, lead, rest, _key(run), cautions(run)),
        _voxels(run, drawn, brain_maps.write(run)),
        _controls(run, drawn),
        _trials(run, drawn),
        *pictures_page.reconstructions(run),
        _training(run, drawn),
        _published(run),
        _evidence(run),
        elements.settings(run),
    ]


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


def _figure(drawn: Mapping[str, Path], name: str, caption: str, *, format: str, narrow: bool = False) -> str:
    return elements.figure(drawn, name, caption, alt=ALT[name], format=format, narrow=narrow)


def _voxels(run: Run, drawn: Mapping[str, Path], maps: list[Path]) -> str:
    if run.maps is None:
        return "<h2>Where the voxels are</h2>" + absent("No maps are in this run (artifacts/maps.npz): nothing to show.")
    reference = (run.evaluation or {}).get("reference")
    if run.maps.reference is None:
        note = absent(_no_reference(run))
    elif reference == "planted":
        note = "<p>Simulated data: which voxels carry image information is known, and the selection was not told.</p>"
    else:
        note = "<p>The annotated ROI is a reference, not the truth: voxels outside it may carry image information too.</p>"
    places = {
        "volume": "Axial slices that hold most of the voxels concerned (left is left); the broken lines in the view from the "
        "right, a projection of all voxels, show where they lie.",
        "surface": "The sides from which most of the voxels concerned are seen; darker grey was not measured.",
        "points": "These voxels came as bare points, without grid or mesh: projections of all of them.",
    }[run.maps.geometry.kind]
    caption = f"{places} Below, the learned weight of every voxel after smoothing, from which the selection was taken."
    return (
        f"<section><h2>Where the voxels are</h2>\n{note}\n{_figure(drawn, 'roi', caption, format='png')}\n"
        f"{_coverage(run)}\n{_map_files(run, maps)}</section>"
    )


def _no_reference(run: Run) -> str:
    """Why found and missed voxels cannot be told apart."""
    if run.evaluation is None:
        return "The run was not evaluated: no reference to tell found and missed voxels apart by is in it."
    if said := other_rois(run.evaluation):
        return f"Found and missed voxels cannot be told apart: {said}."
    return "No truth and no annotated ROI came with these data, so found and missed voxels cannot be told apart."


def _coverage(run: Run) -> str:
    areas = coverage(run)
    if not areas:
        return ""
    rows = []
    for area in areas:
        share = area["n_selected"] / area["n_voxels"] if area["n_voxels"] else 0.0
        bar = f'<span class="share"><i style="width:{100 * share:.1f}%"></i></span>'
        name = escape(str(area.get("name") or area.get("area")))
        numbers = f'<td class="number">{area["n_selected"]:,}</td><td class="number">{area["n_voxels"]:,}</td>'
        rows.append(
            f"<tr><th scope='row'>{name}</th>{numbers}<td class='number'>{tables.percent(share)}</td><td>{bar}</td></tr>"
        )
    head = '<tr><th>area</th><th class="number">kept</th><th class="number">of</th><th class="number">share</th><th></th></tr>'
    return f"<h3>Kept voxels in each area</h3>\n<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


def _map_files(run: Run, maps: list[Path]) -> str:
    if not maps:
        return absent("Bare points have no volume and no mesh: their maps are in artifacts/maps.npz only.")
    names = ", ".join(f"<code>{escape(str(path.relative_to(run.folder)))}</code>" for path in maps)
    return f"<p><small>For brain viewers: {names}.</small></p>"


def _controls(run: Run, drawn: Mapping[str, Path]) -> str:
    if run.evaluation is None:
        return "<h2>Against the controls</h2>" + absent("The run was not evaluated: evaluation.json is not in its folder.")
    if not run.rows:
        return "<h2>Against the controls</h2>" + absent("The evaluation holds no rows.")
    shown = "Dots are scores on held-out images, lines their 95 % intervals over images. Sorted by score."
    labels = _labels(run)
    return (
        f"<section><h2>Against the controls</h2>\n<p>{escape(tables.standing(run.rows, run.method))}</p>\n"
        f"<p>{escape(tables.headroom(run.evaluation.get('headroom')))}</p>\n"
        f"{_figure(drawn, 'scores', shown, format='svg', narrow=True)}\n"
        f'<div class="wide">{tables.as_html(run.rows, run.method)}</div>\n'
        "<p><small>In brackets: 95 % intervals over images. The last columns compare each row with "
        f"{escape(tables.label(run.method))}, "
        f"image by image (brain → image): a tie is a 95 % interval of the "
        f"difference that holds zero.{labels}</small></p></section>"
    )


def _published(run: Run) -> str:
    """Published rows by protocol and gallery, each beside our number of the same; apart where we have none."""
    groups: dict[tuple[Any, Any], list[Mapping[str, Any]]] = {}
    for entry in run.published:
        groups.setdefault((entry.get("protocol"), entry.get("gallery_size")), []).append(entry)
    return "".join(
        _published_under(run, entries, protocol=protocol, gallery_size=size) for (protocol, size), entries in groups.items()
    )


def _published_under(run: Run, entries: list[Mapping[str, Any]], *, protocol: str | None, gallery_size: int | None) -> str:
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
    return elements.published_beside(entries, beside, warning=warning)


def _scores_under(run: Run, protocol: str | None, entries: list[Mapping[str, Any]]) -> dict[str, Any]:
    """This run's values of the published metrics under a protocol (None: as the headline); empty without a score."""
    row, headline = run.row(run.method) or {}, (run.evaluation or {}).get("protocol")
    prefix = "" if protocol in (None, headline) else f"{protocol}_"
    keys = {str(entry["metric"]): f"{prefix}{entry['metric']}" for entry in entries}
    return {metric: row[key] for metric, key in keys.items() if row.get(key) is not None}


def _labels(run: Run) -> str:
    """What other papers call the two directions."""
    said = []
    for paper, names in ((run.evaluation or {}).get("labels") or {}).items():
        pairs = [
            f"“{name}” is {tables.metric(value)}" if isinstance(value, str) else f"“{name}” {tables.percent(value, 1)}"
            for name, value in names.items()
        ]
        said.append(f" Labels of {escape(str(paper))}: {escape(', '.join(pairs))}.")
    return "".join(said)


def _trials(run: Run, drawn: Mapping[str, Path]) -> str:
    if "trials" not in drawn or run.examples is None:
        return "<h2>What was retrieved</h2>" + absent("No example trials are in this run (artifacts/examples.npz).")
    n_right, n_trials = int((run.examples.rank == 1).sum()), len(run.examples.rank)
    row = run.row(run.method)
    overall = f" Over all test images the share of rank 1 is {tables.percent(row[SCORE])}." if row else ""
    caption = (
        f"{n_trials} test trials picked to show right and wrong ones ({n_right} right), not a random sample.{overall} "
        "Framed: the image that was seen. Without a frame it is not among the five."
    )
    return f"<section><h2>What was retrieved</h2>\n{_figure(drawn, 'trials', caption, format='png')}</section>"


def _training(run: Run, drawn: Mapping[str, Path]) -> str:
    if "curves" not in drawn:
        return "<h2>How the selection went</h2>" + absent("No training record is in this run (metrics.jsonl).")
    selection = run.facts.get("selection") or {}
    path = f"The selection ended by <b>{escape(str(selection['path']))}</b>" if selection.get("path") else ""
    rounds = f" after {selection['rounds']} rounds" if path and selection.get("rounds") is not None else ""
    said = f"<p>{path}{rounds}.</p>" if path else ""
    caption = "Losses of different phases hold different terms and are not to be compared with each other."
    figure = _figure(drawn, "curves", caption, format="svg")
    return f"<section><h2>How the selection went</h2>\n{said}\n{figure}</section>"


def _evidence(run: Run) -> str:
    facts = facts_of_evaluation(run)
    if not facts:
        return ""
    return f"<section><h2>How the numbers were made</h2>\n{elements.fact_list(facts)}</section>"
