"""Stimuli from an image folder, embedding files and a stimulus table, joined with what the trial tables say about them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pulvinar.data.array_files import read_array, read_ids
from pulvinar.data.image_files import ImageFiles, find_images
from pulvinar.data.stimuli import Stimuli
from pulvinar.data.tables import ATTRIBUTES, Table, Trials, read_table
from pulvinar.errors import InputError, NotFoundError
from pulvinar.progress import log

SIDES = ("train", "test", "")


def read_stimuli(
    *,
    images: Path | None,
    features: Mapping[str, tuple[Path, str | None]],
    table: Path | None,
    trials: Mapping[str, Trials],
) -> tuple[Stimuli, dict[str, str]]:
    """The stimuli, and the side of the split of each ('train' or 'test') as the tables state it (empty if they do not).

    The ids and their order: column `id` of the table; else the image names, sorted; else the ids inside a feature file; else
    the ids of the trials, sorted. Rows of a feature file that holds no ids must be in this order. `source`, `label` and
    `split` come from the stimulus table, or else from the trial tables, which then must agree with each other.

    features: name -> (file, name of the array in it).
    """
    rows = read_table(table) if table is not None else None
    files = find_images(images) if images is not None else {}
    ids = _ids(rows, files, features, trials)
    for subject in trials.values():
        _require_known(subject, ids)
    given = {name: _attribute(name, rows, trials) for name in ATTRIBUTES}
    if given["label"]:
        labels: list[str] | None = [given["label"].get(name, "") for name in ids]
    else:
        labels = None
    stimuli = Stimuli(
        ids=ids,
        sources=[given["source"].get(name) or name for name in ids],
        labels=labels,
        features={name: _read_feature(name, path, array, ids) for name, (path, array) in features.items()},
        read_image=ImageFiles(_in_order(files, ids, images)) if images is not None else None,
    )
    return stimuli, {name: side for name, side in given["split"].items() if side}


def _ids(
    rows: Table | None,
    files: Mapping[str, Path],
    features: Mapping[str, tuple[Path, str | None]],
    trials: Mapping[str, Trials],
) -> list[str]:
    if rows is not None:
        return rows.full_column("id")
    if files:
        return list(files)
    for path, _ in features.values():
        ids = read_ids(path)
        if ids is not None:
            return ids
    if features:
        path = next(iter(features.values()))[0]
        raise InputError(
            f"{path}: which stimulus is in which row? Give stimuli.table (column 'id', in the order of the rows) or "
            "stimuli.images (rows in the order of the sorted image names), or store the ids in the file as 'id'"
        )
    return sorted({name for subject in trials.values() for name in subject.stimulus_ids})


def _require_known(trials: Trials, ids: Sequence[str]) -> None:
    known = set(ids)
    unknown = list(dict.fromkeys(name for name in trials.stimulus_ids if name not in known))
    if not unknown:
        return
    stems = [name for name in unknown if Path(name).stem in known]
    hint = f" (an id is the name without folder and suffix: '{Path(stems[0]).stem}', not '{stems[0]}')" if stems else ""
    raise NotFoundError(
        f"{trials.origin}: {len(unknown)} stimulus ids are not among the {len(ids)} stimuli, e.g. {unknown[:3]}{hint}; "
        f"the stimuli are {list(ids[:3])}, ..."
    )


def _attribute(name: str, rows: Table | None, trials: Mapping[str, Trials]) -> dict[str, str]:
    """Stimulus id -> cell of one column, from the stimulus table if it has the column, else from the trial tables."""
    if rows is not None and name in rows.columns:
        entries = [
            (stimulus, cell, str(rows.path)) for stimulus, cell in zip(rows.column("id"), rows.column(name), strict=True)
        ]
    else:
        having = [subject for subject in trials.values() if name in subject.attributes]
        entries = [
            (stimulus, cell, subject.origin)
            for subject in having
            for stimulus, cell in zip(subject.stimulus_ids, subject.attributes[name], strict=True)
        ]
    found: dict[str, tuple[str, str]] = {}
    for stimulus, cell, origin in entries:
        if name == "split" and cell not in SIDES:
            raise InputError(
                f"{origin}: column 'split' says '{cell}' for stimulus '{stimulus}'; 'train', 'test' or nothing fits"
            )
        earlier, where = found.setdefault(stimulus, (cell, origin))
        if earlier != cell:
            raise InputError(f"{name} of stimulus '{stimulus}': '{earlier}' in {where}, but '{cell}' in {origin}")
    return {stimulus: cell for stimulus, (cell, _) in found.items()}


def _in_order(files: Mapping[str, Path], ids: Sequence[str], folder: Path | None) -> list[Path]:
    missing = [name for name in ids if name not in files]
    if missing:
        raise NotFoundError(f"{folder}: {len(missing)} of {len(ids)} stimuli have no image there, e.g. {missing[:3]}")
    if len(files) > len(ids):
        log(f"{folder}: {len(files) - len(ids)} of {len(files)} images are not in the stimulus table and stay unused")
    return [files[name] for name in ids]


def _read_feature(name: str, path: Path, array: str | None, ids: Sequence[str]) -> np.ndarray:
    """One embedding float32 (stimulus, ...) in the order of the ids."""
    values = read_array(path, array)
    if values.ndim < 2:
        raise InputError(f"{path}: feature '{name}' must be (stimulus, dim), an array of shape {values.shape} came")
    own_ids = read_ids(path)
    if own_ids is None:
        if len(values) != len(ids):
            raise InputError(f"{path}: feature '{name}' has {len(values)} rows for {len(ids)} stimuli")
        return np.asarray(values, np.float32)
    if len(own_ids) != len(values) or len(set(own_ids)) != len(own_ids):
        unique = len(set(own_ids))
        raise InputError(f"{path}: feature '{name}' has {len(values)} rows, {len(own_ids)} ids, {unique} of them different")
    row_of = {stimulus: row for row, stimulus in enumerate(own_ids)}
    missing = [stimulus for stimulus in ids if stimulus not in row_of]
    if missing:
        raise NotFoundError(f"{path}: feature '{name}' has no row for {len(missing)} stimuli, e.g. {missing[:3]}")
    return np.asarray(values[[row_of[stimulus] for stimulus in ids]], np.float32)
