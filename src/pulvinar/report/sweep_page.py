"""The page of a folder of self-supervised runs: seeds put together, every row at its share, against what it must beat."""

import os
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from pulvinar.report import elements, gating_figures, run_folder, tables
from pulvinar.report.gating_figures import NAMES, TITLES
from pulvinar.report.gating_runs import KINDS, Comparison, PooledRow, compare, comparisons, find_runs, pool
from pulvinar.storage import write_text

ELSEWHERE = (
    "The published numbers are of full-width networks, 500 epochs and whole data sets: they say what is usual, not what is "
    "better. Each row's own data and epochs stand in the settings of its run."
)
INTERVALS = (
    "95 % intervals over training runs and test images, drawn independently; differences are paired over both. A tie is a "
    "difference whose interval holds 0."
)


def page(folder: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """Title and parts of the page; writes the figure, artifacts/comparisons.csv and comparisons.txt into the folder."""
    folder = Path(folder)
    runs = find_runs(folder)
    rows = pool(runs)
    found = comparisons(rows)
    entries = [entry for comparison in found for entry in _entries(comparison)]
    write_text(folder / "artifacts" / "comparisons.csv", tables.csv_text(entries))
    write_text(folder / "artifacts" / "comparisons.txt", as_text(found))
    drawn = gating_figures.figure(folder)
    lead = _lead(found, rows)
    caption = f"Accuracy against the multiply-adds reached; bars are 95 % intervals, small dots single runs. {len(runs)} runs."
    alt = "Accuracy against the MAC share reached, of every group of runs and its controls"
    return lead, [
        f'<header><p class="run">{escape(folder.resolve().name)} · {len(runs)} self-supervised runs</p>\n'
        f"<h1>{escape(lead)}<span>{escape(INTERVALS)}</span></h1></header>",
        f"<section>{elements.figure(drawn, 'accuracy', caption, alt=alt, format='svg')}</section>",
        *(_section(comparison) for comparison in found),
        _published(runs, rows),
    ]


def _lead(found: Sequence[Comparison], rows: Sequence[PooledRow]) -> str:
    said = [
        f"{tables.percent(comparison.reference.score('linear'), 1)} by a linear probe with "
        f"{tables.percent(comparison.reference.mac_share, 1)} of the multiply-adds"
        for comparison in found
        if comparison.budget is not None
    ]
    return "; ".join(said) if said else f"{len({row.group for row in rows})} kinds of runs, no gates"


def name_of(row: PooledRow) -> str:
    """What to call a row: its group, and its branch where that is not the whole network."""
    group = row.group.replace("_", " ")
    if row.branch == "pixels":
        return NAMES["pixels"]
    return group if row.method in ("dense_ssl", "distillation") else f"{group}: {NAMES.get(row.branch, row.branch)}"


def verdict(row: PooledRow, reference: PooledRow, kind: str) -> str:
    """'lower', 'tie' or 'higher' than the reference; 'not told' where they share no seed or test set."""
    found = compare(row, reference, kind)
    if found is None:
        return "not told"
    return "lower" if found.high < 0 else "higher" if found.low > 0 else "tie"


def _entries(comparison: Comparison) -> list[dict[str, Any]]:
    made = []
    for row in comparison.rows:
        entry: dict[str, Any] = {"budget": comparison.budget, "name": name_of(row), "branch": row.branch}
        entry |= {
            "n_seeds": len(row.seeds),
            "mac_share": row.mac_share,
            "mac_shares": " ".join(f"{s:.4f}" for s in row.mac_shares),
        }
        for kind in KINDS:
            low, high = row.interval(kind)
            entry |= {kind: row.score(kind), f"{kind}_low": low, f"{kind}_high": high}
            found = None if row is comparison.reference else compare(row, comparison.reference, kind)
            if found is not None:
                entry |= {f"{kind}_{key}": value for key, value in asdict(found).items()}
        made.append({**entry, **row.facts})
    return made


def _heading(comparison: Comparison) -> str:
    if comparison.budget is None:
        return "Every channel computed"
    return f"At {tables.percent(comparison.budget)} of the multiply-adds"


def _section(comparison: Comparison) -> str:
    reference = name_of(comparison.reference)
    minus = '<th class="number">minus the first<small>points</small></th>'
    heads = "".join(f'<th class="number">{escape(TITLES[kind])}<small>%</small></th>{minus}' for kind in KINDS)
    lead = f'<th>network</th><th class="number">runs</th><th class="number">MACs<small>%</small></th>{heads}'
    body = "".join(_row(row, comparison.reference) for row in comparison.rows)
    table = f'<table class="scores"><thead><tr>{lead}</tr></thead><tbody>{body}</tbody></table>'
    told = f"Compared with: {reference}."
    return f'<section><h2>{escape(_heading(comparison))}</h2>\n<p>{escape(told)}</p>\n<div class="wide">{table}</div></section>'


def _row(row: PooledRow, reference: PooledRow) -> str:
    cells = [f'<th scope="row">{escape(name_of(row))}</th>', elements.number_cell(str(len(row.seeds)))]
    cells.append(elements.number_cell("–" if row.branch == "pixels" else f"{100 * row.mac_share:.1f}"))
    for kind in KINDS:
        low, high = row.interval(kind)
        cells.append(elements.number_cell(f"{100 * row.score(kind):.1f}", f"{100 * low:.1f} to {100 * high:.1f}"))
        found = None if row is reference else compare(row, reference, kind)
        if found is None:
            cells.append(elements.number_cell("" if row is reference else "not told"))
        else:
            between = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}, {verdict(row, reference, kind)}"
            cells.append(elements.number_cell(f"{100 * found.difference:+.1f}", between))
    return f'<tr class="{"run" if row is reference else "control"}">{"".join(cells)}</tr>'


