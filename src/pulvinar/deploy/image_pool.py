"""Images to time with: those that miss nowhere, and those that ask for a dropped channel somewhere.

Where too few of the images given miss, some are made: moved, within [0, 1], until they open a dropped channel of one gate.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.probes import adversarial

ENOUGH_MISSES = 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Pool:
    """Normalised images that miss nowhere, and images that miss; how many of these were made rather than found."""

    hits: Tensor
    missed: Tensor
    made_misses: int

    def batch(self, size: int, n_missed: int, number: int) -> Tensor:
        """Batch `number` of this size, so many of which miss, in an order that is always the same."""
        rows = torch.arange(number * size, number * size + size) % len(self.hits)
        images = self.hits[rows].clone()
        if n_missed:
            places = (torch.arange(n_missed) * size) // n_missed
            images[places] = self.missed[(torch.arange(n_missed) + number * n_missed) % len(self.missed)]
        return images


@torch.no_grad()
def image_pool(network: CompactNetwork, images: Float[Tensor, "image 3 height width"], *, n_missed: int = 32) -> Pool:
    """Images to time with, those that miss apart; some are made where fewer than 8 of these miss and anything can be missed.

    `InputError` where every image misses: the calibration images were of another kind.
    """
    found = network.inspect(images)
    missed = torch.stack(found.misses).any(0) if found.misses else torch.zeros(len(images), dtype=torch.bool)
    hits, own = images[~missed], images[missed][:n_missed]
    if not len(hits):
        raise InputError(
            f"images: all {len(images)} ask for dropped channels, so the compact network cannot be timed without misses; give "
            "images like those of the calibration"
        )
    made = _made_misses(network, hits, n_missed - len(own)) if len(own) < ENOUGH_MISSES else own[:0]
    return Pool(hits=hits, missed=torch.cat([own, made]), made_misses=len(made))


def _made_misses(network: CompactNetwork, hits: Tensor, n_wanted: int) -> Tensor:
    """Images moved until they open a dropped channel, of one gate after the other."""
    found: list[Tensor] = []
    gates, generator = [gate for gate, can in enumerate(network.can_miss) if can], torch.Generator().manual_seed(0)
    per_gate = -(-n_wanted // max(1, len(gates)))
    for number, gate in enumerate(gates):
        start = torch.arange(number * per_gate, (number + 1) * per_gate) % len(hits)
        with torch.enable_grad():
            moved = adversarial(
                network, hits[start], gate=gate, channels=network.dropped[gate], aim="open", generator=generator
            )
        found.append(moved[torch.stack(network.inspect(moved).misses).any(0)])
    return torch.cat(found)[:n_wanted] if found else hits[:0]
