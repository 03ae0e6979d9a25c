"""Oracles: the lines that must appear on stderr, at clock times set by hand."""

import contextlib
import sys

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


def test_short_work_shows_nothing(capsys, clock):
    assert list(progress.track(range(3), "work", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_on_a_terminal_one_line_is_redrawn_and_cleared(capsys, clock, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress.bar("work", 4) as shown:
        for _ in range(4):
            clock[0] += 0.2
            shown.advance()
    written = capsys.readouterr().err
    assert written.count("\r\x1b[2Kwork: ") == 4
    assert written.endswith("work: 4/4 in 1 s\r\x1b[2K")


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
