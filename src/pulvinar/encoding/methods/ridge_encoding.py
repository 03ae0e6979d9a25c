"""Predict voxels from features of images: ridge on the layers of a network, scored on images that nothing was chosen on.

Paper: the encoding model of Mulrooney & Brockmeier 2024 (contrastive fine-tuning for encoding): features of tapped layers,
principal components, ridge with alpha per voxel, a layer per ROI, 5 folds; noise-normalised score of Gifford et al. 2023.
Where: linear/ridge.py, linear/banded_ridge.py and linear/partial_least_squares.py; choice and fit in encoding/encoder.py;
scores in scores/encoding.py and encoding/scores.py.
Differs from the paper and why: the paper's code picks alpha and layer on the folds it reports; here folds over the training
images choose, and the outer test images report (`r_nested`); what comes out when alpha and layer are chosen on the reported
images stands beside it (`r_optimistic`). Components are those of each fold's training images. A layer per voxel is the default.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.errors import InputError
from pulvinar.core.storage import write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import choose_feature
from pulvinar.data.nearness import near_options
from pulvinar.data.splits import check_split
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding import evaluation as scoring
from pulvinar.encoding.data import EncodedSubject, outer_splits
from pulvinar.encoding.encoder import predict as predict_responses
from pulvinar.encoding.files import encoders_of, fold_names
from pulvinar.encoding.fit import encoder_unit, run_units
from pulvinar.encoding.layer_features import LayerFeatures, LayerSource
from pulvinar.encoding.settings import EncodingConfig, names_of, open_checked, open_named
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(EncodingConfig):
    """Settings of the encoding model."""

    feature: tuple[str, ...] | None = setting(
        None, "embeddings that the experiment holds, each a layer; none: the only one", heading="Features"
    )
    network: str | None = setting(
        None,
        "network of torchvision or timm whose stages are the layers (instead of feature)",
        formerly={"backbone": "network"},
    )
    weights: str | None = setting(None, "its weights: a file, 'default' or a name; none: random")
    stages: tuple[str, ...] | None = setting(None, "modules to tap; none: one per resolution")
    n_stages: int | None = setting(None, "how many stages, spread evenly (instead of stages)", at_least=1)
    image_size: int | None = setting(None, "pixels along an edge of the network's input; none: the weights' own", at_least=1)
    pool: int | None = setting(None, "average each map to pool x pool places; none: whole maps", at_least=1)
    outer_folds: int | None = setting(
        None, "folds in which every image is a test image once; none: the data's own split", at_least=2
    )

    def problems(self) -> list[str]:
        """What is out of range or does not go together."""
        wrong = super().problems()
        if self.network is not None and self.feature is not None:
            wrong.append("network and feature both say what the layers are; give one of them")
        if self.network is None:
            names = ("weights", "stages", "n_stages", "image_size", "pool")
            given = [name for name in names if getattr(self, name) is not None]
            wrong += [f"{name} belongs to a network; name one" for name in given]
        if self.stages is not None and self.n_stages is not None:
            wrong.append("stages and n_stages both say which stages; give one of them")
        return wrong

    def layer_source(self) -> LayerSource:
        """The network of these settings."""
        return LayerSource(
            network=self.network,
            weights=self.weights,
            stages=self.stages if self.stages is not None else self.n_stages,
            image_size=self.image_size,
            pool=self.pool,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The experiment, and every subject once per outer fold."""

    experiment: Experiment
    opened: dict[str, list[EncodedSubject]]


def prepare(config: Config, experiment: Experiment) -> Prepared:
    """What can be wrong with the data, before anything is written or computed; the subjects."""
    if config.network is None:
        _source(config, experiment)
    elif experiment.stimuli.read_image is None:
        raise InputError(f"network={config.network}: needs images, and these stimuli came without; give feature=NAME instead")
    if config.outer_folds is not None:
        for split in outer_splits(experiment, config.outer_folds, config.seed):
            check_split(split, experiment.stimuli)
    return Prepared(experiment=experiment, opened=_open(config, experiment, open_checked))


