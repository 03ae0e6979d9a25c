"""`import pulvinar` as its pages use it: quick to import, typed, the same runs as the command line's, short to look at."""

import json
import logging
import re
import subprocess
import sys
import warnings
from pathlib import Path

import h5py
import matplotlib as mpl
import nibabel
import numpy as np
import pytest

import pulvinar
from pulvinar.cli import main
from pulvinar.core import progress
from pulvinar.core.errors import ConfigError, InputError, NotFoundError, PulvinarWarning

ROOT = Path(__file__).resolve().parents[2]
QUICK = {"n_voxels": 20, "epochs": 3, "n_rounds": 2, "epochs_per_round": 2, "n_folds": 2}
PRETRAINED = {"epochs": 3, "hidden": 16}
ON_PAGES = "n_voxels=3000"  # of which the tiny world has not so many
QUICK_ON_PAGES = ", ".join(f"{name}={value}" for name, value in QUICK.items()) + f", pretrained={PRETRAINED}"


@pytest.fixture(scope="module")
def world(write_world, tmp_path_factory):
    """The tiny world with images, under the name that the pages use."""
    folder = write_world(tmp_path_factory.mktemp("python") / "mystudy", images=True)
    head = json.loads((folder / "experiment.json").read_text())
    (folder / "experiment.json").write_text(json.dumps({**head, "name": "mystudy"}))
    return folder