def as_text(found: Sequence[Comparison]) -> str:
    """The comparisons in aligned columns: runs, MAC share, both accuracies with intervals, differences from the first row."""
    lines = []
    for comparison in found:
        lines += [
            _heading(comparison),
            f"{'':34} runs   MACs  1-NN {'95 %':>14}  minus first {'':18} linear {'95 %':>12}  minus first",
        ]
        for row in comparison.rows:
            share = "" if row.branch == "pixels" else f"{100 * row.mac_share:.2f}"
            cells = [f"{name_of(row):34} {len(row.seeds):4} {share:>6}"]
            for kind in KINDS:
                low, high = row.interval(kind)
                cells.append(f"{100 * row.score(kind):5.1f} [{100 * low:4.1f}, {100 * high:4.1f}]")
                other = None if row is comparison.reference else compare(row, comparison.reference, kind)
                text = (
                    ""
                    if other is None
                    else f"{100 * other.difference:+5.1f} [{100 * other.low:+5.1f}, {100 * other.high:+5.1f}]"
                )
                word = "" if other is None else verdict(row, comparison.reference, kind)
                cells.append(f"{text:21} {word:8}")
            lines.append("  ".join(cells).rstrip())
        lines.append("")
    return "\n".join(lines)


def _published(runs: Sequence[Path], rows: Sequence[PooledRow]) -> str:
    """The published rows of all methods in the folder, once, with each group's dense and gated accuracy below."""
    published = {str(entry): entry for run in runs for entry in run_folder.read(run).published}
    ours = [
        (
            name_of(row),
            _made_of(row),
            {f"linear_{row.branch}": row.score("linear"), "mac_share": row.mac_share},
        )
        for row in rows
        if row.branch in ("gated", "dense")
    ]
    return elements.published_beside(list(published.values()), ours, warning=ELSEWHERE)


def _made_of(row: PooledRow) -> str:
    """Data, number of training images and, where the runs have them, width and epochs."""
    facts = [f"{key} {row.facts[key]}" for key in ("width", "epochs") if key in row.facts]
    return ", ".join([str(row.facts["data"]), f"{row.facts['n_train']:,} images", *facts])
