"""How much the selected voxels of a sweep agree over seeds, and over halves of the data."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.core.storage import read_arrays
from pulvinar.scores.overlap import stability

OVER = ("seed", "half")  # settings over which a selection should stay the same


def stability_rows(runs: Sequence[tuple[str, str | None, dict[str, Any], Path]]) -> list[dict[str, Any]]:
    """A row per group of runs (data, target, settings, folder) that differ in nothing but `seed`, or nothing but `half`.

    Mean pairwise Dice of their selections, its range over pairs, and what random selections of these sizes would have.
    """
    rows = []
    for over in OVER:
        groups: dict[str, list[tuple[dict[str, Any], Path]]] = {}
        for data, target, settings, folder in runs:
            if over in settings and (folder / "artifacts" / "maps.npz").is_file():
                rest = {name: value for name, value in settings.items() if name != over}
                groups.setdefault(str((data, target, sorted(rest.items(), key=str))), []).append((settings, folder))
        for group in groups.values():
            if len(group) < 2:
                continue
            selections = [read_arrays(folder / "artifacts" / "maps.npz")["selected"].astype(bool) for _, folder in group]
            agreement = stability(selections)
            rows.append(
                {
                    "over": over,
                    "cells": " ".join(folder.name for _, folder in group),
                    "n_masks": len(group),
                    "n_pairs": agreement.n_pairs,
                    "dice": agreement.dice,
                    "dice_least": agreement.low,
                    "dice_largest": agreement.high,
                    "dice_of_chance": agreement.chance,
                }
            )
    return rows
