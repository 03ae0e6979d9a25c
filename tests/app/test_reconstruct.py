"""`pulvinar reconstruct` on a world whose pictures are linear in the embedding: written, scored, resumed, refused."""

import csv
import dataclasses
import importlib.util
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import open_experiment
from pulvinar.app.reconstruct import _unit_range, choose, reconstruct
from pulvinar.cli import main
from pulvinar.core.errors import ConfigError, FileError, InputError, NotFoundError
from pulvinar.data.experiment import load
from pulvinar.decoding.pictures.reconstruction import score_table
from pulvinar.learning.runs import RunFolder

SMALL = ("picture_size=16", "epochs=1", "low_level_epochs=8", "n_components=12", "width=8")
TROI = (
    "n_voxels=20",
    "epochs=60",
    "n_rounds=2",
    "epochs_per_round=4",
    "n_folds=2",
    "pretrained.epochs=60",
    "pretrained.hidden=32",
)


def write_pictures(world: Path) -> None:
    """Smooth pictures that are linear in each stimulus's embedding."""
    experiment = load(world)
    generator = np.random.default_rng(3)
    coarse = generator.normal(size=(experiment.stimuli.feature("clip").shape[1], 4, 4, 3))
    patterns = coarse.repeat(6, axis=1).repeat(8, axis=2)  # 24 x 32 pixels
    (world / "images").mkdir()
    for name, row in zip(experiment.stimuli.ids, experiment.stimuli.feature("clip"), strict=True):
        pixels = 128 + 14 * np.tensordot(row, patterns, axes=1)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(world / "images" / f"{name}.png")


@pytest.fixture(scope="module")
def run(write_world, tmp_path_factory) -> Path:
    """A finished run of troi on the world with such pictures. Its first reconstruction lies in it, of six images."""
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(write_world(folder / "world"))
    fitting.fit("troi", data=str(folder / "world"), out=str(folder / "run"), assignments=TROI)
    reconstruct(str(folder / "run"), images="6", assignments=SMALL)
    return folder / "run"


