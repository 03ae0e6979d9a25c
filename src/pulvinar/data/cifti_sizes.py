"""What a CIFTI file states about its matrix, before nibabel believes it."""

import gzip
import math
import struct
from pathlib import Path
from xml.etree import ElementTree

from pulvinar.core.errors import FileError
from pulvinar.core.limits import require_plausible

HEADER, EXTENSION = 540, 32  # bytes of a NIfTI-2 header; the code of CIFTI's extension (CIFTI-2, section 3)
DIMS, OFFSET, INTENT = 16, 168, 504  # where a NIfTI-2 header has them
INTENTS = range(3000, 3100)
FIRST = 5  # of the dims, that the matrix has
LARGEST_NUMBER = 8  # bytes


def require_plausible_cifti(path: Path) -> None:
    """Raise `FileError` where the XML of a CIFTI file counts more than its matrix has; nothing for other files.

    To be called where errors name the file: the XML itself may be damaged.
    """
    for sides, content in _extensions(path):
        for element in ElementTree.fromstring(content.rstrip(b"\0")).iter():  # expat refuses entities that unfold without end
            _check(path, element, sides)


def _extensions(path: Path) -> list[tuple[list[int], bytes]]:
    """Sides of the matrix, and the XML, of a NIfTI-2 file that says that it is CIFTI; none of others."""
    with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
        start = file.read(HEADER + 4)
        order = next((order for order in "<>" if start[:4] == struct.pack(f"{order}i", HEADER)), None)
        if order is None or len(start) < HEADER + 4 or struct.unpack_from(f"{order}i", start, INTENT)[0] not in INTENTS:
            return []
        n_dims, *dims = struct.unpack_from(f"{order}8q", start, DIMS)
        room = struct.unpack_from(f"{order}q", start, OFFSET)[0] - len(start)
        require_plausible(path, room, what="what stands before its values")
        content = file.read(max(room, 0))
    sides, found, place = list(dims[FIRST - 1 : max(n_dims, FIRST)]), [], 0
    while place + 8 <= len(content):
        size, code = struct.unpack_from(f"{order}2i", content, place)
        if size < 8:
            break
        if code == EXTENSION:
            found.append((sides, content[place + 8 : place + size]))
        place += size
    return found


def _check(path: Path, element: ElementTree.Element, sides: list[int]) -> None:
    given = element.attrib
    if element.tag == "MatrixIndicesMap":
        axes = [int(axis) for axis in given["AppliesToMatrixDimension"].split(",")]
        if not all(0 <= axis < len(sides) for axis in axes):
            raise FileError(f"{path}: describes the axes {axes} of a matrix of {len(sides)}")
    elif element.tag == "BrainModel":
        first, count = int(given["IndexOffset"]), int(given["IndexCount"])
        if min(first, count) < 0 or first + count > max(sides, default=0):
            raise FileError(f"{path}: {count} places from {first} on are described, of a matrix with the sides {sides}")
        require_plausible(path, int(given.get("SurfaceNumberOfVertices", 0)) * LARGEST_NUMBER, what="a mesh of it")
    elif element.tag == "Surface":
        require_plausible(path, int(given["SurfaceNumberOfVertices"]) * LARGEST_NUMBER, what="a mesh of it")
    elif element.tag == "Volume":
        grid = [int(side) for side in given["VolumeDimensions"].split(",")]
        if len(grid) != 3 or min(grid) < 0:
            raise FileError(f"{path}: a volume of shape {grid}")
        require_plausible(path, math.prod(grid), what="the grid of its volume")
