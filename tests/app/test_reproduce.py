"""Recipes: every one is whole, its settings are taken by its methods, its estimate is finite; some run from start to end."""

import csv
import json
import re
from pathlib import Path

import pytest

from pulvinar.app import cost, recipe, reproduce, reproduce_page
from pulvinar.app.method_settings import configs
from pulvinar.app.reproduce_page import NOT_SAID, _label
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, InputError, NotFoundError
from pulvinar.decoding.decoder_size import Speed

RECIPES = recipe.recipes()
NAMES = ("method", "setting", "table")  # columns of the comparison that are no score
PAPER_TABLES = [
    *(f"troi/table{n}" for n in (1, 2, 3)), "troi/figure1", "troi/figure3", "aggregation/table1", "aggregation/figure2",
    "dcs/table1", "dcs/figure1", *(f"dual-gating/table{n}" for n in range(1, 7)), "dual-gating/figure2", "encoding/pooled",
    "encoding/transfer", "encoding/classification", "encoding/landscape", "encoding/salience",
]  # fmt: skip


def test_every_table_and_figure_of_the_papers_is_there():
    assert sorted(RECIPES) == sorted(PAPER_TABLES)
    assert all(found.published() for found in RECIPES.values() if found.tables)
    assert all(found.published() for name, found in RECIPES.items() if "table" in name)
    assert all(step in {*reproduce.STEPS, *reproduce.STEPS_TOGETHER} for found in RECIPES.values() for step in found.after)


@pytest.mark.long
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("scale", ["full", "small"])
def test_its_settings_are_settings_of_its_methods(name, scale):
    found = RECIPES[name]
    for dataset in found.data if scale == "full" else (found.layout()[0],):
        for cell in found.cells(scale, dataset):
            configs(cell["method"], None, found.assignments(cell))
            assert cell["method"] in found.methods
            has_preset = found.presets or "preset" in str(found.common.get("set")) or found.name.startswith("aggregation")
            assert ("preset" in cell) == (scale == "full" and bool(has_preset) and cell["method"] != "distillation")


@pytest.mark.parametrize("name", [name for name, found in RECIPES.items() if found.tables])
def test_every_row_of_a_published_table_is_run_at_scale_small_too(name):
    """As many cells, axes and new subjects; budgets of voxels are smaller, names are the same."""
    found = RECIPES[name]
    full, small = ([cell["name"] for cell in found.cells(scale, found.data[0])] for scale in ("full", "small"))
    assert full == small
    assert len(found.targets("full")) == len(found.targets("small"))
    assert {axis: len(values) for axis, values in found.grid("full").items()} == {
        axis: len(values) for axis, values in found.grid("small").items()
    }


@pytest.mark.parametrize("name", RECIPES)
def test_what_tells_cells_apart_does_so_at_scale_small_too(name):
    """A setting that all small cells share must not stand over one by which they differ; lengths of training may."""
    found = RECIPES[name]
    full, small = found.cells("full", found.data[0]), found.cells("small", found.layout()[0])
    of_both = {key for cell in full for key in cell} - {"preset", "epochs", "n_voxels", "use_reliability"}
    for key in of_both:
        assert len({str(cell.get(key)) for cell in small}) == len({str(cell.get(key)) for cell in full}), key


