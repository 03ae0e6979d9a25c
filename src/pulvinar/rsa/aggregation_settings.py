"""Settings of learning to aggregate; the trainers take them as they are."""

from dataclasses import dataclass
from typing import Literal, cast, get_args

from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.core.errors import InputError
from pulvinar.rsa.stage_mask import Balance, Centring, Loss, Resolution
from pulvinar.scores.rdm_comparison import check_method

Background = Literal["on_grey", "as_is"]
TimeSampling = Literal["gaussian", "average"]
Protocol = Literal["images", "both"]
Crops = Literal["none", "cached_crops", "run_network"]


def parse_layout(name: str) -> tuple[Balance, int]:
    """What has equal variance at the start, and to how many places a side maps are averaged (0: not): 'channel:3', 'none:7'.

    Raises `InputError` for anything else.
    """
    balance, _, pool = name.partition(":")
    if balance not in get_args(Balance) or not pool.isdecimal():
        raise InputError(f"layout '{name}': none, stage or channel, a colon and a whole number are needed, such as 'channel:3'")
    return cast(Balance, balance), int(pool)


@dataclass(frozen=True, kw_only=True)
class AggregationConfig(DeviceSetting):
    """Settings of the fit, and of its evaluation."""

    seed: int = setting(
        0,
        "folds, order of pairs, crops, random weights where none are given",
        at_least=0,
        below=LARGEST_SEED,
        heading="Targets and network",
    )
    roi: tuple[str, ...] = setting((), "target or targets, fitted together; none: the first there is")
    network: str = setting(
        "seresnext50_32x4d",
        "network of torchvision or timm (paper: SE-ResNeXt-50 32x4d); several with commas between: all their stages",
        formerly={"backbone": "network"},
    )
    weights: str | None = setting(
        None,
        "file (.npz, .safetensors, .pt), 'default' or a name of the library's; none: random; several: one each, or one",
    )
    image_size: int | None = setting(None, "pixels; none: what the weights were trained on", at_least=1)
    mean: tuple[float, ...] = setting((), "of the input, red green blue in 0..1; none: the weights' own")
    std: tuple[float, ...] = setting((), "of the input, red green blue in 0..1; none: the weights' own")
    stages: int | tuple[str, ...] = setting(5, "how many tracked stages (paper: 5 or 17), or their names")
    resolution: Resolution = setting(
        "channel", "a scale per stage, channel (paper's best) or feature", heading="Scales and dissimilarities"
    )
    background: Background = setting("on_grey", "uniform white backgrounds made mid-grey, as in the scanner (ours)")
    centring: Centring = setting("embedding", "Pearson over the whole embedding (paper), or every channel centred (ours)")
    layouts: tuple[str, ...] = setting(
        ("none:7", "channel:3"),
        "what has equal variance at the start (none, stage, channel) : maps averaged to n x n",
        filled=True,
        reads=parse_layout,
    )
    train: Literal["mask", "all"] = setting("mask", "scales on a frozen network, or the network too", heading="Training")
    loss: Loss = setting("correlation", "l1 (paper), mse, or 1 - Pearson r (ours)")
    use_reliability: bool = setting(True, "equation 1: pairs on which subjects differ weigh less")
    identity_weights: tuple[float, ...] = setting(
        (0.03,), "pull of the scales to their start; of several inner folds choose", at_least=0, filled=True
    )
    group_weight: float = setting(
        0.0, "group sparsity over stages (ours)", at_least=0, counts="train=mask and crops!=run_network"
    )
    stage_mean_weight: float = setting(
        0.0,
        "pull of the channels of a stage to their mean scale (ours)",
        at_least=0,
        counts="train=mask and crops!=run_network",
    )
    non_negative: bool = setting(False, "scales are not negative (ours)")
    learning_rate: float = setting(2e-2, "Adam's rate of the scales (paper: 0.01)", above=0)
    epochs: int = setting(
        160, "passes over the pairs at most; a step each where batch_pairs is none (paper: 10 to 40)", above=0
    )
    batch_pairs: int | None = setting(
        None, "pairs in a step; none: all (paper: 40)", at_least=1, counts="train=mask and crops!=run_network"
    )
    early_stopping: bool = setting(True, "stop where held-out images are predicted best; false: after all epochs")
    crops: Crops = setting(
        "none",
        "random crops: drawn among n_crops cached ones, or fresh ones with the network run on them",
        heading="Crops",
        formerly={"run_backbone": "run_network"},
    )
    n_crops: int = setting(4, "cached crops beside the whole picture", above=0, counts="crops=cached_crops")
    crop_share: float = setting(0.875, "side of a crop (paper: 0.875)", above=0, at_most=1, counts="crops!=none")
    images_per_step: int = setting(
        10,
        "images whose pairs are a step where the network is run (10 are 45 pairs)",
        at_least=3,
        counts="crops=run_network or train=all",
    )
    network_rate: float = setting(
        1e-4, "Adam's rate of the network where everything is trained (ours)", at_least=0, counts="train=all"
    )
    time_sampling: TimeSampling = setting("gaussian", "MEG: a time drawn around the window's middle (paper), or the average")
    n_inner_folds: int = setting(4, "folds over training images that choose", at_least=2, heading="Evaluation")
    n_folds: int = setting(5, "folds over images of the evaluation", at_least=2)
    n_repeats: int = setting(10, "repeats of the evaluation's folds", above=0)
    n_permutations: int = setting(300, "of images, for the null", above=0)
    n_bootstrap: int = setting(500, "resamples of images and subjects, for intervals", above=0)
    protocol: Protocol = setting(
        "images",
        "what the evaluation holds out: images, or 'both': a table of held-out pairs (paper: 90:10) of seen images too",
    )
    comparisons: tuple[str, ...] = setting(
        (), "similarities beside Spearman's rho in each row, such as tau-a, tau-b, pearson", reads=check_method
    )

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = []
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (0, 3):
                wrong.append(f"{name} is three numbers (red, green, blue), not {getattr(self, name)}")
        if self.runs_network and "," in self.network:
            wrong.append(f"network: with train=all or crops=run_network there is one network, not {self.network}")
        if self.train == "all" and self.crops == "cached_crops":
            wrong.append("crops: with train=all crops are fresh (run_network) or none")
        if self.runs_network and self.device not in ("auto", "cpu"):
            wrong.append(f"device: with train=all or crops=run_network it is computed on the CPU, not on {self.device}")
        return wrong

    def idle(self) -> dict[str, str]:
        """What is of the scales on cached products alone."""
        found = {}
        if self.runs_network and len(self.identity_weights) > 1:
            found["identity_weights"] = "where the network is run only the first one counts; give one"
        if self.runs_network and (len(self.layouts) > 1 or not self.layouts[0].startswith("none:")):
            found["layouts"] = "where the network is run only the first one's places count; give one, such as none:7"
        return found

    @property
    def runs_network(self) -> bool:
        """Whether a training step runs the network."""
        return self.train == "all" or self.crops == "run_network"

    @property
    def n_cached_crops(self) -> int:
        """Cached crops beside the whole pictures."""
        return self.n_crops if self.crops == "cached_crops" else 0

    def n_steps(self, n_pairs: int) -> int:
        """Steps of the scales on cached products, with so many training pairs."""
        return self.epochs * (1 if self.batch_pairs is None else max(1, -(-n_pairs // self.batch_pairs)))
