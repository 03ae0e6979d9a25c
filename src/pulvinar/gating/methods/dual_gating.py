"""Train one self-supervised network that is dense and, inside it, gated to a budget of multiply-adds.

Paper: Krishna et al., "Unifying synergies between self-supervised learning and dynamic computation" (VICReg dual gating).
Where: gates networks/gated_resnet.py (equation 2) and selection/channel_gate.py; budget (equation 3) selection/budget.py;
VICReg (equation 1) gating/objectives.py; the two branches gating/siamese.py; multiply-adds networks/macs.py.
Differs from the paper and why: the budget is a constraint that is met (`budget_mode=penalty` is the paper's, which misses it);
the bound loss starts from the density that the budget implies (`bound_target=sqrt`: its code); schedules are shares of the run,
and AdamW replaces LARS, so that 30 epochs are a run (`optimizer=lars` with 500 epochs is the paper's; docs/log.md).
`branches=two` has two encoders instead of one (table 5), `objective=barlow_twins` is table 4, `invariance=false` table 6.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pulvinar.core.config import setting
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import evaluation as scores
from pulvinar.gating import self_supervised_run as runs
from pulvinar.gating.score_settings import ScoreSettings
from pulvinar.gating.self_supervised_settings import GatedConfig
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(GatedConfig):
    """Settings of dual gating."""

    METHOD: ClassVar[str] = "dual_gating"

    branches: Literal["dual", "two"] = setting("dual", "dual: one encoder for both passes; two: an encoder each")


def fit(config: Config, prepared: runs.Prepared, run: RunFolder) -> None:
    """Train, settle the gates on the budget; the result is the checkpoint 'network' of the run."""
    runs.fit(config, prepared, run, branches=config.branches)


def evaluate(
    run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True, scoring: ScoreSettings | None = None
) -> dict[str, Any]:
    """Scores of both passes on the test images beside the controls; also RUN/evaluation.json."""
    return scores.evaluate_run(run, data, config, config.branches, controls=controls, scoring=scoring)


METHOD = Method(
    name="dual_gating",
    config=Config,
    data="images",
    needs=("square images of one size; labels only to evaluate",),
    topic="self_supervised",
    published=published("gating", ("dual-gating/table1", "dual-gating/table2"), methods=("VICReg", "VICReg dual")),
    scored_by=ScoreSettings(),
    prepare=runs.prepare,
    fit=fit,
    evaluate=evaluate,
    table=scores.as_text,
)
