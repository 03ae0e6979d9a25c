"""Ridge against partial least squares, and ways to choose a layer, on planted worlds that a perturbed network drives.

    python benchmarks/encoder_choices.py OUT --weights squeezenet1_0_imagenet.npz --images PICTURES

Every fit is a run in OUT; those that are there are not made again. Per ROI: mean over seeds of nested r on outer test images,
its difference to the best single layer, with an interval over images and seeds (crossed bootstrap), by seed, and the processor
seconds of fit and scores.
"""

import time
from pathlib import Path

import numpy as np
from planted_tuning import predictions, run, world, world_arguments

from pulvinar.core.progress import REPORTER
from pulvinar.encoding.files import read_voxel_maps, region_masks
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import correlations
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval

CHOICES = {
    "ridge, best single layer": {"layer_choice": "single"},
    "ridge, layer per ROI": {"layer_choice": "roi"},
    "ridge, layer per voxel": {"layer_choice": "voxel"},
    "ridge, all layers side by side": {"layer_choice": "concatenated"},
    "ridge, banded": {"layer_choice": "banded"},
    "partial least squares, best single layer": {"layer_choice": "single", "regression": "partial_least_squares"},
    "partial least squares, layer per voxel": {"layer_choice": "voxel", "regression": "partial_least_squares"},
    "partial least squares, all layers": {"layer_choice": "concatenated", "regression": "partial_least_squares"},
}


def regions(folder: Path, rois: list[str]) -> dict[str, np.ndarray]:
    """ROI -> which of the encoded voxels are in it."""
    masks = region_masks(read_voxel_maps(RunFolder.reopen(folder), "subj01"))
    return {roi: masks[roi, "both"] for roi in rois}


def gap(pair: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], rows: np.ndarray, inside: np.ndarray) -> float:
    """Mean r over a region's voxels of the first less that of the second, on these test images."""
    measured = pair[0]["measured"][rows][:, inside]
    ours, other = (np.nan_to_num(correlations(one["predicted"][rows][:, inside], measured)) for one in pair)
    return float((ours - other).mean())


def crossed(pairs: list, inside: list[np.ndarray], generator: np.random.Generator) -> tuple[float, float]:
    """95 % interval of the mean gap over seeds, by drawing seeds and, in each, images."""
    drawn = []
    for shares in bootstrap_shares(len(pairs), 200, generator):
        total = 0.0
        for share, pair, voxels in zip(shares, pairs, inside, strict=True):
            n_images = len(pair[0]["measured"])
            total += share * gap(pair, generator.integers(0, n_images, n_images), voxels) if share else 0.0
        drawn.append(total)
    return percentile_interval(np.array(drawn))


def main() -> None:
    arguments = world_arguments(__doc__)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--rois", nargs="+", default=["early", "higher"])
    arguments.add_argument("--n", type=int, default=500)
    arguments.add_argument("--image-size", type=int, default=48)
    arguments.add_argument("--pool", type=int, default=2)
    arguments.add_argument(
        "--powers", type=int, nargs=2, default=[-1, 12], help="alphas: 10 to the first, up to below the last"
    )
    given = arguments.parse_args()
    given.strength, given.ceiling, given.n_subjects = 0.6, 0.6, 1
    REPORTER.quiet = True
    found: dict[str, list] = {name: [] for name in CHOICES}
    scores: dict[tuple[str, str], list[float]] = {}
    seconds: dict[str, list[float]] = {name: [] for name in CHOICES}
    inside = []
    for seed in given.seeds:
        experiment = world(seed, given)
        for name, own in CHOICES.items():
            values = own | {
                "network": given.network,
                "weights": str(given.weights),
                "image_size": str(given.image_size),
                "pool": str(given.pool),
                "roi": ",".join(given.rois),
                "seed": str(seed),
                "alphas": ",".join(str(10.0**power) for power in range(*given.powers)),
                "baseline": "none",
                "n_permutations": "200",
            }
            folder, started = given.out / f"seed{seed}-{name.replace(', ', '-').replace(' ', '_')}", time.process_time()
            _, evaluation = run(folder, "ridge_encoding", experiment, values)
            seconds[name].append(time.process_time() - started)
            found[name].append(predictions(folder, experiment))
            for roi in given.rois:
                row = next(r for r in evaluation["rows"] if r["roi"] == roi and r["hemisphere"] == "both")
                scores.setdefault((roi, name), []).append(row["r_nested"])
            print(f"seed {seed} {name}: {[round(scores[roi, name][-1], 4) for roi in given.rois]}", flush=True)
        inside.append(regions(folder, given.rois))
    first = next(iter(CHOICES))
    for roi in given.rois:
        masks = [one[roi] for one in inside]
        print(f"{roi}: {[int(mask.sum()) for mask in masks]} voxels, {given.n} trials, seeds {given.seeds}")
        for name in CHOICES:
            pairs = list(zip(found[name], found[first], strict=True))
            low, high = crossed(pairs, masks, np.random.default_rng(0))
            by_seed = [ours - other for ours, other in zip(scores[roi, name], scores[roi, first], strict=True)]
            shown = " ".join(f"{one:+.3f}" for one in by_seed)
            print(
                f"| {roi} | {name} | {np.mean(scores[roi, name]):.3f} | {np.mean(by_seed):+.3f} ({low:+.3f} to {high:+.3f}) | "
                f"{shown} | {np.mean(seconds[name]):.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
