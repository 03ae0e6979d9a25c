"""Which estimate finds the planted responses of a BIDS study, by pace and noise.

    python benchmarks/bids_estimates.py

A study of 40 trials (two runs of 20, stimuli of 2 s) is written for each pace and noise; the number is the mean over 200 voxels
of the correlation of estimated with planted responses over trials.
"""

import tempfile
from pathlib import Path

import numpy as np

from pulvinar.datasets import simulated
from pulvinar.datasets.bids import Generated, load, writer

ESTIMATES = ("lss", "lsa", "window")


def plant(shown, **settings):
    return simulated.simulate(simulated.Config(**settings), shown=shown)


def agreement(folder: Path, soa_s: float, noise_percent: float) -> list[float]:
    """Of every estimate, in one study."""
    sizes = {"n_subjects": 1, "n_voxels": 200, "n_runs": 2, "n_trials": 20, "n_images": 20, "image_size": 16}
    config = Generated(soa_s=soa_s, noise_percent=noise_percent, **sizes)
    planted = writer.write_world(folder / "study", config, plant).subjects["subj01"].read(np.arange(40))
    found = []
    for estimate in ESTIMATES:
        values = load(f"{folder / 'study'}?estimate={estimate}").subjects["sub-01"].read(np.arange(40))
        found.append(float(np.mean([np.corrcoef(values[:, voxel], planted[:, voxel])[0, 1] for voxel in range(200)])))
    return found


def main() -> None:
    """Print a line for each pace and noise."""
    print("soa_s noise_percent", *ESTIMATES)
    for soa_s in (3.0, 6.0, 10.0):
        for noise_percent in (0.5, 2.0, 5.0):
            with tempfile.TemporaryDirectory() as folder:
                print(
                    soa_s, noise_percent, *(f"{one:.3f}" for one in agreement(Path(folder), soa_s, noise_percent)), flush=True
                )


if __name__ == "__main__":
    main()
