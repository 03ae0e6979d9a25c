"""How time, memory and disk grow with trials, voxels, images, subjects and cells: `python benchmarks/scale.py FOLDER`.

Each axis has four sizes, each twice the one before, everything else held still. A measured cell is a command of `pulvinar` in a
process of its own, forked from this one, which has the libraries loaded: processor seconds are those of the command alone;
memory is its peak (ru_maxrss), libraries included. A cell is a file in FOLDER/cells, and is not measured again. Printed: the
cells; of time and disk the exponent of each axis, the slope of a straight line through the logarithms, with its standard
error; of time and memory, which begin with what every command does, what one more takes, a line through the sizes; and what
pretraining takes at the sizes of NSD and MOSAIC by the counts of `--dry-run`. Twenty minutes of one core at most.
"""

import argparse
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import scipy.stats
import torch

import pulvinar.app.evaluate
import pulvinar.app.fit
import pulvinar.app.rsa
import pulvinar.app.sweeps.sweep  # noqa: F401 (loaded once, for all forks)
from pulvinar.app import registry
from pulvinar.cli import main as run_command
from pulvinar.data.experiment import save
from pulvinar.datasets.arrays import from_arrays
from pulvinar.decoding.decoder_size import training_phase
from pulvinar.decoding.methods import cross_subject_decoder

N_FEATURES, GIGABYTE = 200, 1e9
RIDGE = ("n_permutations=20", "alphas=10,1000,100000", "folds=5", "baseline=none")
DECODER = ("epochs=4", "hidden=256", "batch_size=50")
TROI = ("pretrain=false", "hidden=256", "epochs=4", "n_rounds=2", "epochs_per_round=2", "n_folds=2", "n_voxels=200")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """sizes: what is varied. prepare: the data of a size, written once, and the command on them and a folder of the run."""

    title: str
    sizes: tuple[int, ...]
    prepare: Callable[[int, Path], list[str]]


def experiment(folder: Path, *, n_images: int, n_voxels: int, n_subjects: int = 1) -> str:
    """Noise with a signal in the features; a tenth of the images test."""
    if folder.is_dir():
        return str(folder)
    rng = np.random.default_rng(0)
    features = rng.standard_normal((n_images, N_FEATURES)).astype(np.float32)
    ids = [f"i{number:05d}" for number in range(n_images)]
    names = [f"s{number:02d}" for number in range(n_subjects)]
    weights = rng.standard_normal((N_FEATURES, n_voxels)).astype(np.float32) / np.sqrt(N_FEATURES)
    made = from_arrays(
        responses={
            name: features @ weights + 2 * rng.standard_normal((n_images, n_voxels), dtype=np.float32) for name in names
        },
        stimulus_ids=dict.fromkeys(names, ids),
        geometry=dict.fromkeys(names, rng.random((n_voxels, 3)) * 100 - 50),
        rois={name: {"annotated": np.ones(n_voxels, bool)} for name in names},
        stimuli=ids,
        features={"clip": features},
        test_share=0.1,
    )
    save(made, folder)
    return str(folder)


def encoding(n_images: int, n_voxels: int, folder: Path) -> list[str]:
    data = experiment(folder / "data", n_images=n_images, n_voxels=n_voxels)
    return ["fit", "ridge_encoding", "--data", data, "--out", str(folder / "run"), "--evaluate", "--set", *RIDGE]


def selection(n_images: int, n_voxels: int, folder: Path) -> list[str]:
    data = experiment(folder / "data", n_images=n_images, n_voxels=n_voxels)
    return ["fit", "troi", "--data", data, "--out", str(folder / "run"), "--set", *TROI, "low_pass=none"]


def pretraining(n_subjects: int, folder: Path) -> list[str]:
    data = experiment(folder / "data", n_images=300, n_voxels=2000, n_subjects=n_subjects + 1)
    return ["fit", "cross_subject_decoder", "--data", data, "--out", str(folder / "run"), "--set", *DECODER]


def dissimilarities(n_images: int, folder: Path) -> list[str]:
    rng, file = np.random.default_rng(0), folder / "rdms.npz"
    if not file.is_file():
        patterns = rng.standard_normal((n_images, 40)) + rng.standard_normal((8, n_images, 40))
        made = np.stack([1 - np.corrcoef(rows) for rows in patterns])
        made[:, np.arange(n_images), np.arange(n_images)] = 0
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(file, mine=made)
        np.save(folder / "model.npy", made.mean(0))
    return ["rsa", "compare", str(folder / "model.npy"), str(file), "--permutations", "50", "--bootstrap", "50"]


def sweep(n_cells: int, folder: Path) -> list[str]:
    data = experiment(folder / "data", n_images=100, n_voxels=200)
    said = {key: value for key, value in (one.split("=") for one in TROI) if key not in ("pretrain", "n_voxels")}
    lines = [
        'method = "troi"',
        f'data = "{data}"',
        f'out = "{folder / "run"}"',
        "controls = false",
        "[set]",
        "pretrain = false",
    ]
    lines += ["n_voxels = 20", 'low_pass = "none"', *(f"{key} = {value}" for key, value in said.items())]
    lines += ["[grid]", f"seed = {list(range(n_cells))}"]
    (folder / "grid.toml").write_text("\n".join(lines) + "\n")
    return ["sweep", str(folder / "grid.toml")]


