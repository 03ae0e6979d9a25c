"""The page of a folder of self-supervised runs: seeds put together, every row at its share, against what it must beat."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from typing import Any

from pulvinar.metrics.resampling import interval_text
from pulvinar.report import elements, gating_figures, run_folder, tables
from pulvinar.report.findings import Finding, Rival, cautions, is_larger
from pulvinar.report.gating_figures import NAMES, TITLES
from pulvinar.report.gating_runs import KINDS, Comparison, PooledRow, compare, comparisons, find_runs, pool
from pulvinar.storage import write_text

Entry = Mapping[str, Any]
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
    entries = [_entries(comparison) for comparison in found]
    flat = [entry for part in entries for entry in part]
    write_text(folder / "artifacts" / "comparisons.csv", tables.csv_text(flat))
    write_text(folder / "artifacts" / "comparisons.txt", as_text(entries))
    drawn = gating_figures.figure(folder)
    lead, rest = _headline(found, entries, rows)
    caption = f"Accuracy against the multiply-adds reached; bars are 95 % intervals, small dots single runs. {len(runs)} runs."
    alt = "Accuracy against the MAC share reached, of every group of runs and its controls"
    return lead, [
        f'<header>{_mark(runs)}<p class="run">{escape(folder.resolve().name)} · {len(runs)} self-supervised runs</p>\n'
        f"<h1>{escape(lead)}<span>{escape(rest)}</span></h1>\n<p>{escape(INTERVALS)}</p>\n{_cautions(runs)}</header>",
        f"<section>{elements.figure(drawn, 'accuracy', caption, alt=alt, format='svg')}</section>",
        *(_section(part) for part in entries),
        _published(runs, rows),
    ]


def _headline(found: Sequence[Comparison], entries: Sequence[Sequence[Entry]], rows: Sequence[PooledRow]) -> tuple[str, str]:
    """By the rule of report/findings.py: the reference at each budget, the best fair control there, chance."""
    pairs = zip(found, entries, strict=True)
    made = [_finding(comparison, part) for comparison, part in pairs if comparison.budget is not None]
    if not made:
        return f"{len({row.group for row in rows})} kinds of runs, no gates", ""
    return "; ".join(one.said for one in made), " ".join(one.rest for one in made)


def _finding(comparison: Comparison, entries: Sequence[Entry]) -> Finding:
    def write(share: float) -> str:
        return tables.percent(share, 1)

    ours, rivals = entries[0], []
    for entry in entries[1:]:
        rivals.append(
            Rival(
                name=entry["name"],
                value=entry["linear"],
                said=f"{write(entry['linear'])} {interval_text(entry['linear_interval'], write)}",
                larger=is_larger(entry["mac_share"], ours["mac_share"]),
                difference=_bounds(entry),
            )
        )
    said = f"{write(ours['linear'])} by a linear probe with {write(ours['mac_share'])} of the multiply-adds"
    said = f"{said}, {tables.said_interval(ours['linear_interval'], write)}"
    chance = comparison.reference.facts.get("chance")
    of_chance = "Chance was not recorded" if chance is None else f"Chance is {tables.percent(chance)}"
    where = f"At {tables.percent(comparison.budget)}"
    return Finding(value=ours["linear"], said=said, rivals=rivals, chance=of_chance, of=where)


def _bounds(entry: Entry) -> list[float] | None:
    """The interval of the linear accuracy less the first row's; None where they share no seed or test set."""
    ends = [entry[key] for key in ("linear_minus_first_low", "linear_minus_first_high") if key in entry]
    return ends or None


def _mark(runs: Sequence[Path]) -> str:
    return elements.simulated_mark(any(run_folder.read(run).simulated for run in runs))


def _cautions(runs: Sequence[Path]) -> str:
    """The cautions of every run, by its folder's name."""
    return elements.caution_list([f"{run.name}: {text}" for run in runs for text in cautions(run_folder.read(run))])


def name_of(row: PooledRow) -> str:
    """What to call a row: its group, and its branch where that is not the whole network."""
    group = row.group.replace("_", " ")
    if row.branch == "pixels":
        return NAMES["pixels"]
    return group if row.method in ("dense_ssl", "distillation") else f"{group}: {NAMES.get(row.branch, row.branch)}"


