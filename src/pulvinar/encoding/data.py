"""What an encoding model of a subject is fitted to and scored on: its voxels, and its responses to training and test images."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log
from pulvinar.data.experiment import Experiment
from pulvinar.data.responses import Responses, VoxelCheck
from pulvinar.data.scaling import Mode, require_trials_per_session
from pulvinar.data.splits import Split, folds_by_source, training_trials
from pulvinar.data.stimuli import Stimuli
from pulvinar.encoding.encoder import EncoderSettings, EncoderTrainer, Folds, Layers
from pulvinar.encoding.image_responses import ImageResponses, choose_voxels, roi_groups, statistics_of


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedSubject:
    """One subject's encoded voxels (indices), and its responses to its training and test images."""

    voxels: np.ndarray
    train: ImageResponses
    test_ids: tuple[str, ...]
    stimuli: Stimuli

    @functools.cached_property
    def test(self) -> ImageResponses:
        """Responses to the test images; `InputError` for a subject who saw none (it may be trained on all the same)."""
        return self.train.other(self.test_ids)

    @property
    def responses(self) -> Responses:
        """All responses of the subject."""
        return self.train.responses

    @property
    def name(self) -> str:
        """The subject."""
        return self.responses.subject

    @property
    def sources(self) -> list[str]:
        """Source picture of each training image."""
        return [self.stimuli.sources[row] for row in self.stimuli.rows(self.train.ids)]

    def every(self) -> ImageResponses:
        """Responses to all its images, training and test, z-scored alike (for ceilings from repeats)."""
        return self.train.other([*self.train.ids, *self.test.ids])

    def trainer(self, layers: Layers, settings: EncoderSettings, *, folds: Folds | None = None) -> EncoderTrainer:
        """A trainer on layers of the training images, that reads this subject's voxels. folds: instead of those by source."""
        return EncoderTrainer(
            layers,
            lambda places: self.train.read(self.voxels[places]),
            n_voxels=len(self.voxels),
            sources=self.sources,
            settings=settings,
            folds=folds,
            bytes_to_read=self.train.bytes_per_voxel(),
            groups=roi_groups(self.responses, self.voxels) if settings.layer_choice == "roi" else None,
        )


def open_subject(
    experiment: Experiment,
    name: str,
    *,
    roi: Sequence[str] | None = None,
    scaling: Mode = "train_stats",
    drop_bad_voxels: bool = False,
    split: Split | None = None,
) -> EncodedSubject:
    """A subject of an experiment, its responses z-scored with its training trials' statistics. split: none, the experiment's.

    Training and test trials are read once, all voxels of them, for statistics and bad voxels; nothing of them is kept.

    Raises `DegenerateError` for constant and NaN voxels unless they are dropped, `InputError` where nothing is left.
    """
    if name not in experiment.subjects:
        raise InputError(f"subjects: {name} is not among {', '.join(experiment.subjects)}")
    responses, split = experiment.subjects[name], split or experiment.split
    trials, test_trials = training_trials(responses, split), responses.trials_of(split.test)
    voxels = choose_voxels(responses, roi)
    check = VoxelCheck(responses.n_voxels)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is left out, or refused
        statistics = statistics_of(responses, trials, scaling, check=check)
    bad = np.intersect1d(np.union1d(check.bad, responses.not_finite_voxels(test_trials)), voxels)
    if len(bad) and not drop_bad_voxels:
        responses.require_good_voxels(trials)
        responses.require_finite_voxels(test_trials)
    if len(bad):
        log(f"{name}: left out {len(bad)} constant or NaN voxels")
    voxels = np.setdiff1d(voxels, bad)
    if not len(voxels):
        raise InputError(f"responses of {name}: no voxel is left to encode")
    if scaling == "per_session":
        require_trials_per_session(responses, np.concatenate([trials, test_trials]), fit_trials=trials)
    train = ImageResponses(responses, split.train, fit_trials=trials, scaling=scaling, statistics=statistics)
    return EncodedSubject(voxels=voxels, train=train, test_ids=tuple(split.test), stimuli=experiment.stimuli)


def outer_splits(experiment: Experiment, n_folds: int | None, seed: int) -> list[Split]:
    """The experiment's own split for None; else `n_folds` splits in which every image is tested once, by source picture."""
    if n_folds is None:
        return [experiment.split]
    split, stimuli = experiment.split, experiment.stimuli
    ids = [*split.train, *split.test]
    folds = folds_by_source([stimuli.sources[row] for row in stimuli.rows(ids)], n_folds, seed)
    return [
        Split(train=tuple(ids[row] for row in train), test=tuple(ids[row] for row in held_out)) for train, held_out in folds
    ]
