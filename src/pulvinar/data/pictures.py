"""One file of a picture as pixels, and which files of a folder are pictures. Every route that reads pictures comes here.

What is done on the way is said (`Picture.notes`): turning upright, a background under transparent pixels, 16 bits to 8. What
cannot be known is refused: several frames, values without a range, a drawing that its background swallows.
"""

import io
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.errors import FileError, InputError
from pulvinar.core.limits import require_plausible
from pulvinar.core.progress import log, warn
from pulvinar.core.storage import reading, reads, require_file
from pulvinar.data.pixels import from_16_bits, from_unit_range

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (
    ".png",
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".bmp",
    ".gif",
    ".tif",
    ".tiff",
    ".webp",
    ".ppm",
    ".pgm",
    ".pbm",
    ".pnm",
    ".avif",
)
FORMATS = ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "AVIF")  # Pillow's names; the content decides
SYSTEM_NAMES = (
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "icon\r",
    "__macosx",
    "@eadir",
    "thumbnails",
    "lost+found",
    "__pycache__",
)
OF_THE_SYSTEM = "hidden files, thumbnails and folders of the system"
COLOURS = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "gray": (128, 128, 128)}
REFUSE = "refuse"
BYTES_PER_PIXEL = 4
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
ORIENTATION = 0x0112  # the EXIF tag
BITS, PHOTOMETRIC, PLANAR, COLOUR_MAP, SAMPLE_FORMAT = 258, 262, 284, 320, 339  # tags of TIFF
STEP_OF_GREY = {"L;2": 85, "L;4": 17}  # grey of 2 and 4 bits -> what 8 bits have for a step of it
SRGB = re.compile(r"srgb|^c2|^urgb|61966", re.IGNORECASE)  # names that profiles of sRGB go by
PLAIN_GAMMA = 1 / 2.2
TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {  # orientation -> the picture upright, from (height, width, channel)
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    8: np.rot90,
}
# Of 16-bit colours Pillow takes the high byte. Read in the other order of bytes it takes the low one; both are all 16 bits.
OTHER_BYTE = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}


def _colour(name: str) -> tuple[int, ...] | None:
    """Red, green and blue; None where no background is wanted."""
    if re.fullmatch(r"#[0-9a-fA-F]{6}", name):
        return tuple(bytes.fromhex(name[1:]))
    if name not in (*COLOURS, REFUSE):
        raise InputError(f"{', '.join(COLOURS)}, #rrggbb or {REFUSE} is needed, '{name}' came")
    return COLOURS.get(name)


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """How files of pictures are read; behind a folder as ?name=value&name=value."""

    background: str = setting("white", "under transparent pixels: white, black, grey (128), #rrggbb; or refuse", reads=_colour)
    white: int | None = setting(
        None, "value of white in pictures of 16 bits a colour; none: 65535. (12 bits in 16: 4095)", at_least=1, at_most=65535
    )


@dataclass(frozen=True)
class Picture:
    """Pixels uint8 (height, width, 3), Pillow's mode of the file, and what was done to get them, each in a few words."""

    pixels: np.ndarray
    mode: str
    notes: tuple[str, ...] = ()


@reads("an image")
def decode(path: str | os.PathLike[str], options: PictureOptions | None = None) -> Picture:
    """The picture of a file, upright, in red, green and blue.

    Grey becomes three equal channels, a palette its colours, CMYK what Pillow makes of it without a colour profile; transparent
    pixels are put on the background; 16 bits a colour are scaled to 8; one channel of floating numbers must lie in [0, 1].

    Raises `FileError` if the file is missing, truncated or no picture; `InputError` where what it shows cannot be told: several
    frames or pages, whole numbers of unknown range, transparency where `background` is 'refuse', and a drawing that vanishes
    on its background.
    """
    options = options or PictureOptions()
    path = require_file(path, "image")
    notes: list[str] = []
    with reading(path, "an image"), _opened(path) as image:
        require_plausible(path, image.width * image.height * BYTES_PER_PIXEL)
        frames = getattr(image, "n_frames", 1)
        if image.format == "MPO":
            notes.append("the first of several pictures in one .jpg")
        elif frames > 1:
            raise InputError(f"{path}: {frames} frames or pages; which one was seen? Save that one as a picture of its own")
        notes += _colour_notes(image)
        mode, raw = image.mode, _raw_mode(image)
        if image.format == "TIFF":
            _refuse_misread_tiff(image, path)
        orientation = image.getexif().get(ORIENTATION, 1)
        colours, alpha = _channels(image, raw, path, options, notes)
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))  # some formats have turned it by themselves in reading
    if orientation in TURNS:
        notes.append("turned upright, as EXIF says")
    if alpha is not None and alpha.min() < 1:
        colours = _on_background(colours, alpha, path, options)
        notes.append(f"transparent pixels put on {options.background}")
    return Picture(np.ascontiguousarray(colours if turn is None else turn(colours)), mode, tuple(notes))


