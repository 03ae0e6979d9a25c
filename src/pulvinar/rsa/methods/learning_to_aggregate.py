"""Learning to aggregate: scales of a network's stages, so that its dissimilarities match the brain's.

Paper: Gaziv 2019, Learning to aggregate feature representations. Scales, predicted RDM and equation 1 (section 2.1, 2.2):
rsa/stage_mask.py. Training (section 2.3): rsa/aggregation.py on cached products, rsa/aggregation_network.py
with the network in the loop. Scores: rsa/evaluation.py. Table 1's four configurations: `preset=aggregation-…`.

Differs from the paper and why (measured in docs/methods/learning_to_aggregate.md):
- The paper holds out pairs, so that its validation images are training images too; here every fold is over images, and what is
  chosen (pull to identity, when to stop) is chosen in inner folds. protocol=both adds its table of held-out pairs.
- Defaults are what generalised best to unseen images, not the paper's: white backgrounds are made grey, maps are averaged
  to a few places, channels may start at equal variance, the loss is a correlation, scales are pulled to the identity, all pairs
  are one step. The presets have the paper's.
- One RDM is predicted for all subjects, as in the paper.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar, log
from pulvinar.core.storage import write_arrays, write_json
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.stimuli import Stimuli
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.staged import StagedNetwork
from pulvinar.rsa import evaluation as rsa
from pulvinar.rsa.aggregation import (
    ChosenScales,
    Layout,
    MeasuredRDMs,
    inner_folds,
    known_pairs,
    nested_scales,
    splits_at_once,
)
from pulvinar.rsa.aggregation_features import layouts, pictures, products
from pulvinar.rsa.aggregation_network import NetworkTrainer
from pulvinar.rsa.aggregation_scores import baselines, predictions, stage_importance
from pulvinar.rsa.aggregation_settings import AggregationConfig, parse_layout
from pulvinar.rsa.side_by_side import SideBySide, open_networks
from pulvinar.rsa.stage_mask import per_stage
from pulvinar.rsa.targets import image_sets, measured_rdms, subject_rdms, target_names
from pulvinar.scores.published import published
from pulvinar.scores.rdm import expand, pairs_among
from pulvinar.scores.resampling import LEVEL

THUMBNAIL = 56  # pixels, in the report


@dataclass(frozen=True, kw_only=True)
class Config(AggregationConfig):
    """Settings of the fit, and of its evaluation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The data with the networks and, in the order of `target_names`, the RDMs to reproduce."""

    data: Dissimilarities
    networks: SideBySide
    measured: list[MeasuredRDMs]


def prepare(config: Config, data: Dissimilarities) -> Prepared:
    """What can be wrong with settings and data together, before anything is written; network and RDMs."""
    names = target_names(config, data)
    if data.stimuli.read_image is None:
        raise InputError(f"{data.name}: came without images; learning to aggregate needs them")
    n_sources = len(set(data.stimuli.sources))
    if n_sources < 3 * config.n_inner_folds:
        raise InputError(f"n_inner_folds: {config.n_inner_folds} folds of 3 images or more need more than {n_sources} images")
    networks = open_networks(config, config.weights)
    return Prepared(data=data, networks=networks, measured=measured_rdms(data, names, config))


def fit(config: Config, prepared: Prepared, run: RunFolder) -> None:
    """Scales on all images of the data, by what inner folds chose; the checkpoint 'scales' is the result."""
    data, networks, measured = prepared.data, prepared.networks, prepared.measured
    result = _fit_network(config, data, run, networks, measured) if config.runs_network else None
    if result is None:
        result = _fit_scales(config, data, run, networks, measured)
    weights = None if config.weights is None else ",".join(map(_absolute, config.weights.split(",")))
    result |= {"library": {"weights": weights, "checksum": networks.checksum(), "stages": list(networks.stages)}}
    run.save(result, name="scales")
    write_json(run.path / "artifacts" / "scales.json", _summary(result, networks), sealed=True)
    run.finish(chosen=result["chosen"], roi=list(target_names(config, data)))


def _absolute(weights: str) -> str:
    return str(Path(weights.strip()).resolve()) if Path(weights.strip()).is_file() else weights.strip()


def _fit_scales(
    config: Config, data: Dissimilarities, run: RunFolder, networks: SideBySide, measured: list[MeasuredRDMs]
) -> State:
    state = run.load()
    if state is not None:
        log("resumed: the scales are chosen")
        return state["result"]
    found = layouts(networks, pictures(data.stimuli, config.background), config)
    everything = rsa.Splits(training=torch.ones(len(data.stimuli), 1, dtype=torch.bool))
    chosen = choose(config, found, measured, everything, list(data.stimuli.sources))[0]
    for candidate, score in chosen.inner_scores.items():
        run.log(**dataclasses.asdict(candidate), inner_score=score)
    stage = found[chosen.chosen.layout].features.stage
    result = {"scales": chosen.scales, "stage": stage, "chosen": dataclasses.asdict(chosen.chosen), "network": {}}
    run.save({"result": result})
    return result


def choose(
    config: Config, found: dict[str, Layout], measured: list[MeasuredRDMs], splits: rsa.Splits, groups: list[str]
) -> list[ChosenScales]:
    """Nested choice and training of the scales of every split."""
    training = splits.training
    n_pairs = int((splits.pairs(0)[:, 0] & known_pairs(measured)).sum())
    per_block = len(found) * config.n_steps(n_pairs)
    n_blocks = -(-training.shape[1] // splits_at_once(len(config.identity_weights), config.n_inner_folds))
    with bar("scales", per_block * n_blocks) as shown:
        return nested_scales(found, measured, training, groups, config, shown, held_out_pairs=splits.held_out_pairs)


def network_trainer(
    config: Config,
    network: StagedNetwork,
    images: list[np.ndarray],
    measured: list[MeasuredRDMs],
    training: Tensor,
    groups: list[str],
    *,
    sets: Sequence[Tensor],
    left_out: Tensor | None = None,
) -> NetworkTrainer:
    """A trainer that runs the network; without early stopping every training image is trained on.

    sets: rows of each set of images. left_out: (pair,), where pairs are held out: a share of the others then chooses the epoch.
    """
    generator = seeded(config.seed)
    held_out = torch.zeros_like(training)
    judged: Tensor | None = None
    if config.early_stopping and left_out is None:
        held_out = inner_folds(training, groups, config.n_inner_folds, generator) == 0
    if config.early_stopping and left_out is not None:
        judged = ~left_out & (torch.rand(len(left_out), generator=generator) < 1 / config.n_inner_folds)
        left_out = left_out | judged
    return NetworkTrainer(
        network,
        network.preprocess(images),
        measured,
        training & ~held_out,
        held_out,
        config,
        generator,
        left_out=left_out,
        judged=judged,
        sets=sets,
    )


def _fit_network(
    config: Config, data: Dissimilarities, run: RunFolder, networks: SideBySide, measured: list[MeasuredRDMs]
) -> State:
    everything = torch.ones(len(data.stimuli), dtype=torch.bool)
    images = pictures(data.stimuli, config.background)
    rows = [own for _, _, own in image_sets(data)]
    trainer = network_trainer(config, networks.only, images, measured, everything, list(data.stimuli.sources), sets=rows)
    state = run.load()
    state = None if state is None else state["trainer"]
    run_to_end(trainer, "network and scales", run, state=state, save=lambda reached: run.save({"trainer": reached}))
    return {
        **trainer.best,
        "stage": trainer.stage,
        "chosen": {"layout": f"none:{parse_layout(config.layouts[0])[1]}", "score": trainer.best_score},
    }


def _summary(result: State, networks: SideBySide) -> dict[str, Any]:
    """Scales by stage, for readers of the run."""
    scales, stage = result["scales"], result["stage"]
    return {
        "stages": list(networks.stages),
        "mean_scale": [float(scales[stage == place].mean()) for place in range(len(networks.stages))],
        "scales": {name: scales[stage == place].tolist() for place, name in enumerate(networks.stages)},
        "chosen": result["chosen"],
    }


def predict(run: RunFolder, stimuli: Stimuli, config: Config) -> dict[str, np.ndarray]:
    """rdm: float64 (image, image), the predicted dissimilarities of new images, in [0, 2], zero diagonal."""
    result = run.require(method="learning_to_aggregate").read("scales")
    if result is None:
        raise InputError(f"{run.path}: has no checkpoint 'scales'")
    if len(stimuli) < 2:
        raise InputError(f"images: two or more are needed for dissimilarities, {len(stimuli)} came")
    library = result["library"] if "library" in result else result["backbone"]  # as older runs call it
    networks = open_networks(config, library["weights"])
    if networks.checksum() != library["checksum"]:
        raise InputError(f"{library['weights']}: not the weights that {run.path} was fitted with (other checksum)")
    if result["network"]:
        networks.only.module.load_state_dict(result["network"])
    features = products(networks, pictures(stimuli, config.background), parse_layout(result["chosen"]["layout"])[1], config)
    return {"rdm": expand(features.rdm(result["scales"][:, None])[:, 0].double()).clamp(0, 2).numpy()}


def evaluate(run: RunFolder, data: Dissimilarities, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Repeated image-wise folds: our scales beside baselines and confounds, stage importance; written into the run.

    protocol=both: the paper's held-out pairs beside them, as `held_out_pairs`.
    """
    run.require(method="learning_to_aggregate")
    inputs = inputs_of(config, data)
    names, images, networks = inputs.names, inputs.images, inputs.networks
    splits = rsa.Splits.repeated(inputs.groups, n_repeats=config.n_repeats, n_folds=config.n_folds, seed=config.seed)
    chosen, models = _models(inputs, splits, controls=controls)
    result: dict[str, Any] = {"roi": list(names), "rows": [], "ceilings": {}, "importance": {}}
    for label, scored, places in _scored(inputs, splits, controls=controls):
        result["rows"] += [{"target": label, **row} for row in rsa.table(_among(models, places), scored)]
        result["ceilings"][label] = rsa.ceilings(scored)
        if chosen is not None and controls:
            result["importance"][label] = stage_importance(
                inputs.layouts, chosen, scored, training=splits.training, places=places
            )
    if chosen is not None:
        result["chosen"] = [dataclasses.asdict(part.chosen) for part in chosen]
    if config.protocol == "both":
        result["held_out_pairs"] = _by_pairs(inputs, controls=controls)
    result |= {
        "interval_level": LEVEL,
        "network": networks.name,
        "stages": list(networks.stages),
        "n_images": len(data.stimuli),
    }
    write_json(run.path / "evaluation.json", result, sealed=True)
    _write_rdms(run, data, names, splits.assemble(models["learning_to_aggregate"], 2), images)
    return result


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """What every part of the evaluation works on."""

    config: Config
    data: Dissimilarities
    names: tuple[str, ...]
    networks: SideBySide
    images: list[np.ndarray]
    measured: list[MeasuredRDMs]
    layouts: dict[str, Layout]

    @property
    def groups(self) -> list[str]:
        """Source pictures."""
        return list(self.data.stimuli.sources)


