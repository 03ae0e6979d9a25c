"""Selectors in small simulated subjects where single voxels mislead: how much of what the truth would gain each one gets.

    python benchmarks/planted_selectors.py --seeds 5 --first 100

3,000 voxels, 500 single training trials (few: 250), an embedding of 96 dimensions with variances 1/k, a budget of 200 voxels.
Plain ridge on the kept voxels decodes 200 test images, three repeats averaged; top-1 among all by cosine, brain -> image. Every
voxel has variance 1; what is neither signal nor shared noise is its own noise.

plain       800 voxels with .08 of signal
few         the same with half the trials
unequal     400 voxels with .15 of the leading 12 dimensions, 400 with .06 of the other 84
redundant   40 clusters of 15 near-copies (signal .2, noise of the cluster .5) beside 400 diverse voxels with .07
suppress    600 voxels with signal .12 under noise .5 along the 40 leading dimensions of the signal; 300 voxels without signal
            that carry that noise (.7)
hidden      600 voxels with .07, 400 with .02 under .85 of noise that 8 factors share

Oracle: the best of three rules that know the truth, by the mean over seeds (so slightly optimistic): the largest true signal,
and forward and backward greedy search on the posterior variance of the half-whitened embedding. Fraction: (selector -
univariate) / (oracle - univariate). Intervals (95 %): seeds drawn with replacement, and images within each.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from pulvinar.decoding.data import Trials
from pulvinar.decoding.plain_ridge import ridge_outputs
from pulvinar.scores.resampling import interval_text, percentile_interval
from pulvinar.selection import selectors
from pulvinar.selection.selector import Evidence

N_VOXELS, N_DIMS, N_TEST, N_REPEATS, BUDGET = 3000, 96, 200, 3, 200
N_RESAMPLES = 2000
SIMPLE = "univariate"
VARIANCES = 1 / np.arange(1, N_DIMS + 1)


@dataclass(frozen=True, eq=False)
class World:
    """Loadings of the voxels (source, voxel) on sources: the embedding's dimensions, then factors of noise; all in standard
    deviations. own: variance of each voxel's own noise."""

    loadings: np.ndarray
    own: np.ndarray
    n_trials: int

    @property
    def signal(self) -> np.ndarray:
        """Share of signal of each voxel."""
        return np.sum(self.loadings[:N_DIMS] ** 2, axis=0)

    def responses(self, embedding: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Responses (trial, voxel) to these embeddings."""
        noise = rng.standard_normal((len(embedding), len(self.loadings) - N_DIMS))
        sources = np.column_stack([embedding / np.sqrt(VARIANCES), noise])
        return sources @ self.loadings + np.sqrt(self.own) * rng.standard_normal((len(embedding), self.loadings.shape[1]))


class _Plan:
    """Voxels of a world, group by group."""

    def __init__(self, rng: np.random.Generator, n_factors: int = 0) -> None:
        self.rng, self.parts = rng, []
        self.n_sources = N_DIMS + n_factors

    def add(self, n: int, signal: float, dims: slice, *, noise: float = 0.0, factors: np.ndarray | None = None) -> None:
        """n voxels, each with a random direction of signal in some dimensions, and shared noise along `factors` (factor, n)."""
        direction = self._directions(n, dims)
        part = np.zeros((self.n_sources, n))
        part[:N_DIMS] = np.sqrt(signal) * direction
        if factors is not None:
            part[N_DIMS:] = np.sqrt(noise) * factors / np.linalg.norm(factors, axis=0)
        self.parts.append(part)

    def _directions(self, n: int, dims: slice) -> np.ndarray:
        weights = np.zeros((N_DIMS, n))
        weights[dims] = self.rng.standard_normal(weights[dims].shape)
        weights *= np.sqrt(VARIANCES)[:, None]
        return weights / np.linalg.norm(weights, axis=0)

    def world(self, n_trials: int) -> World:
        """With voxels of nothing up to the number of all."""
        used = sum(part.shape[1] for part in self.parts)
        loadings = np.column_stack([*self.parts, np.zeros((self.n_sources, N_VOXELS - used))])
        return World(loadings, 1 - np.sum(loadings**2, axis=0), n_trials)


def plain(rng: np.random.Generator, n_trials: int = 500) -> World:
    plan = _Plan(rng)
    plan.add(800, 0.08, slice(None))
    return plan.world(n_trials)


def few(rng: np.random.Generator) -> World:
    return plain(rng, 250)


def unequal(rng: np.random.Generator) -> World:
    plan = _Plan(rng)
    plan.add(400, 0.15, slice(12))
    plan.add(400, 0.06, slice(12, None))
    return plan.world(500)


def redundant(rng: np.random.Generator) -> World:
    plan = _Plan(rng, 40)
    for cluster in range(40):
        plan.add(1, 0.2, slice(None), noise=0.5, factors=np.eye(40)[:, [cluster]])
        plan.parts[-1] = np.repeat(plan.parts[-1], 15, axis=1)
    plan.add(400, 0.07, slice(None))
    return plan.world(500)


def suppress(rng: np.random.Generator) -> World:
    plan = _Plan(rng, 40)
    plan.add(600, 0.12, slice(40))
    signal = plan.parts[-1]
    signal[N_DIMS:] = np.sqrt(0.5) * signal[:40] / np.linalg.norm(signal[:40], axis=0)
    plan.add(300, 0.0, slice(None), noise=0.7, factors=rng.standard_normal((40, 300)) * np.sqrt(VARIANCES[:40])[:, None])
    return plan.world(500)


def hidden(rng: np.random.Generator) -> World:
    plan = _Plan(rng, 8)
    plan.add(600, 0.07, slice(None))
    plan.add(400, 0.02, slice(None), noise=0.85, factors=rng.standard_normal((8, 400)))
    return plan.world(500)


WORLDS: dict[str, Callable[[np.random.Generator], World]] = {
    one.__name__: one for one in (plain, few, unequal, redundant, suppress, hidden)
}


def _covariance(world: World, voxels: np.ndarray) -> np.ndarray:
    """Posterior covariance (source, source) of the sources given these voxels."""
    loadings = world.loadings[:, voxels]
    return np.linalg.inv(np.eye(len(loadings)) + (loadings / world.own[voxels]) @ loadings.T)


def _weight() -> np.ndarray:
    return np.sqrt(VARIANCES)  # of a dimension in standard deviations, half-whitened


def forward(world: World) -> np.ndarray:
    """Voxels that lower the posterior variance most, one after the other."""
    covariance, kept = _covariance(world, np.array([], int)), np.zeros(N_VOXELS, bool)
    for _ in range(BUDGET):
        moved = covariance @ world.loadings
        gain = (_weight() @ moved[:N_DIMS] ** 2) / (world.own + np.sum(world.loadings * moved, axis=0))
        best = int(np.argmax(np.where(kept, -1.0, gain)))
        kept[best] = True
        below = world.own[best] + world.loadings[:, best] @ moved[:, best]
        covariance -= np.outer(moved[:, best], moved[:, best]) / below
    return kept


def backward(world: World) -> np.ndarray:
    """Voxels whose loss raises the posterior variance least go, one after the other, from all that carry anything."""
    kept = np.any(world.loadings != 0, axis=0)
    covariance = _covariance(world, np.flatnonzero(kept))
    while kept.sum() > BUDGET:
        voxels = np.flatnonzero(kept)
        loadings = world.loadings[:, voxels]
        moved = covariance @ loadings
        left = np.maximum(world.own[voxels] - np.sum(loadings * moved, axis=0), 1e-12)
        worst = int(np.argmin((_weight() @ moved[:N_DIMS] ** 2) / left))
        covariance += np.outer(moved[:, worst], moved[:, worst]) / left[worst]
        kept[voxels[worst]] = False
    return kept


def largest_signal(world: World) -> np.ndarray:
    """The largest true shares of signal."""
    return np.isin(np.arange(N_VOXELS), np.argsort(-world.signal, kind="stable")[:BUDGET])


ORACLES = {"largest signal": largest_signal, "forward": forward, "backward": backward}


def found_images(world: World, kept: np.ndarray, train: Trials, test: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Whether each test image is found (image,): mean of the repeats' outputs of unit length, cosine to all."""
    voxels = np.flatnonzero(kept)
    output = ridge_outputs(train, voxels, torch.from_numpy(test[:, voxels])).numpy()
    output /= np.linalg.norm(output, axis=1, keepdims=True)
    mean = output.reshape(N_REPEATS, N_TEST, -1).mean(0)
    cosine = (mean / np.linalg.norm(mean, axis=1, keepdims=True)) @ (true / np.linalg.norm(true, axis=1, keepdims=True)).T
    return (cosine.argmax(1) == np.arange(N_TEST)).astype(float)


def one_seed(plan: Callable[[np.random.Generator], World], seed: int, names: list[str]) -> dict[str, np.ndarray]:
    """name -> found (image,) of every selection and oracle; beside it seconds, and share of kept voxels with signal."""
    rng = np.random.default_rng([seed, 0x5E1EC7])
    world = plan(rng)
    embedding = np.sqrt(VARIANCES) * rng.standard_normal((world.n_trials + N_TEST, N_DIMS))
    shown, true = embedding[: world.n_trials], embedding[world.n_trials :]
    train = world.responses(shown, rng)
    test = world.responses(np.tile(true, (N_REPEATS, 1)), rng)
    mean, sd = train.mean(0), train.std(0)
    train, test = (((values - mean) / sd).astype(np.float32) for values in (train, test))
    ids = tuple(f"image {number}" for number in range(world.n_trials))
    evidence = Evidence(responses=train, targets=shown, stimuli=ids, groups=ids, n_voxels=BUDGET, seed=seed)
    trials = Trials(responses=torch.from_numpy(train), target=torch.from_numpy(shown.astype(np.float32)), stimulus_ids=ids)
    results = {name: found_images(world, rule(world), trials, test, true) for name, rule in ORACLES.items()}
    for name in names:
        start = time.perf_counter()
        kept = selectors.selector(name).select(evidence).kept
        results[f"{name} seconds"] = np.array([time.perf_counter() - start])
        results[f"{name} signal"] = np.array([(world.signal[kept] > 0).mean()])
        results[name] = found_images(world, kept, trials, test, true)
    return results


def resampled(found: np.ndarray, rng: np.random.Generator) -> Callable[[np.ndarray], np.ndarray]:
    """A function from found (seed, image) to its mean in every resample, the same seeds and images for all selections."""
    n_seeds, n_images = found.shape
    seeds = rng.integers(0, n_seeds, (N_RESAMPLES, n_seeds))
    images = rng.integers(0, n_images, (N_RESAMPLES, n_seeds, n_images))
    return lambda values: values[seeds[:, :, None], images].mean((1, 2))


def report(title: str, seeds: list[dict[str, np.ndarray]], names: list[str]) -> None:
    """The rows of one world."""
    found = {name: np.stack([seed[name] for seed in seeds]) for name in (*ORACLES, *names)}
    best = max(ORACLES, key=lambda name: found[name].mean())
    means = resampled(found[SIMPLE], np.random.default_rng(0))
    oracle, simple = means(found[best]), means(found[SIMPLE])
    rest = ", ".join(f"{name} {found[name].mean():.3f}" for name in ORACLES if name != best)
    print(f"{title:10s} oracle ({best}) {found[best].mean():.3f}; {rest}", flush=True)
    for name in names:
        own, score = means(found[name]), found[name].mean()
        gap = found[best].mean() - found[SIMPLE].mean()
        more = interval_text(percentile_interval(own - simple), "{:+.3f}".format)
        part = interval_text(percentile_interval((own - simple) / np.maximum(oracle - simple, 1e-3)), "{:.2f}".format)
        seconds, signal = (np.mean([seed[f"{name} {what}"] for seed in seeds]) for what in ("seconds", "signal"))
        said = f"{score - found[SIMPLE].mean():+.3f} {more}  fraction {(score - found[SIMPLE].mean()) / gap:.2f} {part}"
        said = "" if name == SIMPLE else said
        print(f"  {name:14s} {score:.3f}  with signal {signal:.2f}  {seconds:5.1f} s  {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=100, help="the first seed")
    parser.add_argument("--worlds", nargs="+", default=list(WORLDS), choices=list(WORLDS))
    parser.add_argument("--selectors", nargs="+", default=["cross_fitted", "ard", "ard_backward"])
    options = parser.parse_args()
    names = [SIMPLE, *(name for name in options.selectors if name != SIMPLE)]
    for title in options.worlds:
        chosen = range(options.first, options.first + options.seeds)
        report(title, [one_seed(WORLDS[title], seed, names) for seed in chosen], names)


if __name__ == "__main__":
    main()
