"""Bars on the last lines of a terminal, drawn by rich: as wide as it is, below what is written meanwhile, gone at the end."""

import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from pulvinar.core import terminal

BAR_WIDTH = 16


class LiveBars:
    """All bars that are shown, the outermost first. Nothing is drawn but by `show`: no thread, which a fork would break."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._shown: list[TaskID] = []

    def begin(self, total: int | None) -> TaskID:
        """A bar, not yet drawn."""
        if self._progress is None:
            self._progress = _progress()
        task = self._progress.add_task("", total=total, visible=False, text="")
        self._shown.append(task)
        return task

    def show(self, task: TaskID, done: int, text: str) -> None:
        """Draw all bars, this one as it is now."""
        if self._progress is not None and task in self._shown:
            self._progress.start()
            self._progress.update(task, completed=done, text=text, visible=True)
            self._progress.refresh()

    def end(self, task: TaskID) -> None:
        """Take a bar away, with the last one the whole display."""
        if self._progress is None or task not in self._shown:
            return
        self._shown.remove(task)
        if self._shown:
            self._progress.remove_task(task)
        else:
            self.end_all()

    def end_all(self) -> None:
        """Take all bars away."""
        progress, self._progress, self._shown = self._progress, None, []
        if progress is not None:
            progress.stop()


def _progress() -> Progress:
    stream = sys.stderr
    console = Console(
        file=stream,
        force_terminal=True,
        force_jupyter=False,
        color_system="auto" if terminal.may_have_styles(stream) else None,
        highlight=False,
    )
    return Progress(
        BarColumn(BAR_WIDTH, table_column=Column(width=BAR_WIDTH)),
        TextColumn("{task.fields[text]}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        console=console,
        expand=True,
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,
    )


BARS = LiveBars()
