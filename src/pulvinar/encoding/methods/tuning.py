"""Tune a network to an ROI's responses, by contrast or by regression, then predict its voxels by ridge on the tuned layers.

Paper: Mulrooney & Brockmeier 2024 (arXiv 2410.06067).
contrastive_encoding  one-directional InfoNCE between images and brain responses on cosine similarities, temperature .3;
                      subject-specific, or pooled with a brain-side linear map per subject, subjects in turn.
regression_tuning     the paper's regression baseline: a linear map from the network's output to the voxels, mean squared error,
                      Adam 2.5e-5, 75 epochs.

Where: heads and their losses encoding/response_heads.py (`info_nce` in learning/contrastive.py); loop
encoding/response_tuning.py; what is held out and the ridge after it encoding/tuning_run.py; scores encoding/evaluation.py.
Differs from the paper and why: layer and alpha are chosen on training images that the network was not tuned on, and outer test
images report (the paper's code chooses on the folds it reports); epochs end by held-out training images; the batch is 128, for
the data have far fewer images than batch 1024 wants; the network's own batch-norms keep their statistics. `symmetric`, the
learnt temperature, last stages, LoRA, voxel selection and a gated network under a budget of multiply-adds are ours.
The paper's own run: network=alexnet weights=default image_size=224 pool=none batch_size=1024 patience=none validation_share=0
layer_choice=roi.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulvinar.core.config import setting
from pulvinar.core.storage import write_json
from pulvinar.data.experiment import Experiment
from pulvinar.data.nearness import near_options
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding import evaluation as scoring
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import predict as predict_responses
from pulvinar.encoding.fit import TUNED, UNTUNED, load_encoder
from pulvinar.encoding.response_heads import ContrastiveHead
from pulvinar.encoding.scores import OF_TUNED
from pulvinar.encoding.settings import TuningConfig, names_of, tag_of
from pulvinar.encoding.tuned_networks import load_tuned
from pulvinar.encoding.tuning_run import choice_folds, fit, layers_of, mac_share, open_all, pixels, prepare
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.staged_resnet import ResNetPass
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class ContrastiveConfig(TuningConfig):
    """Settings of contrastive tuning."""

    temperature: float = setting(0.3, "of the similarities (paper: 0.3)", above=0, heading="Contrast")
    learn_temperature: bool = setting(False, "the temperature is a parameter, not below 0.01 (ours, as in CLIP)")
    symmetric: bool = setting(False, "mean of both directions, as CLIP (paper: for each image a softmax over brains)")
    hidden: int | None = setting(
        None, "width of the head; none: 0.8 of the voxels, pooled their mean (paper), 16 to 1024", at_least=2
    )
    output: int | None = setting(
        None, "dimensions compared; none: 0.2 of the voxels, pooled a quarter of hidden (paper)", at_least=2
    )

    def head(self, n_features: int, n_voxels: Mapping[str, int]) -> ContrastiveHead:
        """What compares the output of the network, so many features, with each subject's voxels."""
        return ContrastiveHead(
            n_features,
            n_voxels,
            hidden=self.hidden,
            output=self.output,
            temperature=self.temperature,
            learn_temperature=self.learn_temperature,
            symmetric=self.symmetric,
        )


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(TuningConfig):
    """Settings of regression tuning."""

    epochs: int = setting(75, "passes over the images at most (paper: 75)", at_least=1)
    learning_rate: float = setting(2.5e-5, "of Adam, network (paper: 2.5e-5)", above=0)


