"""Settings that all self-supervised methods share, and those of gated ones; the loop takes them as they are.

Paper values that differ from a default stand in its help. The papers train 500 epochs; schedules are shares of the run here.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.gating.objectives import Objective
from pulvinar.learning.optimizers import OptimizerName
from pulvinar.learning.precision import Precision
from pulvinar.learning.views import ViewSettings
from pulvinar.networks.gated_resnet import SeparateNorms
from pulvinar.networks.resnet_shape import GatedConvs, ResNetShape, Stem, resnet_shape
from pulvinar.selection.budget import BoundTarget, BudgetMode

Network = Literal["resnet18", "resnet34", "resnet50"]

# Peak rates for 256 images: LARS and SGD as in the papers' scripts (the text of the SimSiam paper says 0.01), AdamW ours.
RATES: dict[OptimizerName, float] = {"adamw": 2e-3, "lars": 0.3, "sgd": 0.5}


@dataclass(frozen=True, kw_only=True)
class SelfSupervisedConfig:
    """Network, objective, views and training."""

    METHOD: ClassVar[str] = "self_supervised"

    seed: int = setting(0, "initial weights, order of images, views, noise of the gates", at_least=0, below=LARGEST_SEED)
    network: Network = setting("resnet18", "resnet18 (papers), resnet34 or resnet50")
    width: float = setting(1.0, "multiplies every channel count (papers: 1)", above=0)
    stem: Stem = setting("auto", "cifar up to 64 pixels, imagenet above; papers: their padding-2 stem up to 64 pixels")
    projector_width: int = setting(2048, "width of the projector's three layers (papers: 2048)", above=0)
    predictor_hidden: int = setting(
        512, "hidden width of SimSiam's predictor (paper: 512)", above=0, counts="objective=simsiam"
    )
    objective: Objective = setting("vicreg", "vicreg, barlow_twins, simsiam or simclr")
    invariance: bool = setting(True, "VICReg's invariance term; without it the network collapses", counts="objective=vicreg")
    invariance_weight: float = setting(
        25.0,
        "of VICReg (paper: 25; its equation 1 mislabels the weights)",
        at_least=0,
        counts="objective=vicreg and invariance=true",
    )
    variance_weight: float = setting(
        25.0, "of VICReg, summed over the views (paper: 25; lightly's mu_param = 50)", at_least=0, counts="objective=vicreg"
    )
    covariance_weight: float = setting(1.0, "of VICReg (paper: 1)", at_least=0, counts="objective=vicreg")
    redundancy_weight: float = setting(0.0051, "of Barlow Twins (paper: 0.0051)", at_least=0, counts="objective=barlow_twins")
    barlow_scale: float = setting(
        0.024, "of Barlow Twins' whole loss (paper: 0.024)", at_least=0, counts="objective=barlow_twins"
    )
    temperature: float = setting(0.5, "of SimCLR", above=0, counts="objective=simclr")
    epochs: int = setting(100, "passes over the images (papers: 500)", above=0)
    batch_size: int = setting(256, "images a step, over all processes (papers: 512; SimSiam 256)", at_least=2)
    optimizer: OptimizerName = setting("adamw", "adamw; papers, for 500 epochs: lars, for SimSiam sgd")
    learning_rate: float | None = setting(
        None, "peak rate for 256 images, times batch_size / 256; none: adamw 2e-3, lars .3, sgd .5", above=0
    )
    momentum: float = setting(0.9, "of lars and sgd", at_least=0, at_most=1, counts="optimizer!=adamw")
    weight_decay: float = setting(1e-4, "not on gates, biases, batch-norms (papers: 1e-4, SimSiam 1e-5)", at_least=0)
    trust_coefficient: float = setting(0.02, "of LARS (paper: 0.02)", at_least=0, counts="optimizer=lars")
    vector_rate: float = setting(
        1.0, "rate of biases and batch-norms over that of matrices; lars in short runs: 0.03", at_least=0
    )
    clip_norm: float | None = setting(None, "longest gradient of a step; none: any (papers)", above=0)
    warm_share: float = setting(
        0.1, "share of the run in which the rate rises (papers: 0.02 of 500 epochs)", at_least=0, at_most=1
    )
    swap_views: bool = setting(False, "draw anew each step which view goes through which branch (paper: fixed)")
    crop_smallest: float = setting(0.2, "smallest share of the image in a view (paper: 0.2)", at_least=0, at_most=1)
    blur: float = setting(0.0, "probability of blurring the first (gated) view (paper: 0)", at_least=0, at_most=1)
    blur_second: float = setting(
        0.0, "probability of blurring the second (dense) view (paper: 0; CIFAR-100 0.2)", at_least=0, at_most=1
    )
    solarise: float = setting(0.1, "probability of solarising a view (paper: 0.1)", at_least=0, at_most=1)
    saturation: float = setting(
        0.2, "strength of the jitter of saturation in a view (dual gating: 0.2; SimSiam with gates: 0.4)", at_least=0
    )
    precision: Precision = setting("auto", "float32, bfloat16, or auto: bfloat16 where the machine computes in it")
    compiled: bool = setting(False, "compile the network with torch.compile")
    micro_batches: int = setting(
        1, "parts that a batch is computed in (exact for every loss; batch-norm sees the parts)", above=0
    )

    def shape(self, size: int) -> ResNetShape:
        """The network for images of this size."""
        return resnet_shape(self.network, size=size, stem=self.stem, width=self.width)

    def views(self) -> tuple[ViewSettings, ViewSettings]:
        """How the two views are drawn."""
        first, second = (
            ViewSettings(
                crop_scale=(self.crop_smallest, 1.0),
                saturation=self.saturation,
                blur_probability=blur,
                solarise_probability=self.solarise,
            )
            for blur in (self.blur, self.blur_second)
        )
        return first, second

    @property
    def peak_rate(self) -> float:
        """The learning rate at the top of its schedule."""
        return (self.learning_rate or RATES[self.optimizer]) * self.batch_size / 256

    @property
    def gating(self) -> "GatedConfig | None":
        """The settings of the gates; None where there are none."""
        return None


@dataclass(frozen=True, kw_only=True)
class GatedConfig(SelfSupervisedConfig):
    """Settings of methods with gates."""

    budget: float = setting(
        0.3, "share of the dense network's multiply-adds that the gated pass may do, gates included", above=0, at_most=1
    )
    budget_mode: BudgetMode = setting("constraint", "constraint (ends on the budget), penalty (papers), none")
    gate_bias: float | None = setting(2.0, "initial bias of the gates' logits; none: no bias, half open (papers); DGNet: 2")
    gated_convs: GatedConvs = setting(
        "conv2", "which inner convolutions of Bottleneck blocks are gated (DGNet: conv2)", counts="network=resnet50"
    )
    gate_group: int = setting(
        1, "neighbouring channels that one decision opens or shuts (papers: 1; 16 suits AVX-512)", at_least=1
    )
    separate_norms: SeparateNorms = setting(
        "blocks", "batch-norms that each pass has of its own: blocks (paper) or all", counts="branches=dual"
    )
    gate_rate: float = setting(5.0, "rate of the gates over that of the other weights (papers: 1)", at_least=0)
    gates_open_share: float = setting(
        0.0, "share of the run, at its start, with every gate open (papers: 0)", at_least=0, below=1
    )
    penalty_weight: float = setting(5.0, "of the quadratic penalty (papers: 5)", at_least=0, counts="budget_mode=penalty")
    bound_weight: float = setting(1.0, "of the bound loss (papers: 1)", at_least=0, counts="budget_mode!=none")
    bound_target: BoundTarget = setting(
        "solved",
        "where the bounds start: solved from the budget, density (budget), sqrt (papers)",
        counts="budget_mode!=none and bound_weight>0",
    )
    decide_weight: float = setting(
        0.0, "of the term that makes channels always or never open (ours; papers: 0)", at_least=0, counts="budget_mode!=none"
    )
    fix_gates: float | None = setting(
        None, "fix decided gates after this share of the run and at its end; none: never (papers)", at_least=0, at_most=1
    )
    fix_margin: float = setting(
        0.5,
        "a gate open, or shut, for at most this share of images is decided; 0.5: all are",
        at_least=0,
        at_most=0.5,
        counts="fix_gates!=none",
    )
    constraint_rate: float = setting(
        0.1,
        "of the multiplier, per step of 1,000 and unit of share; below budgets of .3 times (.3 / budget)^2",
        at_least=0,
        counts="budget_mode=constraint",
    )
    constraint_stiffness: float = setting(
        50.0,
        "weight of the constraint's quadratic term; below budgets of .3 times .3 / budget",
        at_least=0,
        counts="budget_mode=constraint",
    )
    descent_share: float = setting(
        0.4,
        "share of the run in which the constraint's budget falls from the share at the start",
        at_least=0,
        at_most=1,
        counts="budget_mode=constraint",
    )
    settle: bool = setting(
        True, "after training, shift all logits onto the budget; not in mode none", counts="budget_mode!=none"
    )
    recalibrate: bool = setting(True, "after training, estimate the gated batch-norms anew with the gates of inference")

    def problems(self) -> list[str]:
        """What does not go together."""
        if self.fix_gates is not None and self.budget_mode == "none":
            return [f"{self.METHOD}.fix_gates needs a budget; budget_mode is none"]
        return []

    @property
    def gating(self) -> "GatedConfig":
        """These settings."""
        return self

    def shape(self, size: int) -> ResNetShape:
        """The network for images of this size, with gates."""
        convs, group = self.gated_convs, self.gate_group
        return resnet_shape(self.network, size=size, stem=self.stem, width=self.width, gated_convs=convs, gate_group=group)
