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
from pulvinar.evaluation.published_gating import report_rows
from pulvinar.evaluation.score_settings import ScoreSettings
from pulvinar.training import self_supervised_run as runs
from pulvinar.training.runs import RunFolder
from pulvinar.training.self_supervised_settings import GatedConfig

DATA = "images"
TOPIC = "self_supervised"
SCORING: dict[str, Any] = {}  # how a run is scored unless said otherwise, on any images: evaluation/score_settings.py
NEEDS = ("square images of one size; labels only to evaluate",)

PUBLISHED = report_rows("dynamic 1", "SimSiam gated") + report_rows("dual 1", "VICReg gated")


@dataclass(frozen=True, kw_only=True)
class Config(GatedConfig):
    """Settings of a gated self-supervised network."""

    METHOD: ClassVar[str] = "gated_ssl"

    def idle(self) -> dict[str, str]:
        """What needs two passes through one network."""
        return {"separate_norms": "every view is gated, so there is one pass and one set of batch-norms"}


def check(config: Config, data: ImageSet) -> None:
    """What can be wrong with settings and images together, before a run folder is made."""
    runs.check(config, data)


def fit(config: Config, data: ImageSet, run: RunFolder) -> None:
    """Train, settle the gates on the budget; the result is the checkpoint 'network' of the run."""
    runs.fit(config, "gated", data, run)


def evaluate(
    run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True, scoring: ScoreSettings | None = None
) -> dict[str, Any]:
    """Scores of the gated pass on the test images beside the controls; also RUN/evaluation.json."""
    return scores.evaluate_run(run, data, config, "gated", controls=controls, scoring=scoring)


def as_text(evaluation: dict[str, Any]) -> str:
    """What the command line prints."""
    return scores.as_text(evaluation)