def evaluate(run: RunFolder, experiment: Experiment, config: TuningConfig, *, controls: bool = True) -> dict[str, Any]:
    """Rows per subject, ROI and hemisphere on the outer test images; written into the run with maps and predictions."""
    run.require(method=next(method.name for method in METHODS if method.config is type(config)))
    opened = open_all(config, experiment)
    rows, ceilings = [], {}
    shares, choices = {}, {}
    for name in names_of(config, experiment):
        given, encoder = opened.subjects[name], load_encoder(run, name)
        tag, fell_back = encoder["network"], encoder["network"] == UNTUNED
        shown, test_ids = [*given.train.ids, *given.test.ids], given.test.ids
        features = layers_of(config, run, tag, given.stimuli, shown)
        test_layers = features.of(test_ids)
        encoded = scoring.Encoded(
            given=given,
            encoder=encoder,
            layers=features.of(given.train.ids),
            test_layers=test_layers,
            folds=None if fell_back else choice_folds(config, opened.plans[tag_of(config, name)], given),
            untuned=predict_responses(encoder, test_layers) if fell_back else _predict(config, run, given, UNTUNED, UNTUNED),
            tuned=_predict(config, run, given, tag_of(config, name), TUNED) if fell_back else None,
        )
        found, ceilings[name] = scoring.score_subject(
            config, run, encoded, controls=controls, near=near_options(experiment.facts)
        )
        shares[name] = _mac_share(run, tag, given.stimuli, test_ids)
        own = {
            "tuned_on": run.facts["tuned_on"][name],
            "mac_share": shares[name],
            "encoded_with": UNTUNED if fell_back else TUNED,
        }
        rows += [{**row, **own} for row in found]
        choices[name] = {"encoded_with": own["encoded_with"], **(encoder.get("choice") or {})}
    result = scoring.describe(config, rows, ceilings) | {
        "network": config.network,
        "tuned": config.tuned,
        "voxels": config.voxels,
        "pooled": config.pooled,
        "choices": choices,
        "choices_are": "R^2 of the ridge on the tuned and on the untuned network on n_images training images held out from "
        "tuning; the untuned one encodes unless the tuned one is better by 0.002",
        **{f"{column.key}_is": column.definition for column in OF_TUNED if column.definition},
    }
    write_json(run.path / "evaluation.json", result, sealed=True)
    return result


def _predict(config: TuningConfig, run: RunFolder, given: EncodedSubject, tag: str, encoder: str) -> np.ndarray:
    """Test predictions of an encoder of the run (its checkpoint's name) on the layers of a network."""
    layers = layers_of(config, run, tag, given.stimuli, given.test.ids).of(given.test.ids)
    return predict_responses(load_encoder(run, given.name, name=encoder), layers)


def _mac_share(run: RunFolder, tag: str, stimuli: Stimuli, ids: list[str]) -> float | None:
    """Mean MAC share of a gated network on these images; None without gates."""
    network = load_tuned(run, tag)
    if not isinstance(network.module, ResNetPass) or not network.module.gated:
        return None
    return mac_share(network.module, pixels(network, stimuli, stimuli.rows(ids)), len(ids))


def predict(run: RunFolder, stimuli: Stimuli, config: TuningConfig) -> dict[str, np.ndarray]:
    """Predicted z-scored responses of each subject to new images: subject -> float32 (image, encoded voxel)."""
    found = {}
    for name in run.facts["subjects"]:
        encoder = load_encoder(run, name)
        layers = layers_of(config, run, encoder["network"], stimuli, list(stimuli.ids)).of(list(stimuli.ids))
        found[name] = predict_responses(encoder, layers)
    return found


def _method(*, name: str, summary: str, config: type[TuningConfig], rows: list[dict[str, Any]]) -> Method:
    return Method(
        name=name,
        summary=summary,
        config=config,
        needs=("responses of one or more subjects", "the images"),
        topic="encoding",
        on_several_devices=True,
        published=rows,
        prepare=prepare,
        fit=fit,
        evaluate=evaluate,
        table=scoring.tuned_text,
        predict=predict,
    )


METHODS = (
    _method(
        name="contrastive_encoding",
        summary="Tune a network to share information with an ROI by contrast, then predict its voxels by ridge on the tuned "
        "layers.",
        config=ContrastiveConfig,
        rows=published("encoding", ("encoding/pooled",), metrics=("r_optimistic",)),
    ),
    _method(
        name="regression_tuning",
        summary="Tune a network by regressing an ROI's responses on its output, then predict the voxels by ridge: contrast's "
        "strong baseline.",
        config=RegressionConfig,
        rows=published("encoding", ("encoding/pooled",), metrics=("r_optimistic",), methods=("untuned", "regression-tuned")),
    ),
)
