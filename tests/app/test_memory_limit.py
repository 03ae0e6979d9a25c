"""`--memory` on the command line and in Python: kept by who says so, refused by who does not, and the same results."""

import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import pulvinar
from pulvinar.cli import main
from pulvinar.core import memory
from pulvinar.core.errors import ConfigError
from pulvinar.data.experiment import save
from pulvinar.datasets.arrays import from_arrays
from pulvinar.decoding.mask_training import MaskTrainer
from pulvinar.learning import runs
from pulvinar.linear import ridge

RIDGE = ("alphas=1,10,100", "n_permutations=20", "baseline=category")


def fit(one_subject, out, *more):
    return main(["fit", "ridge_encoding", "--data", str(one_subject), "--out", str(out), "--set", *RIDGE, "--quiet", *more])


@pytest.fixture(scope="module")
def one_subject(tmp_path_factory):
    rng = np.random.default_rng(0)
    features = rng.standard_normal((80, 6)).astype(np.float32)
    responses = features @ rng.standard_normal((6, 30)) + rng.standard_normal((80, 30))
    ids = [f"image-{number:02d}" for number in range(80)]
    made = from_arrays(
        responses={"one": responses.astype(np.float32)},
        stimulus_ids={"one": ids},
        geometry={"one": rng.random((30, 3))},
        stimuli=ids,
        labels=[f"kind {number % 4}" for number in range(80)],
        features={"clip": features},
        test_share=0.25,
    )
    return save(made, tmp_path_factory.mktemp("world") / "data")


@pytest.mark.slow
def test_a_fit_and_its_scores_within_memory_are_those_without(one_subject, tmp_path, monkeypatch):
    """In one block, as without a limit: to the bit. That a limit was there is seen by what asked for a size."""
    asked, block_size = [], memory.block_size
    monkeypatch.setattr(memory, "block_size", lambda *given, **more: asked.append(more["what"]) or block_size(*given, **more))
    assert fit(one_subject, tmp_path / "plain") == 0
    assert main(["evaluate", str(tmp_path / "plain"), "--quiet"]) == 0
    asked.clear()
    assert fit(one_subject, tmp_path / "limited", "--memory", "8GB") == 0
    assert main(["evaluate", str(tmp_path / "limited"), "--quiet", "--memory", "8GB"]) == 0
    assert any("ridge on" in what for what in asked)
    assert any("scoring" in what for what in asked)
    one, other = (pulvinar.load(tmp_path / run).table for run in ("plain", "limited"))
    assert one.equals(other)


