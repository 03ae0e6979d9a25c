"""What Python adds to the functions of the command line: settings as values, data as objects, a run as the result."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.app import fit as fitting
from pulvinar.app import method_settings
from pulvinar.app.data import KINDS, Data, kind_of
from pulvinar.app.data import open_data as open_kind
from pulvinar.app.memory_limit import within
from pulvinar.app.run import Run
from pulvinar.core.config import suggest
from pulvinar.core.errors import ConfigError, InputError, NotFoundError
from pulvinar.core.places import place_of
from pulvinar.data.xarray_objects import is_xarray


def open_data(source: Any, *, kind: str | None = None, target: str | None = None) -> Data:
    """Data as `--data` of the command line names them: a path, or `dataset:path`.

    An experiment folder or a description .toml gives an `Experiment`, pictures or an .npz with x_train an `ImageSet`, RDMs
    `Dissimilarities`; an xarray DataArray or Dataset (trial, voxel) an `Experiment` (`datasets.arrays.from_xarray`). kind:
    experiment, images or dissimilarities, where a path could be read in two ways. target: the new subject of an experiment, if
    not its own. Raises `NotFoundError` for a kind or data set that there is not, and `FileError`
    or `InputError` naming the file and what is wrong in it.
    """
    fits = "a path, dataset:path or an xarray object (arrays in memory: datasets.arrays.from_arrays)"
    place = source if is_xarray(source) else place_of("source", source, fits)
    if kind is not None and kind not in KINDS:
        raise NotFoundError(f"kind: '{kind}' is none of {', '.join(KINDS)}{suggest(kind, list(KINDS))}")
    return open_kind(kind or ("experiment" if is_xarray(source) else kind_of(place)), place, target=target)


def config(method: str, settings: Mapping[str, Any] | None = None, /, **more: Any) -> Any:
    """The settings of a method as its frozen `Config`, defaults filled in.

    method: one of `list_methods()`. settings: a dict; keywords (`n_voxels=3000`) win over it. Raises `ConfigError`, which lists
    all mistakes at once, and `NotFoundError` for a method that there is not.

    >>> import pulvinar
    >>> pulvinar.config("troi", n_voxels=3000).n_voxels
    3000
    """
    return method_settings.configs(method, None, _plain({**(settings or {}), **more}))[0]


def fit(
    method: str,
    data: Data | str | os.PathLike[str],
    settings: Any = None,
    /,
    *,
    out: str | os.PathLike[str],
    pretrained: "Run | str | os.PathLike[str] | Mapping[str, Any] | None" = None,
    target: str | None = None,
    resume: bool = False,
    log_to: Sequence[str] = (),
    memory: str | None = None,
    **more: Any,
) -> Run:
    """Fit a method to data; the finished run, whose folder `out` is the one that `pulvinar fit` writes.

    method: one of `list_methods()`. data: what `open_data` gives, or takes; data that were made in memory work too, and
    another session then gives them to `evaluate` again. Settings are keywords (`n_voxels=3000`), a dict, or a
    `Config` (`pulvinar.config`); `pulvinar fit METHOD --settings` lists them. Unknown and wrong ones are refused together,
    before anything is written. pretrained: the finished run that the method builds on, or a dict of settings to train it with.
    target: the new subject, if not the experiment's own. resume: continue a fit that was interrupted; it ends with the same
    weights. log_to: "tensorboard", "wandb", "mlflow", as `--log`. memory: such as "4GB", which the process stays below; of
    methods that keep it (docs/memory.md). Raises `ConfigError` for settings, `InputError` for data that do not fit the
    method, `FileError` for a folder that exists.
    """
    if not isinstance(method, str):
        raise InputError(f"method: a name is needed, as in fit('troi', data, ...), {type(method).__name__} came")
    given = {**_plain(_settings(settings)), **_plain(more)}
    if isinstance(pretrained, Mapping):
        given |= {f"{method_settings.PRETRAINED_PREFIX}{name}": value for name, value in _plain(pretrained).items()}
    place = (
        None
        if pretrained is None or isinstance(pretrained, Mapping)
        else place_of("pretrained", pretrained, "a run or its folder")
    )
    opened = open_data(data) if is_xarray(data) else data
    source = os.fspath(opened) if isinstance(opened, str | os.PathLike) else opened
    folder = place_of("out", out, "the folder to write")
    options: dict[str, Any] = {"pretrained": place, "target": target, "resume": resume, "log_to": log_to}
    with within(memory, method):
        fitting.fit(method, data=source, out=folder, assignments=given, **options)
    return Run(Path(folder), data=None if isinstance(source, str) else source)


def _settings(given: Any) -> dict[str, Any]:
    """The settings of a dict or a `Config`."""
    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    if is_dataclass(given) and not isinstance(given, type):
        return {field.name: getattr(given, field.name) for field in fields(given)}
    raise InputError(f"settings: a dict or a Config is needed, a {type(given).__name__} came")


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values as a settings file could hold them: numbers of numpy, paths and lists become plain ones."""
    if wrong := [name for name in settings if not isinstance(name, str)]:
        raise ConfigError(f"settings: names are texts, {wrong[0]!r} came")
    return {name: _plain_value(value) for name, value in settings.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, np.ndarray):
        return tuple(value.tolist())
    return tuple(map(_plain_value, value)) if isinstance(value, list | tuple) else value
