"""Text on a terminal."""

import io
import sys

import pytest

from pulvinar.core import terminal


def test_lines_are_broken_on_a_terminal_alone_and_indented_ones_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    line = "  needs " + "word " * 20 + "http://" + "x" * 70
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    broken = terminal.filled(f"title\n{line}\ntable     1.0").splitlines()
    assert broken[0] == "title"
    assert broken[-1] == "table     1.0"
    assert broken[1].startswith("  needs word")
    assert all(part.startswith("    ") for part in broken[2:-1])
    assert max(map(len, broken[1:-2])) <= 60
    assert " ".join(" ".join(broken[1:-1]).split()) == " ".join(line.split())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False, raising=False)
    assert terminal.filled(line) == line
    error = io.StringIO()
    assert terminal.filled(line, error) == line
    monkeypatch.setattr(error, "isatty", lambda: True, raising=False)
    assert len(terminal.filled(line, error).splitlines()) > 2  # of the stream that is meant, not of stdout
