"""Submission files of the Algonauts 2019 challenge: one predicted RDM per target, two targets per track.

    submit_fmri.mat (EVC_RDMs, IT_RDMs), submit_meg.mat (MEG_RDMs_early, MEG_RDMs_late), each (image, image);
    submit_fmri.zip and submit_meg.zip hold these files, as the challenge takes them.

Instead of .mat the challenge's scripts take .npy, which they index by the same names: a structured array does that.
"""

import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError, NotFoundError, PulvinarError
from pulvinar.core.storage import atomic_folder, read_arrays, reading, reads, refuse_existing, require_file, write_bytes
from pulvinar.data.array_files import ID_KEYS
from pulvinar.data.dissimilarities import check_rdm
from pulvinar.data.dissimilarity_files import CONDITION_KEYS, OFFICIAL_NAMES, names_of_images
from pulvinar.data.image_ids import ImageNames
from pulvinar.data.matlab_files import left_out_of_matlab, read_matlab
from pulvinar.scores.rdm_ceiling import TRACKS

OFFICIAL_OF = {target: official for official, target in OFFICIAL_NAMES.items()}
FORMATS = ("mat", "npy")
LARGEST_MEMBER = 2**30  # bytes of one unpacked file of a .zip
ZIP_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a .zip can state: the same RDMs give the same bytes


def submission_files(
    predictions: Mapping[str, np.ndarray], *, n_images: int | None = None, file_format: str = "mat"
) -> dict[str, bytes]:
    """File name -> content of a submission, for every track whose two targets are among the predictions.

    predictions: evc, it, meg_early, meg_late -> (image, image), or the challenge's own names; one track or both.
    file_format: 'mat' (MATLAB version 5) or 'npy' (structured, indexed by the challenge's names).
    Raises `InputError` for an RDM that is not one or over another number of images, and for half a track;
    `NotFoundError` for a name that is no target.
    """
    if file_format not in FORMATS:
        raise InputError(f"format of a submission: one of {', '.join(FORMATS)} fits, '{file_format}' came")
    rdms = check_predictions(predictions, n_images)
    files: dict[str, bytes] = {}
    for track, targets in TRACKS.items():
        present = [target for target in targets if target in rdms]
        if len(present) == 1:
            raise InputError(f"the {track} track needs {' and '.join(targets)}; only {present[0]} came")
        if present:
            content = _encode({OFFICIAL_OF[target]: rdms[target] for target in targets}, file_format)
            name = f"submit_{track}.{file_format}"
            files |= {name: content, f"submit_{track}.zip": _zipped(name, content)}
    return files


def write_submission(
    folder: str | os.PathLike[str],
    predictions: Mapping[str, np.ndarray],
    *,
    n_images: int | None = None,
    file_format: str = "mat",
) -> list[Path]:
    """Write `submission_files` into a new folder, whole or not at all; the paths of the files."""
    refuse_existing(folder)
    files = submission_files(predictions, n_images=n_images, file_format=file_format)
    with atomic_folder(folder) as temporary:
        for name, content in files.items():
            write_bytes(temporary / name, content)
    return [Path(folder) / name for name in files]


def check_predictions(predictions: Mapping[str, np.ndarray], n_images: int | None) -> dict[str, np.ndarray]:
    """Target -> RDM float64, each checked, all over the same (or this) number of images; keys are ours or the challenge's.

    Raises `InputError`, `DegenerateError` naming the RDM, `NotFoundError` for a name that is no target.
    """
    rdms: dict[str, np.ndarray] = {}
    for name, rdm in predictions.items():
        target = OFFICIAL_NAMES.get(name, name)
        if target not in OFFICIAL_OF:
            raise NotFoundError(f"'{name}' is no target of the challenge; there are: {', '.join(OFFICIAL_OF)}")
        if target in rdms:
            raise InputError(f"two predictions came for {target}")
        rdms[target] = np.asarray(rdm, np.float64)
        if rdms[target].ndim != 2:
            raise InputError(f"predicted RDM '{name}': (image, image) is needed, {rdms[target].shape} came")
        check_rdm(rdms[target], f"predicted RDM '{name}'")
    if not rdms:
        raise InputError("a submission needs predicted RDMs, none came")
    for target, rdm in rdms.items():
        expected = n_images or len(next(iter(rdms.values())))
        if len(rdm) != expected:
            raise InputError(f"predicted RDM '{target}' is over {len(rdm)} images, {expected} are needed")
    return rdms


def _encode(rdms: Mapping[str, np.ndarray], file_format: str) -> bytes:
    buffer = io.BytesIO()
    if file_format == "mat":
        import scipy.io

        scipy.io.savemat(buffer, dict(rdms))
        return _without_date(buffer.getvalue())
    n_images = len(next(iter(rdms.values())))
    table = np.empty((n_images, n_images), dtype=[(name, np.float64) for name in rdms])
    for name, rdm in rdms.items():
        table[name] = rdm
    np.save(buffer, table, allow_pickle=False)
    return buffer.getvalue()


