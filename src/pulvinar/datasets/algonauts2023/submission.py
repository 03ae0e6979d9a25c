"""The challenge's score, and the zip of a submission, written and read."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.storage import atomic_path, read_npy_member, reading, require_file
from pulvinar.data.array_files import read_array
from pulvinar.datasets.algonauts2023.reader import HEMISPHERES, challenge_images
from pulvinar.scores.encoding import algonauts_2023, correlations


def _number(name: str) -> int:
    text = name.removeprefix("subj")
    return int(text) if text.isdecimal() else 0


def score(predicted: Mapping[str, Any], measured: Mapping[str, Any], ceilings: Mapping[str, Any]) -> dict[str, float]:
    """The challenge's score in [0, 100] of each subject and hemisphere ('subj01/lh'), and 'mean' over all their vertices.

    Each mapping: 'subj01/lh' -> predicted and measured (image, vertex), noise ceiling NC (vertex,) in [0, 1]. A vertex whose
    predicted or measured responses do not vary scores 0. Formula: `scores.encoding.algonauts_2023`.
    """
    missing = sorted(set(measured) - set(predicted)) + sorted(set(measured) - set(ceilings))
    if missing or not measured:
        raise NotFoundError(f"score: nothing predicted, or no ceiling, for {', '.join(missing) or 'any subject'}")
    found = {
        name: np.nan_to_num(
            algonauts_2023(correlations(np.asarray(predicted[name]), np.asarray(values)), np.asarray(ceilings[name]))
        )
        for name, values in measured.items()
    }
    by_name = {name: float(values.mean()) for name, values in found.items()}
    return {**by_name, "mean": float(np.concatenate(list(found.values())).mean())}


def write_submission(path: str | Path, predictions: Mapping[str, np.ndarray], root: str | Path | None = None) -> Path:
    """The challenge's zip: `subj0X/lh_pred_test.npy` and `rh_pred_test.npy`, float32 (test image, vertex).

    predictions: 'subj01/lh' -> (image, vertex). With `root`, numbers of test pictures and vertices are compared with the data.
    """
    for name, values in predictions.items():
        subject, _, side = name.partition("/")
        if _number(subject) not in range(1, 9) or side not in HEMISPHERES:
            raise InputError(f"predictions: names like 'subj01/lh' are needed, '{name}' came")
        if np.ndim(values) != 2 or not np.isfinite(values).all():
            raise InputError(f"predictions of {name}: finite (image, vertex) is needed, {np.shape(values)} came")
        if root is not None:
            _require_shape(Path(root), subject, side, np.shape(values))
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in predictions.items():
            subject, _, side = name.partition("/")
            with archive.open(f"{subject}/{side}_pred_test.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values, np.float32), allow_pickle=False)
    return Path(path)


def _require_shape(root: Path, subject: str, side: str, shape: tuple[int, ...]) -> None:
    n_vertices = read_array(root / subject / "training_split" / "training_fmri" / f"{side}_training_fmri.npy").shape[1]
    wanted = (len(challenge_images(root, subject)), n_vertices)
    if shape != wanted:
        raise InputError(f"predictions of {subject}/{side}: {wanted} (test image, vertex) are needed, {shape} came")


def read_submission(path: str | Path) -> dict[str, np.ndarray]:
    """'subj01/lh' -> float32 (test image, vertex) of a submission; `FileError` or `InputError` where it is not one."""
    found = {}
    with reading(require_file(path, "submission"), "a submission zip"), zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            subject, _, file = member.partition("/")
            side = file.removesuffix("_pred_test.npy")
            if _number(subject) not in range(1, 9) or side not in HEMISPHERES:
                raise InputError(f"{path}: '{member}' does not belong in a submission")
            values = read_npy_member(archive, member)
            if values.dtype != np.float32 or values.ndim != 2:
                raise InputError(f"{path}: '{member}' is {values.dtype} {values.shape}; float32 (image, vertex) is needed")
            found[f"{subject}/{side}"] = values
    return found
