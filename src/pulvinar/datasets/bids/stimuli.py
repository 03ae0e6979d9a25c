"""What the trials of all subjects showed: pictures of stimuli/, or labels alone; and which of them are the test."""

import math
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pulvinar.core.errors import FileError, InputError
from pulvinar.core.progress import log
from pulvinar.data.image_files import ImageFiles, list_images
from pulvinar.data.image_ids import ImageNames, ids_of, ids_of_mentions
from pulvinar.data.pictures import SUFFIXES
from pulvinar.data.set_folder import stimuli_of
from pulvinar.data.splits import Split, split_by_source
from pulvinar.data.stimuli import Stimuli
from pulvinar.data.stimulus_files import SIDES
from pulvinar.data.tables import read_table
from pulvinar.datasets.bids.facts import OWN
from pulvinar.datasets.bids.runs import BidsRun
from pulvinar.datasets.bids.settings import Options

TEST_SHARE = 0.2
Runs = Mapping[str, Sequence[BidsRun]]  # subject -> its runs
Ids = dict[str, list[str]]  # subject -> an id for each trial


def require_one_kind(subjects: Runs) -> bool:
    """Whether labels alone are shown; `InputError` where some subjects see images and others labels."""
    kinds = {name: runs[0].labels_shown for name, runs in subjects.items()}
    if len(set(kinds.values())) > 1:
        pictures = [name for name, labels in kinds.items() if not labels]
        raise InputError(
            f"{', '.join(pictures)} see images, the others labels; choose with shown=images or shown=labels, or subjects=..."
        )
    return next(iter(kinds.values()))


# --- images -----------------------------------------------------------------------------------------------------------


def images_shown(root: Path, subjects: Runs, options: Options) -> tuple[Stimuli, Ids]:
    """The images that trials name, and the id of each trial's."""
    mentions = {name: [shown for run in runs for shown in run.shown.names] for name, runs in subjects.items()}
    written = list(dict.fromkeys(name for own in mentions.values() for name in own))
    id_of, paths = _found(root / "stimuli", written, options)
    shown = {name: [id_of[mention] for mention in own] for name, own in mentions.items()}
    ids = sorted(set(id_of.values()))
    files = ImageFiles([paths[name] for name in ids]) if paths else None
    stimuli = stimuli_of(root / OWN, ids, options, read_image=files, labels=_labels(subjects, shown, ids))
    return replace(stimuli, pixel_keys=None), shown  # nobody has said that the pictures differ


def _found(folder: Path, written: Sequence[str], options: Options) -> tuple[dict[str, str], dict[str, Path]]:
    """Mention -> id, and id -> picture: below stimuli/ as BIDS has it, else by the rule of `data.image_ids`."""
    origin = f"events (beside {folder})"
    if not options.images or not folder.is_dir():
        if options.images:
            log(f"{folder} is not there; going on without images")
        return ids_of_mentions(written, origin=origin), {}
    places = {name: posixpath.normpath(name.replace("\\", "/")) for name in written}
    outside = [name for name, place in places.items() if place.startswith(("/", ".."))]
    if outside:
        raise InputError(f"{folder}: '{outside[0]}' of the events leads out of the folder of stimuli")
    if all((folder / place).is_file() for place in places.values()):
        _require_pictures(folder, list(places.values()))
        unique = sorted(set(places.values()))
        id_of = dict(zip(unique, ids_of(unique, origin=str(folder)), strict=True))
        return {name: id_of[place] for name, place in places.items()}, {id_of[place]: folder / place for place in unique}
    names, paths = list_images(folder)
    rows = names.rows(written, origin=origin, what="pictures")
    by_id = {names.ids[row]: paths[row] for row in rows}
    return {name: names.ids[row] for name, row in zip(written, rows, strict=True)}, by_id


def _require_pictures(folder: Path, places: Sequence[str]) -> None:
    other = next((place for place in places if Path(place).suffix.lower() not in SUFFIXES), None)
    if other is not None:
        raise FileError(f"{folder / other}: is no picture ({', '.join(SUFFIXES)}); images=false goes on with the names alone")


def _labels(subjects: Runs, shown: Ids, ids: Sequence[str]) -> list[str] | None:
    """The type of each image, where types differ between images and each has one."""
    kinds: dict[str, set[str]] = {name: set() for name in ids}
    for subject, runs in subjects.items():
        types = [kind for run in runs for kind in run.shown.types]
        for name, kind in zip(shown[subject], types, strict=True):
            kinds[name].add(kind)
    if any(len(own) != 1 or "" in own for own in kinds.values()) or len({*map(frozenset, kinds.values())}) < 2:
        return None
    return [next(iter(kinds[name])) for name in ids]


