"""The page of a folder of self-supervised runs: seeds put together, every row at its share, against what it must beat."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pulvinar.core.storage import write_text
from pulvinar.gating import figures as gating_figures
from pulvinar.gating.backbone_scores import PUBLISHED, SCORES
from pulvinar.gating.figures import NAMES, TITLES
from pulvinar.gating.runs import KINDS, Comparison, PooledRow, compare, comparisons, find_runs, pool
from pulvinar.report import run_folder, tables
from pulvinar.report.drawing import SIMULATED
from pulvinar.report.findings import Finding, Rival, cautions, is_larger
from pulvinar.report.published_tables import published
from pulvinar.report.run_folder import Run
from pulvinar.scores.resampling import interval_text
from pulvinar.scores.table import Column, Table, csv_text

Entry = Mapping[str, Any]
DEFINED = {column.key: column for column in SCORES}  # here the mean over runs
OF_SWEEPS = (
    Column("n_seeds", "runs", form="d", definition="Training runs, one for each seed, that the row is the mean of."),
    Column("minus_first", "minus the first", "points", "+.1%", "Accuracy of the row less that of the first row, paired over "
        "runs and test images; percentage points."),
    Column("verdict_of_first", "against", "the first", definition="A tie is a 95 % interval of the difference to the first row "
        "that holds zero; lower and higher are beyond it."),
)  # fmt: skip


def content(folder: Path) -> dict[str, Any]:
    """What sweep.html is filled with; writes the figure, artifacts/comparisons.csv and comparisons.txt into the folder."""
    paths = find_runs(folder)
    runs = [run_folder.read(path) for path in paths]
    rows = pool(paths)
    found = comparisons(rows)
    entries = [_entries(comparison) for comparison in found]
    made = [(_heading(part), _table(part)) for part in entries]
    write_text(folder / "artifacts" / "comparisons.csv", csv_text([entry for part in entries for entry in part]))
    text = "\n".join(f"{heading}\n{table.text(math.inf)}\n" for heading, table in made)
    write_text(folder / "artifacts" / "comparisons.txt", text)
    drawn = gating_figures.figure(folder)
    lead, rest = _headline(found, entries, rows)
    return {
        "title": lead,
        "line": f"{folder.resolve().name} · {len(runs)} self-supervised runs",
        "lead": lead,
        "rest": rest,
        "tiles": [],
        "cautions": [f"{path.name}: {text}" for path, run in zip(paths, runs, strict=True) for text in cautions(run)],
        "simulated": SIMULATED if any(run.simulated for run in runs) else "",
        "drawn": drawn,
        "n_runs": len(runs),
        "comparisons": made,
        "published": _published(runs, rows),
    }


def _headline(found: Sequence[Comparison], entries: Sequence[Sequence[Entry]], rows: Sequence[PooledRow]) -> tuple[str, str]:
    """By the rule of report/findings.py: the reference at each budget, the best fair control there, chance."""
    pairs = zip(found, entries, strict=True)
    made = [_finding(comparison, part) for comparison, part in pairs if comparison.budget is not None]
    if not made:
        return f"{len({row.group for row in rows})} kinds of runs, no gates", ""
    return "; ".join(one.text for one in made), " ".join(one.rest for one in made)


def _finding(comparison: Comparison, entries: Sequence[Entry]) -> Finding:
    def write(share: float) -> str:
        return tables.percent(share, 1)

    ours, rivals = entries[0], []
    for entry in entries[1:]:
        rivals.append(
            Rival(
                name=entry["name"],
                value=entry["linear"],
                text=f"{write(entry['linear'])} {interval_text(entry['linear_interval'], write)}",
                larger=is_larger(entry["mac_share"], ours["mac_share"]),
                difference=_bounds(entry),
            )
        )
    text = f"{write(ours['linear'])} by a linear probe with {write(ours['mac_share'])} of the multiply-adds"
    text = f"{text}, {tables.said_interval(ours['linear_interval'], write)}"
    chance = comparison.reference.facts.get("chance")
    of_chance = "Chance was not recorded" if chance is None else f"Chance is {tables.percent(chance)}"
    where = f"At {tables.percent(comparison.budget)}"
    return Finding(value=ours["linear"], text=text, rivals=rivals, chance=of_chance, of=where)


def _bounds(entry: Entry) -> list[float] | None:
    """The interval of the linear accuracy less the first row's; None where they share no seed or test set."""
    ends = [entry[key] for key in ("linear_minus_first_low", "linear_minus_first_high") if key in entry]
    return ends or None


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


def _table(entries: Sequence[Entry]) -> Table:
    """Runs, MAC share, both accuracies with intervals, differences from the first row."""
    n_runs, difference, verdict = OF_SWEEPS
    columns = [
        Column("name", "network", lead=True),
        n_runs,
        replace(DEFINED["mac_share"], form=".2%"),
    ]
    for kind in KINDS:
        minus = f"{kind}_minus_first"
        columns += [
            replace(DEFINED[kind], label=TITLES[kind]),
            replace(difference, key=f"{minus}_difference", bounds=(f"{minus}_low", f"{minus}_high")),
            replace(verdict, key=f"{kind}_verdict"),
        ]
    return Table(columns, entries, ours=(0,))


def _published(runs: Sequence[Run], rows: Sequence[PooledRow]) -> Table:
    """The published rows of all methods in the folder, once, with each group's dense and gated accuracy below."""
    printed = {str(entry): entry for run in runs for entry in run.published}
    ours = [
        (name_of(row), _made_of(row), {f"linear_{row.branch}": row.score("linear"), "mac_share": row.mac_share})
        for row in rows
        if row.branch in ("gated", "dense")
    ]
    return published(list(printed.values()), ours, columns=PUBLISHED) if printed else Table((), ())


def _made_of(row: PooledRow) -> str:
    """Data, number of training images and, where the runs have them, width and epochs."""
    facts = [f"{key} {row.facts[key]}" for key in ("width", "epochs") if key in row.facts]
    return ", ".join([str(row.facts["data"]), f"{row.facts['n_train']:,} images", *facts])
