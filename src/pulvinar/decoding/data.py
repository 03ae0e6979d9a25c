"""From an experiment to the tensors a decoder trains on: z-scored trials and standardised target embeddings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pulvinar.core import memory
from pulvinar.core.errors import DegenerateError, InputError, LeakError
from pulvinar.core.sampling import blocks_of, evenly_spaced
from pulvinar.data.experiment import Experiment
from pulvinar.data.feature_tables import choose_feature, feature_values, is_of_labels
from pulvinar.data.responses import Responses
from pulvinar.data.scaling import Mode, require_trials_per_session, zscore
from pulvinar.data.splits import training_trials
from pulvinar.decoding.decoder_training import Rows
from pulvinar.decoding.settings import Half

LARGEST_IN_MEMORY = 2**31  # bytes of float32 targets of a subject; more are read from their file when asked for
COPIES_OF_TARGETS = 3  # while they are made
NUMBERS_AT_ONCE = 2**22
N_PROBES, LEAST_COSINE = 8, 0.9


@dataclass(frozen=True)
class Probes:
    """A few training images and their embedding (probe, token x dim) as it came, to know the same network again."""

    stimulus_ids: tuple[str, ...]
    values: np.ndarray


@dataclass(frozen=True)
class Embedding:
    """A target embedding, flattened and standardised: (value - mean) / spread, from training stimuli alone.

    mean: (token x dim,), zero where the embedding is not centred. n_tokens: 1 where it is pooled.
    """

    name: str
    mean: np.ndarray
    spread: float
    n_tokens: int = 1
    probes: Probes | None = None

    @property
    def dim(self) -> int:
        """Numbers of a token, or of a pooled embedding."""
        return len(self.mean) // self.n_tokens

    def of(self, experiment: Experiment, stimulus_ids: Sequence[str]) -> Tensor:
        """Standardised embedding (row, token x dim) of these stimuli."""
        return self._rows(experiment, stimulus_ids)[torch.arange(len(stimulus_ids))]

    def targets(self, experiment: Experiment, stimulus_ids: Sequence[str]) -> Rows:
        """The same, row by row: a tensor, or from the file when asked for where that would be too large or memory is short."""
        size = 4 * len(stimulus_ids) * len(self.mean)
        lazy = size > LARGEST_IN_MEMORY or not memory.fits(COPIES_OF_TARGETS * size)
        return self._rows(experiment, stimulus_ids) if lazy else self.of(experiment, stimulus_ids)

    def _rows(self, experiment: Experiment, stimulus_ids: Sequence[str]) -> "_EmbeddingRows":
        values = feature_values(experiment.stimuli, self.name)
        size = int(np.prod(values.shape[1:]))
        if size != len(self.mean):
            raise InputError(f"feature '{self.name}': {size} numbers a stimulus, the decoder has {len(self.mean)}")
        if self.n_tokens != n_tokens(values):
            raise InputError(f"feature '{self.name}': {n_tokens(values)} tokens, the decoder has {self.n_tokens}")
        return _EmbeddingRows(self, values, experiment.stimuli.rows(stimulus_ids), tuple(stimulus_ids))

    def require_same_network(self, experiment: Experiment) -> None:
        """Raise `InputError` if images of the training have another embedding here: it came from another network."""
        if self.probes is None:
            return
        present = [row for row, name in enumerate(self.probes.stimulus_ids) if name in experiment.stimuli.row_of]
        if not present:
            return
        values = feature_values(experiment.stimuli, self.name)
        rows = experiment.stimuli.rows([self.probes.stimulus_ids[row] for row in present])
        ours = np.asarray(values[rows], np.float64).reshape(len(rows), -1)
        theirs = self.probes.values[present].astype(np.float64)
        cosine = (ours * theirs).sum(1) / np.maximum(np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1), 1e-12)
        if cosine.mean() < LEAST_COSINE:
            raise InputError(
                f"feature '{self.name}': embeddings of another network than the decoder was trained on (cosine with those of "
                f"the same {len(rows)} images {cosine.mean():.2f}); embed with the same network and weights, or pretrain again"
            )


class _EmbeddingRows:
    """Standardised embeddings of trials, read from the table when asked for."""

    def __init__(self, embedding: Embedding, values: np.ndarray, rows: np.ndarray, stimulus_ids: tuple[str, ...]) -> None:
        self.embedding, self.values, self.rows, self.stimulus_ids = embedding, values, rows, stimulus_ids

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, trials: Tensor) -> Tensor:
        flat = np.asarray(memory.take_rows(self.values, self.rows[trials.numpy()]), np.float32).reshape(len(trials), -1)
        if not np.isfinite(flat).all():
            trial = int(trials[int(np.argmin(np.isfinite(flat).all(1)))])
            raise InputError(f"feature '{self.embedding.name}': not finite for stimulus {self.stimulus_ids[trial]}")
        return torch.from_numpy(((flat - self.embedding.mean) / self.embedding.spread).astype(np.float32))


def n_tokens(values: np.ndarray) -> int:
    """Tokens of an embedding (stimulus, dim) or (stimulus, token, dim)."""
    return values.shape[1] if values.ndim == 3 else 1


def embedding_shape(experiment: Experiment, name: str | None) -> dict[str, int]:
    """n_tokens and dim of the feature to decode; its values are not read."""
    shape = feature_values(experiment.stimuli, choose_feature(experiment.stimuli, name)).shape
    return {"n_tokens": shape[1] if len(shape) == 3 else 1, "dim": shape[-1]}


def fit_embedding(experiment: Experiment, name: str | None, *, centre: bool = True) -> Embedding:
    """Mean (zero without `centre`) and spread of a feature over all training stimuli (no test stimulus)."""
    feature = choose_feature(experiment.stimuli, name)
    if is_of_labels(experiment.stimuli, feature):
        _require_known_labels(experiment)
    rows, values = experiment.stimuli.rows(experiment.split.train), feature_values(experiment.stimuli, feature)
    size = int(np.prod(values.shape[1:]))
    total = np.zeros(size)
    for block in _blocks(values, rows):
        total += block.sum(0)
        if not np.isfinite(total).all():
            raise InputError(f"feature '{feature}': not finite for some training stimuli")
    mean = total / len(rows)
    square = sum(((block - mean) ** 2).mean() * len(block) for block in _blocks(values, rows)) / len(rows)
    spread = float(np.sqrt(square))
    if not spread > 0:
        raise InputError(f"feature '{feature}': the same for every training stimulus")
    chosen = rows[evenly_spaced(len(rows), N_PROBES)]
    probes = Probes(
        tuple(experiment.stimuli.ids[row] for row in chosen), np.asarray(values[chosen], np.float32).reshape(len(chosen), -1)
    )
    mean = mean if centre else np.zeros_like(mean)
    return Embedding(feature, mean.astype(np.float32), spread, n_tokens(values), probes)


def _require_known_labels(experiment: Experiment) -> None:
    """Raise `InputError` for labels of the test that no training stimulus has: they could not be decoded."""
    of_side = {
        side: {experiment.stimuli.labels[row] for row in experiment.stimuli.rows(ids)}  # type: ignore[index]
        for side, ids in (("train", experiment.split.train), ("test", experiment.split.test))
    }
    unknown = sorted(of_side["test"] - of_side["train"])
    if unknown:
        raise InputError(f"feature=label: no training stimulus has the label of test stimuli: {', '.join(unknown[:5])}")
    if len(of_side["test"]) < 2:
        raise InputError(f"feature=label: all test stimuli have the label '{min(of_side['test'])}'; two labels are needed")


def _blocks(values: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Float64 (row, number) of these rows, as many at a time as fit."""
    at_once = max(1, NUMBERS_AT_ONCE // max(1, int(np.prod(values.shape[1:]))))
    for block in blocks_of(len(rows), at_once):
        own = rows[block]
        yield memory.take_rows(values, own).reshape(len(own), -1).astype(np.float64)


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Trials of one subject, ready: z-scored responses (trial, voxel), their target (trial, token x dim), their stimuli."""

    responses: Tensor
    target: Rows
    stimulus_ids: tuple[str, ...]
    n_tokens: int = 1

    def pooled_target(self) -> np.ndarray:
        """The target (trial, dim), averaged over tokens where there are any: what univariate scores are made with."""
        parts = [
            self.target[rows].unflatten(1, (self.n_tokens, -1)).mean(1) for rows in torch.arange(len(self.target)).split(256)
        ]
        return torch.cat(parts).numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledTrials:
    """Training trials of one subject, read once and z-scored: responses (trial, voxel) on these voxels (indices)."""

    responses: Tensor
    voxels: np.ndarray
    stimulus_ids: tuple[str, ...]

    def with_target(self, experiment: Experiment, embedding: Embedding) -> Trials:
        """The same with the embedding of what was shown."""
        target = embedding.targets(experiment, self.stimulus_ids)
        return Trials(responses=self.responses, target=target, stimulus_ids=self.stimulus_ids, n_tokens=embedding.n_tokens)


def half_of(experiment: Experiment, half: Half) -> Experiment:
    """The experiment with one half of the target's training images, the same halves for every seed; "both": as it is."""
    if half == "both":
        return experiment
    shown = set(experiment.subjects[experiment.target].stimulus_ids)
    seen = [name for name in experiment.split.train if name in shown]
    order = np.random.default_rng(0x4A1F).permutation(len(seen))
    halves = {"a": order[: len(order) // 2], "b": order[len(order) // 2 :]}
    return experiment.with_training([seen[place] for place in np.sort(halves[half])])


def first_sessions(responses: Responses, n_sessions: int | None) -> list[int] | None:
    """The first `n_sessions` session numbers of a subject; None for all."""
    if n_sessions is None:
        return None
    present = np.unique(responses.sessions)
    if not 1 <= n_sessions <= len(present):
        raise InputError(f"n_sessions: 1 to {len(present)} for {responses.subject}, {n_sessions} came")
    return present[:n_sessions].tolist()


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
    return scaled_trials(experiment, subject, scaling=scaling, voxels=voxels, n_sessions=n_sessions).with_target(
        experiment, embedding
    )


def scaled_trials(
    experiment: Experiment,
    subject: str,
    *,
    scaling: Mode,
    voxels: np.ndarray | None = None,
    n_sessions: int | None = None,
    drop_bad_voxels: bool = False,
    finite_in_test: bool = False,
) -> ScaledTrials:
    """Training trials of a subject (its first sessions, on some voxels), each read once; in memory or, where that is short, in
    a scratch file that is read when a batch is made.

    Voxels that do not vary or are not finite, with `finite_in_test` in test trials too, are left out with `drop_bad_voxels`
    and refused by name without (`DegenerateError`).
    """
    responses = experiment.subjects[subject]
    chosen = np.arange(responses.n_voxels) if voxels is None else np.flatnonzero(voxels)
    trials = training_trials(responses, experiment.split, sessions=first_sessions(responses, n_sessions))
    used = trials
    if scaling == "per_session":
        used = _non_test_trials(experiment, responses)
        used = used[np.isin(responses.sessions[used], responses.sessions[trials])]
    some = None if voxels is None else chosen
    seen, rows = responses.take_trials(used, some), np.searchsorted(used, trials)
    test = responses.trials_of(experiment.split.test) if finite_in_test else trials[:0]
    if drop_bad_voxels:
        bad = np.union1d(seen.bad_voxels(rows), responses.not_finite_voxels(test, some))
        if len(bad) == len(chosen):
            raise DegenerateError(f"responses of {subject}: every voxel is constant, NaN or infinite")
        good = np.setdiff1d(np.arange(len(chosen)), bad)
        seen, chosen = (seen.take_voxels(good), chosen[good]) if len(bad) else (seen, chosen)
    else:
        seen.require_good_voxels(rows)
        responses.require_finite_voxels(test, some)
    in_place = seen.values if len(used) == len(trials) else None
    values = zscore(seen, rows, fit_trials=np.arange(len(used)), mode=scaling, out=in_place)
    ids = tuple(responses.stimulus_ids[trial] for trial in trials)
    return ScaledTrials(responses=torch.from_numpy(values), voxels=chosen, stimulus_ids=ids)


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
    target = embedding.targets(experiment, ids)
    return Trials(responses=torch.from_numpy(values), target=target, stimulus_ids=ids, n_tokens=embedding.n_tokens)


def refuse_copied_responses(experiment: Experiment, subjects: Sequence[str]) -> None:
    """Raise `LeakError` if the target's responses are those of one of these subjects under another name."""
    own = experiment.subjects[experiment.target]
    for name in subjects:
        other = experiment.subjects[name]
        if other.values.shape == own.values.shape:
            trials = np.unique([0, own.n_trials // 2, own.n_trials - 1])
            if np.array_equal(own.read(trials), other.read(trials)):
                raise LeakError(
                    f"responses of {experiment.target} are those of {name}; one of them holds another subject's data"
                )


def _non_test_trials(experiment: Experiment, responses: Responses) -> np.ndarray:
    test = set(experiment.split.test)
    return np.array([trial for trial, name in enumerate(responses.stimulus_ids) if name not in test], dtype=np.int64)
