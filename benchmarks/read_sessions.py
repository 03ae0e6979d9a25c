"""Time and memory to open a data set's folder and read one session of real size, one process for each data set.

    python benchmarks/read_sessions.py WORK [--sets bold5000 god ...]

For each set a folder with one subject and one session at the published shape is made in WORK by the set's own writer (noise
in place of planted responses: what is read is of the same size), opened and read by another process, session by session in
blocks of 64 trials as the methods do, and deleted. Printed, as a table: bytes of the folder, seconds (of the clock and of the
processor) to open and to read, and the reader's peak resident set. The files lie in the page cache, as they were just written.

Not here: LAION-fMRI, whose writer holds a session of 143 x 143 x 143 x 1044 numbers in memory (12 GB); Algonauts 2023, MindEye2
and Algonauts 2019, which are memory maps or small.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BLOCK = 64  # trials


def shape_of(name: str) -> dict[str, Any]:
    """settings of the writer, and where the voxels are: a grid (head inside it), or a count of points or vertices."""
    return {
        "bold5000": {"settings": ["n_sessions=1", "n_repeated=40"], "grid": (69, 87, 70)},  # CSI1: 71 x 89 x 72
        "nsd": {"settings": ["n_sessions=1", "n_test_images=100", "n_test_repeats=1"], "grid": (81, 102, 79)},  # 83 x 104 x 81
        "things_fmri": {  # 211,000 voxels; two sessions are the least that its writer writes
            "settings": ["n_sessions=2", "n_test=100", "n_train=720"],
            "grid": (66, 81, 69),
        },
        "mosaic": {"settings": ["n_train=600", "n_test=50"], "points": 59_412},  # 91,282 float64 a trial, 750 trials
        "nod": {"settings": ["n_sessions=1", "n_runs=10", "n_trials=100"], "points": 59_412},
        "god": {
            "settings": ["n_train=1200", "n_test=50", "n_repeats=35", "n_imagery=500"],
            "points": 4500,
        },
        "deeprecon": {
            "settings": ["n_train=1200", "n_train_repeats=5", "n_test=50", "n_test_repeats=24", "n_artificial=2"],
            "points": 11_700,
        },
    }[name]


def planted(shown: Sequence[Sequence[tuple[int, np.ndarray]]], *, grid: tuple[int, ...] | None, points: int | None) -> Any:
    """An experiment of noise for a writer: voxels of a head in a grid, or points of two hemispheres."""
    from pulvinar.data.experiment import Experiment
    from pulvinar.data.geometry import Geometry
    from pulvinar.data.responses import Responses
    from pulvinar.data.rois import ROIs
    from pulvinar.data.splits import Split
    from pulvinar.data.stimuli import Stimuli

    generator = np.random.default_rng(0)
    n_test = planted.n_test  # type: ignore[attr-defined]
    n_images = max(int(numbers.max()) for own in shown for _, numbers in own) + 1
    ids = [f"image{row:05d}" for row in range(n_images)]
    pictures = generator.integers(0, 256, (n_images, 16, 16, 3), dtype=np.uint8)
    if grid is not None:
        centred = (np.indices(grid).reshape(3, -1).T + 0.5) / np.array(grid) * 2 - 1
        index = np.indices(grid).reshape(3, -1).T[(np.abs(centred) ** 2.2).sum(1) < 1]
        index = np.concatenate([index, np.diag(np.array(grid) - 1), np.zeros((1, 3), int)])  # the grid is as large as said
        index = np.unique(index, axis=0)
        geometry = Geometry.from_index(index, shape=grid, affine=np.diag([1.8, 1.8, 1.8, 1.0]))
    else:
        places = generator.normal(size=(points or 0, 3))
        places[:, 0] = np.where(np.arange(points or 0) < (points or 0) // 2 - 10, -1, 1) * (1 + np.abs(places[:, 0]))
        geometry = Geometry.from_points(places)
    n_voxels, subjects, truth = geometry.n_voxels, {}, {}
    area = np.where(np.arange(n_voxels) % 3 == 0, np.arange(n_voxels) * 5 // n_voxels + 1, 0)
    for number, own in enumerate(shown, start=1):
        rows = np.concatenate([numbers for _, numbers in own])
        subject = f"subj{number:02d}"
        subjects[subject] = Responses(
            subject=subject,
            values=generator.integers(-900, 900, (len(rows), n_voxels), dtype=np.int16),
            scale=1 / 300,
            stimulus_ids=[ids[row] for row in rows],
            sessions=np.concatenate([np.full(len(numbers), session) for session, numbers in own]),
            geometry=geometry,
            rois=ROIs({"annotated": area > 0}, n_voxels=n_voxels),
        )
        truth[subject] = {"area": area, "responsive": area > 0, "irrelevant": area < 0, "noise_ceiling": 0.5 * (area > 0)}
    return Experiment(
        name="noise",
        stimuli=Stimuli(
            ids=ids,
            sources=ids,
            features={"embedding": generator.normal(size=(n_images, 64)).astype(np.float32)},
            read_image=lambda row: pictures[row],
            pixel_keys=ids,
        ),
        subjects=subjects,
        split=Split(train=tuple(ids[n_test:]), test=tuple(ids[:n_test])),
        target="subj01",
        truth=truth,
    )


def write(name: str, folder: Path) -> None:
    """The folder of a set, by its own writer."""
    from pulvinar.app import registry
    from pulvinar.core.config import load

    found, shape = registry.dataset(name), shape_of(name)
    config = load(found.generated, name=name, assignments=[*shape["settings"], "n_subjects=1", "image_size=16"])

    def plant(shown: Any, **settings: Any) -> Any:
        planted.n_test = settings["n_test_images"]  # type: ignore[attr-defined]
        return planted(shown, grid=shape.get("grid"), points=shape.get("points"))

    found.generate(str(folder), config, plant)


def read(name: str, folder: Path) -> dict[str, Any]:
    """Seconds, sizes and peak memory of this process, which does nothing else."""
    from pulvinar.app.data import open_data

    begun, busy = time.perf_counter(), time.process_time()
    experiment = open_data("experiment", f"{name}:{folder}")
    opened, busy_opened = time.perf_counter() - begun, time.process_time() - busy
    own = experiment.subjects[experiment.target]
    begun, busy, total = time.perf_counter(), time.process_time(), 0.0
    for start in range(0, own.n_trials, BLOCK):
        total += float(np.nansum(own.read(np.arange(start, min(start + BLOCK, own.n_trials)))[:, :7]))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "trials": own.n_trials,
        "voxels": own.n_voxels,
        "open": [opened, busy_opened],
        "read": [time.perf_counter() - begun, time.process_time() - busy],
        "peak_gb": peak * 1024 / 1e9,
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("work", type=Path)
    arguments.add_argument("--sets", nargs="+", default=["god", "deeprecon", "nod", "bold5000", "mosaic", "things_fmri", "nsd"])
    arguments.add_argument("--write", help=argparse.SUPPRESS)
    arguments.add_argument("--read", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.write:
        return write(given.write, given.work)
    if given.read:
        print(json.dumps(read(given.read, given.work)))
        return None
    given.work.mkdir(parents=True, exist_ok=True)
    heads = ["set", "trials x voxels", "folder, GB", "open, s (processor)", "read, s (processor)", "peak, GB"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for name in given.sets:
        folder = given.work / name
        try:
            subprocess.run([sys.executable, __file__, str(folder), "--write", name], check=True, stderr=subprocess.DEVNULL)
            n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            command = [sys.executable, __file__, str(folder), "--read", name]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            print(row_of(name, n_bytes, json.loads(said.splitlines()[-1])), flush=True)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return None


def row_of(name: str, n_bytes: int, found: Mapping[str, Any]) -> str:
    """A line of the table."""
    times = [f"{found[part][0]:.1f} ({found[part][1]:.1f})" for part in ("open", "read")]
    sizes = f"{found['trials']:,} x {found['voxels']:,} | {n_bytes / 1e9:.2f}"
    return f"| {name} | {sizes} | {' | '.join(times)} | {found['peak_gb']:.2f} |"


if __name__ == "__main__":
    main()
