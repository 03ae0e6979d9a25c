"""A run is a folder: settings, environment, metrics, checkpoints, predictions, artifacts. Everything in it appears whole.

run.json        method, status (running | finished), seed, seconds, data, what the method adds, and `cautions` (warnings)
config.toml     every setting, defaults too
environment.json  versions, platform, threads, device
metrics.jsonl   one JSON object a line, rewritten whole at each checkpoint
checkpoints/    our own format (learning/checkpoints.py)
logs/, logs.json  with --log: TensorBoard, Weights & Biases, MLflow (learning/loggers.py)
predictions/, artifacts/, published.json, evaluation.json
evaluations/    self-supervised runs: on other images, or scored in another way; each with evaluation.json and predictions/
"""

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from pulvinar.core import devices
from pulvinar.core.config import read_toml
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.locks import holding
from pulvinar.core.places import TEMPORARY, is_left_over, remove
from pulvinar.core.progress import detail, log, warn
from pulvinar.core.storage import atomic_folder, read_json, to_jsonable, write_json, write_text
from pulvinar.learning import checkpoints
from pulvinar.learning.loggers import Logs, kept_in
from pulvinar.learning.loss_watch import troubles
from pulvinar.learning.processes import is_first, wait

FORMERLY = "backbone"  # what `pretrained` is called in older run folders
SECONDS_BETWEEN_CHECKPOINTS = 20.0
FACTS = ("method", "status", "seed", "data")  # what run.json has from the start
LIBRARIES = ("pulvinar", "torch", "numpy", "scipy", "scikit-learn", "scikit-image", "h5py", "nibabel", "nilearn")
OPTIONAL = ("torchvision", "timm", "lightly", "himalaya", "rsatoolbox")  # recorded where they are installed


def environment(device: str = "cpu") -> dict[str, Any]:
    """Versions, platform, thread count and device, for the record beside a result."""
    return {
        "python": sys.version.split()[0],
        **{name: version(name) for name in LIBRARIES},
        **{name: version(name) for name in OPTIONAL if find_spec(name) is not None},
        "platform": platform.platform(),
        "threads": torch.get_num_threads(),
        "device": device,
    }


