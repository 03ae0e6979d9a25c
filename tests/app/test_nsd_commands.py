"""NSD through the command line: plant, inspect, convert, fit. Oracle: the same run on the converted folder."""

import json

import numpy as np
import pytest

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.cli import main
from pulvinar.data.experiment import load as load_folder
from pulvinar.datasets.nsd import load

SIMULATE = ["data", "simulate", "--layout", "nsd", "--subjects", "2", "--n-voxels", "220", "--seed", "1"]
SMALL = ["--set", "n_sessions=1", "n_test_images=200", "image_size=16"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("nsd") / "an NSD"
    assert main([*SIMULATE, "--out", str(path), *SMALL, "--json"]) == 0
    return path


@pytest.mark.long
def test_inspect_shows_probes_on_request(folder, world, capsys):
    assert main(["data", "inspect", f"nsd:{folder}", "--probe", "4", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result["probes"]) == 4
    assert set(result["probes"][0]) == {"subject", "trial", "voxel", "beta", "image", "roi"}
    assert main(["data", "inspect", str(world), "--probe", "4"]) == 2
    assert "dataset's own files" in capsys.readouterr().err


@pytest.mark.long
def test_convert_writes_the_experiment_folder(folder, tmp_path, capsys):
    assert main(["data", "convert", f"nsd:{folder}?others=nsdgeneral&image_size=24", str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["subjects"] == ["subj01", "subj02"]
    converted, source = load_folder(tmp_path / "out"), load(f"{folder}?others=nsdgeneral")
    for name in ("subj01", "subj02"):
        np.testing.assert_array_equal(converted.subjects[name].values, np.asarray(source.subjects[name].values))
        assert set(converted.subjects[name].rois) == set(source.subjects[name].rois)
    assert converted.subjects["subj02"].rois["nsdgeneral"].all()
    assert converted.stimuli.image(0).shape == (24, 24, 3)
    assert converted.split == source.split


def test_a_layout_that_nothing_writes(tmp_path, capsys):
    assert main(["data", "simulate", "--layout", "arrays", "--out", str(tmp_path / "x")]) == 2
    assert "nothing is written in the layout" in capsys.readouterr().err


@pytest.mark.slow
def test_troi_on_an_nsd_folder_is_troi_on_the_converted_one(folder, tmp_path, quick):
    main(["data", "convert", f"nsd:{folder}?images=false", str(tmp_path / "out")])
    rows = []
    for name, source in (("a", f"nsd:{folder}?images=false"), ("b", str(tmp_path / "out"))):
        run = str(tmp_path / name)
        fitting.fit("troi", data=source, out=run, assignments=quick)
        result = evaluating.evaluate(run)
        assert result["rows"][0]["n_voxels"] == 20
        rows.append([(row["name"], row.get("brain_to_image_top1")) for row in result["rows"]])
        evaluating.report(run)
    assert rows[0] == rows[1]
