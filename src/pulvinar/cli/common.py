"""What every group of commands needs: the result's form, printing, and how a command is declared."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from pulvinar.core.errors import PulvinarError

Result = dict[str, Any]


class Commands:
    """Where commands are declared: those of the top, or of a group such as `pulvinar data`."""

    def __init__(self, parser: argparse.ArgumentParser, shared: argparse.ArgumentParser, dest: str = "command") -> None:
        self._shared = shared
        self._made = parser.add_subparsers(dest=dest, required=True, metavar="COMMAND")

    def add(self, name: str, run: Callable[[argparse.Namespace], Result], text: str) -> argparse.ArgumentParser:
        """The parser of a new command, which calls `run`; text: one line for --help."""
        made: argparse.ArgumentParser = self._made.add_parser(name, parents=[self._shared], help=text, description=text)
        made.set_defaults(run_command=run)
        return made

    def group(self, name: str, text: str, description: str) -> "Commands":
        """Commands of two words, `pulvinar name …`."""
        return Commands(self._made.add_parser(name, help=text, description=description), self._shared, f"{name}_command")


class UsageError(PulvinarError):
    """Arguments that argparse cannot check by itself."""


def say(arguments: argparse.Namespace, text: str) -> None:
    """Print for a reader; nothing with --json."""
    if not arguments.json:
        print(text)


def as_json(value: Any, indent: int | None = None) -> str:
    """The result as one JSON object; numpy and torch values become plain ones."""
    from pulvinar.core.storage import to_jsonable

    return json.dumps(to_jsonable(value), indent=indent)


def add_settings(to: argparse.ArgumentParser) -> None:
    """--config and --set."""
    to.add_argument("--config", help="TOML file with settings")
    to.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings; they win over the file"
    )
