"""What each choice of learning to aggregate gains on unseen images of the 92, which of its findings hold, and its speed.

    uv run python benchmarks/rdm92_aggregation.py choices DATA.npz WEIGHTS.npz --out choices.json
    uv run python benchmarks/rdm92_aggregation.py everything DATA.npz WEIGHTS.npz --out everything.json
    uv run python benchmarks/rdm92_aggregation.py speed DATA.npz WEIGHTS.npz --out speed.json

choices: the default against one change at a time, same splits, all choices in inner folds; signed rho on pairs of two unseen
images, and its difference from the default with an interval over images and subjects. everything: the network trained too
against the scales alone, both with the network in the loop, at a small image size. speed: a step on cached products against
one that runs the network, and a whole fit.
"""

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulvinar.core.progress import log, show
from pulvinar.core.storage import write_json
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.dissimilarity_files import read_npz
from pulvinar.rsa import evaluation as rsa
from pulvinar.rsa.aggregation import Columns, pairs_of, train_scales
from pulvinar.rsa.aggregation_features import layouts, pictures
from pulvinar.rsa.aggregation_scores import predictions, unweighted
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.rsa.methods import learning_to_aggregate as method
from pulvinar.rsa.side_by_side import open_networks
from pulvinar.rsa.targets import measured_rdms, subject_rdms
from pulvinar.scores.rdm_ceiling import noise_ceiling

LAYOUT = {"evc": ("none:7",), "it": ("channel:3",)}
PAPER = {"loss": "l1", "identity_weights": (0.0,), "learning_rate": 1e-2, "batch_pairs": 40, "epochs": 15}
CHOICES: dict[str, dict[str, Any]] = {
    "default": {},
    "no reliability weights": {"use_reliability": False},
    "backgrounds as they are": {"background": "as_is"},
    "other layout": {},
    "maps of 14 x 14": {"layouts": ("none:14",)},
    "one mean per channel": {"layouts": ("channel:1",)},
    "channels centred": {"centring": "channel"},
    "stages balanced": {"layouts": ("stage:7",)},
    "L1 loss": {"loss": "l1"},
    "MSE loss": {"loss": "mse"},
    "no pull": {"identity_weights": (0.0,)},
    "strong pull": {"identity_weights": (0.3,)},
    "not negative": {"non_negative": True},
    "group sparsity": {"group_weight": 0.1},
    "channels pulled to their stage": {"stage_mean_weight": 0.1},
    "last step, no early stopping": {"early_stopping": False},
    "4 cached crops": {"crops": "cached_crops"},
    "all points of the network": {"stages": 9},
    "paper's mask training": {**PAPER, "early_stopping": False, "layouts": ("none:0",), "background": "as_is"},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["choices", "everything", "speed"])
    parser.add_argument("data")
    parser.add_argument("weights")
    parser.add_argument("--network", default="squeezenet1_0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--roi", nargs="+", default=["evc", "it"])
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    data = read_npz(given.data)
    config = method.Config(network=given.network, weights=given.weights, n_repeats=given.repeats, n_bootstrap=500)
    {"choices": choices, "everything": everything, "speed": speed}[given.part](config, data, given)


def splits_of(config: method.Config, data: Dissimilarities) -> rsa.Splits:
    return rsa.Splits.repeated(data.stimuli.sources, n_repeats=config.n_repeats, n_folds=config.n_folds, seed=config.seed)


def scored_of(config: method.Config, data: Dissimilarities, roi: str) -> rsa.Scored:
    return rsa.Scored(
        measured=subject_rdms(data, roi),
        splits=splits_of(config, data),
        confounds={},
        n_permutations=1,
        n_bootstrap=config.n_bootstrap,
        seed=config.seed,
    )


def row(name: str, predicted: torch.Tensor, reference: torch.Tensor, scored: rsa.Scored) -> dict[str, Any]:
    """rho and percent of the upper ceiling on unseen pairs, and the difference of rho from the reference."""
    pairs = scored.unseen
    measured = scored.measured[..., pairs]
    rho = rsa.subject_rho(rsa.full_rdm(predicted, scored.splits, 2)[pairs], measured)
    found = {"name": name, "rho": float(rho.mean()), "n_pairs": len(pairs)}
    found["percent"] = 100 * float(rho.square().mean()) / noise_ceiling(measured).upper
    if predicted is not reference:
        found["minus_reference"] = rsa.difference(predicted, reference, scored)
    return found


def predict_splits(config: method.Config, data: Dissimilarities, roi: str, splits: rsa.Splits) -> torch.Tensor:
    found = layouts(open_networks(config, config.weights), pictures(data.stimuli, config.background), config)
    chosen = method.choose(config, found, measured_rdms(data, (roi,), config), splits, list(data.stimuli.sources))
    return predictions(found, chosen)


