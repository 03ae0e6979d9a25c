"""Train an ordinary self-supervised ResNet: VICReg, Barlow Twins, SimSiam or SimCLR, no gates.

Papers: Bardes et al. 2022 (VICReg), Zbontar et al. 2021 (Barlow Twins), Chen and He 2021 (SimSiam), Chen et al. 2020 (SimCLR).
Where: losses gating/objectives.py; the two branches gating/siamese.py. The dense baseline of both channel-gating
papers, and with `mac_share` below 1 the uniformly narrow network of that share of multiply-adds (`narrow_shape`).
Differs from the papers and why: schedules are shares of the run, and AdamW replaces LARS and SGD, so that 30 epochs are a run
(`optimizer=lars`: papers; docs/log.md has the comparison).
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

from pulvinar.core.config import setting
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import evaluation as scores
from pulvinar.gating import self_supervised_run as runs
from pulvinar.gating.budget_controls import narrow_shape
from pulvinar.gating.score_settings import ScoreSettings
from pulvinar.gating.self_supervised_settings import SelfSupervisedConfig
from pulvinar.learning.backbone_runs import load_backbone
from pulvinar.learning.method import Method
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import ResNetShape
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class Config(SelfSupervisedConfig):
    """Settings of a dense self-supervised network."""

    METHOD: ClassVar[str] = "dense_ssl"

    mac_share: float = setting(
        1.0, "below 1: a network narrowed to this share of the multiply-adds, the control of gates (ours)", above=0, at_most=1
    )
    narrowed: Literal["all", "inner"] = setting(
        "all", "what is narrowed: every width alike, or the inner widths of the blocks", counts="mac_share<1"
    )

    def shape(self, size: int) -> ResNetShape:
        """The network for images of this size, narrowed where asked."""
        whole = super().shape(size)
        return whole if self.mac_share == 1 else narrow_shape(whole, size=size, share=self.mac_share, uniform=self.narrowed)


def evaluate(
    run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True, scoring: ScoreSettings | None = None
) -> dict[str, Any]:
    """Scores on the test images beside raw pixels; also RUN/evaluation.json. A narrowed network's share is of the whole one."""
    narrowed: dict[str, Any] = {}
    if config.mac_share < 1:
        whole = replace(config, mac_share=1.0)
        size = load_backbone(run).network.size
        share = count_macs(config.shape(size), size).dense / count_macs(whole.shape(size), size).dense
        narrowed = {"mac_share": share, "description": f"a network with {config.narrowed} widths smaller"}
    return scores.evaluate_run(run, data, config, "dense", controls=controls, scoring=scoring, first_row=narrowed)


METHOD = Method(
    name="dense_ssl",
    config=Config,
    data="images",
    needs=("square images of one size; labels only to evaluate",),
    topic="self_supervised",
    published=published("gating", ("dcs/table1", "dual-gating/table1"), methods=("SimSiam", "VICReg")),
    scored_by=ScoreSettings(),
    prepare=runs.prepare,
    fit=partial(runs.fit, branches="dense"),
    evaluate=evaluate,
    table=scores.as_text,
)
