"""A sweep: cells, finished ones skipped, mistakes before anything starts, one table."""

import csv
import json
from pathlib import Path

import pytest

from pulvinar.app.method_settings import configs
from pulvinar.app.sweeps.grid import cells
from pulvinar.cli import main
from pulvinar.core.config import read_toml
from pulvinar.core.errors import ConfigError
from pulvinar.core.storage import read_arrays

GRID = """
method = "troi"
data = "{world}"
out = "{out}"
controls = false
[set]
n_voxels = 20
epochs = 2
n_rounds = 2
epochs_per_round = 1
n_folds = 2
[set.pretrained]
epochs = 2
hidden = 16
[[cell]]
name = "whole"
[[cell]]
name = "without pretraining"
pretrain = false
[[cell]]
name = "without low-pass and rewinding"
low_pass = "none"
rewind = "none"
"""


def _write(tmp_path: Path, world: Path, text: str = GRID) -> Path:
    grid = tmp_path / "grid.toml"
    grid.write_text(text.replace("{world}", str(world)).replace("{out}", str(tmp_path / "out")))
    return grid


@pytest.mark.long
def test_ablation_cells_are_run_once_and_share_a_pretrained(world, tmp_path, capsys):
    grid = _write(tmp_path, world)
    assert main(["sweep", str(grid), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    names = ["whole", "without_pretraining", "without_low-pass_and_rewinding"]
    assert [row["cell"] for row in result["rows"]] == names
    with Path(result["table"]).open() as file:
        table = list(csv.DictReader(file))
    assert [(row["cell"], row["name"], row["rewind"]) for row in table] == [
        (names[0], "troi", ""),
        (names[1], "troi", ""),
        (names[2], "troi", "none"),
    ]
    assert len(list((tmp_path / "out").glob("pretrained-*"))) == 1
    runs = [path for path in (tmp_path / "out").rglob("*") if path.is_file() and not path.name.startswith("table")]
    before = {path: path.stat().st_mtime_ns for path in runs}
    assert main(["sweep", str(grid), "--quiet"]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in runs}
    changed = _write(tmp_path, world, GRID.replace("epochs = 2\nn_rounds", "epochs = 3\nn_rounds"))
    assert main(["sweep", str(changed), "--quiet"]) == 2  # else old results would stand under new settings
    assert "was made with other settings (epochs)" in capsys.readouterr().err


@pytest.mark.long
def test_cells_build_on_the_finished_run_they_name(world, tmp_path, capsys):
    first, second = (str(tmp_path / name) for name in ("one", "two"))
    for out in (first, second):
        settings = ["epochs=2", "hidden=16"]
        assert main(["fit", "cross_subject_decoder", "--data", str(world), "--out", out, "--quiet", "--set", *settings]) == 0
    text = GRID.replace("[set.pretrained]\nepochs = 2\nhidden = 16\n", "").split("[[cell]]")[0]
    named = _write(tmp_path, world, text.replace("[set]", f'[set]\npretrained = "{first}"') + '[[cell]]\nname = "a"\n')
    assert main(["sweep", str(named), "--quiet"]) == 0
    facts = json.loads((tmp_path / "out" / "a" / "run.json").read_text())
    assert facts["pretrained"] == {"path": first}
    assert not list((tmp_path / "out").glob("pretrained-*"))
    assert main(["sweep", str(named), "--quiet"]) == 0  # the finished cell is skipped
    other = _write(tmp_path, world, text.replace("[set]", f'[set]\npretrained = "{second}"') + '[[cell]]\nname = "a"\n')
    assert main(["sweep", str(other), "--quiet"]) == 2
    assert "was made with other settings (pretrained)" in capsys.readouterr().err
    both = _write(tmp_path, world, text + f'[grid]\npretrained = ["{first}", "{second}"]\n')
    assert [cell.pretrained for cell in cells(read_toml(both))] == [first, second]
    without = '[[cell]]\nname = "without"\npretrain = false\n'  # reads none, as it reads no settings of one
    none = _write(tmp_path, world, text.replace("[set]", f'[set]\npretrained = "{first}"') + without)
    assert main(["sweep", str(none), "--quiet"]) == 0
    assert "pretrained" not in json.loads((tmp_path / "out" / "without" / "run.json").read_text())


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('name = "whole"', 'name = "whole"\npretrained = "nowhere"', "pretrained nowhere has its settings already; leave out"),
        ("[set.pretrained]\nepochs = 2\nhidden = 16", '[grid]\npretrained = ["nowhere"]', "nowhere: not a run folder"),
        ("[set.pretrained]\nepochs = 2\nhidden = 16", "[grid]\npretrained = [3]", "pretrained: the folder of a finished run"),
        ('low_pass = "none"', 'low_pass = "nothing"', "cell without_low-pass_and_rewinding: troi.low_pass is one of"),
        ("n_voxels = 20", "n_voxels = 2000", "a budget of 1 to 120"),
        ('method = "troi"', 'method = "cross_subject_decoder"', "has no evaluation of its own"),
        ('data = "{world}"', 'data = "nowhere"', "nowhere: no such folder"),
        ("[set]", "[sets]", "'sets' is not part of a grid; did you mean 'set'?"),
        ('"without pretraining"', '"whole"', "cells of the same name: whole"),
        ("controls = false", 'controls = "no"', "controls: true or false is needed, 'no' came"),
    ],
)
def test_mistakes_are_reported_before_anything_starts(old, new, expected, world, tmp_path, capsys):
    grid = _write(tmp_path, world, GRID.replace(old, new))
    assert main(["sweep", str(grid), "--quiet"]) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_cells_are_every_combination(tmp_path):
    grid = {"method": "troi", "data": ["a", "b"], "out": "o", "grid": {"seed": [0, 1], "pretrained": {"epochs": [2, 3]}}}
    made = cells(grid)
    assert len(made) == 2 * 2 * 2  # sources x seeds x epochs
    assert made[1].name == "a,seed=0,pretrained.epochs=3"
    assert made[1].assignments == ["seed=0", "pretrained.epochs=3"]
    with pytest.raises(ConfigError, match=r"grid\.seed: a list of values is needed"):
        cells({**grid, "grid": {"seed": 3}})


