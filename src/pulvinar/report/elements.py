"""Pieces of HTML that the pages of all topics share: figures, facts, what is absent, the tiles at the head."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from pulvinar.report import tables
from pulvinar.report.drawing import SIMULATED
from pulvinar.report.run_folder import Run
from pulvinar.report.settings import facts_of_run, settings_table


def figure(drawn: Mapping[str, Path], name: str, caption: str, *, alt: str, format: str, narrow: bool = False) -> str:
    """A figure with its bytes in the page: SVG for lines and text, PNG where there are many pixels; empty if not drawn."""
    if name not in drawn:
        return ""
    kind = "image/svg+xml" if format == "svg" else "image/png"
    content = base64.b64encode(drawn[name].with_suffix(f".{format}").read_bytes()).decode("ascii")
    image = f'<img alt="{escape(alt)}" src="data:{kind};base64,{content}">'
    width = "narrow" if narrow else "full"
    return f'<figure class="{width}">{image}<figcaption>{caption}</figcaption></figure>'


def number_cell(value: str, below: str = "") -> str:
    """A cell of a table with a number, and what stands small below it."""
    return f'<td class="number">{value}<small>{below}</small></td>'


def absent(text: str) -> str:
    """A line that says what the run does not have."""
    return f'<p class="absent">{escape(text)}</p>'


def fact_list(facts: Sequence[tuple[str, str]]) -> str:
    """Names and values in two columns."""
    return '<dl class="facts">' + "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in facts) + "</dl>"


def tiles(numbers: Sequence[tuple[str, str, str]]) -> str:
    """The numbers to remember: (name, value, what stands small below it)."""
    cells = "".join(f"<div><dt>{escape(n)}</dt><dd>{escape(v)}<small>{escape(s)}</small></dd></div>" for n, v, s in numbers)
    return f'<dl class="key">{cells}</dl>' if numbers else ""


def simulated_mark(simulated: bool) -> str:
    """What stands over a page of planted data; nothing for measured ones."""
    return f'<p class="simulated">{escape(SIMULATED)}</p>\n' if simulated else ""


def header(run: Run, lead: str, rest: str, numbers: Sequence[tuple[str, str, str]], cautions: Sequence[str]) -> str:
    """Method and data, the finding in two parts, the numbers to remember, and what a reader must be warned of."""
    data = run.facts.get("data") or {}
    facts = [tables.label(run.method), f"subject {data['target']}" if data.get("target") else "", str(data.get("name") or "")]
    line = " · ".join(escape(text) for text in facts if text)
    mark = simulated_mark(run.simulated)
    heading = f"<h1>{escape(lead)}<span>{escape(rest)}</span></h1>"
    return f'<header>{mark}<p class="run">{line}</p>\n{heading}\n{tiles(numbers)}\n{caution_list(cautions)}</header>'


def caution_list(cautions: Sequence[str]) -> str:
    """What a reader must be warned of, in a box; empty for nothing."""
    items = "".join(f"<li>{escape(text)}</li>" for text in cautions)
    return f'<ul class="cautions">{items}</ul>' if items else ""


def published(run: Run, ours: Mapping[str, object], *, warning: str) -> str:
    """Published rows beside this run's values (metric -> value); empty if none are in the run."""
    name_of_data = str(run.facts.get("data", {}).get("name", "these data"))
    return published_beside(run.published, [(f"{tables.label(run.method)}, this run", name_of_data, ours)], warning=warning)


def published_beside(
    published: Sequence[Mapping[str, object]], ours: Sequence[tuple[str, str, Mapping[str, object]]], *, warning: str
) -> str:
    """Published rows beside ours (name, data, metric -> value); empty if none are published."""
    if not published:
        return ""
    table = tables.published_html(published, ours)
    return f'<section><h2>Published beside ours</h2>\n<p>{escape(warning)}</p>\n<div class="wide">{table}</div></section>'


def settings(run: Run) -> str:
    """How the run was made: data, seed, duration, versions, every setting."""
    config = settings_table(run.config) if run.config is not None else absent("No settings are in this run (config.toml).")
    return f"<section><h2>Settings and versions</h2>\n{fact_list(facts_of_run(run))}\n<h3>Settings</h3>\n{config}</section>"