def _without_date(content: bytes) -> bytes:
    """The header's free text (116 bytes) without the time of writing, so that the same RDMs give the same bytes."""
    return b"MATLAB 5.0 MAT-file, written by pulvinar".ljust(116) + content[116:]


def _zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(name, ZIP_DATE), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


@reads("a submission")
def read_submission(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Target -> predicted RDM (image, image) of a submission: its folder, a .zip, .mat, .npy or .npz file.

    A file may hold the challenge's names or ours, one target or more. Of a folder, the submit_*.mat, .npy and .npz files are
    read, and its .zip files if it has none of them. Every RDM is checked: raises `FileError`, `InputError`,
    `DegenerateError` naming file and RDM.
    """
    return read_named_submission(path)[0]


@reads("a submission")
def read_named_submission(path: str | os.PathLike[str]) -> tuple[dict[str, np.ndarray], ImageNames | None]:
    """`read_submission`, and the names of the images in its order, where an .npz file holds them; all files must agree."""
    path = Path(path)
    if not path.is_dir():
        return _read_file(require_file(path, "submission"))
    for suffixes in ((".mat", ".npy", ".npz"), (".zip",)):
        files = [file for file in sorted(path.glob("submit_*")) if file.suffix.lower() in suffixes]
        if files:
            return _joined({file: _read_file(file) for file in files})
    raise FileError(f"{path}: no submission in this folder: submit_fmri or submit_meg as .mat, .npy or .zip is needed")


Part = tuple[dict[str, np.ndarray], ImageNames | None]


def _joined(parts: Mapping[Path, Part]) -> Part:
    rdms: dict[str, np.ndarray] = {}
    named = next((names for _, names in parts.values() if names is not None), None)
    for path, (part, names) in parts.items():
        if twice := set(part) & set(rdms):
            raise InputError(f"{path}: {', '.join(sorted(twice))} stand in another file of this submission too")
        if named is not None and names is None:
            raise InputError(f"{path}: holds no names of its images, but {named.origin} does; give them in both, or in neither")
        rdms |= part if names is None or named is None else in_order(part, names, named)
    return rdms, named


def in_order(rdms: Mapping[str, np.ndarray], names: ImageNames, wanted: ImageNames) -> dict[str, np.ndarray]:
    """Predicted RDMs in the order of the wanted images; both must be of the same images (the first three are named)."""
    rows = names.order_of(wanted, what="images")
    wanted.order_of(names, what="images")
    return {target: rdm[rows[:, None], rows] for target, rdm in rdms.items()}


def _read_file(path: Path) -> Part:
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return _read_zip(path)
    readers = {".mat": read_matlab, ".npy": _read_npy, ".npz": read_arrays}
    if suffix not in readers:
        raise FileError(f"{path}: a submission is a folder or a {', '.join([*readers, '.zip'])} file")
    arrays = readers[suffix](path)
    unread = [name for name in (left_out_of_matlab(path) if suffix == ".mat" else ()) if name in (*ID_KEYS, *CONDITION_KEYS)]
    if unread:
        raise InputError(
            f"{path}: '{unread[0]}' names the images, but text of .mat files is not read; save RDMs and names as an .npz, or "
            "leave it out where the rows are in the order of the data"
        )
    found = {name: values for name, values in arrays.items() if OFFICIAL_NAMES.get(name, name) in OFFICIAL_OF}
    if not found:
        raise InputError(f"{path}: none of {', '.join(OFFICIAL_NAMES)} is in it; there are: {', '.join(arrays) or 'no arrays'}")
    try:
        rdms = check_predictions(found, None)
    except InputError as error:
        raise type(error)(f"{path}: {error}") from error
    return rdms, names_of_images(path, arrays, len(next(iter(rdms.values()))))


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    with reading(path, ".npy file"):
        table = np.load(path, allow_pickle=False)
    if not isinstance(table, np.ndarray) or table.dtype.names is None:
        raise InputError(f"{path}: a plain array; a structured one with fields such as {', '.join(OFFICIAL_NAMES)} is needed")
    return {name: table[name] for name in table.dtype.names}


def _read_zip(path: Path) -> Part:
    with tempfile.TemporaryDirectory() as folder:
        with reading(path, ".zip file"), zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if Path(member.filename).name.startswith("submit_")]
            for member in members:
                if member.file_size > LARGEST_MEMBER:
                    raise FileError(f"{path}: {member.filename} states {member.file_size} bytes; no submission is that large")
                (Path(folder) / Path(member.filename).name).write_bytes(archive.read(member))
        if not members:
            raise FileError(f"{path}: no file submit_fmri or submit_meg in it")
        try:
            return _joined({file: _read_file(file) for file in sorted(Path(folder).iterdir())})
        except PulvinarError as error:
            raise type(error)(str(error).replace(folder, str(path))) from error
