"""A selector as a method of the command line, and one added as a single file: a row, a method and an estimator at once."""

import importlib
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.settings_list import settings_of
from pulvinar.cli import main
from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.core.storage import read_arrays
from pulvinar.decoding.data import fit_embedding, training_data
from pulvinar.decoding.decoder_runs import open_decoder
from pulvinar.deploy.voxel_decoder import voxel_decoder
from pulvinar.estimators import VoxelSelector
from pulvinar.learning.runs import RunFolder
from pulvinar.selection import selectors
from pulvinar.selection.univariate import anova_f, anova_labels, top_voxels

ROOT = Path(__file__).resolve().parents[2]
TRAINING = ("n_voxels=20", "epochs=3")
MINE = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)[1]


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The example of CONTRIBUTING.md beside the files of the registry, for one test."""
    folder = tmp_path / "selectors"
    folder.mkdir()
    (folder / "first_number.py").write_text(MINE)
    monkeypatch.setattr(selectors, "__path__", [*selectors.__path__, str(folder)])
    importlib.invalidate_caches()
    yield "first_number"
    sys.modules.pop("pulvinar.selection.selectors.first_number", None)


def copied(finished, tmp_path):
    """A copy of a finished run, whose evaluation may be changed."""
    return shutil.copytree(finished, tmp_path / "copy")


@pytest.mark.slow
def test_a_selector_is_added_by_one_file(mine, finished, world, tmp_path, capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["selectors"][mine] == "The voxels of largest correlation with the first number of what was shown."

    # a row of the table of every run, and no number of another row is changed by it
    run = copied(finished, tmp_path)
    rows = {row["name"]: row for row in evaluating.evaluate(str(run), assignments=["beside=all"])["rows"]}
    assert rows[mine]["n_voxels"] == 20
    assert rows[mine]["description"] == "largest correlation with the first number"
    stored = read_arrays(run / "predictions" / f"{mine}.npz")
    kept = np.flatnonzero(stored["selected"])

    # a method, with a run folder like that of any other
    pretrained, mistaken = str(finished / "pretrained"), [*TRAINING, "n_rounds=3"]
    said = ["fit", mine, "--data", str(world), "--out", str(tmp_path / "run"), "--pretrained", pretrained, "--quiet", "--set"]
    assert main([*said, *mistaken]) == 2
    assert "'n_rounds' is not a setting of first_number" in capsys.readouterr().err
    assert main([*said, *TRAINING]) == 0
    assert "largest correlation with the first number" in capsys.readouterr().out
    assert main(["evaluate", str(tmp_path / "run"), "--quiet"]) == 0
    assert "minus First number" in capsys.readouterr().out
    own = {row["name"]: row for row in json.loads((tmp_path / "run" / "evaluation.json").read_text())["rows"]}
    assert next(iter(own)) == mine
    assert set(own) == {*rows, "first_number"} - {"troi"}
    again = read_arrays(tmp_path / "run" / "predictions" / f"{mine}.npz")
    assert np.flatnonzero(again["selected"]).tolist() == kept.tolist()
    assert main(["report", str(tmp_path / "run"), "--quiet"]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "The voxels were chosen by: largest correlation with the first number." in page
    assert "Below, the score of every voxel, from which" in page

    # an estimator
    rng = np.random.default_rng(0)
    targets, responses = rng.standard_normal((80, 3)), rng.standard_normal((80, 50))
    responses[:, 10:15] += targets[:, :1]
    found = clone(VoxelSelector(5, method=mine)).fit(responses, targets).get_support(indices=True)
    assert found.tolist() == [10, 11, 12, 13, 14]


@pytest.mark.slow
def test_adding_a_selector_leaves_the_numbers_of_the_others_as_they_are(mine, finished, tmp_path, monkeypatch):
    """Oracle: the same evaluation without the file."""
    both = {}
    for name, paths in (("with", selectors.__path__), ("without", selectors.__path__[:-1])):
        monkeypatch.setattr(selectors, "__path__", paths)
        run = shutil.copytree(finished, tmp_path / name)
        both[name] = {row["name"]: row for row in evaluating.evaluate(str(run), assignments=["beside=all"])["rows"]}
        both[name]["predictions"] = {path.stem: read_arrays(path)["predicted"] for path in (run / "predictions").iterdir()}
    placed = ["troi", "ridge", *(one.name for one in selectors.every() if one.place is not None and not one.planted)]
    for name in placed:
        assert both["with"][name] == both["without"][name]
        if both["with"][name]["n_voxels"]:
            assert np.array_equal(both["with"]["predictions"][name], both["without"]["predictions"][name])
    assert set(both["with"]) - set(both["without"]) == {mine}


@pytest.mark.parametrize(
    ("name", "more"), [("anova", ["pretrain=false", "hidden=16"]), pytest.param("cross_fitted", [], marks=pytest.mark.slow)]
)
def test_a_selector_s_run_holds_its_voxels_and_a_decoder_for_use(name, more, finished, world, tmp_path):
    """Oracle: F of clusters of the embedding, and the row of the same name in a table of troi."""
    pretrained = None if more else str(finished / "pretrained")
    fitting.fit(name, data=str(world), out=str(tmp_path / "run"), assignments=[*TRAINING, *more], pretrained=pretrained)
    run = RunFolder.reopen(tmp_path / "run")
    maps = read_arrays(run.path / "artifacts" / "maps.npz")
    assert run.facts["selection"]["n_voxels"] == maps["selected"].sum() == 20
    assert run.read("decoder")["layer"]["weight"].shape[1] == 20
    from pulvinar.app.data import open_data

    experiment = open_data("experiment", str(world))
    if name == "anova":
        trials = training_data(experiment, "sub-03", fit_embedding(experiment, None), scaling="train_stats")
        f = anova_f(trials.responses.numpy(), anova_labels(trials.pooled_target(), 10, seed=0))
        assert np.array_equal(maps["selected"], top_voxels(f, 20))
        np.testing.assert_allclose(maps["mask_smoothed"], f, rtol=1e-6)
    else:
        table = copied(finished, tmp_path)
        evaluating.evaluate(str(table), assignments=["beside=all"])
        assert np.array_equal(maps["selected"], read_arrays(table / "predictions" / f"{name}.npz")["selected"])
    assert open_decoder(run, experiment).layer.in_features == 20  # what pictures are made from
    assert len(voxel_decoder(run).kept) == 20  # what is deployed
    evaluating.evaluate(str(run.path), controls=False)


def test_what_a_selector_cannot_do_is_said_before_anything_is_written(world, tmp_path):
    for name, said, error in (
        ("annotated", "annotated: sub-03 has no ROI 'annotated'", DegenerateError),
        ("ceiling", "ceiling: 0 stimuli have repeats, 20 or more are needed", DegenerateError),
        ("true_best", "'true_best' sees an answer: it is a row of tables", InputError),
        ("anowa", "'anowa' is not one of the methods; did you mean 'anova'", NotFoundError),
    ):
        with pytest.raises(error, match=said):
            fitting.fit(name, data=str(world), out=str(tmp_path / "run"), assignments=["epochs=3"])
    with pytest.raises(ValueError, match=r"all\.n_voxels=3 does nothing here: all keeps the same voxels at every budget"):
        fitting.fit("all", data=str(world), out=str(tmp_path / "run"), assignments=["n_voxels=3"])
    assert not (tmp_path / "run").exists()


def test_a_selector_s_settings_are_those_of_troi_but_for_its_own_stage(capsys):
    troi = {row[0] for row in settings_of("troi")}
    own = {row[0] for row in settings_of("anova")}
    assert own < troi
    assert troi - own >= {"n_folds", "n_rounds", "mask_learning_rate", "rewind"}
    assert main(["fit", "anova", "--settings", "--quiet"]) == 0
    assert "n_voxels" in capsys.readouterr().out


def test_a_dry_run_of_a_selector_counts_stage_2(world, capsys):
    assert main(["fit", "univariate", "--data", str(world), "--dry-run", "--json", "--quiet", "--set", *TRAINING]) == 0
    phases = json.loads(capsys.readouterr().out)["phases"]
    assert [phase["name"] for phase in phases][-1] == "stage 2"


def test_selectors_are_compared_in_a_sweep(world, tmp_path):
    from pulvinar.app.sweeps.sweep import sweep

    grid = f"""
