"""Responses, geometry, ROIs and noise ceilings of one subject, from the files that a description names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
from pulvinar.data.cifti_files import is_cifti
from pulvinar.data.description import BySide, NamedArray, SubjectFiles
from pulvinar.data.geometry import Geometry
from pulvinar.data.greyordinates import Greyordinates, cifti_geometry, of_every_voxel, read_cifti_responses
from pulvinar.data.matlab_files import MATLAB_SUFFIXES, read_matlab_array
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.surface_files import is_vertex_file, read_vertex_map, read_vertex_series, require_side
from pulvinar.data.surface_meshes import Hemispheres, fitting, hemispheres_of, n_vertices_of
from pulvinar.data.table_responses import TableChoice, is_table_file, require_same_trials, responses_of
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


def table_choice(files: SubjectFiles) -> TableChoice:
    """Which rows and columns of tables of responses are those of a subject."""
    return TableChoice(
        stimulus_column=files.stimulus_column or "stimulus",
        voxels=files.voxel_columns,
        subject_column=files.subject_column,
        subject=files.table_subject,
    )


def in_tables(files: SubjectFiles) -> bool:
    """Whether the responses of a subject stand in tables, which say themselves what each row was."""
    return bool(files.responses) and all(is_table_file(path) for path, _ in files.responses)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Read:
    """Responses (trial, voxel), their scale, and where the voxels are."""

    values: np.ndarray
    scale: float
    geometry: Geometry


def read_subject(files: SubjectFiles, trials: Trials, runs: Sequence[fmriprep.Run]) -> Responses:
    """Everything about one subject; `runs` are its fMRIPrep runs, if its responses come from those."""
    mask = read_mask(files.mask, tolerance=files.affine_tolerance) if files.mask is not None else None
    if runs:
        values, mask = fmriprep.read_responses(runs, within=mask, tolerance=files.affine_tolerance)
        found = _Read(values=values, scale=1.0, geometry=Geometry.from_mask(mask.inside, mask.affine))
    elif files.sides:
        found = _read_hemispheres(files, trials)
    elif any(is_cifti(path) for path, _ in files.responses):
        found = _read_cifti(files)
    else:
        values, scale = _read_values(files, mask, trials)
        _refuse_transposed(files, values, trials)
        found = _Read(values=values, scale=scale, geometry=_read_geometry(files, mask))
    values, geometry = found.values, found.geometry
    if geometry.n_voxels != values.shape[1]:
        listed = "coordinates" if isinstance(files.coordinates, np.ndarray) else files.coordinates and files.coordinates[0]
        places = (files.mask, listed, *files.surface, files.mesh)
        where = next(str(path) for path in places if path)
        raise InputError(
            f"{_names(files)} and {where} do not match: {values.shape[1]} voxels in the responses, {geometry.n_voxels} places"
        )
    rois = {name: _read_roi(name, place, mask, geometry) for name, place in files.rois.items()}
    ceiling = files.noise_ceiling and _per_voxel("noise ceiling", files.noise_ceiling, mask, geometry)
    return make_responses(
        subject=files.name,
        values=values,
        scale=found.scale * files.scale,
        trials=trials,
        geometry=geometry,
        rois=ROIs(rois, n_voxels=geometry.n_voxels),
        noise_ceiling=None if ceiling is None else np.asarray(ceiling, np.float32),
        drop_bad_voxels=files.drop_bad_voxels,
    )


def _names(files: SubjectFiles) -> str:
    places = [*files.responses, *(place for side in files.sides.values() for place in side)]
    return ", ".join(str(path) for path, _ in places) or str(files.fmriprep)


def _read_values(files: SubjectFiles, mask: Mask | None, trials: Trials) -> tuple[np.ndarray, float]:
    """Responses (trial, voxel) of one file, or of several one after the other, and their scale."""
    if in_tables(files):
        if files.axes is not None:
            raise InputError(f"{files.name}: axes goes with arrays; in a table, a row is a trial")
        if files.trials:
            require_same_trials(files.responses, table_choice(files), trials)
        found = responses_of(files.responses, table_choice(files))
        parts = [(as_response_values(v, str(path)), 1.0) for v, (path, _) in zip(found, files.responses, strict=True)]
    else:
        parts = [_read_part(place, mask, files.axes) for place in files.responses]
    return _joined(files, files.responses, parts)


def _joined(
    files: SubjectFiles, places: Sequence[NamedArray], parts: list[tuple[np.ndarray, float]]
) -> tuple[np.ndarray, float]:
    widths = [values.shape[1] for values, _ in parts]
    if len(set(widths)) > 1:
        names = ", ".join(str(path) for path, _ in places)
        raise InputError(f"responses of {files.name}: the files {names} hold {widths} voxels; the same are needed")
    if len(parts) == 1:
        return parts[0]
    _refuse_the_same_twice(files, places, [values for values, _ in parts])
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


def _refuse_the_same_twice(files: SubjectFiles, places: Sequence[NamedArray], parts: Sequence[np.ndarray]) -> None:
    """A run that is listed twice, or was copied under another name, would count as a repetition without noise."""
    for later in range(1, len(parts)):
        for earlier in range(later):
            one, other = parts[earlier], parts[later]
            if one.shape == other.shape and np.array_equal(one[:1], other[:1]) and np.array_equal(one, other):
                names = [f"{path}{f' ({array})' if array else ''}" for path, array in places]
                raise InputError(
                    f"responses of {files.name}: {names[earlier]} and {names[later]} hold the same numbers; a run is listed "
                    "twice, or was copied"
                )


def _read_part(place: NamedArray, mask: Mask | None, axes: tuple[str, str] | None) -> tuple[np.ndarray, float]:
    path, array = place
    if is_vertex_file(path):
        raise InputError(f"{path}: of which hemisphere? Write responses = {{ left = ..., right = ... }}, and surface")
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        if mask is None:
            raise InputError(f"{path}: responses in NIfTI need a mask")
        values, scale = read_series(path, mask)
    else:
        values, scale = _trial_by_voxel(_read_numbers(path, array), path, mask, axes), 1.0
    return as_response_values(values, str(path)), scale


def _read_numbers(path: Path, array: str | None) -> np.ndarray:
    """An array of a file, axes as numpy counts them; of MATLAB as MATLAB shows them (`size(x)`), in both of its versions."""
    is_matlab = path.suffix.lower() in MATLAB_SUFFIXES
    return read_matlab_array(path, array) if is_matlab else read_array(path, array)


def _trial_by_voxel(values: np.ndarray, path: Path, mask: Mask | None, axes: tuple[str, str] | None) -> np.ndarray:
    """(trial, voxel) from an array of these axes, or from GLMsingle's (x, y, z, trial) and (voxel, 1, 1, trial)."""
    if values.ndim == 2:
        if axes is None and values.shape[0] == values.shape[1] and path.suffix.lower() in MATLAB_SUFFIXES:
            raise InputError(
                f"{path}: is it (trial, voxel) or (voxel, trial)? Its shape {values.shape} does not tell. Say axes = "
                "'trial,voxel' or axes = 'voxel,trial'"
            )
        return np.ascontiguousarray(values.T) if axes == ("voxel", "trial") else values
    if axes is not None:
        raise InputError(f"{path}: axes names two, an array of shape {values.shape} came")
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
        is_turned = files.axes == ("voxel", "trial")
        as_read, way_out = (" as axes turns it", "leave axes out") if is_turned else ("", "say axes = 'voxel,trial'")
        raise InputError(
            f"{_names(files)}: shape {values.shape}{as_read} looks like (voxel, trial), as {trials.origin} lists {n_trials} "
            f"trials; (trial, voxel) is needed. Save the transpose, array.T, or {way_out}."
        )


