"""Self-supervised runs of several seeds put together: accuracy at the MAC share reached, with intervals over seeds and images.

Runs belong together when they have the same method and settings but for the seed, and the same data. A run keeps per test
image whether it was right (predictions/correct.npz), so that rows are compared on the same images and seeds.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.config import read_toml
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.storage import fingerprint, read_arrays, read_json
from pulvinar.scores.resampling import PairedDifference, bootstrap_shares, paired_difference, share_interval

KINDS = ("knn", "linear")
N_BOOTSTRAP = 2000


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledRow:
    """A branch or control of a group of runs.

    group: what the runs share, from their folders' names without the seed. branch: gated, dense, or a control's name.
    mac_shares: (seed,). correct: kind ('knn', 'linear') -> (seed, image), share of probe seeds that were right. facts: budget,
    epochs, width, number of training images where the run's settings have them.
    """

    group: str
    method: str
    branch: str
    seeds: tuple[int, ...]
    mac_shares: np.ndarray
    correct: dict[str, np.ndarray]
    facts: dict[str, Any]

    @property
    def mac_share(self) -> float:
        """Mean over seeds; NaN for raw pixels."""
        return float(self.mac_shares.mean())

    def score(self, kind: str) -> float:
        """Mean accuracy over seeds and images."""
        return float(self.correct[kind].mean())

    def interval(self, kind: str, *, seed: int = 0) -> tuple[float, float]:
        """95 % interval over seeds and images, drawn independently of each other; Wilson's where all or none are right."""
        values, generator = self.correct[kind], np.random.default_rng(seed)
        seeds = bootstrap_shares(values.shape[0], N_BOOTSTRAP, generator)
        images = bootstrap_shares(values.shape[1], N_BOOTSTRAP, generator)
        return share_interval(values, ((seeds @ values) * images).sum(1), n_units=values.shape[1])


def find_runs(folder: str | os.PathLike[str]) -> list[Path]:
    """Run folders directly inside a folder that have been evaluated, or the folder itself if it is one."""
    folder = Path(folder)
    if (folder / "run.json").is_file():
        return [folder]
    found = [
        path.parent for path in sorted(folder.glob("*/run.json")) if (path.parent / "predictions" / "correct.npz").is_file()
    ]
    if not found:
        raise FileError(f"{folder}: no evaluated self-supervised run; evaluate the runs first (`pulvinar evaluate RUN`)")
    return found


def pool(folders: Sequence[Path]) -> list[PooledRow]:
    """Rows of all runs, seeds of equal settings together, in the order in which they come."""
    parts: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for folder in folders:
        for part in _rows_of(folder):
            parts.setdefault((part["key"], part["branch"]), []).append(part)
    return [_joined(sorted(found, key=lambda part: part["seed"])) for found in parts.values()]


def _rows_of(folder: Path) -> list[dict[str, Any]]:
    facts, evaluation = read_json(folder / "run.json"), read_json(folder / "evaluation.json")
    correct = read_arrays(folder / "predictions" / "correct.npz")
    settings = read_toml(folder / "config.toml")
    shared = {name: value for name, value in settings.items() if name != "seed"}
    group = re.sub(r",?seed=\d+", "", folder.name).strip(",") or folder.name
    known: dict[str, Any] = {name: shared[name] for name in ("budget", "epochs", "width") if name in shared}
    made: list[dict[str, Any]] = []
    for row in evaluation["rows"]:
        branch = str(row["branch"])
        made.append(
            {
                "key": fingerprint(facts["method"], facts["data"].get("fingerprint"), sorted(shared.items(), key=str)),
                "branch": branch,
                "group": group,
                "method": facts["method"],
                "seed": int(facts["seed"]),
                "mac_share": np.nan if row["mac_share"] is None else float(row["mac_share"]),
                "correct": {kind: np.atleast_2d(correct[f"{kind}_{branch}"]).mean(0) for kind in KINDS},
                "facts": {
                    **known,
                    "n_train": evaluation["n_train"],
                    "data": facts["data"].get("name"),
                    "chance": evaluation.get("chance"),
                },
            }
        )
    return made


def _joined(parts: list[dict[str, Any]]) -> PooledRow:
    if len({part["seed"] for part in parts}) < len(parts):
        raise InputError(f"{parts[0]['group']}: two runs of one seed and equal settings; report them from folders of their own")
    sizes = {part["correct"]["knn"].shape for part in parts}
    if len(sizes) > 1:
        raise InputError(f"{parts[0]['group']}: the seeds were scored on test sets of different sizes {sorted(sizes)}")
    return PooledRow(
        group=parts[0]["group"],
        method=parts[0]["method"],
        branch=parts[0]["branch"],
        seeds=tuple(part["seed"] for part in parts),
        mac_shares=np.array([part["mac_share"] for part in parts]),
        correct={kind: np.stack([part["correct"][kind] for part in parts]) for kind in KINDS},
        facts=parts[0]["facts"],
    )


def compare(row: PooledRow, reference: PooledRow, kind: str, *, seed: int = 0) -> PairedDifference | None:
    """Accuracy of `row` minus that of `reference` on the seeds that both have; None where they share no seed or test set."""
    shared = [number for number in row.seeds if number in reference.seeds]
    ours, theirs = row.correct[kind], reference.correct[kind]
    if not shared or ours.shape[1] != theirs.shape[1]:
        return None
    first = ours[[row.seeds.index(number) for number in shared]]
    second = theirs[[reference.seeds.index(number) for number in shared]]
    return paired_difference(first, second, generator=np.random.default_rng(seed), of_shares=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Rows that belong beside each other, the reference first: at one budget, or with every channel (budget None)."""

    budget: float | None
    reference: PooledRow
    rows: tuple[PooledRow, ...]


def comparisons(rows: Sequence[PooledRow]) -> list[Comparison]:
    """For every budget the rows that reached about its share, against the dual gated network; then the dense ones.

    About: within a tenth of the budget, or 1.5 points. The dense ones are compared with the network that was trained without
    gates. Where the reference that is meant is missing, the first row is it. Raw pixels stand in every comparison.
    """
    budgets = sorted({float(row.facts["budget"]) for row in rows if row.branch == "gated" and "budget" in row.facts})
    made = []
    for budget in budgets:
        near = [row for row in rows if abs(row.mac_share - budget) <= max(0.015, 0.1 * budget)]
        own = [row for row in near if row.branch == "gated" and row.facts.get("budget") == budget]
        made.append(_comparison(budget, near, [row for row in own if row.method == "dual_gating"] or own or near, rows))
    whole = [row for row in rows if row.mac_share > 0.999 and row.branch == "dense"]
    if whole:
        made.append(_comparison(None, whole, [row for row in whole if row.method == "dense_ssl"] or whole, rows))
    return made


def _comparison(
    budget: float | None, near: Sequence[PooledRow], references: Sequence[PooledRow], rows: Sequence[PooledRow]
) -> Comparison:
    reference = references[0]
    kinds = {"gated": 0, "dense": 1}
    others = sorted((row for row in near if row is not reference), key=lambda row: kinds.get(row.branch, 2))
    pixels = sorted((row for row in rows if row.branch == "pixels"), key=lambda row: -len(row.seeds))[:1]
    return Comparison(budget=budget, reference=reference, rows=(reference, *others, *pixels))
