"""Self-supervised ResNets without labels: dense, gated, or dense and gated at once; VICReg, Barlow Twins, SimSiam or SimCLR.

dense_ssl    Bardes et al. 2022 (VICReg), Zbontar et al. 2021 (Barlow Twins), Chen and He 2021 (SimSiam), Chen et al. 2020
             (SimCLR): the dense baseline of both papers on channel gates, and with `mac_share` below 1 the uniformly narrow
             network of that share of multiply-adds (`narrow_shape`).
gated_ssl    Krishna et al. 2022, "Dynamic channel selection in self-supervised learning" (SimSiam: `objective=simsiam`); with
             VICReg the gated baseline of "Unifying synergies between self-supervised learning and dynamic computation".
dual_gating  Krishna et al., "Unifying synergies between self-supervised learning and dynamic computation". `branches=two` has
             two encoders instead of one (table 5), `objective=barlow_twins` is table 4, `invariance=false` table 6.

Where: losses gating/objectives.py (VICReg is equation 1 of the second paper, SimSiam of the first); the two branches
gating/siamese.py; gates (equation 2) networks/gated_resnet.py and selection/channel_gate.py; budget (equation 3; section 3.3 of
the first paper) selection/budget.py; multiply-adds networks/macs.py; steps gating/siamese_training.py.

Differs from the papers and why: the budget is a constraint that is met (`budget_mode=penalty` is the papers', which miss it; of
gated_ssl it is taken for both views, so its weight counts twice, as there); the bound loss starts from the density that the
budget implies (`bound_target=sqrt`: their code); schedules are shares of the run, and AdamW replaces LARS and SGD, so that 30
epochs are a run (`optimizer=lars` with 500 epochs is the papers'; docs/log.md has the comparison).

The run's checkpoint "network" has the weights of the encoders, `encoders`: one, or gated and dense for `branches=two`. The
checkpoint "backbone" (learning/backbone_runs.py) has the first of them with its description, for methods that read the run.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from pulvinar.core.config import setting
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import evaluation as scores
from pulvinar.gating.budget_controls import narrow_shape
from pulvinar.gating.settings import Branches, GatedConfig, ScoreSettings, SelfSupervisedConfig
from pulvinar.gating.settling import settle
from pulvinar.gating.siamese import PASSES, make_network
from pulvinar.gating.siamese_training import SiameseTrainer, require_batch
from pulvinar.learning.backbone_runs import load_backbone, save_backbone
from pulvinar.learning.loop import run_to_end
from pulvinar.learning.method import Method
from pulvinar.learning.processes import first_alone
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.macs import Macs, count_macs
from pulvinar.networks.resnet_shape import ResNetShape
from pulvinar.scores.published import published


@dataclass(frozen=True, kw_only=True)
class DenseConfig(SelfSupervisedConfig):
    """Settings of a dense self-supervised network."""

    mac_share: float = setting(
        1.0,
        "below 1: a network narrowed to this share of the multiply-adds, the control of gates (ours)",
        above=0,
        at_most=1,
        heading="Width",
    )
    narrowed: Literal["all", "inner"] = setting(
        "all", "what is narrowed: every width alike, or the inner widths of the blocks", counts="mac_share<1"
    )

    def shape(self, size: int) -> ResNetShape:
        """The network for images of this size, narrowed where asked."""
        whole = super().shape(size)
        return whole if self.mac_share == 1 else narrow_shape(whole, size=size, share=self.mac_share, uniform=self.narrowed)


@dataclass(frozen=True, kw_only=True)
class GatedOnlyConfig(GatedConfig):
    """Settings of a gated self-supervised network."""

    def idle(self) -> dict[str, str]:
        """What needs two passes through one network."""
        return {"separate_norms": "every view is gated, so there is one pass and one set of batch-norms"}


@dataclass(frozen=True, kw_only=True)
class DualConfig(GatedConfig):
    """Settings of dual gating."""

    branches: Literal["dual", "two"] = setting(
        "dual", "dual: one encoder for both passes; two: an encoder each", heading="Branches"
    )

    @property
    def pairing(self) -> Branches:
        """Through which pass of which encoder each view goes."""
        return self.branches


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The images, and the multiply-adds of the network for them."""

    data: ImageSet
    macs: Macs


