"""The command line's manners: help at once, torch only when needed, one JSON object on stdout."""

import argparse
import dataclasses
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from pulvinar import cli
from pulvinar.app import registry
from pulvinar.cli import method_help
from pulvinar.core.errors import FileError


def test_every_help_ends_with_an_example_that_parses():
    """Of every command and group, found through the parsers themselves: the example is one of that command."""
    top = cli.parser()
    walked = dict(_parsers(top))
    assert {(), ("data",), ("data", "inspect"), ("fit",), ("completion",)} <= set(walked)
    for words, parser in walked.items():
        head, _, example = (parser.epilog or "").partition("\n")
        assert head == "example:", f"pulvinar {' '.join(words)}: give example= to commands.add"
        assert parser.format_help().endswith(f"{head}\n{example}\n")
        for line in example.splitlines():
            program, *given = shlex.split(line.partition(" > ")[0])
            assert (program, tuple(given[: len(words)])) == ("pulvinar", words)
            top.parse_args(given)


def test_the_package_is_a_program():
    """`python -m pulvinar` is `pulvinar`, and so is `python -m pulvinar.cli`."""
    for module in ("pulvinar", "pulvinar.cli"):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
        assert done.stdout.startswith("usage: pulvinar ")


def test_flags_of_every_command_stand_before_between_and_after_its_words():
    top = cli.parser()
    for words, parser in _commands(top):
        needed = _needed(parser, "nowhere")
        plain = top.parse_args([*words, *needed])
        assert (plain.json, plain.quiet, plain.verbose, plain.checksums) == (False, False, False, None), words
        for place in range(len(words) + 1):
            given = [*words[:place], "--json", "-v", "--checksums", "never", *words[place:], *needed]
            found = top.parse_args([*given, "--quiet"])
            assert (found.json, found.quiet, found.verbose, found.checksums) == (True, True, True, "never"), given


def test_verbose_says_why_and_is_not_beside_quiet(capsys, monkeypatch):
    def fail(arguments):
        raise FileError("nowhere: no such file")

    monkeypatch.setattr(cli.runs, "_list", fail)
    assert cli.main(["list"]) == 2
    assert capsys.readouterr().err == "error: nowhere: no such file\n"
    assert cli.main(["-v", "list"]) == 2
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["--quiet", "list", "-v"]) == 2
    assert "opposites" in capsys.readouterr().err


def test_help_of_a_method_has_every_setting_once_in_groups(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "dual_gating", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert max(map(len, text.partition("\nexample:")[0].splitlines())) <= 60
    for heading in ("Network", "Objective", "Views", "Training", "Gates and their budget"):
        assert text.count(f"\n\n{heading}\n") == 1
    for field in dataclasses.fields(registry.method("dual_gating").config):
        assert len(re.findall(rf"^  {field.name} = ", text, re.MULTILINE)) == 1
    assert "(a number, in (0, 1])" in re.sub(r"\s+", " ", text)  # bounds, of the budget
    example = text.rstrip().splitlines()
    assert example[-2] == "example:"
    cli.parser().parse_args(shlex.split(example[-1])[1:])


def test_help_of_a_method_is_kept_until_the_package_changes(monkeypatch, tmp_path):
    monkeypatch.setenv("PULVINAR_CACHE", str(tmp_path))
    made = []
    monkeypatch.setattr(method_help, "method_help", lambda name, width: made.append(name) or f"help of {name} in {width}")
    said = [method_help.kept_help("troi", width) for width in (80, 80, 60)]
    assert said == ["help of troi in 80", "help of troi in 80", "help of troi in 60"]
    assert made == ["troi", "troi"]
    monkeypatch.setattr(method_help, "_state", lambda: "another package")
    assert method_help.kept_help("troi", 80) == "help of troi in 80"
    assert made == ["troi"] * 3
    method_help.kept_help("../troi", 80)
    assert {path.name for path in tmp_path.rglob("*.txt")} == {"troi-80.txt", "troi-60.txt"}


def test_help_of_no_method_ends_with_2(capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["fit", "trio", "--help"])
    assert ended.value.code == 2
    assert "did you mean 'troi'?" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [(["fi"], {"fit"}), (["fit", "tro"], {"troi"}), (["data", "ins"], {"inspect"}), (["fit", "troi", "--res"], {"--resume"})],
)
def test_bash_completes_commands_methods_and_flags(typed, offered, capsys):
    assert cli.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    ask = f'COMP_WORDS=(pulvinar {" ".join(typed)}); COMP_CWORD={len(typed)}; _shtab_pulvinar; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", f"{script}\n{ask}"], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_completions_of_other_shells_are_read_by_them(shell, capsys):
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "inspect" in script
    assert "learning_to_aggregate" in script
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    done = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--help"], ["fit", "--help"], ["list", "--json"], ["completion", "bash"]])
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


def test_settings_of_a_method_and_its_pretrained_run(capsys):
    assert cli.main(["fit", "troi", "--settings", "--json"]) == 0
    names = {row["name"] for row in json.loads(capsys.readouterr().out)["settings"]}
    assert {"n_voxels", "low_pass", "pretrained.epochs"} <= names


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


def _parsers(parser, words=()):
    """Every command and group with its parser, the top among them."""
    yield words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from _parsers(inner, (*words, name))


def _commands(parser):
    """Every command with its parser."""
    for words, found in _parsers(parser):
        if not any(isinstance(action, argparse._SubParsersAction) for action in found._actions):
            yield words, found


def _needed(parser, out):
    """What a command needs, and `out`; nothing of it exists."""
    needed = []
    for action in parser._actions:
        value = out if action.dest == "out" else "nowhere"
        value = next(iter(action.choices), value) if action.choices else value
        if action.option_strings and (action.required or action.dest == "out"):
            needed += [action.option_strings[0], value]
        elif not action.option_strings:
            needed.append(value)
    return needed
