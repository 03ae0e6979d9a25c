"""Every method on a GPU: tiny fit, resume, evaluation; compared with the CPU, with time and peak memory beside the estimate.

    uv run python benchmarks/gpu_smoke.py                  # cuda, or the reason why there is none
    uv run python benchmarks/gpu_smoke.py --device cpu     # the same walk where there is no GPU

Columns: seconds of fit and evaluation; GPU: largest memory that torch held there; estimate: what `fit --dry-run` says of the
fit, where the method says it. weights: largest difference of a result's tensors from those of the CPU, over the largest number
in them; scores: largest difference of a number of the first row of the evaluation. resumed: the same
difference of a fit that was stopped at its second checkpoint from one that was not: on the CPU 0; on a GPU, where sums of a
kernel come in any order, within the tolerance of the weights.

The tolerances: `WEIGHTS` for what is solved (ridge) or learnt in few smooth steps; networks that are trained through batch-norm
and Adam amplify the last digit of a product, so that of them only the scores are held to theirs. Differences above a tolerance
are marked, and the exit code is 1.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "app"))
from tiny_methods import METHODS, TINY, begin, pretrained_run

from pulvinar.app import registry
from pulvinar.core import devices
from pulvinar.core.errors import ConfigError
from pulvinar.core.progress import REPORTER
from pulvinar.learning import runs
from pulvinar.learning.checkpoints import State
from pulvinar.learning.method import Data, Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.table import Column, Table

WEIGHTS = {"ridge_encoding": 1e-4, "cross_subject_decoder": 1e-2, "random": 1e-2, "cross_fitted": 1e-2}  # relative
SCORES = 0.25  # of accuracies and correlations on some tens of images: a few images that fall otherwise
SETTINGS = {"precision": "float32", "beside": "usual"}


class _StoppedError(Exception):
    """Where a fit is ended."""


@dataclass(kw_only=True)
class Walk:
    """What a method did on one device."""

    results: dict[str, State]
    row: dict[str, Any]
    fit: float
    evaluation: float
    memory: float | None
    resumed: float


def walk(method: Method, data: Data, place: Path, device: str) -> Walk:
    """Fit, the same fit stopped and resumed, and evaluation."""
    settings = {**SETTINGS, "device": device}
    with devices.using(device) as found:
        pretrained = pretrained_run(method, data, place / "pretrained", settings)
        if found.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        config, run = begin(place / "run", method, data, settings)
        method.train(config, data, run, pretrained)
        fitted = time.perf_counter() - began
        results = _results(place / "run")
        resumed = _resumed(lambda run: method.train(config, data, run, pretrained), begin, place, method, data, settings)
        began = time.perf_counter()
        row = {}
        if method.evaluate is not None:
            row = method.evaluate(RunFolder.reopen(place / "run"), data, config)["rows"][0]
        memory = torch.cuda.max_memory_allocated() / 1e6 if found.type == "cuda" else None
    return Walk(
        results=results,
        row=row,
        fit=fitted,
        evaluation=time.perf_counter() - began,
        memory=memory,
        resumed=max(_difference(results[name], state) for name, state in resumed.items()),
    )


def _resumed(
    train: Callable[[RunFolder], None], begin: Any, place: Path, method: Method, data: Data, settings: dict[str, Any]
) -> dict[str, State]:
    """Results of a fit that was stopped when its second checkpoint was written, and went on from there."""
    save, between, n_saved = RunFolder.save, runs.SECONDS_BETWEEN_CHECKPOINTS, 0

    def save_and_stop(self: RunFolder, state: State, *, name: str = "latest") -> None:
        nonlocal n_saved
        save(self, state, name=name)
        n_saved += 1
        if n_saved == 2:
            raise _StoppedError

    _, stopped = begin(place / "stopped", method, data, settings)
    runs.SECONDS_BETWEEN_CHECKPOINTS = -1.0
    RunFolder.save = save_and_stop  # type: ignore[method-assign]
    try:
        train(stopped)
    except _StoppedError:
        pass
    finally:
        RunFolder.save, runs.SECONDS_BETWEEN_CHECKPOINTS = save, between  # type: ignore[method-assign]
    if not RunFolder.reopen(place / "stopped").finished:
        train(RunFolder.reopen(place / "stopped"))
    return _results(place / "stopped")


def _results(path: Path) -> dict[str, State]:
    run = RunFolder.reopen(path)
    names = sorted(file.stem for file in (path / "checkpoints").glob("*.safetensors") if file.stem != "latest")
    return {name: run.read(name) or {} for name in names}


def _difference(ours: Any, theirs: Any) -> float:
    """Largest difference of two states' tensors, each over its largest number; of whole numbers and truths 0 or 1."""
    if isinstance(ours, dict):
        return max((_difference(value, theirs[key]) for key, value in ours.items()), default=0.0)
    if isinstance(ours, list):
        return max((_difference(*pair) for pair in zip(ours, theirs, strict=True)), default=0.0)
    if not isinstance(ours, torch.Tensor) or not ours.numel():
        return 0.0
    if ours.shape != theirs.shape:
        return float("inf")
    if not ours.is_floating_point():
        return float(not torch.equal(ours, theirs))
    return float((ours - theirs).abs().max() / theirs.abs().max().clamp(min=1e-12))