# --- hemispheres and greyordinates ------------------------------------------------------------------------------------


def _read_hemispheres(files: SubjectFiles, trials: Trials) -> _Read:
    """Responses whose hemispheres lie in files of their own: left and right vertices side by side, left first."""
    meshes = hemispheres_of(files.mesh, files.surface, files.surface_side)
    halves: dict[str, np.ndarray] = {}
    for side, places in files.sides.items():
        count = meshes.n_vertices(side)
        if not count:
            raise InputError(f"responses of {files.name}: files of the {side} hemisphere, of which surface has no mesh")
        parts = [(_vertex_part(place, side, count, files.axes, meshes), 1.0) for place in places]
        halves[side] = as_response_values(_joined(files, places, parts)[0], f"responses of {files.name}, {side}")
    n_trials = {side: len(values) for side, values in halves.items()}
    if len(set(n_trials.values())) > 1:
        raise InputError(
            f"responses of {files.name}: {n_trials['left']} trials of the left hemisphere, {n_trials['right']} of the right"
        )
    if len(halves) == 2 and halves["left"].shape == halves["right"].shape and np.array_equal(halves["left"], halves["right"]):
        raise InputError(f"responses of {files.name}: left and right hold the same numbers; a hemisphere is listed twice")
    form = (
        "mgh" if any(path.suffix.lower() in (".mgh", ".mgz") for side in files.sides.values() for path, _ in side) else "gifti"
    )
    kinds = {values.dtype for values in halves.values()}
    ordered = [halves[side] for side in ("left", "right") if side in halves]
    whole = np.concatenate(ordered if len(kinds) == 1 else [half.astype(np.float32) for half in ordered], axis=1)
    geometry = meshes.geometry({side: np.arange(half.shape[1]) for side, half in halves.items()}, form=form)
    return _Read(values=whole, scale=1.0, geometry=geometry)


