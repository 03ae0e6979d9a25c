"""What a sweep costs beyond its cells, and whether it loses any: `python benchmarks/sweep_engines.py [FOLDER] [N_CELLS]`.

The same tiny cells one after the other and in two worker processes, of which two are killed with SIGKILL at random. Printed:
whether all are done once and the tables are equal, byte for byte, and what lies between two cells of a worker.
"""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from pulvinar.app.data import simulate
from pulvinar.app.sweeps.jobs import Journal

GRID = """
method = "troi"
data = "{world}"
out = "{out}"
controls = false
[set]
n_voxels = 20
epochs = 1
n_rounds = 1
epochs_per_round = 1
n_folds = 2
pretrain = false
hidden = 16
[grid]
seed = {seeds}
"""
N_KILLS = 2


def run(folder: Path, world: Path, n_cells: int, *options: str, kills: int = 0) -> tuple[float, str]:
    """Seconds and stderr of a sweep; kills of its workers at random moments."""
    folder.mkdir()
    text = GRID.replace("{world}", str(world)).replace("{out}", str(folder / "out"))
    (folder / "grid.toml").write_text(text.replace("{seeds}", str(list(range(n_cells)))))
    command = [sys.executable, "-m", "pulvinar.cli", "sweep", str(folder / "grid.toml"), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=said)
        generator = random.Random(0)
        for number in range(1, kills + 1):
            at = n_cells * number // (kills + 1)
            while len(list((folder / "out").glob("*/evaluation.json"))) < at and process.poll() is None:
                time.sleep(0.2)
            time.sleep(generator.uniform(0, 1))
            kill_one(folder / "out", generator)
        process.wait()
    if process.returncode:
        sys.exit((folder / "said").read_text())
    return time.perf_counter() - began, (folder / "said").read_text()


def kill_one(out: Path, generator: random.Random) -> None:
    """SIGKILL to one of the processes that say they run a cell."""
    while True:
        journals = [Journal.read(path) for path in (out / "jobs").glob("*.json")]
        running = [journal.process for journal in journals if journal.state == "running"]
        if running:
            os.kill(generator.choice(running), signal.SIGKILL)
            return


def gaps(out: Path) -> np.ndarray:
    """Seconds between the end of a cell and the beginning of the next, in one process."""
    journals = [Journal.read(path) for path in (out / "jobs").glob("*.json")]
    ordered = sorted(journals, key=lambda journal: (journal.process, journal.began))
    pairs = [pair for pair in itertools.pairwise(ordered) if pair[0].process == pair[1].process]
    return np.array([after.began - before.began - before.seconds for before, after in pairs])


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="pulvinar-sweeps-"))
    n_cells = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    folder.mkdir(parents=True, exist_ok=True)
    world = folder / "world"
    if not world.exists():
        settings = [
            "n_voxels=200",
            "n_trials=60",
            "n_pretraining_trials=20",
            "n_subjects=2",
            "n_test_images=20",
            "image_size=16",
        ]
        simulate(str(world), assignments=settings)
    serial, _ = run(folder / "serial", world, n_cells)
    local, said = run(folder / "local", world, n_cells, "--workers", "2", kills=N_KILLS)
    tables = [(folder / name / "out" / "table.csv").read_bytes() for name in ("serial", "local")]
    rows = json.loads((folder / "local" / "out" / "table.json").read_text())
    cells = [row["cell"] for row in rows]
    between = gaps(folder / "local" / "out")
    seconds = [Journal.read(path).seconds for path in (folder / "local" / "out" / "jobs").glob("*.json")]
    same = "equal" if tables[0] == tables[1] else "DIFFER"
    print(f"{n_cells} cells, {len(cells)} rows of {len(set(cells))} cells, tables {same}")
    print(f"workers killed: {said.count('its worker was killed')} of {N_KILLS}")
    print(f"one after the other {serial:.1f} s, two workers {local:.1f} s; a cell {np.mean(seconds):.3f} s")
    print(f"between two cells of a worker: median {1000 * np.median(between):.1f} ms, mean {1000 * between.mean():.1f} ms")
    print(f"                               95 % below {1000 * np.percentile(between, 95):.1f} ms")


if __name__ == "__main__":
    main()
