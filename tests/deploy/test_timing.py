"""Timing. Oracle: jobs that count their calls and say how long they took."""

import numpy as np

from pulvinar.deploy.timing import in_turn, seconds_of


def test_every_round_does_every_job_and_the_first_does_not_count():
    order = []

    def job(name: str):
        def run(number: int) -> float:
            order.append((number, name))
            return 10.0 * number + len(name)

        return run

    found = in_turn({name: job(name) for name in ("a", "bb", "ccc")}, 2)
    assert {name: values.tolist() for name, values in found.items()} == {"a": [11, 21], "bb": [12, 22], "ccc": [13, 23]}
    assert [name for _, name in order] == ["a", "bb", "ccc", "bb", "ccc", "a", "ccc", "a", "bb"]


def test_mean_of_the_calls_without_the_warm_up(monkeypatch):
    clock = iter(np.arange(0.0, 100.0, 3.0))
    monkeypatch.setattr("pulvinar.deploy.timing.time.perf_counter", lambda: next(clock))
    seen: list[int] = []
    assert seconds_of(seen.append, [1, 2, 3, 4], warm_up=True) == 1.0
    assert seconds_of(seen.append, [5], warm_up=False) == 3.0
    assert seen == [1, 2, 3, 4, 5]


def test_the_clock_of_the_processor_does_not_run_while_others_do():
    import time

    assert (
        seconds_of(lambda _: time.sleep(0.02), [0], warm_up=False, clock="cpu")
        < 0.01
        < seconds_of(lambda _: time.sleep(0.02), [0], warm_up=False)
    )
