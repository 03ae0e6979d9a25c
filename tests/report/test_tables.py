"""Formatting and verdicts, against values worked out by hand and Python's csv reader."""

import csv
import io
import math
from pathlib import Path

import pytest

from pulvinar.app import reproduce_page
from pulvinar.report import run_folder, tables
from pulvinar.report.published_tables import published
from pulvinar.scores.table import csv_text

PUBLISHED = [column for columns in reproduce_page.PUBLISHED.values() for column in columns]
INTERVAL = "difference_to_troi_interval"


def row(name: str, score: float | None = 0.5, interval: list | None = None, **more: object) -> dict:
    return {"name": name, "brain_to_image_top1": score, INTERVAL: interval, **more}


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ([-0.2, -0.1], "lower"),
        ([0.01, 0.1], "higher"),
        ([-0.1, 0.1], "tie"),
        ([-0.1, 0.0], "tie"),
        ([0.0, 0.1], "tie"),
        (None, "not told"),
        ([None, 0.1], "not told"),
    ],
)
def test_verdict_is_a_tie_exactly_where_the_interval_holds_zero(interval: list | None, expected: str) -> None:
    assert tables.verdict(row("random", interval=interval), "troi") == expected


def test_verdict_of_the_run_itself_and_of_a_row_without_a_score() -> None:
    assert tables.verdict(row("troi", interval=[-1, -0.5]), "troi") == "run"
    assert tables.verdict(row("ceiling", score=None, interval=[-1, -0.5]), "troi") == "none"


def test_standing_names_wins_ties_and_losses() -> None:
    rows = [
        row("troi"),
        row("random", interval=[-0.3, -0.2]),
        row("anova", interval=[-0.1, 0.1]),
        row("all", interval=[0.1, 0.2]),
    ]
    assert tables.standing(rows, "troi") == (
        "TROI scores higher than 1 of 3: random voxels. "
        "It ties (the 95 % interval of the difference holds zero) with 1 of 3: ANOVA. It scores lower than 1 of 3: all voxels."
    )


def test_standing_says_first_that_no_control_was_beaten() -> None:
    rows = [row("troi"), row("random", interval=[-0.1, 0.1]), row("annotated", interval=[0.1, 0.2])]
    assert tables.standing(rows, "troi").startswith("TROI beats none of its 2 controls.")


def test_standing_without_controls() -> None:
    assert "No control was scored" in tables.standing([row("troi"), row("ceiling", score=None)], "troi")


def test_columns_without_a_value_are_left_out() -> None:
    keys = [column.key for column in tables.score_table([row("troi", n_voxels=3)], "troi").columns]
    assert keys == ["name", "n_voxels", "brain_to_image_top1", "verdict"]


def test_text_is_aligned_and_lists_reasons_below(finished_run: Path) -> None:
    run = run_folder.read(finished_run)
    text = tables.score_table(run.rows, run.method).text(math.inf)
    lines = text.splitlines()
    assert len(lines) == 3 + 8 + 1
    assert len({len(line) for line in lines[:11]}) == 1
    assert "61.0 [55.0, 67.0]" in lines[3]
    assert lines[-1] == "Noise ceiling: not available: one repeat of each image: a noise ceiling needs two"


