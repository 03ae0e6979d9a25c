"""Selectors in kinds of planted cortex that mislead scores of single voxels: what each gains of what the truth would.

    python benchmarks/planted_cortex.py --out FOLDER --seeds 3 --first 300 [--kinds suppress hidden] [--trials 500 250]

2,000 voxels of a head with areas, blobs of irrelevant response, smooth and shared noise (`pulvinar data simulate --set
kind=...`), 500 of them responsive with a median noise ceiling of .2, an embedding of 64 dimensions by another network; 150
voxels are kept. Plain ridge on them decodes 200 test images, three repeats averaged; top-1 by cosine among all that are no
near-duplicates, brain -> image. These numbers, and those of the kinds, were fixed before any selector ran.

Oracles know the truth: the responsive voxels of largest ceiling, and backward elimination by what each adds to the others on
2,000 trials more of the training images, from all that respond or carry noise, with two penalties. Possible is the best of
them by the mean over seeds (so slightly optimistic). Fraction: (selector - simple) / (possible - simple), simple being the
better of `univariate` and `univariate_smoothed` by the mean. Intervals (95 %): seeds drawn with replacement, and images within
each.

A file per world and selector in FOLDER: what is there is not made again, and the tables are of all that is there.
"""

import argparse
import functools
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from planted_selectors import resampled

from pulvinar.core.storage import read_arrays, write_arrays
from pulvinar.data.stimuli import Stimuli
from pulvinar.datasets.simulated import Config, plant_subject
from pulvinar.datasets.simulated.shown import Plan, area_features, plan_stimuli, shown_stimuli
from pulvinar.decoding.data import Trials
from pulvinar.decoding.plain_ridge import ridge_outputs
from pulvinar.scores.resampling import interval_text, percentile_interval
from pulvinar.scores.retrieval import near_duplicates
from pulvinar.selection import selectors
from pulvinar.selection.selector import Answers, Evidence
from pulvinar.selection.selectors.ard import half_whitened

KINDS = ("plain", "unequal", "redundant", "suppress", "hidden", "apart", "drift")
N_TEST, N_TEST_REPEATS, MOST_TRIALS, N_KNOWN, BUDGET = 200, 3, 500, 2000, 150
WORLD = {
    "n_subjects": 1,
    "n_voxels": 2000,
    "responsive_share": 0.25,
    "ceiling_median": 0.2,
    "n_test_images": N_TEST,
    "image_size": 32,
}
NEAR_DUPLICATE = 0.95
SIMPLE = ("univariate", "univariate_smoothed")
PENALTIES = (0.1, 1.0)
ORACLES = ("true_best", *(f"backward {penalty:g}" for penalty in PENALTIES))


@functools.lru_cache(maxsize=1)
def what_is_shown(seed: int, n_train: int, others: tuple[int, ...]) -> tuple[Plan, Stimuli, dict[str, np.ndarray]]:
    """Crops, their embedding, and the features of areas: those of `simulate` with this seed, the same for all kinds.

    others: how many images each other subject sees, none of them shown to anyone else.
    """
    train, test = N_TEST + np.arange(n_train), np.arange(N_TEST)
    last = (2 + N_TEST_REPEATS, np.resize(train, N_KNOWN))
    sessions = [(1, train), *((2 + repeat, test) for repeat in range(N_TEST_REPEATS)), last]
    starts = N_TEST + n_train + np.cumsum((0, *others))
    apart = [[(1, np.arange(start, start + n))] for start, n in zip(starts, others, strict=False)]
    config = Config(seed=seed, **WORLD)
    plan = plan_stimuli(config, np.random.default_rng([seed, 0x9D1]), [sessions, *apart])
    return plan, shown_stimuli(config, plan), area_features(config, plan, 0)


