"""Reconstructions on planted worlds against their controls: the tables of docs/pictures.md.

    uv run python benchmarks/planted_pictures.py --images FOLDER --weights FOLDER --out FOLDER [--seeds 1 2 3]

images: a folder of photographs (the table has the 1,600 of Caltech-101 in ../shared/data, unpacked). weights: files of weights
of the networks that compare pictures. Each world is planted, decoded by troi, and its test images are reconstructed with the
diffusion prior; the regression head is scored beside it with the same parts. What is in --out already is not made again.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import simulate
from pulvinar.core.storage import read_json, write_json

WORLD = ("n_voxels=3000", "n_subjects=3", "n_pretraining_trials=500", "n_test_images=80")
PARTS = ("prior=diffusion", "prior_epochs=40")


def run_world(seed: int, *, images: str | None, weights: str, measures: list[str], out: Path) -> dict[str, Any]:
    """The evaluation of the pictures of one world."""
    data, run, folder = out / f"world-{seed}", out / f"troi-{seed}", out / f"pictures-{seed}"
    if not data.exists():
        own = [f"images={images}"] if images else []
        simulate(str(data), assignments=[f"seed={seed}", *own, *WORLD])
    fitting.fit("troi", data=str(data), out=str(run), assignments=[f"seed={seed}", "n_voxels=200"], resume=True)
    asked = [f"seed={seed}", f"weights={weights}", f"measures={','.join(measures)}", *PARTS]
    fitting.fit("picture_decoder", data=str(data), out=str(folder), pretrained=str(run), assignments=asked, resume=True)
    if not (folder / "evaluation.json").is_file():
        evaluating.evaluate(str(folder))
    return read_json(folder / "evaluation.json")


def table(worlds: list[dict[str, Any]]) -> str:
    """Mean over worlds, the worlds in order, and the paired difference of each row to the first with its interval."""
    metrics = list(worlds[0]["metrics"])
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    names = [row["name"] for row in worlds[0]["rows"]]
    found = {name: [next(row for row in world["rows"] if row["name"] == name) for world in worlds] for name in names}
    for name, rows in found.items():
        cells = []
        for metric in metrics:
            values = [row[metric] for row in rows]
            cells.append(f"{np.mean(values):.3f} ({' '.join(f'{value:.3f}' for value in values)})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| minus ours, world by world | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name in names[1:]:
        cells = []
        for metric in metrics:
            bounds = [(row[f"{metric}_difference"], *row[f"{metric}_difference_interval"]) for row in found[name]]
            cells.append(" · ".join(f"{value:+.3f} [{low:+.3f} {high:+.3f}]" for value, low, high in bounds))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--measures", nargs="+", default=["squeezenet1_0"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    options = {"images": given.images, "weights": given.weights, "measures": given.measures, "out": given.out}
    worlds = [run_world(seed, **options) for seed in given.seeds]
    write_json(given.out / "worlds.json", worlds)
    print(table(worlds))


if __name__ == "__main__":
    main()
