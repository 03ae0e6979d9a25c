"""`pulvinar data`: look at data, make an experiment from your own files, plant one; open what `--data` names."""

import dataclasses
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pulvinar.app import registry
from pulvinar.core import checksums
from pulvinar.core.config import load as load_config
from pulvinar.core.errors import InputError
from pulvinar.core.progress import detail
from pulvinar.core.storage import reading, refuse_existing
from pulvinar.data import experiment as folders
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.experiment import Experiment
from pulvinar.data.image_set import ImageSet
from pulvinar.data.inspect import inspect as describe
from pulvinar.data.inspect import inspect_images as describe_images
from pulvinar.data.inspect import inspect_pictures, probe_values
from pulvinar.data.pictures import look_into
from pulvinar.data.sessions import ShownImages
from pulvinar.data.split_choice import OWN_FOLDER, SplitOptions, choose, split_off

Data = Experiment | ImageSet | Dissimilarities
KINDS: dict[str, type[Any]] = {"experiment": Experiment, "images": ImageSet, "dissimilarities": Dissimilarities}
DEFAULT_DATASETS = {"images": "image_files", "dissimilarities": "algonauts2019"}  # what opens a plain path of that kind


def open_data(kind: str, source: str | Data, *, target: str | None = None) -> Any:
    """What a method is fitted to: an Experiment, an ImageSet ("images") or Dissimilarities.

    A source is a path, or `dataset:path` with the name of a file in datasets/, or data that were opened or made before. What is
    opened here knows from where (`source`).
    """
    if not isinstance(source, str):
        return _given(kind, _of_xarray(kind, source), target)
    opened = open_experiment(source, target=target) if kind == "experiment" else _open(kind, source, target)
    object.__setattr__(opened, "source", absolute(source))  # in place: what was checked needs no second check
    detail(f"opened {source}: {opened!r}")
    return opened


def _open(kind: str, source: str, target: str | None) -> ImageSet | Dissimilarities:
    if target is not None:
        raise InputError(f"--target: only an experiment has a new subject; {source} is opened as {kind}")
    if len(several := sources_of(kind, source)) > 1:
        from pulvinar.data.joined_dissimilarities import join

        return join([open_data(kind, one) for one in several])
    dataset, colon, path = source.partition(":")
    if not colon or Path(source).exists():
        dataset, path = DEFAULT_DATASETS[kind], source
    opened = _load(dataset, path, source)
    if not isinstance(opened, KINDS[kind]):
        raise InputError(f"{source}: {kind} are needed; {dataset} gives an {type(opened).__name__}")
    return opened


def sources_of(kind: str, source: str) -> list[str]:
    """Several sets of RDMs are named with commas between, as A,B; anything else is one source."""
    path = source.partition(":")[2]
    if kind != "dissimilarities" or "," not in source or Path(source).exists() or (path and Path(path).exists()):
        return [source]
    parts = [part.strip() for part in source.split(",")]
    if "" in parts:
        raise InputError(f"{source}: a set of images is missing between two commas")
    return parts


def _given(kind: str, opened: Any, target: str | None) -> Any:
    """Data that came opened, if they are of this kind."""
    if not isinstance(opened, KINDS[kind]):
        needed = "an experiment is needed, as an" if kind == "experiment" else f"{kind} are needed, as"
        raise InputError(f"data: {needed} {KINDS[kind].__name__}, or named as for --data; {_said(opened)} came")
    if isinstance(opened, Experiment):
        return _with_target(opened, target)
    if target is not None:
        raise InputError(f"target: only an experiment has a new subject, no {type(opened).__name__}")
    return opened


def _of_xarray(kind: str, given: Any) -> Any:
    """An experiment of an xarray object; all else as it came."""
    from pulvinar.data.xarray_objects import is_xarray

    if kind != "experiment" or not is_xarray(given):
        return given
    from pulvinar.datasets.arrays import from_xarray

    return from_xarray(given)


def _said(value: Any) -> str:
    name = type(value).__name__
    return f"a{'n' if name[0] in 'AEIOUaeiou' else ''} {name}"


def kind_of(source: str) -> str:
    """What a source holds: experiment, images or dissimilarities; experiment where nothing says otherwise."""
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        opened = _load(dataset, path, source)
        return next(kind for kind, wanted in KINDS.items() if isinstance(opened, wanted))
    place = Path(source.partition("?")[0])
    if place.is_file():
        if place.suffix.lower() == ".npz" and zipfile.is_zipfile(place):
            with reading(place, ".npz"), zipfile.ZipFile(place) as file:
                return "images" if "x_train.npy" in file.namelist() else "dissimilarities"
        return "dissimilarities" if place.suffix.lower() == ".mat" else "experiment"
    if place.is_dir() and not (place / "experiment.json").is_file():
        from pulvinar.datasets.algonauts2019.layout import find_sets

        return "images" if _holds_pictures(source) else "dissimilarities" if find_sets(place) else "experiment"
    return "experiment"


def _load(dataset: str, path: str, source: str) -> Any:
    found = registry.dataset(dataset)
    if found.load is None:
        raise InputError(f"{source}: {dataset} is not opened by name; give the folder or description that it made or reads")
    with reading(source, f"data of {dataset}"):
        place, options = split_off(path, found.splits, name=dataset)
        opened = found.load(place)
    if isinstance(opened, Experiment):
        return choose(opened, options, found.splits)
    if options != SplitOptions():
        raise InputError(f"{source}: split and what counts as near are of experiments; {dataset} gives {type(opened).__name__}")
    return opened


