"""Stimuli from an image folder, embedding files and a stimulus table, joined with what the trial tables say about them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import InputError, of_every
from pulvinar.core.progress import log, warn
from pulvinar.data.array_files import read_array, read_ids
from pulvinar.data.image_files import ImageFiles, list_images
from pulvinar.data.image_ids import ImageNames, ids_of_mentions, row_order
from pulvinar.data.pictures import PictureOptions
from pulvinar.data.stimuli import Stimuli
from pulvinar.data.tables import ATTRIBUTES, Table, Trials, read_table

SIDES = ("train", "test", "")
TABLE, FOLDER, FEATURES, TRIALS = "the stimulus table", "the sorted image names", "the feature file's ids", "the sorted ids"


@dataclass(frozen=True, kw_only=True, eq=False)
class StimulusFiles:
    """What `read_stimuli` found: the stimuli, the trial tables with their ids, and what the tables and files say.

    sides: id -> 'train' or 'test', as far as the tables state it. on_trust: what was joined by its order alone -> how.
    """

    stimuli: Stimuli
    trials: Mapping[str, Trials]
    sides: Mapping[str, str]
    on_trust: Mapping[str, str]


def read_stimuli(
    *,
    images: Path | None,
    features: Mapping[str, tuple[Path, str | None]],
    table: Path | None,
    trials: Mapping[str, Trials],
    pictures: PictureOptions | None = None,
) -> StimulusFiles:
    """The stimuli, and the trials by their ids; `data.image_ids` has the rule by which names are joined.

    Which stimuli there are, and their order: column `id` of the table; else the images, sorted by id; else the names inside
    a feature file; else the names of the trials, sorted. Rows of a feature file that holds no names are taken in this order,
    with a warning; over a folder of images only where the names have a single order. `source`, `label` and `split` come from
    the stimulus table, or else from the trial tables, which then must agree with each other.

    features: name -> (file, name of the array in it). pictures: how image files are read.
    """
    rows = read_table(table) if table is not None else None
    files = list_images(images) if images is not None else None
    named, where = _named(rows, files, features)
    if named is None:
        joined, ids = _joined_mentions(trials)
    else:
        joined, ids = of_every(trials, lambda subject: _joined(trials[subject], named)), sorted_ids(named, where)
    given = {name: _attribute(name, rows, named, joined) for name in ATTRIBUTES}
    listed = ImageNames(ids, "the trial tables") if named is None else named
    on_trust: dict[str, str] = {}
    read = of_every(features, lambda name: _read_feature(name, *features[name], listed, ids, where, on_trust))
    stimuli = Stimuli(
        ids=ids,
        sources=[given["source"].get(name) or name for name in ids],
        labels=[given["label"].get(name, "") for name in ids] if given["label"] else None,
        features=read,
        read_image=None if files is None else ImageFiles(_in_order(files, listed, ids), pictures),
    )
    sides = {name: side for name, side in given["split"].items() if side}
    return StimulusFiles(stimuli=stimuli, trials=joined, sides=sides, on_trust=on_trust)


def sorted_ids(named: ImageNames, where: str) -> list[str]:
    """The ids in the order of the rows: sorted for a folder of images, else as they are listed."""
    return sorted(named.ids) if where == FOLDER else list(named.ids)


def _named(
    rows: Table | None,
    files: tuple[ImageNames, list[Path]] | None,
    features: Mapping[str, tuple[Path, str | None]],
) -> tuple[ImageNames | None, str]:
    """The list of stimuli and what kind of list it is; None where only the trial tables name them."""
    if rows is not None:
        return ImageNames(rows.full_column("id"), str(rows.path)), TABLE
    if files is not None:
        return files[0], FOLDER
    for path, _ in features.values():
        ids = read_ids(path)
        if ids is not None:
            return ImageNames(ids, str(path)), FEATURES
    if features:
        path = next(iter(features.values()))[0]
        raise InputError(
            f"{path}: which stimulus is in which row? Give stimuli.table (column 'id', in the order of the rows) or "
            "stimuli.images (rows in the order of the sorted image names), or store the ids in the file as 'id'"
        )
    return None, TRIALS


def _joined(trials: Trials, named: ImageNames) -> Trials:
    rows = named.rows(trials.stimulus_ids, origin=trials.origin)
    return replace(trials, stimulus_ids=[named.ids[row] for row in rows])


def _joined_mentions(trials: Mapping[str, Trials]) -> tuple[dict[str, Trials], list[str]]:
    """The trials by ids that all tables together give, and these, sorted."""
    origin = " and ".join(own.origin for own in trials.values())
    id_of = ids_of_mentions([name for own in trials.values() for name in own.stimulus_ids], origin=origin)
    found = {subject: replace(own, stimulus_ids=[id_of[name] for name in own.stimulus_ids]) for subject, own in trials.items()}
    return found, sorted(set(id_of.values()))


def _attribute(name: str, rows: Table | None, named: ImageNames | None, trials: Mapping[str, Trials]) -> dict[str, str]:
    """Stimulus id -> cell of one column, from the stimulus table if it has the column, else from the trial tables."""
    if rows is not None and named is not None and rows.has(name):
        entries = [
            (stimulus, cell, str(rows.path)) for stimulus, cell in zip(named.ids, rows.optional_column(name), strict=True)
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


def _in_order(files: tuple[ImageNames, list[Path]], listed: ImageNames, ids: Sequence[str]) -> list[Path]:
    """The image file of every id. listed: the list of stimuli, whose names find the files."""
    found, paths = files
    rows = found.order_of(listed, what="stimuli")
    if len(found) > len(listed):
        log(f"{found.origin}: {len(found) - len(listed)} of {len(found)} images are not in the stimulus table and stay unused")
    file_of = {name: paths[row] for name, row in zip(listed.ids, rows, strict=True)}
    return [file_of[name] for name in ids]


def _read_feature(
    name: str,
    path: Path,
    array: str | None,
    listed: ImageNames,
    ids: Sequence[str],
    where: str,
    on_trust: dict[str, str],
) -> np.ndarray:
    """One embedding float32 (stimulus, ...) in the order of the ids; notes in `on_trust` where nothing but order joined it."""
    values = read_array(path, array)
    if values.ndim < 2:
        raise InputError(f"{path}: feature '{name}' must be (stimulus, dim), an array of shape {values.shape} came")
    own_ids = read_ids(path, len(values))
    if own_ids is None:
        if len(values) != len(ids):
            raise InputError(f"{path}: feature '{name}' has {len(values)} rows for {len(ids)} stimuli")
        order = row_order(listed, rows_of=f"{path}: feature '{name}'") if where == FOLDER else where
        on_trust[f"rows of feature {name}"] = (
            f"{path.name} holds no names: its rows are taken in the order of {order}, on trust"
        )
        warn(f"{path}: feature '{name}' holds no names; its rows are taken in the order of {order}, on trust")
        return np.asarray(values, np.float32)
    if len(own_ids) != len(values):
        raise InputError(f"{path}: feature '{name}' has {len(values)} rows, but {len(own_ids)} ids")
    rows = ImageNames(own_ids, str(path)).order_of(listed, what=f"stimuli (feature '{name}')")
    row_of = dict(zip(listed.ids, rows, strict=True))
    return np.asarray(values[[row_of[stimulus] for stimulus in ids]], np.float32)
