"""`--memory 4GB` of `data convert`, `fit` and `evaluate`: who keeps it, and that others refuse it."""

from collections.abc import Iterator
from contextlib import contextmanager

from pulvinar.app import registry
from pulvinar.core import memory
from pulvinar.core.errors import ConfigError
from pulvinar.learning.runs import RunFolder


@contextmanager
def within(size: str | None, method: str | None = None) -> Iterator[None]:
    """Inside, the process stays below this size (such as 4GB); None: without a limit.

    method: whose fit or evaluation it is. `ConfigError` for one whose blocks do not follow from it, for what is no size, and
    for too little.
    """
    if size is not None and method is not None and not registry.method(method).keeps_memory:
        able = [name for name in registry.names("methods") if registry.method(name).keeps_memory]
        raise ConfigError(
            f"memory={size}: {method} does not choose its sizes by it; it is kept by {', '.join(able)} and by `pulvinar data "
            "convert`. What a decoder needs says `pulvinar fit ... --dry-run`"
        )
    with memory.using(size):
        yield


@contextmanager
def within_of_run(size: str | None, run: str) -> Iterator[None]:
    """`within`, with the method of a run folder."""
    with within(size, None if size is None else RunFolder.reopen(run).method):
        yield