def _score_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Largest difference of the accuracies and correlations (numbers within -1 and 1) of two rows."""
    shared = [name for name, value in theirs.items() if isinstance(value, float) and abs(value) <= 1 and name in ours]
    return max((abs(float(ours[name]) - float(theirs[name])) for name in shared), default=0.0)


def estimate(method: Method, data: Data, device: str) -> float | None:
    """MB on a device by the phases that `--dry-run` adds up; None where the method says nothing."""
    if method.phases is None or method.pretrained is not None:
        return None
    with devices.using(device), tempfile.TemporaryDirectory() as place:
        config, _ = begin(Path(place) / "run", method, data, SETTINGS)
        return max(phase.on_device for phase in method.phases(config, data)) / 1e6


def measure(name: str, device: str, folder: Path) -> dict[str, Any]:
    """The row of a method."""
    method = registry.method(name)
    data = TINY[method.data]()
    there, here = (
        walk(method, data, folder / f"{name}-{place}", where) for place, where in (("there", device), ("cpu", "cpu"))
    )
    weights = max(_difference(state, here.results[kind]) for kind, state in there.results.items())
    scores, tolerance = _score_difference(there.row, here.row), WEIGHTS.get(name)
    same = there.resumed <= (0.0 if device == "cpu" else (tolerance or float("inf")))
    within = scores <= SCORES and (tolerance is None or weights <= tolerance)
    return {
        "name": name,
        "fit": there.fit,
        "evaluation": there.evaluation,
        "memory": there.memory,
        "estimate": estimate(method, data, device),
        "weights": weights,
        "scores": scores,
        "resumed": there.resumed,
        "within": "yes" if within and same else "NO",
    }


def main() -> int:
    """The table of all methods, and 1 where one fails or differs more than its tolerance."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("methods", nargs="*", default=list(METHODS), metavar="METHOD", help="which (default: all)")
    parser.add_argument("--device", default="cuda", help="as the setting of this name (default cuda)")
    arguments = parser.parse_args()
    REPORTER.quiet = True
    try:
        found = devices.find(arguments.device)
    except ConfigError as error:
        print(f"nothing was tried: {error}. `--device cpu` makes the same walk without a GPU")
        return 0
    print(f"{found} ({torch.cuda.get_device_name(found)})" if found.type == "cuda" else f"{found}: compared with itself")
    rows, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in arguments.methods:
            try:
                rows.append(measure(name, arguments.device, Path(folder)))
            except Exception as error:
                failed.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
            said = failed[-1] if failed and failed[-1].startswith(f"{name}:") else f"{name}: {rows[-1]['within']}"
            print(said, flush=True)
    columns = [
        Column("name", "method", lead=True),
        Column("fit", "fit", "s", ".1f"),
        Column("evaluation", "evaluation", "s", ".1f"),
        Column("memory", "GPU", "MB", ".0f"),
        Column("estimate", "estimate", "MB", ".0f"),
        Column("weights", "weights", form=".1e"),
        Column("scores", "scores", form=".3f"),
        Column("resumed", "resumed", form=".1e"),
        Column("within", "within"),
    ]
    print("\n".join([*([Table(columns, rows).text()] if rows else []), *failed]))
    return int(bool(failed) or any(row["within"] == "NO" for row in rows))


if __name__ == "__main__":
    sys.exit(main())