def inputs_of(config: Config, data: Dissimilarities) -> Inputs:
    """Networks, pictures, products and RDMs of the settings."""
    networks, images = open_networks(config, config.weights), pictures(data.stimuli, config.background)
    names = target_names(config, data)
    return Inputs(
        config=config,
        data=data,
        names=names,
        networks=networks,
        images=images,
        measured=measured_rdms(data, names, config),
        layouts=layouts(networks, images, config),
    )


def _models(inputs: Inputs, splits: rsa.Splits, *, controls: bool) -> tuple[list[ChosenScales] | None, dict[str, Tensor]]:
    """What inner folds chose (None where the network is run), and every model's predictions (pair, split), ours first."""
    config, measured, groups = inputs.config, inputs.measured, inputs.groups
    chosen = None
    if not config.runs_network:
        chosen = choose(config, inputs.layouts, measured, splits, groups)
    ours = predictions(inputs.layouts, chosen) if chosen is not None else predict_by_network(inputs, splits)
    models = {"learning_to_aggregate": ours}
    if controls and config.resolution != "stage" and splits.held_out_pairs is None:
        models["scales per stage only"] = _stage_scales(inputs, splits)
    if controls:
        models |= baselines(inputs.layouts, measured, splits, groups, n_folds=config.n_inner_folds, seed=config.seed)
    return chosen, models


