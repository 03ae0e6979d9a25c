"""Voxel selection on small planted problems: VoxelSelector against univariate selection at the same counts.

    python benchmarks/planted_voxel_selector.py

About 530 voxels, 8 runs of 8 blocks (or single trials with an embedding), noise that is half smooth in space, a response
shared by all voxels, and four blobs of strong noise of their own. Informative voxels lie in blobs, scattered, or both.
Printed per world: accuracy of a linear SVM (for an embedding: R2 of ridge regression) on 600 fresh trials with 50, 100 and
200 voxels, mean over 5 seeds, and precision, the share of informative voxels among as many as are informative, with its
standard deviation over seeds.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.ndimage
from sklearn.feature_selection import f_classif
from sklearn.linear_model import RidgeCV
from sklearn.svm import SVC

from pulvinar.data.geometry import Geometry
from pulvinar.estimators import VoxelSelector
from pulvinar.selection.univariate import cross_validated_encoding_r2, top_voxels
from pulvinar.selection.voxel_mask import low_pass_score

COUNTS = (50, 100, 200)
SEEDS = range(5)
N_TEST = 600


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is planted."""

    n_blobs: int = 4
    n_scattered: int = 30
    signal: float = 0.5
    shape: tuple[int, int, int] = (28, 19, 1)
    n_classes: int = 8
    n_runs: int = 8
    shared: float = 0.3
    smoothness: float = 1.0
    embedding: bool = False


PLANS = {
    "blobs and scattered": Plan(),
    "blobs": Plan(n_scattered=0),
    "scattered": Plan(n_blobs=0, n_scattered=80),
    "weak": Plan(signal=0.35),
    "much shared noise": Plan(shared=0.8, smoothness=2.0),
    "volume 9 x 8 x 7": Plan(shape=(9, 8, 7)),
    "two classes, 24 runs": Plan(n_classes=2, n_runs=24, signal=0.3),
    "embedding, 200 trials": Plan(n_classes=200, n_runs=1, signal=0.4, embedding=True),
}


@dataclass(frozen=True)
class World:
    """Training and test trials, and the informative voxels."""

    train: np.ndarray
    y: np.ndarray
    runs: np.ndarray
    test: np.ndarray
    y_test: np.ndarray
    geometry: Geometry
    informative: np.ndarray


