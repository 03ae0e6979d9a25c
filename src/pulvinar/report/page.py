"""One self-contained HTML page about a finished run, from its folder alone: no script, nothing fetched, prints.

The run's topic (run.json) says which page it is: each topic has a module here with `figures(run)`, `title(run)`,
`sections(run, drawn)` and `table_files(run)`.
"""

import importlib
import os
import re
from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from types import ModuleType

from pulvinar.errors import FileError
from pulvinar.report import run_folder
from pulvinar.report.run_folder import Run
from pulvinar.storage import write_text

TAG = re.compile(r"(<[a-zA-Z/!][^<>]*>)")
PLACE = re.compile(r"(?<![\w./~}\\])(?:[A-Za-z]:)?[/\\](?:[^\s<>\"'|;,()&/\\]+[/\\])+([^\s<>\"'|;,()&/\\]*)")
PAGES = {  # topic -> module
    "decoding": "decoding_page",
    "encoding": "encoding_page",
    "pictures": "pictures_page",
    "rsa": "rsa_page",
    "self_supervised": "backbone_page",
}


def build(run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None) -> Path:
    """Write the page of a run, `report.html` in its folder unless `out` names another file; the path written.

    A folder of self-supervised runs (a sweep's) has one page over all of them.

    Beside it under `artifacts/`: the figures (PNG and SVG), tables as `.csv` and `.txt` and, where the topic has them, maps
    for brain viewers (NIfTI or GIFTI). A piece that the folder does not have is said on the page to be absent. Raises
    `FileError` for a folder that is no run, a piece that cannot be read, or a file that cannot be written.
    """
    from pulvinar.report import sweep_page
    from pulvinar.report.figures import draw

    if Path(run).is_dir() and not (Path(run) / "run.json").is_file() and any(Path(run).glob("*/run.json")):
        title, parts = sweep_page.page(run)
        target = Path(out) if out is not None else Path(run) / "report.html"
        write_text(target, _html(title, parts, Path(run).resolve().name))
        return target
    found = run_folder.read(run)
    topic = topic_page(found)
    drawn = draw(found, topic)
    for name, text in topic.table_files(found).items():
        write_text(found.folder / "artifacts" / name, without_places(text))
    target = Path(out) if out is not None else found.folder / "report.html"
    write_text(target, _html(topic.title(found), topic.sections(found, drawn), found.folder.resolve().name))
    return target


def topic_page(run: Run) -> ModuleType:
    """The module that makes the page of the run's topic."""
    if run.topic not in PAGES:
        raise FileError(f"{run.folder / 'run.json'}: topic '{run.topic}' has no page; there are: {', '.join(PAGES)}")
    return importlib.import_module(f"pulvinar.report.{PAGES[run.topic]}")


def without_places(text: str) -> str:
    """Text or HTML in which a path of this machine is its last name alone; what stands in tags stays (figures are there).

    >>> without_places("from /data/nsd/world and nsd:/data/nsd?subject=1 <a href='/x/y'>, 1/300")
    "from world and nsd:nsd?subject=1 <a href='/x/y'>, 1/300"
    """
    parts = TAG.split(text)
    return "".join(part if TAG.fullmatch(part) else PLACE.sub(r"\1", part) for part in parts)


def _html(title: str, parts: Sequence[str], folder: str) -> str:
    style = files("pulvinar.report").joinpath("page.css").read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(without_places(title))}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + without_places("\n".join(part for part in parts if part))
        + f"\n<footer>Made by pulvinar from the folder <code>{escape(folder)}</code>.</footer>\n"
        "</body>\n</html>\n"
    )
