"""Oracles: the lines that must appear on stderr, at clock times set by hand."""

import contextlib
import io
import re
import sys

import pyte
import pytest

from pulvinar.core import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_messages_go_to_stderr_and_stdout_stays_empty(capsys):
    progress.log("reading")
    progress.warn("odd")
    captured = capsys.readouterr()
    assert captured.err == "reading\nwarning: odd\n"
    assert captured.out == ""


def test_quiet_hides_messages_and_bars_but_not_warnings(capsys, clock, monkeypatch):
    monkeypatch.setattr(progress.REPORTER, "quiet", True)
    progress.log("reading")
    with progress.bar("work", 2) as shown:
        clock[0] += 60
        shown.advance()
    progress.warn("odd")
    assert capsys.readouterr().err == "warning: odd\n"


def test_without_a_terminal_a_line_appears_every_ten_seconds(capsys, clock):
    with progress.bar("work", 10) as shown:
        for step in range(10):
            clock[0] += 4
            shown.advance(note=f"loss {step}")
    assert capsys.readouterr().err.splitlines() == [
        "work: 3/10 in 12 s, 28 s left  loss 2",
        "work: 6/10 in 24 s, 16 s left  loss 5",
        "work: 9/10 in 36 s, 4 s left  loss 8",
        "work: 10/10 in 40 s  loss 9",
    ]


def test_work_of_unknown_length_says_its_end_once(capsys, clock):
    with progress.bar("tries", None) as shown:
        for _ in range(3):
            clock[0] += 11
            shown.advance()
    assert capsys.readouterr().err.splitlines() == ["tries: 1 in 11 s", "tries: 2 in 22 s", "tries: 3 in 33 s"]


def test_short_work_shows_nothing(capsys, clock):
    assert list(progress.track(range(3), "work", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    """A stream that is a terminal, and what it shows (by pyte, an emulator)."""

    def isatty(self):
        return True

    def lines(self):
        screen = pyte.Screen(COLUMNS, 12)
        pyte.Stream(screen).feed(self.getvalue().replace("\n", "\r\n"))
        return [line.rstrip() for line in screen.display if line.strip()]


COLUMNS = 60


@pytest.fixture
def terminal(monkeypatch):
    """Put a terminal in the place of stderr (not before the test runs: pytest puts its own there)."""

    def put():
        monkeypatch.setenv("COLUMNS", str(COLUMNS))
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return put


def test_bars_are_one_line_each_below_what_is_said_and_leave_nothing(terminal, clock):
    shown_at = terminal()
    name = "a description that is longer than the terminal is wide by quite a bit"
    with progress.bar("outer", 4) as outer:
        clock[0] += 0.2
        outer.advance(note="loss 0.5")
        with progress.bar(name, 10) as inner:
            clock[0] += 0.2
            inner.advance()
            progress.log("a message")
            clock[0] += 0.2
            inner.advance()
            said, first, second = shown_at.lines()
            assert said == "a message"
            assert "outer: 1/4 in 0 s, 1 s left  loss 0.5" in first
            assert second.endswith("…")
            assert len(second) == COLUMNS
        clock[0] += 2
        outer.advance()
        assert len(shown_at.lines()) == 2
    assert shown_at.lines() == ["a message", "outer: 2/4 in 3 s, 3 s left  loss 0.5"]
    assert sys.stderr is shown_at  # rich has given it back


def test_what_is_said_is_broken_between_words_on_a_terminal(terminal, clock):
    shown_at = terminal()
    with progress.bar("stage 1, selecting voxels", 1) as bar:
        clock[0] += 2
        bar.advance(note="round 6, 76 voxels, loss 3.4992")
    progress.warn("a sentence that is longer than sixty columns ends in words that are whole")
    assert shown_at.lines() == [
        "stage 1, selecting voxels: 1/1 in 2 s  round 6, 76 voxels,",
        "loss 3.4992",
        "warning: a sentence that is longer than sixty columns ends",
        "in words that are whole",
    ]


def test_bars_that_nobody_closes_are_taken_away(terminal, clock):
    shown_at = terminal()
    left = progress.track(range(3), "work", 3)
    next(left)
    clock[0] += 0.2
    next(left)
    assert "work: 1/3" in shown_at.lines()[0]
    progress.end_bars()
    assert shown_at.lines() == []


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted_and_no_bar_where_none_can_be_drawn(variable, value, terminal, clock, monkeypatch):
    monkeypatch.setenv(variable, value)
    shown_at = terminal()
    with progress.bar("work", 3) as shown:
        clock[0] += 0.2
        shown.advance()
    colours = re.findall(r"\x1b\[[\d;]*m", shown_at.getvalue())
    assert colours == []
    assert ("work: 1/3" in shown_at.getvalue()) == (variable == "NO_COLOR")


def test_steps_of_an_unknown_total_are_counted(terminal, clock):
    shown_at = terminal()
    with progress.bar("tries", None) as shown:
        clock[0] += 2
        shown.advance(note="share 0.3")
        assert "tries: 1 in 2 s  share 0.3" in shown_at.lines()[0]
    assert shown_at.lines() == ["tries: 1 in 2 s  share 0.3"]


def test_a_bar_is_closed_when_the_work_fails(capsys, clock):
    def work():
        with progress.bar("work", 2):
            clock[0] += 5
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert capsys.readouterr().err == "work: 0/2 in 5 s\n"


def test_an_interrupt_that_was_swallowed_is_raised_again_at_the_next_step():
    with progress.bar("work", 3) as shown:
        shown.advance()
        with contextlib.suppress(KeyboardInterrupt):  # as code that ignores exceptions does
            progress.REPORTER.interrupt()
        with pytest.raises(KeyboardInterrupt):
            shown.advance()
        shown.advance()
    assert shown.done == 2


def test_warnings_are_kept_by_the_innermost_block(capsys):
    outer, inner = [], []
    with progress.keeping(outer.append):
        progress.warn("a")
        with progress.keeping(inner.append):
            progress.warn("b")
        progress.warn("c")
    progress.warn("d")
    assert (outer, inner) == (["a", "c"], ["b"])
    assert capsys.readouterr().err.count("warning: ") == 4