def choices(config: method.Config, data: Dissimilarities, given: argparse.Namespace) -> None:
    result: dict[str, list[dict[str, Any]]] = {}
    for roi in given.roi:
        scored, rows, default = scored_of(config, data, roi), [], torch.empty(0)
        for name, change in CHOICES.items():
            if given.only and name not in (*given.only, "default"):
                continue
            layout = LAYOUT["it" if roi == "evc" else "evc"] if name == "other layout" else LAYOUT[roi]
            changed = dataclasses.replace(config, **{"layouts": layout, **change})
            started = time.monotonic()
            predicted = predict_splits(changed, data, roi, scored.splits)
            default = predicted if name == "default" else default
            rows.append({**row(name, predicted, default, scored), "seconds": time.monotonic() - started})
            log(f"{roi} {rows[-1]}")
            result[roi] = rows
            write_json(given.out, result)


def everything(config: method.Config, data: Dissimilarities, given: argparse.Namespace) -> None:
    """One repeat of 5 folds, 64 pixels: scales alone and everything, with the network in the loop, crops of 87.5 %."""
    config = dataclasses.replace(config, n_repeats=1, image_size=64, crops="run_network", epochs=4, learning_rate=1e-2)
    result: dict[str, list[dict[str, Any]]] = {}
    for roi in given.roi:
        scored = scored_of(config, data, roi)
        rates = {"scales alone": 0.0, "everything, network at 1e-3": 1e-3, "everything, network at 1e-4": 1e-4}
        rows, reference = [], torch.empty(0)
        for name, rate in rates.items():
            changed = dataclasses.replace(config, layouts=LAYOUT[roi], train="mask" if rate == 0 else "all", network_rate=rate)
            inputs = method.inputs_of(dataclasses.replace(changed, roi=(roi,)), data)
            predicted = method.predict_by_network(inputs, scored.splits)
            reference = predicted if rate == 0 else reference
            rows.append(row(name, predicted, reference, scored))
            if rate == 0:
                rows.append(row("unweighted", unweighted(next(iter(inputs.layouts.values())).features), reference, scored))
            log(f"{roi} {rows}")
            result[roi] = rows
            write_json(given.out, result)


def speed(config: method.Config, data: Dissimilarities, given: argparse.Namespace) -> None:
    """Medians of interleaved runs, one thread: a step on all pairs from cached products, and one that runs the network."""
    torch.set_num_threads(1)
    config = dataclasses.replace(config, layouts=LAYOUT["evc"])
    networks = open_networks(config, config.weights)
    images = pictures(data.stimuli, config.background)
    features = next(iter(layouts(networks, images, config).values())).features
    measured = measured_rdms(data, ("evc",), config)
    training = torch.ones(len(images), 1, dtype=torch.bool)
    columns = Columns(pairs=pairs_of(training), identity=torch.tensor([0.03]), start=torch.ones(features.n_scales, 1))
    n_cached = 20
    seconds: dict[str, list[float]] = {"cached, 4,186 pairs": [], "cached, 40 pairs": [], "network, 45 pairs of 10 images": []}

    def cached(batch_pairs: int | None) -> float:
        settings = AggregationConfig(learning_rate=1e-2, batch_pairs=batch_pairs)
        started = time.perf_counter()
        train_scales(
            [features], measured, columns, settings, torch.Generator().manual_seed(0), lambda *_: None, n_steps=n_cached
        )
        return (time.perf_counter() - started) / n_cached

    running = dataclasses.replace(config, crops="run_network", images_per_step=10, early_stopping=False)
    trainer = method.network_trainer(
        running, networks.only, images, measured, training[:, 0], list(data.stimuli.sources), sets=[torch.arange(len(images))]
    )
    for _ in range(5):
        seconds["cached, 4,186 pairs"].append(cached(None))
        seconds["cached, 40 pairs"].append(cached(40))
        started = time.perf_counter()
        trainer.step()
        seconds["network, 45 pairs of 10 images"].append(time.perf_counter() - started)
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    per_pair = medians["network, 45 pairs of 10 images"] / 45 / (medians["cached, 4,186 pairs"] / features.between.shape[0])
    result = {
        "seconds_per_step": medians,
        "spread": {name: [min(values), max(values)] for name, values in seconds.items()},
        "ratio_of_a_40_pair_step": medians["network, 45 pairs of 10 images"] / medians["cached, 40 pairs"],
        "ratio_per_pair": per_pair,
    }
    log(str(result))
    write_json(Path(given.out), result)


if __name__ == "__main__":
    show(True)
    main()
