"""`pulvinar data`: look at an experiment, make one from your own files, plant one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.commands import registry
from pulvinar.config import load as load_config
from pulvinar.data import experiment as folders
from pulvinar.data.experiment import Experiment
from pulvinar.data.inspect import inspect as describe
from pulvinar.storage import refuse_existing


def open_experiment(source: str, *, target: str | None = None) -> Experiment:
    """An experiment from a folder, a TOML description, or `dataset:path` with the name of a file in datasets/."""
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        return registry.module("datasets", dataset).load(path)
    if source.endswith(".toml"):
        from pulvinar.datasets.arrays import read_description

        return read_description(source)
    return folders.load(source, target=target)


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