class World:
    """One planted subject: training, test and many more trials, z-scored by the training trials in use; other subjects."""

    def __init__(self, kind: str, seed: int, n_train: int = MOST_TRIALS, others: tuple[int, ...] = ()) -> None:
        plan, stimuli, areas = what_is_shown(seed, n_train, others)
        self.shown, self.kind, self.seed = (seed, n_train, others), kind, seed
        own, sessions = np.random.default_rng([seed, 0xB0D, 0]), plan.trials[0]
        config = Config(seed=seed, kind=kind, **WORLD)
        self.responses, self.truth = plant_subject(config, "new", sessions, stimuli.ids, areas, own)
        self.values = self.responses.read(np.arange(self.responses.n_trials))
        embedding = stimuli.features["embedding"].astype(np.float64)
        embedding -= embedding[~plan.is_test].mean(0)
        self.of_stimulus = embedding / embedding[~plan.is_test].std()
        self.embedding = self.of_stimulus[np.concatenate([rows for _, rows in sessions])]
        self.session = np.asarray(self.responses.sessions)
        self.ids = np.asarray(self.responses.stimulus_ids)

    def others(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Of each other subject z-scored responses (trial, voxel) of its annotated ROI, and their embedding (trial, dim)."""
        plan, stimuli, areas = what_is_shown(*self.shown)
        config = Config(seed=self.seed, kind=self.kind, **WORLD | {"n_subjects": len(plan.trials)})
        for number, sessions in enumerate(plan.trials[1:], start=1):
            own = np.random.default_rng([self.seed, 0xB0D, number])
            responses, _ = plant_subject(config, f"other{number}", sessions, stimuli.ids, areas, own)
            values = responses.read(np.arange(responses.n_trials))[:, np.asarray(responses.rois["annotated"])]
            scaled = ((values - values.mean(0)) / values.std(0)).astype(np.float32)
            target = self.of_stimulus[np.concatenate([rows for _, rows in sessions])]
            yield torch.from_numpy(scaled), torch.from_numpy(target.astype(np.float32))

    def of(self, n_trials: int) -> "Problem":
        """With the first trials of the session."""
        train = np.flatnonzero(self.session == 1)[:n_trials]
        mean, sd = self.values[train].mean(0), self.values[train].std(0)
        return Problem(self, train, ((self.values - mean) / sd).astype(np.float32))


class Problem:
    """What to select from, and how a selection is scored."""

    def __init__(self, world: World, train: np.ndarray, scaled: np.ndarray) -> None:
        self.world, self.scaled = world, scaled
        ids = tuple(world.ids[train])
        n_voxels = scaled.shape[1]
        self.evidence = Evidence(
            responses=scaled[train],
            targets=world.embedding[train],
            stimuli=ids,
            groups=ids,
            n_voxels=BUDGET,
            seed=world.seed,
            geometry=world.responses.geometry,
            rois={name: np.asarray(world.responses.rois[name]) for name in world.responses.rois},
            answers=Answers(responses=world.responses, candidates=np.arange(n_voxels), truth=world.truth),
        )
        self.trials = Trials(
            responses=torch.from_numpy(scaled[train]),
            target=torch.from_numpy(world.embedding[train].astype(np.float32)),
            stimulus_ids=ids,
        )
        self.test = np.flatnonzero((world.session > 1) & (world.session < 2 + N_TEST_REPEATS))

    def found(self, kept: np.ndarray) -> np.ndarray:
        """Whether plain ridge on these voxels finds each test image (image,)."""
        return self.identified(self.ridge(kept))

    def ridge(self, kept: np.ndarray) -> np.ndarray:
        """Outputs of plain ridge on these voxels, as `of_images` gives them."""
        return self.of_images(ridge_outputs(self.trials, np.flatnonzero(kept), self.test_responses(kept)).numpy())

    def test_responses(self, kept: np.ndarray) -> torch.Tensor:
        """Test trials (trial, voxel) on these voxels."""
        return torch.from_numpy(self.scaled[self.test][:, kept])

    def of_images(self, output: np.ndarray) -> np.ndarray:
        """The mean over repeats of outputs of unit length, of unit length again (image, dim)."""
        return _unit(_unit(output).reshape(N_TEST_REPEATS, -1, output.shape[1]).mean(0))

    def identified(self, output: np.ndarray) -> np.ndarray:
        """Whether each test image (image,) is nearest to its output (image, dim) among all but near-duplicates."""
        true = self.world.embedding[self.test[: len(output)]]
        cosine = np.where(near_duplicates(true, NEAR_DUPLICATE), -np.inf, output @ _unit(true).T)
        return (cosine.argmax(1) == np.arange(len(output))).astype(float)

    def kept(self, name: str) -> np.ndarray:
        """The voxels of a selector or an oracle."""
        if name.startswith("backward "):
            return self._backward(float(name.split()[1]))
        return selectors.selector(name).select(self.evidence).kept

    def _backward(self, penalty: float) -> np.ndarray:
        truth, known = self.world.truth, self.world.session == 2 + N_TEST_REPEATS
        voxels = np.flatnonzero(truth["responsive"] | truth.get("carrier", np.zeros(self.scaled.shape[1], bool)))
        x, y = self.scaled[known][:, voxels].astype(np.float64), half_whitened(self.world.embedding[known])
        x -= x.mean(0)
        inverse = np.linalg.inv(x.T @ x / len(x) + penalty * np.eye(len(voxels)))
        weights, alive = inverse @ (x.T @ y) / len(x), np.ones(len(voxels), bool)
        for _ in range(len(voxels) - BUDGET):
            lost = np.where(alive, np.sum(weights**2, axis=1) / np.maximum(np.diagonal(inverse), 1e-12), np.inf)
            out = int(np.argmin(lost))
            alive[out] = False
            own = inverse[:, out].copy()
            weights -= np.outer(own, weights[out]) / own[out]
            inverse -= np.outer(own, own) / own[out]
        return np.isin(np.arange(self.scaled.shape[1]), voxels[alive])


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def place(folder: Path, kind: str, seed: int, n_trials: int, name: str) -> Path:
    return folder / f"{kind}-{seed}-{n_trials}-{name.replace(' ', '-')}.npz"


def make(folder: Path, kind: str, seed: int, n_trials: list[int], names: list[str]) -> None:
    """What is not in the folder yet of one world."""
    left = [(n, name) for n in n_trials for name in names if not place(folder, kind, seed, n, name).exists()]
    if not left:
        return
    world = World(kind, seed)
    for n, name in left:
        problem, start = world.of(n), time.process_time()
        kept = problem.kept(name)
        seconds = time.process_time() - start
        truth = {"signal": world.truth["responsive"], "carrier": world.truth.get("carrier", np.zeros(len(kept), bool))}
        shares = {what: np.array(inside[kept].mean()) for what, inside in truth.items()}
        found = problem.found(kept)
        write_arrays(place(folder, kind, seed, n, name), found=found, kept=kept, seconds=np.array(seconds), **shares)
        print(f"{kind} {seed} {n} {name:20s} {found.mean():.3f}  {seconds:.1f} s", flush=True)


def table(folder: Path, kind: str, n_trials: int, names: list[str]) -> str:
    """One world's rows, over the seeds for which all of them are there."""
    paths = [path.name.split("-") for path in folder.glob(f"{kind}-*-{n_trials}-true_voxels.npz")]
    every = ["true_voxels", *ORACLES, *names]
    seeds = [seed for seed in sorted(int(parts[1]) for parts in paths)
             if all(place(folder, kind, seed, n_trials, name).exists() for name in every)]  # fmt: skip
    if not seeds:
        return ""
    read = {name: [read_arrays(place(folder, kind, seed, n_trials, name)) for seed in seeds] for name in every}
    found = {name: np.stack([one["found"] for one in several]) for name, several in read.items()}
    simple, possible = (max(of, key=lambda name: found[name].mean()) for of in (SIMPLE, ORACLES))
    means = resampled(found[simple], np.random.default_rng(0))
    low, high, gap = means(found[simple]), means(found[possible]), found[possible].mean() - found[simple].mean()
    lines = [
        f"{kind}, {n_trials} trials, seeds {seeds[0]} to {seeds[-1]} ({len(seeds)}); simple: {simple}; possible: {possible}"
    ]
    for name in ("true_voxels", "true_best", *([possible] if possible != "true_best" else []), *names):
        more, part = means(found[name]) - low, (means(found[name]) - low) / np.maximum(high - low, 1e-3)
        signal, carriers, seconds = (np.mean([one[what] for one in read[name]]) for what in ("signal", "carrier", "seconds"))
        gain = (found[name] - found[simple]).mean()
        lines.append(
            f"  {name:20s} {found[name].mean():.3f}  {gain:+.3f} {interval_text(percentile_interval(more), '{:+.3f}'.format)}"
            f"  fraction {gain / gap:.2f} {interval_text(percentile_interval(part), '{:.2f}'.format)}"
            f"  signal {signal:.2f}  carriers {carriers:.2f}  {seconds:.1f} s"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=300, help="the first seed")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--trials", nargs="+", type=int, default=[MOST_TRIALS, MOST_TRIALS // 2])
    parser.add_argument("--selectors", nargs="+", default=["cross_fitted", "ard", "ard_backward"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    names = [*SIMPLE, *options.selectors]
    for seed in range(options.first, options.first + options.seeds):
        for kind in options.kinds:
            make(options.out, kind, seed, options.trials, ["true_voxels", *ORACLES, *names])
    for kind in options.kinds:
        for n_trials in options.trials:
            print(table(options.out, kind, n_trials, names), flush=True)


if __name__ == "__main__":
    main()
