"""One way to show progress and messages. Nothing of it goes to stdout, which belongs to results.

On the command line all of it goes to stderr. In Python a bar is drawn on a terminal, messages go to the logger `pulvinar`
(level INFO) and warnings are `PulvinarWarning`s, for the filters of `warnings` to sort; `show` switches that.
"""

import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from pulvinar.core import terminal
from pulvinar.core.errors import PulvinarWarning

if TYPE_CHECKING:  # a bar that is not drawn needs no rich
    from pulvinar.core.live import LiveBars

Item = TypeVar("Item")


LOGGER = logging.getLogger("pulvinar")


class Terminated(KeyboardInterrupt):
    """SIGTERM came, which is taken as Ctrl-C is."""


class Reporter:
    """Where progress goes: a live bar on a terminal, a line every few seconds elsewhere, nothing when quiet.

    to_stderr: lines are written to stderr (the command line), not handed to `logging` and `warnings` (Python).
    """

    def __init__(self) -> None:
        self.quiet = False
        self.verbose = False
        self.to_stderr = False
        self.seconds_between_lines = 10.0
        self.interrupted: type[KeyboardInterrupt] | None = None
        self._worth_waiting: Callable[[], bool] | None = None
        self._kept_by: list[Callable[[str], None]] = []
        self._said: set[str] = set()

    def interrupt(self, signal_number: int = signal.SIGINT, frame: object = None) -> None:
        """What Ctrl-C and SIGTERM do: raise KeyboardInterrupt (`Terminated`) here, and remember it.

        Code that ignores exceptions (a finalizer, an import that is only tried) may swallow the raised one; the next step of
        any bar raises it again. Inside `stopping_between` the first one waits for the end of a piece of work.
        """
        first = self.interrupted is None
        self.interrupted = Terminated if signal_number == signal.SIGTERM else KeyboardInterrupt
        if not (first and self._worth_waiting is not None and self._worth_waiting()):
            self._worth_waiting = None
            raise self.interrupted

    def raise_interrupt(self) -> None:
        """Raise what `interrupt` remembers, if anything."""
        if (remembered := self.interrupted) is not None:
            self.interrupted = None
            raise remembered

    @contextmanager
    def stopping_between(self, worth_waiting: Callable[[], bool]) -> Iterator[None]:
        """A block that asks for interrupts itself between its pieces of work, for as long as waiting for that is worth it."""
        before, self._worth_waiting = self._worth_waiting, worth_waiting
        try:
            yield
        finally:
            self._worth_waiting = before

    @property
    def waits(self) -> bool:
        """Whether an interrupt has come and waits for the end of a piece of work."""
        return self.interrupted is not None and self._worth_waiting is not None

    def log(self, message: str) -> None:
        """One line for the reader."""
        if not self.to_stderr:
            LOGGER.info(message)
        elif not self.quiet:
            sys.stderr.write(terminal.filled(message, sys.stderr) + "\n")
            sys.stderr.flush()

    def detail(self, message: str) -> None:
        """A line for who wants to know more: with --verbose, in Python at level DEBUG."""
        if self.to_stderr and self.verbose:
            self.log(message)
        elif not self.to_stderr:
            LOGGER.debug(message)

    def warn(self, message: str, *, once: bool = False) -> None:
        """A line that is shown even when quiet; once: only the first time, though it is kept (`keeping`) every time."""
        said_before = message in self._said
        self._said.add(message)
        for keep in self._kept_by[-1:]:
            keep(message)
        if once and said_before:
            return
        if self.to_stderr:
            sys.stderr.write(terminal.filled(f"warning: {message}", sys.stderr) + "\n")
            sys.stderr.flush()
        else:
            warnings.warn(message, PulvinarWarning, stacklevel=_frames_of_pulvinar())

    @contextmanager
    def keeping(self, keep: Callable[[str], None]) -> Iterator[None]:
        """Warnings of the block are handed to `keep` too; of blocks inside each other, to the innermost."""
        self._kept_by.append(keep)
        try:
            yield
        finally:
            self._kept_by.pop()


def _frames_of_pulvinar() -> int:
    """How many frames to go up from `warn` to the code that called pulvinar."""
    frame, count = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "pulvinar":
        frame, count = frame.f_back, count + 1
    return count


def show(progress: bool | None) -> None:
    """True: all on stderr, as the command line has it; False: no progress; None: a bar where stderr is a terminal (Python)."""
    REPORTER.to_stderr, REPORTER.quiet = progress is True, progress is False


REPORTER = Reporter()
log = REPORTER.log
detail = REPORTER.detail
warn = REPORTER.warn
keeping = REPORTER.keeping


def _live() -> "LiveBars":
    from pulvinar.core.live import BARS

    return BARS


def end_bars() -> None:
    """Take away what bars have drawn, of those too that nobody closes."""
    if "pulvinar.core.live" in sys.modules:
        _live().end_all()


class Bar:
    """Steps done of a total (None: unknown), with a note (a loss, a count) that changes."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total, self.done, self.note = description, total, 0, ""
        self.said = -1  # steps done when a line was last written
        self.started = self.last_line = time.monotonic()
        self._task = None if REPORTER.quiet or not terminal.is_live(sys.stderr) else _live().begin(total)

    def _text(self) -> str:
        seconds = time.monotonic() - self.started
        of, left = "" if self.total is None else f"/{self.total}", ""
        if self.total is not None and 0 < self.done < self.total:
            left = f", {seconds / self.done * (self.total - self.done):.0f} s left"
        return f"{self.description}: {self.done}{of} in {seconds:.0f} s{left}{'  ' + self.note if self.note else ''}"

    def advance(self, steps: int = 1, note: str | None = None) -> None:
        """Count steps as done and refresh the display. Raises KeyboardInterrupt after a Ctrl-C that nobody has seen."""
        if not REPORTER.waits:
            REPORTER.raise_interrupt()
        self.done += steps
        self.note = self.note if note is None else note
        now = time.monotonic()
        if REPORTER.quiet:
            return
        if self._task is not None and now - self.last_line > 0.1:
            _live().show(self._task, self.done, self._text())
            self.last_line = now
        elif self._task is None and self.done != self.total and now - self.last_line > REPORTER.seconds_between_lines:
            log(self._text())
            self.last_line, self.said = now, self.done

    def close(self) -> None:
        """End the display with a last line, if the work took long enough to have shown one and none has said the same."""
        if self._task is not None:
            _live().end(self._task)
        if time.monotonic() - self.started > 1.0 and self.said != self.done:
            log(self._text())


@contextmanager
def bar(description: str, total: int | None) -> Iterator[Bar]:
    """A progress bar for a block of work; total: None where nobody knows how many steps it takes."""
    shown = Bar(description, total)
    try:
        yield shown
    finally:
        shown.close()


def track(items: Iterable[Item], description: str, total: int) -> Iterator[Item]:
    """Iterate and show how far we are."""
    with bar(description, total) as shown:
        for item in items:
            yield item
            shown.advance()
