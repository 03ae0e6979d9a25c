"""RDM files of rsatoolbox (`RDMs.save(..., file_type='hdf5')`), read and written without rsatoolbox.

Layout of version 0.3: dataset `dissimilarities` (rdm, pair), groups `descriptors`, `rdm_descriptors`, `pattern_descriptors`
(one dataset per name, text as bytes; single texts as attributes), `dissimilarity_measure` as an attribute or empty dataset.
Its other form, a pickle, is never opened.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.hdf5 import create_hdf5, open_hdf5, read_hdf5_array
from pulvinar.core.storage import atomic_path, reading, reads, refuse_existing, require_file
from pulvinar.data.array_files import only_names
from pulvinar.data.dissimilarities import check_rdm, from_condensed
from pulvinar.scores.rdm import count_images

SUFFIXES = (".h5", ".hdf5")
PICKLES = (".pkl", ".pickle")
DISSIMILARITIES, MEASURE = "dissimilarities", "dissimilarity_measure"
INDEX = "index"  # rsatoolbox adds it to every file: 0, 1, 2, ...
NAMING_DESCRIPTORS = (  # pattern descriptors that name the images, the first that is there
    *("conds", "cond", "conditions", "condition", "stimulus", "stimuli", "stim", "stims", "image", "images"),
    *("id", "ids", "name", "names", "object", "objects", "item", "items", "label", "labels"),
)
GROUPS = ("descriptors", "rdm_descriptors", "pattern_descriptors")

PICKLE_REFUSED = """{path}: a pickle, which is never opened here: unpickling a file can run any code.
Re-save a file that you trust:
    rsatoolbox.rdm.load_rdm({path_text!r}, file_type='pkl').save({hdf5_text!r}, file_type='hdf5')"""


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredRDMs:
    """What an RDM file of rsatoolbox holds.

    dissimilarities: (rdm, pair). measure: e.g. "correlation". descriptors: of the whole. rdm_descriptors: name -> one value per
    RDM. pattern_descriptors: name -> one value per image (condition).
    """

    dissimilarities: np.ndarray
    measure: str | None = None
    descriptors: Mapping[str, Any] = field(default_factory=dict)
    rdm_descriptors: Mapping[str, np.ndarray] = field(default_factory=dict)
    pattern_descriptors: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.dissimilarities.ndim != 2 or self.dissimilarities.dtype.kind not in "iuf":
            came = f"{self.dissimilarities.shape} {self.dissimilarities.dtype}"
            raise InputError(f"dissimilarities: numbers (rdm, pair) are needed, {came} came")
        lengths = {"rdm_descriptors": len(self.dissimilarities), "pattern_descriptors": self.n_images}
        for kind, length in lengths.items():
            for name, values in getattr(self, kind).items():
                if len(values) != length:
                    raise InputError(f"{kind}['{name}']: {len(values)} values, {length} are needed")

    @property
    def n_images(self) -> int:
        """How many images (conditions) the RDMs are over."""
        return count_images(self.dissimilarities.shape[-1])

    def matrices(self) -> np.ndarray:
        """(rdm, image, image), symmetric with a zero diagonal."""
        return from_condensed(self.dissimilarities)


def pattern_names(rdms: StoredRDMs) -> list[str] | None:
    """Names of the images: the pattern descriptor of a usual name, or the only text one that tells all images apart.

    None if there is none. Raises `InputError` where only `index` is there and says that the images were put into another
    order (it counts 0, 1, 2, ... otherwise), and where several could be meant.
    """
    texts = {name: [_text(value) for value in np.asarray(values)] for name, values in rdms.pattern_descriptors.items()}
    texts = {name: values for name, values in texts.items() if len(set(values)) == rdms.n_images}
    for name in NAMING_DESCRIPTORS:
        if name in texts:
            return texts[name]
    key = only_names(texts, "pattern_descriptors", NAMING_DESCRIPTORS[0])
    if key is not None:
        return texts[key]
    index = texts.get(INDEX)
    if index is not None and index != [str(number) for number in range(rdms.n_images)]:
        raise InputError(
            f"pattern_descriptors: the images were put into another order (index {', '.join(index[:3])}, ...) and have no "
            "names; add a descriptor 'conds' that names them"
        )
    return None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(int(value)) if isinstance(value, float | np.floating) and float(value).is_integer() else str(value)


def from_matrices(rdms: np.ndarray, **others: Any) -> StoredRDMs:
    """Condense (rdm, image, image); others: further fields of `StoredRDMs`. `InputError` names an RDM that is not one."""
    for row, rdm in enumerate(rdms):
        check_rdm(rdm, f"RDM {row}")
    first, second = np.triu_indices(rdms.shape[-1], 1)
    return StoredRDMs(dissimilarities=np.ascontiguousarray(rdms[:, first, second]), **others)


@reads("an RDM file of rsatoolbox")
def read_rdm_file(path: str | os.PathLike[str]) -> StoredRDMs:
    """Read an .h5 or .hdf5 file of rsatoolbox.

    Raises `FileError` for a pickle (with the line that converts it), another suffix, or a damaged file; `NotFoundError` for an
    HDF5 file without `dissimilarities`; `InputError` for contents that do not fit together.
    """
    path = require_file(path)
    with path.open("rb") as file:
        start = file.read(1)
    if path.suffix.lower() in PICKLES or start == b"\x80":
        raise FileError(PICKLE_REFUSED.format(path=path, path_text=str(path), hdf5_text=str(path.with_suffix(".h5"))))
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path}: RDM files of rsatoolbox end in {' or '.join(SUFFIXES)}")
    with open_hdf5(path) as file:
        dissimilarities = read_hdf5_array(file, DISSIMILARITIES)
        with reading(path, "RDM file of rsatoolbox"):
            measure = file.attrs.get(MEASURE)
            groups = [_read_group(file[name]) if name in file else {} for name in GROUPS]
    try:
        return StoredRDMs(
            dissimilarities=dissimilarities,
            measure=None if measure is None else str(measure),
            descriptors=groups[0],
            rdm_descriptors=groups[1],
            pattern_descriptors=groups[2],
        )
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error


def write_rdm_file(path: str | os.PathLike[str], rdms: StoredRDMs) -> Path:
    """Write a file that `rsatoolbox.rdm.load_rdm` reads. `FileError` if the path exists or has another suffix."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path}: RDM files of rsatoolbox end in {' or '.join(SUFFIXES)}")
    refuse_existing(path)
    with atomic_path(path) as temporary, create_hdf5(temporary) as file:
        file[DISSIMILARITIES] = rdms.dissimilarities
        if rdms.measure is None:
            file[MEASURE] = h5py.Empty("f")
        else:
            file.attrs[MEASURE] = rdms.measure
        for name in GROUPS:
            _write_group(file.create_group(name), getattr(rdms, name))
    return path


def _read_group(group: h5py.Group) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name in group:
        node = group[name]
        if not isinstance(node, h5py.Dataset):
            raise InputError(f"'{group.name}/{name}' is a group; plain values are read")
        values[name] = None if node.shape is None else read_hdf5_array(group, name)
    return values | dict(group.attrs.items())


def _write_group(group: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if value is None:
            group[name] = h5py.Empty("f")
        elif isinstance(value, str):
            group.attrs[name] = value
        else:
            array = np.asarray(value)
            if array.dtype.kind in "OU":  # text; rsatoolbox reads ASCII bytes, and hands out other letters as UTF-8 bytes
                text = [str(item) for item in array.ravel()]
                ascii_only = all(item.isascii() for item in text)
                array = np.array(text, dtype="S" if ascii_only else h5py.string_dtype()).reshape(array.shape)
            group[name] = array
