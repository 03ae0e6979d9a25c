"""Responses, geometry, ROIs and noise ceilings of one subject, from the files that a description names."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import log
from pulvinar.core.sampling import blocks_of
from pulvinar.data import fmriprep
from pulvinar.data.array_files import read_array, single_precision
from pulvinar.data.brain_files import (
    VOLUME_SUFFIXES,
    Mask,
    above_0,
    read_mask,
    read_surface,
    read_volume,
    require_same_grid,
    values_inside,
)
from pulvinar.data.description import NamedArray, SubjectFiles
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.tables import Trials
from pulvinar.data.volume_series import read_series

TRIALS_AT_ONCE = 64


def as_response_values(values: np.ndarray, who: str) -> np.ndarray:
    """Numbers as `Responses` keeps them: int16 and float32 as they are (also mapped), every other type as float32."""
    if values.dtype.kind not in "iuf":
        raise InputError(f"{who}: numbers are needed, {values.dtype} came")
    if values.dtype in (np.dtype(np.int16), np.dtype(np.float32)):
        return values
    if values.dtype == np.dtype(np.int16).newbyteorder():
        return values.astype(np.int16)
    return single_precision(values, who)


def make_responses(
    *,
    subject: str,
    values: np.ndarray,
    scale: float,
    trials: Trials,
    geometry: Geometry,
    rois: ROIs,
    noise_ceiling: np.ndarray | None,
    drop_bad_voxels: bool,
) -> Responses:
    """The responses of one subject, checked: no voxel is constant, NaN or infinite over the trials (or it is dropped).

    Raises `DegenerateError` naming the bad voxels unless `drop_bad_voxels`, and when no good voxel is left; `InputError` for
    a noise ceiling outside [0, 1].
    """
    responses = Responses(
        subject=subject,
        values=values,
        scale=scale,
        stimulus_ids=trials.stimulus_ids,
        sessions=trials.sessions,
        runs=trials.runs,
        geometry=geometry,
        rois=rois,
        noise_ceiling=noise_ceiling,
    )
    every_trial = np.arange(responses.n_trials)
    if not drop_bad_voxels:
        responses.require_good_voxels(every_trial)
    else:
        responses = _without_bad_voxels(responses, every_trial)
    ceiling = responses.noise_ceiling
    if ceiling is not None and not ((ceiling >= 0) & (ceiling <= 1)).all():
        raise InputError(
            f"noise ceiling of {subject}: a share of variance in [0, 1] per voxel is needed, {np.min(ceiling):g} to "
            f"{np.max(ceiling):g} came. Divide percent by 100."
        )
    return responses


def _without_bad_voxels(responses: Responses, trials: np.ndarray) -> Responses:
    bad = responses.bad_voxels(trials)
    if not len(bad):
        return responses
    if len(bad) == responses.n_voxels:
        raise DegenerateError(f"responses of {responses.subject}: all {len(bad)} voxels are constant, NaN or infinite")
    log(f"{responses.subject}: {len(bad)} of {responses.n_voxels} voxels dropped (constant, NaN or infinite)")
    return responses.take_voxels(np.setdiff1d(np.arange(responses.n_voxels), bad))


def read_subject(files: SubjectFiles, trials: Trials, runs: Sequence[fmriprep.Run]) -> Responses:
    """Everything about one subject; `runs` are its fMRIPrep runs, if its responses come from those."""
    mask = read_mask(files.mask, tolerance=files.affine_tolerance) if files.mask is not None else None
    if runs:
        values, mask = fmriprep.read_responses(runs, within=mask, tolerance=files.affine_tolerance)
        scale = 1.0
    else:
        values, scale = _read_values(files, mask)
    _refuse_transposed(files, values, trials)
    geometry = _read_geometry(files, mask)
    if geometry.n_voxels != values.shape[1]:
        where = next(str(path) for path in (files.mask, files.coordinates and files.coordinates[0], *files.surface) if path)
        raise InputError(
            f"{_names(files)} and {where} do not match: {values.shape[1]} voxels in the responses, {geometry.n_voxels} places"
        )
    rois = {name: _read_roi(name, place, mask, geometry.n_voxels) for name, place in files.rois.items()}
    ceiling = files.noise_ceiling and _per_voxel("noise ceiling", files.noise_ceiling, mask, geometry.n_voxels)
    return make_responses(
        subject=files.name,
        values=values,
        scale=scale * files.scale,
        trials=trials,
        geometry=geometry,
        rois=ROIs(rois, n_voxels=geometry.n_voxels),
        noise_ceiling=None if ceiling is None else np.asarray(ceiling, np.float32),
        drop_bad_voxels=files.drop_bad_voxels,
    )


def _names(files: SubjectFiles) -> str:
    return ", ".join(str(path) for path, _ in files.responses) or str(files.fmriprep)


def _read_values(files: SubjectFiles, mask: Mask | None) -> tuple[np.ndarray, float]:
    """Responses (trial, voxel) of one file, or of several one after the other, and their scale."""
    parts = [_read_part(place, mask) for place in files.responses]
    widths = [values.shape[1] for values, _ in parts]
    if len(set(widths)) > 1:
        raise InputError(f"responses of {files.name}: the files {_names(files)} hold {widths} voxels; the same are needed")
    if len(parts) == 1:
        return parts[0]
    _refuse_the_same_twice(files, [values for values, _ in parts])
    scales = {scale for _, scale in parts}
    if len(scales) == 1 and all(values.dtype == np.int16 for values, _ in parts):
        return _one_after_the_other([(values, 1.0) for values, _ in parts], np.int16), scales.pop()
    return _one_after_the_other(parts, np.float32), 1.0


def _one_after_the_other(parts: list[tuple[np.ndarray, float]], dtype: type) -> np.ndarray:
    """The trials of all parts in one array of this type, times the scale of their part; empties the list on the way."""
    out = memory.empty((sum(len(values) for values, _ in parts), parts[0][0].shape[1]), dtype)
    start = 0
    while parts:
        values, scale = parts.pop(0)
        for block in blocks_of(len(values), TRIALS_AT_ONCE):
            piece: np.ndarray = values[block].astype(dtype)
            out[start : start + len(piece)] = piece if dtype is np.int16 else piece * np.float32(scale)
            start += len(piece)
            memory.release(values)
        memory.release(out)
    return out


def _refuse_the_same_twice(files: SubjectFiles, parts: Sequence[np.ndarray]) -> None:
    """A run that is listed twice, or was copied under another name, would count as a repetition without noise."""
    for later in range(1, len(parts)):
        for earlier in range(later):
            one, other = parts[earlier], parts[later]
            if one.shape == other.shape and np.array_equal(one[:1], other[:1]) and np.array_equal(one, other):
                names = [f"{path}{f' ({array})' if array else ''}" for path, array in files.responses]
                raise InputError(
                    f"responses of {files.name}: {names[earlier]} and {names[later]} hold the same numbers; a run is listed "
                    "twice, or was copied"
                )


def _read_part(place: NamedArray, mask: Mask | None) -> tuple[np.ndarray, float]:
    path, array = place
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        if mask is None:
            raise InputError(f"{path}: responses in NIfTI need a mask")
        values, scale = read_series(path, mask)
    else:
        values, scale = _trial_by_voxel(read_array(path, array), path, mask), 1.0
    return as_response_values(values, str(path)), scale


def _trial_by_voxel(values: np.ndarray, path: Path, mask: Mask | None) -> np.ndarray:
    """(trial, voxel) from an array (trial, voxel), or from GLMsingle's (x, y, z, trial) and (voxel, 1, 1, trial)."""
    if values.ndim == 2:
        return values
    if values.ndim != 4:
        raise InputError(
            f"{path}: responses are (trial, voxel), or (x, y, z, trial) as GLMsingle writes them; shape {values.shape} came"
        )
    if values.shape[1:3] == (1, 1) and (mask is None or mask.inside.shape != values.shape[:3]):
        return np.ascontiguousarray(values[:, 0, 0, :].T)  # (voxel, trial) -> (trial, voxel)
    if mask is None:
        raise InputError(f"{path}: a volume of responses {values.shape} needs a mask (NIfTI, in the same grid)")
    require_same_grid(mask, path, values.shape[:3])
    out, start = memory.empty((values.shape[3], mask.n_voxels), values.dtype), 0
    for plane, inside in zip(values, mask.inside, strict=True):
        found = plane[inside].T  # (voxel, trial) -> (trial, voxel)
        out[:, start : start + found.shape[1]] = found
        start += found.shape[1]
        memory.release(values)
        memory.release(out)
    return out