def _vertex_part(place: NamedArray, side: str, count: int, axes: tuple[str, str] | None, meshes: Hemispheres) -> np.ndarray:
    """(trial, vertex) of one file of a hemisphere."""
    path, array = place
    if is_vertex_file(path):
        if array is not None:
            raise InputError(f"{path}: holds the trials of a hemisphere; '{array}' was asked for")
        values = read_vertex_series(path, n_vertices=count, side=side)
    else:
        require_side(path, side)
        values = _trial_by_voxel(_read_numbers(path, array), path, None, axes)
        if values.shape[1] != count:
            hint = f"; is it (vertex, trial)? Then say axes = {'voxel,trial'!r}" if values.shape[0] == count else ""
            raise InputError(f"{path}: {values.shape[1]:,} vertices; {meshes.said(side)}{fitting(values.shape[1])}{hint}")
    return as_response_values(values, str(path))


def _read_cifti(files: SubjectFiles) -> _Read:
    read = [read_cifti_responses(path, array, files.greyordinates) for path, array in files.responses]
    for other in read[1:]:
        read[0].require_same(other)
    parts = [(as_response_values(found.values, str(found.path)), 1.0) for found in read]
    values, scale = _joined(files, files.responses, parts)
    return _Read(values=values, scale=scale, geometry=_cifti_geometry(files, read[0]))


def _cifti_geometry(files: SubjectFiles, found: Greyordinates) -> Geometry:
    """On the mesh that is named or given, else on the one that is known to have so many vertices."""
    is_below = not (found.vertex >= 0).any()
    if is_below and (files.mesh or files.surface):
        raise InputError(f"{found.path}: surface does not go with the subcortex alone")
    name = files.mesh or ("" if files.surface or is_below else found.mesh_name())
    return cifti_geometry(found, None if is_below else hemispheres_of(name, files.surface, files.surface_side))


