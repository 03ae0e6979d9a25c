"""Options that follow a folder, as in a web address: `FOLDER?name=value&name=value`."""

from pathlib import Path
from typing import TypeVar

from pulvinar.core.config import build, parse_assignments

Options = TypeVar("Options")


def parse_source(source: str, options: type[Options], *, name: str) -> tuple[Path, Options]:
    """Folder and options of a source of data set `name`; `ConfigError` lists every mistake in the options."""
    folder, _, query = (source, "", "") if Path(source).exists() else source.partition("?")  # a name may hold a question mark
    pairs = [pair for pair in query.split("&") if pair]
    values = parse_assignments(pairs, refuse_repeated=True)
    return Path(folder), build(options, values, name=name, given=values)
