"""The page of a self-supervised run: accuracy against multiply-adds beside the controls, channels, training, published rows."""

from collections.abc import Mapping
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.metrics.resampling import interval_text
from pulvinar.report import elements, gating_figures, tables
from pulvinar.report.findings import cautions, headline
from pulvinar.report.gating_runs import KINDS
from pulvinar.report.run_folder import Run

Row = Mapping[str, Any]
ELSEWHERE = (
    "The published numbers are of full-width networks, 500 epochs and whole data sets: they say what is usual, not what is "
    "better. This run's images and epochs stand in its settings below."
)
ALT = {
    "accuracy": "Accuracy against the MAC share reached, of this run and its controls",
    "channels": "Channels always open, decided by the image, and always shut, of every block",
    "curves": "Losses, MAC share and health of the features over the epochs",
    "embedding": "Test images placed by UMAP of their features, coloured by class",
}


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {headline(run).lead}"


def figures(run: Run) -> dict[str, Figure]:
    """'accuracy' and 'channels' of an evaluated run, 'curves' of one with records."""
    return gating_figures.figures(run.folder)


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    if not run.rows:
        return {}
    entries = []
    for row in run.rows:
        keys = ("name", "mac_share", *(key for kind in KINDS for key in (kind, f"{kind}_interval")))
        entries.append({key: row[key] for key in keys})
    return {"scores.csv": tables.csv_text(entries)}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order."""
    ours = {f"{kind}_{row['branch']}": row[kind] for row in run.rows for kind in KINDS}
    ours |= {"mac_share": run.rows[0]["mac_share"]} if run.rows else {}
    return [
        elements.header(run, *headline(run), _tiles(run), cautions(run)),
        _controls(run, drawn),
        _elsewhere(run),
        _figure(drawn, "channels", "What the channels do", "Counted on the test images."),
        _embedding(run, drawn),
        _figure(drawn, "curves", "How the training went", "An effective rank near 1 is a collapsed network."),
        elements.published(run, ours, warning=ELSEWHERE),
        elements.settings(run),
    ]


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for row in run.rows[:2]:
        if row["branch"] in ("gated", "dense"):
            between = tables.said_interval(row["linear_interval"], lambda bound: tables.percent(bound, 1))
            made.append((f"{row['branch']}, linear", tables.percent(row["linear"], 1), between))
            share = f"{tables.percent(row['mac_share'], 1)} of the multiply-adds"
            made.append((f"{row['branch']}, 1-NN", tables.percent(row["knn"], 1), share))
    return made


def _controls(run: Run, drawn: Mapping[str, Path]) -> str:
    heading = "<h2>Against the controls</h2>"
    if not run.rows:
        own = " on its own images; other evaluations stand below" if run.elsewhere else ""
        return heading + elements.absent(f"The run was not evaluated{own}: evaluation.json is not in its folder.")
    caption = "Accuracy against the multiply-adds that were really asked for; bars are 95 % intervals over images."
    figure = elements.figure(drawn, "accuracy", caption, alt=ALT["accuracy"], format="svg")
    return f'<section>{heading}\n{figure}\n<div class="wide">{_table(run.evaluation)}</div></section>'


def _table(evaluation: Row | None) -> str:
    """Every row of an evaluation: MAC share, accuracies with intervals, difference from the first."""
    rows = evaluation["rows"] if evaluation else ()
    nearest = (evaluation or {}).get("settings", {}).get("k", 1)
    titles = (
        f"Nearest neighbours ({nearest}-NN)" if nearest > 1 else gating_figures.TITLES["knn"],
        gating_figures.TITLES["linear"],
    )
    heads = "".join(f'<th class="number">{escape(title)}<small>% {tables.INTERVAL}</small></th>' for title in titles)
    minus = f'<th class="number">linear, minus the first<small>points {tables.INTERVAL}</small></th>'
    lead = f'<th>network</th><th class="number">MACs<small>%</small></th>{heads}{minus}'
    body = "".join(_row(row, is_first=number == 0) for number, row in enumerate(rows))
    return f'<table class="scores"><thead><tr>{lead}</tr></thead><tbody>{body}</tbody></table>'


def _elsewhere(run: Run) -> str:
    """Evaluations on other images, and those scored in another way."""
    made = []
    for name, evaluation in run.elsewhere.items():
        scored = ", ".join(f"{setting} {value}" for setting, value in evaluation.get("changed", {}).items())
        whose = "this run's own images" if evaluation.get("own_images") else "other images"
        title = f"{evaluation.get('images', name)}: {whose}{'; ' + scored if scored else ''}"
        chance = tables.percent(evaluation["chance"])
        told = f"{evaluation['n_train']:,} training, {evaluation['n_test']:,} test images, chance {chance}."
        made.append(f'<h3>{escape(title)}</h3>\n<p>{escape(told)}</p>\n<div class="wide">{_table(evaluation)}</div>')
    return f"<section><h2>On other images, or scored in another way</h2>\n{''.join(made)}</section>" if made else ""


def _embedding(run: Run, drawn: Mapping[str, Path]) -> str:
    if "embedding" in drawn or not (run.folder / gating_figures.FEATURES).is_file():
        caption = "A projection (UMAP) of the features of test images; near is alike, distances between groups say nothing."
        return _figure(drawn, "embedding", "Where the classes lie", caption)
    if find_spec("umap") is None:
        return elements.absent("The map of the test images needs umap-learn: pip install 'pulvinar[ssl]'.")
    return ""


def _row(row: Row, *, is_first: bool) -> str:
    share = "–" if row["mac_share"] is None else f"{100 * row['mac_share']:.1f}"
    name = f'<th scope="row">{escape(tables.label(row["name"]))}<small>{escape(row["description"])}</small></th>'
    cells = [name, elements.number_cell(share)]
    for kind in KINDS:
        cells.append(elements.number_cell(f"{100 * row[kind]:.1f}", interval_text(row[f"{kind}_interval"], tables.share)))
    difference = row.get("linear_difference")
    if difference:
        between = interval_text((difference["low"], difference["high"]), tables.points)
        cells.append(elements.number_cell(tables.points(difference["difference"]), between))
    else:
        cells.append(elements.number_cell(""))
    return f'<tr class="{"run" if is_first else "control"}">{"".join(cells)}</tr>'


def _figure(drawn: Mapping[str, Path], name: str, heading: str, caption: str) -> str:
    if name not in drawn:
        return ""
    figure = elements.figure(drawn, name, caption, alt=ALT[name], format="png" if name == "embedding" else "svg")
    return f"<section><h2>{escape(heading)}</h2>\n{figure}</section>"
