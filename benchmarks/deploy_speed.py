"""How much of a smaller network's saving is time: ResNet-18 with planted gates, and Torch-Pruning at equal multiply-adds.

Gates are planted so that a fixed share of channels is open for every image and the others for none. Timed in turn, in every
runtime: the dense network, `compact` (the open channels with their gates and the exact fallback, which nothing asks for),
`static` (the open channels alone), and `torch-pruning` (magnitude, one ratio for all layers, searched until the multiply-adds
are those of `static`). Shares of open channels, by --spreads:

uniform    the same in every block
realistic  as a network trained by dual gating to 30 % had them (docs/deploy_speed.md), scaled to the mean density
blocks16   uniform, rounded to multiples of 16 channels (as gates by groups of 16 leave them)

efficiency = (t_dense / t) x MAC share, from medians over rounds; `best` the same from the fastest round of each, which other
work on the machine disturbs least; so does `--clock cpu` (one thread). Torch-Pruning is not a dependency: `uv sync --group
bench`, or without it its rows are left out.

    python benchmarks/deploy_speed.py --out speed          # all of it: about half an hour on one idle core
"""

import argparse
import io
import sys
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pulvinar.core.progress import log, show
from pulvinar.core.storage import write_json, write_text
from pulvinar.deploy.compact import CompactNetwork, compact_to, dense_network, static_network
from pulvinar.deploy.runtimes import Runner, UnavailableError, make_runner, onnx_runner, runtime_version
from pulvinar.deploy.timing import in_turn, seconds_of
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import Gate
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.scores.table import csv_text

# Mean density of each gate of a ResNet-18 of width .25 trained by dual gating to 30 % (2,000 test images).
TRAINED = (0.53, 0.15, 0.62, 0.09, 0.36, 0.16, 0.34, 0.14)
RUNTIMES = ("torch eager", "torch packed", "onnxruntime", "openvino f32")


def densities(spread: str, density: float) -> list[float]:
    """The share of open channels of every gate, of this mean."""
    if spread != "realistic":
        return [density] * len(TRAINED)
    low, high = 0.0, 20.0
    for _ in range(60):
        scale = (low + high) / 2
        mean = np.mean([min(1.0, scale * share) for share in TRAINED])
        low, high = (scale, high) if mean < density else (low, scale)
    return [min(1.0, low * share) for share in TRAINED]


def planted(size: int, width: float, spread: str, density: float) -> tuple[GatedResNet, list[torch.Tensor]]:
    """A network whose gates open these channels for every image, and the channels."""
    generator = torch.Generator().manual_seed(0)
    shape = resnet_shape("resnet18", size=size, width=width)
    network = GatedResNet(shape, size=size, gate_bias=0.0).initialise(generator).eval()
    kept = []
    for share, channels in zip(densities(spread, density), shape.gate_channels, strict=True):
        count = max(1, round(share * channels))
        if spread == "blocks16":
            count = min(channels, 16 * max(1, round(count / 16)))
        kept.append(torch.randperm(channels, generator=generator)[:count].sort().values)
    gates = [module for module in network.modules() if isinstance(module, Gate)]
    for gate, channels in zip(gates, kept, strict=True):
        nn.init.normal_(gate.expand.weight, std=1e-6, generator=generator)  # not constant, so it has to be computed
        nn.init.constant_(gate.expand.bias, -1.0)
        gate.expand.bias.data[channels] = 1.0
    return network, kept


def torchvision_resnet18(size: int, width: float) -> nn.Module:
    """torchvision's ResNet-18 with our stem for this size, without its classifier."""
    import torchvision

    made = torchvision.models.ResNet(torchvision.models.resnet.BasicBlock, [2, 2, 2, 2], width_per_group=64)
    if size <= 64:
        made.conv1, made.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    made.fc = nn.Identity()
    if width != 1:
        raise SystemExit("torch-pruning rows are for --width 1")
    return made.eval()


