"""RDMs and their inference beside rsatoolbox, on one thread.

    python benchmarks/rsa_speed.py               # correlation RDM of all pairs, 1,000 conditions x 5,000 features: calc_rdm
    python benchmarks/rsa_speed.py --bootstrap   # three models, 92 images, 15 subjects: eval_bootstrap, eval_dual_bootstrap

Of the bootstraps a resample is timed, with the standard error that came of them. Else interleaved runs; printed: medians and
ranges of the wall-clock times, the ratios of medians, and how far each is from numpy's corrcoef in float64. rsatoolbox
computes in the precision of its array, which is float64 unless its user chose otherwise.
"""

import argparse
import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import rsatoolbox
import torch
from rsatoolbox.inference import eval_bootstrap, eval_dual_bootstrap
from rsatoolbox.model import ModelFixed

from pulvinar.rsa.inference import bootstrap_scores
from pulvinar.scores.rdm import correlation_rdm

N_CONDITIONS, N_FEATURES = 1000, 5000
N_RUNS = 5
N_IMAGES, N_SUBJECTS, N_RESAMPLES = 92, 15, 1000


def seconds(run: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bootstraps() -> None:
    """Spearman of three models with 15 subjects, in resamples of images and subjects; seconds of a resample of each way."""
    generator = np.random.default_rng(0)
    models = generator.random((3, N_IMAGES * (N_IMAGES - 1) // 2))
    measured = 0.4 * models[0] + generator.random((N_SUBJECTS, models.shape[1]))
    start = time.perf_counter()
    draws = np.random.default_rng(1)
    ours, _ = bootstrap_scores(torch.from_numpy(models), torch.from_numpy(measured), generator=draws, n_bootstrap=N_RESAMPLES)
    own = (time.perf_counter() - start) / N_RESAMPLES
    print(f"bootstrap, {N_IMAGES} images, {N_SUBJECTS} subjects, 3 models, spearman, one thread")
    print(
        f"  pulvinar: images, subjects and both   {own * 1000:8.2f} ms a resample  standard errors {ours.both.std(0).round(4)}"
    )
    fixed, data = [ModelFixed(f"model {number}", model) for number, model in enumerate(models)], rsatoolbox.rdm.RDMs(measured)
    for name, run, count in (
        (
            "eval_bootstrap, no ceilings",
            lambda n: eval_bootstrap(fixed, data, method="spearman", N=n, boot_noise_ceil=False),
            100,
        ),
        ("eval_bootstrap, with ceilings", lambda n: eval_bootstrap(fixed, data, method="spearman", N=n), 100),
        ("eval_dual_bootstrap, corrected", lambda n: eval_dual_bootstrap(fixed, data, method="spearman", N=n), 20),
    ):
        start = time.perf_counter()
        result = run(count)
        taken = (time.perf_counter() - start) / count
        said = f"  standard errors {result.evaluations.std(0).round(4)}" if result.evaluations.ndim == 2 else ""
        print(f"  rsatoolbox: {name:31} {taken * 1000:8.2f} ms a resample  {taken / own:.0f} x ours{said}")


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", action="store_true", help="the bootstraps instead of the RDM")
    if parser.parse_args().bootstrap:
        bootstraps()
        return
    generator = np.random.default_rng(0)
    shared = generator.standard_normal(N_FEATURES)
    patterns = generator.standard_normal((N_CONDITIONS, N_FEATURES)) + 0.5 * shared + 3
    exact = 1 - np.corrcoef(patterns)[np.triu_indices(N_CONDITIONS, 1)]
    single = patterns.astype(np.float32)
    tensor = torch.from_numpy(single)
    datasets = {name: rsatoolbox.data.Dataset(values) for name, values in (("float32", single), ("float64", patterns))}

    def theirs(precision: str) -> np.ndarray:
        return rsatoolbox.rdm.calc_rdm(datasets[precision], method="correlation").get_vectors()[0]

    runs: dict[str, Callable[[], np.ndarray]] = {
        "pulvinar, float32": lambda: correlation_rdm(tensor).numpy(),
        "rsatoolbox, float32": lambda: theirs("float32"),
        "pulvinar, float64": lambda: correlation_rdm(torch.from_numpy(patterns)).numpy(),
        "rsatoolbox, float64": lambda: theirs("float64"),
    }
    errors = {name: np.abs(run() - exact).max() for name, run in runs.items()}
    times = {name: np.array([]) for name in runs}
    for _ in range(N_RUNS):
        times = {name: np.append(times[name], seconds(run)) for name, run in runs.items()}
    print(f"correlation RDM, {N_CONDITIONS} conditions x {N_FEATURES} features, one thread, {N_RUNS} interleaved runs")
    for name, taken in times.items():
        print(
            f"  {name:20} {np.median(taken) * 1000:8.1f} ms  ({taken.min() * 1000:.1f} to {taken.max() * 1000:.1f})"
            f"  largest error {errors[name]:.1e}"
        )
    for ours, other in (
        ("pulvinar, float32", "rsatoolbox, float64"),
        ("pulvinar, float32", "rsatoolbox, float32"),
        ("pulvinar, float64", "rsatoolbox, float64"),
    ):
        print(f"  {other} / {ours}: {np.median(times[other]) / np.median(times[ours]):.1f}")


if __name__ == "__main__":
    main()
