"""Responses in xarray objects, as Brain-Score's assemblies are: what an array of dims (presentation, neuroid) says of itself.

xarray is not imported: whoever has such an object has it. Dims and coordinates are asked for by their names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.data.array_files import as_names
from pulvinar.data.tables import is_none

TRIAL_DIMS, VOXEL_DIMS, STIMULUS_DIMS = ("trial", "presentation"), ("voxel", "neuroid", "vertex"), ("stimulus", "image")
STIMULUS_COORDS = ("stimulus", "stimulus_id", "image_id")
NAME_COORDS = {"sessions": ("session", "session_id"), "runs": ("run", "run_id")}
SUBJECT_COORDS, REGION_COORDS = ("subject", "subject_id"), ("region", "roi")
PLACES = ("x", "y", "z")
ALONE = "subject"  # what the subject is called where nothing says it


@dataclass(frozen=True, kw_only=True, eq=False)
class Assembly:
    """Of each subject: responses (trial, voxel), stimulus ids, sessions and runs (trial,), ROIs and places of its voxels.

    places: (voxel, 3) in mm; empty without coordinates x, y and z. features: name -> (stimulus, ...) in the order of `stimuli`.
    """

    responses: Mapping[str, np.ndarray]
    stimulus_ids: Mapping[str, Sequence[str]]
    sessions: Mapping[str, np.ndarray] = field(default_factory=dict)
    runs: Mapping[str, np.ndarray] = field(default_factory=dict)
    rois: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    places: Mapping[str, np.ndarray] = field(default_factory=dict)
    stimuli: Sequence[str] | None = None
    features: Mapping[str, np.ndarray] = field(default_factory=dict)


def is_xarray(value: Any) -> bool:
    """Whether this is a DataArray or a Dataset of xarray."""
    bases = {f"{base.__module__}.{base.__name__}" for base in type(value).__mro__}
    return bool(bases & {"xarray.core.dataarray.DataArray", "xarray.core.dataset.Dataset"})


def read_assembly(given: Any) -> Assembly:
    """What a DataArray (trial, voxel), or a Dataset with one such variable and variables (stimulus, ...) as features, holds.

    Dims: trial or presentation; voxel, neuroid or vertex; others must have one entry (time_bin). Either order. Coordinates of
    trials: stimulus (or stimulus_id, image_id), session, run, subject; of voxels: region or roi (text, '' for none), subject,
    x, y and z in mm. A subject stands with the trials or with the voxels.
    Raises `InputError` naming the dim or coordinate that is missing, there twice, or of another form.
    """
    array, features, stimuli = _parts(given)
    trial, voxel = (_dim(array, dims, what) for dims, what in ((TRIAL_DIMS, "trials"), (VOXEL_DIMS, "voxels")))
    others = [dim for dim in array.dims if dim not in (trial, voxel)]
    long = [f"{dim} ({array.sizes[dim]})" for dim in others if array.sizes[dim] != 1]
    if long:
        raise InputError(
            f"data: one response per trial and voxel is needed; {', '.join(long)} came too. Choose one of it with isel"
        )
    values = array.transpose(trial, voxel, *others).values.reshape(array.sizes[trial], array.sizes[voxel])
    if values.dtype.kind not in "iuf":
        raise InputError(f"data: numbers are needed, {values.dtype} came")
    ids = _names(array, STIMULUS_COORDS, trial)
    if ids is None or "" in ids:
        raise InputError(f"data: what was shown? A coordinate of {trial} named {', '.join(STIMULUS_COORDS)} is needed")
    of_trials, of_voxels = (_names(array, SUBJECT_COORDS, dim) for dim in (trial, voxel))
    if "" in (of_trials or []) or "" in (of_voxels or []):
        raise InputError("data: the coordinate of subjects is empty in places")
    if of_trials is not None and of_voxels is not None:
        raise InputError(f"data: the subject stands with {trial} and with {voxel}; keep one of the coordinates")
    rows, columns = np.arange(len(values)), np.arange(values.shape[1])
    parts = {ALONE: (rows, columns)}
    if of_trials is not None:
        parts = {name: (rows[np.array(of_trials) == name], columns) for name in dict.fromkeys(of_trials)}
    if of_voxels is not None:
        parts = {name: (rows, columns[np.array(of_voxels) == name]) for name in dict.fromkeys(of_voxels)}
    found: dict[str, dict[str, Any]] = {"sessions": {}, "runs": {}}
    for what, names in NAME_COORDS.items():
        numbers = _coordinate(array, names, trial)
        found[what] = {} if numbers is None else {name: numbers[own] for name, (own, _) in parts.items()}
    regions, places = _names(array, REGION_COORDS, voxel), _places(array, voxel)
    masks = {region: np.array(regions) == region for region in dict.fromkeys(regions or ()) if region}
    return Assembly(
        responses={name: values[np.ix_(own, some)] for name, (own, some) in parts.items()},
        stimulus_ids={name: [ids[row] for row in own] for name, (own, _) in parts.items()},
        rois={
            name: {region: mask[some] for region, mask in masks.items() if mask[some].any()}
            for name, (_, some) in parts.items()
        },
        places={} if places is None else {name: places[some] for name, (_, some) in parts.items()},
        stimuli=stimuli,
        features=features,
        sessions=found["sessions"],
        runs=found["runs"],
    )


def _parts(given: Any) -> tuple[Any, dict[str, np.ndarray], list[str] | None]:
    """The array of responses, features by name, and the stimuli in the order of their rows."""
    if not hasattr(given, "data_vars"):
        return given, {}, None
    having = {
        str(name): array
        for name, array in given.data_vars.items()
        if any(dim in TRIAL_DIMS for dim in array.dims) and any(dim in VOXEL_DIMS for dim in array.dims)
    }
    if len(having) != 1:
        names = ", ".join(having) or "none"
        raise InputError(
            f"data: one variable of trials and voxels is needed, {names} came (of {', '.join(map(str, given.data_vars))})"
        )
    features, stimuli = {}, None
    for name, array in given.data_vars.items():
        dim = next((dim for dim in array.dims if dim in STIMULUS_DIMS), None)
        if dim is not None and array.ndim > 1:
            features[str(name)] = array.transpose(dim, ...).values
            own = _names(array, (*STIMULUS_COORDS, dim), dim)
            if own is None or (stimuli is not None and stimuli != own):
                raise InputError(
                    f"data: which row of '{name}' is which stimulus? One coordinate {dim} for all features is needed"
                )
            stimuli = own
    return next(iter(having.values())), features, stimuli


def _dim(array: Any, names: Sequence[str], what: str) -> str:
    found = [name for name in names if name in array.dims]
    if len(found) != 1:
        raise NotFoundError(
            f"data: one dim of {what} ({' or '.join(names)}) is needed; the dims are {', '.join(map(str, array.dims))}"
        )
    return found[0]


def _coordinate(array: Any, names: Sequence[str], dim: str) -> np.ndarray | None:
    """The first coordinate of these names along a dim, or level of its MultiIndex."""
    for name in names:
        if name in array.coords and array.coords[name].dims == (dim,) and not _is_tuples(array.coords[name].values):
            return np.asarray(array.coords[name].values)
    return None


def _is_tuples(values: np.ndarray) -> bool:
    return values.dtype == object and len(values) > 0 and isinstance(values[0], tuple)


def _names(array: Any, names: Sequence[str], dim: str) -> list[str] | None:
    values = _coordinate(array, names, dim)
    if values is None:
        return None
    texts = ["" if isinstance(value, float) and np.isnan(value) else value for value in values.tolist()]
    found = as_names(np.asarray(texts), f"data: coordinate {' or '.join(names)}")
    return ["" if is_none(name) else name for name in found]


def _places(array: Any, voxel: str) -> np.ndarray | None:
    found = [_coordinate(array, [name], voxel) for name in PLACES]
    if any(values is None for values in found):
        return None
    return np.stack([np.asarray(values, float) for values in found], axis=1)
