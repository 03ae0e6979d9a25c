"""Untuned, regression-tuned, contrastive and pooled networks on planted worlds that a perturbed copy of the network drives.

    python benchmarks/planted_tuning.py OUT --weights squeezenet1_0_imagenet.npz --images FOLDER [--seeds 0 1 2] [--n 1000]
    python benchmarks/planted_tuning.py OUT --real ../shared/data/roi_vtc --weights …

Every fit is a run in OUT; those that are there are not made again. The table has the mean over seeds of nested r on outer test
images, each difference to the untuned network with its interval over images and seeds (crossed bootstrap), by seed, the share
of voxels improved; in how many seeds held-out training images kept the tuned network, and the difference of what was kept.
`--real`: FFA responses to 85 objects (Kay & Yeatman 2017), leave-objects-out in 5 outer folds; its intervals are over objects.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from pulvinar.app import registry
from pulvinar.core.config import build, to_toml
from pulvinar.core.progress import REPORTER
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.simulated import Config, simulate
from pulvinar.encoding.data import outer_splits
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import correlations
from pulvinar.scores.resampling import bootstrap_shares, percentile_interval

N_OBJECTS = 85
METHODS = {
    "regression": ("regression_tuning", {}),
    "contrastive": ("contrastive_encoding", {}),
    "pooled": ("contrastive_encoding", {"pooled": "true"}),
    "selected": ("contrastive_encoding", {"voxels": "selected:90"}),
    "ceiling": ("contrastive_encoding", {"voxels": "ceiling:0.2"}),
}


def settings(given: argparse.Namespace) -> dict[str, str]:
    """What all fits share."""
    return {
        "network": given.network,
        "weights": str(given.weights),
        "image_size": str(given.image_size),
        "layer_choice": "concatenated",
        "batch_size": "64",
        "pool": "1",
        "epochs": str(given.epochs),
        "learning_rate": str(given.learning_rate),
        "head_learning_rate": "0.001",
        "baseline": "none",
        "n_permutations": "200",
    }


def world(seed: int, given: argparse.Namespace) -> Experiment:
    """`n_subjects` subjects, each with its own `n` training images; the last one has the test images, three times each."""
    return simulate(
        Config(
            seed=seed,
            n_subjects=given.n_subjects,
            n_voxels=2000,
            responsive_share=0.3,
            ceiling_median=given.ceiling,
            tuning_dim=8,
            n_trials=given.n,
            n_pretraining_trials=given.n,
            n_test_images=200,
            image_size=given.image_size,
            images=str(given.images) if given.images else None,
            driver=f"perturbed:{given.network}",
            driver_weights=str(given.weights),
            driver_strength=given.strength,
        )
    )


def run(folder: Path, method: str, experiment: Experiment, values: dict[str, str]) -> tuple[RunFolder, dict]:
    """The fitted and scored run; made unless it is there."""
    found = registry.method(method)
    config = build(found.config, values, name=method)
    if (folder / "evaluation.json").is_file():
        return RunFolder.reopen(folder), json.loads((folder / "evaluation.json").read_text())
    if not folder.is_dir():
        facts = {"name": experiment.name, "path": "", "target": experiment.target, "fingerprint": experiment.fingerprint()}
        RunFolder.create(folder, method=method, config_toml=to_toml(config), seed=config.seed, data=facts, topic="encoding")
    opened = RunFolder.reopen(folder)
    if not opened.finished:
        found.train(config, experiment.without_truth(), opened)
    return opened, found.evaluate(opened, experiment, config, controls=False)


def predictions(folder: Path, experiment: Experiment) -> dict[str, np.ndarray]:
    """Predicted (by the tuned network), kept (the run's result: untuned where tuning did not help), untuned, measured."""
    found = dict(np.load(folder / "predictions" / f"{experiment.target}.npz"))
    return found | {"kept": found["predicted"], "predicted": found.get("tuned", found["predicted"])}


def difference(
    found: list[dict[str, np.ndarray]], generator: np.random.Generator, name: str = "predicted"
) -> tuple[float, float, float]:
    """Mean difference of r to the untuned network over seeds, and its interval over images and seeds (crossed)."""
    observed = np.mean([gain_of(one, np.arange(len(one["measured"])), name) for one in found])
    seeds = bootstrap_shares(len(found), 200, generator)
    drawn = [
        sum(share * gain_of(one, generator.integers(0, len(one["measured"]), len(one["measured"])), name)
            for share, one in zip(shares, found, strict=True) if share)
        for shares in seeds
    ]  # fmt: skip
    return float(observed), *percentile_interval(np.array(drawn))


def gain_of(one: dict[str, np.ndarray], rows: np.ndarray, name: str = "predicted") -> float:
    return float(gains_of(one, rows, name).mean())


def gains_of(one: dict[str, np.ndarray], rows: np.ndarray, name: str = "predicted") -> np.ndarray:
    """Of every voxel."""
    measured = one["measured"][rows]
    ours, other = (np.nan_to_num(correlations(one[key][rows], measured)) for key in (name, "untuned"))
    return ours - other


def planted(given: argparse.Namespace) -> None:
    """The table of the planted worlds."""
    rows: dict[tuple[str, str], list[dict]] = {}
    arrays: dict[tuple[str, str], list[dict[str, np.ndarray]]] = {}
    for seed in given.seeds:
        experiment = world(seed, given)
        for roi in given.rois:
            for name in given.methods:
                method, own = METHODS[name]
                values = settings(given) | own | {"roi": roi, "seed": str(seed), "tuned": given.tuned}
                folder = given.out / f"seed{seed}-{roi}-{name}"
                _, evaluation = run(folder, method, experiment, values)
                row = next(r for r in evaluation["rows"] if r["roi"] == roi and r["hemisphere"] == "both")
                rows.setdefault((roi, name), []).append(row)
                arrays.setdefault((roi, name), []).append(predictions(folder, experiment))
                row["r_tuned"] = row.get("r_tuned", row["r_nested"])
                choice = evaluation["choices"][experiment.target]
                held_out = " ".join(f"{side} {choice[side]:.4f}" for side in ("untuned", "tuned") if side in choice)
                print(
                    f"seed {seed} {roi} {name}: {row['r_untuned']:.3f} -> {row['r_tuned']:.3f}; "
                    f"{row['encoded_with']} kept, R^2 on held-out training images: {held_out}",
                    flush=True,
                )
    print(f"{given.n} images a subject, {given.image_size} pixels, tuned={given.tuned}, seeds {given.seeds}")
    for (roi, name), found in rows.items():
        gain, low, high = difference(arrays[roi, name], np.random.default_rng(0))
        kept, kept_low, kept_high = difference(arrays[roi, name], np.random.default_rng(0), "kept")
        untuned, tuned = (np.mean([row[key] for row in found]) for key in ("r_untuned", "r_tuned"))
        by_seed = [gains_of(one, np.arange(len(one["measured"]))) for one in arrays[roi, name]]
        share = np.mean([(one > 0).mean() for one in by_seed])
        taken = sum(row["encoded_with"] == "tuned" for row in found)
        print(
            f"| {roi} | {name} | {untuned:.3f} | {tuned:.3f} | {gain:+.3f} ({low:+.3f} to {high:+.3f}) | "
            f"{' '.join(f'{one.mean():+.3f}' for one in by_seed)} | {share:.2f} | {taken} of {len(found)} | "
            f"{kept:+.3f} ({kept_low:+.3f} to {kept_high:+.3f}) |"
        )


def ffa(folder: Path, image_size: int) -> Experiment:
    """FFA and VWFA responses to the 85 objects (two 'voxels', two ROIs); an outer split is set later."""
    import tarfile

    from PIL import Image

    with np.load(folder / "vtc_exp2_dev.npz", allow_pickle=False) as archive:
        beta, index, names = archive["beta"], archive["stimulus_index"], [str(name) for name in archive["roi"]]
    images = {}
    with tarfile.open(folder / "vtc_exp2_images.tar") as tar:
        for member in tar.getmembers():
            if member.name.endswith("_01.png"):
                picture = Image.open(tar.extractfile(member)).convert("RGB")  # type: ignore[arg-type]
                number = int(Path(member.name).stem[8:11])
                images[number - 1] = np.asarray(picture.resize((image_size, image_size), Image.Resampling.BILINEAR))
    ids = [f"object{row:03d}" for row in index]
    responses = Responses(
        subject="one",
        values=beta.astype(np.float32),
        stimulus_ids=ids,
        geometry=Geometry.from_points(np.eye(3)[: len(names)]),
        rois=ROIs({name: np.arange(len(names)) == place for place, name in enumerate(names)}, n_voxels=len(names)),
    )
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: images[int(index[row])])
    split = Split(train=tuple(ids[17:]), test=tuple(ids[:17]))
    return Experiment(name="FFA", stimuli=stimuli, subjects={"one": responses}, split=split, target="one")


