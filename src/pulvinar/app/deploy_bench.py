"""`pulvinar deploy bench`: how long a network for use takes here, in every form and runtime."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from torch import Tensor

from pulvinar.app.data import open_data
from pulvinar.app.stored_runs import uses_run
from pulvinar.core import terminal
from pulvinar.core.errors import InputError
from pulvinar.core.progress import warn
from pulvinar.core.sampling import evenly_spaced
from pulvinar.core.storage import atomic_folder, refuse_existing, write_json, write_text
from pulvinar.deploy.bench import RUNTIMES, Bench, BenchSettings, bench
from pulvinar.deploy.bench_figure import draw
from pulvinar.deploy.choice_bench import bench_choices
from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.files import CHOICES, load, load_choices, load_config
from pulvinar.deploy.probes import noise, normalised
from pulvinar.deploy.timing import Clock
from pulvinar.report.drawing import save, style
from pulvinar.scores.table import Column, Table, csv_text

MOST_IMAGES = 512


@uses_run
def bench_network(
    net: str,
    *,
    data: str | None = None,
    out: str | None = None,
    batches: Sequence[int] = (1, 32),
    threads: int = 1,
    runtimes: Sequence[str] | None = None,
    repeats: int = 15,
    clock: Clock = "wall",
    size: int | None = None,
) -> dict[str, Any]:
    """Time the network of a folder; rows as deploy/bench.py defines them, also in `out` (default NET/bench).

    clock: "wall", or "cpu" for the seconds that were computed in, for one thread on a machine that does other things too.
    data: images to time with, the test images of it; by default of the data that the network was calibrated on, else noise.
    size: side of the images instead of the network's own (they are resized).
    """
    settings = BenchSettings(
        batches=tuple(batches), threads=threads, runtimes=_named(runtimes or RUNTIMES), repeats=repeats, clock=clock
    )
    settings.require()
    folder = Path(out) if out else Path(net) / "bench"
    refuse_existing(folder)
    in_pieces = load_config(net)["kind"] == CHOICES
    network: CompactNetwork | ChoiceNetwork = load_choices(net) if in_pieces else load(net)
    if size is not None and size != network.size:
        network = _resized(network, size)
    images, where = _images(network, net, data, n_images=max(MOST_IMAGES, 2 * max(batches)))
    found = _timed(network, images, settings)
    result = {"net": os.fspath(net), "images": where, **found.as_dict(), "folder": str(folder)}
    with atomic_folder(folder) as temporary, mpl.rc_context(style()):
        write_json(temporary / "bench.json", result)
        write_json(temporary / "dynamic.json", found.dynamic)
        write_text(temporary / "bench.csv", csv_text(found.rows))
        save(draw(found.rows), temporary, "bench", simulated=False, formats=("png",))
    return result


def _timed(network: CompactNetwork | ChoiceNetwork, images: Tensor, settings: BenchSettings) -> Bench:
    if isinstance(network, ChoiceNetwork):
        return bench_choices(network, images, settings)
    return bench(network, images, settings)


def _named(runtimes: Sequence[str]) -> tuple[str, ...]:
    """Runtimes by their names, or by a beginning: 'openvino' means both, 'torch' all three."""
    chosen = [name for name in RUNTIMES if any(name.startswith(given) for given in runtimes)]
    unknown = [given for given in runtimes if not any(name.startswith(given) for name in RUNTIMES)]
    if unknown:
        raise InputError(f"runtimes: '{unknown[0]}' is none of {', '.join(RUNTIMES)}")
    return tuple(chosen)


def _resized(network: CompactNetwork | ChoiceNetwork, size: int) -> CompactNetwork | ChoiceNetwork:
    """The same network for images of another size."""
    if isinstance(network, ChoiceNetwork):
        copy = network.masked(masked=network.computes_all)
        copy.size = size
        return copy
    made = CompactNetwork(network.shape, size=size, kept=network.kept, form=network.form).to(network.stem.weight)
    made.load_state_dict(network.state_dict())
    made.mean, made.sd, made.fallback = network.mean, network.sd, network.fallback
    return made


def _images(network: CompactNetwork | ChoiceNetwork, net: str, data: str | None, *, n_images: int) -> tuple[Tensor, str]:
    """Normalised images (image, 3, size, size) to time with, and where they are from."""
    source = data or load_config(net).get("facts", {}).get("calibrated_on")
    if source is None or (data is None and not Path(str(source).partition(":")[2] or source).exists()):
        warn("timed on noise, for want of images: give some with --data, since gates open differently for noise")
        return noise(network, n_images, torch.Generator().manual_seed(0)), "noise"
    opened = open_data("images", source)
    found = opened.test if len(opened.test) else opened.train
    rows = evenly_spaced(len(found), n_images)
    pixels = torch.from_numpy(np.ascontiguousarray(found[rows])).permute(0, 3, 1, 2).float() / 255
    if pixels.shape[2:] != (network.size, network.size):
        pixels = torch.nn.functional.interpolate(pixels, size=network.size, mode="bilinear", antialias=True).clamp(0, 1)
    return normalised(network, pixels), f"{'test' if len(opened.test) else 'training'} images of {source}"


MILLISECONDS = Column("milliseconds", "time", "ms", ".2f", "Median time of one batch.")
SCORES = (
    Column("miss_rate", "misses", "%", ".0%", "Share of images that open a channel which the compact network dropped, and so "
        "take its fallback."),
    MILLISECONDS,
    Column("lower_quartile", "quartile", "lower", ".2f", "Of the time of one batch, in ms."),
    Column("upper_quartile", "quartile", "upper", ".2f", "Of the time of one batch, in ms."),
    Column("mac_share", "MACs", "", ".3f", "Multiply-adds that are computed, of those of the dense network."),
    Column("runtime_efficiency", "efficiency", "", ".2f", "The speed-up there is over the one that its own MACs promise: "
        "(t_dense / t) x MACs."),
    Column("realised_share", "realised", "", ".2f", "The time that is saved over the multiply-adds that gates promised: "
        "(1 - t / t_dense) / (1 - promised MACs)."),
    Column("realised_share_fastest", "realised", "of fastest", ".2f", "The same against the fastest dense form here."),
    Column("flips", "flips", "", "d", "Images with a gate on the other side of zero than in float64."),
    Column("max_relative_difference", "difference", "", ".1e", "Largest difference of a feature from the masked network in "
        "float64, over the largest feature; images without a flip."),
)  # fmt: skip


def as_text(result: dict[str, Any]) -> str:
    """What the command line prints."""
    columns = [
        Column("runtime", "runtime", lead=True),
        Column("form", "form", lead=True),
        Column("batch", "batch", form="d", lead=True),
        *(replace(column, lead=column.key == "miss_rate") for column in SCORES),
    ]
    told = [f"{note['runtime']}, {note['form']}: skipped: {note['reason']}" for note in result["skipped"]]
    told.append(
        f"\n{result['threads']} thread{'s' * (result['threads'] > 1)}, {result['settings']['clock']} clock, "
        f"{result['size']} pixels, {result['images']}; the gates "
        f"promise a MAC share of {result['promised_mac_share']:.3f}{_misses(result)}. Written to {result['folder']}"
    )
    return "\n".join([Table(columns, result["rows"]).text(), *map(terminal.filled, told)])


def _misses(result: dict[str, Any]) -> str:
    """Nothing of levels and routes, where no image misses."""
    return f"; {result['n_missed']} images that miss, {result['made_misses']} of them made" if "n_missed" in result else ""