@pytest.mark.long
def test_what_is_planned_is_the_paper_s(capsys):
    assert main(["reproduce", "troi/table1", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "new subjects: subj01, subj02, subj05, subj07" in said
    assert "  n_voxels = 3000" in said
    assert "  pretrained.epochs = 150" in said
    assert "GB of memory" in said
    plan = reproduce.planned("dual-gating/table1")
    assert {cell["settings"]["epochs"] for cell in plan["cells"]} == {500}
    assert {cell["data"] for cell in plan["cells"]} == {"cifar10", "stl10", "cifar100", "imagenet100"}
    assert len(plan["cells"]) == 4 * 7


@pytest.mark.slow
def test_hours_grow_with_the_work_and_shrink_with_speed():
    slow, fast = (Speed(multiply_adds=rate, bytes=rate, step=1e-4) for rate in (1e10, 1e12))
    for found in RECIPES.values():
        one, other = cost.estimate(found, slow), cost.estimate(found, fast)
        assert one["hours"] is not None
        assert one["hours"] > 5 * other["hours"] > 0
        assert one["memory_gb"] == other["memory_gb"] > 1
    tables = {name: cost.estimate(RECIPES[f"dcs/{name}"], slow)["hours"] for name in ("table1", "figure1")}
    assert tables["table1"] == pytest.approx(8 * tables["figure1"])  # eight networks against one


@pytest.mark.long
def test_the_list_is_for_programs_too(tmp_path, capsys):
    assert main(["reproduce", "--list", "--json", "--data", f"cifar10:{tmp_path}", "--data", "nsd:nowhere"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["recipes"]}
    assert list(rows) == list(RECIPES)
    assert {"name", "published", "needs", "available", "hours", "memory_gb"} <= set(rows["troi/table1"])
    assert rows["dcs/table1"]["available"]
    assert not rows["troi/table1"]["available"]
    assert rows["dcs/table1"]["published"][0]["value"] == 85.46


def test_a_missing_name_data_or_place_is_said(tmp_path, capsys):
    assert main(["reproduce"]) == 2
    assert "reproduce --list" in capsys.readouterr().err
    with pytest.raises(NotFoundError, match="did you mean 'troi/table1'"):
        recipe.recipe("troi/tabel1")
    with pytest.raises(ConfigError, match=r"--data nsd:DIR is needed; or --scale small(.|\n)*token embeddings"):
        reproduce.reproduce("troi/table1", out=str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_two_folders_of_one_data_set_have_runs_of_their_own():
    sources = ["algonauts2019:a/92_Image_Set", "algonauts2019:a/118_Image_Set", "nsd:b?subjects=1"]
    assert [reproduce._folder_of(source, sources) for source in sources] == [
        "algonauts2019-92_Image_Set", "algonauts2019-118_Image_Set", "nsd",
    ]  # fmt: skip


def test_what_is_set_wins_over_an_axis_too(tmp_path):
    given = ["n_voxels=40", "seed=7"]
    grid = reproduce._grid(RECIPES["troi/table3"], "small", "nsd:x", tmp_path / "runs", [0], given)
    assert grid["grid"] == {}
    assert [(cell["n_voxels"], cell["seed"]) for cell in grid["cell"]] == [("40", "7")]


def test_data_planted_with_other_settings_are_not_taken(tmp_path):
    settings = ("n_train=20", "n_test=10", "image_size=8")
    place = reproduce._plant(tmp_path, "labelled_images", "image_files", settings)
    assert reproduce._plant(tmp_path, "labelled_images", "image_files", settings) == place
    with pytest.raises(InputError, match="other settings than these: n_train=30"):
        reproduce._plant(tmp_path, "labelled_images", "image_files", ("n_train=30",))


@pytest.mark.parametrize(
    ("name", "folder", "label"),
    [
        ("troi/table2", "without_low-pass_and_rewinding,seed=0", "without low-pass and rewinding"),
        ("troi/table3", "troi,n_voxels=20,seed=0", "20 voxels"),
        ("troi/figure1", "troi,n_sessions=1,seed=0", "1 session"),
        ("dual-gating/table4", "dual_gating,objective=barlow_twins,budget=0.1,seed=0", "objective barlow twins, budget 0.1"),
        ("encoding/salience", "contrastive-tuned,seed=0", "contrastive-tuned"),
    ],
)
def test_runs_are_named_by_what_tells_them_apart(name, folder, label):
    assert _label(Path(folder), RECIPES[name], several_seeds=False) == label
    assert _label(Path(folder), RECIPES[name], several_seeds=True).endswith("seed 0")


def test_cautions_that_differ_by_their_numbers_alone_stand_once(monkeypatch):
    said = {
        "10 %": ["the gates were moved by -2.3", "collapsed", "no voxel in area 2"],
        "30 %": ["the gates were moved by -2.1", "collapsed", "no voxel in area 2"],
        "50 %": ["collapsed"],
    }
    monkeypatch.setattr(reproduce_page, "cautions", lambda run: said[run])
    assert reproduce_page._cautions({name: name for name in said}) == [
        "10 %, 30 % (numbers of 10 %): the gates were moved by -2.3", "Every run: collapsed", "10 %, 30 %: no voxel in area 2",
    ]  # fmt: skip
    long = {f"objective vicreg, budget 0.{number}": ["collapsed"] if number < 4 else [] for number in range(1, 5)}
    monkeypatch.setattr(reproduce_page, "cautions", lambda run: long[run])
    assert reproduce_page._cautions({name: name for name in long}) == ["objective vicreg, budget 0.1, and 2 more: collapsed"]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_at_scale_small_ends_in_a_page(name, tmp_path_factory):
    """All share what is planted. A second call makes nothing again."""
    out = tmp_path_factory.getbasetemp() / "reproduced"
    result = reproduce.reproduce(name, out=str(out), scale="small")
    page = Path(result["report"]).read_text()
    assert "SIMULATED" in page or RECIPES[name].wing == "gating"
    assert "What differs from the paper" in page
    assert len(RECIPES[name].figures) <= page.count('<figure class="full">')
    for run in result["runs"]:
        assert f"{Path(run).name}/report.html" in page
        assert (Path(run) / "report.html").is_file()
    with (Path(result["report"]).parent / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if "ours" in row["method"].lower()]
    assert ours
    assert all(any(value not in ("", "–") for key, value in row.items() if key not in NAMES) for row in ours)
    assert any(value for row in ours for key, value in row.items() if key.endswith("_low_95"))
    assert not re.search(r">\s*(nan|None|inf)\b", page)
    assert NOT_SAID not in page  # every dash of ours has a reason
    for entry in RECIPES[name].published():
        assert any(row["method"] == entry["method"] for row in rows)
    stamps = {run: (Path(run) / "evaluation.json").stat().st_mtime_ns for run in result["runs"]}
    again = reproduce.reproduce(name, out=str(out), scale="small")
    assert {run: (Path(run) / "evaluation.json").stat().st_mtime_ns for run in again["runs"]} == stamps
