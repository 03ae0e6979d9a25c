"""Tune a backbone by regressing an ROI's responses on its output, then predict the voxels by ridge: contrast's strong baseline.

Paper: the regression baseline of Mulrooney & Brockmeier 2024 (arXiv 2410.06067): a linear map from the network's output to the
voxels, mean squared error, Adam 2.5e-5, 75 epochs.
Where: loop encoding/response_tuning.py; what is held out and the ridge after it encoding/tuning_run.py; scores
encoding/tuned_encoding.py.
Differs from the paper and why: as contrastive_encoding (nested choice, held-out training images end the epochs, batch 128).
The paper's own run: backbone=alexnet weights=default image_size=224 pool=none batch_size=1024 patience=none validation_share=0
layer_choice=roi.
"""

from dataclasses import dataclass
from typing import ClassVar

from pulvinar.core.config import setting
from pulvinar.data.experiment import Experiment
from pulvinar.encoding import tuned_encoding as scores
from pulvinar.encoding import tuning_run
from pulvinar.encoding.response_heads import RegressionHead
from pulvinar.encoding.tuning_settings import Objective, TuningConfig
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(TuningConfig):
    """Settings of regression tuning."""

    OBJECTIVE: ClassVar[Objective] = "regression"

    epochs: int = setting(75, "passes over the images at most (paper: 75)", at_least=1)
    learning_rate: float = setting(2.5e-5, "of Adam, backbone (paper: 2.5e-5)", above=0)


def fit(config: Config, experiment: Experiment, run: RunFolder) -> None:
    """Tune, then fit the ridge before and after; the results are the checkpoints backbone-TAG and encoder-SUBJECT."""
    tuning_run.fit(config, experiment, run, RegressionHead)


METHOD = Method(
    name="regression_tuning",
    config=Config,
    needs=("responses of one or more subjects", "the images"),
    topic="encoding",
    published=published("encoding", ("encoding/pooled",), metrics=("r_optimistic",), methods=("untuned", "regression-tuned")),
    prepare=tuning_run.prepare,
    fit=fit,
    evaluate=scores.evaluate,
    table=scores.as_text,
    predict=scores.predict,
)
