"""TROI and its controls on planted worlds in NSD's layout: the tables of docs/nsd.md under "Four subjects who see photographs".

    uv run python benchmarks/planted_nsd.py --images FOLDER --weights FOLDER --out FOLDER [--seeds 1 2 3] [--part main]

images: a folder of photographs (the table has the 1,600 of Caltech-101 in ../shared/data, unpacked). weights: a folder with
mobilenet_v2_imagenet.npz and squeezenet1_0_imagenet.npz. In each world four subjects see crops of the photographs; voxels
follow a changed copy of SqueezeNet, the decoder's target is an embedding by MobileNetV2, and the new subject has one session of
trials. Intervals are over worlds and, in each, its test images (both drawn with replacement). What is in --out already is not
made again.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from pulvinar.app import evaluate as evaluating
from pulvinar.app import fit as fitting
from pulvinar.app.data import open_experiment, simulate
from pulvinar.core.storage import atomic_path, read_arrays, read_json, write_json
from pulvinar.datasets.nsd.files import N_IMAGES
from pulvinar.decoding.decoder_checkpoint import stored_decoder
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.fixed_networks import principal_components
from pulvinar.networks.staged import feature_batches, load_network
from pulvinar.scores.retrieval import DIRECTIONS, near_duplicates, retrieval_scores

WORLD = ("n_subjects=4", "n_sessions=2", "n_voxels=8000", "n_test_images=150")
DRIVER = ("driver=perturbed:squeezenet1_0", "driver_strength=0.3", "tuning_dim=64")
PIXELS, DIM, HOUR = 64, 128, "n_sessions=1"
BUDGETS = {"1/96": 83, "1/48": 167, "1/32": 250, "1/25": 320, "1/10": 800}  # of 8,000; the paper's are the first three
ABLATION = {
    "full": [],
    "without pretraining": ["pretrain=false"],
    "without low-pass": ["low_pass=none"],
    "without rewinding": ["rewind=none"],
    "without low-pass and rewinding": ["low_pass=none", "rewind=none"],
}
SUBJECTS = ("subj01", "subj02", "subj03", "subj04")
CELLS = {
    "main": {"troi": [HOUR]},
    "sessions": {"sessions-2": ["n_sessions=2"]},
    "budgets": {f"budget-{n}": [HOUR, f"n_voxels={n}"] for n in BUDGETS.values() if n != 320},
    "ablation": {name.replace(" ", "-"): [HOUR, *own] for name, own in ABLATION.items() if own},
    "subjects": {f"new-{subject}": [HOUR] for subject in SUBJECTS},
}
World = list[tuple[Path, str, str]]  # run, data and selection of each new subject of one world, whose scores are averaged
WITH_CONTROLS = ("main", "sessions", "subjects")


# --- a world and its runs ---------------------------------------------------------------------------------------------


def make_world(seed: int, *, images: str, weights: Path, out: Path) -> str:
    """The world on disk, with MobileNetV2's embedding of what is shown (components of the training images); as --data."""
    folder = out / f"world-{seed}"
    driver = f"driver_weights={weights / 'squeezenet1_0_imagenet.npz'}"
    if not folder.exists():
        given = [f"seed={seed}", *WORLD, *DRIVER, f"image_size={PIXELS}", f"images={images}", driver]
        simulate(str(folder), layout="nsd", assignments=given)
    source, path = f"nsd:{folder}?image_size={PIXELS}", folder / "features" / "mobilenet.npy"
    if path.exists():
        return source
    experiment = open_experiment(source)
    network = load_network("mobilenet_v2", weights=weights / "mobilenet_v2_imagenet.npz", image_size=PIXELS)
    last = network.stages[-1]
    batches = [batch[last].reshape(-1, network.shapes[last][0]) for batch in feature_batches(
        network, experiment.stimuli, batch_size=64, pool=1, stages=[last]
    )]  # fmt: skip
    fit_rows = torch.from_numpy(experiment.stimuli.rows(list(experiment.split.train)))
    features = torch.from_numpy(np.concatenate(batches))
    table = np.zeros((N_IMAGES, DIM), np.float32)
    rows = [int(name.removeprefix("nsd")) for name in experiment.stimuli.ids]
    table[rows] = principal_components(features, fit_rows=fit_rows, n_components=DIM, whitening=0.5).numpy()
    with atomic_path(path) as place, place.open("wb") as file:
        np.save(file, table)
    return source


def source_of(cell: str, source: str) -> str:
    """The data of a cell: another new subject where its name says so."""
    return f"{source}&target={cell.removeprefix('new-')}" if cell.startswith("new-") else source


def run_cells(part: str, seed: int, source: str, out: Path) -> None:
    """Fit and score the runs of one part in one world; runs for one new subject share one pretrained decoder."""
    own = ["feature=mobilenet", f"seed={seed}"]
    for name, settings in CELLS[part].items():
        folder, data = out / f"{name}-{seed}", source_of(name, source)
        pretrained = out / (f"pretrained-{name}-{seed}" if data != source else f"pretrained-{seed}")
        fitting.fit("cross_subject_decoder", data=data, out=str(pretrained), assignments=own, resume=True)
        pretrained = None if "pretrain=false" in settings else str(pretrained)
        fitting.fit("troi", data=data, out=str(folder), pretrained=pretrained, assignments=[*own, *settings], resume=True)
        if not (folder / "evaluation.json").is_file():
            evaluating.evaluate(str(folder), controls=part in WITH_CONTROLS)


