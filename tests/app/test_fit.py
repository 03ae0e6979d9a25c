"""Fit, evaluate and report on worlds that outsiders wrote: every geometry, no truth, no ROI of the target, no repeats."""

import csv
import dataclasses
import json
import os
import shutil
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import open_experiment
from pulvinar.cli import main
from pulvinar.data import experiment as folders
from pulvinar.data.responses import Responses
from pulvinar.decoding.methods import troi
from pulvinar.learning import checkpoints
from pulvinar.learning.runs import RunFolder


@pytest.mark.long
@pytest.mark.parametrize(
    "geometry", ["volume", *[pytest.param(kind, marks=pytest.mark.slow) for kind in ("surface", "points")]]
)
def test_worlds_of_every_geometry_go_to_the_report(geometry, write_world, tmp_path, quick, monkeypatch):
    world = write_world(tmp_path / "the data", geometry=geometry, images=geometry == "volume")
    monkeypatch.chdir(tmp_path)
    fitting.fit("troi", data="the data", out="my run", assignments=quick)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")  # the run knows where its data are
    rows = {row["name"]: row for row in evaluating.evaluate("../my run")["rows"]}
    assert set(rows) >= {"troi", "annotated", "all", "random", "ceiling", "univariate", "anova"}
    assert rows["troi"]["n_voxels"] == 20
    assert rows["annotated"]["unavailable"] == "sub-03 has no ROI 'annotated' (there are: none)"
    assert "0 stimuli have repeats" in rows["ceiling"]["unavailable"]
    assert rows["troi"]["precision"] is None
    page = Path(evaluating.report("../my run")["report"]).read_text()
    assert "TROI" in page
    assert (tmp_path / "my run" / "artifacts" / "examples.npz").exists() == (world / "images").exists()


def test_pretrained_of_its_own_gives_the_same_voxels_and_never_sees_a_test_image(world, finished, quick, tmp_path):
    apart = tmp_path / "run"
    settings = [pair for pair in quick if not pair.startswith("pretrained.")]
    fitting.fit("troi", data=str(world), out=str(apart), assignments=settings, pretrained=str(finished / "pretrained"))
    ours, theirs = (json.loads((run / "run.json").read_text()) for run in (apart, finished))
    assert ours["selection"] == theirs["selection"]
    seen = checkpoints.load(finished / "pretrained" / "checkpoints" / "decoder.safetensors")["trained_on"]
    assert not set(seen) & set(open_experiment(str(world)).split.test)


def test_other_target(write_world, tmp_path, quick):
    world = write_world(tmp_path / "world", target_rois=True)
    fitting.fit("troi", data=str(world), out=str(tmp_path / "run"), assignments=quick, target="sub-02")
    result = evaluating.evaluate(str(tmp_path / "run"), controls=False)
    assert result["reference"] == "annotated"
    assert [row["name"] for row in result["rows"]] == ["troi"]