def _opened(path: Path) -> "Image":
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(whole_image(path), formats=_formats())
    except UnidentifiedImageError as error:
        raise ValueError(f"its content is none of {', '.join(_formats())} in a form that is read") from error


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of a picture in pixels; its pixels are not decoded. `ValueError` where it is none that is read."""
    with _opened(path) as image:
        return image.height, image.width


def whole_image(path: Path) -> io.BytesIO:
    """The bytes of an image file; those of a PNG compared with the checksum that each of its chunks carries.

    Pillow leaves most of them out. `ValueError` where one does not fit; to be called where errors name the file.
    """
    content = path.read_bytes()
    if content.startswith(PNG_SIGNATURE):
        _check_png(content)
    return io.BytesIO(content)


def _check_png(content: bytes) -> None:
    """Chunks follow each other: length (4 bytes), name (4), content, CRC-32 of name and content (4); the last is IEND."""
    start, name = len(PNG_SIGNATURE), b""
    while name != b"IEND":
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        name = content[start + 4 : start + 8]
        if end + 4 > len(content):
            raise ValueError("a PNG that is cut short")
        if zlib.crc32(content[start + 4 : end]) != int.from_bytes(content[end : end + 4], "big"):
            raise ValueError(f"a damaged PNG: the checksum of its chunk {name!r} does not fit")
        start = end + 4


@cache
def _formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _channels(
    image: "Image", raw: str, path: Path, options: PictureOptions, notes: list[str]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Colours uint8 (height, width, 3), and alpha (height, width) in [0, 1] or None; as stored, not turned."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM") or re.search(r"[A-Za-z];16[BLN]$", raw):
        notes.append("16 bits a colour scaled to 8")
        return _from_16_bits(image, raw, path, options)
    if image.mode == "F":
        notes.append("floating numbers from 0 (black) to 1 (white)")
        return _three(from_unit_range(np.asarray(image), str(path))), None
    if image.mode == "I":
        raise InputError(
            f"{path}: whole numbers of 32 bits (or signed) have no known white; 8 or 16 bits a colour are read, and floating "
            "numbers from 0 to 1"
        )
    if not image.has_transparency_data:
        return np.asarray(image.convert("RGB")), None
    _widen_transparent_grey(image, raw)
    values = np.asarray(image.convert("RGBA"))
    return values[..., :3], values[..., 3] / np.float32(255)


def _widen_transparent_grey(image: "Image", raw: str) -> None:
    """The transparent grey of a PNG of 2 or 4 bits on the scale of 8, to which Pillow widens the pixels but not it."""
    key, step = image.info.get("transparency"), STEP_OF_GREY.get(raw)
    if step is not None and isinstance(key, int) and key <= 255 // step:
        image.info["transparency"] = key * step


def _refuse_misread_tiff(image: "Image", path: Path) -> None:
    """`InputError` for what a TIFF may hold and Pillow reads as other numbers, without a word."""
    tags: Any = image.tag_v2  # type: ignore[attr-defined]
    many, colours = max(tags.get(BITS, (1,))) > 8, tags.get(COLOUR_MAP, ())
    found = {
        "more than 8 bits a colour with black and white exchanged (WhiteIsZero)": many and tags.get(PHOTOMETRIC) == 0,
        "more than 8 bits a colour in a plane for each": many and tags.get(PLANAR) == 2,
        "whole numbers with a sign": not image.mode.startswith("I") and 2 in tags.get(SAMPLE_FORMAT, (1,)),
        "a palette of 8 bits a colour where TIFF has 16": 0 < max(colours, default=0) < 256,
    }
    for what in (what for what, is_so in found.items() if is_so):
        raise InputError(f"{path}: TIFF with {what} is not read; save it as PNG, or as TIFF of 8 or 16 bits, black at 0")


def _colour_notes(image: "Image") -> list[str]:
    """What of the file's colours is taken otherwise than it says."""
    if image.mode == "CMYK":
        return ["CMYK taken as red, green and blue without a colour profile"]
    if image.mode == "LAB":
        return ["L*a*b* turned into red, green and blue"]
    profile, gamma = image.info.get("icc_profile"), image.info.get("gamma", PLAIN_GAMMA)
    if profile:
        name = _profile_name(profile)
        return [] if SRGB.search(name) else [f"colours taken as they stand, without the colour profile '{name}'"]
    is_plain = "srgb" in image.info or abs(gamma - PLAIN_GAMMA) < 0.02
    return [] if is_plain else [f"colours taken as they stand, without the file's gamma of {gamma:.3g}"]


def _profile_name(profile: bytes) -> str:
    try:
        from PIL import ImageCms

        return ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile))).strip() or "without a name"
    except (ImportError, OSError, ImageCms.PyCMSError):  # a Pillow without littleCMS, or no profile
        return "that cannot be read"


def _raw_mode(image: "Image") -> str:
    """How the bytes of a file that is not read yet are packed, in Pillow's words; empty where it does not say."""
    tiles: Any = getattr(image, "tile", None)
    packing = tiles[0].args if tiles else ""
    packing = packing[0] if isinstance(packing, tuple) and packing else packing
    return packing if isinstance(packing, str) else ""


