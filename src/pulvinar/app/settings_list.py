"""The settings of a method as a person reads them: in groups, each with its default, what fits, and what it does."""

from collections.abc import Mapping, Sequence
from typing import Any

from pulvinar.app import preset, registry
from pulvinar.app.method_settings import PRETRAINED_PREFIX
from pulvinar.core import terminal
from pulvinar.core.config import Described, described_in_groups


def groups_of(method: str) -> dict[str, list[Described]]:
    """Heading -> rows (name, what fits, default, help) of a method's settings and, prefixed, of its pretrained run's."""
    found = registry.method(method)
    groups: dict[str, list[Described]] = {}
    if presets := preset.of_method(method):
        row = (preset.KEY, f"one of {', '.join(presets)}", None, "settings under a name; what is set beside it wins")
        groups["Presets"] = [row]
    groups |= described_in_groups(found.config)
    inner = described_in_groups(registry.method(found.pretrained).config) if found.pretrained else {}
    for heading, rows in inner.items():
        groups[f"{found.pretrained}, where it is trained too: {heading}"] = [
            (PRETRAINED_PREFIX + name, fits, default, text) for name, fits, default, text in rows
        ]
    return groups


def settings_of(method: str) -> list[Described]:
    """The rows of all groups."""
    return [row for rows in groups_of(method).values() for row in rows]


def groups_text(groups: Mapping[str, Sequence[Described]], width: int) -> str:
    """Name and default of every setting, and beside them what it does and what fits."""
    blocks = []
    for heading, rows in groups.items():
        pairs = [(f"{name} = {shown(default)}", f"{text} ({fits})") for name, fits, default, text in rows]
        blocks.append(f"{terminal.strong(heading)}\n{terminal.two_columns(pairs, width)}")
    return "\n\n".join(blocks)


def shown(default: Any) -> str:
    """A default as it would be set."""
    if isinstance(default, tuple):
        return ",".join(map(shown, default)) or "()"
    if isinstance(default, bool) or default is None:
        return str(default).lower()
    return f"{default:g}" if isinstance(default, float) else str(default)