@pytest.fixture(scope="module")
def run(world, tmp_path_factory):
    """A finished run, not to be changed; `evaluation` scores it."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return pulvinar.fit("troi", pulvinar.open_data(world), QUICK, out=out, pretrained=PRETRAINED)


@pytest.fixture(scope="module", autouse=True)
def evaluation(run):
    """What its evaluation found."""
    return run.evaluate()


@pytest.fixture
def in_python(monkeypatch):
    """Messages as a Python session has them, not as the command line."""
    monkeypatch.setattr(progress.REPORTER, "to_stderr", False)
    monkeypatch.setattr(progress.REPORTER, "quiet", False)


def code_of(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def run_blocks(blocks: list[str], world: Path, folder: Path, monkeypatch) -> None:
    """The code of a page, in a folder in which `mystudy` lies, with settings that take seconds."""
    assert sum(ON_PAGES in block for block in blocks) >= 1
    (folder / "mystudy").symlink_to(world)
    monkeypatch.chdir(folder)
    mpl.use("Agg")
    names: dict[str, object] = {}
    for block in blocks:
        fitted = block.replace(f"data, {ON_PAGES}", f"data, {QUICK_ON_PAGES}")
        fitted = fitted.replace(f'"mystudy/"), {ON_PAGES}', f'"mystudy/"), {QUICK_ON_PAGES}')
        exec(compile(fitted, "page", "exec"), names)


@pytest.mark.slow
def test_the_session_of_the_page_runs(world, tmp_path, monkeypatch, in_python, capsys):
    run_blocks(code_of("docs/python.md"), world, tmp_path, monkeypatch)
    shown = capsys.readouterr()
    assert "did you mean 'n_voxels'?\ntroi.epochs is a whole number, not 'many'" in shown.out
    assert shown.err == ""
    assert nibabel.load(tmp_path / "sub-03_mask.nii.gz").get_fdata().sum() == QUICK["n_voxels"]
    assert (tmp_path / "scores.pdf").stat().st_size > 5000
    assert (tmp_path / "run.png").stat().st_size > 20_000
    assert not (tmp_path / "runs" / "never").exists()


@pytest.mark.long
def test_what_the_page_shows_of_data_is_what_they_look_like(world):
    shown = re.findall(r"^```\n(Experiment .*?)^```$", (ROOT / "docs/python.md").read_text(), flags=re.MULTILINE | re.DOTALL)
    words = re.sub(r"[\d,]+", "N", repr(pulvinar.open_data(world)))
    assert [re.sub(r"[\d,]+", "N", shown[0].strip())] == [words]


def test_the_example_of_the_readme_runs(world, tmp_path, monkeypatch, capsys):
    block = next(block for block in code_of("README.md") if block.startswith("import pulvinar\n"))
    assert len([line for line in block.splitlines() if line.strip()]) <= 5
    run_blocks([block], world, tmp_path, monkeypatch)
    assert "voxels used" in capsys.readouterr().out


def test_import_is_quick_and_loads_nothing():
    """The best of three, on a machine that may be busy; typed names and lazy ones are the same."""
    code = (
        "import sys, time\nstart = time.perf_counter()\nimport pulvinar\nseconds = time.perf_counter() - start\n"
        "heavy = {'torch', 'numpy', 'pandas', 'matplotlib', 'nilearn'} & set(sys.modules)\nprint(seconds, sorted(heavy))\n"
        "assert set(pulvinar.__all__) == set(dir(pulvinar))\nassert pulvinar.list_methods()['troi']\n"
        "assert 'torch' not in sys.modules"
    )
    done = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert min(float(line.split()[0]) for line in done) < 0.2
    assert all(line.split(maxsplit=1)[1].strip() == "[]" for line in done)


@pytest.mark.parametrize("module", [pulvinar, pulvinar.estimators, pulvinar.metrics, pulvinar.rsa])
def test_every_lazy_name_is_there_and_typed(module):
    for name in module.__all__:
        assert getattr(module, name) is not None
    assert set(module.__all__) == set(dir(module))
    with pytest.raises(AttributeError, match=r"there are|did you mean"):
        module.no_such_name  # noqa: B018


def test_the_package_says_that_it_is_typed():
    assert (ROOT / "src/pulvinar/py.typed").is_file()


def test_a_run_of_python_is_that_of_the_command_line(run, world, tmp_path, capsys):
    """Oracle: the same fit through the command line: the same settings file, the same selection, the same weights."""
    other = tmp_path / "cli"
    settings = [f"{name}={value}" for name, value in QUICK.items()] + [f"pretrained.{k}={v}" for k, v in PRETRAINED.items()]
    assert main(["fit", "troi", "--data", str(world), "--out", str(other), "--quiet", "--set", *settings]) == 0
    assert (other / "config.toml").read_text() == (run.path / "config.toml").read_text()
    np.testing.assert_array_equal(pulvinar.load(other).masks.voxels("sub-03"), run.masks.voxels("sub-03"))
    for fact in ("fingerprint", "path", "name", "images"):
        assert pulvinar.load(other).facts["data"][fact] == run.facts["data"][fact]
    assert pulvinar.fit("troi", world, QUICK, out=other, pretrained=PRETRAINED, resume=True).facts["seconds"] > 0


def test_settings_come_as_keywords_a_dict_or_a_config(run):
    made = pulvinar.config("troi", QUICK)
    assert pulvinar.config("troi", **QUICK) == made == run.config
    assert pulvinar.config("troi", n_voxels=np.int64(20), **{k: v for k, v in QUICK.items() if k != "n_voxels"}) == made
    assert made.n_voxels == 20


def test_a_config_goes_into_fit_and_keywords_win(world, tmp_path):
    config = pulvinar.config("ridge_encoding")
    with pytest.raises(ConfigError, match="n_folds"):
        pulvinar.fit("ridge_encoding", world, config, n_folds=-1, out=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_all_mistakes_are_told_at_once(world, tmp_path):
    with pytest.raises(ConfigError) as raised:
        pulvinar.fit("troi", world, n_voxel=3, epochs=1.5, out=tmp_path / "never", pretrained={"hiden": 3})
    lines = str(raised.value).splitlines()
    assert [line.partition(";")[2].strip() for line in lines if "did you mean" in line] == [
        "did you mean 'n_voxels'?",
        "did you mean 'hidden'?",
    ]
    assert "troi.epochs is a whole number, not 1.5" in lines
    assert not (tmp_path / "never").exists()


def test_data_in_memory_need_no_file_and_are_asked_for_later(world, tmp_path):
    from dataclasses import replace

    data = replace(pulvinar.open_data(world), source="")
    run = pulvinar.fit("troi", data, QUICK, out=tmp_path / "run", pretrained=PRETRAINED)
    assert run.evaluate(controls=False).result["rows"][0]["name"] == "troi"
    again = pulvinar.load(tmp_path / "run")
    with pytest.raises(OSError, match=r"given in Python: the data of .* are not there any more"):
        again.evaluate()
    assert again.evaluate(data, controls=False).headline


def test_data_of_another_kind_or_other_data_are_refused(run, write_world, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", x_train=images)
    pictures = pulvinar.open_data(tmp_path / "images.npz")
    assert repr(pictures).splitlines()[0] == "ImageSet 'images'"
    with pytest.raises(InputError, match=r"an experiment is needed, as an Experiment.*; an ImageSet came"):
        run.evaluate(pictures)
    other = write_world(tmp_path / "other", images=True)
    with h5py.File(other / "responses" / "sub-03.h5", "r+") as file:
        file["values"][:] += 1
    with pytest.raises(InputError, match="not the ones this run began with"):
        run.evaluate(other)


def test_sources_are_opened_as_what_they_hold(world, tmp_path):
    generator = np.random.default_rng(0)
    rdm = generator.random((2, 6, 6))
    rdm = rdm + rdm.transpose(0, 2, 1)
    rdm[:, range(6), range(6)] = 0
    np.savez(tmp_path / "rdms.npz", it=rdm)
    assert repr(pulvinar.open_data(tmp_path / "rdms.npz")).startswith("Dissimilarities")
    assert repr(pulvinar.open_data(world / "images")).startswith("ImageSet")
    assert pulvinar.open_data(world, target="sub-01").target == "sub-01"
    with pytest.raises(NotFoundError, match="did you mean 'images'"):
        pulvinar.open_data(world, kind="image")


def test_what_a_session_shows_is_short(run, evaluation, world):
    data = pulvinar.open_data(world)
    for shown in (data, data.stimuli, data.subjects["sub-03"], data.subjects["sub-03"].geometry, data.split, run, run.masks):
        assert len(repr(shown)) < 700
        assert repr(shown).count("\n") <= 4
    for shown in (data, run, run.masks, evaluation):
        assert shown._repr_html_().startswith("<table>")


def test_html_of_names_is_escaped(world):
    from dataclasses import replace

    assert "<b>" not in replace(pulvinar.open_data(world), name="<b>x")._repr_html_()


@pytest.mark.long
def test_the_table_is_that_of_the_page(run):
    """Oracle: scores.csv, read back."""
    import pandas as pd

    run.report()
    read = pd.read_csv(run.path / "artifacts" / "scores.csv")
    assert list(run.table.columns) == list(read.columns)
    np.testing.assert_allclose(run.table["brain_to_image_top1"].astype(float), read["brain_to_image_top1"])


def test_masks_are_images_in_the_space_of_the_data(run):
    mask = run.masks["sub-03"]
    assert (mask.shape, int(mask.get_fdata().sum())) == ((6, 5, 4), QUICK["n_voxels"])
    np.testing.assert_array_equal(mask.affine, np.diag([2.0, 2, 2, 1]))
    index = np.argwhere(np.ones((6, 5, 4)))[run.masks.voxels("sub-03")]
    assert mask.get_fdata()[tuple(index.T)].all()
    with pytest.raises(NotFoundError, match="did you mean 'sub-03'"):
        run.masks["sub-3"]


def test_figures_are_those_of_the_page(run):
    assert pulvinar.plot.panels(run) == ["roi", "curves", "scores", "trials", "summary"]
    names = [text.get_text() for text in pulvinar.plot.scores(run).axes[0].get_yticklabels()]
    assert {"TROI", "All voxels", "Univariate"} <= set(names)
    with pytest.raises(NotFoundError, match="no figure 'rdms'"):
        pulvinar.plot.rdms(run)


def test_a_figure_goes_into_axes(run):
    from matplotlib.figure import Figure

    figure = Figure()
    axis = figure.subplots()
    assert pulvinar.plot.roi(run, ax=axis) is axis
    pixels = axis.images[0].get_array()
    assert pixels.shape[1] > 1000
    assert np.asarray(pixels)[..., :3].std() > 10


@pytest.mark.long
def test_simulated_data_are_marked_on_figures(run, tmp_path):
    import shutil

    from pulvinar.core.storage import read_json, write_json
    from pulvinar.report.drawing import SIMULATED

    copy = Path(shutil.copytree(run.path, tmp_path / "copy"))
    facts = read_json(copy / "run.json")
    write_json(copy / "run.json", {**facts, "data": {**facts["data"], "simulated": True}})
    for name in pulvinar.plot.panels(copy):
        marked, plain = pulvinar.plot.panel(copy, name), pulvinar.plot.panel(run, name)
        assert SIMULATED in [text.get_text() for text in marked.texts]
        assert marked.get_figheight() > plain.get_figheight() or name == "summary"
    assert "SIMULATED" in repr(pulvinar.load(copy))


def test_messages_go_to_logging_and_warnings(in_python, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="pulvinar"):
        progress.log("reading")
    assert [record.message for record in caplog.records] == ["reading"]
    with pytest.warns(PulvinarWarning, match="odd") as caught:
        progress.warn("odd")
    assert caught[0].filename == __file__  # the caller's line, not ours
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        progress.warn("once", once=True) if "once" in progress.REPORTER._said else None
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "")


def test_progress_is_switched_on_and_off(monkeypatch, capsys):
    monkeypatch.setattr(progress.REPORTER, "to_stderr", False)
    monkeypatch.setattr(progress.REPORTER, "quiet", False)
    pulvinar.show_progress(True)
    progress.log("shown")
    pulvinar.show_progress(False)
    progress.log("hidden")
    assert capsys.readouterr().err == "shown\n"
    pulvinar.show_progress(None)
    assert not progress.REPORTER.quiet
    assert not progress.REPORTER.to_stderr


def test_what_a_run_has_not_is_said(run, tmp_path):
    with pytest.raises(InputError, match="a run of troi predicts nothing for new images"):
        run.predict(tmp_path)
    with pytest.raises(OSError, match="not a run folder"):
        pulvinar.load(tmp_path)
