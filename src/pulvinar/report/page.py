"""One self-contained HTML page about a finished run, from its folder alone: no script, nothing fetched, prints."""

import base64
import os
from html import escape
from importlib.resources import files
from pathlib import Path

from pulvinar.report import brain_maps, run_folder, tables
from pulvinar.report.findings import cautions, coverage, headline
from pulvinar.report.run_folder import SCORE, Run
from pulvinar.report.settings import facts_of_evaluation, facts_of_run, settings_table
from pulvinar.storage import write_text

ALT = {
    "roi": "The selected voxels against the reference, and the learned weights, from the same places",
    "scores": "Scores of this run and of its controls with intervals, beside chance and the permutation null",
    "trials": "Test trials: the image that was seen and the five that were retrieved",
    "curves": "Voxels alive and losses over the epochs of each phase",
}


def build(run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run, `report.html` in its folder unless `out` names another file; the path written.

    Beside it under `artifacts/`: the figures (PNG and SVG), the maps for brain viewers (NIfTI or GIFTI), and the table as
    `scores.csv` and `scores.txt`. A piece that the folder does not have is said on the page to be absent. Raises
    `FileError` for a folder that is no run, a piece that cannot be read, or a file that cannot be written.
    """
    from pulvinar.report import figures

    found = run_folder.read(run)
    drawn = figures.draw(found)
    maps = brain_maps.write(found)
    if found.rows:
        artifacts = found.folder / "artifacts"
        write_text(artifacts / "scores.csv", tables.as_csv(found.rows, found.method))
        write_text(artifacts / "scores.txt", tables.as_text(found.rows, found.method))
    target = Path(out) if out is not None else found.folder / "report.html"
    write_text(target, _page(found, drawn, maps))
    return target


def _page(run: Run, drawn: dict[str, Path], maps: list[Path]) -> str:
    style = files("pulvinar.report").joinpath("page.css").read_text(encoding="utf-8")
    parts = [
        _header(run),
        _voxels(run, drawn, maps),
        _controls(run, drawn),
        _trials(run, drawn),
        _training(run, drawn),
        _published(run),
        _evidence(run),
        _settings(run),
    ]
    title = escape(f"{tables.label(run.method)}: {headline(run).lead}")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(part for part in parts if part)
        + f"\n<footer>Made by pulvinar from the run folder <code>{escape(run.folder.resolve().name)}</code>.</footer>\n"
        "</body>\n</html>\n"
    )


def _header(run: Run) -> str:
    data = run.facts.get("data") or {}
    facts = [tables.label(run.method), f"subject {data['target']}" if data.get("target") else "", str(data.get("name") or "")]
    line = " · ".join(escape(text) for text in facts if text)
    lead, rest = headline(run)
    items = "".join(f"<li>{escape(text)}</li>" for text in cautions(run))
    box = f'<ul class="cautions">{items}</ul>' if items else ""
    return f'<header><p class="run">{line}</p>\n<h1>{escape(lead)}<span>{escape(rest)}</span></h1>\n{_key(run)}\n{box}</header>'


def _key(run: Run) -> str:
    """The four numbers to remember."""
    row, selection = run.row(run.method) or {}, run.facts.get("selection") or {}
    tiles = []
    if selection.get("n_voxels") is not None and selection.get("n_candidates"):
        share = tables.percent(selection["n_voxels"] / selection["n_candidates"])
        tiles.append(("voxels kept", tables.count(selection["n_voxels"]), f"{share} of {selection['n_candidates']:,}"))
    for key, name in ((SCORE, "brain → image, top-1"), ("image_to_brain_top1", "image → brain, top-1")):
        if row.get(key) is not None:
            bounds = row.get(f"{key}_interval")
            interval = f"interval {' to '.join(tables.percent(bound) for bound in bounds)}" if bounds else "no interval"
            tiles.append((name, tables.percent(row[key]), interval))
    if row.get("precision") is not None:
        reference = (run.evaluation or {}).get("reference") or "reference"
        recall = f"recall {row['recall']:.2f}" if row.get("recall") is not None else ""
        tiles.append((f"precision, {reference} voxels", f"{row['precision']:.2f}", recall))
    cells = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}<small>{escape(s)}</small></dd></div>" for n, v, s in tiles)
    return f'<dl class="key">{cells}</dl>' if tiles else ""


def _figure(drawn: dict[str, Path], name: str, caption: str, *, format: str, narrow: bool = False) -> str:
    """A figure with its bytes in the page: SVG for lines and text, PNG where there are many pixels."""
    if name not in drawn:
        return ""
    kind = "image/svg+xml" if format == "svg" else "image/png"
    content = base64.b64encode(drawn[name].with_suffix(f".{format}").read_bytes()).decode("ascii")
    image = f'<img alt="{escape(ALT[name])}" src="data:{kind};base64,{content}">'
    width = "narrow" if narrow else "full"
    return f'<figure class="{width}">{image}<figcaption>{caption}</figcaption></figure>'


def _absent(text: str) -> str:
    return f'<p class="absent">{escape(text)}</p>'


def _voxels(run: Run, drawn: dict[str, Path], maps: list[Path]) -> str:
    if run.maps is None:
        return "<h2>Where the voxels are</h2>" + _absent("No maps are in this run (artifacts/maps.npz): nothing to show.")
    reference = (run.evaluation or {}).get("reference")
    if run.maps.reference is None:
        note = _absent("No truth and no annotated ROI came with these data, so found and missed voxels cannot be told apart.")
    elif reference == "planted":
        note = "<p>Simulated data: which voxels carry image information is known, and the selection was not told.</p>"
    else:
        note = "<p>The annotated ROI is a reference, not the truth: voxels outside it may carry image information too.</p>"
    places = {
        "volume": "Axial slices that hold most of the voxels concerned (left is left); the broken lines show where they lie.",
        "surface": "The sides from which most of the voxels concerned are seen; darker grey was not measured.",
        "points": "These voxels came as bare points, without grid or mesh.",
    }[run.maps.geometry.kind]
    caption = f"{places} Below, the learned weight of every voxel after smoothing, from which the selection was taken."
    return (
        f"<section><h2>Where the voxels are</h2>\n{note}\n{_figure(drawn, 'roi', caption, format='png')}\n"
        f"{_coverage(run)}\n{_map_files(run, maps)}</section>"
    )


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
        return _absent("Bare points have no volume and no mesh: their maps are in artifacts/maps.npz only.")
    names = ", ".join(f"<code>{escape(str(path.relative_to(run.folder)))}</code>" for path in maps)
    return f"<p><small>For brain viewers: {names}.</small></p>"


def _controls(run: Run, drawn: dict[str, Path]) -> str:
    if run.evaluation is None:
        return "<h2>Against the controls</h2>" + _absent("The run was not evaluated: evaluation.json is not in its folder.")
    if not run.rows:
        return "<h2>Against the controls</h2>" + _absent("The evaluation holds no rows.")
    shown = "Dots are scores on held-out images, lines their intervals (bootstrap). Sorted by score."
    labels = _labels(run)
    return (
        f"<section><h2>Against the controls</h2>\n<p>{escape(tables.standing(run.rows, run.method))}</p>\n"
        f"{_figure(drawn, 'scores', shown, format='svg', narrow=True)}\n"
        f'<div class="wide">{tables.as_html(run.rows, run.method)}</div>\n'
        f"<p><small>Small figures are intervals. The last columns compare each row with {escape(tables.label(run.method))}, "
        f"trial by trial: a tie is an interval of the difference that holds zero.{labels}</small></p></section>"
    )


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


def _trials(run: Run, drawn: dict[str, Path]) -> str:
    if "trials" not in drawn or run.examples is None:
        return "<h2>What was retrieved</h2>" + _absent("No example trials are in this run (artifacts/examples.npz).")
    n_right, n_trials = int((run.examples.rank == 1).sum()), len(run.examples.rank)
    row = run.row(run.method)
    overall = f" Over all test images the share of rank 1 is {tables.percent(row[SCORE])}." if row else ""
    caption = (
        f"{n_trials} test trials picked to show right and wrong ones ({n_right} right), not a random sample.{overall} "
        "Framed: the image that was seen. Without a frame it is not among the five."
    )
    return f"<section><h2>What was retrieved</h2>\n{_figure(drawn, 'trials', caption, format='png')}</section>"


def _training(run: Run, drawn: dict[str, Path]) -> str:
    if "curves" not in drawn:
        return "<h2>How the selection went</h2>" + _absent("No training record is in this run (metrics.jsonl).")
    selection = run.facts.get("selection") or {}
    path = f"The selection ended by <b>{escape(str(selection['path']))}</b>" if selection.get("path") else ""
    rounds = f" after {selection['rounds']} rounds" if path and selection.get("rounds") is not None else ""
    said = f"<p>{path}{rounds}.</p>" if path else ""
    caption = "Losses of different phases hold different terms and are not to be compared with each other."
    figure = _figure(drawn, "curves", caption, format="svg")
    return f"<section><h2>How the selection went</h2>\n{said}\n{figure}</section>"


def _published(run: Run) -> str:
    if not run.published:
        return ""
    return (
        "<section><h2>Published beside ours</h2>\n<p>The published numbers are of another data set, other subjects and "
        "another gallery: they say what is usual, not what is better.</p>\n"
        f'<div class="wide">{tables.published_html(run)}</div></section>'
    )


def _evidence(run: Run) -> str:
    facts = facts_of_evaluation(run)
    if not facts:
        return ""
    return f"<section><h2>How the numbers were made</h2>\n{_list(facts)}</section>"


def _list(facts: list[tuple[str, str]]) -> str:
    return '<dl class="facts">' + "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in facts) + "</dl>"


def _settings(run: Run) -> str:
    config = settings_table(run.config) if run.config is not None else _absent("No settings are in this run (config.toml).")
    return f"<section><h2>Settings and versions</h2>\n{_list(facts_of_run(run))}\n<h3>Settings</h3>\n{config}</section>"