def plant(plan: Plan, seed: int) -> World:
    """A world; the same seed plants the same one."""
    rng = np.random.default_rng([seed, 77])
    geometry = Geometry.from_mask(np.ones(plan.shape, bool), np.diag([3.0, 3.0, 3.0, 1.0]))
    index, n_voxels = geometry.coordinates / 3, geometry.n_voxels
    dim = 12 if plan.embedding else plan.n_classes

    def blob(size: int) -> np.ndarray:
        distance = np.linalg.norm(index - index[rng.integers(n_voxels)], axis=1)
        return np.argsort(distance + 0.3 * rng.random(n_voxels))[:size]

    tuning, informative = np.zeros((dim, n_voxels)), np.zeros(n_voxels, bool)
    for _ in range(plan.n_blobs):
        place, common = blob(int(rng.integers(10, 30))), rng.standard_normal(dim)
        tuning[:, place] = 0.75 * common[:, None] + 0.66 * rng.standard_normal((dim, len(place)))
        informative[place] = True
    place = rng.permutation(n_voxels)[: plan.n_scattered]
    tuning[:, place] = rng.standard_normal((dim, len(place)))
    informative[place] = True
    tuning = (tuning - tuning.mean(0)) * np.exp(0.5 * rng.standard_normal(n_voxels)) / (2 if plan.embedding else 1)
    shared = np.abs(rng.standard_normal(n_voxels))
    noisy = [(place := blob(25), 2 * rng.standard_normal(25)) for _ in range(4)]

    def draw(n_runs: int, n_trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        runs = np.repeat(np.arange(n_runs), n_trials)
        y = rng.standard_normal((len(runs), dim)) if plan.embedding else np.tile(np.arange(n_trials), n_runs)
        field = rng.standard_normal((len(runs), *plan.shape))
        width = [0, *(plan.smoothness if size > 1 else 0 for size in plan.shape)]
        smooth = scipy.ndimage.gaussian_filter(field, width).reshape(len(runs), -1)
        noise = 0.7 * smooth / smooth.std() + 0.7 * rng.standard_normal(smooth.shape)
        noise += 2 * plan.shared * rng.standard_normal((len(runs), 1)) * shared
        for place, weights in noisy:
            noise[:, place] += rng.standard_normal((len(runs), 1)) * weights
        x = plan.signal * (y @ tuning if plan.embedding else tuning[y]) + noise
        for run in range(n_runs):
            x[runs == run] -= x[runs == run].mean(0)
        return x / x.std(0), y, runs

    train, y, runs = draw(plan.n_runs, plan.n_classes)
    n_trials = N_TEST if plan.embedding else plan.n_classes
    test, y_test, _ = draw(N_TEST // n_trials, n_trials)
    return World(train, y, runs, test, y_test, geometry, informative)


def univariate(world: World, _: int) -> np.ndarray:
    """F of an ANOVA, or cross-validated R2 of the encoding where the target is an embedding."""
    if world.y.ndim == 1:
        return f_classif(world.train, world.y)[0]
    ids = [str(trial) for trial in range(len(world.y))]
    return cross_validated_encoding_r2(world.train.astype(np.float32), world.y.astype(np.float32), ids, seed=0)


def low_passed_univariate(world: World, count: int) -> np.ndarray:
    """Geometric mean of own and neighbours' evidence above the floor, as in VoxelSelector."""
    evidence = np.maximum(univariate(world, count) - (world.y.ndim == 1), 0)
    low_pass = world.geometry.low_pass(1.0)
    return low_pass_score(evidence, low_pass, "geometric") + 1e-9 * (low_pass @ evidence)


def learned(world: World, count: int, method: str = "auto") -> np.ndarray:
    """Scores of VoxelSelector; runs are its groups."""
    groups, target = (world.runs, "classes") if world.y.ndim == 1 else (None, "embedding")
    selector = VoxelSelector(count, method=method, target=target, geometry=world.geometry)
    return selector.fit(world.train, world.y, groups=groups).scores_


SELECTIONS: dict[str, Callable[[World, int], np.ndarray]] = {
    "univariate": univariate,
    "  low-passed": low_passed_univariate,
    "VoxelSelector": learned,
    "  cross_fitted": functools.partial(learned, method="cross_fitted"),
    "  ard": functools.partial(learned, method="ard"),
}


def score_on_fresh_trials(world: World, kept: np.ndarray) -> float:
    """Accuracy of a linear SVM on the fresh trials, or R2 of ridge regression."""
    model = SVC(kernel="linear") if world.y.ndim == 1 else RidgeCV(np.logspace(0, 4, 9))
    return float(model.fit(world.train[:, kept], world.y).score(world.test[:, kept], world.y_test))


def main() -> None:
    print(f"{'world':22s} {'selection':14s} " + " ".join(f"{count:>5d}" for count in COUNTS) + "   precision")
    for title, plan in PLANS.items():
        worlds = [plant(plan, seed) for seed in SEEDS]
        for name, select in SELECTIONS.items():
            scores = [[score_on_fresh_trials(w, top_voxels(select(w, count), count)) for count in COUNTS] for w in worlds]
            sizes = [int(w.informative.sum()) for w in worlds]
            hits = [w.informative[top_voxels(select(w, size), size)].mean() for w, size in zip(worlds, sizes, strict=True)]
            cells = " ".join(f"{mean:.3f}" for mean in np.mean(scores, axis=0))
            print(f"{title:22s} {name:14s} {cells}   {np.mean(hits):.2f} ({np.std(hits):.2f})", flush=True)


if __name__ == "__main__":
    main()