@pytest.mark.parametrize(
    ("method", "size", "message"),
    [
        (
            "anova",
            "4GB",
            "memory=4GB: fit of anova does not choose its sizes by it; that of cross_subject_decoder, ridge_encoding, troi",
        ),
        ("ridge_encoding", "4", "memory: a size such as 4GB, 4GiB or 500MB is needed, '4' came"),
        ("ridge_encoding", "1MB", "memory=1MB: the libraries alone take"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(one_subject, tmp_path, method, size, message, capsys):
    assert main(["fit", method, "--data", str(one_subject), "--out", str(tmp_path / "run"), "--memory", size, "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=message.partition(":")[0]):
        pulvinar.fit(method, str(one_subject), out=tmp_path / "run", memory=size)


def test_too_little_for_a_ridge_names_the_least(one_subject, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ridge, "bytes_of", lambda *shape, **others: (5e12, 1e9))
    assert fit(one_subject, tmp_path / "run", "--memory", "64GB") == 2
    said = capsys.readouterr().err
    assert re.search(r"memory=64GB: ridge on clip \(60 images x 6 features, 30 voxels\) needs 500\d(\.\d+)?GB or more", said)


def on_disk_always(monkeypatch, tmp_path) -> list[str]:
    """Every array of `memory.empty` goes to a scratch file in tmp_path; sizes of those that did."""
    made, empty = [], memory.empty
    monkeypatch.setattr(memory, "SHARE", 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(memory, "empty", lambda shape, dtype: made.append(str(tuple(shape))) or empty(shape, dtype))
    return made


@pytest.mark.slow
def test_decoders_trained_from_scratch_files_are_those_in_memory_to_the_bit(
    world, finished, quick, tmp_path, monkeypatch, capsys
):
    """Both pretraining and TROI, interrupted in stage 1 and resumed. Oracle: a run without a limit."""
    (tmp_path / "scratch").mkdir()
    made = on_disk_always(monkeypatch, tmp_path / "scratch")
    command = ["fit", "troi", "--data", str(world), "--out", str(tmp_path / "run"), "--memory", "64GB", "--quiet"]
    run_epoch = MaskTrainer.run_epoch
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    monkeypatch.setattr(MaskTrainer, "run_epoch", lambda trainer: (trainer.epoch == 3 and stop()) or run_epoch(trainer))
    assert main([*command, "--set", *quick]) == 130
    monkeypatch.setattr(MaskTrainer, "run_epoch", run_epoch)
    assert main([*command, "--resume"]) == 0
    assert sum(shape == "(100, 120)" for shape in made) == 2  # the target's trials, at the start and when resumed
    assert sum(shape == "(100, 40)" for shape in made) == 2  # the ROI of two others
    assert len(made) > 6  # and what the rounds and stage 2 keep
    assert list((tmp_path / "scratch").iterdir()) == []
    for run in ("", "pretrained"):
        ours, theirs = (load_file(place / run / "checkpoints/decoder.safetensors") for place in (tmp_path / "run", finished))
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert (tmp_path / "run" / run / "metrics.jsonl").read_text() == (finished / run / "metrics.jsonl").read_text()
    assert main(["evaluate", str(tmp_path / "run"), "--quiet", "--memory", "64GB"]) == 2
    assert "evaluate of troi does not choose its sizes by it; that of ridge_encoding does" in capsys.readouterr().err


def stop() -> None:
    raise KeyboardInterrupt


@pytest.mark.long
def test_a_fit_is_refused_that_neither_memory_nor_disk_has_room_for(world, quick, tmp_path, monkeypatch, capsys):
    command = ["fit", "troi", "--data", str(world), "--out", str(tmp_path / "run"), "--quiet", "--set", *quick]
    least = memory.resident() + memory.MARGIN + memory.LEAST + 5 * 10**7
    assert main([*command, "pretrained.hidden=4096", "--memory", memory.said(least)]) == 2
    assert re.search(
        r"training of troi \(weights, gradients, AdamW, a batch: see --dry-run\) needs \S+GB", capsys.readouterr().err
    )
    monkeypatch.setattr(memory, "SHARE", 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**5))
    assert main([*command, "--memory", "64GB"]) == 2
    assert "no room for 1MB of scratch (TMPDIR names another folder): 1MB are free" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_a_dry_run_says_what_lies_on_the_disk(world, quick, monkeypatch, capsys):
    """Oracle: 100 training trials x 120 voxels of the target and x 40 of two others, four bytes each."""
    command = ["fit", "troi", "--data", str(world), "--dry-run", "--quiet", "--json", "--set", *quick]
    assert main(command) == 0
    plain = json.loads(capsys.readouterr().out)
    assert (plain["responses"], plain["scratch"]) == (4 * 100 * 200, 0)
    monkeypatch.setattr(memory, "SHARE", 0)
    assert main([*command, "--memory", "64GB"]) == 0
    limited = json.loads(capsys.readouterr().out)
    assert limited["scratch"] == limited["responses"] == plain["responses"]
    gone = [one["total"] - other["total"] for one, other in zip(plain["phases"], limited["phases"], strict=True)]
    assert gone[:2] == [4 * 100 * 80, 4 * 100 * 120]
    assert main(["fit", "troi", "--data", str(world), "--dry-run", "--quiet", "--memory", "64GB", "--set", *quick]) == 0
    assert "disk: 0.00 of 0.00 GB of responses in scratch files in" in capsys.readouterr().out
