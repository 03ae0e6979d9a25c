"""Multiply-adds of a compact network in closed form: what every image costs, and what a missed one adds.

With k channels kept and d dropped at a gate, everything of networks/macs.py at the kept widths, and all gates that are not
settled (compact_block.py) whole:

    every image:           stem + sum of blocks(k) + gates
    miss, BasicBlock:      9 d C_in H W + 9 d C_out H W
    miss, Bottleneck:      conv1: d1 C_in h w + 9 d1 k2 H W;   conv2: 9 k1 d2 H W + d2 C_out H W,
                           and with both gated conv2's has d1 C_in h w + 9 d1 d2 H W besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from jaxtyping import Int
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.networks.macs import Macs, count_macs
from pulvinar.networks.narrow import narrowed_shape
from pulvinar.networks.resnet_shape import ResNetShape


@dataclass(frozen=True)
class CompactMacs:
    """dense: the whole network without gates. static: an image without a miss. missing: more for a miss, gate by gate."""

    dense: int
    static: int
    gates: int
    missing: tuple[int, ...]

    @property
    def share(self) -> float:
        """`static` as a share of `dense`."""
        return self.static / self.dense

    def expected(self, miss_rates: float | Sequence[float]) -> float:
        """Mean multiply-adds of an image at these miss rates, one for every gate or one for all."""
        rates = [float(miss_rates)] * len(self.missing) if isinstance(miss_rates, int | float) else list(miss_rates)
        if len(rates) != len(self.missing) or not all(0 <= rate <= 1 for rate in rates):
            raise InputError(f"miss_rates: {len(self.missing)} shares in [0, 1] are needed, {rates} came")
        return self.static + sum(rate * cost for rate, cost in zip(rates, self.missing, strict=True))


def ungrouped_macs(shape: ResNetShape, size: int) -> Macs:
    """The multiply-adds of a whole network for use: it has a logit for every channel, also where gates decide on groups."""
    return count_macs(replace(shape, blocks=tuple(replace(block, gate_group=1) for block in shape.blocks)), size)


def compact_macs(
    shape: ResNetShape, size: int, kept: Sequence[Int[Tensor, " _"]] | None, settled: Sequence[bool] = ()
) -> CompactMacs:
    """The multiply-adds of the network that keeps these channels of every gate (None: it has no gates).

    settled: of every block, whether its gates are constants that are not computed (default: none).
    """
    whole = ungrouped_macs(shape, size)
    if kept is None:
        return CompactMacs(whole.dense, whole.dense, 0, ())
    small = count_macs(narrowed_shape(shape, kept), size)
    constant = list(settled) or [False] * len(whole.blocks)
    gates = sum(block.gates for block, skipped in zip(whole.blocks, constant, strict=True) if not skipped)
    missing = []
    for full, cut in zip(shape.blocks, small.blocks, strict=True):
        stays = cut.block.inner
        lost = [width - stay for width, stay in zip(full.inner, stays, strict=True)]
        for number in full.gated:
            cost = cut.linear[number] * lost[number]
            if cut.product and number == 0:
                cost += cut.product * lost[0] * stays[1]
            elif cut.product:
                cost += cut.product * stays[0] * lost[1]
                if lost[0] and lost[1]:
                    cost += cut.linear[0] * lost[0] + cut.product * lost[0] * lost[1]
            missing.append(cost)
    return CompactMacs(whole.dense, small.dense + gates, gates, tuple(missing))