class RunFolder:
    """An open run. `create` and `reopen` make one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = read_json(path / "run.json")
        self.records: list[dict[str, Any]] = []
        self._logs: Logs | None = None
        self._started = time.monotonic() - float(self.facts.get("seconds", 0.0))
        self._last_checkpoint = time.monotonic()

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        method: str,
        config_toml: str,
        seed: int,
        data: dict[str, Any],
        published: list[dict[str, Any]] | None = None,
        pretrained: dict[str, Any] | None = None,
        topic: str = "decoding",
        device: str = "cpu",
    ) -> "RunFolder":
        """A new run folder, written whole; an existing one is refused. Of several processes the first writes it.

        topic: which page the report is (report/page.py).
        pretrained: where the run that this one reads lies ('path'), or the settings to train it with ('settings').
        """
        path = Path(path)
        if not is_first():
            wait()
            return cls(path)
        with atomic_folder(path) as temporary:
            write_text(temporary / "config.toml", config_toml)
            write_json(temporary / "environment.json", environment(device))
            if published:
                write_json(temporary / "published.json", published)
            facts: dict[str, Any] = {
                "method": method,
                "topic": topic,
                "status": "running",
                "seed": seed,
                "seconds": 0.0,
                "data": data,
            }
            if pretrained is not None:
                facts["pretrained"] = pretrained
            write_json(temporary / "run.json", facts)
        detail(f"run {path}: {method}, seed {seed}, {torch.get_num_threads()} threads, torch {torch.__version__}")
        detail(config_toml.rstrip())
        wait()
        return cls(path)

    @property
    def pretrained(self) -> dict[str, Any] | None:
        """Where the run that this one starts from lies ('path'), or the settings it is trained with here; None without one."""
        found: dict[str, Any] | None = self.facts.get("pretrained", self.facts.get(FORMERLY))
        return found

    @classmethod
    def reopen(cls, path: str | os.PathLike[str]) -> "RunFolder":
        """An existing run folder, as it is; `FileError` if it is none."""
        path = Path(path)
        if not (path / "run.json").is_file():
            reason = "run.json is missing" if path.is_dir() else "it is a file" if path.exists() else "no such folder"
            raise FileError(f"{path}: not a run folder ({reason})")
        facts = read_json(path / "run.json")
        missing = [key for key in FACTS if not isinstance(facts, dict) or key not in facts]
        if missing:
            raise FileError(f"{path}/run.json: {', '.join(missing)} missing; pulvinar did not write it, or it was changed")
        return cls(path)

    def remove_leftovers(self) -> None:
        """Remove the temporary files and folders of a killed fit. Only who holds the run's lock may call it."""
        for leftover in list(self.path.rglob(f"{TEMPORARY}*")):
            remove(leftover)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the run's lock while it is written to (of several processes the first does); what it has become is read anew.

        What killed processes of this machine left unfinished in it is removed.
        """
        with holding(self.path) if is_first() else nullcontext():
            if is_first():
                for leftover in filter(is_left_over, list(self.path.rglob(f"{TEMPORARY}*"))):
                    remove(leftover)
            self.facts = read_json(self.path / "run.json")
            yield

    @contextmanager
    def logged(self, names: Sequence[str]) -> Iterator["Logs | None"]:
        """A block whose records go to these loggers, and to those that the run had before; the first process sends them."""
        if not is_first() or not (names or kept_in(self.path)):
            yield None
            return
        self._logs = Logs(self.path, names, self.settings())
        try:
            yield self._logs
        finally:
            self._logs.close()
            self._logs = None

    @property
    def logged_to(self) -> Sequence[str]:
        """The loggers that its records go to now."""
        return () if self._logs is None else self._logs.names

    def _send(self) -> None:
        if self._logs is not None:
            self._logs.send(self.records)

    @property
    def finished(self) -> bool:
        """Whether the fit has ended."""
        return self.facts["status"] == "finished"

    @property
    def method(self) -> str:
        """The method that made the run."""
        return self.facts["method"]

    def settings(self) -> dict[str, Any]:
        """config.toml as a dict."""
        found = read_toml(self.path / "config.toml")
        if found.pop("preset", "none") != "none":  # once a setting that stood for others
            raise FileError(f"{self.path}: config.toml names a preset, as an earlier version wrote it; fit the run anew")
        return found

    def require(self, *, method: str) -> "RunFolder":
        """The run itself, if it is a finished run of that method; `InputError` otherwise."""
        if self.method != method or not self.finished:
            raise InputError(
                f"{self.path}: a finished run of {method} is needed; this is a {self.facts['status']} {self.method}"
            )
        return self

    def log(self, **record: Any) -> None:
        """Add a line to metrics.jsonl; it is on disk with the next checkpoint."""
        self.records.append(record)

    def due(self) -> bool:
        """Whether a checkpoint should be written now."""
        return time.monotonic() - self._last_checkpoint > SECONDS_BETWEEN_CHECKPOINTS

    def save(self, state: checkpoints.State, *, name: str = "latest") -> None:
        """Write a checkpoint, with the metrics so far inside it, and metrics.jsonl.

        Of several processes, which all come here, the first writes it and the others go on when it is there.
        """
        if is_first():
            self._write(state, name)
        self._last_checkpoint = time.monotonic()
        wait()

    def _write(self, state: checkpoints.State, name: str) -> None:
        self.facts["seconds"] = time.monotonic() - self._started
        checkpoints.save(self.path / "checkpoints" / f"{name}.safetensors", {**state, "records": self.records})
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(to_jsonable(record)) + "\n" for record in self.records))
        write_json(self.path / "run.json", self.facts)
        self._send()
        detail(f"checkpoint: {self.path / 'checkpoints' / name}.safetensors, {self.facts['seconds']:.0f} s after the start")

    def load(self) -> checkpoints.State | None:
        """The checkpoint to go on from, or None if there is none yet; metrics go back to where it was."""
        state = self._stored("latest")
        if state is not None:
            self.records = state.pop("records")
        return state

    def read(self, name: str) -> checkpoints.State | None:
        """The checkpoint of this name, or None if there is none; the metrics stay as they are."""
        state = self._stored(name)
        if state is not None:
            del state["records"]
        return state

    def _stored(self, name: str) -> checkpoints.State | None:
        path = self.path / "checkpoints" / f"{name}.safetensors"
        return checkpoints.load(path) if path.is_file() else None

    def caution(self, *texts: str) -> None:
        """Keep what a reader of the run's numbers must be warned of; on disk at once, each text once."""
        kept = list(dict.fromkeys([*self.facts.get("cautions", ()), *texts]))
        if texts and kept != self.facts.get("cautions"):
            self.facts["cautions"] = kept
            if is_first():
                write_json(self.path / "run.json", self.facts)

    def finish(self, **facts: Any) -> None:
        """Mark the fit as ended, record what it found, and warn of losses that rose. Several processes: as `save`."""
        for text in troubles(self.records):
            warn(text)
            self.caution(text)
        self.facts.update(facts, status="finished", seconds=time.monotonic() - self._started)
        if is_first():
            write_json(self.path / "run.json", self.facts)
            self._send()
        wait()
        log(f"finished in {self.facts['seconds']:.0f} s: {self.path}")

    def warn_of_other_device(self) -> None:
        """Say that the numbers will not be those of an unbroken run, where it goes on on another device than it began on."""
        recorded, here = read_json(self.path / "environment.json").get("device"), devices.described()
        if recorded not in (None, here):
            warn(f"{self.path}: this run began on {recorded} and goes on on {here}; the weights differ in their last digits")

    def use_recorded_threads(self) -> None:
        """Compute with the thread count of the run's start, which bit-identical resume needs."""
        recorded = int(read_json(self.path / "environment.json")["threads"])
        if recorded != torch.get_num_threads():
            warn(f"this run began with {recorded} threads; using {recorded} so that the weights come out the same")
            torch.set_num_threads(recorded)
