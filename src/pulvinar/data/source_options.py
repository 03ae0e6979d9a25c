"""Options that follow a folder, as in a web address: `FOLDER?name=value&name=value`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pulvinar.core.config import build, parse_assignments, setting

Options = TypeVar("Options")


@dataclass(frozen=True, kw_only=True)
class TrialOptions:
    """What is said about every data set of single trials whose files are too large for memory."""

    features: tuple[str, ...] = setting((), "embeddings, .npz or .h5 with ids; none: the files in features/ of the folder")
    images: bool = setting(True, "open the pictures where they are there")
    memory_gb: float = setting(8.0, "sessions kept in memory, in all", above=0)


def parse_source(source: str, options: type[Options], *, name: str) -> tuple[Path, Options]:
    """Folder and options of a source of data set `name`; `ConfigError` lists every mistake in the options."""
    folder, _, query = (source, "", "") if Path(source).exists() else source.partition("?")  # a name may hold a question mark
    pairs = [pair for pair in query.split("&") if pair]
    values = parse_assignments(pairs, refuse_repeated=True)
    return Path(folder), build(options, values, name=name, given=values)
