"""How long a network for use takes: dense, masked, compact and dynamic, runtime by runtime, with what that is of the promise.

Everything is timed in turn within every round, so that what else the machine does hits all alike; the numbers are medians and
quartiles over rounds. t is the time of one batch. Against the dense network in the same runtime, and again (`_fastest`) against
the fastest dense one there (of those in float32 for a row in float32):

    runtime_efficiency = (t_dense / t) / (1 / mac_share)         mac_share: what this form really computes
    realised_share     = (1 - t / t_dense) / (1 - promised)      promised: the MAC share of the gates' open channels

Missed images cost more, so the time is given at miss rates, where an image misses if it opens a dropped channel somewhere. With
t_k the time of a batch of which k images miss, t = sum_k Binomial(k; batch, rate) t_k, from a few k with straight lines between
them. Images that miss are found among those given, or made of them (deploy/image_pool.py).

flips: images with a gate on the other side of zero than in float64. max_relative_difference: max |a - b| / max |a| from the
masked network in float64, over the images without a flip.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import product
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.stats import binom
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar, log
from pulvinar.deploy.compact import CompactNetwork
from pulvinar.deploy.dynamic import DynamicNetwork, choose_forms
from pulvinar.deploy.equality import relative_differences
from pulvinar.deploy.image_pool import Pool, image_pool
from pulvinar.deploy.runtimes import RUNTIMES, Runner, UnavailableError, make_runner, runtime_version
from pulvinar.deploy.timing import Clock, in_turn, seconds_of
from pulvinar.learning.threads import threads
from pulvinar.networks.macs import count_macs

Form = Literal["dense", "masked", "compact", "dynamic"]
FORMS: tuple[Form, ...] = ("dense", "masked", "compact", "dynamic")
MISSES_TIMED = (0, 1, 3, 8)  # of a batch
N_CHECKED = 32  # images whose features are compared
N_CALLS_ALONE = 5  # timed together where a batch is one image


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """What to time. repeats: rounds; threads: of every runtime; miss_rates: shares of images; clock: deploy/timing.py."""

    batches: tuple[int, ...] = (1, 32)
    threads: int = 1
    runtimes: tuple[str, ...] = RUNTIMES
    repeats: int = 15
    miss_rates: tuple[float, ...] = (0.0, 0.01, 0.1)
    clock: Clock = "wall"

    def require(self) -> None:
        """`InputError` for what cannot be timed; all mistakes at once."""
        wrong = [f"threads: 1 or more, not {self.threads}"] * (self.threads < 1)
        wrong += [f"repeats: 3 or more, not {self.repeats}"] * (self.repeats < 3)
        wrong += [f"batch: 1 or more images, not {batch}" for batch in self.batches if batch < 1]
        wrong += [f"miss_rates: a share in [0, 1], not {rate}" for rate in self.miss_rates if not 0 <= rate <= 1]
        wrong += [f"runtimes: '{name}' is none of {', '.join(RUNTIMES)}" for name in self.runtimes if name not in RUNTIMES]
        if wrong:
            raise InputError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Of one runtime, form and batch: seconds (round,) of a batch for every number of missed images timed."""

    runtime: str
    form: Form
    batch: int
    seconds: dict[int, np.ndarray]
    flips: int | None
    max_relative_difference: float

    def at(self, rate: float) -> np.ndarray:
        """Expected seconds (round,) of a batch at this miss rate; the module has the formula."""
        ks, values = sorted(self.seconds), np.stack([self.seconds[k] for k in sorted(self.seconds)])
        every = np.arange(self.batch + 1)
        chances = binom.pmf(every, self.batch, rate)
        return np.array([np.dot(chances, np.interp(every, ks, column)) for column in values.T])


@dataclass
class Bench:
    """rows: one per runtime, form, batch and miss rate. skipped: runtime, form, reason. dynamic: the chosen forms."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    dynamic: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**self.facts, "rows": self.rows, "skipped": self.skipped, "dynamic": self.dynamic}


@torch.no_grad()
def promised_share(network: CompactNetwork, images: Float[Tensor, "image 3 height width"]) -> float:
    """Mean share of the dense network's multiply-adds that the gates leave open on these images, gates included."""
    densities = [(logits >= 0).double().mean(1) for logits in network.inspect(images).logits]
    return float(count_macs(network.shape, network.size).share(densities))


def bench(
    network: CompactNetwork, images: Float[Tensor, "image 3 height width"], settings: BenchSettings | None = None
) -> Bench:
    """The table above for a compact network. images: normalised, not those of the calibration, twice the largest batch or more.

    A runtime that is missing, or cannot run a form, is skipped with the reason. torch's number of threads is put back.
    """
    settings = settings or BenchSettings()
    settings.require()
    if network.kept is None:
        raise InputError(f"network: the {network.form} form has no gates; what is timed is what gates save")
    with threads(settings.threads):
        return _bench(network, images.to(network.stem.weight), settings)


