"""Writes the sessions beside NSD of a planted world: NSD-synthetic and NSD-imagery, in the form that `beside.py` reads.

Numbers of trials, runs and pictures are theirs; sizes of the pictures, names of conditions and the order of attention betas
were not established, and are ours. An imagined target has the response of a seen one.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pulvinar.core.hdf5 import create_hdf5
from pulvinar.core.storage import write_arrays, write_text
from pulvinar.data.experiment import Experiment
from pulvinar.datasets.nsd.beside import (
    BLOCKS,
    N_COLOUR,
    N_GREY,
    N_SYNTHETIC,
    N_SYNTHETIC_RUNS,
    SYNTHETIC_DESIGN,
    SYNTHETIC_STIMULI,
    TARGETS,
    TRIALS_PER_RUN,
    synthetic_id,
)
from pulvinar.datasets.nsd.files import FIRST_INDEX

ONE_BACKS = 10  # of each run of NSD-synthetic
N_CONDITIONS = 6  # of each set of NSD-imagery
KINDS = ("synthetic", "imagery")


def n_pictures(beside: Sequence[str], n_subjects: int) -> int:
    """How many pictures the sessions need: NSD-synthetic's with every subject's colours, NSD-imagery's sets A and B."""
    found = {"synthetic": N_GREY + N_COLOUR * n_subjects, "imagery": 2 * N_CONDITIONS}
    return sum(found[kind] for kind in beside)


def orders(
    beside: Sequence[str], subject: int, first: int, n_subjects: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Kind -> the world's picture of every trial, for a subject (from 0); `first` is the first of these pictures.

    NSD-synthetic's order is the same for all subjects: give a generator of the same state.
    """
    found = {}
    for kind in beside:
        if kind == "synthetic":
            order = synthetic_order(generator)
            found[kind] = first + np.where(order < N_GREY, order, order + subject * N_COLOUR)
            first += N_GREY + N_COLOUR * n_subjects
        else:
            found[kind] = first + imagery_order(generator)
    return found


def synthetic_order(generator: np.random.Generator) -> np.ndarray:
    """Pictures (from 0) of 744 trials: in each run 83 different ones, ten of them twice in a row."""
    n_shown, n_all = N_SYNTHETIC // N_SYNTHETIC_RUNS - ONE_BACKS, N_GREY + N_COLOUR
    left, order = generator.permutation(n_all), []
    for _ in range(N_SYNTHETIC_RUNS):
        if len(left) < n_shown:
            left = np.concatenate([left, generator.permutation(np.setdiff1d(np.arange(n_all), left))])
        run, left = left[:n_shown], left[n_shown:]
        twice = np.ones(n_shown, int)
        twice[generator.permutation(n_shown)[:ONE_BACKS]] = 2
        order.append(np.repeat(run, twice))
    return np.concatenate(order)


def imagery_order(generator: np.random.Generator) -> np.ndarray:
    """Targets (from 0, set A before set B; of set C those of A) of 720 betas; an attention trial has two."""
    parts = []
    for run, n_betas in BLOCKS.items():
        own = generator.permutation(np.tile(np.arange(N_CONDITIONS), TRIALS_PER_RUN // N_CONDITIONS))
        own = own + (N_CONDITIONS if run[3] == "B" else 0)
        parts.append(np.repeat(own, n_betas // TRIALS_PER_RUN))
    return np.concatenate(parts)


def write_tables(folder: Path, beside: Sequence[str], orders_of: Sequence[Mapping[str, np.ndarray]], first: int) -> None:
    """The design of NSD-synthetic, and the conditions of NSD-imagery for every subject."""
    import scipy.io

    if "synthetic" in beside:
        path = folder / SYNTHETIC_DESIGN
        path.parent.mkdir(parents=True)
        order = (orders_of[0]["synthetic"] - first + FIRST_INDEX)[None]  # the first subject's colours come first
        scipy.io.savemat(path, {"masterordering": order.astype(np.uint16)})
    if "imagery" in beside:
        place = folder / "nsddata" / "bdata" / "nsdimagery"
        place.mkdir(parents=True)
        for number, own in enumerate(orders_of, start=1):
            start, lowest = 0, int(own["imagery"].min())
            for run, n_betas in BLOCKS.items():
                shown = own["imagery"][start : start + n_betas : n_betas // TRIALS_PER_RUN] - lowest
                lines = [condition(run[3], int(one)) for one in shown]
                write_text(place / f"nsdimagery_subj{number:02d}_{run}.tsv", "\n".join(["CONDITION", *lines]) + "\n")
                start += n_betas


def condition(letter: str, target: int) -> str:
    """What a target (from 0) is called in a set."""
    return f"{letter}{target % N_CONDITIONS + 1}"


def write_pictures(folder: Path, experiment: Experiment, beside: Sequence[str], pictures: Sequence[str]) -> None:
    """Pictures and embeddings. pictures: the world's stimulus of each of these pictures, in their order."""
    rows = experiment.stimuli.rows(list(pictures))
    n_subjects, names, start = len(experiment.subjects), [], 0
    subjects = [f"subj{number:02d}" for number in range(1, n_subjects + 1)]
    if "synthetic" in beside:
        place = folder / SYNTHETIC_STIMULI
        place.mkdir(parents=True)
        bricks = {"nsdsynthetic_stimuli": rows[:N_GREY]}
        for number, name in enumerate(subjects):
            own = N_GREY + number * N_COLOUR
            bricks[f"nsdsynthetic_colorstimuli_{name}"] = rows[own : own + N_COLOUR]
        for name, inside in bricks.items():
            with create_hdf5(place / f"{name}.hdf5") as file:
                file.create_dataset("imgBrick", data=np.stack([experiment.stimuli.image(int(row)) for row in inside]))
        names = [synthetic_id(number, "") for number in range(N_GREY)]
        names += [synthetic_id(N_GREY + number, name) for name in subjects for number in range(N_COLOUR)]
        start = len(names)
        _write_embeddings(folder / "features" / "nsdsynthetic", experiment, rows[:start], names)
    if "imagery" in beside:
        place = folder / TARGETS[0] / "rawtargetimages"
        place.mkdir(parents=True)
        conditions = [condition("AB"[target // N_CONDITIONS], target) for target in range(2 * N_CONDITIONS)]
        for one, row in zip(conditions, rows[start:], strict=True):
            Image.fromarray(experiment.stimuli.image(int(row))).save(place / f"target_{one}.png")
        lines = [f"{one},target_{one}.png" for one in conditions]
        write_text(place / "stimuli_info.csv", "\n".join(["condition,file_name", *lines]) + "\n")
        ids = [f"nsdimagery_{one}" for one in conditions]
        _write_embeddings(folder / "features" / "nsdimagery", experiment, rows[start:], ids)


def _write_embeddings(folder: Path, experiment: Experiment, rows: np.ndarray, names: Sequence[str]) -> None:
    for name, values in experiment.stimuli.features.items():
        write_arrays(folder / f"{name}.npz", **{name: np.asarray(values)[rows], "id": np.array(names)})
