"""Errors that name the argument or file, what came, and what fits.

Each is also the builtin that a caller would catch. The command line prints them on one line and exits with code 2.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

Key = TypeVar("Key")
Read = TypeVar("Read")


class PulvinarError(Exception):
    """Anything pulvinar refuses, with the reason."""

    def __str__(self) -> str:  # KeyError would print its repr
        return str(self.args[0]) if self.args else ""


class PulvinarWarning(UserWarning):
    """What a reader of the results must know, and nothing refuses."""


class InputError(PulvinarError, ValueError):
    """An argument or a file holds what cannot be used."""


class ConfigError(PulvinarError, ValueError):
    """Settings that do not fit; lists every mistake at once."""


class DegenerateError(InputError):
    """Values without the variance, rank or count that the formula needs."""


class LeakError(InputError):
    """A stimulus, source picture or image stands on both sides of a split."""


class NotFoundError(PulvinarError, KeyError):
    """A name that is not there; the message lists those that are."""


class FileError(PulvinarError, OSError):
    """A file or folder that is missing, unreadable, truncated, or in the way."""


class MissingDependencyError(PulvinarError, ImportError):
    """An optional library is not installed; the message has the command that installs it."""


class SaidError(PulvinarError):
    """A refusal that another process has said on the same terminal already."""


def of_every(keys: Iterable[Key], read: Callable[[Key], Read]) -> dict[Key, Read]:
    """Key -> what is read of it; what is wrong with several of them is said at once."""
    found, mistakes = {}, []
    for key in keys:
        try:
            found[key] = read(key)
        except PulvinarError as error:
            mistakes.append(error)
    if len(mistakes) == 1:
        raise mistakes[0]
    if mistakes:
        raise type(mistakes[0])("\n".join(dict.fromkeys(map(str, mistakes)))) from mistakes[0]
    return found