def _bench(network: CompactNetwork, images: Tensor, settings: BenchSettings) -> Bench:
    made, pool = Bench(), image_pool(network, images)
    dynamic = None
    if "torch packed" in settings.runtimes:
        dynamic = choose_forms(network, pool.hits, batch_sizes=sorted(settings.batches), clock=settings.clock)
        made.dynamic = dynamic.facts()
    forms: dict[Form, CompactNetwork | DynamicNetwork | None] = {
        "dense": network.dense(),
        "masked": network.masked(),
        "compact": network,
        "dynamic": dynamic,
    }
    runners = _runners(forms, settings, made)
    exact = {dense: _exact(network, pool, dense=dense) for dense in (True, False)}
    checks = {key: _checked(runner, key, exact[key[1] == "dense"]) for key, runner in runners.items()}
    seconds = _timed(runners, pool, settings)
    timings = [
        Timing(
            runtime=key[0],
            form=key[1],
            batch=key[2],
            seconds=found,
            flips=checks[key][0],
            max_relative_difference=checks[key][1],
        )
        for key, found in seconds.items()
    ]
    promised = promised_share(network, images)
    made.rows = _rows(timings, _shares(network, dynamic, pool, settings), promised, settings)
    made.facts = {
        "promised_mac_share": promised,
        "threads": settings.threads,
        "size": network.size,
        "n_hits": len(pool.hits),
        "n_missed": len(pool.missed),
        "made_misses": pool.made_misses,
        "settings": asdict(settings),
        "versions": {name: runtime_version(name) for name in settings.runtimes},
        "processor": torch.backends.cpu.get_cpu_capability(),
    }
    return made


Key = tuple[str, Form, int]


def _runners(
    forms: dict[Form, CompactNetwork | DynamicNetwork | None], settings: BenchSettings, made: Bench
) -> dict[Key, Runner]:
    wanted = [
        (runtime, form, batch)
        for runtime, form, batch in product(settings.runtimes, FORMS, settings.batches)
        if forms[form] is not None and (form != "dynamic" or runtime == "torch packed")
    ]
    return runners_of(forms, wanted, made, threads=settings.threads)


def runners_of(
    forms: Mapping[Any, Any], wanted: Sequence[tuple[str, Any, int]], made: Bench, *, threads: int
) -> dict[tuple[str, Any, int], Runner]:
    """Of the wanted (runtime, form, batch) all that can run here; the rest is noted in `made.skipped`, once for each runtime
    and form. forms: name -> network.
    """
    runners: dict[tuple[str, Any, int], Runner] = {}
    with bar("preparing", len(wanted)) as shown:
        for runtime, form, batch in wanted:
            shown.advance(0, note=f"{runtime}, {form}")  # to compile takes some seconds
            try:
                runners[runtime, form, batch] = make_runner(runtime, forms[form], batch=batch, threads=threads)
            except UnavailableError as error:
                note = {"runtime": runtime, "form": form, "reason": str(error)}
                if note not in made.skipped:
                    made.skipped.append(note)
                    log(f"{runtime}, {form}: skipped: {error}")
            shown.advance(note="")
    return runners


@dataclass(frozen=True, eq=False)
class _Exact:
    """A batch, and what the masked (or dense) network makes of it in float64."""

    images: Tensor
    features: np.ndarray
    opened: np.ndarray


