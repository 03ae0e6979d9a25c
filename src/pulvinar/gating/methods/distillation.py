"""Distillation: a small fixed student learns a finished backbone's features without labels (SimReg, SEED), the gates' rival.

Paper: "Unifying synergies between self-supervised learning and dynamic computation", table 3: students whose block widths are
the rounded mean numbers of channels that the gates open. Losses: gating/distillation_objective.py; steps: distillation.py.
SimReg: Navaneet et al. 2021, four-layer head, 130 epochs. SEED: Fang et al. 2021, teacher temperature .01, student .2, queue of
65,536 teacher embeddings, 200 epochs.

Differs from the papers and why:
- The teacher is any finished run here that keeps a backbone (`--pretrained RUN`; without one a dual_gating run is trained
  inside it). SEED's teacher in the paper, a MoCo-v2 ResNet-50 on ImageNet, is not to be had; the run names its teacher.
- Batch, weight decay and head widths as we remember the two methods' own papers; table 3 does not give them. The rate is ours.
- Teacher and student see the same view (ours). The queue is no longer than the training set.
- A teacher without gates gives no widths: `gates` names a run that has them, or `budget` sets one share for every block.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.core.config import setting
from pulvinar.core.errors import InputError
from pulvinar.core.sampling import evenly_spaced
from pulvinar.data.image_set import ImageSet
from pulvinar.gating import evaluation as self_supervised
from pulvinar.gating.backbone_scores import gated_features, score_backbone
from pulvinar.gating.budget_controls import narrow_shape
from pulvinar.gating.distillation import DistillationSettings, DistillationTrainer
from pulvinar.gating.evaluation import fitted_to, keep
from pulvinar.gating.settings import ScoreSettings
from pulvinar.learning.backbone_runs import Backbone, load_backbone, save_backbone
from pulvinar.learning.loop import run_to_end, seeded
from pulvinar.learning.method import Method
from pulvinar.learning.processes import require_rows
from pulvinar.learning.runs import RunFolder
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.gated_resnet import GatedResNet, Pass
from pulvinar.networks.macs import count_macs
from pulvinar.networks.narrow import narrowed_shape
from pulvinar.networks.resnet_shape import ResNetShape
from pulvinar.scores.published import published

USUAL = ScoreSettings(normalised=True)  # how a run is scored unless said otherwise (table 3)
_N_POLICY_IMAGES = 5000


@dataclass(frozen=True, kw_only=True)
class Config(DistillationSettings):
    """Settings of the student and its training."""

    teacher_branch: Pass = setting("dense", "pass of the teacher to learn: dense or gated", heading="Teacher and student")
    gates: str | None = setting(
        None, "run whose gates give the student's widths; none: the teacher's own gates, if it has some"
    )
    budget: float = setting(
        0.3, "MAC share of a student with one share in every block, where no gates are to be had", above=0, at_most=1
    )


class _Teacher(nn.Module):
    """Features of one pass of the teacher."""

    def __init__(self, network: GatedResNet, *, gated: bool) -> None:
        super().__init__()
        self.network, self.gated = network.requires_grad_(False), gated

    def forward(self, images: Tensor) -> Tensor:
        """(image, feature)."""
        return self.network(images, gated=self.gated).features


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """The images, the teacher's run and network, and what the widths come from (the teacher again, or a run with gates)."""

    data: ImageSet
    teacher: RunFolder
    source: Backbone
    gates: Backbone


def prepare(config: Config, data: ImageSet) -> ImageSet:
    """What can be wrong with the images, before a teacher is trained."""
    data.require_batch(config.batch_size)
    require_rows(config.batch_size, equally=True)
    return data


def join(config: Config, data: ImageSet, teacher: RunFolder | None) -> Prepared:
    """What can be wrong with the teacher's run and the run of the gates; both networks."""
    if teacher is None:
        raise InputError("distillation needs a teacher: a finished run that keeps a backbone (--pretrained RUN)")
    loaded = load_backbone(teacher)
    if config.teacher_branch not in loaded.network.passes:
        raise InputError(f"{teacher.path}: the teacher has no {config.teacher_branch} pass; it has {loaded.network.passes}")
    if data.size[0] != loaded.network.size or data.size[1] != loaded.network.size:
        raise InputError(
            f"{data.name}: images of {data.size} pixels, the teacher saw {loaded.network.size} x {loaded.network.size}"
        )
    gates = loaded if config.gates is None else load_backbone(RunFolder.reopen(config.gates))
    if config.gates is not None and "gated" not in gates.network.passes:
        raise InputError(f"{config.gates}: this run's network has no gates")
    return Prepared(data=data, teacher=teacher, source=loaded, gates=gates)


