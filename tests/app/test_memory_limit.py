"""`--memory` on the command line and in Python: kept by who says so, refused by who does not, and the same results."""

import re

import numpy as np
import pytest

import pulvinar
from pulvinar.cli import main
from pulvinar.core import memory
from pulvinar.core.errors import ConfigError
from pulvinar.data.experiment import save
from pulvinar.datasets.arrays import from_arrays
from pulvinar.linear import ridge

RIDGE = ("alphas=1,10,100", "n_permutations=20", "baseline=category")


def fit(world, out, *more):
    return main(["fit", "ridge_encoding", "--data", str(world), "--out", str(out), "--set", *RIDGE, "--quiet", *more])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
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
def test_a_fit_and_its_scores_within_memory_are_those_without(world, tmp_path, monkeypatch):
    """In one block, as without a limit: to the bit. That a limit was there is seen by what asked for a size."""
    asked, block_size = [], memory.block_size
    monkeypatch.setattr(memory, "block_size", lambda *given, **more: asked.append(more["what"]) or block_size(*given, **more))
    assert fit(world, tmp_path / "plain") == 0
    assert main(["evaluate", str(tmp_path / "plain"), "--quiet"]) == 0
    asked.clear()
    assert fit(world, tmp_path / "limited", "--memory", "8GB") == 0
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
def test_what_cannot_be_kept_is_refused_before_anything_is_written(world, tmp_path, method, size, message, capsys):
    assert main(["fit", method, "--data", str(world), "--out", str(tmp_path / "run"), "--memory", size, "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=message.partition(":")[0]):
        pulvinar.fit(method, str(world), out=tmp_path / "run", memory=size)


def test_too_little_for_a_ridge_names_the_least(world, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ridge, "bytes_of", lambda *shape, **others: (5e12, 1e9))
    assert fit(world, tmp_path / "run", "--memory", "64GB") == 2
    said = capsys.readouterr().err
    assert re.search(r"memory=64GB: ridge on clip \(60 images x 6 features, 30 voxels\) needs 500\d(\.\d+)?GB or more", said)
