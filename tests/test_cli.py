"""The command line's manners: help at once, torch only when needed, one JSON object on stdout."""

import argparse
import json
import os
import subprocess
import sys

import pytest

from pulvinar import cli

COMMANDS = [
    ["demo"],
    ["list"],
    ["data"],
    ["data", "inspect"],
    ["data", "convert"],
    ["data", "simulate"],
    ["fit"],
    ["evaluate"],
    ["report"],
    ["sweep"],
]


@pytest.mark.parametrize("command", [[], *COMMANDS], ids=" ".join)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    assert "usage: pulvinar" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--help"], ["list", "--json"]])
def test_help_and_list_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom pulvinar import cli\ntry:\n    cli.main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'matplotlib', 'sklearn', 'nilearn', 'nibabel'} & set(sys.modules)\n"
        "sys.exit(f'{heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_list_is_one_json_object(capsys):
    assert cli.main(["list", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert set(result["methods"]) >= {"troi", "cross_subject_decoder"}
    assert set(result["datasets"]) >= {"simulated", "arrays"}


def test_settings_of_a_method_and_its_backbone(capsys):
    assert cli.main(["fit", "troi", "--settings", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["settings"]}
    assert {"n_voxels", "low_pass", "backbone.epochs"} <= names


@pytest.mark.parametrize("arguments", [[], ["fti"], ["data"], ["evaluate"], ["demo", "--seed", "x"]])
def test_wrong_usage_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError("128 GiB"), 2, "error: not enough memory: 128 GiB"),
        (PermissionError(13, "Permission denied", "/x"), 2, "error: /x: Permission denied"),
    ],
)
def test_ends_without_a_traceback(error, code, said, monkeypatch, capsys):
    def fail(arguments):
        raise error

    monkeypatch.setattr(cli.runs, "_list", fail)
    assert cli.main(["list"]) == code
    assert said in capsys.readouterr().err


def test_quiet_is_quiet_and_ends_with_the_command(capsys):
    from pulvinar.core.progress import REPORTER

    assert cli.main(["list", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert not REPORTER.quiet


def test_no_command_writes_to_what_is_no_file(tmp_path, capsys):
    """Every command with --out, found through the parsers themselves."""
    with_out = [words for words, parser in _commands(cli.parser()) if any(a.dest == "out" for a in parser._actions)]
    assert len(with_out) >= 9
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/full")  # a link: nothing that is the machine's can be replaced here
    for words, parser in _commands(cli.parser()):
        if words not in with_out:
            continue
        for place, said in ((str(tmp_path / "device"), "is a device"), (str(tmp_path / "pipe"), "is a pipe")):
            assert cli.main([*words, *_needed(parser, place)]) == 2, words
            assert f"error: {place}: {said}" in capsys.readouterr().err, words
    assert (tmp_path / "device").is_symlink()


def _commands(parser, words=()):
    """Every command with its parser, down the groups."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _commands(inner, (*words, name))
            return
    yield words, parser


def _needed(parser, out):
    """What a command needs, and `out`; nothing of it exists."""
    needed = []
    for action in parser._actions:
        value = out if action.dest == "out" else "nowhere"
        if action.option_strings and (action.required or action.dest == "out"):
            needed += [action.option_strings[0], value]
        elif not action.option_strings:
            needed.append(value)
    return needed
