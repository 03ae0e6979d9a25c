"""Train a self-supervised network whose every view goes through channel gates, to a budget of multiply-adds.

Paper: Krishna et al. 2022, "Dynamic channel selection in self-supervised learning" (SimSiam with gates: `objective=simsiam`);
with VICReg it is the gated baseline of "Unifying synergies between self-supervised learning and dynamic computation".
Where: gates (equation 2) networks/gated_resnet.py and selection/channel_gate.py; the loss of section 3.3 selection/budget.py;
SimSiam (equation 1) and VICReg gating/objectives.py; multiply-adds networks/macs.py.
Differs from the papers and why: the budget is a constraint that is met (`budget_mode=penalty` is the papers', taken for both
views, so its weight counts twice, as there); the bound loss starts from the density that the budget implies
(`bound_target=sqrt` is the code's); schedules are shares of the run, and AdamW replaces LARS and SGD (docs/log.md).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from pulvinar.gating import evaluation as scores
from pulvinar.gating import self_supervised_run as runs
from pulvinar.gating.score_settings import ScoreSettings
from pulvinar.gating.self_supervised_settings import GatedConfig
from pulvinar.learning.method import Method
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(GatedConfig):
    """Settings of a gated self-supervised network."""

    METHOD: ClassVar[str] = "gated_ssl"

    def idle(self) -> dict[str, str]:
        """What needs two passes through one network."""
        return {"separate_norms": "every view is gated, so there is one pass and one set of batch-norms"}


METHOD = Method(
    name="gated_ssl",
    config=Config,
    data="images",
    needs=("square images of one size; labels only to evaluate",),
    topic="self_supervised",
    published=published("gating", ("dcs/table1", "dual-gating/table1"), methods=("SimSiam gated", "VICReg gated")),
    scored_by=ScoreSettings(),
    prepare=runs.prepare,
    fit=partial(runs.fit, branches="gated"),
    evaluate=partial(scores.evaluate_run, branches="gated"),
    table=scores.as_text,
)
