"""The one loop: records, checkpoints, resuming, and a stop where a loss is not finite."""

import math
import signal

import pytest
import torch

from pulvinar.core.errors import DegenerateError
from pulvinar.core.progress import REPORTER, Terminated
from pulvinar.learning import runs
from pulvinar.learning.loop import EpochTrainer, require_finite, run_to_end, seeded
from pulvinar.learning.runs import RunFolder


class Line(EpochTrainer):
    """Fits y = 2 x, one step an epoch, from random x."""

    def __init__(self, n_epochs: int = 4) -> None:
        self.n_epochs, self.steps_per_epoch, self.generator = n_epochs, 1, seeded(3)
        self.slope = torch.nn.Parameter(torch.zeros(()))
        self.optimizer = torch.optim.Adam([self.slope], lr=0.1)

    def run_epoch(self):
        x = torch.randn(8, generator=self.generator)
        loss = (self.slope * x - 2 * x).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return self.end_epoch(loss.item())

    def state(self):
        return {**super().state(), "slope": self.slope.detach()}

    def restore(self, state):
        super().restore(state)
        self.slope.data.copy_(state["slope"])


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "SECONDS_BETWEEN_CHECKPOINTS", -1.0)
    return RunFolder.create(tmp_path / "run", method="line", config_toml="", seed=0, data={})


def test_the_loop_goes_on_bit_for_bit_from_its_checkpoint(run):
    """Oracle: the trainer that nobody stopped."""
    whole, stopped, resumed = Line(), Line(), Line()
    records = list(whole.run())

    def stop(record):
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_to_end(stopped, "line", run, phase="fit", each=stop)
    state = run.load()
    assert state["epoch"] == 2
    run_to_end(resumed, "line", run, state=state, phase="fit")
    assert torch.equal(resumed.slope, whole.slope)
    assert run.records == [{"phase": "fit", **record} for record in records]


def test_a_checkpoint_is_written_after_every_epoch_but_the_last_as_the_method_asks(run):
    saved = []
    run_to_end(Line(), "line", run, save=saved.append)
    assert [state["epoch"] for state in saved] == [1, 2, 3]


def test_a_finished_trainer_is_left_alone(run):
    done, told = Line(), []
    list(done.run())
    run_to_end(Line(), "line", run, state=done.state(), each=told.append)
    assert not told
    assert not run.records


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_says_where_and_what_to_do(value):
    with pytest.raises(DegenerateError, match=f"epoch 2: the loss is {value}; .* Lower the learning rate"):
        require_finite(torch.tensor(value), "epoch 2")
    require_finite(torch.tensor(1e30), "epoch 2")


def test_generators_of_a_seed_differ_and_the_only_one_is_the_seeds_own():
    """Closed form: stream k of n of seed s is generator number s n + k."""
    assert seeded(5).initial_seed() == 5
    assert seeded(5, 3, n_streams=16).initial_seed() == 83
    assert len({seeded(seed, stream, n_streams=4).initial_seed() for seed in range(8) for stream in range(4)}) == 32


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)])
def test_an_interrupt_waits_for_a_short_piece_which_is_then_the_checkpoint(number, expected, tmp_path):
    """Oracle: the trainer that nobody stopped. Checkpoints are not due: twenty seconds have not gone."""
    run = RunFolder.create(tmp_path / "run", method="line", config_toml="", seed=0, data={})
    whole, stopped, resumed = Line(), Line(), Line()
    list(whole.run())
    taken = stopped.run_epoch

    def in_the_middle():
        if stopped.epoch == 2:
            REPORTER.interrupt(number)  # as the signal does (tests/app/test_interrupted_runs.py sends real ones)
        return taken()

    stopped.run_epoch = in_the_middle
    with pytest.raises(KeyboardInterrupt) as caught:
        run_to_end(stopped, "line", run)
    assert caught.type is expected
    assert REPORTER.interrupted is None
    state = run.load()
    assert state["epoch"] == 3
    run_to_end(resumed, "line", run, state=state)
    assert torch.equal(resumed.slope, whole.slope)


def test_a_second_interrupt_and_one_without_anything_to_save_do_not_wait(tmp_path):
    run = RunFolder.create(tmp_path / "run", method="line", config_toml="", seed=0, data={})
    for epoch, times in ((2, 2), (0, 1)):
        trainer = Line()
        taken = trainer.run_epoch

        def in_the_middle(trainer=trainer, taken=taken, epoch=epoch, times=times):
            for _ in range(times if trainer.epoch == epoch else 0):
                REPORTER.interrupt()
            return taken()

        trainer.run_epoch = in_the_middle
        with pytest.raises(KeyboardInterrupt):
            run_to_end(trainer, "line", run)
        REPORTER.interrupted = None
        assert trainer.epoch == epoch
        assert run.load() is None
