"""What the diffusion prior of the shared decoder gives on planted worlds: the table of docs/pictures.md.

    uv run python benchmarks/planted_prior.py --images FOLDER --out FOLDER [--seeds 1 2 3]

images: a folder of photographs (the table has the 1,600 of Caltech-101 in ../shared/data, unpacked). In every world TROI
is fitted three times, from decoders pretrained with the regression head, with the diffusion prior, and without any error beside
the contrastive loss (`prior_weight=0`); the weight of the error is the same in pretraining and in both stages. Test images are
then reconstructed with an image decoder of the same settings and seed, without the low-level branch (the last has no head to
reconstruct from). Intervals are over worlds and, in each, its test images (both drawn with replacement). What is in --out
already is not made again.
"""

import argparse
import csv
import resource
import time
from pathlib import Path

import numpy as np
from planted_nsd import cell, hits

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import simulate
from pulvinar.app.reconstruct import reconstruct
from pulvinar.core.progress import log
from pulvinar.core.storage import write_json
from pulvinar.scores.retrieval import DIRECTIONS

WORLD = ("n_voxels=3000", "n_subjects=3", "n_pretraining_trials=500", "n_test_images=150")
PRIORS = {
    "regression head": [],
    "diffusion prior": ["pretrained.prior=diffusion"],
    "neither": ["prior_weight=0", "pretrained.prior_weight=0"],
}
PICTURES = ("low_level_epochs=0",)
PICTURE_SCORES = ("pixcorr", "ssim", "colour", "energy")


def run_world(seed: int, name: str, *, images: str, out: Path) -> tuple[dict[str, np.ndarray], float]:
    """Score -> per test image of one world and one kind of prior; processor seconds of what was made now."""
    started, data, run = time.process_time(), out / f"world-{seed}", out / f"{name.replace(' ', '-')}-{seed}"
    if not data.exists():
        simulate(str(data), assignments=[f"seed={seed}", f"images={images}", *WORLD])
    assignments = [f"seed={seed}", f"pretrained.seed={seed}", "n_voxels=200", *PRIORS[name]]
    fitting.fit("troi", data=str(data), out=str(run), assignments=assignments, resume=True)
    if not (run / "evaluation.json").is_file():
        evaluating.evaluate(str(run), controls=False)
    scores = hits(run, str(data))["troi"]
    if name != "neither":
        table = run / "reconstructions" / "scores.csv"
        if not table.is_file():
            reconstruct(str(run), images="all", controls=False, assignments=PICTURES)
        with table.open() as file:
            rows = sorted(csv.DictReader(file), key=lambda row: row["stimulus"])
        scores |= {key: np.array([float(row[key]) for row in rows]) for key in PICTURE_SCORES}
    return scores, time.process_time() - started


def table(found: dict[str, list[dict[str, np.ndarray]]]) -> str:
    """Every score of every kind, and its paired difference to the first."""
    first = next(iter(found))
    lines = ["| | " + " | ".join(found) + " | " + " | ".join(f"{name} minus {first}" for name in list(found)[1:]) + " |"]
    lines += ["|---" * (2 * len(found)) + "|"]
    for key in (*DIRECTIONS, *PICTURE_SCORES):
        cells = [cell([world[key] for world in worlds]) if key in worlds[0] else "–" for worlds in found.values()]
        for worlds in list(found.values())[1:]:
            pairs = zip(worlds, found[first], strict=True)
            cells += [cell([a[key] - b[key] for a, b in pairs], sign=True) if key in worlds[0] else "–"]
        lines.append(f"| {key} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in PRIORS}
    for seed in given.seeds:
        for name, worlds in found.items():
            scores, seconds = run_world(seed, name, images=given.images, out=given.out)
            worlds.append(scores)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            log(f"world {seed}, {name}: {seconds:.0f} processor seconds, peak of the process {peak:.1f} GB")
        text = table(found)
        write_json(given.out / "priors.json", {"seeds": given.seeds[: len(worlds)], "table": text})
        print(text, flush=True)


if __name__ == "__main__":
    main()
