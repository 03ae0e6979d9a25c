"""The command line. Results go to stdout (one JSON object with --json), progress and messages to stderr.

Exit code 0 is success, 1 what `verify` found to differ, 2 refused input (one line says what came and what fits), 130 an
interrupt, 143 SIGTERM, which acts as an interrupt does.
"""

import argparse
import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pulvinar.cli import completion, data, deploy, doctor, encoding, macs, reproduce, rsa, runs, sweeps
from pulvinar.cli.common import Commands, UsageError, add_flags, as_json, parser_with
from pulvinar.cli.interrupted import kept
from pulvinar.core import terminal
from pulvinar.core.checksums import using
from pulvinar.core.errors import PulvinarError, SaidError
from pulvinar.core.places import remove_left_overs, require_own_kind


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="pulvinar",
        description="Learns what to keep (which voxels, channels, stages) in models that connect images and brains. "
        "Every command has its own --help.",
        **parser_with("pulvinar demo"),
    )
    top.add_argument("--version", action="version", version=_version())
    commands = Commands(add_flags(top, top=True))
    for group in (runs, sweeps, reproduce, data, encoding, rsa, macs, deploy, doctor, completion):
        group.declare(commands)
    return top


def _version() -> str:
    from importlib.metadata import version

    return f"pulvinar {version('pulvinar')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; read when torch loads (docs/log.md, busy cores)
    arguments = parser().parse_args(argv)
    from pulvinar.core.progress import REPORTER, end_bars

    before = REPORTER.quiet, REPORTER.to_stderr, REPORTER.verbose
    REPORTER.quiet, REPORTER.to_stderr, REPORTER.verbose = arguments.quiet, True, arguments.verbose
    REPORTER.interrupted = None
    try:
        with using(arguments.checksums), _interrupts(), terminal.styles_for(sys.stdout):
            return _run(arguments)
    finally:
        end_bars()
        REPORTER.quiet, REPORTER.to_stderr, REPORTER.verbose = before


@contextmanager
def _interrupts() -> Iterator[None]:
    """Ctrl-C and SIGTERM go to the reporter, unless they are switched off (nohup) or are somebody else's."""
    from pulvinar.core.progress import REPORTER

    ours = threading.current_thread() is threading.main_thread()
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if "SLURM_JOB_ID" in os.environ:
        usual[signal.SIGUSR2] = signal.SIG_DFL  # what submitit has a job sent before its time is up
    replaced = {number: handler for number, handler in usual.items() if ours and signal.getsignal(number) is handler}
    for number in replaced:
        signal.signal(number, REPORTER.interrupt)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def _run(arguments: argparse.Namespace) -> int:
    from pulvinar.core.progress import Terminated

    try:
        if arguments.quiet and arguments.verbose:
            raise UsageError("--quiet and --verbose are opposites; give one")
        if getattr(arguments, "out", None):
            require_own_kind(arguments.out)
            remove_left_overs(Path(arguments.out).parent)
        result = arguments.run_command(arguments)
        if arguments.json:
            print(as_json(result))
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"\ninterrupted. {str(stop) or kept(arguments)}".rstrip() + "\n")
        return 143 if isinstance(stop, Terminated) else 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PulvinarError as error:
        if arguments.verbose or os.environ.get("PULVINAR_TRACEBACK"):
            traceback.print_exc()
        if not isinstance(error, SaidError):
            _say_error(str(error))
        return 2
    except MemoryError as error:
        _say_error(f"not enough memory{': ' if str(error) else ''}{error}")
        return 2
    except OSError as error:  # what the operating system refuses, such as a folder that may not be read
        reason = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or error
        _say_error(f"{error.filename or 'file'}: {reason}")
        return 2
    return getattr(arguments, "exit_code", 0)


def _say_error(text: str) -> None:
    sys.stderr.write(terminal.filled(f"error: {text}", sys.stderr) + "\n")
