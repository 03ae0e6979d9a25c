"""Tune a backbone to share information with an ROI by contrast, then predict its voxels by ridge on the tuned layers.

Paper: Mulrooney & Brockmeier 2024 (arXiv 2410.06067): one-directional InfoNCE between images and brain responses on cosine
similarities, temperature .3; subject-specific, or pooled with a brain-side linear map per subject, subjects in turn.
Where: loss learning/contrastive.py (`info_nce`); head encoding/response_heads.py; loop encoding/response_tuning.py; what is
held out and the ridge after it encoding/tuning_run.py; scores encoding/tuned_encoding.py.
Differs from the paper and why: layer and alpha are chosen on training images that the backbone was not tuned on, and outer test
images report (the paper's code chooses on the folds it reports); epochs end by held-out training images; the batch is 128, for
the data have far fewer images than batch 1024 wants; the backbone's own batch-norms keep their statistics. `symmetric`, the
learnt temperature, last stages, LoRA, voxel selection and a gated backbone under a budget of multiply-adds are ours.
The paper's own run: backbone=alexnet weights=default image_size=224 pool=none batch_size=1024 patience=none validation_share=0
layer_choice=roi.
"""

from dataclasses import dataclass

from pulvinar.core.config import setting
from pulvinar.data.experiment import Experiment
from pulvinar.encoding import tuned_encoding as scores
from pulvinar.encoding import tuning_run
from pulvinar.encoding.response_heads import ContrastiveHead
from pulvinar.encoding.tuning_settings import TuningConfig
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(TuningConfig):
    """Settings of contrastive tuning."""

    temperature: float = setting(0.3, "of the similarities (paper: 0.3)", above=0)
    learn_temperature: bool = setting(False, "the temperature is a parameter, not below 0.01 (ours, as in CLIP)")
    symmetric: bool = setting(False, "mean of both directions, as CLIP (paper: for each image a softmax over brains)")
    hidden: int | None = setting(
        None, "width of the head; none: 0.8 of the voxels, pooled their mean (paper), 16 to 1024", at_least=2
    )
    output: int | None = setting(
        None, "dimensions compared; none: 0.2 of the voxels, pooled a quarter of hidden (paper)", at_least=2
    )


def fit(config: Config, experiment: Experiment, run: RunFolder) -> None:
    """Tune, then fit the ridge before and after; the results are the checkpoints backbone-TAG and encoder-SUBJECT."""

    def head(n_features: int, n_voxels: dict[str, int]) -> ContrastiveHead:
        return ContrastiveHead(
            n_features,
            n_voxels,
            hidden=config.hidden,
            output=config.output,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
        )

    tuning_run.fit(config, experiment, run, head)


METHOD = Method(
    name="contrastive_encoding",
    config=Config,
    needs=("responses of one or more subjects", "the images"),
    topic="encoding",
    published=published("encoding", ("encoding/pooled",), metrics=("r_optimistic",)),
    prepare=tuning_run.prepare,
    fit=fit,
    evaluate=scores.evaluate,
    table=scores.as_text,
    predict=scores.predict,
)
