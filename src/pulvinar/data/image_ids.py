"""Which name means which image: the one rule, for files, tables, features, RDMs and predictions alike.

An image is known by its file name, with or without suffix, in Unicode's composed form (NFC). `ids_of` gives the id of each
of a list of names: the file name without folder and suffix; where two images of the list share that, as much of the folder
as tells them apart (`faces/01`, `houses/01`), or else the suffix (`cat.jpg`, `cat.png`). `ImageNames.rows` finds images by
names that others wrote: a folder is compared as far as both names have one, a suffix only where several would fit. What
fits no image, or two, is refused.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError, NotFoundError

SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm"),
        *(".pnm", ".jp2", ".tga", ".avif", ".heic", ".svg", ".eps", ".mp4"),
    )
)
SAME_SUFFIX = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
N_SHOWN = 3


@dataclass(frozen=True)
class _Parts:
    """A name taken apart: folders from the outermost, file name without suffix, suffix as written ('' for none)."""

    folders: tuple[str, ...]
    stem: str
    suffix: str

    @property
    def kind(self) -> str:
        """The suffix as it is compared."""
        return SAME_SUFFIX.get(self.suffix.lower(), self.suffix.lower())

    def fits(self, other: "_Parts") -> bool:
        """Whether both can name one image; suffixes are not looked at."""
        shared = min(len(self.folders), len(other.folders))
        return self.stem == other.stem and (not shared or self.folders[-shared:] == other.folders[-shared:])

    def is_image(self, other: "_Parts") -> bool:
        """Whether both name one image: they fit, and no two suffixes contradict each other."""
        return self.fits(other) and (not self.kind or not other.kind or self.kind == other.kind)

    def text(self, depth: int, suffix: bool) -> str:
        """The name with its last `depth` folders, with or without suffix."""
        kept = self.folders[len(self.folders) - depth :] if depth else ()
        return "/".join([*kept, self.stem + (self.suffix if suffix else "")])


def _parts(name: str) -> _Parts:
    text = unicodedata.normalize("NFC", str(name)).strip().replace("\\", "/")
    *folders, last = [part for part in text.split("/") if part not in ("", ".", "..")] or [""]
    stem, dot, end = last.rpartition(".")
    if not (stem and dot + end.lower() in SUFFIXES):
        stem, suffix = last, ""
    else:
        suffix = dot + end
    return _Parts(tuple(folders), stem, suffix)


def ids_of(names: Sequence[str], *, origin: str) -> list[str]:
    """The id of each image of a list; `InputError` (naming `origin`) where two of the names are one image."""
    parts = [_parts(name) for name in names]
    groups: dict[str, list[int]] = defaultdict(list)
    for row, one in enumerate(parts):
        if not one.stem:
            raise InputError(f"{origin}: '{names[row]}' names no image")
        groups[one.stem].append(row)
    ids = [""] * len(names)
    for rows in groups.values():
        for row, name in zip(
            rows, _told_apart([parts[row] for row in rows], [names[row] for row in rows], origin), strict=True
        ):
            ids[row] = name
    _refuse_lookalikes(ids, origin, _without_invisible)
    return ids


def _told_apart(parts: Sequence[_Parts], names: Sequence[str], origin: str) -> list[str]:
    """The shortest names that differ, of images that share a stem."""
    deepest = max(len(one.folders) for one in parts)
    for suffix in (False, True):
        for depth in range(deepest + 1):
            found = [one.text(min(depth, len(one.folders)), suffix) for one in parts]
            if len(set(found)) == len(found):
                return found
    whole = [one.text(len(one.folders), True) for one in parts]
    twice = [name for name, key in zip(names, whole, strict=True) if whole.count(key) > 1]
    n_images = sum(whole.count(key) > 1 for key in set(whole))
    raise InputError(f"{origin}: ids stand twice ({n_images} of one name): {_shown(twice)}")


def ids_of_mentions(names: Iterable[str], *, origin: str) -> dict[str, str]:
    """Name as written -> id, for names that may mention an image several times and in several ways.

    `01.png`, `01` and `faces/01` are one image; with `houses/01` beside them `01` could be either, which is refused. So are
    ids that differ only in case, leading zeros or signs that are not seen: without a list of images nobody can tell.
    """
    written = {name: _parts(name) for name in dict.fromkeys(names)}
    for name, one in written.items():
        if not one.stem:
            raise InputError(f"{origin}: '{name}' names no image")
    images: dict[str, list[_Parts]] = defaultdict(list)
    image_of: dict[str, tuple[str, int]] = {}
    for name, one in sorted(written.items(), key=lambda item: (-len(item[1].folders), not item[1].suffix, item[0])):
        fitting = [place for place, other in enumerate(images[one.stem]) if one.is_image(other)]
        if len(fitting) > 1:
            candidates = [images[one.stem][place].text(len(images[one.stem][place].folders), True) for place in fitting]
            raise InputError(f"{origin}: '{name}' could be each of {_shown(candidates)}; write it with folder and suffix")
        if not fitting:
            images[one.stem].append(one)
            fitting = [len(images[one.stem]) - 1]
        else:
            known = images[one.stem][fitting[0]]
            images[one.stem][fitting[0]] = _Parts(known.folders, known.stem, known.suffix or one.suffix)
        image_of[name] = (one.stem, fitting[0])
    places = [(stem, place) for stem, known in images.items() for place in range(len(known))]
    whole = [images[stem][place].text(len(images[stem][place].folders), True) for stem, place in places]
    id_of = dict(zip(places, ids_of(whole, origin=origin), strict=True))
    _refuse_lookalikes(list(id_of.values()), origin, _skeleton)
    return {name: id_of[image_of[name]] for name in written}


@dataclass(frozen=True, eq=False)
class ImageNames:
    """A list of different images by name. names: as written (paths, with suffix if there is one). origin: where they stand."""

    names: Sequence[str]
    origin: str
    ids: Sequence[str] = field(init=False)
    _by_stem: Mapping[str, Sequence[tuple[int, _Parts]]] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ids", ids_of(self.names, origin=self.origin))
        by_stem: dict[str, list[tuple[int, _Parts]]] = defaultdict(list)
        for row, name in enumerate(self.names):
            one = _parts(name)
            by_stem[one.stem].append((row, one))
        object.__setattr__(self, "_by_stem", dict(by_stem))

    def __len__(self) -> int:
        return len(self.names)

    def rows(self, wanted: Sequence[str], *, origin: str, what: str = "stimulus ids", different: bool = False) -> np.ndarray:
        """Row of each wanted name: int64 (wanted,). different: no two of the wanted names are spellings of one image.

        Raises `NotFoundError` with the first three that are not there (and what they may have meant), `InputError` for a name
        that fits several images, and for two names that are no spelling of each other (or `different`) and fit one image.
        """
        found = {name: self._find(name, origin) for name in dict.fromkeys(wanted)}
        missing = [name for name, row in found.items() if row is None]
        if missing:
            raise NotFoundError(
                f"{origin}: {len(missing)} {what} are not among the {len(self)} of {self.origin}, e.g. {_shown(missing)}"
                f"{self._hint(missing)}; there are {_shown(self.ids)}{', ...' if len(self) > N_SHOWN else ''}"
            )
        self._refuse_two_for_one(found, origin, different)
        return np.array([found[name] for name in wanted], dtype=np.int64)

    def has(self, name: str) -> bool:
        """Whether this names one of the images."""
        return self._find(name, self.origin) is not None

    def order_of(self, wanted: "ImageNames", what: str = "stimulus ids") -> np.ndarray:
        """Rows that put these images into the order of the wanted ones, each of which must be there once."""
        return self.rows(list(wanted.names), origin=wanted.origin, what=what, different=True)

    def _find(self, name: str, origin: str) -> int | None:
        one = _parts(name)
        fitting = [(row, other) for row, other in self._by_stem.get(one.stem, ()) if one.fits(other)]
        if len(fitting) > 1 and one.kind:
            fitting = [(row, other) for row, other in fitting if other.kind == one.kind] or fitting
        if len(fitting) > 1:
            fitting = [(row, other) for row, other in fitting if other.folders == one.folders] or fitting
        if len(fitting) > 1:
            candidates = [self.names[row] for row, _ in fitting]
            raise InputError(f"{origin}: '{name}' could be each of {_shown(candidates)} of {self.origin}")
        return fitting[0][0] if fitting else None

    def _refuse_two_for_one(self, found: Mapping[str, int | None], origin: str, different: bool) -> None:
        names_of: dict[int | None, list[str]] = defaultdict(list)
        for name, row in found.items():
            for other in names_of[row]:
                if different or not _parts(name).is_image(_parts(other)):
                    raise InputError(
                        f"{origin}: '{other}' and '{name}' are two images, but {self.origin} has one for both, "
                        f"'{self.names[row or 0]}'"
                    )
            names_of[row].append(name)

    def _hint(self, missing: Sequence[str]) -> str:
        """What the first missing name may have meant, and in what it differs, where that is not easily seen."""
        known = {_skeleton(name): name for name in self.ids}
        for name in missing:
            one = _parts(name)
            near = known.get(_skeleton(one.stem))
            if near is not None:
                return f" ('{name}' and '{near}' {_difference(one.stem, _parts(near).stem)})"
        return ""


def row_order(images: ImageNames, *, rows_of: str) -> str:
    """What to say of rows without names that are taken in the order of the sorted images of a folder (their ids).

    Raises `InputError` where sorting the files by name, or by path, gives another order: `cat-2.png` comes before `cat.png`
    as a file name and after it as an id. Where only a sort by numbers (img2 before img10) or without regard to case would
    give another one, the text says so.
    """
    names, parts = images.names, [_parts(name) for name in images.names]
    by_file: dict[str, Sequence[Any]] = {
        "by file name": [(*one.folders, one.stem + one.suffix) for one in parts],
        "by path": [one.text(len(one.folders), True) for one in parts],
        "by file name alone": [(one.stem + one.suffix, one.folders) for one in parts],
    }
    by_reading: dict[str, Sequence[Any]] = {
        "by the numbers in them": [_natural(one.text(len(one.folders), False)) for one in parts],
        "without regard to case": [one.text(len(one.folders), True).casefold() for one in parts],
    }
    usual = _sorted_rows(images.ids)
    for what, keys in by_file.items():
        place = _first_difference(usual, _sorted_rows(keys))
        if place is not None:
            raise InputError(
                f"{rows_of}: its rows have no names, and the images of {images.origin} have no single order: row {place} is "
                f"'{names[usual[place]]}' when they are sorted by name without suffix, "
                f"'{names[_sorted_rows(keys)[place]]}' {what}. Say which row is which: store the names beside the numbers "
                "(.npz with an array 'id', or a .csv of the same name with a column 'id'), or list the images in the order of "
                "the rows in stimuli.table"
            )
    for what, keys in by_reading.items():
        place = _first_difference(usual, _sorted_rows(keys))
        if place is not None:
            return (
                f"the sorted image names (as text: row {place} is '{images.ids[usual[place]]}', which sorted {what} would be "
                f"'{images.ids[_sorted_rows(keys)[place]]}')"
            )
    return "the sorted image names"


def _sorted_rows(keys: Sequence[Any]) -> list[int]:
    return sorted(range(len(keys)), key=keys.__getitem__)


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int | None:
    return next((place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1]), None)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """A key that sorts numbers inside names as numbers."""
    pieces = re.split(r"(\d+)", text)
    return [(1, int(piece), "") if piece.isdecimal() else (0, 0, piece) for piece in pieces if piece]


def _shown(names: Sequence[str]) -> str:
    """The first three, so that signs which are not seen, and forms of letters, are written out where they are unusual."""
    return "[" + ", ".join(_visible(name) for name in list(names)[:N_SHOWN]) + "]"


def _visible(name: str) -> str:
    odd = any(unicodedata.category(sign) in ("Cf", "Cc", "Zs", "Mn") and sign != " " for sign in name) or name != name.strip()
    return ascii(name) if odd else repr(str(name))


def _without_invisible(name: str) -> str:
    """Without signs that are not seen, blanks all alike, letters in their compatible form."""
    text = "".join(sign for sign in unicodedata.normalize("NFKC", name) if unicodedata.category(sign) not in ("Cf", "Cc"))
    return " ".join(text.split())


def _skeleton(name: str) -> str:
    """What is left of a name where case, leading zeros, a decimal .0 and what is not seen do not count."""
    text = _without_invisible(name).casefold()
    text = re.sub(r"^(\d+)\.0+$", r"\1", text)
    return re.sub(r"(?<!\d)0+(?=\d)", "", text)


def _difference(one: str, other: str) -> str:
    if _without_invisible(one) == _without_invisible(other):
        return f"differ in signs that are not seen: {one!a} and {other!a}"
    if one.casefold() == other.casefold():
        return "differ in upper and lower case"
    return "differ in leading zeros or a decimal point; a spreadsheet drops them unless the column is text"


def _refuse_lookalikes(ids: Sequence[str], origin: str, key_of: Callable[[str], str]) -> None:
    seen: dict[str, str] = {}
    for name in ids:
        other = seen.setdefault(key_of(name), name)
        if other != name:
            raise InputError(f"{origin}: are '{other}' and '{name}' one image? They {_difference(other, name)}")