def student_shape(config: Config, source: Backbone, images: np.ndarray) -> tuple[ResNetShape, str]:
    """The student's shape, and where its widths come from: mean open channels of gates on training images, or the budget."""
    network = source.network
    if "gated" not in network.passes:
        return narrow_shape(network.shape, size=network.size, share=config.budget, uniform="inner"), f"budget {config.budget}"
    rows = evenly_spaced(len(images), _N_POLICY_IMAGES)
    channels = gated_features(network.to(devices.current()), images[rows], views=source.views).channels
    widths = [torch.arange(width) for width in channels.mean_open()]
    return narrowed_shape(network.shape, widths), f"gates of {config.gates or 'the teacher'}"


def fit(config: Config, prepared: Prepared, run: RunFolder) -> None:
    """Train, with checkpoints, to the end of the epochs; the student is the checkpoint 'backbone' of the run."""
    data, teacher, source = prepared.data, prepared.teacher, prepared.source
    generator = seeded(config.seed)
    shape, origin = student_shape(config, prepared.gates, data.train)
    student = GatedResNet(shape, size=source.network.size, passes=("dense",)).initialise(generator)
    trainer = DistillationTrainer(
        student,
        _Teacher(source.network, gated=config.teacher_branch == "gated"),
        data.train,
        config,
        source.views,
        generator,
        n_teacher=source.network.shape.n_features,
    )
    run_to_end(trainer, f"distilling ({config.objective})", run, state=run.load(), phase="distil")
    save_backbone(run, student.eval().cpu(), source.views)
    macs = (count_macs(part, source.network.size).dense for part in (shape, source.network.shape))
    share = next(macs) / next(macs)
    run.finish(
        teacher={"path": str(Path(teacher.path).resolve()), "method": teacher.method, "branch": config.teacher_branch},
        widths=list(shape.gate_channels),
        widths_from=origin,
        mac_share=share,
    )


def evaluate(
    run: RunFolder, data: ImageSet, config: Config, *, controls: bool = True, scoring: ScoreSettings | None = None
) -> dict[str, Any]:
    """Neighbours (features at length 1, as in table 3) and linear probe of the student.

    The MAC share is of the teacher's dense network. Keys as `score_backbone`, and `teacher`, `widths`.
    """
    loaded, scoring = load_backbone(run), scoring or USUAL
    scores = score_backbone(
        loaded.network.to(devices.current()),
        fitted_to(loaded.network.size, data),
        views=_plain(loaded.views),
        settings=scoring,
        seed=config.seed,
        controls=controls,
        name=run.method,
    )
    share = run.facts["mac_share"]
    scores.values.update(mac_share=share, teacher=run.facts["teacher"], widths=run.facts["widths"], method=run.method)
    text = f"student of {run.facts['teacher']['method']}, {config.objective}"
    scores.values["rows"][0] |= {"mac_share": share, "description": text}
    return keep(run, data, scores, scoring, USUAL)


def as_text(evaluation: dict[str, Any]) -> str:
    """What `pulvinar evaluate` prints."""
    return f"student of {evaluation['teacher']['path']}, widths {evaluation['widths']}\n{self_supervised.as_text(evaluation)}"


def _plain(views: ViewSettings) -> ViewSettings:
    return replace(views, size=None)


METHOD = Method(
    name="distillation",
    config=Config,
    data="images",
    needs=("training images", "a finished run that keeps a backbone, the teacher", "labels for the evaluation alone"),
    topic="self_supervised",
    published=published("gating", ("dual-gating/table3",)),
    on_several_devices=True,
    pretrained="dual_gating",
    scored_by=USUAL,
    prepare=prepare,
    join=join,
    fit=fit,
    evaluate=evaluate,
    table=as_text,
)
