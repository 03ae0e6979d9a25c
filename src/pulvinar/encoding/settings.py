"""Settings that all encoding methods share: whose voxels, how responses are scaled, the ridge and its choices, the controls."""

from dataclasses import dataclass
from typing import Literal

from pulvinar.core.config import setting
from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.experiment import Experiment
from pulvinar.data.scaling import Mode
from pulvinar.data.splits import Split
from pulvinar.encoding.data import EncodedSubject, open_subject
from pulvinar.encoding.encoder import EncoderSettings, folds_by_source
from pulvinar.encoding.image_responses import roi_groups

Baseline = Literal["low_level", "category", "both", "none"]
EVERY_ROI = "all"


@dataclass(frozen=True, kw_only=True)
class EncodingConfig(EncoderSettings):
    """Settings of an encoding model, whatever its features are."""

    roi: tuple[str, ...] | None = setting(
        None, "ROIs whose voxels are encoded (V1v stands for lh.V1v and rh.V1v too); none or 'all': all voxels"
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


def check_subjects(config: EncodingConfig, experiment: Experiment, *, split: Split | None = None) -> None:
    """What can be wrong with the responses, before anything is written or computed; says what is there."""
    for name in names_of(config, experiment):
        given = open_named(config, experiment, name, split=split)
        folds_by_source(given.sources, config.folds, config.seed)
        if len(given.test.ids) < 3:
            raise InputError(f"responses of {name}: {len(given.test.ids)} test images; a correlation needs 3 or more")
        if config.layer_choice == "roi":
            roi_groups(given.responses, given.voxels)
        log(f"{name}: {len(given.voxels)} voxels, {len(given.train.ids)} training and {len(given.test.ids)} test images")
