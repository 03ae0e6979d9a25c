"""The page of reconstructed pictures: pixel correlation beside identification for every row, the table, the grid."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pulvinar.metrics.resampling import interval_text
from pulvinar.report import elements, picture_grid, tables
from pulvinar.report.drawing import BOTH, INK, MUTED, RULE, SELECTED_ONLY
from pulvinar.report.findings import cautions, headline
from pulvinar.report.run_folder import Run

Row = Mapping[str, Any]
LABELS = {
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "colour": "Colour",
    "energy": "Energy",
    "alexnet2": "AlexNet 2",
    "alexnet5": "AlexNet 5",
    "inception": "Inception",
    "efficientnet": "EfficientNet",
    "clip": "CLIP",
    "swav": "SwAV",
}
KINDS = {"two_way": "two-way", "distance": "distance", "pixcorr": "r, 425 px", "ssim": "425 px"}


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {headline(run).lead}"


def figures(run: Run) -> dict[str, Figure]:
    """'tradeoff': PixCorr beside two-way identification of every row, with intervals."""
    return {} if run.evaluation is None else _tradeoff(run.evaluation)


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    if run.evaluation is None:
        return {}
    entries = []
    for row in run.rows:
        entry = {"name": row["name"], "description": row["description"], "sees_answer": row["sees_answer"]}
        for name in run.evaluation["metrics"]:
            entry |= {name: row[name], f"{name}_interval": row[f"{name}_interval"]}
        entries.append(entry)
    return {"scores.csv": tables.csv_text(entries)}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order."""
    warning = "The published numbers are of other data and other generators: they say what is usual."
    return [
        elements.header(run, *headline(run), _tiles(run), cautions(run)),
        _scores(run, drawn),
        *reconstructions(run),
        elements.published(run, run.rows[0] if run.rows else {}, warning=warning),
        elements.settings(run),
    ]


def reconstructions(run: Run) -> list[str]:
    """A section for each folder of reconstructions that lies in the run: its grid and table; empty where there is none."""
    made = []
    for folder, summary in picture_grid.folders(run.folder):
        grid = {"grid": folder / "grid"} if (folder / "grid.png").is_file() else {}
        caption = "Images taken by their place among the test images, not by score."
        shown = elements.figure(grid, "grid", caption, alt="Seen, reconstructed and retrieved pictures", format="png")
        generator = escape(str(summary.get("settings", {}).get("generator", {}).get("kind", "embedded")))
        made.append(
            f"<section><h2>What was reconstructed ({generator} generator)</h2>\n{shown}\n"
            f"{_table(summary)}<p><small>All pictures, scores.csv and summary.json: "
            f"<code>{escape(folder.name)}</code>.</small></p></section>"
        )
    return made


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    made = []
    for name in list((run.evaluation or {}).get("metrics", {}))[:4]:
        between = tables.said_interval(run.rows[0][f"{name}_interval"], "{:.3f}".format)
        made.append((heading(name), f"{run.rows[0][name]:.3f}", between))
    return made


def heading(name: str) -> str:
    """A metric as a reader would write it; a network that the user named stays as it was named."""
    return LABELS.get(name, name)


def _scores(run: Run, drawn: Mapping[str, Path]) -> str:
    if run.evaluation is None:
        return "<h2>Scores</h2>" + elements.absent("The run was not evaluated: evaluation.json is not in its folder.")
    caption = (
        "Blurring raises PixCorr and lowers identification; neither alone says that a picture is right. Lines: 95 % intervals "
        "over images; broken line: chance. Vermilion*: rows that have seen the answer."
    )
    alt = "Pixel correlation beside two-way identification"
    figure = elements.figure(drawn, "tradeoff", caption, alt=alt, format="svg", narrow=True)
    return f"<section><h2>Scores</h2>\n{figure}\n{_table(run.evaluation)}</section>"


def _table(summary: Mapping[str, Any]) -> str:
    metrics = summary["metrics"]
    heads = "".join(
        f'<th class="number">{escape(heading(name))}<small>{escape(KINDS[facts["kind"]])} {tables.INTERVAL}</small></th>'
        for name, facts in metrics.items()
    )
    body = "".join(_line(row, metrics, place == 0) for place, row in enumerate(summary["rows"]))
    left_out = "".join(f"<p><small>Left out: {escape(reason)}</small></p>" for reason in summary.get("skipped", {}).values())
    rules = "".join(f"<p><small>Breaks a rule: {escape(rule)}</small></p>" for rule in summary.get("rules_broken", ()))
    note = "<p><small>In brackets: 95 % intervals over images. * has seen the answer. Lower distances are better.</small></p>"
    head = f"<thead><tr><th>pictures</th>{heads}</tr></thead>"
    return f'<div class="wide"><table class="scores">{head}<tbody>{body}</tbody></table></div>{note}{left_out}{rules}'


def _line(row: Row, metrics: Mapping[str, Any], ours: bool) -> str:
    cells = ""
    for name in metrics:
        cells += elements.number_cell(f"{row[name]:.3f}", interval_text(row[f"{name}_interval"], "{:.3f}".format))
    mark = "*" if row["sees_answer"] else ""
    kind = ' class="run"' if ours else ""
    label = escape(tables.label(row["name"]))
    return f'<tr{kind}><th scope="row">{label}{mark}<small>{escape(row["description"])}</small></th>{cells}</tr>'


def _tradeoff(summary: Mapping[str, Any]) -> dict[str, Figure]:
    rows = list(summary["rows"])
    shown = ["pixcorr", *[name for name, facts in summary["metrics"].items() if facts["kind"] == "two_way"][-2:]]
    figure = Figure(figsize=(9, 0.31 * len(rows) + 1.0), layout="constrained")
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axis, name in zip(axes, shown, strict=True):
        for place, row in enumerate(rows):
            colour = BOTH if place == 0 else SELECTED_ONLY if row["sees_answer"] else INK
            axis.plot(row[f"{name}_interval"], [place, place], color=colour, linewidth=1.4, alpha=0.6)
            axis.plot(row[name], place, "o", color=colour, markersize=5)
        if name != "pixcorr":
            axis.axvline(0.5, color=MUTED, linewidth=0.8, linestyle="dashed")
        what = heading(name) if name == "pixcorr" else f"two-way identification,\n{heading(name)}"
        axis.set(xlabel=f"{what} [95 %]")
        axis.grid(axis="x", color=RULE, linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(rows)), [row["name"] + ("*" if row["sees_answer"] else "") for row in rows], color=INK)
    axes[0].set(ylim=(len(rows) - 0.4, -0.6))
    return {"tradeoff": figure}
