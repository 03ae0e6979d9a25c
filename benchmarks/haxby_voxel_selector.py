"""Voxel selection on Haxby et al. 2001, subject 1: VoxelSelector against an ANOVA and all voxels, leave one run out.

    python benchmarks/haxby_voxel_selector.py haxby2001_sub1_dev.npz

The file holds bold (x, y, z, volume), mask (x, y, z), affine (4, 4), target (volume,) with 0 for rest, run (volume,).
Per run and voxel: linear detrending and z-scoring over the run's volumes; then the mean over the volumes of each category
(one block of each in a run), without a shift for the haemodynamic lag. One run is left out in turn; selection and
classifier see the other runs only. Each row is scored with scikit-learn's SVC(kernel="linear") and LinearSVC(), C = 1.

Printed: accuracy (mean over random states, standard deviation over them in brackets), its standard error over blocks, and
p of the paired difference from ANOVA at the same count and from all voxels, two-sided, signs flipped at random over blocks.
A second table trains on 2, 3, 5 or 7 runs drawn at random 20 times and tests on the others (both classifiers averaged); its
draws overlap, so it has no p.
"""

import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.signal import detrend
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.svm import SVC, LinearSVC

from pulvinar.data.geometry import Geometry
from pulvinar.estimators import VoxelSelector
from pulvinar.selection.univariate import top_voxels
from pulvinar.selection.voxel_mask import low_pass_score

COUNTS = (50, 100, 200)
RANDOM_STATES = range(5)
TRAINING_RUNS = (2, 3, 5, 7)
CLASSIFIERS = {"SVC": lambda: SVC(kernel="linear"), "LinearSVC": lambda: LinearSVC(max_iter=20_000)}

Select = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def read_blocks(path: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, Geometry]:
    """Block means (block, voxel), category and run of each block, and where the voxels are."""
    with np.load(path, allow_pickle=False) as file:
        mask, target, run = file["mask"].astype(bool), file["target"], file["run"]
        volumes, affine = file["bold"][mask].T.astype(np.float64), file["affine"]
    rows, labels, runs = [], [], []
    for number in np.unique(run):
        here = run == number
        series = detrend(volumes[here], axis=0)
        series /= series.std(0)
        for category in np.unique(target[target > 0]):
            rows.append(series[target[here] == category].mean(0))
            labels.append(category)
            runs.append(number)
    return np.array(rows), np.array(labels), np.array(runs), Geometry.from_mask(mask, affine)


def anova(n_voxels: int) -> Select:
    return lambda x, y, _: SelectKBest(f_classif, k=n_voxels).fit(x, y).get_support()


def low_passed_anova(n_voxels: int, geometry: Geometry) -> Select:
    """The same geometric mean of own and neighbours' evidence as VoxelSelector's, of F - 1 instead of a learned mask."""
    low_pass = geometry.low_pass(1.0)
    return lambda x, y, _: top_voxels(low_pass_score(np.maximum(f_classif(x, y)[0] - 1, 0), low_pass, "geometric"), n_voxels)


def learned(n_voxels: int, random_state: int, **settings) -> Select:
    use_groups = settings.pop("use_groups", True)
    selector = VoxelSelector(n_voxels, random_state=random_state, **settings)
    return lambda x, y, runs: selector.fit(x, y, groups=runs if use_groups else None).get_support()


def correct_blocks(
    select: Select, x: np.ndarray, y: np.ndarray, runs: np.ndarray
) -> dict[str, np.ndarray]:  # fmt: skip
    """Whether each block is classified correctly when its run is left out, per classifier."""
    out = {name: np.zeros(len(y)) for name in CLASSIFIERS}
    for run in np.unique(runs):
        train = runs != run
        kept = select(x[train], y[train], runs[train])
        for name, make in CLASSIFIERS.items():
            model = make().fit(x[train][:, kept], y[train])
            out[name][~train] = model.predict(x[~train][:, kept]) == y[~train]
    return out