@pytest.mark.parametrize(
    ("name", "n_cells"),
    [
        ("cifar_gating", 24),
        ("cifar_gating_more", 24),
        ("cifar_students", 6),
        ("troi_ablation", 18),
        ("troi_budgets", 12),
        ("troi_leave_one_out", 1),
        ("troi_sessions", 3),
        ("troi_stability", 27),
    ],
)
def test_every_cell_of_the_benchmark_grids_is_a_config(name, n_cells, request):
    made = cells(read_toml(request.config.rootpath / "benchmarks" / f"{name}.toml"))
    assert len(made) == n_cells
    for cell in made:
        configs(cell.method, None, cell.assignments)


def test_documented_example_is_a_grid(tmp_path):
    from pulvinar.app.sweeps import grid

    text = grid.__doc__.split("\n\n")[1]
    (tmp_path / "grid.toml").write_text(text)
    assert len(cells(read_toml(tmp_path / "grid.toml"))) == 3 * 3


def test_a_subject_that_cannot_teach_the_others_is_named_before_anything_starts(world, tmp_path, capsys):
    text = GRID.replace("controls = false", 'controls = false\ntarget = "all"').split("[[cell]]")[0]
    grid = _write(tmp_path, world, text)
    assert main(["sweep", str(grid), "--json", "--quiet"]) == 2  # sub-03 has no ROI for the others' turn
    assert "sub-03 has no ROI" in capsys.readouterr().err


@pytest.mark.slow
def test_leave_one_subject_out_and_the_stability_of_the_masks(write_world, tmp_path, capsys):
    world = write_world(tmp_path / "world", target_rois=True)
    text = GRID.replace("controls = false", 'controls = false\ntarget = "all"').split("[[cell]]")[0]
    grid = _write(tmp_path, world, text + "[grid]\nseed = [0, 1]\n")
    assert main(["sweep", str(grid), "--json", "--quiet"]) == 0
    result = json.loads(capsys.readouterr().out)
    subjects = ["sub-01", "sub-02", "sub-03"]
    cells = [(name, seed) for name in subjects for seed in (0, 1)]
    assert [(row["target"], row["seed"]) for row in result["rows"]] == cells
    for name in subjects:
        facts = json.loads((tmp_path / "out" / f"{name},seed=0" / "run.json").read_text())
        assert facts["data"]["target"] == name
        pretrained = json.loads((Path(facts["pretrained"]["path"]) / "run.json").read_text())
        assert pretrained["subjects"] == [other for other in subjects if other != name]
    assert [(row["over"], row["n_masks"]) for row in result["stability"]] == [("seed", 2)] * 3
    for row in result["stability"]:
        masks = [read_arrays(tmp_path / "out" / cell / "artifacts" / "maps.npz")["selected"] for cell in row["cells"].split()]
        assert row["dice"] == pytest.approx((masks[0] & masks[1]).sum() / 20)
        assert row["dice_of_chance"] == pytest.approx(20 / 120)
    assert (tmp_path / "out" / "stability.csv").is_file()


@pytest.mark.slow
def test_halves_of_the_data_give_a_row_of_stability(world, tmp_path, capsys):
    text = GRID.split("[[cell]]", maxsplit=1)[0].replace("n_folds = 2", "n_folds = 2\npretrain = false\nhidden = 16")
    grid = _write(
        tmp_path, world, text.replace("[set.pretrained]\nepochs = 2\nhidden = 16\n", "") + '[grid]\nhalf = ["a", "b"]\n'
    )
    assert main(["sweep", str(grid), "--json", "--quiet"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["stability"]
    assert (row["over"], row["n_pairs"]) == ("half", 1)
