"""How long least squares separate takes on one run: all trials by one product, beside nilearn's run_glm for each trial.

python benchmarks/lss_speed.py [voxels] [volumes] [trials]
"""

import sys
import time

import numpy as np
from nilearn.glm.first_level import run_glm

from pulvinar.data.trial_glm import RunEvents, TrialModel, betas, run_model
from pulvinar.data.volume_times import VolumeTimes

STEP_S, PLAIN_TRIALS = 2.0, 3


def main(n_voxels: int, n_volumes: int, n_trials: int) -> None:
    """Print seconds and the largest difference."""
    rng = np.random.default_rng(0)
    series = rng.normal(1000, 20, (n_volumes, n_voxels)).astype(np.float32)
    onsets = 4 + np.linspace(0, STEP_S * n_volumes - 24, n_trials)
    events = RunEvents(origin="run", onsets=onsets, durations=np.full(n_trials, 2.0), types=["image"] * n_trials, others={})
    times = VolumeTimes(times=STEP_S * np.arange(n_volumes), step=STEP_S)
    start = time.perf_counter()
    run = run_model(TrialModel(), events, times)
    found = betas(series, run)
    ours = time.perf_counter() - start
    scaled = 100 * (series.astype(float) / series.mean(0, dtype=float) - 1)
    start, largest = time.perf_counter(), 0.0
    for design, _ in zip(run.designs(), range(PLAIN_TRIALS), strict=False):
        _, results = run_glm(scaled, design.matrix, noise_model="ols")
        trial, column = design.trials[0]
        largest = max(largest, float(np.abs(results[0.0].theta[column] - found[trial]).max()))
    plain = (time.perf_counter() - start) / PLAIN_TRIALS * n_trials
    print(f"{n_trials} trials, {n_volumes} volumes, {n_voxels} voxels: {ours:.1f} s; run_glm for each trial {plain:.0f} s")
    print(f"largest difference {largest:.1e} (betas up to {np.abs(found).max():.1f})")


if __name__ == "__main__":
    main(*[int(text) for text in (*sys.argv[1:], "100000", "300", "60")[:3]])
