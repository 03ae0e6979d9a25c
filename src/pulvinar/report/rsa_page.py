"""The page of an RSA run: models against ceilings, nulls and confounds, predicted and measured RDMs, what stages carry."""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from pulvinar.metrics.resampling import interval_text
from pulvinar.report import elements, rsa_figures, tables
from pulvinar.report.findings import cautions, headline
from pulvinar.report.run_folder import Run, read_arrays

Row = Mapping[str, Any]
RULE_OF_THUMB = (
    "A squared correlation is never below zero: on few images the null alone reaches some percent of the ceiling. "
    "Read the signed rho, the null beside each row, and the difference to this run."
)
ELSEWHERE = "The published numbers are of a held-out image set of the challenge; ours are of unseen images of these data."


def targets(run: Run) -> list[str]:
    """The measurements that were scored."""
    return list((run.evaluation or {}).get("ceilings") or {})


def rows_of(run: Run, target: str) -> list[Row]:
    """The rows of one target, this run's own first."""
    return [row for row in run.rows if row.get("target") == target]


def title(run: Run) -> str:
    """Method and finding in one line."""
    return f"{tables.label(run.method)}: {headline(run).lead}"


def figures(run: Run) -> dict[str, Figure]:
    """Scores and stage importance of every target; RDMs and arrangement where artifacts/rdms.npz is there."""
    drawn: dict[str, Figure] = {}
    evaluation = run.evaluation or {}
    for target in targets(run):
        drawn[f"scores_{target}"] = rsa_figures.scores(
            rows_of(run, target), evaluation["ceilings"][target]["scored"], run.method
        )
        stages = (evaluation.get("importance") or {}).get(target)
        if stages:
            drawn[f"stages_{target}"] = rsa_figures.importance(stages)
    arrays = read_arrays(run.folder / "artifacts" / "rdms.npz", ("predicted",))
    if arrays is not None:
        measured = {name.removeprefix("measured_"): rdm for name, rdm in arrays.items() if name.startswith("measured_")}
        drawn["rdms"] = rsa_figures.rdms(arrays["predicted"], measured, order_of(next(iter(measured.values()))))
        drawn["arrangement"] = rsa_figures.arrangement(arrays["predicted"], measured, arrays.get("images"))
    return drawn


COLUMNS = {  # key -> heading, how it is written
    "rho": ("rho", "{:+.3f}"),
    "percent": ("% of ceiling", "{:.1f}"),
    "null_percent": ("null, mean", "{:.1f}"),
    "null_percent_95": ("null, 95th", "{:.1f}"),
    "above_null_percent": ("above null", "{:+.1f}"),
}
WITH_INTERVAL = ("rho", "percent")


def table_files(run: Run) -> dict[str, str]:
    """The score table as CSV, for artifacts/."""
    if not run.rows:
        return {}
    entries = []
    for row in run.rows:
        entry = {key: row[key] for key in ("target", "name", *COLUMNS, "percent_interval")}
        difference = row.get("ours_minus_this")
        if difference is not None:
            entry |= {"ours_minus_this": difference["rho"], "ours_minus_this_interval": difference["interval"]}
            entry["p"] = difference["p_value"]
        entries.append(entry)
    return {"scores.csv": tables.csv_text(entries)}


def sections(run: Run, drawn: Mapping[str, Path]) -> list[str]:
    """The parts of the page, in order."""
    return [
        elements.header(run, *headline(run), _tiles(run), cautions(run)),
        *[_scores(run, target, drawn) for target in targets(run)],
        _rdms(drawn),
        *[_stages(target, drawn) for target in targets(run)],
        elements.published(run, {}, warning=ELSEWHERE),
        elements.settings(run),
    ]


def _tiles(run: Run) -> list[tuple[str, str, str]]:
    tiles = []
    for target in targets(run):
        row = rows_of(run, target)[0]
        between = tables.said_interval(row["percent_interval"], "{:.1f}".format)
        tiles.append((f"{target}, of the ceiling", f"{row['percent']:.1f} %", between))
        between = tables.said_interval(row["rho_interval"], "{:+.3f}".format)
        tiles.append((f"{target}, signed rho", f"{row['rho']:+.3f}", between))
    return tiles


