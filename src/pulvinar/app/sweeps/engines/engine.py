"""What an engine is: where the jobs of a sweep are done."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Generator, Sequence

from pulvinar.app.sweeps.jobs import Job
from pulvinar.core.errors import ConfigError


class Engine(ABC):
    """Does jobs, as a `concurrent.futures.Executor` does calls; some engines go on with them when this process has ended.

    The constructor raises where the engine cannot be had here.
    """

    def live(self) -> Collection[str]:
        """Names of the jobs of this sweep that an earlier process handed out, and that have not ended."""
        return ()

    @abstractmethod
    def run(self, jobs: Sequence[Job]) -> Generator[Job | None, None, None]:
        """Do all jobs, each after those it waits for; give each when it has ended, however, and None every few seconds."""

    @abstractmethod
    def left(self) -> str:
        """What becomes of jobs that have not ended when this process is interrupted."""

    def cancel(self, names: Sequence[str]) -> list[str]:
        """End the jobs of these names that live; which they were."""
        raise ConfigError("--cancel: only jobs on a cluster go on by themselves; stop a local sweep with Ctrl-C where it runs")