AXES = {
    "encoding, images": Axis(
        title="images, of 1,000 voxels", sizes=(500, 1000, 2000, 4000), prepare=lambda n, folder: encoding(n, 1000, folder)
    ),
    "encoding, voxels": Axis(
        title="voxels, of 1,000 images", sizes=(1000, 2000, 4000, 8000), prepare=lambda n, folder: encoding(1000, n, folder)
    ),
    "troi, trials": Axis(
        title="trials, of 2,000 voxels", sizes=(200, 400, 800, 1600), prepare=lambda n, folder: selection(n, 2000, folder)
    ),
    "troi, voxels": Axis(
        title="voxels, of 300 trials", sizes=(1000, 2000, 4000, 8000), prepare=lambda n, folder: selection(300, n, folder)
    ),
    "pretraining, subjects": Axis(title="subjects, of 2,000 voxels and 300 trials", sizes=(1, 2, 4, 8), prepare=pretraining),
    "RSA, images": Axis(title="images, 8 subjects", sizes=(50, 100, 200, 400), prepare=dissimilarities),
    "sweep, cells": Axis(title="cells of troi, 200 voxels", sizes=(1, 2, 4, 8), prepare=sweep),
}


def forked(command: list[str], said: Path) -> dict[str, float]:
    """Run a command in a fork; its processor seconds and its peak."""
    began = time.monotonic()
    process = os.fork()
    if process == 0:
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        torch.set_num_threads(1)
        os._exit(run_command([*command, "--quiet"]))
    _, status, used = os.wait4(process, 0)
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"pulvinar {' '.join(command)}\n{said.read_text()}")
    seconds = used.ru_utime + used.ru_stime
    return {"seconds": seconds, "peak": used.ru_maxrss * 1024, "clock": time.monotonic() - began}


def bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else 0


def measure(name: str, axis: Axis, folder: Path) -> Iterator[dict[str, float]]:
    """The cells of an axis, from their files where they are there."""
    for size in axis.sizes:
        file = folder / "cells" / f"{name.replace(', ', '-')}-{size}.json"
        if not file.is_file():
            work = folder / "work"
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            command = axis.prepare(size, work)
            data = bytes_below(work)
            cell = {"size": size, **forked(command, work / "said"), "data": data, "run": bytes_below(work / "run")}
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(cell))
            shutil.rmtree(work)
        yield json.loads(file.read_text())


def exponent(sizes: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and standard error of a line through the logarithms; NaN where a value is 0."""
    if (values <= 0).any():
        return float("nan"), float("nan")
    found = scipy.stats.linregress(np.log(sizes), np.log(values))
    return float(found.slope), float(found.stderr)


def on_paper() -> None:
    """What pretraining of the decoder takes at the sizes of the two sets, by the counts that `--dry-run` states."""
    sets = {
        "NSD, 8 subjects, 15,724 voxels (nsdgeneral)": ([15_724] * 8, [27_000] * 8),
        "NSD, 8 subjects, 220,000 voxels (whole brain)": ([220_000] * 8, [27_000] * 8),
        "MOSAIC, 93 subjects, 59,412 vertices": ([59_412] * 93, [4_624] * 93),
    }
    for hidden in (256, 4096):
        config = cross_subject_decoder.Config(hidden=hidden)
        shape = config.shape(n_tokens=1, dim=768)
        print(f"\npretraining, hidden {hidden}, pooled 768, batch {config.batch_size} a subject, {config.epochs} epochs")
        for name, (voxels, trials) in sets.items():
            phase = training_phase("pretraining", shape, config, n_voxels=voxels, n_trials=trials, train_shared=True)
            state, moved = phase.weights + phase.gradients + phase.optimizer, phase.updated_bytes * phase.n_steps
            print(
                f"  {name}: {phase.n_trained / 1e6:,.0f} million parameters, {state / GIGABYTE:,.0f} GB with gradients and "
                f"AdamW, responses {phase.data / GIGABYTE:,.0f} GB, {phase.multiply_adds * phase.n_steps:.1e} multiply-adds, "
                f"{moved:.1e} bytes that the optimizer moves"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=list(AXES), choices=list(AXES))
    given = parser.parse_args()
    for name in ("ridge_encoding", "troi", "cross_subject_decoder"):
        registry.method(name)  # what a command loads
    for name in given.only:
        axis = AXES[name]
        cells = list(measure(name, axis, given.folder.resolve()))
        print(f"\n{name} ({axis.title})\n   size  processor s  clock s  peak MB  data MB  run MB")
        for cell in cells:
            parts = [cell[key] / 1e6 for key in ("peak", "data", "run")]
            print(
                f"{cell['size']:7d}  {cell['seconds']:11.1f}  {cell['clock']:7.0f}  "
                + "  ".join(f"{part:7.1f}" for part in parts)
            )
        sizes = np.array([cell["size"] for cell in cells], float)
        for key, title in (("seconds", "time"), ("data", "data"), ("run", "run")):
            slope, error = exponent(sizes, np.array([cell[key] for cell in cells], float))
            print(f"  {title}: exponent {slope:.2f} +- {error:.2f}")
        for key, unit, title in (("seconds", 1.0, "s"), ("peak", 1e6, "MB of memory")):
            values = np.array([cell[key] for cell in cells], float) / unit
            line = scipy.stats.linregress(sizes, values)
            said = f"{line.intercept:.1f} {title} and {line.slope:.2g} +- {line.stderr:.1g} for one more"
            print(f"  {said}; from the third to the fourth size times {values[3] / values[2]:.2f}")
        sys.stdout.flush()
    on_paper()


if __name__ == "__main__":
    main()