def _entries(comparison: Comparison) -> list[dict[str, Any]]:
    """A plain entry for every row: accuracies with intervals, paired differences from the first, 'lower', 'tie' or 'higher'.

    'not told' where a row shares no seed or test set with the first.
    """
    made = []
    for row in comparison.rows:
        entry: dict[str, Any] = {"budget": comparison.budget, "name": name_of(row), "branch": row.branch}
        shares = " ".join(f"{share:.4f}" for share in row.mac_shares)
        entry |= {"n_seeds": len(row.seeds), "mac_share": row.mac_share, "mac_shares": shares}
        for kind in KINDS:
            entry |= {kind: row.score(kind), f"{kind}_interval": row.interval(kind)}
            if row is comparison.reference:
                continue
            found = compare(row, comparison.reference, kind)
            if found is not None:
                entry |= {f"{kind}_minus_first_{key}": value for key, value in asdict(found).items()}
            word = "not told" if found is None else "lower" if found.high < 0 else "higher" if found.low > 0 else "tie"
            entry[f"{kind}_verdict"] = word
        made.append(entry | {key: value for key, value in row.facts.items() if key != "budget"})
    return made


def _heading(entries: Sequence[Entry]) -> str:
    budget = entries[0]["budget"]
    return "Every channel computed" if budget is None else f"At {tables.percent(budget)} of the multiply-adds"


def _cells(entry: Entry, kind: str) -> tuple[str, str, str, str]:
    """Accuracy, its interval, the difference from the first row, that one's interval; in percent and points."""
    accuracy = tables.share(entry[kind]), interval_text(entry[f"{kind}_interval"], tables.share)
    minus = f"{kind}_minus_first_"
    if f"{minus}difference" not in entry:
        return (*accuracy, entry.get(f"{kind}_verdict", ""), "")
    between = interval_text((entry[f"{minus}low"], entry[f"{minus}high"]), tables.points)
    return (*accuracy, tables.points(entry[f"{minus}difference"]), f"{between} {entry[f'{kind}_verdict']}")


def _share(entry: Entry, digits: int) -> str:
    return "–" if entry["branch"] == "pixels" else f"{100 * entry['mac_share']:.{digits}f}"


def _section(entries: Sequence[Entry]) -> str:
    minus = f'<th class="number">minus the first<small>points {tables.INTERVAL}</small></th>'
    heads = "".join(
        f'<th class="number">{escape(TITLES[kind])}<small>% {tables.INTERVAL}</small></th>{minus}' for kind in KINDS
    )
    lead = f'<th>network</th><th class="number">runs</th><th class="number">MACs<small>%</small></th>{heads}'
    body = "".join(_row(entry, is_first=number == 0) for number, entry in enumerate(entries))
    table = f'<table class="scores"><thead><tr>{lead}</tr></thead><tbody>{body}</tbody></table>'
    return f'<section><h2>{escape(_heading(entries))}</h2>\n<div class="wide">{table}</div></section>'


def _row(entry: Entry, *, is_first: bool) -> str:
    cells = [f'<th scope="row">{escape(entry["name"])}</th>', elements.number_cell(str(entry["n_seeds"]))]
    cells.append(elements.number_cell(_share(entry, 1)))
    for kind in KINDS:
        accuracy, interval, difference, between = _cells(entry, kind)
        cells += [elements.number_cell(accuracy, interval), elements.number_cell(difference, between)]
    return f'<tr class="{"run" if is_first else "control"}">{"".join(cells)}</tr>'


def as_text(comparisons: Sequence[Sequence[Entry]]) -> str:
    """The comparisons in aligned columns: runs, MAC share, both accuracies with intervals, differences from the first row."""
    lines = []
    for entries in comparisons:
        lines += [
            _heading(entries),
            f"{'':34} runs   MACs"
            + "".join(f"   {TITLES[kind] + ' [95 %]':34}{'minus the first [95 %]':29}" for kind in KINDS),
        ]
        for entry in entries:
            cells = [f"{entry['name']:34} {entry['n_seeds']:4} {_share(entry, 2):>6}"]
            for kind in KINDS:
                accuracy, interval, difference, between = _cells(entry, kind)
                cells.append(f"{accuracy:>5} {interval}".ljust(32) + f" {difference:>6} {between}".ljust(31))
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
