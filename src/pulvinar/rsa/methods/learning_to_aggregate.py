"""Learning to aggregate: scales of a network's stages, so that its dissimilarities match the brain's.

Paper: Gaziv 2019, Learning to aggregate feature representations. Scales, predicted RDM and equation 1 (section 2.1, 2.2):
rsa/stage_mask.py. Training (section 2.3): rsa/aggregation.py on cached products, rsa/aggregation_network.py
with the network in the loop. Scores: rsa/evaluation.py. Table 1's four configurations: `preset=aggregation-…`.

Differs from the paper and why (measured in docs/methods/learning_to_aggregate.md):
- The paper holds out pairs, so that its validation images are training images too; here every fold is over images, and what is
  chosen (pull to identity, when to stop) is chosen in inner folds.
- Defaults are what generalised best to unseen images, not the paper's: white backgrounds are made grey, maps are averaged
  to a few places, channels may start at equal variance, the loss is a correlation, scales are pulled to the identity, all pairs
  are one step. The presets have the paper's.
- One RDM is predicted for all subjects, as in the paper.
"""

import dataclasses
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
from pulvinar.networks.backbones import Backbone, load_backbone
from pulvinar.rsa import evaluation as rsa
from pulvinar.rsa.aggregation import (
    ChosenScales,
    Layout,
    MeasuredRDMs,
    inner_folds,
    nested_scales,
    splits_at_once,
)
from pulvinar.rsa.aggregation_features import layouts, pictures, products
from pulvinar.rsa.aggregation_network import NetworkTrainer
from pulvinar.rsa.aggregation_scores import baselines, predictions, stage_importance
from pulvinar.rsa.aggregation_settings import AggregationConfig, parse_layout
from pulvinar.scores.published import published
from pulvinar.scores.rdm import condense, expand
from pulvinar.scores.resampling import LEVEL

THUMBNAIL = 56  # pixels, in the report


@dataclass(frozen=True, kw_only=True)
class Config(AggregationConfig):
    """Settings of the fit, and of its evaluation."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The data with the backbone and, in the order of `target_names`, the RDMs to reproduce."""

    data: Dissimilarities
    backbone: Backbone
    measured: list[MeasuredRDMs]


def prepare(config: Config, data: Dissimilarities) -> Prepared:
    """What can be wrong with settings and data together, before anything is written; backbone and RDMs."""
    names = target_names(config, data)
    if data.stimuli.read_image is None:
        raise InputError(f"{data.name}: came without images; learning to aggregate needs them")
    n_sources = len(set(data.stimuli.sources))
    if n_sources < 3 * config.n_inner_folds:
        raise InputError(f"n_inner_folds: {config.n_inner_folds} folds of 3 images or more need more than {n_sources} images")
    backbone = open_backbone(config, config.weights)
    return Prepared(data=data, backbone=backbone, measured=[measured_rdms(data, name, config) for name in names])


def target_names(config: Config, data: Dissimilarities) -> tuple[str, ...]:
    """The targets to fit; `NotFoundError` names those that are there."""
    names = config.roi or (next(iter(data.targets)),)
    return tuple(data.target(name).name for name in names)


def measured_rdms(data: Dissimilarities, name: str, config: Config) -> MeasuredRDMs:
    """One target for training."""
    rdms = subject_rdms(data, name)
    return MeasuredRDMs(rdms, time_sampling=config.time_sampling, use_reliability=config.use_reliability)


def subject_rdms(data: Dissimilarities, name: str) -> Tensor:
    """(subject, time, pair) of a target; fMRI has one time point."""
    square = torch.from_numpy(np.asarray(data.target(name).rdms, np.float64))
    return condense(square if square.ndim == 4 else square[:, None])


def open_backbone(config: Config, weights: str | None) -> Backbone:
    """The frozen network of the settings."""
    return load_backbone(
        config.backbone,
        weights=weights,
        stages=config.stages,
        image_size=config.image_size,
        mean=config.mean or None,
        std=config.std or None,
        seed=config.seed,
    ).freeze()


def fit(config: Config, prepared: Prepared, run: RunFolder) -> None:
    """Scales on all images of the data, by what inner folds chose; the checkpoint 'scales' is the result."""
    data, backbone, measured = prepared.data, prepared.backbone, prepared.measured
    result = _fit_network(config, data, run, backbone, measured) if config.runs_backbone else None
    if result is None:
        result = _fit_scales(config, data, run, backbone, measured)
    weights = config.weights
    if weights is not None and Path(weights).is_file():
        weights = str(Path(weights).resolve())
    result |= {"backbone": {"weights": weights, "checksum": backbone.checksum(), "stages": list(backbone.stages)}}
    run.save(result, name="scales")
    write_json(run.path / "artifacts" / "scales.json", _summary(result, backbone), sealed=True)
    run.finish(chosen=result["chosen"], roi=list(target_names(config, data)))


