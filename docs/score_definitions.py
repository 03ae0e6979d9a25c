"""The directive of the page of scores: every column of a table with its definition, as the code declares them.

.. scores::
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from pulvinar.app.glossary import defined
from pulvinar.scores.table import Column


def entry(column: Column, ids: list[str]) -> nodes.definition_list_item:
    """One score: its name, its key in files, its definition."""
    term = nodes.term("", "", nodes.strong(text=column.name), nodes.Text(" "), nodes.literal(text=column.key), ids=ids)
    text = column.definition[0].upper() + column.definition[1:].rstrip(".") + "."
    return nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text=text)))


class Scores(SphinxDirective):
    """A section for each table, an anchor `is-KEY` (that of reports) for each score."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        seen: set[str] = set()
        made: list[nodes.Node] = []
        for head, (where, columns) in defined().items():
            section = nodes.section("", nodes.title(text=head), ids=[f"scores-{nodes.make_id(head)}"], names=[])
            command, _, rest = where.removeprefix("`").partition("`") if where.startswith("`") else ("", "", where)
            words = nodes.paragraph("", "", nodes.Text("In "), *([nodes.literal(text=command)] if command else []))
            words += nodes.Text(f"{rest}.")
            section += words
            items = nodes.definition_list()
            for column in columns:
                anchor = f"is-{column.key}"
                items += entry(column, [anchor if anchor not in seen else f"{nodes.make_id(head)}-{column.key}"])
                seen.add(anchor)
            section += items
            made.append(section)
        return made


def setup(app: Sphinx) -> dict[str, bool]:
    """Name the directive."""
    app.add_directive("scores", Scores)
    return {"parallel_read_safe": True}