def _scores(run: Run, target: str, drawn: Mapping[str, Path]) -> str:
    ceiling = (run.evaluation or {})["ceilings"][target]["scored"]
    caption = (
        f"{ceiling['n_pairs']:,} pairs of two unseen images, {ceiling['n_subjects']} subjects. Lines are 95 % intervals over "
        f"images and subjects. Ceilings of R²: {ceiling['upper']:.4f} (upper), {ceiling['lower']:.4f} (lower, leave one "
        "subject out)."
    )
    alt = f"Models of {target} against the noise ceilings"
    figure = elements.figure(drawn, f"scores_{target}", caption, alt=alt, format="svg", narrow=True)
    heading = f"<h2>{escape(target)}: against baselines and confounds</h2>\n<p>{_standing(run, target)}</p>"
    return f"<section>{heading}\n{figure}\n{_table(run, target)}</section>"


def _standing(run: Run, target: str) -> str:
    others = [row for row in rows_of(run, target)[1:] if not row["name"].startswith("confound")]
    if not others:
        return "No baseline was scored."
    n_lower = sum(row["ours_minus_this"]["interval"][0] > 0 for row in others)
    return f"{escape(target)}: higher than {n_lower} of {len(others)} baselines by a 95 % interval that excludes zero."


def _table(run: Run, target: str) -> str:
    heads = "".join(
        f'<th class="number">{escape(heading)}<small>{tables.INTERVAL if key in WITH_INTERVAL else ""}</small></th>'
        for key, (heading, _) in COLUMNS.items()
    )
    body = "".join(_row(row, is_ours=row["name"] == run.method) for row in rows_of(run, target))
    minus = f'<th class="number">this run minus it, rho<small>{tables.INTERVAL}</small></th>'
    head = f"<thead><tr><th>model</th>{heads}{minus}</tr></thead>"
    table = f'<div class="wide"><table class="scores">{head}<tbody>{body}</tbody></table></div>'
    return f"{table}\n<p><small>{RULE_OF_THUMB}</small></p>"


def _row(row: Row, *, is_ours: bool) -> str:
    cells = "".join(
        elements.number_cell(form.format(row[key]), interval_text(row.get(f"{key}_interval"), form.format))
        for key, (_, form) in COLUMNS.items()
    )
    difference = row.get("ours_minus_this")
    lead = ""
    if difference is not None:
        lead = f"{difference['rho']:+.3f}<small>{interval_text(difference['interval'], '{:+.3f}'.format)}</small>"
    name = f'<th scope="row">{escape(tables.label(row["name"]))}</th>'
    return f'<tr class="{"run" if is_ours else "control"}">{name}{cells}<td class="number">{lead}</td></tr>'


def _rdms(drawn: Mapping[str, Path]) -> str:
    if "rdms" not in drawn:
        return "<h2>Predicted and measured</h2>" + elements.absent("No RDMs are in this run (artifacts/rdms.npz).")
    matrices = elements.figure(
        drawn, "rdms", "Ranks of the pairs; images in one order (alike ones are neighbours). Grey: no fold held both out.",
        alt="Predicted and measured RDMs", format="png",
    )  # fmt: skip
    points = elements.figure(
        drawn, "arrangement", "Images placed by each RDM (a projection: classical multidimensional scaling), turned "
        "to match; pairs that are not known count as the mean.",
        alt="Arrangement of the images", format="png",
    )  # fmt: skip
    return f"<section><h2>Predicted and measured</h2>\n{matrices}\n{points}</section>"


def _stages(target: str, drawn: Mapping[str, Path]) -> str:
    if f"stages_{target}" not in drawn:
        return ""
    caption = (
        "A mean scale is confounded by how large and how many a stage's channels are: read it with the share of contribution "
        "and with the drop when the stage is left out. Lines are 95 % intervals: of scale and share over splits, of the drop "
        "over images and subjects."
    )
    figure = elements.figure(drawn, f"stages_{target}", caption, alt=f"Importance of stages for {target}", format="svg")
    return f"<section><h2>{escape(target)}: what the stages carry</h2>\n{figure}</section>"


def order_of(rdm: np.ndarray) -> np.ndarray:
    """Images ordered so that alike ones are neighbours (leaves of average linkage)."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    return leaves_list(linkage(rdm[np.triu_indices(len(rdm), 1)].clip(0), "average", optimal_ordering=True))
