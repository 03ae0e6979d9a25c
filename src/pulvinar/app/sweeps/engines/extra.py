"""The libraries of engines, which are installed with the extra `cluster`."""

from importlib.util import find_spec

from pulvinar.core.errors import MissingDependencyError


def required(library: str) -> None:
    """Raise `MissingDependencyError` where a library of the extra is not installed."""
    if find_spec(library) is None:
        raise MissingDependencyError(f"{library} is not installed; run: pip install 'pulvinar[cluster]'")