def _among(models: dict[str, Tensor], places: Tensor) -> dict[str, Tensor]:
    return {name: rdm[places] for name, rdm in models.items()}


def _scored(inputs: Inputs, splits: rsa.Splits, *, controls: bool) -> Iterator[tuple[str, rsa.Scored, Tensor]]:
    """Of every target in every set of images: its label, what its rows share, and the places of its pairs among all."""
    config = inputs.config
    for name in inputs.names:
        for label, part, rows in image_sets(inputs.data):
            if name in part.targets:
                scored = rsa.Scored(
                    measured=subject_rdms(part, name),
                    splits=splits.among(rows),
                    confounds=rsa.confound_rdms(part.stimuli, part.models) if controls else {},
                    n_permutations=config.n_permutations,
                    n_bootstrap=config.n_bootstrap,
                    seed=config.seed,
                    comparisons=config.comparisons,
                )
                yield f"{name}-{label}" if label else name, scored, pairs_among(rows, len(inputs.data.stimuli))


def _by_pairs(inputs: Inputs, *, controls: bool) -> dict[str, Any]:
    """The table of the paper's protocol: a tenth of the pairs held out at a time, of images that are trained on."""
    splits = rsa.Splits.of_pairs(len(inputs.data.stimuli), seed=inputs.config.seed)
    _, models = _models(inputs, splits, controls=controls)
    result: dict[str, Any] = {"rows": [], "ceilings": {}}
    for label, scored, places in _scored(inputs, splits, controls=controls):
        result["rows"] += [{"target": label, **row} for row in rsa.table(_among(models, places), scored)]
        result["ceilings"][label] = rsa.ceilings(scored)
    return result


