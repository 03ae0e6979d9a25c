"""What a data set is: where it comes from, and how it is opened. Each file of datasets/ exports one, DATASET."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named data set, as the command line and Python use it. What cannot be done with it is None.

    load(place): what is in a folder or file of it, as `dataset:place` names it. inspect(place): facts, where those of what
    `load` gives are not enough. probes(opened, n): n single values of its own files. generate(out, config, plant): writes a
    planted world in its layout, config being of the class `generated`; plant(shown, **settings) makes the world's experiment.
    """

    name: str
    citation: str = ""  # these three are empty for layouts of our own
    url: str = ""
    licence: str = ""
    load: Callable[[str], Any] | None = None
    inspect: Callable[[str], dict[str, Any]] | None = None
    probes: Callable[[Any, int], list[dict[str, Any]]] | None = None
    generated: type[Any] | None = None
    generate: Callable[[str, Any, Any], dict[str, Any]] | None = None

    @property
    def facts(self) -> dict[str, str]:
        """Where the data come from, as experiments keep it."""
        return {"citation": self.citation, "url": self.url, "licence": self.licence}
