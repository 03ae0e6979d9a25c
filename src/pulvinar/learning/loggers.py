"""Records of a training in TensorBoard, Weights & Biases or MLflow, beside metrics.jsonl.

A log is in the run's folder, RUN/logs/NAME. It gets records when a checkpoint is written, so that it is never ahead of what a
resumed run goes on from; logs.json says how many each has: a resumed run goes on in the same logs, without holes and repeats.
"""

import importlib
import math
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import ConfigError, MissingDependencyError
from pulvinar.core.storage import read_json, to_jsonable, write_json

INSTALL = "pip install 'pulvinar[loggers]'"
LABELS = ("phase", "network", "subject")  # of a record: which part of a run it is of
MOST_VALUES = 64  # of a list that is logged value by value


class Logger(ABC):
    """Where records go. `place` is a folder in the run; `known` is what an earlier process of the run has kept of itself."""

    package: str

    def __init__(self, place: Path, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        self.place, self.name, self.settings, self.known = place, name, settings, dict(known)

    @abstractmethod
    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step, by names such as `select/loss`."""

    @abstractmethod
    def image(self, name: str, pixels: np.ndarray) -> None:
        """A picture (height, width, 3) uint8."""

    @abstractmethod
    def close(self) -> None:
        """All is on the disk."""


class TensorBoard(Logger):
    """Event files, which `tensorboard --logdir RUN/logs/tensorboard` shows."""

    package = "tensorboard"

    def __init__(self, place: Path, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        super().__init__(place, name, settings, known)
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(place))
        if not known:
            rows = "\n".join(f"| {key} | {value} |" for key, value in settings.items())
            self._writer.add_text("settings", f"| setting | value |\n|---|---|\n{rows}")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One event each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, name: str, pixels: np.ndarray) -> None:
        """An event."""
        self._writer.add_image(name, pixels, dataformats="HWC")

    def close(self) -> None:
        """End this event file; a resumed run begins another one in the same folder, as TensorBoard has it."""
        self._writer.close()


class WandB(Logger):
    """Weights & Biases, offline unless WANDB_MODE says otherwise; `wandb sync RUN/logs/wandb/wandb/offline-*` sends it."""

    package = "wandb"

    def __init__(self, place: Path, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        super().__init__(place, name, settings, known)
        import wandb

        place.mkdir(parents=True, exist_ok=True)
        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self.known.setdefault("id", secrets.token_hex(4))
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pulvinar"),
            dir=str(place),
            id=self.known["id"],
            name=name,
            config=dict(settings),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",  # the pretrained run inside a run is a run of its own
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._parts: set[str] = set()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One row; its steps are those of its part of the run."""
        parts = {name.rpartition("/")[0] for name in values}
        for part in parts - self._parts:
            self._run.define_metric(f"{part}/*", step_metric=f"{part}/step")
        self._parts |= parts
        self._run.log({**values, **{f"{part}/step": step for part in parts}})

    def image(self, name: str, pixels: np.ndarray) -> None:
        """A picture among the run's media."""
        import wandb

        self._run.log({name: wandb.Image(pixels)})

    def close(self) -> None:
        """End the run's process."""
        self._run.finish()


class MLflow(Logger):
    """MLflow, in the run's folder unless MLFLOW_TRACKING_URI says where; `mlflow ui --backend-store-uri RUN/logs/mlflow`."""

    package = "mlflow"

    def __init__(self, place: Path, name: str, settings: Mapping[str, Any], known: Mapping[str, Any]) -> None:
        super().__init__(place, name, settings, known)
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # a folder needs no server and no database
        from mlflow.tracking import MlflowClient

        place.mkdir(parents=True, exist_ok=True)
        self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", place.resolve().as_uri()))
        if "id" not in self.known:
            experiment = self._client.get_experiment_by_name("pulvinar")
            number = experiment.experiment_id if experiment else self._client.create_experiment("pulvinar")
            self.known["id"] = self._client.create_run(number, run_name=name).info.run_id
            for key, value in settings.items():
                self._client.log_param(self.known["id"], key, value)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """One metric each."""
        for name, value in values.items():
            self._client.log_metric(self.known["id"], name, value, step=step)

    def image(self, name: str, pixels: np.ndarray) -> None:
        """A picture among the run's artifacts."""
        self._client.log_image(self.known["id"], pixels, artifact_file=f"{name}.png")

    def close(self) -> None:
        """Mark the run as ended, for now."""
        self._client.set_terminated(self.known["id"])


LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def require(names: Sequence[str]) -> None:
    """Raise where a logger is unknown (`ConfigError`) or its package is missing (`MissingDependencyError`)."""
    if unknown := [name for name in names if name not in LOGGERS]:
        raise ConfigError(f"log: {', '.join(unknown)} is no logger; there are: {', '.join(LOGGERS)}")
    for name in names:
        try:
            importlib.import_module(LOGGERS[name].package)
        except ImportError as error:
            raise MissingDependencyError(f"--log {name}: {LOGGERS[name].package} is not installed; run: {INSTALL}") from error


class Logs:
    """The loggers of one run, and how much of it each has. Opened with `Logs.of`, closed at the end of a process's part."""

    def __init__(self, run: Path, names: Sequence[str], settings: Mapping[str, Any]) -> None:
        self._file = run / "logs.json"
        self._kept: dict[str, dict[str, Any]] = read_json(self._file) if self._file.is_file() else {}
        require(list(dict.fromkeys([*self._kept, *names])))
        plain = {key: to_jsonable(value) for key, value in settings.items()}
        self._loggers = {
            name: LOGGERS[name](run / "logs" / name, run.resolve().name, plain, self._kept.get(name, {}))
            for name in dict.fromkeys([*self._kept, *names])
        }

    @property
    def names(self) -> Sequence[str]:
        """Of the loggers."""
        return tuple(self._loggers)

    def send(self, records: Sequence[Mapping[str, Any]]) -> None:
        """The records that each logger has not had yet."""
        for name, logger in self._loggers.items():
            begun = self._kept.get(name, {}).get("records", 0)
            for number, record in list(enumerate(records))[begun:]:
                values = scalars_of(record)
                if values:
                    logger.scalars(values, int(record.get("epoch", number)))
            self._keep(name, records=max(begun, len(records)))

    def scores(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """The scores of an evaluation: `scores/ROW/SCORE`."""
        for row in rows:
            part = f"scores/{row.get('name', 'run')}"
            values = {f"{part}/{key}": value for key, value in _numbers(row).items()}
            for logger in self._loggers.values():
                logger.scalars(values, 0)

    def pictures(self) -> None:
        """Pictures that lie in the run's folder, by their place in it: grids of reconstructions, figures."""
        from pulvinar.data.pictures import decode

        run = self._file.parent
        for file in [file for folder in ("artifacts", "reconstructions") for file in sorted((run / folder).glob("*.png"))]:
            pixels = decode(file).pixels
            for logger in self._loggers.values():
                logger.image(f"images/{file.parent.name}/{file.stem}", pixels)

    def close(self) -> None:
        """All is on the disk."""
        for name, logger in self._loggers.items():
            logger.close()
            self._keep(name)

    def _keep(self, name: str, **facts: Any) -> None:
        self._kept[name] = {**self._kept.get(name, {}), **self._loggers[name].known, **facts}
        write_json(self._file, self._kept)


def scalars_of(record: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a record under the part of the run that it is of.

    >>> scalars_of({"phase": "select", "epoch": 3, "loss": 0.5, "shares": [0.2, 0.4], "note": "x"})
    {'select/loss': 0.5, 'select/shares/0': 0.2, 'select/shares/1': 0.4}
    """
    part = "/".join(str(record[label]) for label in LABELS if record.get(label) is not None) or "train"
    rest = {key: value for key, value in record.items() if key not in (*LABELS, "epoch")}
    return {f"{part}/{name}": value for name, value in _numbers(rest).items()}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return dict(_walked(to_jsonable(dict(values))))


def _walked(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every finite number inside, with its name."""
    if isinstance(value, Mapping):
        inside = list(value.items())
    elif isinstance(value, list) and len(value) <= MOST_VALUES:
        inside = list(enumerate(value))
    else:
        if isinstance(value, int | float) and math.isfinite(value):
            yield name, float(value)
        return
    for key, inner in inside:
        yield from _walked(inner, f"{name}/{key}" if name else str(key))


def kept_in(run: Path) -> bool:
    """Whether a run has logs to go on in."""
    return (run / "logs.json").is_file()
