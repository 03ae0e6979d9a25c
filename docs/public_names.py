"""What the reference of the site needs: a directive for every public name of a module, and docstrings made ready for it.

    .. public:: pulvinar.metrics

The names are those of the module's `__all__` (without one, its functions), so that the reference cannot lag behind. Docstrings
stay as the house writes them: a parameter that is explained as `name: what` becomes a field, and marks of formulas are kept.
"""

import inspect
import pkgutil
import re
from collections.abc import Iterable
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

CODE = re.compile(r"(``.*?``|`[^`]*`)")  # what stands in backticks
MARK = re.compile(r"[*|]|(?<=\w)_(?!\w)")  # what reStructuredText would take for markup
HOME = "pulvinar.estimators"  # where a class that two modules name has its entry
SECTION = re.compile(r"^(Parameters|Attributes|Examples)$\n-{3,}$", re.MULTILINE)  # numpy's, which napoleon reads


def public_names(module: Any) -> list[str]:
    """The names of `__all__`, modules aside; without it, what the module itself defines."""
    if hasattr(module, "__all__"):
        return [name for name in module.__all__ if not inspect.ismodule(getattr(module, name))]
    own = [name for name, value in vars(module).items() if getattr(value, "__module__", None) == module.__name__]
    return [name for name in own if not name.startswith("_") and callable(getattr(module, name))]


def results_of(module: Any) -> list[type]:
    """The classes of this package that the module's functions give back, which have no place of their own in it."""
    found: list[type] = []
    for name in public_names(module):
        value = getattr(module, name)
        result = inspect.signature(value).return_annotation if inspect.isfunction(value) else None
        own = inspect.isclass(result) and getattr(result, "__module__", "").startswith("pulvinar.")
        if own and result not in found and getattr(module, result.__name__, None) is not result:
            found.append(result)
    return found


class Public(SphinxDirective):
    """A table of the public names of a module, then each with signature and docstring."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """The nodes of table and entries."""
        place = self.arguments[0]
        module = pkgutil.resolve_name(place)  # also a lazy name, such as pulvinar.selectors
        lines = [".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {place}.{name}" for name in public_names(module)]
        for name in public_names(module):
            is_class = inspect.isclass(getattr(module, name))
            lines += ["", f".. auto{'class' if is_class else 'function'}:: {place}.{name}"]
            lines += ["   :members:", "   :exclude-members: set_fit_request, set_score_request"] if is_class else []
            lines += (
                ["   :no-index:"] if is_class and place != HOME and name in public_names(pkgutil.resolve_name(HOME)) else []
            )
        for result in results_of(module):
            lines += ["", f".. autoclass:: {result.__module__}.{result.__name__}", "   :members:", "   :no-index:"]
        holder = nodes.container()
        self.state.nested_parse(StringList(lines, source="public names"), self.content_offset, holder)
        return holder.children


def escaped(line: str) -> str:
    """A line whose `*`, `|` and closing `_` outside of backticks are plain signs.

    >>> escaped("a*b and `c*d` and scales_")
    'a\\\\*b and `c*d` and scales\\\\_'
    """
    parts = CODE.split(line)
    return "".join(part if CODE.fullmatch(part) else MARK.sub(r"\\\g<0>", part) for part in parts)


def fields(text: str, parameters: Iterable[str]) -> tuple[str, dict[str, str]]:
    """A paragraph without its explanations `name: what`, and those, in their order.

    >>> fields("As a share. level: of the interval. seed: of draws.", ["level", "seed"])
    ('As a share.', {'level': 'of the interval.', 'seed': 'of draws.'})
    """
    names = "|".join(sorted(map(re.escape, parameters), key=len, reverse=True))
    if not names:
        return text, {}
    pieces = re.split(rf"(?:^|(?<=[.;)]) )((?:{names})(?:, (?:{names}))*): ", text)
    return pieces[0], dict(zip(pieces[1::2], pieces[2::2], strict=True))


def ready(text: str, parameters: Iterable[str]) -> str:
    """A docstring of the house as reStructuredText: prose, then a field for each parameter that it explains."""
    if SECTION.search(text):
        return text
    explained: dict[str, str] = {}
    kept = []
    for paragraph in text.split("\n\n"):
        if paragraph.lstrip().startswith(">>>"):
            kept.append(paragraph)
            continue
        flowing = paragraph if any(line.startswith(" ") for line in paragraph.splitlines()) else " ".join(paragraph.split("\n"))
        prose, found = fields(flowing, parameters)
        explained |= {name: escaped(what) for name, what in found.items()}
        kept += [escaped(prose)] if prose else []
    lines = [f":param {name}: {what}" for names, what in explained.items() for name in names.split(", ")]
    return "\n\n".join([*kept, "\n".join(lines)]).rstrip()


def _on_docstring(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    target = of.fget if isinstance(of, property) else of
    try:
        parameters = list(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        parameters = []
    lines[:] = [*ready("\n".join(lines).rstrip(), parameters).split("\n"), ""]


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect both to Sphinx; docstrings are made ready before napoleon sees them."""
    app.add_directive("public", Public)
    app.connect("autodoc-process-docstring", _on_docstring, priority=400)
    return {"parallel_read_safe": True}
