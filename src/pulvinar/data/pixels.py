"""What counts as pixels: 8 bits a colour, red, green, blue in the last axis; and how other numbers become that, or why not.

Every array of pictures that enters passes here, whatever file it came from (files of pictures: data/pictures.py).
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from pulvinar.core.errors import InputError

Values: TypeAlias = Any  # an array of numpy or of torch: what has ndim, shape, dtype, min and max

TOLERANCE = 0.5 / 255  # half a step of 8 bits: what rounding, float16 and a resize may add to pixels in [0, 1]
WHITE_16 = 65535
LEAST_WHITE_16 = 4096  # 16 bits that stay below hold 12 bits or fewer, or a picture darker than 1/16 of white
LARGEST_NORMALISED = 30  # (1 - mean) / sd of a set with a spread of about .03, the least that was met; pixels go to 255
FILLED = 0.1  # from 0 and from 1: numbers that come as near to both fill the range of pixels
AXES = {3: "(height, width, 3)", 4: "(image, height, width, 3)"}


def kind(values: Values) -> str:
    """The name of a dtype, of numpy or of torch, without its byte order."""
    return values.dtype.name if isinstance(values, np.ndarray) else str(values.dtype).rpartition(".")[2]


def require_pixels(values: Values, what: str, *, n_axes: int = 4) -> None:
    """`InputError` unless these are pixels: uint8 (image, height, width, 3), or with n_axes=3 those of one picture.

    A height of 3 pixels is refused: nobody can tell it from channels that stand first.
    """
    if kind(values) != "uint8" or not _fits(values, n_axes):
        raise _misfit(values, what, n_axes)


def as_pixels(values: np.ndarray, what: str, *, white: int | None = None) -> np.ndarray:
    """uint8 (image, height, width, 3) from uint8, from uint16 (0 is black, `white` is white), or from numbers in [0, 1].

    white: None means 65535. `InputError` for everything else: another order of axes, numbers outside of the range, and numbers
    that fill so little of it that another range was meant.
    """
    name = kind(values)
    if not _fits(values, 4) or not (name in ("uint8", "uint16") or name.startswith("float")):
        raise _misfit(values, what, 4)
    if name == "uint16":
        return from_16_bits(values, what, white=white)
    if name != "uint8":
        return from_unit_range(values, what)
    if values.size and values.max() == 1:
        raise InputError(f"{what}: no pixel is above 1 of 255; these may be numbers in [0, 1] that were cut to whole ones")
    return values


def from_16_bits(values: np.ndarray, what: str, *, white: int | None = None) -> np.ndarray:
    """uint8 of uint16: 255 v / white, rounded. white: None means 65535; `InputError` where all stay below a sixteenth of it."""
    highest = int(values.max(initial=0))
    if white is None and 0 < highest < LEAST_WHITE_16:
        raise InputError(
            f"{what}: 16 bits, but nothing is above {highest} of {WHITE_16}. Which value is white? Cameras and microscopes "
            "store 12 bits so (white=4095); white=65535 if the pictures are as dark as that"
        )
    if highest > (white or WHITE_16):
        raise InputError(f"{what}: {highest} is above the value of white, {white}")
    return np.rint(values * (255 / (white or WHITE_16))).astype(np.uint8)


def require_unit_range(values: Values, what: str) -> None:
    """`InputError` unless all numbers are finite and in [0, 1], give or take half a step of 8 bits."""
    if 0 in values.shape:
        return
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= -TOLERANCE and highest <= 1 + TOLERANCE):
        way = "; numbers from 0 to 255 are divided by 255" if lowest >= 0 and 1 < highest <= 255 else ""
        raise InputError(f"{what}: pixels in [0, 1] are needed, {lowest:.4g} to {highest:.4g} came{way}")


def require_normalised(values: Values, what: str, *, mean: Sequence[float] = (), way: str = "") -> None:
    """`InputError` unless these are floating numbers (image, 3, height, width) as a normalisation leaves them.

    Refused is what none leaves: numbers that are not finite, or beyond 30 (0 to 255). mean: of the normalisation, per colour;
    where it is .1 or more, numbers that fill [0, 1] and nothing else are refused too, as pixels that were not normalised. way:
    what to do instead.
    """
    if values.ndim != 4 or values.shape[1] != 3 or "float" not in kind(values):
        raise InputError(
            f"{what}: normalised images (image, 3, height, width) are needed, {kind(values)} {tuple(values.shape)} came"
        )
    if 0 in values.shape:
        return
    lowest, highest = float(values.min()), float(values.max())
    if not (lowest >= -LARGEST_NORMALISED and highest <= LARGEST_NORMALISED):
        raise InputError(
            f"{what}: {lowest:.4g} to {highest:.4g} came; images are needed as (pixel / 255 - mean) / sd, within "
            f"{LARGEST_NORMALISED} of 0{way and '; '}{way}"
        )
    if min(mean, default=0) >= FILLED and 0 <= lowest < FILLED and 1 - FILLED < highest <= 1:
        raise InputError(
            f"{what}: {lowest:.4g} to {highest:.4g} came, pixels that were not normalised; images are needed as "
            f"(pixel / 255 - mean) / sd{way and '; '}{way}"
        )


def from_unit_range(values: np.ndarray, what: str) -> np.ndarray:
    """uint8 of numbers in [0, 1]: 255 v, rounded; `InputError` for others, and where none is above 1/255 (divided twice)."""
    require_unit_range(values, what)
    if 0 < float(values.max(initial=0)) < 1.5 / 255:
        raise InputError(f"{what}: no pixel is above 1/255; were numbers in [0, 1] divided by 255 once more?")
    return np.rint(np.clip(values.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _fits(values: Values, n_axes: int) -> bool:
    shape = tuple(values.shape)
    return len(shape) == n_axes and shape[-1] == 3 and shape[-3] != 3 and 0 not in shape[-3:]


def _misfit(values: Values, what: str, n_axes: int) -> InputError:
    came = f"{what}: uint8 {AXES[n_axes]} is needed, {kind(values)} {tuple(values.shape)} came"
    way = _way(tuple(values.shape), kind(values), n_axes)
    return InputError(f"{came}; {way}" if way else came)


def _way(shape: tuple[int, ...], name: str, n_axes: int) -> str:
    """How to get on, where that can be told."""
    if len(shape) == n_axes and shape[-3] == 3:
        ambiguous = "a height of 3 pixels cannot be told from channels that stand first; enlarge the pictures"
        return ambiguous if shape[-1] == 3 else f"channels stand first: numpy.moveaxis(x, {n_axes - 3}, -1) puts them last"
    if (len(shape) == n_axes and shape[-1] == 1) or (len(shape) == n_axes - 1 and shape[-1] != 3):
        grown = "x" if len(shape) == n_axes else "x[..., None]"
        return f"grey becomes three equal channels with numpy.repeat({grown}, 3, axis=-1)"
    if len(shape) == n_axes and shape[-1] == 4:
        return "a fourth channel is transparency: put the pictures on a background first"
    ways = {
        "float": "numbers in [0, 1] become pixels with (255 * x).round().astype('uint8')",
        "uint16": "16 bits become 8 with (x / 257).round().astype('uint8')",
        "int": "whole numbers from 0 to 255 become pixels with x.astype('uint8')",
        "uint": "whole numbers from 0 to 255 become pixels with x.astype('uint8')",
    }
    return next((way for start, way in ways.items() if name.startswith(start) and name != "uint8"), "")