def real(given: argparse.Namespace) -> None:
    """Held-out r of FFA, all 85 objects predicted once by every seed, untuned and tuned; intervals over objects.

    The mean of each fold's held-out objects is taken off: a fold's intercept is the mean of the others, and runs against it.
    """
    whole = ffa(given.real, given.image_size)
    for name in (one for one in given.methods if one != "pooled"):
        joined = [_real_run(given, whole, name, seed) for seed in given.seeds]
        for seed, one in zip(given.seeds, joined, strict=True):
            r = {key: float(correlations(one[key], one["measured"])[0]) for key in ("untuned", "predicted", "kept")}
            print(f"FFA {name} seed {seed}: " + ", ".join(f"{key} {value:.3f}" for key, value in r.items()), flush=True)
        for key in ("predicted", "kept"):
            observed = np.mean([gain_of(one, np.arange(N_OBJECTS), key) for one in joined])
            rows = np.random.default_rng(0).integers(0, N_OBJECTS, (2000, N_OBJECTS))
            low, high = percentile_interval(np.array([np.mean([gain_of(one, row, key) for one in joined]) for row in rows]))
            print(f"FFA {name} {key}: {observed:+.3f} ({low:+.3f} to {high:+.3f}) over objects, mean of {len(joined)} seeds")


