"""Oracles: what each library reads back from its own log; steps of an interrupted and resumed run are there once each."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.core.errors import ConfigError, MissingDependencyError
from pulvinar.learning import loggers
from pulvinar.learning.runs import RunFolder

LOSSES = [1.0, 0.5, 0.25, 0.125, 0.0625]


def a_run(folder: Path) -> RunFolder:
    return RunFolder.create(folder, method="dense_ssl", config_toml="epochs = 5\n", seed=0, data={"path": "x"})


def train_in_two_parts(folder: Path, name: str) -> None:
    """Three epochs, two of them in the checkpoint; then a second process goes on from there, and is scored."""
    run = a_run(folder)
    with run.logged((name,)):
        for epoch in (1, 2):
            run.log(phase="select", epoch=epoch, loss=LOSSES[epoch - 1], collapse={"effective_rank": 7.5})
        run.save({"epoch": 2})
        run.log(phase="select", epoch=3, loss=99.0)  # lost with the process
    run = RunFolder.reopen(folder)
    run.load()
    with run.logged(()) as logs:
        assert logs is not None
        assert logs.names == (name,)
        for epoch in (3, 4, 5):
            run.log(phase="select", epoch=epoch, loss=LOSSES[epoch - 1])
        run.finish()
        logs.scores([{"name": "ours", "top1": 0.75, "top1_interval": (0.7, 0.8)}])
        (folder / "artifacts").mkdir()
        Image.fromarray(np.full((4, 6, 3), 200, np.uint8)).save(folder / "artifacts" / "grid.png")
        logs.pictures()


def test_tensorboard_has_every_epoch_once_with_scores_and_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_in_two_parts(tmp_path / "run", "tensorboard")
    read = EventAccumulator(str(tmp_path / "run" / "logs" / "tensorboard"))
    read.Reload()
    assert [(event.step, event.value) for event in read.Scalars("select/loss")] == list(enumerate(LOSSES, start=1))
    assert [event.value for event in read.Scalars("select/collapse/effective_rank")] == [7.5, 7.5]
    assert [event.value for event in read.Scalars("scores/ours/top1")] == [0.75]
    assert (read.Images("images/artifacts/grid")[0].height, read.Images("images/artifacts/grid")[0].width) == (4, 6)
    assert b"epochs" in read.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]


def test_mlflow_has_every_epoch_once_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train_in_two_parts(tmp_path / "run", "mlflow")
    client = tracking.MlflowClient((tmp_path / "run" / "logs" / "mlflow").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("pulvinar").experiment_id])
    history = client.get_metric_history(run.info.run_id, "select/loss")
    assert sorted((metric.step, metric.value) for metric in history) == list(enumerate(LOSSES, start=1))
    assert run.data.params == {"epochs": "5"}
    assert run.data.metrics["scores/ours/top1"] == 0.75
    assert [item.path for item in client.list_artifacts(run.info.run_id, "images/artifacts")] == ["images/artifacts/grid.png"]


def test_weights_and_biases_has_every_epoch_once_under_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.delenv("WANDB_MODE", raising=False)
    train_in_two_parts(tmp_path / "run", "wandb")
    losses, ids = [], set()
    for file in sorted((tmp_path / "run" / "logs" / "wandb").rglob("*.wandb")):
        for data in _entries(file.read_bytes()):
            record = Record()
            record.ParseFromString(data)
            ids |= {record.run.run_id} if record.HasField("run") else set()
            row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
            losses += [float(row["select/loss"])] if "select/loss" in row else []
    assert losses == LOSSES
    assert len(ids) == 1


def _entries(content: bytes) -> Iterator[bytes]:
    """Of a log in LevelDB's format: blocks of 32 KiB; checksum, length, kind (whole, first, middle, last) before each part."""
    place, block, begun = 7, 2**15, b""
    while place + 7 <= len(content):
        if block - place % block < 7:
            place += block - place % block
            continue
        length, kind = int.from_bytes(content[place + 4 : place + 6], "little"), content[place + 6]
        begun += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            yield begun
            begun = b""


def test_what_is_missing_or_unknown_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingDependencyError, match=r"--log wandb: .* pip install 'pulvinar\[loggers\]'"):
        loggers.require(["wandb"])
    with pytest.raises(ConfigError, match="tensorboad is no logger; there are: tensorboard, wandb, mlflow"):
        loggers.require(["tensorboad"])


def test_a_run_without_loggers_has_no_logs(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    with run.logged(()) as logs:
        run.log(epoch=1, loss=1.0)
        run.save({})
    assert logs is None
    assert not (tmp_path / "run" / "logs.json").exists()
