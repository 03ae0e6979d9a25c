"""Figures are written whole, show the right colours, and have the numbers of the run."""

from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from PIL import Image

from pulvinar.decoding import curves_figure, score_figure, trial_figure
from pulvinar.decoding import page as decoding_page
from pulvinar.report import drawing, figures, run_folder
from pulvinar.report.drawing import BOTH, REFERENCE_ONLY, SELECTED_ONLY

NAMES = ("roi", "curves", "scores", "trials", "summary")


@pytest.fixture(scope="module")
def drawn(make_run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return figures.draw(run_folder.read(make_run(tmp_path_factory.mktemp("figures") / "run")), decoding_page)


def share_of(path: Path, colour: str) -> float:
    """Share of the pixels of a PNG that have this colour, to a step of 2 in 255."""
    pixels = np.asarray(Image.open(path).convert("RGB"), dtype=float)
    return float((np.abs(pixels - 255 * np.array(to_rgb(colour))).max(-1) <= 2).mean())


@pytest.mark.long
def test_every_figure_is_there_and_nothing_partial(drawn: dict[str, Path]) -> None:
    assert set(drawn) == set(NAMES)
    folder = drawn["roi"].parent
    assert folder.parts[-2:] == ("artifacts", "figures")
    expected = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")} - {"summary.svg"}
    assert {path.name for path in folder.iterdir()} == expected
    for name in NAMES:
        pixels = np.asarray(Image.open(drawn[name].with_suffix(".png")).convert("L"))
        assert pixels.std() > 5


@pytest.mark.long
def test_the_summary_has_the_size_of_a_readme_picture(drawn: dict[str, Path]) -> None:
    assert Image.open(drawn["summary"].with_suffix(".png")).size == (1600, 900)


@pytest.mark.slow
def test_roi_shows_found_missed_and_false_alarms(drawn: dict[str, Path], make_run, tmp_path: Path) -> None:
    path = drawn["roi"].with_suffix(".png")
    assert min(share_of(path, colour) for colour in (BOTH, REFERENCE_ONLY, SELECTED_ONLY)) > 1e-4
    alone = figures.draw(run_folder.read(make_run(tmp_path / "run", with_truth=False)), decoding_page)["roi"].with_suffix(
        ".png"
    )
    assert share_of(alone, BOTH) > 1e-3
    assert share_of(alone, SELECTED_ONLY) == 0


@pytest.mark.slow
def test_the_same_run_gives_the_same_bytes(make_run, tmp_path: Path) -> None:
    run = run_folder.read(make_run(tmp_path / "run", kind="points", without=("metrics.jsonl",)))
    paths = [path for name in figures.draw(run, decoding_page).values() for path in name.parent.glob(f"{name.name}.*")]
    first = {path: path.read_bytes() for path in paths}
    figures.draw(run, decoding_page)
    assert {path: path.read_bytes() for path in paths} == first


@pytest.mark.long
def test_only_what_the_run_has_is_drawn(tmp_path: Path, make_run) -> None:
    without = ("evaluation.json", "metrics.jsonl", "artifacts/maps.npz")
    assert set(figures.draw(run_folder.read(make_run(tmp_path / "run", without=without)), decoding_page)) == {"trials"}


def test_dots_stand_at_the_scores_best_first(finished_run: Path) -> None:
    evaluation = run_folder.read(finished_run).evaluation
    axis = Figure().subplots()
    score_figure.draw_into(axis, evaluation, "troi")
    dots = [(line.get_ydata()[0], line.get_xdata()[0]) for line in axis.lines if line.get_marker() == "o"]
    scores = sorted((row["brain_to_image_top1"] for row in evaluation["rows"] if row["brain_to_image_top1"]), reverse=True)
    assert dots == list(enumerate(scores))
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels[1] == "TROI"
    assert labels[-1] == "Noise ceiling"
    levels = [line.get_xdata()[0] for line in axis.lines if str(line.get_label()).startswith(("chance", "95th"))]
    assert levels == [1 / 300, 0.01]
    assert any("a noise ceiling needs two" in text.get_text() for text in axis.texts)


def test_a_run_without_any_score_still_draws() -> None:
    evaluation = {"rows": [{"name": "troi", "brain_to_image_top1": None, "unavailable": "no test trials"}]}
    figure = score_figure.draw(evaluation, "troi")
    assert "no test trials" in figure.axes[0].texts[0].get_text()


def test_rounds_and_losses_are_read_in_order(finished_run: Path) -> None:
    records = run_folder.read(finished_run).records
    starts, seen = [], None
    for epoch, record in enumerate((r for r in records if r["phase"] == "select"), 1):
        if record["round"] != seen:
            starts.append(epoch)
            seen = record["round"]
    assert curves_figure.round_starts(records).tolist() == starts == [1, 6, 11, 16, 21, 26, 31]
    losses = [record["loss"] for record in records if record["phase"] == "refit"]
    assert curves_figure.series(records, "refit", "loss").tolist() == losses
    assert curves_figure.curves(records) == ["alive", "select", "refit"]


def test_curves_bear_missing_values_and_rounds() -> None:
    records = [
        {"phase": "select", "n_alive": 0, "loss": None},
        {"phase": "select", "n_alive": 9},
        {"phase": "pretrain", "loss": 1.0},
    ]
    assert np.isnan(curves_figure.series(records, "select", "loss")).all()
    figure = curves_figure.draw(records, {})
    assert [axis.get_title() for axis in figure.axes][1:] == ["Loss, pretraining"]
    assert curves_figure.round_starts(records).tolist() == []


@pytest.mark.long
def test_the_right_image_is_framed_and_the_rank_said(finished_run: Path) -> None:
    examples = run_folder.read(finished_run).examples
    for trial, rank in enumerate(examples.rank):
        axis = Figure().subplots()
        trial_figure.draw_trial(axis, examples, trial, 300)
        frames = [patch for patch in axis.patches if patch.get_edgecolor()[:3] == to_rgb(BOTH)]
        assert len(frames) == (1 if rank <= 5 else 0)
        if frames:  # the framed picture is the one that was seen
            inside = [image for image in axis.images if image.get_extent()[0] == pytest.approx(frames[0].get_x())]
            np.testing.assert_array_equal(inside[0].get_array(), examples.seen[trial])
        assert axis.texts[0].get_text() == f"rank {rank}"


@pytest.mark.parametrize("place", ["outside upper left", "outside upper center", "outside upper right"])
def test_the_mark_of_simulated_data_stands_on_no_legend(place: str, tmp_path: Path) -> None:
    """Oracle: pixels of the mark's strip; a legend alone must leave it white."""
    made = Figure(figsize=(6, 2.5), layout="constrained")
    axis = made.subplots()
    axis.plot([0, 1], label="a line that is named")
    made.legend(loc=place)
    with mock.patch.object(drawing, "SIMULATED", ""):
        drawing.save(made, tmp_path, "marked", simulated=True, formats=("png",), dpi=100)
    with Image.open(tmp_path / "marked.png") as picture:
        pixels = np.asarray(picture.convert("L"))
    assert pixels[: int(100 * drawing.STRIP)].min() == 255
    assert pixels[int(100 * drawing.STRIP) :].min() < 100
    assert made.legends[0].get_window_extent().y0 >= axis.get_window_extent().y1  # nor on the axes
