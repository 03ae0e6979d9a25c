"""RDM of unseen images by encoding, on the 92 images: coordinates of the group's RDM are the 'voxels'; tuned against untuned.

    python benchmarks/rdm92_encoding.py OUT --data ../shared/data --weights squeezenet1_0_imagenet.npz

Image-wise folds. Classical scaling of the training images' mean RDM (15 subjects, IT, Algonauts 2019; 1 - r as squared
distance) gives their coordinates; a ridge on a network's layers predicts those of the held-out images, whose distances are
compared (Spearman) with each subject's RDM. Held-out images take no part in scaling, tuning or ridge; they are placed among
the training images (Gower) only to fill in what `evaluate` compares with.
"""

import argparse
from pathlib import Path

import numpy as np
from planted_tuning import METHODS, predictions, run, settings
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from pulvinar.core.progress import REPORTER
from pulvinar.data.experiment import Experiment
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.data.rois import ROIs
from pulvinar.data.splits import Split
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.data import outer_splits
from pulvinar.scores.resampling import percentile_interval

N_COORDINATES = 20


def coordinates(squared: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Classical scaling of the training images; all images placed by their squared distances to those: (image, coordinate)."""
    own = squared[np.ix_(train, train)]
    centred = own - own.mean(0) - own.mean(1, keepdims=True) + own.mean()
    values, vectors = np.linalg.eigh(-0.5 * centred)
    values, vectors = values[::-1][:N_COORDINATES], vectors[:, ::-1][:, :N_COORDINATES]
    return 0.5 * (own.mean(0) - squared[:, train]) @ vectors / np.sqrt(values)


def experiment_of(images: np.ndarray, values: np.ndarray, split: Split, ids: list[str]) -> Experiment:
    """The coordinates as 'voxels' of one subject."""
    responses = Responses(
        subject="group",
        values=values.astype(np.float32),
        stimulus_ids=ids,
        geometry=Geometry.from_points(np.random.default_rng(0).standard_normal((N_COORDINATES, 3))),
        rois=ROIs({"IT": np.ones(N_COORDINATES, bool)}, n_voxels=N_COORDINATES),
    )
    stimuli = Stimuli(ids=ids, sources=ids, read_image=lambda row: images[row])
    return Experiment(name="92 images", stimuli=stimuli, subjects={"group": responses}, split=split, target="group")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("out", type=Path)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--weights", type=Path, required=True)
    arguments.add_argument("--network", default="squeezenet1_0")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments.add_argument("--methods", nargs="+", default=["contrastive", "regression"])
    arguments.add_argument("--image-size", type=int, default=128)
    arguments.add_argument("--tuned", default="after:features.10")
    arguments.set_defaults(epochs=8, learning_rate=3e-4)
    given = arguments.parse_args()
    REPORTER.quiet = True
    with np.load(given.data / "rdm92_kriegeskorte/rdm92_kriegeskorte2008_dev.npz") as archive:
        images = archive["images"]  # on grey, as in the scanner
    with np.load(given.data / "rdm92_algonauts/rdm92_algonauts2019.npz") as archive:
        rdms = archive["fmri_it"]
    ids = [f"image{number:02d}" for number in range(len(images))]
    every = experiment_of(images, np.zeros((len(ids), N_COORDINATES)), Split(train=tuple(ids[20:]), test=tuple(ids[:20])), ids)
    for name in given.methods:
        method, own = METHODS[name]
        rho: dict[str, list[np.ndarray]] = {"untuned": [], "predicted": [], "kept": [], "others": []}
        for seed in given.seeds:
            for fold, split in enumerate(outer_splits(every, 5, seed)):
                train = np.array([ids.index(one) for one in split.train])
                test = np.array([ids.index(one) for one in split.test])
                placed = coordinates(2 * rdms.mean(0), train)
                experiment = experiment_of(images, placed, split, ids)
                values = (
                    settings(given)
                    | own
                    | {"pool": "2", "roi": "IT", "seed": str(seed), "tuned": given.tuned, "batch_size": "16"}
                )
                folder = given.out / f"{name}-seed{seed}-fold{fold}"
                run(folder, method, experiment, values)
                found = predictions(folder, experiment)
                order = np.array([ids.index(str(one)) for one in found["id"]])
                upper = np.triu_indices(len(test), 1)
                measured = rdms[:, order][:, :, order][:, upper[0], upper[1]]
                for key in ("untuned", "predicted", "kept"):
                    distances = pdist(found[key] * placed[train].std(0))
                    rho[key].append(np.array([spearmanr(distances, one)[0] for one in measured]))
                others = (measured.sum(0) - measured) / (len(measured) - 1)
                rho["others"].append(np.array([spearmanr(a, b)[0] for a, b in zip(others, measured, strict=True)]))
        by_subject = {key: np.mean(values, axis=0) for key, values in rho.items()}
        print(f"{name}: " + ", ".join(f"{key} {values.mean():.3f}" for key, values in by_subject.items()), flush=True)
        rows = np.random.default_rng(0).integers(0, len(rdms), (2000, len(rdms)))
        for key in ("predicted", "kept"):
            gap = by_subject[key] - by_subject["untuned"]
            low, high = percentile_interval(gap[rows].mean(1))
            folds = [float((ours - other).mean()) for ours, other in zip(rho[key], rho["untuned"], strict=True)]
            print(
                f"{name} {key} less untuned: {gap.mean():+.3f} ({low:+.3f} to {high:+.3f} over subjects), {(gap > 0).sum()} of "
                f"{len(gap)} subjects; by fold {' '.join(f'{one:+.3f}' for one in folds)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
