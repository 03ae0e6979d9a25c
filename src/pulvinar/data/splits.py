"""Which stimuli are for training and which for the outer test, over all subjects at once.

An image in the test set is nowhere in anyone's training: neither under its id, nor as another crop of its source picture,
nor as the same pixels or features under another id.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulvinar.core.errors import InputError, LeakError
from pulvinar.core.notebook import counted
from pulvinar.core.storage import fingerprint
from pulvinar.data.responses import Responses
from pulvinar.data.stimuli import Stimuli


@dataclass(frozen=True, kw_only=True)
class Split:
    """Stimulus ids for training and for the outer test. Stimuli in neither are not used."""

    train: tuple[str, ...]
    test: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Split: {counted(len(self.train), 'training stimulus', 'training stimuli')}, {len(self.test):,} of the test"


def check_split(split: Split, stimuli: Stimuli) -> None:
    """Raise `LeakError` if anything of the test set stands in the training set (id, source picture, pixels, features)."""
    if not split.train or not split.test:
        raise InputError(f"split: {len(split.train)} training and {len(split.test)} test stimuli; both are needed")
    stimuli.rows(split.train)
    test_rows = stimuli.rows(split.test)
    both = set(split.train) & set(split.test)
    if both:
        raise LeakError(f"split: {len(both)} stimuli stand in training and test, among them {sorted(both)[:3]}")
    train_rows = stimuli.rows(split.train)
    _refuse_shared("source picture", [stimuli.sources[row] for row in range(len(stimuli))], stimuli, train_rows, test_rows)
    for name, values in stimuli.features.items():
        keys = [fingerprint(np.asarray(row)) for row in values]
        _refuse_shared(f"'{name}' feature (the same image under two ids)", keys, stimuli, train_rows, test_rows)
    if stimuli.pixel_keys is not None:
        _refuse_shared("pixels (the same image under two ids)", stimuli.pixel_keys, stimuli, train_rows, test_rows)
    elif stimuli.read_image is not None:
        wanted = np.concatenate([train_rows, test_rows])
        pixels = {int(row): fingerprint(stimuli.image(int(row))) for row in wanted}
        _refuse_shared("pixels (the same image under two ids)", pixels, stimuli, train_rows, test_rows)


def _refuse_shared(what: str, key_of, stimuli: Stimuli, train_rows: np.ndarray, test_rows: np.ndarray) -> None:
    in_train = {key_of[row]: row for row in train_rows}
    shared = [(stimuli.ids[in_train[key_of[row]]], stimuli.ids[row]) for row in test_rows if key_of[row] in in_train]
    if shared:
        pairs = ", ".join(f"'{train}' (training) and '{test}' (test)" for train, test in shared[:3])
        raise LeakError(f"split: {len(shared)} test stimuli share their {what} with training stimuli: {pairs}")


def require_apart(used: Sequence[str], test: Sequence[str], stimuli: Stimuli) -> None:
    """Raise `LeakError` where an image that something is trained on, or its source picture, is among the test images.

    For what several subjects train together. (That no test image stands under another id is checked with the experiment.)
    """
    held_out = {stimuli.sources[row] for row in stimuli.rows(test)}
    tested = set(test)
    leaked = [name for name, row in zip(used, stimuli.rows(used), strict=True)
              if name in tested or stimuli.sources[row] in held_out]  # fmt: skip
    if leaked:
        raise LeakError(f"{len(leaked)} images to train on are test images, or crops of their pictures: {leaked[:3]}")


def split_by_source(stimuli: Stimuli, *, test_share: float, seed: int) -> Split:
    """A random split in which every source picture is on one side; about `test_share` of the stimuli are for the test."""
    if not 0 < test_share < 1:
        raise InputError(f"test_share: between 0 and 1, {test_share} came")
    sources = sorted(set(stimuli.sources))
    if len(sources) < 2:
        raise InputError("split: all stimuli come from one source picture; there is nothing independent to test on")
    size = Counter(stimuli.sources)
    order = np.random.default_rng(seed).permutation(len(sources))
    in_test: set[str] = set()
    count = 0
    for place in order[:-1]:
        if count < test_share * len(stimuli):
            in_test.add(sources[place])
            count += size[sources[place]]
    train = tuple(name for name, source in zip(stimuli.ids, stimuli.sources, strict=True) if source not in in_test)
    test = tuple(name for name, source in zip(stimuli.ids, stimuli.sources, strict=True) if source in in_test)
    return Split(train=train, test=test)


def folds_by_source(sources: Sequence[str], n_folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(training rows, held-out rows) of each fold; a source picture is in one fold, folds are about equally large.

    The largest pictures are placed first, each in the emptiest fold, those of one size in random order. Raises `InputError`
    where there are fewer source pictures than folds.
    """
    names, place, size = np.unique(np.asarray(sources), return_inverse=True, return_counts=True)
    if len(names) < n_folds:
        raise InputError(f"folds: {n_folds} need as many source pictures, the training images have {len(names)}")
    fold, load = np.empty(len(names), np.int64), np.zeros(n_folds)
    order = np.random.default_rng([seed, 0xF01D]).permutation(len(names))
    for name in order[np.argsort(-size[order], kind="stable")]:
        fold[name] = int(load.argmin())
        load[fold[name]] += size[name]
    of_row = fold[place.reshape(-1)]
    return [(np.flatnonzero(of_row != number), np.flatnonzero(of_row == number)) for number in range(n_folds)]


def training_trials(responses: Responses, split: Split, *, sessions: Sequence[int] | None = None) -> np.ndarray:
    """Trials of training stimuli (of some sessions only, if given); trials of test stimuli are never among them."""
    trials = responses.trials_of(split.train)
    if sessions is not None:
        trials = trials[np.isin(responses.sessions[trials], list(sessions))]
    if len(trials) == 0:
        raise InputError(f"responses of {responses.subject}: no trial shows a training stimulus")
    return trials
