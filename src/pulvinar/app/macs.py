"""`pulvinar macs`: multiply-adds of a network in closed form."""

from typing import Any

from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import GatedConvs, Stem, resnet_shape


def macs(
    network: str, *, size: int, stem: Stem = "auto", width: float = 1.0, gated_convs: GatedConvs = "conv2"
) -> dict[str, Any]:
    """Dense multiply-adds, those of the gates, and what remains with every gate shut, in units; the floor also as a share."""
    shape = resnet_shape(network, size=size, stem=stem, width=width, gated_convs=gated_convs)
    counted = count_macs(shape, size)
    return {
        "network": network,
        "size": size,
        "stem": stem,
        "width": width,
        "dense": counted.dense,
        "gates": counted.gates,
        "floor": counted.floor,
        "floor_share": counted.floor_share,
        "n_gates": len(shape.gate_channels),
        "n_gated_channels": sum(shape.gate_channels),
    }
