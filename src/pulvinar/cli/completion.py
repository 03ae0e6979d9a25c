"""`pulvinar completion`: commands, flags, methods and files after the tab key."""

import argparse

from pulvinar.cli.common import Commands, Result, say

SHELLS = {  # where each reads what is written
    "bash": "pulvinar completion bash > ~/.local/share/bash-completion/completions/pulvinar",
    "zsh": "pulvinar completion zsh > ~/.zfunc/_pulvinar   # a folder of $fpath",
    "fish": "pulvinar completion fish > ~/.config/fish/completions/pulvinar.fish",
}


def _completion(arguments: argparse.Namespace) -> Result:
    import shtab

    from pulvinar.cli import parser

    script = shtab.complete(_with_names(parser()), shell=arguments.shell)
    say(arguments, script)
    return {"shell": arguments.shell, "script": script}


def _with_names(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser with what an argument's name tells of its values: methods, recipes, files."""
    import shtab

    from pulvinar.app import registry

    methods = [*registry.names("methods"), *registry.names("selectors")]
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                _with_names(inner)
        elif action.dest == "method" and not action.option_strings:
            action.choices = methods
        elif action.nargs != 0 and action.choices is None and action.type is None:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    return parser


def declare(commands: Commands) -> None:
    """The command line of this file."""
    completion = commands.add(
        "completion",
        _completion,
        "what a shell completes commands with, to be kept where it looks",
        example="\n".join(SHELLS.values()),
    )
    completion.add_argument("shell", choices=list(SHELLS), help="the shell that is to complete")
