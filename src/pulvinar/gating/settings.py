"""Settings that all self-supervised methods share, those of gated ones, and how a backbone is scored; taken as they are.

Paper values that differ from a default stand in its help. The papers train 500 epochs; schedules are shares of the run here.
"""

from dataclasses import dataclass, fields
from typing import Any, Literal

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.gating.objectives import ObjectiveSettings
from pulvinar.learning.optimizers import OptimizerName
from pulvinar.learning.precision import Precision
from pulvinar.learning.views import ViewSettings
from pulvinar.linear.linear_probe import Recipe
from pulvinar.linear.neighbours import Metric, Weighting
from pulvinar.networks.gated_resnet import SeparateNorms
from pulvinar.networks.resnet_shape import GatedConvs, GateForm, ResNetShape, Stem, resnet_shape
from pulvinar.selection.budget import BoundTarget, BudgetMode

Network = Literal["resnet18", "resnet34", "resnet50"]
Branches = Literal["dense", "gated", "dual", "two"]  # gating/siamese.py says what each is

# Peak rates for 256 images: LARS and SGD as in the papers' scripts (the text of the SimSiam paper says 0.01), AdamW ours.
RATES: dict[OptimizerName, float] = {"adamw": 2e-3, "lars": 0.3, "sgd": 0.5}


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """The encoder and what follows it."""

    seed: int = setting(
        0, "initial weights, order of images, views, noise of the gates", at_least=0, below=LARGEST_SEED, heading="Network"
    )
    network: Network = setting("resnet18", "resnet18 (papers), resnet34 or resnet50")
    width: float = setting(1.0, "multiplies every channel count (papers: 1)", above=0)
    stem: Stem = setting("auto", "cifar up to 64 pixels, imagenet above; papers: their padding-2 stem up to 64 pixels")
    projector_width: int = setting(2048, "width of the projector's three layers (papers: 2048)", above=0)
    predictor_hidden: int = setting(
        512, "hidden width of SimSiam's predictor (paper: 512)", above=0, counts="objective=simsiam"
    )


@dataclass(frozen=True, kw_only=True)
class SelfSupervisedConfig(ObjectiveSettings, NetworkSettings, DeviceSetting):
    """Network, objective, views and training."""

    epochs: int = setting(100, "passes over the images (papers: 500)", above=0, heading="Training")
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
    swap_views: bool = setting(
        False, "draw anew each step which view goes through which branch (paper: fixed)", heading="Views"
    )
    crop_smallest: float = setting(0.2, "smallest share of the image in a view (paper: 0.2)", at_least=0, at_most=1)
    blur: float = setting(0.0, "probability of blurring the first (gated) view (paper: 0)", at_least=0, at_most=1)
    blur_second: float = setting(
        0.0, "probability of blurring the second (dense) view (paper: 0; CIFAR-100 0.2)", at_least=0, at_most=1
    )
    solarise: float = setting(0.1, "probability of solarising a view (paper: 0.1)", at_least=0, at_most=1)
    saturation: float = setting(
        0.2, "strength of the jitter of saturation in a view (dual gating: 0.2; SimSiam with gates: 0.4)", at_least=0
    )
    precision: Precision = setting(
        "auto", "float32, bfloat16, or auto: bfloat16 where the machine computes in it", heading="Computing"
    )
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

    @property
    def pairing(self) -> Branches:
        """Through which pass of which encoder each view goes."""
        return "dense"


