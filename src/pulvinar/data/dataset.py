"""What a data set is: where it comes from, and how it is opened. Each package or file of datasets/ exports one, DATASET."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Where data come from, and what one may do with them; empty for layouts of our own."""

    citation: str = ""
    url: str = ""
    licence: str = ""

    @property
    def kept(self) -> dict[str, str]:
        """As experiments keep them."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named data set, as the command line and Python use it. What cannot be done with it is None.

    load(place): what is in a folder or file of it, as `dataset:place` names it. inspect(place): facts, where those of what
    `load` gives are not enough. probes(opened, n): n single values of its own files. generate(out, config, plant): writes a
    planted world in its layout, config being of the class `generated`; plant(shown, **settings) makes the world's experiment.
    """

    name: str
    facts: Facts = Facts()
    load: Callable[[str], Any] | None = None
    inspect: Callable[[str], dict[str, Any]] | None = None
    probes: Callable[[Any, int], list[dict[str, Any]]] | None = None
    generated: type[Any] | None = None
    generate: Callable[[str, Any, Any], dict[str, Any]] | None = None
