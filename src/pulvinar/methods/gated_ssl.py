"""Train a self-supervised network whose every view goes through channel gates, to a budget of multiply-adds.

Paper: Krishna et al. 2022, "Dynamic channel selection in self-supervised learning" (SimSiam with gates: `objective=simsiam`);
with VICReg it is the gated baseline of "Unifying synergies between self-supervised learning and dynamic computation".
Where: gates (equation 2) models/gated_resnet.py and selection/channel_gate.py; the loss of section 3.3 selection/budget.py;
SimSiam (equation 1) and VICReg objectives/self_supervised.py; multiply-adds models/macs.py.
Differs from the papers and why: the budget is a constraint that is met (`budget_mode=penalty` is the papers', taken for both
views, so its weight counts twice, as there); the bound loss starts from the density that the budget implies
(`bound_target=sqrt` is the code's); schedules are shares of the run, and AdamW replaces LARS and SGD (docs/log.md).
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from pulvinar.data.image_set import ImageSet
from pulvinar.evaluation import self_supervised as scores
from pulvinar.training import self_supervised_run as runs
from pulvinar.training.runs import RunFolder
from pulvinar.training.self_supervised_settings import GatedConfig

DATA = "images"
TOPIC = "self_supervised"
SCORES_OTHER_DATA = True
NEEDS = ("square images of one size; labels only to evaluate",)

PUBLISHED = [
    {"data": data, "objective": "simsiam", "budget": budget, "knn_gated": knn, "macs": macs}
    for data, budget, knn, macs in (
        ("CIFAR-10", 0.1, 0.7672, 6.64e7),
        ("CIFAR-10", 0.2, 0.7878, 1.25e8),
        ("CIFAR-10", 0.3, 0.8082, 2.01e8),
        ("CIFAR-10", 0.4, 0.8135, 2.66e8),
        ("CIFAR-10", 0.5, 0.8193, 3.29e8),
        ("CIFAR-10", 0.6, 0.8296, 3.94e8),
        ("CIFAR-10", 0.7, 0.8308, 4.58e8),
        ("CIFAR-100", 0.1, 0.4684, 6.88e7),
        ("CIFAR-100", 0.3, 0.5070, 2.03e8),
        ("CIFAR-100", 0.5, 0.5254, 3.25e8),
        ("ImageNet-100", 0.3, 0.5608, 5.30e8),
        ("ImageNet-100", 0.5, 0.6038, 8.78e8),
    )
] + [
    {"data": data, "objective": "vicreg", "budget": budget, "linear_gated": linear, "mac_share": round(1 - saved, 4)}
    for data, budget, linear, saved in (
        ("CIFAR-10", 0.1, 0.8775, 0.8592),
        ("CIFAR-10", 0.3, 0.8949, 0.6927),
        ("CIFAR-10", 0.5, 0.9070, 0.5162),
        ("STL-10", 0.1, 0.8248, 0.8285),
        ("STL-10", 0.3, 0.8416, 0.6838),
        ("STL-10", 0.5, 0.8540, 0.4993),
        ("CIFAR-100", 0.1, 0.6312, 0.8482),
        ("CIFAR-100", 0.3, 0.6541, 0.6868),
        ("CIFAR-100", 0.5, 0.6575, 0.5004),
        ("ImageNet-100", 0.3, 0.7404, 0.6795),
        ("ImageNet-100", 0.5, 0.7583, 0.5011),
    )
]


@dataclass(frozen=True, kw_only=True)
class Config(GatedConfig):
    """Settings of a gated self-supervised network."""

    METHOD: ClassVar[str] = "gated_ssl"


def check(config: Config, data: ImageSet) -> None:
    """What can be wrong with settings and images together, before a run folder is made."""
    runs.check(config, data)


def fit(config: Config, data: ImageSet, run: RunFolder) -> None:
    """Train, settle the gates on the budget; the result is the checkpoint 'network' of the run."""
    runs.fit(config, "gated", data, run)


def evaluate(run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True) -> dict[str, Any]:
    """Scores of the gated pass on the test images beside the controls; also RUN/evaluation.json."""
    return scores.evaluate_run(run, data, config, "gated", controls=controls)


def as_text(evaluation: dict[str, Any]) -> str:
    """What the command line prints."""
    return scores.as_text(evaluation)
