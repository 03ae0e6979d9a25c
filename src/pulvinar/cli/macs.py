"""`pulvinar macs`."""

import argparse

from pulvinar.cli.common import Commands, Result, say


def _macs(arguments: argparse.Namespace) -> Result:
    from pulvinar.app.macs import macs

    result = macs(
        arguments.network,
        size=arguments.size,
        stem=arguments.stem,
        width=arguments.width,
        gated_convs=arguments.gated_convs,
    )
    say(
        arguments,
        "\n".join(f"{name:17} {value:,}" if isinstance(value, int) else f"{name:17} {value}" for name, value in result.items()),
    )
    return result


def declare(commands: Commands) -> None:
    """The command lines of this file."""
    macs = commands.add(
        "macs",
        _macs,
        "multiply-adds of a ResNet: dense, of its gates, and with every gate shut",
        example="pulvinar macs resnet18 --size 32",
    )
    macs.add_argument("network", help="resnet18, resnet34 or resnet50")
    macs.add_argument("--size", type=int, default=32, help="side of the square images in pixels (default 32)")
    macs.add_argument(
        "--stem", choices=("auto", "cifar", "imagenet", "papers"), default="auto", help="docs/methods/dual_gating.md"
    )
    macs.add_argument("--width", type=float, default=1.0, help="multiplies every channel count (default 1)")
    macs.add_argument("--gated-convs", choices=("conv1", "conv2", "both"), default="conv2", help="of Bottleneck blocks")