def _wide_rows() -> list[dict]:
    """Rows as an evaluation of a planted world has them: every column, intervals in most, long names, a missing control."""
    named = ("troi", "random", "univariate_smoothed", "true_best", "ceiling_oracle")
    made = []
    for number, name in enumerate(named):
        score = 0.5 + 0.01 * number
        bounds = [score - 0.05, score + 0.05]
        keys = [f"{place}{direction}_top1" for place in ("", "draws_") for direction in ("brain_to_image", "image_to_brain")]
        made.append(
            {"name": name, "n_voxels": 1300, "precision": 0.9, "recall": 0.8, "dice": 0.85, "brain_to_image_median_rank": 1.0}
            | {"brain_to_image_top5": 0.9, "brain_to_image_top5_interval": [0.85, 0.95]}
            | dict.fromkeys(keys, score)
            | {f"{key}_interval": bounds for key in keys}
            | ({} if name == "troi" else {"difference_to_troi": -0.1, INTERVAL: [-0.2, -0.05]})
        )
    return [
        *made,
        {
            "name": "ceiling",
            "unavailable": "0 stimuli have repeats among the training trials of sub-03, two or more are needed",
        },
    ]


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_the_table_of_a_terminal_fits_it_and_loses_no_key_column(width: int) -> None:
    """Oracle: every value of the columns that matter, in every block the name of its row."""
    rows = _wide_rows()
    text = tables.score_table(rows, "troi", told=True).text(width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    for words in (
        "brain → image",
        "image → brain",
        "precision",
        "minus TROI",
        "50.0 [45.0, 55.0]",
        "−10.0 [−20.0, −5.0]",
        "lower",
    ):
        assert words in text
    tops = [line for line in lines if line.startswith("Best true voxels (oracle)")]
    assert len(tops) == text.count("\n\n") + 1
    assert "draws of 300" not in text  # they repeat the headline's numbers
    assert (
        "On the page of the run and in its scores.csv: brain → image (top-5, %); median rank" in text.replace("\n", " ")
    ) == (width < 200)
    assert "Dice" in text
    assert ("90.0 [85.0, 95.0]" in text) == (width == 200)
    rows[1]["draws_brain_to_image_top1"] = 0.7
    assert "30 draws of 300" in tables.score_table(rows, "troi", told=True).text(400)
    assert "draws_brain_to_image_top1" in csv_text(tables.records(_wide_rows(), "troi"))
    assert "30 draws of 300" in tables.score_table(_wide_rows(), "troi").text(math.inf)  # the file keeps all


def test_no_oracle_counts_as_a_control() -> None:
    rows = [
        row("troi"),
        row("random", interval=[-0.3, -0.2]),
        row("true_best", interval=[0.1, 0.2], oracle=True),
        row("ceiling_oracle", interval=[-0.1, 0.1]),
    ]
    assert tables.standing(rows, "troi") == (
        "TROI scores higher than 1 of 1: random voxels. Oracles, which have seen an answer and are not counted: "
        "best true voxels (oracle) (higher), noise ceiling (oracle) (tie)."
    )


def test_csv_holds_the_raw_values(finished_run: Path) -> None:
    run = run_folder.read(finished_run)
    read = {line["name"]: line for line in csv.DictReader(io.StringIO(csv_text(tables.records(run.rows, run.method))))}
    assert list(read) == [given["name"] for given in run.rows]
    for given in run.rows:
        line, score = read[given["name"]], given["brain_to_image_top1"]
        assert line["brain_to_image_top1"] == ("" if score is None else str(score))
        if score is not None:
            bounds = [float(line[f"brain_to_image_top1_{end}_95"]) for end in ("low", "high")]
            assert bounds == given["brain_to_image_top1_interval"]
    assert read["univariate_smoothed"]["verdict"] == "tie"
    assert read["ceiling"]["unavailable"].startswith("one repeat")


@pytest.mark.parametrize(("tells", "said"), [(False, "cannot tell a good selection"), (True, "something to win")])
def test_what_the_truth_gains_is_said_with_its_interval(tells: bool, said: str) -> None:
    gain = {"difference": 0.031, "interval": [-0.012, 0.0744]}
    text = tables.headroom({"simplest": "univariate", "gains": {"true_best": gain}, "tells": tells})
    assert "best true voxels (oracle) +3.1 points [−1.2, +7.4]" in text
    assert said in text
    assert tables.headroom(None) == ""


def test_our_own_row_stands_over_the_published_ones(finished_run: Path) -> None:
    run = run_folder.read(finished_run)
    ours = run.row(run.method) or {}
    table = published(run.published, [("this run", "made up", ours)], columns=PUBLISHED)
    written = {column.key: [column.value(row) for row in table.rows] for column in table.columns}
    assert written["method"][0] == "this run"
    assert list(table.ours) == [0]
    assert "MindEye2" in written["method"][1:]
    assert "77.6" in {value for values in written.values() for value in values[1:]}
    first = [values[0] for values in written.values()]
    assert "61.0" in first
    assert first.count("–") == 1  # no PixCorr
    table = published(run.published, [("this run", "made up", {**ours, "pixcorr": 0.5592584})], columns=PUBLISHED)
    assert next(column for column in table.columns if column.key == "pixcorr").value(table.rows[0]) == "0.559"
    assert "61.0" not in table.csv()  # raw values, shares
    assert "0.776" in table.csv()


def test_our_intervals_stand_beside_published_numbers_in_the_unit_of_the_column() -> None:
    entries = [
        {"metric": "knn_dense", "unit": "percent", "value": 85.46, "method": "SimSiam"},
        {"metric": "knn_dense", "unit": "percent", "value": 52.9, "method": "VICReg"},
        {"metric": "knn_dense", "unit": "percent", "value": 54.0, "method": "VICReg", "table": "another paper's"},
        {"metric": "ssim", "unit": "correlation", "value": 0.4, "method": "SimSiam"},
    ]
    ours = {"knn_dense": 0.461, "knn_dense_interval": (0.4419, 0.48), "ssim": 0.31, "ssim_interval": [0.2949, 0.33]}
    table = published(
        entries, [("ours", "made up", ours), ("again", "made up", {"knn_dense": float("nan")})], columns=PUBLISHED
    )
    columns = {column.key: column for column in table.columns}
    assert [columns["knn_dense"].value(row) for row in table.rows] == ["46.10", "–", "85.46", "52.90", "54.0"]
    assert [columns["knn_dense"].interval(row) for row in table.rows] == ["[44.19, 48.00]", "", "", "", ""]
    assert columns["ssim"].interval(table.rows[0]) == "[0.295, 0.330]"
    assert columns["knn_dense"].head(table.rows) == "% [95\u00a0%]"
    assert [row.get("knn_dense") for row in table.records()[2:]] == [0.8546, 0.529, 0.54]
