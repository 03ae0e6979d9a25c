"""The one loop of everything that is trained: progress, records, checkpoints, resuming, and a stop where a loss is not finite.

A trainer makes its steps and says where it stands. Ctrl-C and SIGTERM wait for the end of a short piece of work, which is then
the checkpoint that a resumed run goes on from, bit for bit; where pieces are long, the end of each was a checkpoint already.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from torch import Tensor

from pulvinar.core.errors import DegenerateError
from pulvinar.core.progress import REPORTER, bar, log
from pulvinar.learning.checkpoints import State, optimizer_state, restore_optimizer
from pulvinar.learning.processes import agreed
from pulvinar.learning.runs import SECONDS_BETWEEN_CHECKPOINTS, RunFolder

Record = dict[str, Any]


class Trainer(Protocol):
    """What `run_to_end` needs: work in pieces, and all that a bit-identical continuation needs between two of them."""

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        ...

    @property
    def position(self) -> tuple[int, int]:
        """Epochs, steps or blocks that are behind us, and how many there are."""
        ...

    def run(self) -> Iterator[Record | None]:
        """The pieces that are left, one at every turn: the record of an epoch that ended with it, or None."""
        ...

    def note(self, record: Record | None) -> str:
        """What the progress bar says after a piece; empty: what it said before."""
        ...

    def state(self) -> State:
        """What `restore` of a new trainer needs to go on from here."""
        ...

    def restore(self, state: State) -> None:
        """Go on from what `state` gave."""
        ...


class EpochTrainer(ABC):
    """A trainer whose pieces are epochs, with one optimizer and one generator; subclasses write `run_epoch`."""

    n_epochs: int
    steps_per_epoch: int
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    epoch = 0

    @property
    def done(self) -> bool:
        """Whether all epochs are behind us."""
        return self.epoch >= self.n_epochs

    @property
    def position(self) -> tuple[int, int]:
        """Epochs that are behind us, and all of them."""
        return self.epoch, self.n_epochs

    def run(self) -> Iterator[Record]:
        """The epochs that are left, with the record of each."""
        while not self.done:
            yield self.run_epoch()

    @abstractmethod
    def run_epoch(self) -> Record:
        """One epoch; its record: `epoch` (from 1), `loss`, and what else there is to say."""

    def end_epoch(self, total: float) -> Record:
        """Count the epoch as done; its record with the mean of the steps' losses."""
        self.epoch += 1
        return {"epoch": self.epoch, "loss": total / self.steps_per_epoch}

    def note(self, record: Record | None) -> str:
        """The loss of the epoch."""
        return f"loss {record['loss']:.4f}" if record else ""

    def state(self) -> State:
        """Epoch, optimizer and generator; subclasses add their weights."""
        return {
            "epoch": self.epoch,
            "optimizer": optimizer_state(self.optimizer),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Epoch, optimizer and generator as `state` gave them."""
        self.epoch = int(state["epoch"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])


class _Pieces:
    """How long the pieces of work of a training take, and whether any since the last checkpoint would be lost."""

    def __init__(self) -> None:
        self._began, self._longest, self._unsaved = time.monotonic(), 0.0, False

    def ended(self) -> None:
        """A piece has ended."""
        now = time.monotonic()
        self._longest, self._began, self._unsaved = max(self._longest, now - self._began), now, True

    def saved(self) -> None:
        """All pieces are in a checkpoint."""
        self._unsaved, self._began = False, time.monotonic()

    def worth_waiting(self) -> bool:
        """Whether an interrupt should wait for the piece that runs: it is short, and those before it are not saved."""
        return self._unsaved and self._longest <= SECONDS_BETWEEN_CHECKPOINTS


def run_to_end(
    trainer: Trainer,
    description: str,
    run: RunFolder | None = None,
    *,
    state: State | None = None,
    save: Callable[[State], None] | None = None,
    each: Callable[[Record], None] | None = None,
    **labels: Any,
) -> None:
    """Train until the trainer is done, with a progress bar; in a run folder with records and checkpoints too.

    state: where an earlier trainer stood, to go on from. save: how a checkpoint is written (`run.save`, unless a method keeps
    more than the trainer's state in it). each: gets every record, for loggers. labels: stand at the head of every record.
    """
    if state is not None:
        trainer.restore(state)
        del state  # its tensors may be gigabytes
        log(f"{description}: resumed after {trainer.position[0]} of {trainer.position[1]}")
    before, total = trainer.position
    pieces = _Pieces()
    with bar(description, total) as shown, REPORTER.stopping_between(lambda: run is not None and pieces.worth_waiting()):
        shown.advance(before)
        for record in trainer.run():
            if record is not None and run is not None:
                run.log(**labels, **record)
            if record is not None and each is not None:
                each({**labels, **record})
            shown.advance(trainer.position[0] - before, note=trainer.note(record) or None)
            before = trainer.position[0]
            pieces.ended()
            stop = agreed(REPORTER.waits)
            if run is not None and not trainer.done and (agreed(run.due()) or stop):
                (save or run.save)(trainer.state())
                pieces.saved()
            if stop and not trainer.done:  # what is done is kept by who called
                REPORTER.raise_interrupt()


def require_finite(value: Tensor, where: str, *, what: str = "loss") -> None:
    """Raise `DegenerateError` if a loss, or the length of its gradient, is NaN or infinite; before the step is taken."""
    if not torch.isfinite(value):
        raise DegenerateError(
            f"{where}: the {what} is {value.item()}; nothing was changed by this step, and checkpoints are from before it. "
            "Lower the learning rate, look at the scale of the data, or set clip_norm or precision=float32 where there is such "
            "a setting"
        )


def seeded(seed: int, stream: int = 0, *, n_streams: int = 1) -> torch.Generator:
    """One of the `n_streams` generators that are derived from a seed; the only one is that of the seed itself."""
    return torch.Generator().manual_seed((seed * n_streams + stream) % 2**63)