def _refuse_transposed(files: SubjectFiles, values: np.ndarray, trials: Trials) -> None:
    n_trials = len(trials.stimulus_ids)
    if values.shape[0] != n_trials and values.shape[1] == n_trials:
        raise InputError(
            f"{_names(files)}: shape {values.shape} looks like (voxel, trial), as {trials.origin} lists {n_trials} trials; "
            "(trial, voxel) is needed. Save the transpose, array.T."
        )


def _read_geometry(files: SubjectFiles, mask: Mask | None) -> Geometry:
    if mask is not None:
        return Geometry.from_mask(mask.inside, mask.affine)
    if files.coordinates is not None:
        return Geometry.from_points(read_array(*files.coordinates))
    points, faces = read_surface(files.surface)
    vertices = np.arange(len(points)) if files.vertices is None else read_array(*files.vertices)
    return Geometry.from_surface(vertices, points, faces)


def _read_roi(name: str, place: NamedArray, mask: Mask | None, n_voxels: int) -> np.ndarray:
    roi = above_0(_per_voxel(f"ROI '{name}'", place, mask, n_voxels), f"{place[0]}: ROI '{name}'")
    if not roi.any():
        raise InputError(f"{place[0]}: ROI '{name}' has no voxel above 0 among the {n_voxels} of the responses")
    return roi


def _per_voxel(what: str, place: NamedArray, mask: Mask | None, n_voxels: int) -> np.ndarray:
    """One number per voxel, from a volume in the grid of the mask or from an array (voxel,)."""
    path, array = place
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        if mask is None:
            raise InputError(f"{path}: {what} in NIfTI needs responses with a mask; without one give an array (voxel,)")
        return values_inside(read_volume(path), mask)
    values = read_array(path, array)
    if values.shape != (n_voxels,):
        raise InputError(f"{path}: {what} must have {n_voxels} entries, one per voxel; shape {values.shape} came")
    return values