@torch.no_grad()
def _exact(network: CompactNetwork, pool: Pool, *, dense: bool) -> list[_Exact]:
    """Images that hit and, in every second place, images that miss; together they are what is compared."""
    judge, images = (network.dense() if dense else network.masked()).double(), pool.batch(N_CHECKED, 0, 0)
    if len(pool.missed):
        images[1::2] = pool.missed[torch.arange(N_CHECKED // 2) % len(pool.missed)]
    found = [judge.inspect(part.double()) for part in images.split(16)]
    opened = [torch.cat([logits >= 0 for logits in part.logits], 1) if part.logits else torch.zeros(16, 0) for part in found]
    return [
        _Exact(image[None], part[None], gates[None])
        for image, part, gates in zip(
            images, torch.cat([part.features for part in found]).numpy(), torch.cat(opened).numpy(), strict=True
        )
    ]


def _checked(runner: Runner, key: Key, exact: Sequence[_Exact]) -> tuple[int | None, float]:
    """Images with a flip (None where the runtime does not say), and the largest relative difference of the others."""
    _, form, batch = key
    rows = np.resize(np.arange(len(exact)), -(-len(exact) // batch) * batch)
    flips, largest = (None if form != "dense" else 0), 0.0
    for part in rows.reshape(-1, batch):
        images = torch.cat([exact[row].images for row in part])
        features, opened = runner.read(runner.run(runner.prepare(images)))
        differences = relative_differences(np.concatenate([exact[row].features for row in part]), features)
        if opened is None:
            largest = max(largest, float(differences.max()))
            continue
        flipped = (np.concatenate([exact[row].opened for row in part]) != opened).any(1)
        flips = (flips or 0) + int(flipped.sum())
        largest = max(largest, float(differences[~flipped].max(initial=0.0)))
    return flips, largest


def _misses_timed(form: Form, batch: int, pool: Pool, settings: BenchSettings) -> list[int]:
    """Numbers of missed images to time: only 0 where they do not matter or are not asked for."""
    if form in ("dense", "masked") or not len(pool.missed) or not any(settings.miss_rates):
        return [0]
    return sorted({min(k, batch) for k in MISSES_TIMED})


def _timed(runners: dict[Key, Runner], pool: Pool, settings: BenchSettings) -> dict[Key, dict[int, np.ndarray]]:
    """Seconds of a batch (round,) for every number of missed images that is timed."""
    jobs = {
        (key, k): partial(_time_once, runner, pool, key[2], k, settings.clock)
        for key, runner in runners.items()
        for k in _misses_timed(key[1], key[2], pool, settings)
    }
    seconds: dict[Key, dict[int, np.ndarray]] = {key: {} for key in runners}
    for (key, k), found in in_turn(jobs, settings.repeats).items():
        seconds[key][k] = found
    return seconds


def _time_once(runner: Runner, pool: Pool, batch: int, n_missed: int, clock: Clock, number: int) -> float:
    """Seconds of a batch; where it is one image, the mean of a few other images in a row, after one that does not count."""
    n_calls = N_CALLS_ALONE + 1 if batch == 1 else 1
    given = [runner.prepare(pool.batch(batch, n_missed, number * n_calls + call)) for call in range(n_calls)]
    return seconds_of(runner.run, given, warm_up=batch == 1, clock=clock)


def _shares(
    network: CompactNetwork, dynamic: DynamicNetwork | None, pool: Pool, settings: BenchSettings
) -> dict[tuple[Form, int], tuple[float, float]]:
    """Share of the dense multiply-adds that a form computes for an image: without a miss, and with one."""
    macs = network.macs
    with torch.no_grad():
        misses = network.inspect(pool.missed).misses if len(pool.missed) else ()
    more = sum(float(part.double().mean()) * cost for part, cost in zip(misses, macs.missing, strict=False)) / macs.dense
    found: dict[tuple[Form, int], tuple[float, float]] = {}
    for batch in settings.batches:
        found["dense", batch] = (1.0, 1.0)
        found["masked", batch] = (1 + macs.gates / macs.dense,) * 2
        found["compact", batch] = (macs.share, macs.share + more)
        if dynamic is not None:
            hit = dynamic.mac_share(pool.batch(batch, 0, 0)) if batch > 1 else _alone(dynamic, pool.hits)
            found["dynamic", batch] = (hit, _alone(dynamic, pool.missed) if len(pool.missed) else hit)
    return found


def _alone(dynamic: DynamicNetwork, images: Tensor, n_images: int = 16) -> float:
    """Mean MAC share of images that come one by one."""
    return float(np.mean([dynamic.mac_share(image[None]) for image in images[:n_images]]))


def _rows(
    timings: Sequence[Timing],
    shares: dict[tuple[Form, int], tuple[float, float]],
    promised: float,
    settings: BenchSettings,
) -> list[dict[str, Any]]:
    dense = {(timing.runtime, timing.batch): timing.at(0.0) for timing in timings if timing.form == "dense"}
    made = []
    for timing in timings:
        fixed = timing.form in ("dense", "masked")
        for rate in (0.0,) if fixed or len(timing.seconds) == 1 else settings.miss_rates:
            found, (hit, missed) = timing.at(rate), shares[timing.form, timing.batch]
            share = (1 - rate) * hit + rate * missed
            quartiles = np.quantile(found, [0.25, 0.75])
            row = {
                "runtime": timing.runtime,
                "form": timing.form,
                "batch": timing.batch,
                "threads": settings.threads,
                "miss_rate": rate,
                "clock": settings.clock,
                "milliseconds": 1000 * float(np.median(found)),
                "lower_quartile": 1000 * float(quartiles[0]),
                "upper_quartile": 1000 * float(quartiles[1]),
                "mac_share": share,
                "promised_mac_share": promised,
            }
            own = dense.get((timing.runtime, timing.batch))
            rivals = [
                times
                for (runtime, batch), times in dense.items()
                if batch == timing.batch and ("bf16" not in runtime or "bf16" in timing.runtime)
            ]
            fastest = min(rivals, key=lambda times: float(np.median(times))) if rivals else None
            for suffix, times in (("", own), ("_fastest", fastest)):
                row |= {f"{name}{suffix}": value for name, value in against(times, found, share, promised).items()}
            row |= {"flips": timing.flips, "max_relative_difference": timing.max_relative_difference}
            made.append(row)
    return made


def against(dense: np.ndarray | None, found: np.ndarray, share: float, promised: float) -> dict[str, float | None]:
    """Speed-up, runtime efficiency and realised share from the medians; nothing without a dense network."""
    if dense is None:
        return {"speed_up": None, "runtime_efficiency": None, "realised_share": None}
    ratio = float(np.median(found) / np.median(dense))
    return {
        "speed_up": 1 / ratio,
        "runtime_efficiency": share / ratio,
        "realised_share": (1 - ratio) / (1 - promised) if promised < 1 else None,
    }
