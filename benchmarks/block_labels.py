"""Voxels chosen from labels alone: Haxby et al. 2001, subject 1, one posterior half slice, blocks of eight categories.

    python benchmarks/block_labels.py haxby2001_sub1_dev.npz OUT [method ...]

A block is one trial: its volumes, taken two volumes (5 s) later for the haemodynamic delay, averaged. Series are detrended and
z-scored in each run with its own mean and spread, those held out too. Three folds of three runs are held out in turn; the table
is the mean over folds.
"""

import sys
from pathlib import Path

import numpy as np
from nilearn.signal import clean

import pulvinar
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.splits import Split
from pulvinar.datasets.arrays import from_arrays

DELAY = 2  # volumes
FOLDS = ((0, 1, 2), (3, 4, 5), (6, 7, 8))


def blocks(path: str) -> tuple[np.ndarray, list[str], list[int], np.ndarray, np.ndarray]:
    """Mean of each block (block, voxel), its label and run; mask and affine."""
    with np.load(path, allow_pickle=False) as file:
        mask, affine, names = file["mask"].astype(bool), file["affine"], file["label_names"]
        target, run = file["target"], file["run"]
        series = clean(file["bold"][mask].T.astype(float), runs=run, detrend=True, standardize="zscore_sample")
    borders = np.flatnonzero((np.diff(target) != 0) | (np.diff(run) != 0)) + 1
    values, labels, runs = [], [], []
    for volumes in np.split(np.arange(len(target)), borders):
        if target[volumes[0]]:
            late = volumes + DELAY
            values.append(series[late[(late < len(run))]][run[late[late < len(run)]] == run[volumes[0]]].mean(0))
            labels.append(str(names[target[volumes[0]]]))
            runs.append(int(run[volumes[0]]))
    return np.array(values), labels, runs, mask, affine


def experiment(path: str, held_out: tuple[int, ...]) -> Experiment:
    """A stimulus for each block, with its label and nothing else."""
    values, labels, runs, mask, affine = blocks(path)
    ids = [f"run{run}-{label}" for run, label in zip(runs, labels, strict=True)]
    sides = {side: tuple(n for n, run in zip(ids, runs, strict=True) if (run in held_out) == (side == "test"))
             for side in ("train", "test")}  # fmt: skip
    return from_arrays(
        name="haxby2001",
        responses={"sub-1": values},
        stimulus_ids={"sub-1": ids},
        geometry={"sub-1": Geometry.from_mask(mask, affine)},
        stimuli=ids,
        labels=labels,
        runs={"sub-1": np.array(runs)},
        split=Split(**sides),
    )


def main(path: str, out: str, methods: list[str]) -> None:
    """Fit and evaluate every method on every fold; print the mean over folds of each row's top-1."""
    for method in methods:
        tables = []
        for number, held_out in enumerate(FOLDS):
            folder, data = Path(out) / f"{method}-{number}", experiment(path, held_out)
            settings = {"pretrain": False, "n_voxels": 100, "drop_bad_voxels": True, "beside": "usual"}
            run = pulvinar.fit(method, data, out=folder, **settings)
            tables.append({row["name"]: row for row in run.evaluate(data=data).result["rows"]})
        for name, row in tables[0].items():
            found = [table[name]["brain_to_image_top1"] for table in tables]
            mean = "" if None in found else f"{np.mean(found):.3f}"
            print(f"{method:6} {name:20} {row.get('n_voxels')!s:>5} {mean:>6}  {found}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["troi"])
