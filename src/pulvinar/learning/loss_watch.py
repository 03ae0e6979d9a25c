"""Did a training go wrong? What the records of its epochs say: losses that rose, or that were not finite.

The rules are ours. A loss rose where its last epoch lies above the first, or where more than half of what was gained by the
best epoch was lost again (over three epochs or more). Terms with a schedule of their own (budget, bound, decide) are taken off
first, and rounds of a selection are left out: there the loss rises by design, since voxels are cut.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

SCHEDULED = ("budget", "bound", "decide")
BY_DESIGN = ("select",)  # phases whose loss rises as the network is cut
FEWEST_EPOCHS, LOST_AGAIN, LEAST_GAIN = 3, 0.5, 0.02


def troubles(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for every part of a training (phase, network) whose loss rose or was not finite; empty where all is well."""
    parts: dict[str, list[float]] = {}
    for record in records:
        if "loss" in record and record.get("phase") not in BY_DESIGN:
            name = ", ".join(str(record[key]) for key in ("phase", "network") if record.get(key) is not None)
            parts.setdefault(name, []).append(_own_loss(record))
    sentences = []
    for name, losses in parts.items():
        found = trouble(losses)
        sentences += [f"{name}: {found}" if name else found[0].upper() + found[1:]] if found else []
    return sentences


def trouble(losses: Sequence[float]) -> str:
    """What is wrong with the losses of one training, epoch by epoch; empty where nothing is.

    >>> trouble([5.0, 4.0, 3.0]), trouble([5.0, 8.0, 10.0])
    ('', 'the loss rose: 5 in epoch 1, 10 in epoch 3; lower the learning rate')
    """
    unknown = [number for number, loss in enumerate(losses, start=1) if not math.isfinite(loss)]
    if unknown:
        return f"the loss was not finite in {len(unknown)} of {len(losses)} epochs, first in epoch {unknown[0]}"
    if len(losses) < 2:
        return ""
    first, last, lowest = losses[0], losses[-1], min(losses)
    gained = first - lowest
    lost = len(losses) >= FEWEST_EPOCHS and gained > LEAST_GAIN * abs(first) and last - lowest > LOST_AGAIN * gained
    if last <= first and not lost:
        return ""
    start, where = (lowest, losses.index(lowest) + 1) if lost else (first, 1)
    return f"the loss rose: {start:.4g} in epoch {where}, {last:.4g} in epoch {len(losses)}; lower the learning rate"


def _own_loss(record: Mapping[str, Any]) -> float:
    """The loss of an epoch less its scheduled terms; NaN where it was not a number (as JSON keeps it: null)."""
    if record["loss"] is None:
        return math.nan
    return float(record["loss"]) - sum(float(record.get(term) or 0.0) for term in SCHEDULED)
