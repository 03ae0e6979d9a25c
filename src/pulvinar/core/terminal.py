"""How wide the terminal is."""

from shutil import get_terminal_size

ELSEWHERE = 120  # columns, where the output is no terminal and COLUMNS is not set


def width() -> int:
    """Columns of the terminal."""
    return get_terminal_size((ELSEWHERE, 24)).columns
