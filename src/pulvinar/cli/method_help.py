"""`pulvinar fit METHOD --help`: what the method does, its settings in groups, an example."""

import argparse
import contextlib
import hashlib
import re
import sys
import textwrap
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pulvinar.core import terminal
from pulvinar.core.errors import PulvinarError

PLACES = {"experiment": "mystudy/", "images": "images.npz", "dissimilarities": "rdms.npz"}


class HelpOfMethod(argparse.Action):
    """--help of `fit`, which is that of a method where one was named before it."""

    def __init__(self, option_strings: list[str], dest: str, **given: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, default=argparse.SUPPRESS, **given)

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: Any) -> None:
        """Print it and end."""
        method = getattr(namespace, "method", None)
        try:
            text = kept_help(method, terminal.width()) if method else parser.format_help()
        except PulvinarError as error:
            parser.exit(2, f"error: {error}\n")
        with contextlib.suppress(BrokenPipeError):  # who pages it has seen enough
            sys.stdout.write(text.rstrip() + "\n")
            sys.stdout.flush()
        parser.exit()


def kept_help(name: str, width: int) -> str:
    """The help of one method, kept in the cache folder until a file of the package changes: to make it is to import torch."""
    from pulvinar.core.storage import cache_folder, write_text

    if not re.fullmatch(r"\w+", name):
        return method_help(name, width)  # which says what is near
    place = cache_folder() / "help" / f"{name}-{width}{'-styled' if terminal.strong('') else ''}.txt"
    head = f"{_state()}\n"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        kept = place.read_text(encoding="utf-8")
        if kept.startswith(head):
            return kept.removeprefix(head)
    text = method_help(name, width)
    with contextlib.suppress(OSError):  # FileError is one; a home that cannot be written to
        write_text(place, head + text)
    return text


def _state() -> str:
    """Changes with the version and with every file of the package."""
    root = Path(__file__).resolve().parents[1]
    files = sorted((str(path.relative_to(root)), path.stat().st_mtime_ns) for path in root.rglob("*.py"))
    return hashlib.sha256(repr([version("pulvinar"), files]).encode()).hexdigest()


def method_help(name: str, width: int) -> str:
    """The help of one method, in so many columns."""
    from pulvinar.app import registry
    from pulvinar.app.settings_list import groups_of, groups_text

    method = registry.method(name)
    line = registry.names("methods").get(name) or registry.names("selectors")[name]
    more = "Settings are given as --set NAME=VALUE, or in a file with --config. The other arguments: pulvinar fit --help."
    paragraphs = [f"usage: pulvinar fit {name} --data DATA --out RUN [--set NAME=VALUE ...] ...", line, more]
    example = f"example:\n  pulvinar fit {name} --data {PLACES[method.data]} --out runs/{name}"
    return "\n\n".join([*(textwrap.fill(text, width) for text in paragraphs), groups_text(groups_of(name), width), example])