def _real_run(given: argparse.Namespace, whole: Experiment, name: str, seed: int) -> dict[str, np.ndarray]:
    """All objects in the order of their ids, each predicted by the fold that it was held out from."""
    method, own = METHODS[name]
    parts = []
    for fold, split in enumerate(outer_splits(whole, 5, seed)):
        experiment = dataclasses.replace(whole, split=split)
        values = settings(given) | own | {"roi": "FFA", "seed": str(seed), "tuned": given.tuned, "batch_size": "16"}
        folder = given.out / f"ffa-{name}-seed{seed}-fold{fold}"
        run(folder, method, experiment, values)
        found = predictions(folder, experiment)
        centred = {key: found[key] - found[key].mean(0) for key in ("predicted", "kept", "untuned", "measured")}
        parts.append(centred | {"id": found["id"]})
    order = np.argsort(np.concatenate([part["id"] for part in parts]))
    return {key: np.concatenate([part[key] for part in parts])[order] for key in ("predicted", "kept", "untuned", "measured")}


def world_arguments(description: str | None) -> argparse.ArgumentParser:
    """What every benchmark of these worlds asks for."""
    arguments = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--weights", type=Path, required=True)
    arguments.add_argument("--network", default="squeezenet1_0")
    arguments.add_argument("--images", type=Path, help="folder of pictures; default: the bundled photographs")
    return arguments


def main() -> None:
    arguments = world_arguments(__doc__)
    arguments.add_argument("--real", type=Path, help="folder of the FFA responses; instead of planted worlds")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments.add_argument("--rois", nargs="+", default=["early", "higher"])
    arguments.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[:3])
    arguments.add_argument("--n", type=int, default=500)
    arguments.add_argument("--epochs", type=int, default=8)
    arguments.add_argument("--image-size", type=int, default=48)
    arguments.add_argument("--learning-rate", type=float, default=3e-4)
    arguments.add_argument("--strength", type=float, default=0.6)
    arguments.add_argument("--ceiling", type=float, default=0.6)
    arguments.add_argument("--tuned", default="all")
    arguments.set_defaults(n_subjects=4)
    given = arguments.parse_args()
    REPORTER.quiet = True
    real(given) if given.real else planted(given)


if __name__ == "__main__":
    main()
