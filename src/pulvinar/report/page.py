"""One self-contained HTML page about a finished run, from its folder alone: nothing fetched, light and dark, prints.

Its one script sorts tables and unpacks the interactive views of the brain; everything can be read without it.

The run's topic (run.json) says which page it is: each topic has a module in a wing with `drawers(run)` (name -> what draws that
figure), `records(run)` (the rows of the score table), `table_files(run)`, and `content(run, drawn)`, which fills the template
of its name (templates/). Where the topic has places in the brain, also `views(run)` (name -> `report.viewer.Viewer`).
"""

import base64
import importlib
import os
import re
import shlex
from collections.abc import Sequence
from datetime import date
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pulvinar.core.errors import FileError
from pulvinar.core.places import require_own_kind
from pulvinar.core.storage import reads, write_text
from pulvinar.report import run_folder, tables
from pulvinar.report.run_folder import Run
from pulvinar.report.settings import facts_of_run, settings_of
from pulvinar.scores.table import Column, Table

GENERATOR = '<meta name="generator" content="pulvinar">'
MARKS = (GENERATOR.encode(), b"<footer>Made by pulvinar")  # of our pages; the second alone on those of earlier versions
TAG = re.compile(r"(<[a-zA-Z/!][^<>]*>)")
PLACE = re.compile(r"(?<![\w./~}\\])(?:[A-Za-z]:)?[/\\](?:[^\s<>\"'|;,()&/\\]+[/\\])+([^\s<>\"'|;,()&/\\]*)")
HEADING, CONTENTS = re.compile(r"<h2>(.*?)</h2>"), "<!-- contents -->"
SVG_WIDTH = re.compile(r'<svg [^>]*width="([\d.]+)pt"')
LONG_TABLE = 12  # rows of published numbers from which they are folded
SWEEP_PAGE = "pulvinar.gating.sweep_page"
PAGES = {  # topic -> module of a wing
    "decoding": "pulvinar.decoding.page",
    "encoding": "pulvinar.encoding.page",
    "pictures": "pulvinar.decoding.pictures.page",
    "rsa": "pulvinar.rsa.page",
    "self_supervised": "pulvinar.gating.page",
}


@reads("a run to report")
def build(run: str | os.PathLike[str], out: str | os.PathLike[str] | None = None, *, viewer: bool = True) -> Path:
    """Write the page of a run, `report.html` in its folder unless `out` names another file; the path written.

    A folder of self-supervised runs (a sweep's) has one page over all of them. viewer: put interactive views of the brain into
    it where the topic has them (`report/viewer.py`).

    Beside it under `artifacts/`: the figures (PNG and SVG), tables as `.csv` and `.txt` and, where the topic has them, maps
    for brain viewers (NIfTI or GIFTI). A piece that the folder does not have is said on the page to be absent. Raises
    `FileError` for a folder that is no run, a piece that cannot be read, or a file that cannot be written.
    """
    from pulvinar.report.figures import draw

    target = Path(out) if out is not None else Path(run) / "report.html"
    _require_own_page(target)
    if Path(run).is_dir() and not (Path(run) / "run.json").is_file() and any(Path(run).glob("*/run.json")):
        name, content = "sweep", importlib.import_module(SWEEP_PAGE).content(Path(run))
    else:
        found = run_folder.read(run)
        topic = topic_page(found)
        drawn = draw(found, topic)
        for file, text in topic.table_files(found).items():
            write_text(found.folder / "artifacts" / file, without_places(text))
        views = topic.views(found) if viewer and hasattr(topic, "views") else {}
        name, content = found.topic, _of_every_run(found) | {"drawn": drawn, "views": views} | topic.content(found, drawn)
    return write(target, name, command=f"pulvinar report {shlex.quote(Path(run).resolve().name)}", **content)


def write(target: Path, template: str, *, command: str, **content: Any) -> Path:
    """A page from the template of this name, whose foot has the command; the path written."""
    made = {"version": version("pulvinar"), "today": date.today().isoformat(), "command": command}
    page = _templates().get_template(f"{template}.html").render(made | content)
    write_text(target, with_contents(page) + "\n")
    return target


