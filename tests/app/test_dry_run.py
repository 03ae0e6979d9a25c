"""`fit --dry-run`: what it says fits the run that follows; nothing is written."""

import json

from pulvinar.cli import main
from pulvinar.learning.runs import RunFolder


def test_phases_are_those_of_the_fit_and_nothing_is_written(world, finished, quick, tmp_path, capsys):
    before = sorted(world.parent.rglob("*"))
    assert main(["fit", "troi", "--data", str(world), "--dry-run", "--json", "--quiet", "--set", *quick]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sorted(world.parent.rglob("*")) == before
    assert [phase["name"] for phase in result["phases"]] == ["pretraining", "stage 1", "stage 2"]
    decoder = RunFolder.reopen(finished).read("decoder")
    n_shared = sum(value.numel() for value in decoder["shared"].values())
    n_layer = sum(value.numel() for value in decoder["layer"].values())
    assert result["phases"][2]["n_parameters"] == n_shared + n_layer
    assert result["phases"][0]["n_trained"] == n_shared + 2 * (40 * 16 + 16)
    assert result["phases"][1]["n_trained"] == 2 * (120 * 16 + 16) + 120
    assert result["peak"] >= result["process"] + max(phase["total"] for phase in result["phases"])
    assert 0 < result["seconds"] < 60


def test_a_given_pretrained_is_not_pretrained_again(world, finished, tmp_path, capsys):
    command = ["fit", "troi", "--data", str(world), "--dry-run", "--quiet", "--pretrained", str(finished / "pretrained")]
    assert main([*command, "--set", "n_voxels=20", "n_folds=2"]) == 0
    said = capsys.readouterr().out
    assert "pretraining" not in said
    assert "stage 1" in said
    assert "peak:" in said
    assert main([*command, "--set", "n_voxels=2000"]) == 2
    assert "a budget of 1 to 120" in capsys.readouterr().err


def test_without_pretraining_the_decoder_is_trained_on_own_trials(world, capsys):
    command = ["fit", "troi", "--data", str(world), "--dry-run", "--json", "--quiet"]
    assert main([*command, "--set", "pretrain=false", "n_voxels=20", "n_folds=2", "hidden=16"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [phase["name"] for phase in result["phases"]] == ["decoder on own trials", "stage 1", "stage 2"]


def test_methods_that_give_no_estimate_say_so(world, capsys):
    assert main(["fit", "ridge_encoding", "--data", str(world), "--dry-run", "--quiet"]) == 2
    assert "ridge_encoding gives no estimate" in capsys.readouterr().err
