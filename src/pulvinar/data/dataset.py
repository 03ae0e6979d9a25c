"""What a data set is: where it comes from, and how it is opened. Each package or file of datasets/ exports one, DATASET."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pulvinar.data.split_choice import Splits


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """Files that the owners offer: their place in the folder, where `pulvinar data fetch` has them from, and what is published.

    path: place in the folder, and name at the source: {subject}, {session} (a number, padded or not), * (anything but a
    slash). source: `s3://BUCKET[@REGION][/PREFIX]` (read without a name), `figshare:ARTICLE`, or a web address that `path` is
    put behind; empty: only by hand. n_bytes, checksum ('md5:...' or 'sha256:...'): of a single file, where published; listings
    of S3 and figshare say them themselves. unpack: an archive (.tar.gz, .zip) whose content counts. images: what was shown,
    fetched when asked for. optional: read where it is there.
    """

    path: str
    source: str = ""
    n_bytes: int | None = None
    checksum: str = ""
    unpack: bool = False
    images: bool = False
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Where data come from, and what one may do with them; empty for layouts of our own.

    terms: what binds whoever uses the data; agreement: what has to be agreed to before they are fetched. subjects: their names
    in the files. sessions: those that are public, where the source has others too. space: what a voxel is. files: those that
    are read. by_hand: how to get what is not fetched. What is not published is empty.
    """

    citation: str = ""
    url: str = ""
    licence: str = ""
    terms: str = ""
    agreement: str = ""
    subjects: tuple[str, ...] = ()
    sessions: tuple[int, ...] = ()
    space: str = ""
    files: tuple[PublishedFile, ...] = ()
    by_hand: str = ""

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
    `generated`; plant(shown, **settings) makes the world's experiment. splits: those that may be asked for.
    """

    name: str
    facts: Facts = Facts()
    load: Callable[[str], Any] | None = None
    inspect: Callable[[str], dict[str, Any]] | None = None
    probes: Callable[[Any, int], list[dict[str, Any]]] | None = None
    generated: type[Any] | None = None
    generate: Callable[[str, Any, Any], dict[str, Any]] | None = None
    splits: Splits = Splits(owners="that of its files")
