"""What every group of commands needs: the result's form, printing, and how a command is declared."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from pulvinar.core.checksums import DEFAULT, MODES, VARIABLE
from pulvinar.core.errors import PulvinarError

Result = dict[str, Any]


class HelpText(argparse.HelpFormatter):
    """Help whose example keeps its lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("example:") else super()._fill_text(text, width, indent)


def parser_with(example: str, **given: Any) -> dict[str, Any]:
    """Arguments of a parser whose help ends with an example, one command a line."""
    return {"formatter_class": HelpText, "epilog": "example:\n  " + example.replace("\n", "\n  ") if example else None, **given}


def add_flags(to: argparse.ArgumentParser, *, top: bool = False) -> argparse.ArgumentParser:
    """The flags of every command, which stand before and after its words; their defaults are those of the top."""

    def default(value: Any) -> Any:
        return value if top else argparse.SUPPRESS  # or a command would undo what stands before it

    checks = "; ".join(f"{name}: {text}" for name, text in MODES.items())
    flags = to.add_argument_group("for every command, before or after its name")
    flags.add_argument(
        "--json", action="store_true", default=default(False), help="print the result as one JSON object on stdout"
    )
    flags.add_argument("--quiet", action="store_true", default=default(False), help="no progress on stderr")
    flags.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        default=default(False),
        help="more on stderr: what is read, settings, threads, checkpoints; the traceback of an error",
    )
    flags.add_argument(
        "--checksums",
        choices=list(MODES),
        metavar="WHEN",
        default=default(None),
        help=f"when files are compared with their checksums ({checks}); default: {VARIABLE} of the environment, else {DEFAULT}",
    )
    return to


class Commands:
    """Where commands are declared: those of the top, or of a group such as `pulvinar data`."""

    def __init__(self, parser: argparse.ArgumentParser, dest: str = "command") -> None:
        self._made = parser.add_subparsers(dest=dest, required=True, metavar="COMMAND")

    def add(
        self, name: str, run: Callable[[argparse.Namespace], Result], text: str, *, example: str = "", **given: Any
    ) -> argparse.ArgumentParser:
        """The parser of a new command, which calls `run`; text: one line for --help. example: what its help ends with."""
        made: argparse.ArgumentParser = self._made.add_parser(
            name, **parser_with(example, help=text, description=text, **given)
        )
        made.set_defaults(run_command=run)
        return add_flags(made)

    def group(self, name: str, text: str, description: str, *, example: str = "") -> "Commands":
        """Commands of two words, `pulvinar name …`."""
        made = self._made.add_parser(name, **parser_with(example, help=text, description=description))
        return Commands(add_flags(made), f"{name}_command")


class UsageError(PulvinarError):
    """Arguments that argparse cannot check by itself."""


def say(arguments: argparse.Namespace, text: str) -> None:
    """Print for a reader; nothing with --json."""
    if not arguments.json:
        print(text)


def as_json(value: Any) -> str:
    """The result as one JSON object; numpy and torch values become plain ones."""
    from pulvinar.core.storage import to_jsonable

    return json.dumps(to_jsonable(value))


def add_settings(to: argparse.ArgumentParser) -> None:
    """--config and --set."""
    to.add_argument("--config", help="TOML file with settings")
    to.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="settings; they win over the file"
    )


def add_memory(to: argparse.ArgumentParser) -> None:
    """--memory."""
    to.add_argument(
        "--memory", metavar="SIZE", help="stay below this much memory, such as 4GB; blocks are chosen by it (docs/memory.md)"
    )
