"""What a GIFTI file states about its arrays, before nibabel believes it."""

import base64
import math
import zlib
from pathlib import Path
from xml.etree import ElementTree

from pulvinar.core.errors import FileError
from pulvinar.core.limits import require_plausible

LARGEST_DIMENSIONALITY = 6  # of the format (GIFTI 1.0, section 2.3.4.3)
LARGEST_NUMBER = 8  # bytes
STEP = 2**20


def require_plausible_gifti(path: Path) -> None:
    """Raise `FileError` where an array states more than the file holds, lies in another file, or its axes make no sense.

    To be called where errors name the file: the XML itself may be damaged.
    """
    for _, element in ElementTree.iterparse(path):  # expat itself refuses entities that unfold without end
        if element.tag == "DataArray":
            _check(path, element)
            element.clear()


def _check(path: Path, element: ElementTree.Element) -> None:
    given = element.attrib
    n_axes = int(given["Dimensionality"])
    if not 1 <= n_axes <= LARGEST_DIMENSIONALITY:
        raise FileError(f"{path}: an array of {n_axes} axes; 1 to {LARGEST_DIMENSIONALITY} are needed")
    sides = [int(given[f"Dim{axis}"]) for axis in range(n_axes)]
    if min(sides) < 0:
        raise FileError(f"{path}: an array of shape {sides}")
    n_bytes = math.prod(sides) * LARGEST_NUMBER
    require_plausible(path, n_bytes)
    if given.get("Encoding") == "ExternalFileBinary":
        raise FileError(f"{path}: its values lie in another file, {given.get('ExternalFileName')!r}; save them inside")
    if given.get("Encoding") == "GZipBase64Binary":
        _refuse_longer(path, element.findtext("Data") or "", n_bytes)


def _refuse_longer(path: Path, text: str, n_bytes: int) -> None:
    """What is packed must not be longer than the shape says, in numbers of eight bytes."""
    unpacking, rest, found = zlib.decompressobj(), base64.b64decode(text), 0
    while rest and not unpacking.eof:
        found += len(unpacking.decompress(rest, STEP))
        rest = unpacking.unconsumed_tail
        if found > n_bytes:
            raise FileError(f"{path}: an array holds more than the {n_bytes} bytes that its shape has room for")
