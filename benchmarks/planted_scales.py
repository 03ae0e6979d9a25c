"""Are planted stage scales found again, from fMRI alone, MEG alone, both; and what is sampling of MEG time worth?

    uv run python benchmarks/planted_scales.py [n_worlds]

Each world is a folder in the Algonauts 2019 layout (`pulvinar data simulate --layout algonauts2019`): 92 and 118 images, 15
subjects, fMRI, and MEG whose signal sits mid-window. One scale per stage is learned on the 92 images, and scored by the rank
correlation with the planted scales (5 stages), the error of the scales at unit length, and the signed rho with the fMRI RDMs of
the 118 other images.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.datasets import algonauts2019
from pulvinar.rsa.aggregation import Layout, MeasuredRDMs, nested_scales
from pulvinar.rsa.aggregation_settings import AggregationConfig, TimeSampling
from pulvinar.rsa.methods.learning_to_aggregate import subject_rdms
from pulvinar.rsa.stage_mask import Features, Loss, feature_products
from pulvinar.scores.rdm_comparison import compare

N_STEPS = 600  # all of them: five scales do not overfit 92 images, and held-out rho is too flat to stop by
PAIRS = {"evc": "meg_early", "it": "meg_late"}


def products(data: Dissimilarities) -> Features:
    maps = {
        name: torch.from_numpy(np.moveaxis(np.asarray(values), 2, 1))[..., None]  # image channel place 1
        for name, values in data.stimuli.features.items()
    }
    return feature_products(maps, resolution="stage", centring="embedding")


def learned(data: Dissimilarities, targets: list[str], sampling: TimeSampling, loss: Loss) -> torch.Tensor:
    measured = [MeasuredRDMs(subject_rdms(data, name), time_sampling=sampling, use_reliability=True) for name in targets]
    everything = torch.ones(len(data.stimuli), 1, dtype=torch.bool)
    return nested_scales(
        {"": Layout(variants=[products(data)])},
        measured,
        everything,
        list(data.stimuli.sources),
        AggregationConfig(loss=loss, epochs=N_STEPS, identity_weights=(0.0,), early_stopping=False),
    )[0].scales


def main() -> None:
    n_worlds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    found: dict[str, list[tuple[float, float, float]]] = {}
    for seed in range(n_worlds):
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "world"
            algonauts2019.generate(folder, seed=seed)
            truth = algonauts2019.load_truth(folder)["scales"]
            sets = algonauts2019.load_all(folder)
            train, test = sets[92], sets[118]
            for fmri, meg in PAIRS.items():
                arms: dict[str, tuple[list[str], TimeSampling, Loss]] = {
                    "fMRI": ([fmri], "gaussian", "correlation"),
                    "MEG, sampled times": ([meg], "gaussian", "correlation"),
                    "MEG, plain average": ([meg], "average", "correlation"),
                    "both": ([fmri, meg], "gaussian", "correlation"),
                    "MEG, sampled times, L1": ([meg], "gaussian", "l1"),
                    "MEG, plain average, L1": ([meg], "average", "l1"),
                }
                for arm, (targets, sampling, loss) in arms.items():
                    scales = learned(train, targets, sampling, loss)
                    planted, ours = np.array(list(truth[fmri].values())), scales.abs().numpy()
                    rank = spearmanr(ours, planted).statistic
                    error = float(np.linalg.norm(ours / np.linalg.norm(ours) - planted / np.linalg.norm(planted)))
                    rdm = products(test).rdm(scales[:, None])[:, 0]
                    rho = float(compare(rdm.double(), subject_rdms(test, fmri)).mean())
                    found.setdefault(f"{fmri}: {arm}", []).append((rank, error, rho))
                    print(
                        f"world {seed} {fmri} {arm}: rank correlation {rank:.2f}, error {error:.3f}, rho {rho:.3f}", flush=True
                    )
    print(f"\n{'':28} rank correlation: mean, lowest; worlds at .9 or above; error; rho on other images")
    for arm, values in found.items():
        ranks, errors, rhos = np.array(values).T
        reached = f"{int((ranks >= 0.899).sum())} of {len(ranks)}"
        print(f"{arm:28} {ranks.mean():.2f} {ranks.min():.2f}  {reached:>8}  {errors.mean():.3f}  {rhos.mean():.3f}")
    for fmri in PAIRS:
        for loss_name in ("", ", L1"):
            sampled, plain = (np.array(found[f"{fmri}: MEG, {arm}{loss_name}"]) for arm in ("sampled times", "plain average"))
            gain, better = (sampled - plain).mean(0), int((sampled[:, 1] < plain[:, 1]).sum())
            print(
                f"{fmri}{loss_name}: sampled less averaged: rank correlation {gain[0]:+.2f}, error {gain[1]:+.3f} (smaller in "
                f"{better} of {len(sampled)} worlds), rho {gain[2]:+.3f}"
            )


if __name__ == "__main__":
    main()