def _fit_scales(
    config: Config, data: Dissimilarities, run: RunFolder, backbone: Backbone, measured: list[MeasuredRDMs]
) -> State:
    state = run.load()
    if state is not None:
        log("resumed: the scales are chosen")
        return state["result"]
    found = layouts(backbone, pictures(data.stimuli, config.background), config)
    everything = torch.ones(len(data.stimuli), 1, dtype=torch.bool)
    chosen = choose(config, found, measured, everything, list(data.stimuli.sources))[0]
    for candidate, score in chosen.inner_scores.items():
        run.log(**dataclasses.asdict(candidate), inner_score=score)
    stage = found[chosen.chosen.layout].features.stage
    result = {"scales": chosen.scales, "stage": stage, "chosen": dataclasses.asdict(chosen.chosen), "network": {}}
    run.save({"result": result})
    return result


def choose(
    config: Config, found: dict[str, Layout], measured: list[MeasuredRDMs], training: Tensor, groups: list[str]
) -> list[ChosenScales]:
    """Nested choice and training of the scales of every split (image, split)."""
    n_training = int(training[:, 0].sum())
    per_block = len(found) * config.n_steps(n_training)
    n_blocks = -(-training.shape[1] // splits_at_once(len(config.identity_weights), config.n_inner_folds))
    with bar("scales", per_block * n_blocks) as shown:
        return nested_scales(found, measured, training, groups, config, shown)


def network_trainer(
    config: Config,
    backbone: Backbone,
    images: list[np.ndarray],
    measured: list[MeasuredRDMs],
    training: Tensor,
    groups: list[str],
) -> NetworkTrainer:
    """A trainer that runs the network; without early stopping every training image is trained on."""
    generator = seeded(config.seed)
    held_out = torch.zeros_like(training)
    if config.early_stopping:
        held_out = inner_folds(training, groups, config.n_inner_folds, generator) == 0
    return NetworkTrainer(
        backbone,
        backbone.preprocess(images),
        measured,
        training & ~held_out,
        held_out,
        config,
        generator,
    )


def _fit_network(
    config: Config, data: Dissimilarities, run: RunFolder, backbone: Backbone, measured: list[MeasuredRDMs]
) -> State:
    everything = torch.ones(len(data.stimuli), dtype=torch.bool)
    images = pictures(data.stimuli, config.background)
    trainer = network_trainer(config, backbone, images, measured, everything, list(data.stimuli.sources))
    state = run.load()
    state = None if state is None else state["trainer"]
    run_to_end(trainer, "network and scales", run, state=state, save=lambda reached: run.save({"trainer": reached}))
    return {
        **trainer.best,
        "stage": trainer.stage,
        "chosen": {"layout": f"none:{parse_layout(config.layouts[0])[1]}", "score": trainer.best_score},
    }


def _summary(result: State, backbone: Backbone) -> dict[str, Any]:
    """Scales by stage, for readers of the run."""
    scales, stage = result["scales"], result["stage"]
    return {
        "stages": list(backbone.stages),
        "mean_scale": [float(scales[stage == place].mean()) for place in range(len(backbone.stages))],
        "scales": {name: scales[stage == place].tolist() for place, name in enumerate(backbone.stages)},
        "chosen": result["chosen"],
    }


def predict(run: RunFolder, stimuli: Stimuli, config: Config) -> dict[str, np.ndarray]:
    """rdm: float64 (image, image), the predicted dissimilarities of new images, in [0, 2], zero diagonal."""
    result = run.require(method="learning_to_aggregate").read("scales")
    if result is None:
        raise InputError(f"{run.path}: has no checkpoint 'scales'")
    if len(stimuli) < 2:
        raise InputError(f"images: two or more are needed for dissimilarities, {len(stimuli)} came")
    backbone = open_backbone(config, result["backbone"]["weights"])
    if backbone.checksum() != result["backbone"]["checksum"]:
        raise InputError(f"{result['backbone']['weights']}: not the weights that {run.path} was fitted with (other checksum)")
    if result["network"]:
        backbone.network.load_state_dict(result["network"])
    features = products(backbone, pictures(stimuli, config.background), parse_layout(result["chosen"]["layout"])[1], config)
    return {"rdm": expand(features.rdm(result["scales"][:, None])[:, 0].double()).clamp(0, 2).numpy()}


def evaluate(run: RunFolder, data: Dissimilarities, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Repeated image-wise folds: our scales beside baselines and confounds, stage importance; written into the run."""
    run.require(method="learning_to_aggregate")
    backbone = open_backbone(config, config.weights)
    names, groups = target_names(config, data), list(data.stimuli.sources)
    measured = [measured_rdms(data, name, config) for name in names]
    images = pictures(data.stimuli, config.background)
    found = layouts(backbone, images, config)
    splits = rsa.Splits.repeated(groups, n_repeats=config.n_repeats, n_folds=config.n_folds, seed=config.seed)
    chosen = None if config.runs_backbone else choose(config, found, measured, splits.training, groups)
    if chosen is None:
        ours = predict_by_network(config, backbone, images, measured, splits, groups)
    else:
        ours = predictions(found, chosen)
    models = {"learning_to_aggregate": ours}
    if controls and config.resolution != "stage":
        models["scales per stage only"] = _stage_scales(config, backbone, images, measured, splits, groups)
    if controls:
        models |= baselines(found, measured, splits, groups, n_folds=config.n_inner_folds, seed=config.seed)
    result: dict[str, Any] = {"roi": list(names), "rows": [], "ceilings": {}, "importance": {}}
    for name in names:
        scored = rsa.Scored(
            measured=subject_rdms(data, name),
            splits=splits,
            confounds=rsa.confound_rdms(data.stimuli, data.models) if controls else {},
            n_permutations=config.n_permutations,
            n_bootstrap=config.n_bootstrap,
            seed=config.seed,
            comparisons=config.comparisons,
        )
        result["rows"] += [{"target": name, **row} for row in rsa.table(models, scored)]
        result["ceilings"][name] = rsa.ceilings(scored)
        if chosen is not None and controls:
            result["importance"][name] = stage_importance(found, chosen, scored)
    if chosen is not None:
        result["chosen"] = [dataclasses.asdict(part.chosen) for part in chosen]
    result |= {
        "interval_level": LEVEL,
        "backbone": backbone.name,
        "stages": list(backbone.stages),
        "n_images": len(data.stimuli),
    }
    write_json(run.path / "evaluation.json", result, sealed=True)
    _write_rdms(run, data, names, splits.assemble(ours, 2), images)
    return result


def _write_rdms(
    run: RunFolder, data: Dissimilarities, names: tuple[str, ...], unseen: Tensor, images: list[np.ndarray]
) -> None:
    """artifacts/rdms.npz for the report: the prediction for unseen pairs and every target's mean over subjects and time.

    The prediction is brought to mean and spread of the first target's mean, since folds only say how pairs relate; pairs
    that no fold held out are NaN.
    """
    means = {name: subject_rdms(data, name).mean((0, 1)) for name in names}
    first = means[names[0]]
    known = unseen[~unseen.isnan()]
    scaled = (unseen - known.mean()) / known.std().clamp_min(1e-12) * first.std() + first.mean()
    small = [torch.from_numpy(image).permute(2, 0, 1)[None].float() for image in images]
    thumbnails = torch.cat([torch.nn.functional.adaptive_avg_pool2d(image, THUMBNAIL) for image in small])
    write_arrays(
        run.path / "artifacts" / "rdms.npz",
        predicted=expand(scaled.clamp_min(0)).numpy(),
        images=thumbnails.permute(0, 2, 3, 1).round().byte().numpy(),
        **{f"measured_{name}": expand(mean).numpy() for name, mean in means.items()},
    )


def _stage_scales(
    config: Config,
    backbone: Backbone,
    images: list[np.ndarray],
    measured: list[MeasuredRDMs],
    splits: rsa.Splits,
    groups: list[str],
) -> Tensor:
    """(pair, split) of one scale per stage, from stages of equal variance, with the same choices inside."""
    layouts_of = tuple(dict.fromkeys(f"stage:{parse_layout(name)[1]}" for name in config.layouts))
    by_stage = dataclasses.replace(config, resolution="stage", crops="none", layouts=layouts_of, early_stopping=True)
    found = layouts(backbone, images, by_stage)
    return predictions(found, choose(by_stage, found, measured, splits.training, groups))


def predict_by_network(
    config: Config,
    backbone: Backbone,
    images: list[np.ndarray],
    measured: list[MeasuredRDMs],
    splits: rsa.Splits,
    groups: list[str],
) -> Tensor:
    """(pair, split) of trainers that run the network, one for each split."""
    columns = []
    with bar("network, splits", splits.training.shape[1]) as shown:
        for training in splits.training.T:
            trainer = network_trainer(config, backbone, images, measured, training, groups)
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