data = "{world}"
out = "{tmp_path / "out"}"
controls = false
[set]
n_voxels = 10
epochs = 2
"pretrained.epochs" = 2
"pretrained.hidden" = 8
[[cell]]
method = "anova"
[[cell]]
method = "random"
"""
    (tmp_path / "grid.toml").write_text(grid.replace("[[cell]]\nmethod", '[[cell]]\nname = "NAME"\nmethod', 2))
    text = (tmp_path / "grid.toml").read_text().replace("NAME", "one", 1).replace("NAME", "two", 1)
    (tmp_path / "grid.toml").write_text(text)
    rows = sweep(str(tmp_path / "grid.toml"))["rows"]
    assert [(row["cell"], row["name"], row["n_voxels"]) for row in rows] == [("one", "anova", 10), ("two", "random", 10)]


@pytest.mark.slow
def test_the_usual_selectors_alone_can_be_asked_for(finished, tmp_path):
    whole = {
        row["name"]: row for row in evaluating.evaluate(str(copied(finished, tmp_path)), assignments=["beside=all"])["rows"]
    }
    usual = {row["name"]: row for row in evaluating.evaluate(str(tmp_path / "copy"), assignments=["beside=usual"])["rows"]}
    assert set(whole) - set(usual) == {one.name for one in selectors.every() if one.place is None} != set()
    assert all(usual[name] == whole[name] for name in usual)
