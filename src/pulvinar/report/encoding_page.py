"""The page of an encoding run: scores per ROI and hemisphere with nulls and ceilings, and how they were made."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.evaluation import tuned_encoding
from pulvinar.evaluation.encoding_comparison import whole_text
from pulvinar.evaluation.encoding_run import left_out_lines
from pulvinar.evaluation.encoding_transfer import left_out
from pulvinar.metrics.resampling import interval_text
from pulvinar.report import elements, encoding_maps, tables
from pulvinar.report import encoding_figures as pictures
from pulvinar.report.findings import cautions, headline
from pulvinar.report.run_folder import Run, read_arrays
from pulvinar.storage import read_json

Row = Mapping[str, Any]
COLUMNS = {  # key -> heading
    "r_nested": "r, nested",
    "r_optimistic": "r, optimistic",
    "noise_normalised": "noise-normalised, %",
    "share_improved": "share improved",
    "unique_variance": "unique variance",
    "share_significant": "share significant",
}
OF_TUNED = {"r_untuned": "r, untuned", "r_tuned": "r, tuned (not taken)"}
ANALYSES = ("transfer", "information", "classification", "salience", "comparison")


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {headline(run).lead}"


def _whole(run: Run) -> list[Row]:
    """The rows over all voxels, one per subject."""
    return [row for row in run.rows if row["roi"] == "all" and row["hemisphere"] == "both"]


def figures(run: Run) -> dict[str, Figure]:
    """'rois', 'layers', a map of every subject ('map-SUBJECT'), and of the analyses whose results lie in the run."""
    drawn: dict[str, Figure] = {}
    maps = encoding_maps.read_all(run)
    if run.rows:
        drawn["rois"] = pictures.rois(run.rows, pictures.ceilings(maps))
    heat = pictures.layers(maps)
    if heat is not None:
        drawn["layers"] = heat
    drawn |= {f"map-{one.subject}": encoding_maps.draw(one) for one in maps if encoding_maps.can_be_drawn(one)}
    results = _results(run)
    for name, draw in (("transfer", pictures.transfer), ("information", pictures.information)):
        if name in results:
            drawn[name] = draw(results[name])
    if (results.get("classification") or {}).get("landscape"):
        drawn["landscape"] = pictures.landscape(results["classification"]["landscape"])
    arrays = read_arrays(run.folder / "artifacts" / "salience.npz", ("images", "lh", "rh", "lh_mirrored", "rh_mirrored"))
    if arrays is not None:
        drawn["salience"] = pictures.salience(arrays)
    return drawn


def _results(run: Run) -> dict[str, Any]:
    """What `pulvinar encoding` has written into the run: name -> result."""
    paths = {name: run.folder / "artifacts" / f"{name}.json" for name in ANALYSES}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    if not run.rows:
        return {}
    names = (
        "subject",
        "roi",
        "hemisphere",
        "n_voxels",
        "n_voxels_without_r",
        "r_nested",
        "r_nested_low",
        "r_nested_high",
        *list(COLUMNS)[1:],
    )
    return {"scores.csv": tables.csv_text([{name: row.get(name) for name in names} for row in run.rows])}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order."""
    return [
        elements.header(run, *headline(run), _tiles(run), cautions(run)),
        _regions(run, drawn),
        _maps(run, drawn),
        _layers(drawn),
        *_analyses(_results(run), drawn),
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
        if row["r_nested"] is not None:
            between = tables.said_interval((row["r_nested_low"], row["r_nested_high"]), "{:.3f}".format)
            made.append((f"{row['subject']}, r", f"{row['r_nested']:.3f}", between))
    return made


def _regions(run: Run, drawn: Mapping[str, Path]) -> str:
    heading = "<h2>ROIs</h2>"
    if not run.rows:
        return heading + elements.absent("The run was not evaluated: evaluation.json is not in its folder.")
    caption = "Bars: mean over subjects, both hemispheres."
    figure = elements.figure(drawn, "rois", caption, alt="Nested r of every ROI", format="svg", narrow=True)
    return (
        f"<section>{heading}\n{figure}\n{_table(run.rows)}{_left_out(run.rows)}{_tuning(run)}{_reasons(run.rows[0])}</section>"
    )


def _left_out(rows: Sequence[Row]) -> str:
    """Voxels that the means over voxels are without."""
    return "".join(f"<p>{escape(line)}.</p>" for line in left_out_lines(rows))


def _tuning(run: Run) -> str:
    """Of tuned runs: where the untuned backbone encodes, or would encode better."""
    evaluation = run.evaluation or {}
    lines = tuned_encoding.warnings_of(evaluation) if "choices" in evaluation else []
    return "".join(f"<p>{escape(line)}.</p>" for line in lines)


def _maps(run: Run, drawn: Mapping[str, Path]) -> str:
    """A map per subject, and the files for brain viewers, which are written on the way."""
    every = encoding_maps.read_all(run)
    if not every:
        return ""
    parts = ["<h2>Brain maps</h2>"]
    for one in every:
        if encoding_maps.can_be_drawn(one):
            text = f"{escape(one.subject)}. {escape(encoding_maps.caption(one))}"
            alt = f"Prediction of every voxel of {one.subject}, and the layer it is predicted from"
            parts.append(elements.figure(drawn, f"map-{one.subject}", text, alt=alt, format="png"))
        else:
            parts.append(elements.absent(f"{one.subject}: no mesh of {one.geometry.template} is bundled; nothing is drawn."))
    files = [path.name for path in encoding_maps.write_files(run, every)]
    if files:
        parts.append(f"<p><small>For brain viewers, in artifacts/: {escape(', '.join(files))}.</small></p>")
    return f"<section>{''.join(parts)}</section>"


def _layers(drawn: Mapping[str, Path]) -> str:
    if "layers" not in drawn:
        return ""
    caption = (
        "R² on inner held-out images (training images: what layers are chosen by, not a score), below 0 counted as 0, mean "
        "over voxels and subjects. Outlined: the layer that most voxels of the ROI took, with their share."
    )
    figure = elements.figure(drawn, "layers", caption, alt="Layer by ROI", format="svg", narrow=True)
    return f"<section><h2>Layers</h2>{figure}</section>"


def _analyses(results: Mapping[str, Any], drawn: Mapping[str, Path]) -> list[str]:
    """A section for each analysis whose result lies in the run; nothing for the others."""
    makers = {
        "comparison": _comparison,
        "transfer": _transfer,
        "information": _information,
        "classification": _classification,
        "salience": _salience,
    }
    return [f"<section>{make(results[name], drawn)}</section>" for name, make in makers.items() if name in results]


def _transfer(result: Mapping[str, Any], drawn: Mapping[str, Path]) -> str:
    tests = "; ".join(
        f"{one['name']}: {100 * one['mean']:+.1f} points, {len(one['by_subject'])} subjects, p = {one['p_value']:.3f}"
        for one in result["comparisons"]
    )
    caption = (
        f"Percent of voxels with a higher r than on the untuned backbone ({escape(str(result['data']))}). Outlined: tuned on "
        f"that subject. *: difference of mean r, p below .05 over images. {escape(tests)}"
        f"{' (signs of subjects flipped).' if tests else ''}{_left_out_of_transfer(result)}"
    )
    return "<h2>Transfer</h2>" + elements.figure(
        drawn, "transfer", caption, alt="Share of voxels improved", format="svg", narrow=True
    )


def _left_out_of_transfer(result: Mapping[str, Any]) -> str:
    """Of every encoded subject; all backbones are scored on the same voxels."""
    counts = {cell["subject"]: cell.get("n_voxels_without_r", 0) for cell in result["cells"]}
    return "".join(f" {escape(subject)}:{left_out(count)}." for subject, count in counts.items() if count)


def _information(result: Mapping[str, Any], drawn: Mapping[str, Path]) -> str:
    caption = (
        "log K − InfoNCE on outer test images, the temperature refit on the other half of them; similarity: "
        f"{escape(str(result['similarity']))}. A lower bound: what is not shown may still be there."
    )
    return "<h2>Information</h2>" + elements.figure(
        drawn, "information", caption, alt="Mutual information, lower bound", format="svg", narrow=True
    )


def _classification(result: Mapping[str, Any], drawn: Mapping[str, Path]) -> str:
    body = "".join(
        f'<tr><th scope="row">{escape(row["name"])}<small>{escape(row["layer"])}</small></th>'
        + elements.number_cell(
            tables.share(row["accuracy"]), interval_text((row["accuracy_low"], row["accuracy_high"]), tables.share)
        )
        + f"{_points(row)}</tr>"
        for row in result["rows"]
    )
    heads = "".join(
        f'<th class="number">{name}<small>{tables.INTERVAL}</small></th>' for name in ("accuracy, %", "minus first, points")
    )
    head = f"<tr><th>features</th>{heads}</tr>"
    table = f'<div class="wide"><table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table></div>'
    said = (
        f"{escape(result['images'])}: {result['n_train']} training and {result['n_test']} test images, {result['n_classes']} "
        f"classes; chance {100 * result['chance']:.1f} %. Logistic regression on frozen, standardised features."
    )
    caption = (
        "Landscape: Bhattacharyya dissimilarity of class probabilities on the test images, then InPCA. Along a component with "
        "a negative eigenvalue (dashed) models that differ are nearer, not farther."
    )
    figure = elements.figure(drawn, "landscape", caption, alt="Landscape of the models", format="svg", narrow=True)
    return f"<h2>Images told apart</h2><p>{said}</p>{table}{figure}"


def _points(row: Row) -> str:
    if "difference" not in row:
        return elements.number_cell("–")
    between = interval_text((row["difference_low"], row["difference_high"]), tables.points)
    return elements.number_cell(tables.points(row["difference"]), between)


def _salience(result: Mapping[str, Any], drawn: Mapping[str, Path]) -> str:
    caption = (
        f"Grad-CAM at {escape(str(result['convolution']))}, {escape(str(result['subject']))}; each map as shares of its "
        f"own maximum; some of {result['n_images']} images (both models have salience there; {result['n_left_out']} left out) "
        f"and their mirror images. Lateralisation index {result['index']:+.3f} "
        f"{interval_text((result['low'], result['high']), '{:+.3f}'.format)} (95 %), p = {result['p_value']:.3f}: above 0 "
        f"where each hemisphere looks at the opposite half. Left share: left hemisphere {result['left_share_lh']:.3f}, right "
        f"{result['left_share_rh']:.3f}."
    )
    return "<h2>Salience</h2>" + elements.figure(drawn, "salience", caption, alt="Salience of both hemispheres", format="png")


def _comparison(result: Mapping[str, Any], drawn: Mapping[str, Path]) -> str:
    rows = result["rows"]
    n_subjects = len(rows[0]["subjects"])

    def number(value: float | None, form: str) -> str:
        return f'<td class="number">{"–" if value is None else format(value, form)}</td>'

    body = "".join(
        f'<tr><th scope="row">{escape(row["run"])}</th><td>{escape(row["roi"])}</td><td>{escape(row["hemisphere"])}</td>'
        + number(row["mean"], ".3f")
        + number(row["p_value"], ".3f")
        + number(row["difference"], "+.4f")
        + number(row["difference_p_value"], ".3f")
        + "</tr>"
        for row in rows
    )
    heads = "".join(f'<th class="number">{name}</th>' for name in ("r", "p", "minus first", "p"))
    head = f"<tr><th>run</th><th>ROI</th><th>side</th>{heads}</tr>"
    said = f"Signs of whole subjects flipped, two-sided; {n_subjects} subjects cannot give p below {2 / 2**n_subjects:.3g}."
    whole = "".join(f"<p>{escape(whole_text(name, found))}.</p>" for name, found in (result.get("whole") or {}).items())
    return (
        f"<h2>Over subjects</h2><p>{said}</p>"
        f'<div class="wide"><table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table></div>{whole}'
    )


def _table(rows: Sequence[Row]) -> str:
    columns = COLUMNS | {key: name for key, name in OF_TUNED.items() if any(row.get(key) is not None for row in rows)}
    below = {"r_nested": tables.INTERVAL}
    heads = "".join(
        f'<th class="number">{escape(name)}<small>{below.get(key, "")}</small></th>' for key, name in columns.items()
    )
    body = "".join(
        f'<tr><th scope="row">{escape(row["subject"])}</th><td>{escape(row["roi"])}</td><td>{escape(row["hemisphere"])}</td>'
        + elements.number_cell(f"{row['n_voxels']:,}", _n_left_out(row))
        + "".join(_score(row, key) for key in columns)
        + "</tr>"
        for row in rows
    )
    head = f'<tr><th>subject</th><th>ROI</th><th>side</th><th class="number">voxels</th>{heads}</tr>'
    return f'<div class="wide"><table class="scores"><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def _score(row: Row, key: str) -> str:
    if row.get(key) is None:
        return elements.number_cell("–")
    ends = (row["r_nested_low"], row["r_nested_high"]) if key == "r_nested" else None
    return elements.number_cell(f"{row[key]:.3f}", interval_text(ends, "{:.3f}".format) if ends else "")


def _n_left_out(row: Row) -> str:
    count = row.get("n_voxels_without_r")
    return f"{count:,} left out" if count else ""


def _reasons(row: Row) -> str:
    said = [f"{key.removesuffix('_reason').replace('_', ' ')}: {row[key]}" for key in row if key.endswith("_reason")]
    return "".join(f"<p><small>None for {escape(text)}.</small></p>" for text in said)


def _evidence(run: Run) -> str:
    evaluation = run.evaluation or {}
    facts = [
        ("r, optimistic", str(evaluation.get("r_optimistic_is", ""))),
        ("Noise-normalised", str(evaluation.get("noise_normalised_is", ""))),
        ("Share improved", str(evaluation.get("share_improved_is", ""))),
        ("Untuned", str(evaluation.get("r_untuned_is", ""))),
        ("Ceilings", "; ".join(f"{name}: {text}" for name, text in (evaluation.get("ceilings") or {}).items())),
        ("Scaling", str(evaluation.get("scaling", ""))),
        ("Baseline", str(evaluation.get("baseline", ""))),
        ("Outer test", str(evaluation.get("outer", ""))),
    ]
    shown = [(name, text) for name, text in facts if text]
    return f"<section><h2>How the numbers were made</h2>\n{elements.fact_list(shown)}</section>" if shown else ""