def _open(
    config: Config, experiment: Experiment, open_one: Callable[..., EncodedSubject] = open_named
) -> dict[str, list[EncodedSubject]]:
    """Every subject once per outer fold, on voxels that are good in all of its folds."""
    splits = outer_splits(experiment, config.outer_folds, config.seed)
    found = {}
    for name in names_of(config, experiment):
        opened = [open_one(config, experiment, name, split=split) for split in splits]
        common = reduce(np.intersect1d, [given.voxels for given in opened])
        if not len(common):
            raise InputError(f"responses of {name}: no voxel is good in all outer folds")
        found[name] = [replace(given, voxels=common) for given in opened]
    return found


def _source(config: Config, experiment: Experiment) -> LayerSource:
    """Where the layers come from; `NotFoundError` or `InputError` for an embedding that is not there or not said."""
    if config.network is None:
        wanted = config.feature or (None,)
        return LayerSource(features=tuple(choose_feature(experiment.stimuli, name) for name in wanted))
    return config.layer_source()


def fit(config: Config, prepared: Prepared, run: RunFolder) -> None:
    """Choose and fit, subject by subject (and outer fold by fold); the results are the checkpoints encoder-... of the run."""
    experiment, opened = prepared.experiment, prepared.opened
    shown = [image for folds in opened.values() for given in folds for image in given.train.ids]
    features = LayerFeatures(_source(config, experiment), experiment.stimuli, shown)
    run_units(
        run,
        [
            encoder_unit(given, lambda ids=given.train.ids: features.of(ids), config, name=name)  # type: ignore[misc]
            for folds in opened.values()
            for name, given in zip(fold_names(config.outer_folds), folds, strict=True)
        ],
    )
    run.finish(subjects=list(opened), layers=list(features.layers), n_outer_folds=config.outer_folds)


def evaluate(run: RunFolder, experiment: Experiment, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Scores on the outer test images per subject, ROI and hemisphere; voxel maps in artifacts/, written into the run.

    controls: with the baseline, the unique variance beyond it and the optimistic number (all need further fits).
    """
    run.require(method="ridge_encoding")
    opened = _open(config, experiment)
    shown = [image for folds in opened.values() for given in folds for image in (*given.train.ids, *given.test.ids)]
    features = LayerFeatures(_source(config, experiment), experiment.stimuli, shown)
    rows, ceilings = [], {}
    for name, folds in opened.items():
        encoded = [
            scoring.Encoded(
                given=given, encoder=encoder, layers=features.of(given.train.ids), test_layers=features.of(given.test.ids)
            )
            for given, encoder in zip(folds, encoders_of(run, name), strict=True)
        ]
        of_subject, ceilings[name] = scoring.score_folds(
            config, run, encoded, controls=controls, near=near_options(experiment.facts)
        )
        rows += of_subject
    result = scoring.describe(config, rows, ceilings)
    folds_used = config.outer_folds
    result["outer"] = f"every image is a test image once, in {folds_used} folds" if folds_used else "the data's own split"
    write_json(run.path / "evaluation.json", result, sealed=True)
    return result


def predict(run: RunFolder, stimuli: Stimuli, config: Config) -> dict[str, np.ndarray]:
    """Predicted z-scored responses of each subject to new images: subject -> float32 (image, encoded voxel).

    With outer folds the mean over the folds' models.
    """
    source = config.layer_source() if config.network is not None else LayerSource(features=tuple(run.facts["layers"]))
    layers = source.of(stimuli, np.arange(len(stimuli)))
    return {
        name: np.mean([predict_responses(encoder, layers) for encoder in encoders_of(run, name)], axis=0)
        for name in run.facts["subjects"]
    }


METHOD = Method(
    name="ridge_encoding",
    config=Config,
    needs=("responses of a subject", "images and a network, or an embedding (feature) of each image"),
    topic="encoding",
    keeps_memory=("fit", "evaluate"),
    published=published("encoding", ("encoding/pooled",), metrics=("r_optimistic",), methods=("untuned",)),
    prepare=prepare,
    fit=fit,
    evaluate=evaluate,
    table=scoring.as_text,
    predict=predict,
)