def open_experiment(source: str, *, target: str | None = None) -> Experiment:
    """An experiment from a folder, a TOML description, or `dataset:path` with the name of a file in datasets/."""
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        return _with_target(_as_experiment(_load(dataset, path, source), source, dataset), target)
    place, options = split_off(source, OWN_FOLDER, name=Path(source.partition("?")[0]).name)
    if place.endswith(".toml") and not Path(place).is_dir():
        from pulvinar.datasets.arrays import read_description

        experiment = _with_target(read_description(place), target)
    else:
        experiment = folders.load(place, target=target)
    return choose(experiment, options, OWN_FOLDER) if place != source else experiment


def _as_experiment(opened: Any, source: str, dataset: str) -> Experiment:
    if not isinstance(opened, Experiment):
        raise InputError(f"{source}: an experiment is needed; {dataset} gives {type(opened).__name__}")
    return opened


def _holds_pictures(source: str) -> bool:
    """Whether a path is an .npz or a folder with pictures in it or in the folders inside, and no experiment folder."""
    place = Path(source.partition("?")[0])
    if not place.is_dir() or (place / "experiment.json").is_file() or (place / "responses").is_dir():
        return place.suffix.lower() == ".npz" and place.is_file()
    content = look_into(place)
    return bool(content.pictures) or any(look_into(folder).pictures or folder.name == "train" for folder in content.folders)


def _with_target(experiment: Experiment, target: str | None) -> Experiment:
    return experiment if target in (None, experiment.target) else dataclasses.replace(experiment, target=target)


def absolute(source: str) -> str:
    """The source, or several with commas between, as found from any working directory."""
    if "?" not in source and len(several := sources_of("dissimilarities", source)) > 1:
        return ",".join(map(absolute, several))
    dataset, colon, path = source.partition(":")
    if colon and not Path(source).exists():
        folder, question, options = path.partition("?")
        return f"{dataset}:{Path(folder).resolve()}{question}{options}" if Path(folder).exists() else source
    folder, question, options = source.partition("?")
    if question and not Path(source).exists():
        return f"{Path(folder).resolve()}?{options}"
    return str(Path(source).resolve())


def inspect(source: str, *, probe: int | None = None) -> dict[str, Any]:
    """What is in an experiment, and which files differ from their checksums; or in an image set, and what was left out of it.

    A dataset with an `inspect` says it itself. Of a folder of pictures that no method takes as it is, sizes and the reason.

    probe: how many single values of a dataset's own files to give beside.
    """
    dataset, colon, path = source.partition(":")
    named = registry.dataset(dataset) if colon and not Path(source).exists() else None
    if named and named.inspect and probe is None:
        return named.inspect(path)
    if probe is None and (named or _holds_pictures(source)):
        try:
            opened = _load(dataset, path, source) if named else open_data("images", source)
        except InputError as error:
            if named or not Path(source).is_dir():
                raise
            return inspect_pictures(Path(source)) | {"refused_by_methods": str(error)}
        if isinstance(opened, ImageSet):
            return describe_images(opened)
        experiment = _as_experiment(opened, source, dataset)
    else:
        with checksums.using("never" if Path(source).is_dir() else None):  # what differs is listed, not refused
            experiment = open_experiment(source)
    result = describe(experiment)
    if probe is not None:
        if named is None:
            raise InputError(f"--probe: single values are given of a dataset's own files, e.g. nsd:DIR; {source} came")
        result["probes"] = (named.probes or probe_values)(experiment, probe)
    if Path(source).is_dir():
        result["files_that_differ_from_checksums"] = folders.verify(source)
    return result


def convert(source: str, out: str) -> dict[str, Any]:
    """Write an experiment folder from a description of your own files, or from `dataset:path` (session by session)."""
    from pulvinar.data import conversion
    from pulvinar.datasets.arrays import read_description

    refuse_existing(out)
    if ":" in source and not Path(source).exists():
        experiment = open_experiment(source)
        folder = conversion.convert(experiment, out)
    else:
        experiment = read_description(source)
        folder = folders.save(experiment, out)
    return {
        "folder": str(folder),
        "name": experiment.name,
        "subjects": list(experiment.subjects),
        "features": list(experiment.stimuli.features),
        "images": experiment.stimuli.read_image is not None,
    }


def simulate(
    out: str, *, layout: str | None = None, config_file: str | None = None, assignments: Sequence[str] = ()
) -> dict[str, Any]:
    """Plant a world and write it as an experiment folder, or in the layout of a dataset that has `generate`."""
    from pulvinar.datasets import simulated

    refuse_existing(out)
    if layout is not None:
        return _simulate_layout(out, layout, config_file, assignments)
    config = load_config(simulated.Config, name="simulated", file=config_file, assignments=assignments)
    experiment = simulated.simulate(config)
    return {"folder": str(folders.save(experiment, out)), "name": experiment.name, "target": experiment.target}


def _simulate_layout(out: str, layout: str, config_file: str | None, assignments: Sequence[str]) -> dict[str, Any]:
    from pulvinar.datasets import simulated

    found = registry.dataset(layout)
    if found.generate is None or found.generated is None:
        raise InputError(f"--layout {layout}: nothing is written in the layout of this dataset")
    config = load_config(found.generated, name=layout, file=config_file, assignments=assignments)

    def plant(shown: ShownImages, **settings: Any) -> Experiment:
        return simulated.simulate(simulated.Config(**settings), shown=shown)

    return found.generate(out, config, plant)
