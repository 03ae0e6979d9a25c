"""Timing several things against each other on a machine that does other things too."""

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import numpy as np

from pulvinar.core.progress import bar

Clock = Literal["wall", "cpu"]
Name = TypeVar("Name", bound=Hashable)


def seconds_of(run: Callable[[Any], Any], given: Sequence[Any], *, warm_up: bool, clock: Clock = "wall") -> float:
    """Mean seconds of a call over these inputs in a row; warm_up: the first one is called before, untimed.

    clock: "wall", or "cpu" for the seconds that the process was computing, all its threads together: with one thread that is
    the latency on a machine that does nothing else.
    """
    if warm_up:
        run(given[0])
    timed = given[1:] if warm_up else given
    now = time.perf_counter if clock == "wall" else time.process_time
    started = now()
    for each in timed:
        run(each)
    return (now() - started) / len(timed)


def in_turn(jobs: Mapping[Name, Callable[[int], float]], repeats: int) -> dict[Name, np.ndarray]:
    """Seconds (round,) of every job. A job gets the number of the round and gives its seconds.

    Every round does all jobs, from another one on each time, so that what else the machine does hits all alike. One round goes
    before that does not count.
    """
    names, seconds = list(jobs), {name: np.zeros(repeats) for name in jobs}
    with bar("timing", (repeats + 1) * len(names)) as shown:
        for number in range(repeats + 1):
            turn = number % max(1, len(names))
            for name in names[turn:] + names[:turn]:
                taken = jobs[name](number)
                if number:
                    seconds[name][number - 1] = taken
                shown.advance()
    return seconds
