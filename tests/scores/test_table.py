"""One table in every form, against what is worked out by hand and Python's csv reader."""

import csv
import io
import math
import re

import pytest

from pulvinar.core import terminal
from pulvinar.scores.table import GAP, SHORTEST_NAME, Column, Table

COLUMNS = (
    Column("name", "model", lead=True, words=str.upper, note="layer"),
    Column("r", "r", "%", ".1%", "Mean over voxels."),
    Column("gain", "gain", form="+.2f", bounds=("from", "to")),
    Column("p", "p", form=".3f", minor=True),
    Column("never", "never"),
)
ROWS = (
    {"name": "ours", "layer": "fc", "r": 0.5, "r_interval": [0.45, 0.55], "p": 0.04},
    {"name": "theirs", "r": 0.25, "r_low": 0.2, "r_high": 0.3, "gain": -0.25, "from": -0.5, "to": 0.1},
    {"name": "none", "unavailable": "one repeat"},
)


def test_text_is_aligned_with_intervals_signs_and_reasons() -> None:
    assert Table(COLUMNS, ROWS).text(math.inf).replace("\u00a0", " ") == (
        "model                   r                  gain      p\n"
        "                 % [95 %]                [95 %]       \n"
        "------------------------------------------------------\n"
        "OURS    50.0 [45.0, 55.0]                     –  0.040\n"
        "THEIRS  25.0 [20.0, 30.0]  −0.25 [−0.50, +0.10]      –\n"
        "NONE: not available: one repeat"
    )


def test_a_narrow_terminal_gets_blocks_led_by_the_names_and_is_told_of_minor_columns() -> None:
    whole, short = Table(COLUMNS, ROWS), Table(COLUMNS, ROWS, elsewhere="On the page")
    for table in (whole, short):
        assert max(map(len, table.text(34).splitlines())) <= 34
        assert table.text(34).count("THEIRS  ") == table.text(34).count("\n\n") + 1
    assert "0.040" in whole.text(34)
    assert "0.040" not in short.text(34)
    assert "On the page: p." in short.text(34)
    assert "0.040" in short.text(80)


@pytest.mark.parametrize("width", [20, 60, 80, 120])
def test_nothing_is_wider_than_the_terminal_and_no_number_is_broken(width: int) -> None:
    rows = [{**ROWS[0], "name": "a selector of quite a long name, more words than fit"}, *ROWS[1:]]
    text = Table(COLUMNS, rows, ours=(0,)).text(width)
    assert max(map(len, text.splitlines())) <= max(width, len("−0.25 [−0.50, +0.10]") + len(GAP) + SHORTEST_NAME)
    for value in ("50.0 [45.0, 55.0]", "25.0 [20.0, 30.0]", "−0.25 [−0.50, +0.10]", "0.040"):
        assert text.count(value) == 1


@pytest.mark.parametrize(("is_terminal", "no_color", "styled"), [(True, "", True), (True, "1", False), (False, "", False)])
def test_styles_on_a_terminal_alone_and_never_with_no_color(
    is_terminal: bool, no_color: str, styled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", "xterm")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: is_terminal, raising=False)
    table = Table(COLUMNS, ROWS, ours=(0,))
    plain = table.text(math.inf)
    with terminal.styles_for(stream):
        shown = table.text()
        assert table.text(math.inf) == plain  # for files
    assert ("\x1b[" in shown) == styled
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == plain
    assert table.text() == plain


def test_csv_and_frame_hold_raw_values_with_their_intervals() -> None:
    read = list(csv.DictReader(io.StringIO(Table(COLUMNS, ROWS).csv())))
    assert list(read[0]) == ["name", "layer", "r", "r_low_95", "r_high_95", "gain", "gain_low_95", "gain_high_95", "p", "never"]
    assert (read[0]["r"], read[0]["r_low_95"], read[0]["gain_low_95"]) == ("0.5", "0.45", "")
    assert (read[1]["r_high_95"], read[1]["gain"], read[1]["gain_high_95"]) == ("0.3", "-0.25", "0.1")
    frame = Table(COLUMNS, ROWS).frame()
    assert list(frame.columns) == list(read[0])
    assert frame["r"].tolist()[:2] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("value", "form", "written"),
    [
        (8000, ",d", "8,000"),
        (-0.0312, "+.1%", "−3.1"),
        (math.nan, ".1f", "–"),
        (None, ".1f", "–"),
        (1.5, "g", "1.5"),
    ],
)
def test_a_value_is_written(value: float | None, form: str, written: str) -> None:
    assert Column("key", "label", form=form).value({"key": value}) == written


def test_only_columns_with_a_value_are_shown_and_those_with_a_definition_defined() -> None:
    table = Table(COLUMNS, ROWS)
    assert [column.key for column in table.shown] == ["name", "r", "gain", "p"]
    assert [(column.name, column.definition) for column in table.defined] == [("r (%)", "Mean over voxels.")]
    assert COLUMNS[0].below(ROWS[0]) == "fc"


def test_a_table_is_text_in_a_notebook_too_and_shows_itself_nowhere(monkeypatch):
    """rich takes a kernel for a place to show things and leaves the file that it was given empty."""
    made = Table([Column("name", "model", lead=True), Column("r", "r", form=".2f")], [{"name": "first", "r": 0.5}])
    outside = made.text()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("rich.jupyter.display", lambda *shown: pytest.fail("shown"))
    assert made.text() == outside != ""
