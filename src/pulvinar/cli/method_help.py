"""`pulvinar fit METHOD --help`: what the method does, its settings in groups, an example."""

import argparse
import contextlib
import sys
import textwrap
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
            text = method_help(method, terminal.width()) if method else parser.format_help()
        except PulvinarError as error:
            parser.exit(2, f"error: {error}\n")
        with contextlib.suppress(BrokenPipeError):  # who pages it has seen enough
            sys.stdout.write(text.rstrip() + "\n")
            sys.stdout.flush()
        parser.exit()


def method_help(name: str, width: int) -> str:
    """The help of one method, in so many columns."""
    from pulvinar.app import registry
    from pulvinar.app.settings_list import groups_of, groups_text

    method = registry.method(name)
    line = registry.names("methods").get(name) or registry.names("selectors")[name]
    more = "Settings are given as --set NAME=VALUE, or in a file with --config. The other arguments: pulvinar fit --help."
    said = [f"usage: pulvinar fit {name} --data DATA --out RUN [--set NAME=VALUE ...] ...", line, more]
    example = f"example:\n  pulvinar fit {name} --data {PLACES[method.data]} --out runs/{name}"
    return "\n\n".join([*(textwrap.fill(text, width) for text in said), groups_text(groups_of(name), width), example])
