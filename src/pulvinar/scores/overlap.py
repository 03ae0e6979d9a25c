"""How well a selection of voxels agrees with a reference (an annotated or planted set), and which areas it reaches."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int

from pulvinar.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Overlap:
    """Agreement of two sets of voxels. A score that is 0/0 is None, and `reason` says why (else `reason` is empty)."""

    precision: float | None
    recall: float | None
    dice: float | None
    n_selected: int
    n_reference: int
    n_both: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class AreaCoverage:
    """What a selection takes of one area: share = n_selected / n_voxels in [0, 1]; covered where one voxel or more is taken."""

    n_voxels: int
    n_selected: int
    share: float
    covered: bool


def overlap(selected: Bool[np.ndarray, " voxel"], reference: Bool[np.ndarray, " reference_voxel"]) -> Overlap:
    """Precision, recall and Dice coefficient of selected voxels against reference voxels.

    precision = |S and R| / |S|, recall = |S and R| / |R|, dice = 2 |S and R| / (|S| + |R|).
    An empty reference leaves recall undefined and an empty selection leaves precision undefined (None, with the reason).
    Raises `InputError` where the two are not over the same voxels.

    >>> found = overlap(np.array([True, True, False, False]), np.array([True, False, False, True]))
    >>> found.precision, found.recall, found.dice
    (0.5, 0.5, 0.5)
    """
    if selected.shape != reference.shape:
        raise InputError(
            f"overlap: the reference has {len(reference)} voxels, the selection {len(selected)}; same voxels needed"
        )
    n_selected, n_reference, n_both = int(selected.sum()), int(reference.sum()), int((selected & reference).sum())
    empty = [name for name, count in (("selection", n_selected), ("reference", n_reference)) if count == 0]
    return Overlap(
        precision=n_both / n_selected if n_selected else None,
        recall=n_both / n_reference if n_reference else None,
        dice=2 * n_both / (n_selected + n_reference) if n_selected + n_reference else None,
        n_selected=n_selected,
        n_reference=n_reference,
        n_both=n_both,
        reason=f"the {' and the '.join(empty)} {'has' if len(empty) == 1 else 'have'} no voxels" if empty else "",
    )


def coverage_per_area(
    selected: Bool[np.ndarray, " voxel"],
    areas: Int[np.ndarray, " area_voxel"],
    *,
    names: Mapping[int, str] | None = None,
) -> dict[str, AreaCoverage]:
    """Share of each area's voxels that is selected, by area name, in the order of the labels.

    areas: one integer label per voxel; 0 and negative labels are in no area. names: label -> name (default: the label as
    text); a named area without any voxel is absent. Raises `InputError` where the two are not over the same voxels.
    """
    if selected.shape != areas.shape:
        raise InputError(f"coverage: the area map has {len(areas)} voxels, the selection {len(selected)}; same voxels needed")
    coverage = {}
    for label in np.unique(areas[areas > 0]).tolist():
        inside = areas == label
        n_voxels, n_selected = int(inside.sum()), int(selected[inside].sum())
        name = str(label) if names is None else names.get(label, str(label))
        coverage[name] = AreaCoverage(
            n_voxels=n_voxels, n_selected=n_selected, share=n_selected / n_voxels, covered=n_selected > 0
        )
    return coverage


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Agreement of several selections of the same voxels: mean, least and largest Dice over pairs, and what chance gives."""

    dice: float
    low: float
    high: float
    n_pairs: int
    chance: float


def stability(selections: Sequence[Bool[np.ndarray, " voxel"]]) -> Stability:
    """Mean pairwise Dice of two or more selections (over seeds, or halves of the data), none of them empty.

    chance: that of selections of the same sizes drawn at random, 2 (|A| |B| / n) / (|A| + |B|), mean over pairs.
    Raises `InputError` for fewer than two, other voxels, or an empty one.

    >>> first, second = np.array([True, True, False, False]), np.array([True, False, True, False])
    >>> stability([first, second]).dice, stability([first, second]).chance
    (0.5, 0.5)
    """
    if len(selections) < 2:
        raise InputError(f"stability: {len(selections)} selections; two or more are needed")
    if any(not selection.any() for selection in selections):
        raise InputError("stability: an empty selection agrees with nothing")
    dice, chance = [], []
    for first, second in combinations(selections, 2):
        dice.append(overlap(first, second).dice or 0.0)
        sizes = int(first.sum()), int(second.sum())
        chance.append(2 * sizes[0] * sizes[1] / len(first) / sum(sizes))
    return Stability(dice=float(np.mean(dice)), low=min(dice), high=max(dice), n_pairs=len(dice), chance=float(np.mean(chance)))
