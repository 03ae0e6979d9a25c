"""`pulvinar data`: look at data, make an experiment from your own files, plant one; open what `--data` names."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.commands import registry
from pulvinar.config import load as load_config
from pulvinar.data import experiment as folders
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.experiment import Experiment
from pulvinar.data.image_set import ImageSet
from pulvinar.data.inspect import inspect as describe
from pulvinar.errors import InputError
from pulvinar.storage import refuse_existing

DEFAULT_DATASETS = {"images": "image_files", "dissimilarities": "algonauts2019"}  # what opens a plain path of that kind


def open_data(kind: str, source: str, *, target: str | None = None) -> Any:
    """What a method is fitted to: an Experiment, an ImageSet ("images") or Dissimilarities.

    A source is a path, or `dataset:path` with the name of a file in datasets/. An experiment comes without its planted truth.
    """
    if kind == "experiment":
        return open_experiment(source, target=target).without_truth()
    if target is not None:
        raise InputError(f"--target: only an experiment has a new subject; {source} is opened as {kind}")
    dataset, colon, path = source.partition(":")
    if not colon or Path(source).exists():
        dataset, path = DEFAULT_DATASETS[kind], source
    opened = _load(dataset, path, source)
    wanted = {"images": ImageSet, "dissimilarities": Dissimilarities}[kind]
    if not isinstance(opened, wanted):
        raise InputError(f"{source}: {kind} are needed; {dataset} gives an {type(opened).__name__}")
    return opened


def _load(dataset: str, path: str, source: str) -> Any:
    module = registry.module("datasets", dataset)
    if not hasattr(module, "load"):
        raise InputError(f"{source}: {dataset} is not opened by name; give the folder or description that it made or reads")
    return module.load(path)


def open_experiment(source: str, *, target: str | None = None) -> Experiment:
    """An experiment from a folder, a TOML description, or `dataset:path` with the name of a file in datasets/."""
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        opened = _load(dataset, path, source)
        if not isinstance(opened, Experiment):
            raise InputError(f"{source}: an experiment is needed; {dataset} gives {type(opened).__name__}")
        return _with_target(opened, target)
    if source.endswith(".toml") and not Path(source).is_dir():
        from pulvinar.datasets.arrays import read_description

        return _with_target(read_description(source), target)
    return folders.load(source, target=target)


def _with_target(experiment: Experiment, target: str | None) -> Experiment:
    return experiment if target in (None, experiment.target) else dataclasses.replace(experiment, target=target)


def absolute(source: str) -> str:
    """The source as it is found from any working directory."""
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        return f"{dataset}:{Path(path).resolve()}" if Path(path).exists() else source
    return str(Path(source).resolve())


def inspect(source: str) -> dict[str, Any]:
    """What is in an experiment, and which files differ from their checksums."""
    result = describe(open_experiment(source))
    if Path(source).is_dir():
        result["files_that_differ_from_checksums"] = folders.verify(source)
    return result


def convert(description: str, out: str) -> dict[str, Any]:
    """Read a description of your own files and write the experiment folder."""
    from pulvinar.datasets.arrays import read_description

    refuse_existing(out)
    experiment = read_description(description)
    return {"folder": str(folders.save(experiment, out)), "name": experiment.name, "subjects": list(experiment.subjects)}


def simulate(out: str, *, config_file: str | None = None, assignments: Sequence[str] = ()) -> dict[str, Any]:
    """Plant a world and write it as an experiment folder."""
    from pulvinar.datasets import simulated

    refuse_existing(out)
    config = load_config(simulated.Config, name="simulated", file=config_file, assignments=assignments)
    experiment = simulated.simulate(config)
    return {"folder": str(folders.save(experiment, out)), "name": experiment.name, "target": experiment.target}