def split_images(root: Path, stimuli: Stimuli, options: Options) -> tuple[Stimuli, Split, str]:
    """The split of the table's column, or a random one by source picture; the stimuli with what the table says of them."""
    if options.test_runs:
        raise InputError(
            "test_runs: images are repeated across runs, so the test is chosen by images: test_share=... or table=..."
        )
    place = Path(options.table) if options.table else root / OWN / "stimuli.csv"
    sides: dict[str, str] = {}
    if options.table or place.is_file():
        stimuli, sides = _with_table(place, stimuli)
    if sides and options.test_share is not None:
        raise InputError(f"{place}: has a column 'split', and test_share is given too; keep one of them")
    if sides:
        chosen = {side: tuple(name for name in stimuli.ids if sides.get(name) == side) for side in ("train", "test")}
        return stimuli, Split(train=chosen["train"], test=chosen["test"]), f"column 'split' of {place.name}"
    share = options.test_share or TEST_SHARE
    return (
        stimuli,
        split_by_source(stimuli, test_share=share, seed=options.seed),
        f"{share:g} of the images, seed {options.seed}",
    )


def _with_table(path: Path, stimuli: Stimuli) -> tuple[Stimuli, dict[str, str]]:
    table = read_table(path)
    names = ImageNames(table.full_column("id"), str(path))
    rows = names.rows(stimuli.ids, origin="events", what="stimuli", different=True)
    given = {
        name: [table.optional_column(name)[row] for row in rows] for name in ("source", "label", "split") if table.has(name)
    }
    wrong = [cell for cell in given.get("split", ()) if cell not in SIDES]
    if wrong:
        raise InputError(f"{path}: column 'split' says '{wrong[0]}'; 'train', 'test' or nothing fits")
    if "source" in given:
        stimuli = replace(stimuli, sources=[own or name for own, name in zip(given["source"], stimuli.ids, strict=True)])
    if "label" in given:
        stimuli = replace(stimuli, labels=given["label"])
    return stimuli, {name: side for name, side in zip(stimuli.ids, given.get("split", ()), strict=False) if side}


# --- labels alone -----------------------------------------------------------------------------------------------------


def labels_shown(subjects: Runs) -> tuple[Stimuli, Ids, dict[str, int | None]]:
    """A stimulus for each block, named after its run and label; and the number of its run by id."""
    label_of: dict[str, str] = {}
    number_of: dict[str, int | None] = {}
    shown: Ids = {}
    for subject, runs in subjects.items():
        shown[subject] = []
        for run in runs:
            counts: dict[str, int] = {}
            for place in range(len(run.shown.names)):
                label = run.shown.names[place]
                counts[label] = counts.get(label, 0) + 1
                name = f"{run.key}_{label.replace('/', '-')}_{counts[label]}"
                label_of[name], number_of[name] = label, run.number
                shown[subject].append(name)
    ids = list(label_of)
    return Stimuli(ids=ids, sources=ids, labels=[label_of[name] for name in ids]), shown, number_of


def split_runs(subjects: Runs, stimuli: Stimuli, run_of: Mapping[str, int | None], options: Options) -> tuple[Split, str]:
    """Whole runs are the test: those that are named, or the last ones of every session."""
    if options.table is not None:
        raise InputError("table: is of images; with labels alone whole runs are the test: test_runs=...")
    numbers = sorted({number for number in run_of.values() if number is not None})
    if None in run_of.values() or len(numbers) < 2:
        raise InputError(
            f"with labels alone whole runs are the test, as blocks of a run share its drift; two or more numbered runs "
            f"(run-1, run-2) are "
            f"needed, {len(numbers)} came of {', '.join(subjects)}"
        )
    strangers = [number for number in options.test_runs if number not in numbers]
    if strangers:
        raise InputError(f"test_runs: there is no run {strangers[0]}; there are: {', '.join(map(str, numbers))}")
    n_test = math.ceil((options.test_share or TEST_SHARE) * len(numbers))
    test = set(options.test_runs) or set(numbers[len(numbers) - n_test :])
    if len(test) == len(numbers):
        raise InputError(f"test_runs: all {len(numbers)} runs are the test; leave some for training")
    chosen = {True: tuple(name for name in stimuli.ids if run_of[name] in test)}
    chosen[False] = tuple(name for name in stimuli.ids if run_of[name] not in test)
    return Split(train=chosen[False], test=chosen[True]), f"whole runs: {', '.join(map(str, sorted(test)))}"


def trial_numbers(runs: Sequence[BidsRun]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Session, run and place (which of the runs, row) of every trial of a subject: (trial,), (trial,), (trial, 2).

    Runs have the numbers of their names, or are counted from 0 where one has none.
    """
    counts = [len(run.shown.names) for run in runs]
    stated = [run.number for run in runs if run.number is not None]
    place = np.repeat(np.arange(len(runs)), counts)
    row = np.concatenate([np.arange(count) for count in counts])
    numbers = np.repeat(stated, counts) if len(stated) == len(runs) else place
    return np.repeat([run.session for run in runs], counts), numbers, np.stack([place, row], axis=1)
