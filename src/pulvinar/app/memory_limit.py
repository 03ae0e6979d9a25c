"""`--memory 4GB` of `data convert`, `fit` and `evaluate`: who keeps it, and that others refuse it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pulvinar.app import registry
from pulvinar.core import memory
from pulvinar.core.errors import ConfigError
from pulvinar.learning.runs import RunFolder


@contextmanager
def within(size: str | None, method: str | None = None, parts: Sequence[str] = ("fit",)) -> Iterator[None]:
    """Inside, the process stays below this size (such as 4GB); None: without a limit.

    method and parts: whose "fit" and "evaluate" are done inside. `ConfigError` for one whose sizes do not follow from it, for
    what is no size, and for too little.
    """
    if size is not None and method is not None:
        require_kept(size, method, parts)
    with memory.using(size):
        yield


def require_kept(size: str, method: str, parts: Sequence[str]) -> None:
    """`ConfigError` where one of these parts of a method does not stay below a limit."""
    for part in parts:
        if part not in registry.method(method).keeps_memory:
            able = [name for name in registry.names("methods") if part in registry.method(name).keeps_memory]
            raise ConfigError(
                f"memory={size}: {part} of {method} does not choose its sizes by it; that of {', '.join(able)} does, and "
                "`pulvinar data convert`. What a decoder needs says `pulvinar fit ... --dry-run`"
            )


@contextmanager
def within_of_run(size: str | None, run: str) -> Iterator[None]:
    """`within`, of the evaluation of a run folder."""
    with within(size, None if size is None else RunFolder.reopen(run).method, ("evaluate",)):
        yield
