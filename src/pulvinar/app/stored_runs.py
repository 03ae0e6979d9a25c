"""Commands that work on what a run folder holds: whatever is raised on the way says which run it was."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from pulvinar.core.errors import FileError, PulvinarError

Command = TypeVar("Command", bound=Callable[..., Any])
TRACEBACK = "PULVINAR_TRACEBACK"  # of the environment: the command line shows where an error comes from


def uses_run(command: Command) -> Command:
    """A command whose first argument is a run folder, or several: an exception that is none of ours becomes a `FileError`.

    A checkpoint may hold other shapes than the settings beside it say, and a result may lack what a page shows: no check
    foresees all of that. What the operating system refuses, and memory that is short, pass unchanged.
    """

    @functools.wraps(command)
    def run_command(run: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return command(run, *arguments, **named)
        except (PulvinarError, OSError, MemoryError):
            raise
        except Exception as error:
            places = ", ".join(map(str, run)) if isinstance(run, list | tuple) else run
            lines = str(error).strip().splitlines() or [""]
            raise FileError(
                f"{places}: what is stored there cannot be used: {type(error).__name__}: {lines[0][:300]}. `pulvinar verify` "
                f"says which file is damaged; where it finds none, this is a fault of pulvinar ({TRACEBACK}=1 shows where)"
            ) from error

    return cast(Command, run_command)