@pytest.mark.slow
def test_pictures_grid_and_scores_are_written(run):
    folder = run / "reconstructions"
    summary = json.loads((folder / "summary.json").read_text())
    rows = {row["name"]: row for row in summary["rows"]}
    with (folder / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == summary["n_images"] == 6
    assert {path.stem for path in (folder / "images").iterdir()} == {line["stimulus"] for line in lines}
    assert all(line["n_trials"] == "2" for line in lines)
    assert np.mean([float(line["pixcorr"]) for line in lines]) == pytest.approx(rows["reconstruction"]["pixcorr"], abs=1e-5)
    assert Image.open(folder / "images" / f"{lines[0]['stimulus']}.png").size == (16, 16)
    assert Image.open(folder / "grid.png").size[0] == 2550
    assert summary["skipped"]["alexnet2"].startswith("alexnet2: no weights")


@pytest.mark.long
def test_planted_pictures_are_found_again(run):
    """Planted truth: pictures are linear in what the voxels carry. Controls stay at chance, the oracle is above ours."""
    rows = {row["name"]: row for row in json.loads((run / "reconstructions" / "summary.json").read_text())["rows"]}
    ours = rows["reconstruction"]
    assert ours["pixcorr"] > 0.5
    assert ours["colour"] > 0.8
    assert rows["mean image"]["colour"] == pytest.approx(0.5)
    assert rows["shuffled brains"]["pixcorr"] < ours["pixcorr_interval"][0]
    assert rows["shuffled brains"]["pixcorr_difference_interval"][1] < 0
    assert rows["from the true embedding"]["pixcorr"] > 0.9
    assert rows["from the true embedding"]["sees_answer"]
    assert abs(ours["colour_null"]["mean"] - 0.5) < 0.05
    assert ours["colour_null"]["p_value"] < 0.05


@pytest.mark.long
def test_the_same_again_trains_nothing_and_other_settings_are_refused(run, tmp_path, monkeypatch):
    run = Path(shutil.copytree(run, tmp_path / "run"))  # without its controls the first one would have lost them
    before = (run / "reconstructions" / "scores.csv").read_bytes()
    from pulvinar.decoding.methods import picture_decoder

    monkeypatch.setattr(picture_decoder, "METHOD", dataclasses.replace(picture_decoder.METHOD, fit=None))
    reconstruct(str(run), images="6", controls=False)
    assert (run / "reconstructions" / "scores.csv").read_bytes() == before
    with pytest.raises(ConfigError, match=r"begun with other settings \(blend\)"):
        reconstruct(str(run), images="6", assignments=[*SMALL, "blend=0.1"])


@pytest.mark.long
def test_the_report_shows_the_reconstructions(run):
    page = Path(evaluating.report(str(run))["report"]).read_text()
    assert "What was reconstructed (embedded generator)" in page
    assert page.count("data:image/png;base64") >= 2  # the voxels, and the grid
    measures = {name: {"kind": "two_way"} for name in ("energy", "squeezenet1_0")}
    columns = score_table({"metrics": measures, "rows": []}).columns
    assert [column.label for column in columns] == ["pictures", "Energy", "squeezenet1_0"]


@pytest.mark.slow
def test_a_run_of_its_own_with_the_diffusion_prior(run, tmp_path, capsys):
    """`fit picture_decoder --pretrained RUN`, `reconstruct PICS`, with a folder of the seen pictures as --images."""
    world, pics = str(run.parent / "world"), tmp_path / "pics"
    prior = ["prior=diffusion", "prior_epochs=2", "prior_layers=1", "prior_heads=2", "prior_head_dim=8"]
    fitting.fit("picture_decoder", data=world, out=str(pics), pretrained=str(run), assignments=[*SMALL, *prior])
    (tmp_path / "chosen").mkdir()
    for number in (103, 120):
        name = f"image-{number}.png"
        shutil.copy(run.parent / "world" / "images" / name, tmp_path / "chosen" / name)
    command = ["reconstruct", str(pics), "--images", str(tmp_path / "chosen"), "--out", str(tmp_path / "out"), "--json"]
    assert main([*command, "--only-pictures"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["prior"] == "diffusion"
    assert result["settings"]["images"] == ["image-103", "image-120"]
    with pytest.raises(ConfigError, match="trained already"):
        reconstruct(str(pics), assignments=["blend=0"])
    rows = {row["name"]: row for row in reconstruct(str(pics), images="6", out=str(tmp_path / "six"))["rows"]}
    without = json.loads((run / "reconstructions" / "summary.json").read_text())["rows"][0]  # the same parts, prior=linear
    for metric in ("pixcorr", "ssim", "energy", "colour"):
        assert rows["regression head"][metric] == without[metric] != rows["reconstruction"][metric]


@pytest.mark.slow
def test_a_pretrained_decoder_is_adapted_to_the_new_subject(run, tmp_path):
    """A run of cross_subject_decoder has no layer for the target: one is fitted, and pictures are above the shuffled ones."""
    result = reconstruct(str(run / "pretrained"), images="4", out=str(tmp_path / "out"), assignments=SMALL)
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["reconstruction"]["pixcorr"] > rows["shuffled brains"]["pixcorr"] + 0.2


@pytest.mark.slow
def test_a_folder_of_other_pictures_is_retrieved_from(run, tmp_path):
    """Planted: the seen pictures under other names. The nearest by pixels is most often the seen one."""
    folder = tmp_path / "gallery"
    folder.mkdir()
    for number in range(100, 130):
        shutil.copy(run.parent / "world" / "images" / f"image-{number}.png", folder / f"other-{number}.png")
    reconstruct(
        str(run), images=str(folder), out=str(tmp_path / "out"), controls=False, assignments=[*SMALL, "low_level_epochs=0"]
    )
    with (tmp_path / "out" / "scores.csv").open() as file:
        lines = list(csv.DictReader(file))
    right = [line["retrieved_1"].removeprefix("other-") == line["stimulus"].removeprefix("image-") for line in lines]
    assert np.mean(right) > 0.5


@pytest.mark.slow
def test_a_pretrained_generator_makes_each_picture_once(run, tmp_path):
    """Tiny random weights: nothing is made twice, generators are not mixed, embeddings of another length are refused."""
    spec = importlib.util.spec_from_file_location("tiny", Path(__file__).parents[1] / "decoding" / "tiny_pipelines.py")
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    out, place = tmp_path / "out", tiny.write_unclip(tmp_path / "weights", dim=12)
    given = {"images": "2", "out": str(out), "controls": False, "n_steps": 1, "assignments": [*SMALL, "low_level_epochs=0"]}
    result = reconstruct(str(run), generator=f"unclip:{place}", **given)
    assert result["rows"][0]["description"] == "unclip generator, regression head"
    files = {path: path.stat().st_mtime_ns for path in (out / "generated").iterdir()}
    assert [path.stem for path in sorted(files)] == ["image-100", "image-129"]
    assert Image.open(out / "images" / "image-100.png").size == (16, 16)
    reconstruct(str(run), generator=f"unclip:{place}", **given)
    assert files == {path: path.stat().st_mtime_ns for path in (out / "generated").iterdir()}
    with pytest.raises(ConfigError, match="made with another generator"):
        reconstruct(str(run), **given | {"n_steps": None})
    other = tiny.write_unclip(tmp_path / "other", dim=16)
    with pytest.raises(InputError, match="take embeddings of 16 numbers, the run decodes 'clip' of 12"):
        reconstruct(str(run), generator=f"unclip:{other}", **given | {"out": str(tmp_path / "new")})


@pytest.mark.slow
def test_shuffled_responses_give_nothing(write_world, change, tmp_path):
    """Leak test through the whole pipeline: the new subject's responses in another order score as chance does."""
    world = write_world(tmp_path / "world")
    write_pictures(world)
    values = load(world).subjects["sub-03"].values
    change(world / "responses" / "sub-03.h5", "values", np.random.default_rng(5).permutation(np.asarray(values)))
    fitting.fit("troi", data=str(world), out=str(tmp_path / "run"), assignments=TROI)
    ours = reconstruct(str(tmp_path / "run"), images="all", controls=False, assignments=SMALL)["rows"][0]
    for metric in ("energy", "colour"):
        low, high = ours[f"{metric}_interval"]
        assert abs(ours[metric] - 0.5) < 2 * (high - low) / 3.92
    assert ours["pixcorr"] < ours["pixcorr_null"]["percentile_95"]


def test_which_images(run):
    experiment = open_experiment(str(run.parent / "world"))
    assert choose(experiment, "all").ids == list(experiment.split.test)
    assert choose(experiment, "3").ids == [f"image-{number}" for number in (100, 114, 129)]
    assert choose(experiment, "0, 29,image-105").ids == ["image-100", "image-129", "image-105"]
    for given, error, said in (
        ("1", InputError, "2 to 30 test images"),
        ("31", InputError, "2 to 30 test images"),
        ("image-100", InputError, "two test images or more"),
        ("image-100,image-5", NotFoundError, "'image-5' is no test stimulus"),
        ("0,30", InputError, "the test images are 0 to 29"),
    ):
        with pytest.raises(error, match=said):
            choose(experiment, given)


@pytest.mark.long
def test_bad_input_is_refused_before_anything_is_written(run, finished, change, tmp_path):
    out = str(tmp_path / "out")
    with pytest.raises(InputError, match="these stimuli came without"):
        reconstruct(str(finished), out=out)
    (tmp_path / "other").mkdir()
    facts = json.loads((run / "run.json").read_text())
    (tmp_path / "other" / "run.json").write_text(json.dumps({**facts, "method": "ridge_encoding"}))
    with pytest.raises(InputError, match="made from a run of troi, a selector or cross_subject_decoder"):
        reconstruct(str(tmp_path / "other"), out=out)
    moved = Path(shutil.copytree(run.parent / "world", tmp_path / "moved"))
    change(moved / "stimuli.h5", "features/clip", np.random.default_rng(9).normal(size=(130, 12)).astype(np.float32))
    with pytest.raises(InputError, match="not the ones this run began with"):
        reconstruct(str(run), out=out, data=str(moved))
    with pytest.raises(FileError, match=r"alexnet2: no weights in .* curl -L"):
        reconstruct(str(run), out=out, measures=["alexnet2"], weights=str(tmp_path))
    with pytest.raises(NotFoundError, match="'alexnut' is none"):
        reconstruct(str(run), out=out, measures=["alexnut"])
    with pytest.raises(FileError, match="hf download"):
        reconstruct(str(run), out=out, generator=f"unclip:{tmp_path / 'none'}")
    with pytest.raises(ConfigError, match="picture_size is 16 or more, a multiple of 8"):
        reconstruct(str(run), out=out, assignments=["picture_size=20"])
    with pytest.raises(FileError, match=r"config\.json is missing"):
        reconstruct(str(run), out=str(tmp_path / "late"), assignments=[*SMALL, f"autoencoder={tmp_path / 'none'}"])
    assert not Path(out).exists()
    unfinished = Path(shutil.copytree(run, tmp_path / "unfinished"))
    facts = json.loads((unfinished / "run.json").read_text())
    (unfinished / "run.json").write_text(json.dumps({**facts, "status": "running"}))
    with pytest.raises(InputError, match="a finished run of troi is needed"):
        reconstruct(str(unfinished), out=out)


def test_other_pixels_are_other_data(run, tmp_path):
    """One sampled picture changed in one pixel is refused; data without any images stay the run's own."""
    moved = Path(shutil.copytree(run.parent / "world", tmp_path / "moved"))
    pixels = np.asarray(Image.open(moved / "images" / "image-129.png")).copy()
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(moved / "images" / "image-129.png")
    with pytest.raises(InputError, match="not the ones this run began with"):
        reconstruct(str(run), out=str(tmp_path / "out"), data=str(moved))
    shutil.rmtree(moved / "images")
    assert fitting.is_same_data(RunFolder.reopen(run), open_experiment(str(moved)))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        ("few", "16 or more are needed to learn pictures from, 10 came"),
        ("small", "16 x 16 pixels or more are needed, 12 x 12 came"),
        ("model", "embeddings of another network"),
        ("test", "no trial shows a test stimulus"),
    ],
)
def test_data_that_cannot_give_pictures(run, spoil, said):
    """The method's own check, on the world changed in one way."""
    import dataclasses

    from pulvinar.data.splits import Split
    from pulvinar.decoding.methods import picture_decoder

    experiment = open_experiment(str(run.parent / "world"))
    stimuli, split, subjects = experiment.stimuli, experiment.split, dict(experiment.subjects)
    if spoil == "few":
        split = Split(train=split.train[:10], test=split.test)
    elif spoil == "small":
        stimuli = dataclasses.replace(stimuli, read_image=lambda row: np.full((12, 12, 3), row, np.uint8))
    elif spoil == "model":
        stimuli = dataclasses.replace(stimuli, features={"clip": stimuli.feature("clip") + 1})
    else:
        split = Split(train=split.train, test=("image-129",))
        ours = subjects["sub-03"]
        keep = np.array([name != "image-129" for name in ours.stimulus_ids])
        ids = [name for name in ours.stimulus_ids if name != "image-129"]
        subjects["sub-03"] = dataclasses.replace(
            ours, values=ours.values[keep], stimulus_ids=ids, sessions=ours.sessions[keep], runs=ours.runs[keep]
        )
    changed = dataclasses.replace(experiment, stimuli=stimuli, split=split, subjects=subjects)
    with pytest.raises(InputError, match=said):
        picture_decoder.METHOD.ready(picture_decoder.Config(), changed, RunFolder.reopen(run))


def test_pixels_that_may_not_be_written_to_are_taken_without_a_warning():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    pixels.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = _unit_range(pixels)
    np.testing.assert_allclose(found[1, 1, 2], pixels[1, 2, 1] / 255)