def with_contents(page: str) -> str:
    """The page with an id at every section's heading, and links to them where the mark for contents stands.

    >>> with_contents("<!-- contents --><h2>A &amp; b</h2><h2>A &amp; b</h2>").count('href="#part-')
    2
    """
    headings = HEADING.findall(page)
    numbers = iter(range(1, len(headings) + 1))
    page = HEADING.sub(lambda found: f'<h2 id="part-{next(numbers)}">{found[1]}</h2>', page)
    links = "".join(f'<a href="#part-{number}">{text}</a>\n' for number, text in enumerate(headings, start=1))
    return page.replace(CONTENTS, f'<nav class="contents" aria-label="contents">{links}</nav>' if len(headings) > 1 else "", 1)


def _require_own_page(target: Path) -> None:
    """Raise `FileError` where something else than a page of pulvinar stands under the name of the page."""
    require_own_kind(target)
    if target.is_dir():
        raise FileError(f"{target}: is a folder; name the file to write, such as {target / 'report.html'}")
    if target.is_file() and not any(mark in target.read_bytes() for mark in MARKS):
        raise FileError(f"{target}: exists, and is no page of pulvinar's, which alone is replaced; choose another name")


def _of_every_run(run: Run) -> dict[str, Any]:
    """What every run's page has: method and data, the finding in two parts, cautions, how it was made."""
    from pulvinar.report.drawing import SIMULATED
    from pulvinar.report.findings import cautions, headline

    data = run.facts.get("data") or {}
    facts = [tables.label(run.method), f"subject {data['target']}" if data.get("target") else "", str(data.get("name") or "")]
    lead, rest = headline(run)
    return {
        "title": f"{tables.label(run.method)}: {lead}",
        "line": " · ".join(filter(None, facts)),
        "lead": lead,
        "rest": rest,
        "cautions": cautions(run),
        "simulated": SIMULATED if run.simulated else "",
        "facts": facts_of_run(run),
        "settings": None if run.config is None else settings_of(run.config),
    }


def _defined(tables: Sequence[Table]) -> list[Column]:
    """The columns of tables that say what they are, one of each key."""
    return list({column.key: column for table in tables for column in table.defined}.values())


def topic_page(run: Run) -> ModuleType:
    """The module that makes the page of the run's topic."""
    if run.topic not in PAGES:
        raise FileError(f"{run.folder / 'run.json'}: topic '{run.topic}' has no page; there are: {', '.join(PAGES)}")
    return importlib.import_module(PAGES[run.topic])


def without_places(text: str) -> str:
    """Text or HTML in which a path of this machine is its last name alone; what stands in tags stays (figures are there).

    >>> without_places("from /data/nsd/world and nsd:/data/nsd?subject=1 <a href='/x/y'>, 1/300")
    "from world and nsd:nsd?subject=1 <a href='/x/y'>, 1/300"
    """
    parts = TAG.split(str(text))
    return type(text)("".join(part if TAG.fullmatch(part) else PLACE.sub(r"\1", part) for part in parts))  # markup stays that


def _data_uri(path: Path, format: str) -> str:
    """The bytes of a figure in the page: SVG for lines and text, PNG where there are many pixels."""
    kind = "image/svg+xml" if format == "svg" else "image/png"
    content = base64.b64encode(path.with_suffix(f".{format}").read_bytes()).decode("ascii")
    return f"data:{kind};base64,{content}"


@reads("a figure of a report")
def _natural_width(path: Path, format: str) -> int:
    """Pixels of a page, 96 an inch, across a figure as it was drawn: text of all figures is then of one size."""
    file = path.with_suffix(f".{format}")
    if format == "svg":
        found = SVG_WIDTH.search(file.read_text(encoding="utf-8"))
        return round(float(found[1]) * 96 / 72) if found else 0
    with Image.open(file) as picture:
        return round(picture.width * 96 / float(picture.info.get("dpi", (96,))[0]))


@cache
def _templates() -> Environment:
    loader = PackageLoader("pulvinar.report")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters |= {
        "without_places": without_places,
        "data_uri": _data_uri,
        "natural_width": _natural_width,
        "percent": tables.percent,
    }
    found.globals["LONG"] = LONG_TABLE
    found.globals["defined"] = _defined
    found.globals["generator"] = Markup(GENERATOR)
    found.globals["e"] = found.get_template("elements.html").module
    return found