def accuracy(select: Select, x: np.ndarray, y: np.ndarray, runs: np.ndarray, train: np.ndarray) -> float:
    """Mean accuracy of the classifiers on the trials outside `train`."""
    kept = select(x[train], y[train], runs[train])
    models = [make().fit(x[train][:, kept], y[train]) for make in CLASSIFIERS.values()]
    return float(np.mean([model.score(x[~train][:, kept], y[~train]) for model in models]))


def sign_flip_p(difference: np.ndarray, n_draws: int = 100_000) -> float:
    """Two-sided Monte Carlo p of a mean paired difference over blocks."""
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    flips = np.random.default_rng(0).choice([-1.0, 1.0], (n_draws, len(difference)))
    return float((1 + (np.abs(flips @ difference) >= abs(difference.sum()) - 1e-9).sum()) / (1 + n_draws))


def rows(geometry: Geometry) -> Iterator[tuple[str, int, list[Select]]]:
    """Name, count, and the selection once, or once per random state."""
    yield "all voxels", geometry.n_voxels, [lambda x, *_: np.ones(x.shape[1], bool)]
    for count in COUNTS:
        yield "ANOVA F", count, [anova(count)]
        yield "ANOVA F, low-passed", count, [low_passed_anova(count, geometry)]
        for name, settings in {
            "VoxelSelector": {"geometry": geometry},
            "  runs not given": {"geometry": geometry, "use_groups": False},
            "  no coordinates": {},
            "  method=ard": {"method": "ard"},
        }.items():
            yield name, count, [learned(count, state, **settings) for state in RANDOM_STATES]


def print_few_runs(x: np.ndarray, y: np.ndarray, runs: np.ndarray, geometry: Geometry) -> None:
    """Accuracy by the number of training runs, mean over draws and classifiers."""
    print(f"\n{'selection':21s} {'voxels':>6s}  " + "  ".join(f"{n} runs" for n in TRAINING_RUNS))
    draws = {
        n: [np.random.default_rng([n, draw]).permutation(np.unique(runs))[:n] for draw in range(20)] for n in TRAINING_RUNS
    }
    for name, count, selections in rows(geometry):
        means = [
            np.mean([accuracy(selections[0], x, y, runs, np.isin(runs, drawn)) for drawn in draws[n]]) for n in TRAINING_RUNS
        ]
        print(f"{name:21s} {count:6d}  " + "   ".join(f"{mean:.3f}" for mean in means))


def main(path: str) -> None:
    x, y, runs, geometry = read_blocks(path)
    print(f"{len(y)} blocks, {x.shape[1]} voxels, {len(np.unique(runs))} runs, chance {1 / len(np.unique(y)):.3f}")
    print(f"{'selection':21s} {'voxels':>6s}  {'classifier':10s} accuracy      s.e.   p(ANOVA)  p(all)   s per fit")
    results: dict[tuple[str, int, str], np.ndarray] = {}
    for name, count, selections in rows(geometry):
        start = time.perf_counter()
        states = [correct_blocks(select, x, y, runs) for select in selections]
        seconds = (time.perf_counter() - start) / len(states) / len(np.unique(runs))
        for classifier in CLASSIFIERS:
            blocks = np.array([state[classifier] for state in states])
            correct = results[name, count, classifier] = blocks.mean(0)
            others = [results.get(("ANOVA F", count, classifier)), results["all voxels", geometry.n_voxels, classifier]]
            p = ["-     " if other is None or other is correct else f"{sign_flip_p(correct - other):.4f}" for other in others]
            print(
                f"{name:21s} {count:6d}  {classifier:10s} {correct.mean():.3f} ({blocks.mean(1).std():.3f})"
                f" {correct.std() / len(y) ** 0.5:.3f}  {p[0]}    {p[1]}   {seconds:.2f}"
            )
    print_few_runs(x, y, runs, geometry)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: python {sys.argv[0]} haxby2001_sub1_dev.npz")
    main(sys.argv[1])
