"""The memory that `pulvinar fit … --dry-run` states, beside what the fit then takes: peak of the resident set of its process.

    python benchmarks/decoder_memory.py --work FOLDER [--only NAME ...]

Each case is an experiment of random numbers, written once into the folder, and one fit of a few steps in a process of its own
(every allocation of a long fit is there in its first steps; checkpoints are written as in any fit).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.data.experiment import Experiment, save
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli

N_TRAIN, N_TEST = 120, 20
SHORT = ["epochs=2", "n_rounds=2", "epochs_per_round=1"]
CASES: dict[str, dict[str, Any]] = {
    "pretraining, 3 x 5,000 voxels, hidden 256, pooled 64": {
        "others": [5000] * 3, "target": 500, "dim": (64,), "set": ["hidden=256"]
    },
    "pretraining, 3 x 15,000 voxels, hidden 1,024, pooled 512": {
        "others": [15000] * 3, "target": 500, "dim": (512,), "set": ["hidden=1024"]
    },
    "pretraining, 2 x 5,000 voxels, hidden 1,024, tokens 64 x 256": {
        "others": [5000] * 2, "target": 500, "dim": (64, 256), "set": ["hidden=1024"]
    },
    "pretraining, 1 x 2,000 voxels, hidden 128, tokens 256 x 1,664": {
        "others": [2000], "target": 500, "dim": (256, 1664), "set": ["hidden=128"]
    },
    "the same in 6 micro-batches": {
        "others": [2000], "target": 500, "dim": (256, 1664), "set": ["hidden=128", "micro_batches=6"]
    },
    "troi, 20,000 voxels, hidden 512, pooled 512, 4 folds": {
        "others": [500], "target": 20000, "dim": (512,), "set": ["n_folds=4", "pretrained.hidden=512"]
    },
    "troi, 96,000 voxels, hidden 1,024, pooled 512, 1 fold": {
        "others": [500], "target": 96000, "dim": (512,), "set": ["n_folds=1", "pretrained.hidden=1024"]
    },
    "troi, 96,000 voxels, hidden 1,024, pooled 512, 4 folds": {
        "others": [500], "target": 96000, "dim": (512,), "set": ["n_folds=4", "pretrained.hidden=1024"]
    },
}  # fmt: skip


def make(case: dict[str, Any], folder: Path) -> None:
    """Random responses on a box of voxels, and a random embedding."""
    rng = np.random.default_rng(0)
    ids = [f"s{number}" for number in range(N_TRAIN + N_TEST)]
    subjects = {}
    for number, n_voxels in enumerate([*case["others"], case["target"]]):
        side = int(np.ceil(n_voxels ** (1 / 3)))
        mask = np.arange(side**3).reshape(side, side, side) < n_voxels
        name = f"subj{number + 1:02d}"
        subjects[name] = Responses(
            subject=name,
            values=rng.standard_normal((len(ids), n_voxels)).astype(np.float32),
            stimulus_ids=ids,
            geometry=Geometry.from_mask(mask, affine=np.eye(4)),
            rois=ROIs({"annotated": np.ones(n_voxels, bool)}, n_voxels=n_voxels),
        )
    embedding = rng.standard_normal((len(ids), *case["dim"])).astype(np.float32)
    experiment = Experiment(
        name="random",
        stimuli=Stimuli(ids=ids, sources=ids, features={"random": embedding}),
        subjects=subjects,
        split=Split(train=tuple(ids[:N_TRAIN]), test=tuple(ids[N_TRAIN:])),
        target=list(subjects)[-1],
    )
    save(experiment, folder)


def run(name: str, case: dict[str, Any], work: Path) -> dict[str, Any]:
    """Stated and measured peak in bytes, and the seconds of both."""
    data, out = work / f"data-{abs(hash(str(case))) % 10**8}", work / "run"
    make(case, data)
    method = "troi" if name.startswith("troi") else "cross_subject_decoder"
    given = [pair for pair in SHORT if method == "troi" or pair.startswith("epochs=")]
    if method == "troi":
        given.append("pretrained.epochs=1")
    command = [sys.executable, "-m", "pulvinar.cli", "fit", method, "--data", str(data)]
    settings = ["--set", *given, *case["set"]]
    stated = json.loads(subprocess.run([*command, "--dry-run", "--json", *settings], check=True, capture_output=True).stdout)
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen([*command, "--out", str(out), "--quiet", *settings])
    _, status, usage = os.wait4(process.pid, 0)
    shutil.rmtree(data)
    shutil.rmtree(out, ignore_errors=True)
    measured = usage.ru_maxrss * 1024
    return {
        "case": name,
        "stated_gb": stated["peak"] / 1e9,
        "measured_gb": measured / 1e9,
        "ratio": stated["peak"] / measured,
        "stated_s": stated["seconds"],
        "processor_s": usage.ru_utime + usage.ru_stime,
        "status": status,
        "phases": [(phase["name"], round(phase["total"] / 1e9, 3)) for phase in stated["phases"]],
        "process_gb": stated["process"] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    for name, case in CASES.items():
        if not options.only or any(part in name for part in options.only):
            print(json.dumps(run(name, case, options.work)), flush=True)


if __name__ == "__main__":
    main()
