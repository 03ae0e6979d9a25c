"""All-pairs correlation RDM of 1,000 conditions x 5,000 features, beside rsatoolbox.calc_rdm, on one thread.

    OMP_NUM_THREADS=1 python benchmarks/rsa_speed.py

Interleaved runs; printed: medians and ranges of the wall-clock times, the ratios of medians, and how far each is from numpy's
corrcoef in float64. rsatoolbox computes in the precision of its array, which is float64 unless its user chose otherwise.
"""

import os
import time
from collections.abc import Callable

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import numpy as np
import rsatoolbox
import torch

from pulvinar.scores.rdm import correlation_rdm

N_CONDITIONS, N_FEATURES = 1000, 5000
N_RUNS = 5


def seconds(run: Callable[[], np.ndarray]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def main() -> None:
    torch.set_num_threads(1)
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