def _from_16_bits(image: "Image", raw: str, path: Path, options: PictureOptions) -> tuple[np.ndarray, np.ndarray | None]:
    transparent = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.uint16)[..., None]
    elif raw in OTHER_BYTE:
        high = np.asarray(image)
        with _opened(path) as again:
            again.tile = [part._replace(args=_repacked(part.args)) for part in again.tile]  # type: ignore[attr-defined]
            values = high.astype(np.uint16) * 256 + np.asarray(again)
    else:
        raise InputError(f"{path}: 16 bits a colour packed as '{raw}' are not read; save it with 8 bits, or as RGB or RGBA")
    alpha = None
    if values.shape[-1] == 4:
        values, alpha = values[..., :3], values[..., 3] / np.float32(65535)
    elif transparent is not None:
        alpha = 1 - (values == np.asarray(transparent, np.uint16)).all(-1).astype(np.float32)
    return _three(from_16_bits(values, str(path), white=options.white)), alpha


def _repacked(args: str | tuple) -> str | tuple:
    return OTHER_BYTE[args] if isinstance(args, str) else (OTHER_BYTE[args[0]], *args[1:])


def _three(values: np.ndarray) -> np.ndarray:
    """(height, width), or with 1 or 3 channels, as (height, width, 3)."""
    values = values[..., None] if values.ndim == 2 else values
    return np.repeat(values, 3, axis=2) if values.shape[-1] == 1 else values


def _on_background(colours: np.ndarray, alpha: np.ndarray, path: Path, options: PictureOptions) -> np.ndarray:
    """alpha c + (1 - alpha) background, rounded."""
    background = _colour(options.background)
    if background is None:
        raise InputError(
            f"{path}: has transparent pixels; put it on the background it was shown on, or name that (background=white)"
        )
    share = alpha[..., None]
    mixed = np.rint(colours * share + np.array(background, np.float32) * (1 - share)).astype(np.uint8)
    if (mixed == mixed[0, 0]).all() and (alpha.max() == 0 or alpha.min() < alpha.max()):
        what = "all of it is transparent" if alpha.max() == 0 else f"on {options.background} its drawing vanishes"
        raise InputError(f"{path}: {what}; give the background that it was shown on (background=black, grey or #rrggbb)")
    return mixed


class Notes:
    """What was done to the pictures of a folder: note -> the files, once each."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, None]] = {}

    def add(self, path: Path, notes: Iterable[str]) -> list[str]:
        """The notes that are the first of their kind."""
        new = [note for note in notes if note not in self.files]
        for note in notes:
            self.files.setdefault(note, {})[str(path)] = None
        return new

    def lines(self, total: int) -> list[str]:
        """'3 of 10 pictures: turned upright, as EXIF says (e.g. a.jpg)', a line for every note."""
        return [
            f"{len(files)} of {total} pictures: {note} (e.g. {Path(next(iter(files))).name})"
            for note, files in self.files.items()
        ]


@dataclass(frozen=True, kw_only=True)
class FolderContent:
    """What is in a folder, by name: files of pictures, folders, and what counts as neither."""

    folder: Path
    pictures: Sequence[Path]
    folders: Sequence[Path]
    system: Sequence[Path]
    others: Sequence[Path]

    def without_folders(self) -> "FolderContent":
        """The same where folders inside are not read."""
        return replace(self, folders=(), others=sorted([*self.others, *self.folders]))

    def left_out(self) -> list[str]:
        """What is not read, in a line for each kind; none where there is nothing."""
        kinds = ((OF_THE_SYSTEM, self.system), ("files that are no pictures, or folders", self.others))
        return [f"left out of {self.folder}: {len(paths)} {what}: {_first(paths)}" for what, paths in kinds if paths]


def find_pictures(folder: Path) -> tuple[list[Path], list[str]]:
    """All pictures in a folder and the folders in it, sorted, and lines of what is left out."""
    content = look_into(folder)
    found, left_out = list(content.pictures), content.left_out()
    for inner in content.folders:
        more, lines = find_pictures(inner)
        found, left_out = found + more, left_out + lines
    return sorted(found), left_out


def say_left_out(lines: Iterable[str]) -> None:
    """Lines of `FolderContent.left_out`: a warning where pictures may be missing, else for the reader's information."""
    for line in lines:
        (log if OF_THE_SYSTEM in line else warn)(line)


def look_into(folder: Path) -> FolderContent:
    """The content of a folder, sorted by name; `FileError` where there is no such folder."""
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of images")
    inside = sorted(folder.iterdir())
    system = [path for path in inside if path.name.startswith(".") or path.name.lower() in SYSTEM_NAMES]
    rest = [path for path in inside if path not in set(system)]
    folders = [path for path in rest if path.is_dir()]
    pictures = [path for path in rest if path.suffix.lower() in SUFFIXES and path.is_file()]
    others = [path for path in rest if path not in {*folders, *pictures}]
    return FolderContent(folder=folder, pictures=pictures, folders=folders, system=system, others=others)


def _first(paths: Sequence[Path], n: int = 5) -> str:
    return ", ".join(path.name for path in paths[:n]) + (", …" if len(paths) > n else "")
