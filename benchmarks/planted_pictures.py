"""Reconstructions on planted worlds against their controls: the tables of docs/pictures.md.

    uv run python benchmarks/planted_pictures.py --runs FOLDER --weights FOLDER [--seeds 1 2 3] [--measures squeezenet1_0]

runs: what `planted_nsd.py --part main` made: worlds in NSD's layout whose four subjects see photographs, and a run of troi on
one session of each. weights: files of weights of the networks that compare pictures. Parts are trained with the diffusion
prior, and the regression head is scored beside it with the same parts. What is there already is not made again.
"""

import argparse
from pathlib import Path

import numpy as np

from pulvinar.commands import fit as fitting
from pulvinar.storage import read_json

SETTINGS = ("prior=diffusion", "n_images=2000")


def run_world(seed: int, *, runs: Path, weights: str, measures: list[str]) -> dict:
    """The evaluation of the pictures of one world."""
    decoder, folder = runs / f"troi-{seed}", runs / f"pictures-{seed}"
    data = read_json(decoder / "run.json")["data"]["path"]
    asked = [f"seed={seed}", f"weights={weights}", f"measures={','.join(measures)}", *SETTINGS]
    fitting.fit("picture_decoder", data=data, out=str(folder), backbone=str(decoder), assignments=asked, resume=True)
    if not (folder / "evaluation.json").is_file():
        fitting.evaluate(str(folder))
    return read_json(folder / "evaluation.json")


def table(worlds: list[dict]) -> str:
    """Mean over worlds, the worlds in order, and the paired difference of each row to the first with its interval."""
    metrics = list(worlds[0]["metrics"])
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    found = {row["name"]: [next(r for r in world["rows"] if r["name"] == row["name"]) for world in worlds]
             for row in worlds[0]["rows"]}  # fmt: skip
    for name, rows in found.items():
        cells = [
            f"{np.mean([row[metric] for row in rows]):.3f} ({' '.join(f'{row[metric]:.3f}' for row in rows)})"
            for metric in metrics
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "| minus ours, world by world | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for name, rows in list(found.items())[1:]:
        cells = []
        for metric in metrics:
            bounds = [(row[f"{metric}_difference"], *row[f"{metric}_difference_interval"]) for row in rows]
            cells.append(" · ".join(f"{value:+.3f} [{low:+.3f} {high:+.3f}]" for value, low, high in bounds))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--measures", nargs="+", default=["squeezenet1_0"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    given = parser.parse_args()
    print(table([run_world(seed, runs=given.runs, weights=given.weights, measures=given.measures) for seed in given.seeds]))


if __name__ == "__main__":
    main()
