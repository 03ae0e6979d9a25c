"""Which channels the gates leave always open, always shut, or decide by image (the dual-gating authors' first figure)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.learning.views import ViewSettings, plain_view

Gates = Callable[[Tensor], Sequence[Tensor]]  # normalised images -> gates (image, channel) of 0 and 1, gate by gate


@dataclass(frozen=True, kw_only=True)
class GateCounts:
    """Of one gate: how many of its channels are open for every image, for none, for some; and the mean share that is open."""

    channels: int
    always_on: int
    always_off: int
    dependent: int
    density: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelStatistics:
    """gates: counts, one per gate. policies: one array (channel,) per gate, the share of images for which a channel is open."""

    n_images: int
    gates: tuple[GateCounts, ...]
    policies: tuple[np.ndarray, ...]

    def share(self, kind: str) -> float:
        """Share of all channels that are 'always_on', 'always_off' or 'dependent'."""
        return sum(getattr(gate, kind) for gate in self.gates) / sum(gate.channels for gate in self.gates)

    def mean_open(self) -> list[int]:
        """Rounded mean number of open channels of each gate, at least 1: the widths of the papers' distilled students."""
        return [max(1, round(float(policy.sum()))) for policy in self.policies]

    def as_dict(self) -> dict[str, Any]:
        """Plain values: shares over all channels, and the counts of every gate."""
        shares = {kind: self.share(kind) for kind in ("always_on", "always_off", "dependent")}
        return {**shares, "n_images": self.n_images, "gates": [asdict(gate) for gate in self.gates]}


def channel_statistics(gates: Iterable[Sequence[Tensor]]) -> ChannelStatistics:
    """Statistics from batches of gates: each batch is one tensor (image, channel) of 0 and 1 per gate."""
    totals: list[Tensor] = []
    n_images = 0
    for batch in gates:
        counts = [(gate >= 0.5).sum(0).long().cpu() for gate in batch]
        totals = counts if not totals else [total + count for total, count in zip(totals, counts, strict=True)]
        n_images += len(batch[0]) if len(batch) else 0
    if not totals or not n_images:
        raise InputError("channel statistics: no gates came; the network has none, or no image did")
    found = tuple(
        GateCounts(
            channels=len(total),
            always_on=int((total == n_images).sum()),
            always_off=int((total == 0).sum()),
            dependent=int(((total > 0) & (total < n_images)).sum()),
            density=float(total.double().mean() / n_images),
        )
        for total in totals
    )
    return ChannelStatistics(n_images=n_images, gates=found, policies=tuple(total.numpy() / n_images for total in totals))


@torch.no_grad()
def gates_of_images(
    gates: Gates,
    images: np.ndarray,
    *,
    views: ViewSettings | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Iterable[Sequence[Tensor]]:
    """Gates of inference for every image, batch by batch."""
    settings = views or ViewSettings()
    for part in blocks_of(len(images), batch_size):
        yield gates(plain_view(torch.from_numpy(np.ascontiguousarray(images[part])).to(device), settings))
