"""What a data set is: where it comes from, and how it is opened. Each package or file of datasets/ exports one, DATASET."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file that the owners offer: its place in the folder ({subject} in it), size in bytes and checksum where published."""

    path: str
    url: str = ""
    n_bytes: int | None = None
    checksum: str = ""  # 'md5:...' or 'sha256:...'


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Where data come from, and what one may do with them; empty for layouts of our own.

    subjects: their names in the files. space: what a voxel is. files: those that are read. What is not published is empty.
    """

    citation: str = ""
    url: str = ""
    licence: str = ""
    terms: str = ""
    subjects: tuple[str, ...] = ()
    space: str = ""
    files: tuple[PublishedFile, ...] = ()

    @property
    def kept(self) -> dict[str, str]:
        """As experiments keep them."""
        return {"citation": self.citation, "url": self.url, "licence": self.licence}


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A named data set, as the command line and Python use it. What cannot be done with it is None.

    load(place): what is in a folder or file of it, as `dataset:place` names it. inspect(place): facts, where those of what
    `load` gives are not enough. probes(opened, n): n single values of its own files, where `data.inspect.probe_values` does
    not say where they stand. generate(out, config, plant): writes a planted world in its layout, config being of the class
    `generated`; plant(shown, **settings) makes the world's experiment.
    """

    name: str
    facts: Facts = Facts()
    load: Callable[[str], Any] | None = None
    inspect: Callable[[str], dict[str, Any]] | None = None
    probes: Callable[[Any, int], list[dict[str, Any]]] | None = None
    generated: type[Any] | None = None
    generate: Callable[[str, Any, Any], dict[str, Any]] | None = None