def _write_rdms(
    run: RunFolder, data: Dissimilarities, names: tuple[str, ...], unseen: Tensor, images: list[np.ndarray]
) -> None:
    """artifacts/rdms.npz for the report (of several sets of images rdms-SET.npz): the prediction for unseen pairs and every
    target's mean over subjects and time.

    The prediction is brought to mean and spread of the first target's mean, since folds only say how pairs relate; pairs
    that no fold held out are NaN.
    """
    small = [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in images]
    thumbnails = torch.cat([torch.nn.functional.adaptive_avg_pool2d(image, THUMBNAIL) for image in small])
    thumbnails = thumbnails.permute(0, 2, 3, 1).round().byte()
    for label, part, rows in image_sets(data):
        means = {name: subject_rdms(part, name).mean((0, 1)) for name in names if name in part.targets}
        if not means:
            continue
        first, own = next(iter(means.values())), unseen[pairs_among(rows, len(data.stimuli))]
        known = own[~own.isnan()]
        scaled = (own - known.mean()) / known.std().clamp_min(1e-12) * first.std() + first.mean()
        write_arrays(
            run.path / "artifacts" / (f"rdms-{label}.npz" if label else "rdms.npz"),
            predicted=expand(scaled.clamp_min(0)).numpy(),
            images=thumbnails[rows].numpy(),
            **{f"measured_{name}": expand(mean).numpy() for name, mean in means.items()},
        )


def _stage_scales(inputs: Inputs, splits: rsa.Splits) -> Tensor:
    """(pair, split) of one scale per stage, from stages of equal variance, with the same choices inside."""
    config = inputs.config
    found: dict[str, Layout] = {}
    for given, layout in inputs.layouts.items():
        if (name := f"stage:{parse_layout(given)[1]}") not in found:
            found[name] = Layout(variants=[per_stage(layout.features)], balance="stage")
    by_stage = dataclasses.replace(config, resolution="stage", crops="none", layouts=tuple(found), early_stopping=True)
    return predictions(found, choose(by_stage, found, inputs.measured, splits, inputs.groups))


def predict_by_network(inputs: Inputs, splits: rsa.Splits) -> Tensor:
    """(pair, split) of trainers that run the network, one for each split."""
    columns, rows = [], [own for _, _, own in image_sets(inputs.data)]
    network, config = inputs.networks.only, inputs.config
    with bar("network, splits", splits.training.shape[1]) as shown:
        for place, training in enumerate(splits.training.T):
            left_out = None if splits.held_out_pairs is None else splits.held_out_pairs[:, place]
            trainer = network_trainer(
                config, network, inputs.images, inputs.measured, training, inputs.groups, sets=rows, left_out=left_out
            )
            while not trainer.done:
                trainer.run_epoch()
            columns.append(trainer.rdm(trainer.pixels))
            shown.advance()
    return torch.stack(columns, dim=1)


METHOD = Method(
    name="learning_to_aggregate",
    config=Config,
    data="dissimilarities",
    needs=("RDMs of two or more subjects over one list of images", "the images"),
    topic="rsa",
    published=published("rsa", ("aggregation/table1", "aggregation/text")),
    prepare=prepare,
    fit=fit,
    evaluate=evaluate,
    table=rsa.table_text,
    predict=predict,
)
