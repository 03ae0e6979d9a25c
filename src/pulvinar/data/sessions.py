"""What the name of a session or run means as a number: `ses-10`, `10`, `010` and a spreadsheet's `10.0` are all 10."""

import re
from collections.abc import Sequence

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log

NUMBERED = re.compile(r"(?P<prefix>\D*?)[-_ ]?0*(?P<number>\d+)(?:[.,](?P<fraction>\d+))?")
PLAIN_PREFIXES = frozenset(("", "ses", "sess", "session", "run"))  # those of BIDS and their spellings; all mean the number
LARGEST = 2**62

ShownImages = Sequence[Sequence[tuple[int, np.ndarray]]]  # per subject: (session, numbers of the images it shows)


def session_numbers(labels: Sequence[str], what: str, origin: str) -> np.ndarray:
    """Sessions or runs as whole numbers, int64 (trial,): what their names say, whatever prefix they share.

    `ses-10`, `ses-02` are 10 and 2; `10`, `10.0`, `10,0` and `010` are 10; `day1`, `day2` are 1 and 2. Names without a
    number, or with different words before it, are numbered from 0 in order of first appearance, and said. Raises
    `InputError` for a fraction.

    >>> session_numbers(["ses-10", "ses-02", "10.0"], "session", "trials.csv").tolist()
    [10, 2, 10]
    """
    found = {label: _number(label, what, origin) for label in dict.fromkeys(map(str, labels))}
    prefixes = {part[0] for part in found.values() if part is not None}
    named = None in found.values() or (len(prefixes) > 1 and not prefixes <= PLAIN_PREFIXES)
    if not named:
        number = {label: part[1] for label, part in found.items() if part is not None}
        return np.array([number[str(label)] for label in labels], dtype=np.int64)
    place = {name: number for number, name in enumerate(found)}
    shown = ", ".join(f"{name} = {number}" for name, number in list(place.items())[:4])
    log(f"{origin}: '{what}' is not whole numbers; numbered in order: {shown}{', ...' if len(place) > 4 else ''}")
    return np.array([place[str(label)] for label in labels], dtype=np.int64)


def _number(label: str, what: str, origin: str) -> tuple[str, int] | None:
    """Word before the number, and the number; None where a name has none at its end."""
    text = label.strip()
    if re.fullmatch(r"[+-]\d+", text):
        return "", int(text)
    match = NUMBERED.fullmatch(text)
    if match is None:
        return None
    if (match["fraction"] or "").strip("0"):
        raise InputError(f"{origin}: {what} '{label}' is not a whole number")
    number = int(match["number"])
    if number > LARGEST:
        raise InputError(f"{origin}: {what} '{label}' is too large a number")
    return match["prefix"].casefold(), number
