"""The settings of a method as a person reads them: in groups, each with its default, what fits, and what it does."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pulvinar.app import preset, registry
from pulvinar.app.fit import BACKBONE_PREFIX
from pulvinar.core.config import Described, described_in_groups

NARROWEST = 48  # below it, what a setting does stands under its name


def groups_of(method: str) -> dict[str, list[Described]]:
    """Heading -> rows (name, what fits, default, help) of a method's settings and, prefixed, of its backbone's."""
    found = registry.method(method)
    groups: dict[str, list[Described]] = {}
    if there := preset.of_method(method):
        row = (preset.KEY, f"one of {', '.join(there)}", None, "settings under a name; what is set beside it wins")
        groups["Presets"] = [row]
    groups |= described_in_groups(found.config)
    inner = described_in_groups(registry.method(found.backbone).config) if found.backbone else {}
    for heading, rows in inner.items():
        groups[f"{found.backbone}, where it is trained too: {heading}"] = [
            (BACKBONE_PREFIX + name, fits, default, text) for name, fits, default, text in rows
        ]
    return groups


def settings_of(method: str) -> list[Described]:
    """The rows of all groups."""
    return [row for rows in groups_of(method).values() for row in rows]


def groups_text(groups: Mapping[str, Sequence[Described]], width: int) -> str:
    """Name and default of every setting, and beside them what it does and what fits."""
    names = {row[0]: f"{row[0]} = {shown(row[2])}" for rows in groups.values() for row in rows}
    indent = min(max(map(len, names.values()), default=0) + 4, width // 2) if width >= NARROWEST else 6
    blocks = []
    for heading, rows in groups.items():
        lines = [heading, *(_row(names[name], f"{text} ({fits})", indent, width) for name, fits, _, text in rows)]
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def shown(default: Any) -> str:
    """A default as it would be set."""
    if isinstance(default, tuple):
        return ",".join(map(shown, default)) or "()"
    if isinstance(default, bool) or default is None:
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)


def _row(name: str, text: str, indent: int, width: int) -> str:
    head = f"  {name}"
    filled = textwrap.wrap(text, width - indent, break_long_words=False, break_on_hyphens=False)
    if len(head) + 2 <= indent:
        return "\n".join([f"{head:<{indent}}{filled[0]}", *(" " * indent + line for line in filled[1:])])
    return "\n".join([head, *(" " * indent + line for line in filled)])