@dataclass(frozen=True, kw_only=True)
class GatedConfig(SelfSupervisedConfig):
    """Settings of methods with gates."""

    budget: float = setting(
        0.3,
        "share of the dense network's multiply-adds that the gated pass may do, gates included",
        above=0,
        at_most=1,
        heading="Gates and their budget",
    )
    budget_mode: BudgetMode = setting("constraint", "constraint (ends on the budget), penalty (papers), none")
    gate_bias: float | None = setting(2.0, "initial bias of the gates' logits; none: no bias, half open (papers); DGNet: 2")
    gated_convs: GatedConvs = setting(
        "conv2", "which inner convolutions of Bottleneck blocks are gated (DGNet: conv2)", counts="network=resnet50"
    )
    gate_form: GateForm = setting(
        "subset", "subset: channels (papers); levels: nested widths of a block; routes: masks of the whole network (both ours)"
    )
    gate_levels: tuple[float, ...] = setting(
        (0.0, 0.25, 0.5, 1.0),
        "shares of a block's channels that its gate chooses from, ascending to 1",
        at_least=0,
        at_most=1,
        filled=True,
        counts="gate_form=levels",
    )
    n_routes: int = setting(4, "masks that the images are divided among", at_least=2, counts="gate_form=routes")
    route_weight: float = setting(
        1.0, "of the term that uses all routes and makes images sure of theirs", at_least=0, counts="gate_form=routes"
    )
    gate_group: int = setting(
        1,
        "neighbouring channels that one decision opens or shuts (papers: 1; 16 suits AVX-512)",
        at_least=1,
        counts="gate_form!=levels",
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
        None,
        "fix decided gates after this share of the run and at its end; none: never (papers)",
        at_least=0,
        at_most=1,
        counts="gate_form=subset",
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
        wrong = []
        if self.fix_gates is not None and self.budget_mode == "none":
            wrong.append("fix_gates needs a budget; budget_mode is none")
        ascending = list(self.gate_levels) == sorted(set(self.gate_levels)) and self.gate_levels[-1:] == (1.0,)
        if len(self.gate_levels) < 2 or not ascending:
            wrong.append(f"gate_levels: two or more ascending shares up to 1 are needed, {self.gate_levels} came")
        if self.gate_form == "levels" and self.network == "resnet50" and self.gated_convs == "both":
            wrong.append("gate_form=levels: a block runs one of its widths; set gated_convs to conv1 or conv2")
        return wrong

    @property
    def gating(self) -> "GatedConfig":
        """These settings."""
        return self

    @property
    def pairing(self) -> Branches:
        """Through which pass of which encoder each view goes."""
        return "gated"

    def shape(self, size: int) -> ResNetShape:
        """The network for images of this size, with gates."""
        return resnet_shape(
            self.network,
            size=size,
            stem=self.stem,
            width=self.width,
            gated_convs=self.gated_convs,
            gate_group=self.gate_group,
            levels=self.gate_levels if self.gate_form == "levels" else (),
            routes=self.n_routes if self.gate_form == "routes" else 0,
        )


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How features are scored; the defaults are the papers' neighbours and the solved linear probe.

    Pixels and controls get one probe seed with the exact recipe, which has no chance in it but the choice of the L2 weight.
    """

    k: int = setting(1, "nearest training images that vote (papers: 1)", at_least=1)
    metric: Metric = setting("euclidean", "between features: euclidean (papers) or cosine")
    normalised: bool = setting(
        False,
        "features at length 1 before the neighbours (papers: in the table of distillation alone)",
        counts="metric=euclidean",
    )
    weighting: Weighting = setting(
        "uniform", "of votes: uniform, distance (1 / distance) or exponential (exp(cosine / temperature))"
    )
    temperature: float = setting(0.1, "of exponential votes", above=0, counts="weighting=exponential")
    linear: Recipe = setting("exact", "linear probe: exact (solved) or faithful (the papers' SGD)")
    crops: bool = setting(False, "faithful probe: random crops and flips, new in each of its 100 epochs (papers)")
    probe_seeds: int = setting(5, "seeds of the linear probe (papers: 5)", at_least=1)
    batch_size: int = setting(256, "images that go through the network at once", at_least=1)

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = []
        if self.weighting == "exponential" and self.metric != "cosine":
            wrong.append("weighting=exponential is defined on the cosine; set metric=cosine too")
        if self.crops and self.linear != "faithful":
            wrong.append("crops=true is of the faithful linear probe; set linear=faithful too")
        return wrong

    def changed(self, usual: "ScoreSettings") -> dict[str, Any]:
        """What differs from the usual settings and may change a score."""
        names = [field.name for field in fields(self) if field.name != "batch_size"]
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
