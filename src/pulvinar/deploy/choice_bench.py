"""How long a network of levels or routes takes: dense, masked and in pieces, runtime by runtime; columns as in deploy/bench.py.

Every round times everything once, in turn, on other images each time, so that what is timed is the mixture of options that
images take. A batch of one has the ONNX file for one image at a time. flips: images that take another option than in float64.
"""

from dataclasses import asdict
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.deploy.bench import N_CALLS_ALONE, N_CHECKED, Bench, BenchSettings, against, runners_of
from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.equality import relative_differences
from pulvinar.deploy.runtimes import Runner, runtime_version
from pulvinar.deploy.timing import Clock, in_turn, seconds_of
from pulvinar.learning.threads import threads

Key = tuple[str, str, int]  # runtime, form, batch


def bench_choices(
    network: ChoiceNetwork, images: Float[Tensor, "image 3 height width"], settings: BenchSettings | None = None
) -> Bench:
    """The rows of a network of levels or routes. images: normalised, as many as the largest batch or more."""
    settings = settings or BenchSettings()
    settings.require()
    if len(images) < max(settings.batches):
        raise InputError(f"images: {max(settings.batches)} or more are needed for the largest batch, {len(images)} came")
    with threads(settings.threads):
        return _bench(network, images.to(network.stem.weight), settings)


def _bench(network: ChoiceNetwork, images: Tensor, settings: BenchSettings) -> Bench:
    made = Bench()
    forms: dict[str, ChoiceNetwork | CompactNetwork] = {
        "dense": network.dense(),
        "masked": network.masked(),
        network.shape.gate_form: network,
    }
    runners = runners_of(forms, list(product(settings.runtimes, forms, settings.batches)), made, threads=settings.threads)
    checks = _checks(network, forms["dense"], runners, images[:N_CHECKED])
    jobs = {key: partial(_time_once, runner, images, key[2], settings.clock) for key, runner in runners.items()}
    seconds = in_turn(jobs, settings.repeats)
    with torch.no_grad():
        promised = network.macs.share(network.inspect(images).choices)
    shares = {"dense": 1.0, "masked": 1 + _choosers(network), network.shape.gate_form: promised}
    for key, found in seconds.items():
        made.rows.append(_row(key, found, seconds, shares[key[1]], promised, settings) | checks[key])
    made.facts = {
        "promised_mac_share": promised,
        "threads": settings.threads,
        "size": network.size,
        "n_images": len(images),
        "settings": asdict(settings),
        "versions": {name: runtime_version(name) for name in settings.runtimes},
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return made


def _choosers(network: ChoiceNetwork) -> float:
    """Multiply-adds of the choosers over those of the dense network."""
    counted = sum(layer.weight.numel() for chooser, _ in network.segments for layer in (chooser.reduce, chooser.expand))
    return counted / network.macs.dense


def _time_once(runner: Runner, images: Tensor, batch: int, clock: Clock, number: int) -> float:
    """Seconds of a batch; where it is one image, the mean of a few other images in a row, after one that does not count."""
    n_calls = N_CALLS_ALONE + 1 if batch == 1 else 1
    starts = [(number * n_calls + call) * batch for call in range(n_calls)]
    rows = [torch.arange(start, start + batch) % len(images) for start in starts]
    return seconds_of(runner.run, [runner.prepare(images[each]) for each in rows], warm_up=batch == 1, clock=clock)


@torch.no_grad()
def _checks(
    network: ChoiceNetwork, dense: ChoiceNetwork | CompactNetwork, runners: dict[Key, Runner], images: Tensor
) -> dict[Key, dict[str, Any]]:
    """Of every runner, images that take another option than in float64, and the largest difference over the others."""
    exact = network.masked().double().inspect(images.double())
    taken = torch.stack(exact.choices, 1).numpy()
    features = {False: exact.features.numpy(), True: dense.double()(images.double()).numpy()}
    dense.to(network.stem.weight)
    found: dict[Key, dict[str, Any]] = {}
    for key, runner in runners.items():
        n = len(images) // key[2] * key[2] or key[2]
        rows = torch.arange(n) % len(images)
        parts = [runner.read(runner.run(runner.prepare(images[part]))) for part in rows.split(key[2])]
        differences = relative_differences(features[key[1] == "dense"][rows], np.concatenate([part[0] for part in parts]))
        flips = None
        if parts[0][1] is not None:
            flipped = (np.concatenate([part[1] for part in parts if part[1] is not None]) != taken[rows]).any(1)
            flips, differences = int(flipped.sum()), differences[~flipped]
        found[key] = {"flips": flips, "max_relative_difference": float(differences.max(initial=0.0))}
    return found


def _row(
    key: Key, found: np.ndarray, seconds: dict[Key, np.ndarray], share: float, promised: float, settings: BenchSettings
) -> dict[str, Any]:
    runtime, form, batch = key
    lower, upper = np.quantile(found, [0.25, 0.75])
    row: dict[str, Any] = {
        "runtime": runtime,
        "form": form,
        "batch": batch,
        "threads": settings.threads,
        "miss_rate": 0.0,
        "clock": settings.clock,
        "milliseconds": 1000 * float(np.median(found)),
        "lower_quartile": 1000 * float(lower),
        "upper_quartile": 1000 * float(upper),
        "mac_share": share,
        "promised_mac_share": promised,
    }
    dense = {other[0]: times for other, times in seconds.items() if other[1:] == ("dense", batch)}
    rivals = [times for name, times in dense.items() if "bf16" not in name or "bf16" in runtime]
    fastest = min(rivals, key=lambda times: float(np.median(times))) if rivals else None
    for suffix, times in (("", dense.get(runtime)), ("_fastest", fastest)):
        row |= {f"{name}{suffix}": value for name, value in against(times, found, share, promised).items()}
    return row