def test_moved_data_are_found_with_data(world, finished, tmp_path, capsys):
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    moved = shutil.copytree(world, tmp_path / "moved")
    assert main(["evaluate", str(run), "--data", os.fspath(moved), "--only-selection", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["rows"][0]["name"] == "troi"  # one JSON object and nothing else


def test_a_fit_does_not_see_the_planted_truth_and_the_evaluation_does(write_world, tmp_path, quick, monkeypatch):
    """Oracle: the truth in the folder; without it there is no reference here, and so no precision."""
    world = write_world(tmp_path / "world")
    planted = np.arange(folders.load(world).subjects["sub-03"].n_voxels) < 20
    with h5py.File(world / "truth.h5", "w") as file:
        file["sub-03/responsive"] = planted
    seen = []

    def prepare(config, data):
        seen.append(dict(data.truth))
        return troi.prepare(config, data)

    monkeypatch.setattr(troi, "METHOD", dataclasses.replace(troi.METHOD, prepare=prepare))
    fitting.fit("troi", data=str(world), out=str(tmp_path / "run"), assignments=quick)
    result = evaluating.evaluate(str(tmp_path / "run"), controls=False)
    assert seen == [{}]
    assert result["reference"] == "planted"
    assert result["rows"][0]["precision"] is not None


def test_a_fit_reads_the_training_trials_of_a_subject_once(world, tmp_path, quick, monkeypatch):
    """One read of each training trial of every subject, but for the three that tell a copied subject from another."""
    experiment = folders.load(world)
    reads = {name: Counter() for name in experiment.subjects}
    read = Responses.read

    def count(self, trials, voxels=None):
        if self.n_trials == experiment.subjects[self.subject].n_trials:  # not what is in memory already
            reads[self.subject].update(np.asarray(trials).tolist())
        return read(self, trials, voxels)

    monkeypatch.setattr(Responses, "read", count)
    fitting.fit("troi", data=str(world), out=str(tmp_path / "run"), assignments=quick)
    for name, responses in experiment.subjects.items():
        compared = {0, responses.n_trials // 2, responses.n_trials - 1}
        train = set(responses.trials_of(experiment.split.train).tolist()) - compared
        assert train
        assert {reads[name][trial] for trial in train} == {1}


@pytest.mark.long
@pytest.mark.parametrize("mixer", ["residual", pytest.param("compat", marks=pytest.mark.slow)])
def test_tokens_of_a_vision_tower_from_the_images_to_the_scores(mixer, write_world, tmp_path, quick, capsys):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=12, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=16, patch_size=8
    )
    transformers.CLIPVisionModel(config).save_pretrained(tmp_path / "tower")
    world, out = write_world(tmp_path / "world", images=True), str(tmp_path / "tokens.npy")
    network = f"transformers:{tmp_path / 'tower'}"
    assert main(["data", "embed", str(world), "--network", network, "--tokens", "--out", out, "--json", "--quiet"]) == 0
    embedded = json.loads(capsys.readouterr().out)
    assert embedded["shape"] == [130, 4, 12]
    settings = [*quick, embedded["setting"], f"pretrained.mixer={mixer}", "precision=bfloat16", "micro_batches=2"]
    run = tmp_path / "run"
    assert main(["fit", "troi", "--data", str(world), "--out", str(run), "--quiet", "--set", *settings]) == 0
    decoder = RunFolder.reopen(run).read("decoder")
    assert (decoder["architecture"]["n_tokens"], decoder["architecture"]["dim"]) == (4, 12)
    assert decoder["architecture"]["mixer"] == mixer
    assert decoder["shared"]["output.weight"].shape == (48, 16)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--json", "--quiet"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert np.isfinite([row["brain_to_image_top1"] for row in rows if row["n_voxels"]]).all()


@pytest.mark.slow
def test_low_rank_updates_change_the_shared_decoder_and_the_input_layer_alone_does_not(
    world, finished, tmp_path, quick, capsys
):
    pretrained = RunFolder.reopen(finished / "pretrained").read("decoder")["shared"]
    plain = RunFolder.reopen(finished).read("decoder")
    assert plain["start"] is None
    assert all(torch.equal(value, pretrained[name]) for name, value in plain["shared"].items())
    own = [pair for pair in quick if not pair.startswith("pretrained.")]
    told = ["--data", str(world), "--pretrained", str(finished / "pretrained"), "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["fit", "troi", *told, "--set", *own, "lora_rank=2"]) == 0
    updated = RunFolder.reopen(tmp_path / "run").read("decoder")
    assert all(torch.equal(value, pretrained[name]) for name, value in updated["start"].items())
    assert list(updated["shared"]) == list(pretrained)
    assert not torch.equal(updated["shared"]["output.weight"], pretrained["output.weight"])
    assert np.array_equal(updated["selected"], plain["selected"])  # stage 1 is the same
    assert main(["evaluate", str(tmp_path / "run"), "--quiet", "--json"]) == 0


def test_how_much_of_the_known_rois_was_selected_is_a_table(write_world, tmp_path, quick, capsys):
    world, run = write_world(tmp_path / "world", target_rois=True), tmp_path / "run"
    assert main(["fit", "troi", "--data", str(world), "--out", str(run), "--quiet", "--set", *quick]) == 0
    assert main(["evaluate", str(run), "--only-selection", "--quiet"]) == 0
    with (run / "artifacts" / "roi_overlap.csv").open() as file:
        (row,) = list(csv.DictReader(file))
    selected = RunFolder.reopen(run).read("decoder")["selected"].numpy()
    inside = selected[:40].sum()
    assert (row["roi"], int(row["n_voxels"]), int(row["n_selected"])) == ("annotated", 40, inside)
    assert float(row["share_of_selection"]) == pytest.approx(inside / 20)
    assert float(row["dice"]) == pytest.approx(2 * inside / 60)
