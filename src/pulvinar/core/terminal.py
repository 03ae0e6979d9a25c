"""What is known of the terminal: its width, and whether styles may be used; text that fits it.

On the command line, what goes to a terminal has styles, unless NO_COLOR is set; in Python, in pipes and in files it is plain.
"""

import os
import sys
import textwrap
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from shutil import get_terminal_size
from typing import IO

ELSEWHERE = 120  # columns, where the output is no terminal and COLUMNS is not set
NARROWEST = 48  # below it, the second of two columns stands under the first
_STYLED = False


def width() -> int:
    """Columns of the terminal."""
    return get_terminal_size((ELSEWHERE, 24)).columns


def is_live(stream: IO[str]) -> bool:
    """Whether lines of a stream can be drawn anew."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def may_have_styles(stream: IO[str]) -> bool:
    """Whether a stream is a terminal whose user has not asked for plain text (no-color.org)."""
    return is_live(stream) and not os.environ.get("NO_COLOR")


@contextmanager
def styles_for(stream: IO[str]) -> Iterator[None]:
    """A block whose texts are printed on that stream."""
    global _STYLED  # noqa: PLW0603
    before, _STYLED = _STYLED, may_have_styles(stream)
    try:
        yield
    finally:
        _STYLED = before


def styled() -> bool:
    """Whether what is printed now may have styles."""
    return _STYLED


def strong(text: str) -> str:
    """The text in bold, where it may have styles."""
    return f"\x1b[1m{text}\x1b[0m" if _STYLED else text


def filled(text: str, stream: IO[str] | None = None) -> str:
    """Lines broken between words on a terminal, indented ones a little further; as they are where programs read them.

    stream: where the text goes, stdout without it.
    """
    if not (stream or sys.stdout).isatty():
        return text
    return "\n".join(_wrapped(line, width(), _further(line)) or line for line in text.splitlines())


def _further(line: str) -> str:
    """What the rest of a broken line begins with."""
    indent = len(line) - len(line.lstrip())
    return " " * (indent + 2 if indent else 0)


def _wrapped(text: str, columns: int, further: str = "") -> str:
    return textwrap.fill(text, columns, break_long_words=False, break_on_hyphens=False, subsequent_indent=further)


def two_columns(rows: Iterable[tuple[str, str]], columns: int | None = None) -> str:
    """Names in bold, and beside each what is to be said of it; below it where the terminal is narrow or the name is long."""
    rows, columns = list(rows), columns or width()
    indent = 6 if columns < NARROWEST else min(max((len(name) for name, _ in rows), default=0) + 4, columns // 2)
    return "\n".join(_row(name, text, indent, columns) for name, text in rows)


def _row(name: str, text: str, indent: int, columns: int) -> str:
    lines = _wrapped(text, columns - indent).splitlines() or [""]
    if len(name) + 4 <= indent:
        first = f"  {strong(name)}{' ' * (indent - 2 - len(name))}{lines.pop(0)}"
    else:
        first = f"  {strong(name)}"
    return "\n".join([first.rstrip(), *(" " * indent + line for line in lines)])