def multiply_adds(network: nn.Module, size: int) -> int:
    """By torch's counter."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


def torch_pruned(size: int, macs: int, round_to: int | None) -> nn.Module:
    """A ResNet-18 pruned by Torch-Pruning to so many multiply-adds, as near as one ratio gets; batch-norms fused."""
    import torch_pruning
    from torch.fx.experimental.optimization import fuse

    low, high, best = 0.0, 0.99, None
    for _ in range(8):
        ratio = (low + high) / 2
        torch.manual_seed(0)
        model = torchvision_resnet18(size, 1.0)
        pruner = torch_pruning.pruner.MagnitudePruner(
            model,
            torch.zeros(1, 3, size, size),
            importance=torch_pruning.importance.MagnitudeImportance(p=2),
            pruning_ratio=ratio,
            round_to=round_to,
        )
        pruner.step()
        found = multiply_adds(model, size)
        if best is None or abs(found - macs) < abs(best[0] - macs):
            best = (found, model)
        low, high = (ratio, high) if found > macs else (low, ratio)
    return fuse(best[1].eval())


def plain_runner(runtime: str, network: nn.Module, *, size: int, batch: int) -> Runner | None:
    """Any network in a runtime; none in those that are made of our own parts."""
    if runtime == "torch eager":
        model = network.to(memory_format=torch.channels_last)
        return Runner(
            lambda images: images.contiguous(memory_format=torch.channels_last), torch.no_grad()(model), lambda _: (_, None)
        )
    if runtime.startswith("torch"):
        return None
    buffer = io.BytesIO()
    program = torch.onnx.export(
        network, (torch.zeros(batch, 3, size, size),), dynamo=True, input_names=["images"], verbose=False
    )
    program.save(buffer)
    shape = (batch, 3, size, size)
    return onnx_runner(
        runtime, buffer.getvalue(), shape=shape, threads=torch.get_num_threads(), prepare=lambda images: images.numpy()
    )


def rows_of(size: int, batch: int, arguments: argparse.Namespace) -> list[dict]:
    """Everything of one size of image and batch, timed in turn."""
    images = torch.rand(4, batch, 3, size, size, generator=torch.Generator().manual_seed(1))
    networks: dict[tuple[str, float, str], CompactNetwork | nn.Module] = {}
    macs: dict[tuple[str, float, str], int] = {}
    first, _ = planted(size, arguments.width, "uniform", 1.0)
    networks["", 1.0, "dense"], macs["", 1.0, "dense"] = dense_network(first), count_macs(first.shape, size).dense
    for spread, density in product(arguments.spreads, arguments.densities):
        model, kept = planted(size, arguments.width, spread, density)
        compact, static = compact_to(model, kept), static_network(model, kept)
        networks |= {(spread, density, "compact"): compact, (spread, density, "static"): static}
        macs |= {(spread, density, "compact"): compact.macs.static, (spread, density, "static"): static.macs.dense}
        if spread != "realistic" and find_spec("torch_pruning"):
            log(f"torch-pruning, {size} pixels, {spread} {density}")
            pruned = torch_pruned(size, static.macs.dense, 16 if spread == "blocks16" else None)
            key = (spread, density, "torch-pruning")
            networks[key], macs[key] = pruned, multiply_adds(pruned, size)
    jobs = {}
    for runtime, (key, network) in product(arguments.runtimes, networks.items()):
        try:
            if isinstance(network, CompactNetwork):
                runner = make_runner(runtime, network, batch=batch, threads=arguments.threads)
            else:
                runner = plain_runner(runtime, network, size=size, batch=batch)
        except UnavailableError as error:
            log(f"{runtime}: {error}")
            continue
        if runner is not None:
            given = [runner.prepare(part) for part in images]
            jobs[runtime, *key] = partial(_once, runner, given if batch == 1 else given[:1], batch == 1, arguments.clock)
    seconds = in_turn(jobs, arguments.repeats)
    rows = []
    for (runtime, spread, density, form), found in seconds.items():
        dense, share = seconds[runtime, "", 1.0, "dense"], macs[spread, density, form] / macs["", 1.0, "dense"]
        paired = np.quantile(dense / found * share, [0.25, 0.75])
        rows.append(
            {
                "size": size,
                "batch": batch,
                "runtime": runtime,
                "spread": spread,
                "density": density,
                "form": form,
                "mac_share": share,
                "milliseconds": 1000 * float(np.median(found)),
                "lower_quartile": 1000 * float(np.quantile(found, 0.25)),
                "upper_quartile": 1000 * float(np.quantile(found, 0.75)),
                "fastest": 1000 * float(found.min()),
                "efficiency": float(np.median(dense) / np.median(found)) * share,
                "efficiency_low": float(paired[0]),
                "efficiency_high": float(paired[1]),
                "efficiency_best": float(dense.min() / found.min()) * share,
            }
        )
    return rows


def _once(runner: Runner, given: list, warm_up: bool, clock: str, number: int) -> float:
    return seconds_of(runner.run, given, warm_up=warm_up, clock=clock)


def table(rows: list[dict]) -> str:
    """Runtime efficiency, a line per size, batch, spread, density and form, a column per runtime: median (best rounds)."""
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    lines = [
        f"| pixels | batch | channels open | form | MAC share | {' | '.join(runtimes)} |",
        "|---|---|---|---|---|" + "---|" * len(runtimes),
    ]
    kinds = list(dict.fromkeys((r["size"], r["batch"], r["spread"], r["density"], r["form"]) for r in rows))
    for kind in kinds:
        found = {r["runtime"]: r for r in rows if (r["size"], r["batch"], r["spread"], r["density"], r["form"]) == kind}
        size, batch, spread, density, form = kind
        share = next(iter(found.values()))["mac_share"]
        cells = []
        for runtime in runtimes:
            row = found.get(runtime)
            if row is None:
                cells.append("–")
            elif form == "dense":
                cells.append(f"{row['milliseconds']:.2f} ms")
            else:
                cells.append(f"{row['efficiency']:.2f} ({row['efficiency_best']:.2f})")
        what = f"{spread} {density:.1f}" if form != "dense" else "all"
        lines.append(f"| {size} | {batch} | {what} | {form} | {share:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for speed.json, speed.csv, speed.md")
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 224])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--densities", type=float, nargs="+", default=[0.1, 0.3, 0.5])
    parser.add_argument("--spreads", nargs="+", default=["uniform", "realistic", "blocks16"])
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--width", type=float, default=1.0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if not find_spec("torch_pruning"):
        log("torch-pruning is not installed, so its rows are left out (uv sync --group bench)")
    rows: list[dict] = []
    for size, batch in product(arguments.sizes, arguments.batches):
        rows += rows_of(size, batch, arguments)
        versions = {name: runtime_version(name) for name in arguments.runtimes}
        settings = {name: str(value) for name, value in vars(arguments).items()}
        write_json(arguments.out / "speed.json", {"settings": settings, "versions": versions, "rows": rows})
        write_text(arguments.out / "speed.csv", csv_text(rows))
        write_text(arguments.out / "speed.md", table(rows) + "\n")
    sys.stdout.write(table(rows) + "\n")


if __name__ == "__main__":
    show(True)
    main()
