"""Settings that all encoding methods share, and those of tuning a network; the subjects that they name, opened."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pulvinar.core.config import setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.experiment import Experiment
from pulvinar.data.scaling import Mode
from pulvinar.data.splits import Split, folds_by_source
from pulvinar.encoding.data import EncodedSubject, open_subject
from pulvinar.encoding.encoder import EncoderSettings
from pulvinar.encoding.image_responses import roi_groups
from pulvinar.encoding.response_heads import ContrastiveHead, RegressionHead
from pulvinar.encoding.tuned_networks import EMBEDDED
from pulvinar.encoding.tuned_voxels import VoxelChoice

Baseline = Literal["low_level", "category", "both", "none"]
EVERY_ROI = "all"
POOLED = "pooled"  # tag of a network that several subjects share


@dataclass(frozen=True, kw_only=True)
class EncodingConfig(EncoderSettings, DeviceSetting):
    """Settings of an encoding model, whatever its features are."""

    roi: tuple[str, ...] | None = setting(
        None,
        "ROIs whose voxels are encoded (V1v stands for lh.V1v and rh.V1v too); none or 'all': all voxels",
        heading="Responses and scores",
    )
    subjects: tuple[str, ...] | None = setting(None, "whose responses; none: the experiment's target")
    scaling: Mode = setting("train_stats", "z-scoring of responses: train_stats or per_session (transductive)")
    drop_bad_voxels: bool = setting(False, "leave out constant and NaN voxels instead of refusing them")
    baseline: Baseline = setting("low_level", "features to beat: low_level (energy, colour), category (labels), both, none")
    n_permutations: int = setting(1000, "permutations of test images for p-values", at_least=1)

    def problems(self) -> list[str]:
        """What does not go together."""
        if self.regression == "partial_least_squares" and self.layer_choice == "banded":
            return ["layer_choice=banded is a ridge; regression=partial_least_squares needs another choice"]
        return []


def names_of(config: EncodingConfig, experiment: Experiment) -> list[str]:
    """The subjects that are encoded; `InputError` for unknown ones."""
    names = list(config.subjects or (experiment.target,))
    unknown = [name for name in names if name not in experiment.subjects]
    if unknown:
        raise InputError(f"subjects: {', '.join(unknown)} are not among {', '.join(experiment.subjects)}")
    return names


def open_named(config: EncodingConfig, experiment: Experiment, name: str, *, split: Split | None = None) -> EncodedSubject:
    """A subject's encoded voxels and responses by these settings. split: none, the experiment's."""
    every = config.roi is None or tuple(config.roi) == (EVERY_ROI,)
    return open_subject(
        experiment,
        name,
        roi=None if every else config.roi,
        scaling=config.scaling,
        drop_bad_voxels=config.drop_bad_voxels,
        split=split,
    )


def open_checked(config: EncodingConfig, experiment: Experiment, name: str, *, split: Split | None = None) -> EncodedSubject:
    """`open_named`, and all else that can be wrong with a subject that is encoded; says what is there."""
    given = open_named(config, experiment, name, split=split)
    folds_by_source(given.sources, config.folds, config.seed)
    if len(given.test.ids) < 3:
        raise InputError(f"responses of {name}: {len(given.test.ids)} test images; a correlation needs 3 or more")
    if config.layer_choice == "roi":
        roi_groups(given.responses, given.voxels)
    log(f"{name}: {len(given.voxels)} voxels, {len(given.train.ids)} training and {len(given.test.ids)} test images")
    return given


@dataclass(frozen=True)
class TunedWeights:
    """Which weights of a network are tuned, as it is written in a setting."""

    kind: Literal["all", "last", "after", "lora"]
    count: int = 0
    module: str = ""

    @classmethod
    def parse(cls, text: str) -> "TunedWeights":
        """From 'all', 'last:2', 'after:features.10', 'lora:8'; `InputError` for anything else."""
        kind, _, rest = text.partition(":")
        if text == "all":
            return cls("all")
        if kind == "after" and rest:
            return cls("after", module=rest)
        if kind in ("last", "lora") and rest.isdecimal() and int(rest) > 0:
            return cls("last" if kind == "last" else "lora", count=int(rest))
        raise InputError(f"'all', 'last:STAGES', 'after:MODULE' or 'lora:RANK' is needed, '{text}' came")


@dataclass(frozen=True, kw_only=True)
class TuningConfig(EncodingConfig):
    """Settings of a tuned encoding model."""

    network: str = setting(
        EMBEDDED,
        "network of torchvision or timm, folder of a gated run, or embedded: a small random ResNet (paper: alexnet)",
        heading="Network and its features",
        formerly={"backbone": "network"},
    )
    weights: str | None = setting(
        None, "its weights: a file, 'default' or a name; none: random (paper: ImageNet)", counts="network!=embedded"
    )
    stages: tuple[str, ...] | None = setting(
        None, "modules to tap; none: one per resolution, and the output (paper: 8 layers of AlexNet)"
    )
    n_stages: int | None = setting(None, "how many stages, spread evenly (instead of stages)", at_least=1)
    image_size: int | None = setting(
        None, "pixels along an edge; none: 96, embedded 64, a run its own (paper: 224)", at_least=1
    )
    pool: int | None = setting(
        6, "average each map to pool x pool places for the ridge (ours); none: whole maps (paper)", at_least=1
    )
    tuned: str = setting(
        "all",
        "all weights; last:K the last K stages; after:MODULE; lora:RANK adapters (paper: all)",
        reads=TunedWeights.parse,
        heading="What is tuned to whom",
    )
    voxels: str = setting(
        "all", "voxels tuned on: all, ceiling:SHARE or selected:COUNT; the whole ROI is encoded (ours)", reads=VoxelChoice.parse
    )
    pooled: bool = setting(False, "one network for several subjects, each with its own brain-side map")
    tuned_on: tuple[str, ...] | None = setting(
        None, "whose responses tune; none: each encoded subject its own network, pooled: all subjects"
    )
    epochs: int = setting(30, "passes over the images at most (paper: 30)", at_least=1, heading="Tuning")
    patience: int | None = setting(
        5,
        "epochs without a lower loss on held-out training images before the end (ours); none: all",
        at_least=1,
        counts="validation_share>0",
    )
    validation_share: float = setting(
        0.2,
        "share of training images held out from tuning, for epochs, layers and alphas (ours; paper: 0)",
        at_least=0,
        at_most=0.5,
    )
    fall_back: bool = setting(
        True,
        "encode with the untuned network unless the tuned predicts held-out training images better (ours; paper: never)",
        counts="validation_share>0 and mac_budget=none and layer_choice!=banded",
    )
    batch_size: int = setting(128, "images a step, of one subject (paper: 1024)", at_least=2)
    learning_rate: float = setting(1e-4, "of Adam, network (paper: 1e-4)", above=0)
    head_learning_rate: float | None = setting(None, "of Adam, head; none: as the network (paper)", above=0)
    precision: Literal["float32", "bfloat16"] = setting("float32", "of the network; losses are float32")
    mac_budget: float | None = setting(
        None, "MAC share that a gated network is held to; none: the share it came with", above=0, at_most=1
    )

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = super().problems()
        if self.stages is not None and self.n_stages is not None:
            wrong.append("stages and n_stages both say which stages; give one of them")
        if self.tuned_on is not None and len(self.tuned_on) > 1 and not self.pooled:
            wrong.append("tuned_on names several subjects; give pooled=true, or one")
        return wrong

    def head(self, n_features: int, n_voxels: Mapping[str, int]) -> ContrastiveHead | RegressionHead:
        """What compares the output of the network, so many features, with each subject's voxels."""
        return RegressionHead(n_features, n_voxels)


def networks_of(config: TuningConfig, experiment: Experiment) -> dict[str, tuple[str, ...]]:
    """Tag of each network -> the subjects that it is tuned on. A tag is a subject's name, or 'pooled'."""
    on = config.tuned_on
    unknown = [name for name in on or () if name not in experiment.subjects]
    if unknown:
        raise InputError(f"tuned_on: {', '.join(unknown)} are not among {', '.join(experiment.subjects)}")
    if config.pooled:
        return {POOLED: tuple(on or experiment.subjects)}
    return {name: (name,) for name in on or names_of(config, experiment)}


def tag_of(config: TuningConfig, subject: str) -> str:
    """Which network a subject is encoded with."""
    if config.pooled:
        return POOLED
    return config.tuned_on[0] if config.tuned_on else subject