def _read_geometry(files: SubjectFiles, mask: Mask | None) -> Geometry:
    if mask is not None:
        return Geometry.from_mask(mask.inside, mask.affine)
    if isinstance(files.coordinates, np.ndarray):
        return Geometry.from_points(files.coordinates)
    if files.coordinates is not None:
        return Geometry.from_points(_read_numbers(*files.coordinates))
    vertices = None if files.vertices is None else read_array(*files.vertices)
    if files.mesh or len(files.surface) == 2 or files.surface_side:
        return hemispheres_of(files.mesh, files.surface, files.surface_side).joint_geometry(vertices)
    points, faces = read_surface(files.surface)
    return Geometry.from_surface(np.arange(len(points)) if vertices is None else vertices, points, faces)


# --- one number per voxel ---------------------------------------------------------------------------------------------


def _read_roi(name: str, place: NamedArray | BySide, mask: Mask | None, geometry: Geometry) -> np.ndarray:
    origin = place[0] if isinstance(place, tuple) else ", ".join(str(path) for path, _ in place.values())
    values = _per_voxel(f"ROI '{name}'", place, mask, geometry, elsewhere=0.0)
    roi = above_0(values, f"{origin}: ROI '{name}'")
    if not roi.any():
        raise InputError(f"{origin}: ROI '{name}' has no voxel above 0 among the {geometry.n_voxels} of the responses")
    return roi


def _per_voxel(
    what: str, place: NamedArray | BySide, mask: Mask | None, geometry: Geometry, *, elsewhere: float | None = None
) -> np.ndarray:
    """One number per voxel, from a volume in the grid of the mask, files of a surface, CIFTI, or an array (voxel,).

    elsewhere: of places that a file of a surface or CIFTI does not have; None refuses them.
    """
    if isinstance(place, Mapping):
        return _per_vertex(what, place, geometry, elsewhere)
    path, array = place
    if is_cifti(path):
        return of_every_voxel(what, path, array, geometry, elsewhere)
    if path.name.lower().endswith(VOLUME_SUFFIXES):
        if mask is None:
            raise InputError(f"{path}: {what} in NIfTI needs responses with a mask; without one give an array (voxel,)")
        return values_inside(read_volume(path), mask)
    values = _read_numbers(path, array)
    if path.suffix.lower() in MATLAB_SUFFIXES and values.ndim == 2 and 1 in values.shape:
        values = values.reshape(-1)  # MATLAB has no arrays of one axis
    if values.shape != (geometry.n_voxels,):
        raise InputError(f"{path}: {what} must have {geometry.n_voxels} entries, one per voxel; shape {values.shape} came")
    return values


def _per_vertex(what: str, places: BySide, geometry: Geometry, elsewhere: float | None) -> np.ndarray:
    """One number per voxel from a file of each hemisphere."""
    sides, numbers = geometry.side, geometry.own_vertex
    if sides is None or numbers is None:
        raise InputError(f"{what}: left and right do not go with a {geometry.kind} of one part; give an array (voxel,)")
    values, there = np.zeros(geometry.n_voxels), np.zeros(geometry.n_voxels, bool)
    for side, (path, array) in places.items():
        here = sides == {"left": "lh", "right": "rh"}[side]
        if not here.any():
            raise InputError(f"{path}: {what} of the {side} hemisphere, of which there are no responses")
        count = n_vertices_of(geometry, side)
        if is_vertex_file(path):
            own = read_vertex_map(path, n_vertices=count, side=side, label=array)
        else:
            require_side(path, side)
            own = np.ravel(_read_numbers(path, array))
            if len(own) != count:
                raise InputError(f"{path}: {what}: {len(own):,} numbers for the {count:,} vertices of the {side} hemisphere")
        values[here], there[here] = own[numbers[here]], True
    if not there.all():
        if elsewhere is None:
            raise InputError(f"{what}: nothing for {int((~there).sum())} voxels of the other hemisphere, or below the cortex")
        values[~there] = elsewhere
    return values
