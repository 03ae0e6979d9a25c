"""Train an ordinary self-supervised ResNet: VICReg, Barlow Twins, SimSiam or SimCLR, no gates.

Papers: Bardes et al. 2022 (VICReg), Zbontar et al. 2021 (Barlow Twins), Chen and He 2021 (SimSiam), Chen et al. 2020 (SimCLR).
Where: losses objectives/self_supervised.py; the two branches training/siamese.py. The dense baseline of both channel-gating
papers, and with a smaller `width` the uniformly narrow network of the same multiply-adds.
Differs from the papers and why: schedules are shares of the run, and AdamW replaces LARS and SGD, so that 30 epochs are a run
(`optimizer=lars`: papers; docs/log.md has the comparison).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from pulvinar.data.image_set import ImageSet
from pulvinar.evaluation import self_supervised as scores
from pulvinar.training import self_supervised_run as runs
from pulvinar.training.runs import RunFolder
from pulvinar.training.self_supervised_settings import SelfSupervisedConfig

DATA = "images"
SCORES_OTHER_DATA = True
NEEDS = ("square images of one size; labels only to evaluate",)

PUBLISHED = [
    {"data": "CIFAR-10", "objective": "vicreg", "linear_dense": 0.9111},
    {"data": "STL-10", "objective": "vicreg", "linear_dense": 0.8615},
    {"data": "CIFAR-100", "objective": "vicreg", "linear_dense": 0.6586},
    {"data": "ImageNet-100", "objective": "vicreg", "linear_dense": 0.7774},
    {"data": "CIFAR-10", "objective": "simsiam", "knn_dense": 0.8546},
    {"data": "CIFAR-100", "objective": "simsiam", "knn_dense": 0.5296},
    {"data": "ImageNet-100", "objective": "simsiam", "knn_dense": 0.6434},
]


@dataclass(frozen=True, kw_only=True)
class Config(SelfSupervisedConfig):
    """Settings of a dense self-supervised network."""

    METHOD: ClassVar[str] = "dense_ssl"


def check(config: Config, data: ImageSet) -> None:
    """What can be wrong with settings and images together, before a run folder is made."""
    runs.check(config, data)


def fit(config: Config, data: ImageSet, run: RunFolder) -> None:
    """Train; the result is the checkpoint 'network' of the run."""
    runs.fit(config, "dense", data, run)


def evaluate(run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Scores on the test images beside raw pixels; also RUN/evaluation.json."""
    return scores.evaluate_run(run, data, config, "dense", controls=controls)


def as_text(evaluation: dict[str, Any]) -> str:
    """What the command line prints."""
    return scores.as_text(evaluation)
