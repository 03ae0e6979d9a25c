"""`pulvinar demo`: the main job on a planted world, from nothing to the report."""

import time
from pathlib import Path
from typing import Any

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import simulate
from pulvinar.core.progress import log
from pulvinar.core.storage import refuse_existing
from pulvinar.data import experiment as folders


def free_name(stem: str) -> Path:
    """The first of stem, stem-2, stem-3 … that does not exist."""
    number, path = 1, Path(stem)
    while path.exists():
        number += 1
        path = Path(f"{stem}-{number}")
    return path


def demo(*, seed: int, out: str | None) -> dict[str, Any]:
    """Plant a world, find the new subject's ROI, score it against every control, write the report."""
    started = time.monotonic()
    folder = Path(out) if out else free_name("pulvinar-demo")
    refuse_existing(folder)
    log(f"pulvinar demo: a planted world (seed {seed}), three subjects to learn from and a new one with 600 trials")
    simulate(str(folder / "data"), assignments=[f"seed={seed}"])
    planted = folders.load(folder / "data")
    budget = int(planted.truth[planted.target]["responsive"].sum()) // 2
    run = folder / "run"
    fitting.fit("troi", data=str(folder / "data"), out=str(run), assignments=[f"seed={seed}", f"n_voxels={budget}"])
    evaluation = evaluating.evaluate(str(run), assignments=["beside=usual"])  # the others take as long as all of these together
    page = evaluating.report(str(run))
    return {**evaluation, "seconds": time.monotonic() - started, "report": page["report"], "data": str(folder / "data")}