def prepare(config: SelfSupervisedConfig, data: ImageSet) -> Prepared:
    """All that can be wrong with settings and images together, before anything is written."""
    size = data.side
    require_batch(len(data.train), config)
    macs = count_macs(config.shape(size), size)
    if config.gating and config.gating.budget_mode != "none":
        macs.require_budget(config.gating.budget)
    return Prepared(data=data, macs=macs)


def fit(config: SelfSupervisedConfig, prepared: Prepared, run: RunFolder) -> None:
    """Train with checkpoints to the end, settle the gates on the budget, write the checkpoint "network", finish the run."""
    images, macs = prepared.data.train, prepared.macs
    network = make_network(config, prepared.data.side)
    trainer = SiameseTrainer(network, images, config)
    run_to_end(trainer, "training", run, state=run.load())
    network.eval()
    described = {
        "name": config.network,
        "width": config.width,
        "macs": macs.dense,
        "gate_macs": macs.gates,
        "floor": macs.floor_share,
    }
    facts: dict[str, Any] = {"network": described, "images_per_second": trainer.images_per_second()}
    if (gating := trainer.gating) is not None:
        gated = network.encoder(gated=True)
        first_alone(lambda: facts.update(budget=settle(gated, images, gating, trainer.views[0])))
    encoders = [dict(encoder.state_dict()) for encoder in network.encoders]
    run.save({"encoders": {str(number): state for number, state in enumerate(encoders)}}, name="network")
    save_backbone(run, network.encoder(gated="gated" in PASSES[config.pairing][0]), config.views()[0])
    run.finish(**facts)


def evaluate_dense(
    run: RunFolder, data: ImageSet, config: DenseConfig, *, controls: bool = True, scoring: ScoreSettings | None = None
) -> dict[str, Any]:
    """`evaluate_run`; a narrowed network's share is of the whole one."""
    narrowed: dict[str, Any] = {}
    if config.mac_share < 1:
        whole = replace(config, mac_share=1.0)
        size = load_backbone(run).network.size
        share = count_macs(config.shape(size), size).dense / count_macs(whole.shape(size), size).dense
        narrowed = {"mac_share": share, "description": f"a network with {config.narrowed} widths smaller"}
    return scores.evaluate_run(run, data, config, controls=controls, scoring=scoring, first_row=narrowed)


def _method(
    *,
    name: str,
    summary: str,
    config: type[SelfSupervisedConfig],
    rows: list[dict[str, Any]],
    evaluate: Callable[..., dict[str, Any]] = scores.evaluate_run,
) -> Method:
    return Method(
        name=name,
        summary=summary,
        config=config,
        data="images",
        needs=("square images of one size; labels only to evaluate",),
        topic="self_supervised",
        published=rows,
        scored_by=ScoreSettings(),
        on_several_devices=True,
        prepare=prepare,
        fit=fit,
        evaluate=evaluate,
        table=scores.as_text,
    )


METHODS = (
    _method(
        name="dense_ssl",
        summary="Train an ordinary self-supervised ResNet: VICReg, Barlow Twins, SimSiam or SimCLR, no gates.",
        config=DenseConfig,
        rows=published("gating", ("dcs/table1", "dual-gating/table1"), methods=("SimSiam", "VICReg")),
        evaluate=evaluate_dense,
    ),
    _method(
        name="gated_ssl",
        summary="Train a self-supervised network whose every view goes through channel gates, to a budget of multiply-adds.",
        config=GatedOnlyConfig,
        rows=published("gating", ("dcs/table1", "dual-gating/table1"), methods=("SimSiam gated", "VICReg gated")),
    ),
    _method(
        name="dual_gating",
        summary="Train one self-supervised network that is dense and, inside it, gated to a budget of multiply-adds.",
        config=DualConfig,
        rows=published("gating", ("dual-gating/table1", "dual-gating/table2"), methods=("VICReg", "VICReg dual")),
    ),
)
