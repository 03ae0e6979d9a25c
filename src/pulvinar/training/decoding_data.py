"""From an experiment to the tensors a decoder trains on: z-scored trials and standardised target embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pulvinar.data.experiment import Experiment
from pulvinar.data.responses import Responses
from pulvinar.data.scaling import Mode, require_trials_per_session, zscore
from pulvinar.data.splits import training_trials
from pulvinar.errors import DegenerateError, InputError, NotFoundError


@dataclass(frozen=True)
class Embedding:
    """A target embedding, flattened and standardised: (value - mean) / spread, from training stimuli alone."""

    name: str
    mean: np.ndarray
    spread: float

    def of(self, experiment: Experiment, stimulus_ids: Sequence[str]) -> Tensor:
        """Standardised embedding (row, dim) of these stimuli."""
        values = experiment.stimuli.feature(self.name)
        rows = experiment.stimuli.rows(stimulus_ids)
        flat = values[rows].reshape(len(rows), -1)
        if flat.shape[1] != len(self.mean):
            raise InputError(f"feature '{self.name}': {flat.shape[1]} numbers a stimulus, the decoder has {len(self.mean)}")
        return torch.from_numpy(((flat - self.mean) / self.spread).astype(np.float32))


def choose_feature(experiment: Experiment, name: str | None) -> str:
    """The feature to decode: the one named, or the only one there is."""
    there = list(experiment.stimuli.features)
    if name is not None:
        experiment.stimuli.feature(name)
        return name
    if len(there) == 1:
        return there[0]
    if not there:
        raise NotFoundError(
            "the stimuli have no feature (embedding) to decode; give one per stimulus, e.g. [stimuli] features.clip = "
            "'clip.npy' in the description for `pulvinar data convert`"
        )
    raise InputError(f"the stimuli have several features ({', '.join(there)}); choose one with feature=NAME")


def fit_embedding(experiment: Experiment, name: str | None) -> Embedding:
    """Mean and spread of a feature over all training stimuli (no test stimulus)."""
    feature = choose_feature(experiment, name)
    rows = experiment.stimuli.rows(experiment.split.train)
    values = experiment.stimuli.feature(feature)[rows].reshape(len(rows), -1).astype(np.float64)
    mean = values.mean(0)
    spread = float(np.sqrt(((values - mean) ** 2).mean()))
    if not spread > 0:
        raise InputError(f"feature '{feature}': the same for every training stimulus")
    return Embedding(feature, mean.astype(np.float32), spread)


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Trials of one subject, ready: responses (trial, voxel) z-scored, their target (trial, dim), their stimulus ids."""

    responses: Tensor
    target: Tensor
    stimulus_ids: tuple[str, ...]


def first_sessions(responses: Responses, n_sessions: int | None) -> list[int] | None:
    """The first `n_sessions` session numbers of a subject; None for all."""
    if n_sessions is None:
        return None
    there = np.unique(responses.sessions)
    if not 1 <= n_sessions <= len(there):
        raise InputError(f"n_sessions: 1 to {len(there)} for {responses.subject}, {n_sessions} came")
    return there[:n_sessions].tolist()


def usable_voxels(experiment: Experiment, subject: str, *, n_sessions: int | None, drop_bad_voxels: bool) -> np.ndarray:
    """Voxels (indices) that vary over the training trials in use and are finite there and in the test trials.

    Without `drop_bad_voxels` all voxels must be so: `DegenerateError` names those that are not.
    """
    responses = experiment.subjects[subject]
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, n_sessions))
    test = responses.trials_of(experiment.split.test)
    if not drop_bad_voxels:
        responses.require_good_voxels(trials)
        responses.require_finite_voxels(test)
    bad = np.union1d(responses.bad_voxels(trials), responses.not_finite_voxels(test))
    if len(bad) == responses.n_voxels:
        raise DegenerateError(f"responses of {subject}: every voxel is constant, NaN or infinite")
    return np.setdiff1d(np.arange(responses.n_voxels), bad)


def require_scalable(experiment: Experiment, subject: str, *, scaling: Mode, n_sessions: int | None = None) -> None:
    """Raise `DegenerateError` if a session of the subject has too few trials for its own statistics (`per_session`)."""
    if scaling == "per_session":
        responses = experiment.subjects[subject]
        trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, n_sessions))
        used = np.union1d(trials, responses.trials_of(experiment.split.test))
        require_trials_per_session(responses, used, fit_trials=_non_test_trials(experiment, responses))


def training_data(
    experiment: Experiment,
    subject: str,
    embedding: Embedding,
    *,
    scaling: Mode,
    voxels: np.ndarray | None = None,
    n_sessions: int | None = None,
) -> Trials:
    """Training trials of a subject (its first sessions, on some voxels); bad voxels among them are refused by name."""
    responses = experiment.subjects[subject]
    responses = responses if voxels is None else responses.take_voxels(np.flatnonzero(voxels))
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, n_sessions))
    responses.require_good_voxels(trials)
    fit_trials = trials if scaling == "train_stats" else _non_test_trials(experiment, responses)
    values = zscore(responses, trials, fit_trials=fit_trials, mode=scaling)
    ids = tuple(responses.stimulus_ids[trial] for trial in trials)
    return Trials(responses=torch.from_numpy(values), target=embedding.of(experiment, ids), stimulus_ids=ids)


def held_out_data(
    experiment: Experiment, subject: str, embedding: Embedding, *, scaling: Mode, n_sessions: int | None = None
) -> Trials:
    """All trials of test stimuli, scaled by the training trials in use (`train_stats`) or their own sessions' others."""
    responses = experiment.subjects[subject]
    fit_trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, n_sessions))
    trials = responses.trials_of(experiment.split.test)
    if len(trials) == 0:
        raise InputError(f"responses of {subject}: no trial shows a test stimulus")
    fit_trials = fit_trials if scaling == "train_stats" else _non_test_trials(experiment, responses)
    values = zscore(responses, trials, fit_trials=fit_trials, mode=scaling)
    ids = tuple(responses.stimulus_ids[trial] for trial in trials)
    return Trials(responses=torch.from_numpy(values), target=embedding.of(experiment, ids), stimulus_ids=ids)


def _non_test_trials(experiment: Experiment, responses: Responses) -> np.ndarray:
    test = set(experiment.split.test)
    return np.array([trial for trial, name in enumerate(responses.stimulus_ids) if name not in test], dtype=np.int64)
