"""The setting `roi`, from the fit to the pretraining that it starts, the evaluation and the report."""

import json
import re
from pathlib import Path

import h5py
import pytest

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app import method_settings
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, InputError, NotFoundError
from pulvinar.core.storage import read_json
from pulvinar.report import page


@pytest.fixture(scope="module")
def named(write_world, tmp_path_factory) -> Path:
    """The tiny world with ROIs V1 (40 voxels) and V2 (20) in every subject, and no 'annotated' one."""
    folder = write_world(tmp_path_factory.mktemp("worlds") / "named", target_rois=True)
    for file in (folder / "responses").iterdir():
        with h5py.File(file, "r+") as opened:
            opened["rois/V1"] = opened["rois/annotated"][()]
            opened["rois/V2"] = [place < 20 for place in range(120)]
            del opened["rois/annotated"]
    return folder


@pytest.fixture(scope="module")
def run(named, tmp_path_factory, quick) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    fitting.fit("troi", data=str(named), out=str(out), assignments=[*quick, "roi=V1"])
    return out


def _annotated(evaluation: dict) -> dict:
    return next(row for row in evaluation["rows"] if row["name"] == "annotated")


@pytest.mark.slow
def test_roi_reaches_the_pretraining_and_may_differ_in_the_evaluation(run, named, capsys):
    assert read_json(run / "run.json")["pretrained"]["settings"]["roi"] == "V1"
    assert 'roi = "V1"' in (run / "pretrained" / "config.toml").read_text()
    first = evaluating.evaluate(str(run))
    assert (first["roi"], first["reference"], _annotated(first)["n_voxels"]) == ("V1", "annotated", 40)
    assert main(["evaluate", str(run), "--set", "roi=V2", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert (second["roi"], _annotated(second)["n_voxels"]) == ("V2", 20)
    assert "annotated (ROI V2)" in page.build(run).read_text()
    assert 'roi = "V1"' in (run / "config.toml").read_text()  # the fit keeps what it was made with
    with pytest.raises(NotFoundError, match="roi: sub-03 has no ROI 'v1'; there are: V1, V2; choose one with --set roi=V1"):
        evaluating.evaluate(str(run), assignments=["roi=v1"])
    with pytest.raises(
        ConfigError, match="may be scored with another roi or near_duplicate or protocol or beside; leave out n_voxels"
    ):
        evaluating.evaluate(str(run), assignments=["n_voxels=3"])
    assert [row[:1] + row[2:3] for row in evaluating.scoring_settings(str(run))] == [
        ("roi", "V1"),
        ("near_duplicate", 0.95),
        ("protocol", "every_candidate"),
        ("beside", "usual"),
        ("device", "auto"),
    ]
    with pytest.raises(InputError, match="protocol=draws: 300 test images are needed, 30 came"):
        evaluating.evaluate(str(run), assignments=["protocol=draws"])


def test_a_missing_roi_names_the_setting_and_what_there_is(named, quick, tmp_path, capsys):
    assert main(["fit", "troi", "--data", str(named), "--out", str(tmp_path / "run"), "--set", *quick]) == 2
    assert re.search(r"roi: sub-01 has no ROI 'annotated'; there are: V1, V2", capsys.readouterr().err)
    with pytest.raises(NotFoundError, match="roi: sub-03 has no ROI 'V3'; there are: V1, V2; choose one with --set roi=NAME"):
        fitting.fit("troi", data=str(named), out=str(tmp_path / "run"), assignments=["roi=V3", "pretrain=false"])
    with pytest.raises(NotFoundError, match="roi: sub-03 has no ROI 'V3'; there are: V1, V2"):
        fitting.fit("ridge_encoding", data=str(named), out=str(tmp_path / "run"), assignments=["roi=V3"])
    assert not (tmp_path / "run").exists()


def test_the_pretrained_s_own_roi_wins():
    troi, decoder = method_settings.configs("troi", None, ["roi=V1", "pretrained.roi=V2"])
    assert (troi.roi, decoder.roi) == ("V1", "V2")
    troi, decoder = method_settings.configs("troi", None, ["roi=V1"])
    assert (troi.roi, decoder.roi) == ("V1", "V1")


@pytest.mark.slow
def test_the_report_says_which_rois_there_are(named, run, quick, tmp_path):
    """With ROIs of other names, the page does not say that none came; before an evaluation it says nothing about them."""
    out = tmp_path / "run"
    settings = [pair for pair in quick if not pair.startswith("pretrained.")]
    fitting.fit("troi", data=str(named), out=str(out), assignments=settings, pretrained=str(run / "pretrained"))
    assert "The run was not evaluated: no reference" in page.build(out).read_text()
    evaluating.evaluate(str(out))
    text = page.build(out).read_text()
    assert re.search(r"none of the ROIs of these data \(V\d, V\d\) is .{0,6}annotated", text)
    assert "--set roi=NAME" in text
    assert "No truth and no annotated ROI" not in text
    assert "none came with these data" not in text