# --- scores -----------------------------------------------------------------------------------------------------------


def hits(run: Path, source: str) -> dict[str, dict[str, np.ndarray]]:
    """Selection -> direction -> whether each test image, by its name, was first (image,), from the predictions in the run."""
    opened, experiment = RunFolder.reopen(run), open_experiment(source)
    embedding, found = stored_decoder(opened).embedding, {}
    for path in sorted((run / "predictions").glob("*.npz")):
        stored = read_arrays(path)
        true = embedding.of(experiment, list(stored["stimulus"])).numpy()
        scored = retrieval_scores(
            stored["predicted"],
            true,
            generator=np.random.default_rng(0),
            excluded=near_duplicates(true, opened.settings()["near_duplicate"]),
            n_permutations=1,
            n_bootstrap=1,
        )
        order = np.argsort(stored["stimulus"])
        found[path.stem] = {direction: scored.per_image[direction].top1[order] for direction in DIRECTIONS}
    return found


def interval(worlds: list[np.ndarray], *, n_bootstrap: int = 4000) -> tuple[float, float, float]:
    """Mean over worlds, and its 95 % interval from worlds drawn with replacement and in each its images."""
    generator = np.random.default_rng(0)
    means = np.array([[values[drawn].mean() for values in worlds] for drawn in generator.integers(
        len(worlds[0]), size=(n_bootstrap, len(worlds[0]))
    )])  # fmt: skip
    chosen = generator.integers(len(worlds), size=(n_bootstrap, len(worlds)))
    low, high = np.quantile(np.take_along_axis(means, chosen, axis=1).mean(1), [0.025, 0.975])
    return float(np.mean([values.mean() for values in worlds])), float(low), float(high)


def cell(worlds: list[np.ndarray], *, sign: bool = False) -> str:
    """`mean [low high] (each world)`."""
    mean, low, high = interval(worlds)
    form = "{:+.3f}" if sign else "{:.3f}"
    return f"{form.format(mean)} [{form.format(low)} {form.format(high)}] ({' '.join(form.format(w.mean()) for w in worlds)})"


def table(runs: list[list[World]], labels: list[str]) -> str:
    """Rows of runs, world by world; the differences are to the first row."""
    cache: dict[Path, dict[str, dict[str, np.ndarray]]] = {}

    def scores(world: World, direction: str) -> np.ndarray:
        return np.mean([cache[run][name][direction] for run, _, name in world], axis=0)

    lines = ["| | voxels | " + " | ".join(f"{d} | minus the first" for d in DIRECTIONS) + " | precision |", "|---" * 7 + "|"]
    for label, row in zip(labels, runs, strict=True):
        for run, source, _ in (one for world in (*row, *runs[0]) for one in world):
            cache[run] = cache.get(run) or hits(run, source)
        cells = []
        for direction in DIRECTIONS:
            values, first = [scores(world, direction) for world in row], [scores(world, direction) for world in runs[0]]
            cells += [cell(values), cell([a - b for a, b in zip(values, first, strict=True)], sign=True)]
        chosen = [one for world in row for one in world]
        facts = [next(r for r in read_json(run / "evaluation.json")["rows"] if r["name"] == name) for run, _, name in chosen]
        voxels = " ".join(str(fact["n_voxels"]) for fact in facts)
        precision = " ".join(f"{fact['precision']:.2f}" for fact in facts)
        lines.append(f"| {label} | {voxels} | {' | '.join(cells)} | {precision} |")
    return "\n".join(lines)


def tables(part: str, sources: dict[int, str], out: Path) -> str:
    """The tables of a part over all worlds."""

    def row(*folders: str, selection: str = "troi") -> list[World]:
        return [[(out / f"{name}-{seed}", source_of(name, source), selection) for name in folders]
                for seed, source in sources.items()]  # fmt: skip

    if part == "ablation":
        folders = {name: "troi" if not own else name.replace(" ", "-") for name, own in ABLATION.items()}
        return table([row(folder) for folder in folders.values()], list(folders))
    if part == "budgets":
        named = {share: "troi" if n == 320 else f"budget-{n}" for share, n in BUDGETS.items()}
        order = ["1/25", *(share for share in named if share != "1/25")]  # the default first: differences are to it
        return table([row(named[share]) for share in order], order)
    folders = tuple(CELLS[part])
    run = out / f"{folders[0]}-{next(iter(sources))}"
    names = [r["name"] for r in read_json(run / "evaluation.json")["rows"]]
    there = [name for name in names if (run / "predictions" / f"{name}.npz").is_file()]
    return table([row(*folders, selection=name) for name in there], there)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--part", nargs="+", choices=list(CELLS), default=list(CELLS))
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sources = {
        seed: make_world(seed, images=given.images, weights=given.weights.resolve(), out=given.out.resolve())
        for seed in given.seeds
    }
    for part in given.part:
        for seed, source in sources.items():
            run_cells(part, seed, source, given.out)
        text = tables(part, sources, given.out)
        write_json(given.out / f"{part}.json", {"table": text})
        print(text, flush=True)


if __name__ == "__main__":
    main()
