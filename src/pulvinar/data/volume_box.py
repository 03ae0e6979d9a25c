"""A box of a volume, given as text, and where it lies in a subject's grid.

`60x40x40`            sides (x, y, z) in voxels, placed by the brain mask alone: at its posterior end, in the middle of it from
                      left to right and from top to bottom
`60x40x40@nsdgeneral` the same sides around the centre of a labelled region (an oracle: it has seen the annotation)
`fit:nsdgeneral`      the smallest box around a labelled region (an oracle as well)
`10:70,0:40,20:60`    places from and to (not included) along x, y, z
"""

import re
from collections.abc import Callable

import numpy as np

from pulvinar.core.errors import ConfigError, InputError

Region = Callable[[str], np.ndarray]
FORMS = "60x40x40, 60x40x40@REGION, fit:REGION or 10:70,0:40,20:60"
Slices = tuple[slice, slice, slice]


def is_oracle(text: str) -> bool:
    """Whether the box is placed by an annotated region."""
    return "@" in text or text.startswith("fit:")


def require_box(text: str) -> None:
    """Raise `ConfigError` if this is no box."""
    fixed = re.fullmatch(r"\d+:\d+,\d+:\d+,\d+:\d+", text)
    if not (fixed or re.fullmatch(r"\d+x\d+x\d+(@[\w.-]+)?", text) or re.fullmatch(r"fit:[\w.-]+", text)):
        raise ConfigError(f"{FORMS} is needed, '{text}' came")


def box_slices(text: str, brain: np.ndarray, affine: np.ndarray, region: Region) -> Slices:
    """The box as slices along x, y and z; what would leave the grid is moved inside, a side longer than the grid is cut.

    brain: bool (x, y, z). region: name -> bool (x, y, z).
    """
    require_box(text)
    if text.startswith("fit:"):
        low, high = _bounds(region(text.removeprefix("fit:")), text)
        return _slices(low, high)
    if ":" in text:
        ends = np.array([[int(end) for end in part.split(":")] for part in text.split(",")])
        if (ends[:, 1] <= ends[:, 0]).any() or (ends[:, 1] > brain.shape).any():
            raise InputError(f"box {text}: each axis runs from a place to a later one, within the grid {brain.shape}")
        return _slices(ends[:, 0], ends[:, 1])
    sides, _, name = text.partition("@")
    size = np.minimum([int(side) for side in sides.split("x")], brain.shape)
    low, high = _bounds(region(name) if name else brain, text)
    start = (low + high - size) // 2
    if not name:
        start = _at_posterior_end(start, low, high, size, affine)
    start = np.clip(start, 0, np.array(brain.shape) - size)
    return _slices(start, start + size)


def _at_posterior_end(start: np.ndarray, low: np.ndarray, high: np.ndarray, size: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Along the axis from back to front, the box begins where the brain does."""
    from nibabel.orientations import aff2axcodes

    codes = aff2axcodes(affine)
    axis = next(number for number, code in enumerate(codes) if code in ("A", "P"))
    start = start.copy()
    start[axis] = low[axis] if codes[axis] == "A" else high[axis] - size[axis]
    return start


def _bounds(where: np.ndarray, text: str) -> tuple[np.ndarray, np.ndarray]:
    places = np.argwhere(where)
    if not len(places):
        raise InputError(f"box {text}: the region it is placed by is empty")
    return places.min(0), places.max(0) + 1


def _slices(low: np.ndarray, high: np.ndarray) -> Slices:
    x, y, z = (slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return x, y, z
