"""How data, runs and results look when a Python session or a notebook shows them: a few lines, never their arrays."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

MOST_NAMES = 4  # that are listed before "and so many more"


def listed(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """The first names with commas, and how many more there are.

    >>> listed(["V1", "V2", "V3", "V4", "LO", "FFA"])
    'V1, V2, V3, V4 and 2 more'
    """
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def counted(n: int, noun: str, plural: str = "") -> str:
    """A count with its noun.

    >>> counted(1, "voxel"), counted(12000, "voxel"), counted(2, "class", "classes")
    ('1 voxel', '12,000 voxels', '2 classes')
    """
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}"


class Shown:
    """What shows itself by a title and a few facts (`_shown`), those that are empty left out; as HTML in a notebook."""

    def _shown(self) -> tuple[str, dict[str, str]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        title, facts = self._shown()
        return "\n".join([title, *(f"  {name}: {text}" for name, text in facts.items() if text)])

    def _repr_html_(self) -> str:
        return card(*self._shown())


def card(title: str, facts: Mapping[str, str]) -> str:
    """A title and below it the facts that are not empty, as HTML, escaped."""
    return html_table(["", ""], [(name, text) for name, text in facts.items() if text], caption=title, left=2)


def html_table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "", left: int = 1) -> str:
    """Texts as a small HTML table, escaped. left: how many columns are names and not numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        looks = ["left" if place < left else "right" for place in range(len(cells))]
        made = (f'<{tag} style="text-align:{look}">{escape(cell)}</{tag}>' for cell, look in zip(cells, looks, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    head = f"<thead>{line(heads, 'th')}</thead>" if any(heads) else ""
    caption_tag = f'<caption style="text-align:left;font-weight:bold">{escape(caption)}</caption>' if caption else ""
    return f"<table>{caption_tag}{head}<tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"
