"""The command line. Results go to stdout (one JSON object with --json), progress and messages to stderr.

Exit code 0 is success, 2 refused input (one line says what came and what fits), 130 an interrupt.
"""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

from pulvinar.cli import data, deploy, encoding, macs, reproduce, rsa, runs
from pulvinar.cli.common import Commands, as_json
from pulvinar.core.checksums import DEFAULT, MODES, VARIABLE, using
from pulvinar.core.errors import PulvinarError

INTERRUPTED = {  # what to do next
    "reconstruct": "; the last checkpoint and pictures are kept. Continue with the same command.",
    "fit": "; the last checkpoint is kept. Continue with the same command and --resume.",
    "reproduce": "; finished runs and the last checkpoint are kept. Continue with the same command.",
    "sweep": "; finished cells and the last checkpoint are kept. Continue with the same command.",
}


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    top = argparse.ArgumentParser(
        prog="pulvinar",
        description="Learns what to keep (which voxels, channels, stages) in models that connect images and brains.",
        epilog="Start with `pulvinar demo`. Every command has its own --help.",
    )
    top.add_argument("--version", action="version", version=_version())
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    shared.add_argument("--quiet", action="store_true", help="no progress on stderr")
    checks = "; ".join(f"{name}: {text}" for name, text in MODES.items())
    shared.add_argument(
        "--checksums",
        choices=MODES,
        metavar="WHEN",
        help=f"when files are compared with their checksums ({checks}); default: {VARIABLE} of the environment, else {DEFAULT}",
    )
    commands = Commands(top, shared)
    for group in (runs, reproduce, data, encoding, rsa, macs, deploy):
        group.declare(commands)
    return top


def _version() -> str:
    from importlib.metadata import version

    return f"pulvinar {version('pulvinar')}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # idle threads sleep; read when torch loads (docs/log.md, busy cores)
    arguments = parser().parse_args(argv)
    from pulvinar.core.progress import REPORTER

    before = REPORTER.quiet, REPORTER.to_stderr
    REPORTER.quiet, REPORTER.to_stderr = arguments.quiet, True
    REPORTER.interrupted = False
    ours = threading.current_thread() is threading.main_thread()
    if ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where Ctrl-C is switched off (nohup)
        signal.signal(signal.SIGINT, REPORTER.interrupt)
    try:
        with using(arguments.checksums):
            result = arguments.run_command(arguments)
        if arguments.json:
            print(as_json(result))
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.stderr.write(f"\ninterrupted{INTERRUPTED.get(arguments.command, '')}\n")
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except PulvinarError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except MemoryError as error:
        sys.stderr.write(f"error: not enough memory{': ' if str(error) else ''}{error}\n")
        return 2
    except OSError as error:  # what the operating system refuses, such as a folder that may not be read
        sys.stderr.write(f"error: {error.filename or 'file'}: {error.strerror or error}\n")
        return 2
    finally:
        REPORTER.quiet, REPORTER.to_stderr = before
    return 0
