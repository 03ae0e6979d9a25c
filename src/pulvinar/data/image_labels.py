"""Labels of images as one whole number each: what comes in a column, one-hot, or counted from 1, and what is refused."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pulvinar.core.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class Labels:
    """train, test: whole numbers (image,), indices of `class_names`, or None; notes: how they came about."""

    train: np.ndarray | None
    test: np.ndarray | None
    class_names: Sequence[str]
    notes: tuple[str, ...] = ()


def as_labels(train: np.ndarray | None, test: np.ndarray | None, class_names: Sequence[str], *, name: str) -> Labels:
    """Labels of training and test images from (image,), (image, 1) or one-hot (image, class).

    Without class names the classes are the numbers among the training labels, in order, whatever they count from; test labels
    must be among them. With names, numbers count from 0, or from 1 where 0 is missing and the highest is the number of names.
    -1 in training means no label. Raises `InputError` for other shapes and numbers.
    """
    flat = {side: _flat(values, f"{name}: {side} labels") for side, values in (("train", train), ("test", test))}
    if train is not None and test is not None and _is_one_hot(train) and _is_one_hot(test) and train.shape[1] != test.shape[1]:
        raise InputError(f"{name}: one-hot labels of {train.shape[1]} classes in training, {test.shape[1]} in the test")
    for side, lowest in (("train", -1), ("test", 0)):
        values = flat[side]
        if values is not None and len(values) and int(values.min()) < lowest:
            raise InputError(f"{name}: {side} label {int(values.min())}; labels are 0 or more, -1 for none in training")
    if class_names:
        return _by_name(flat["train"], flat["test"], class_names, name)
    return _by_number(flat["train"], flat["test"], name)


def _is_one_hot(values: np.ndarray) -> bool:
    return values.ndim == 2 and values.shape[1] > 1


def _flat(values: np.ndarray | None, what: str) -> np.ndarray | None:
    if values is None:
        return None
    values = np.asarray(values)
    if _is_one_hot(values):
        if not (np.isin(values, (0, 1)).all() and (values.sum(1) == 1).all()):
            raise InputError(f"{what}: (image,), (image, 1) or one-hot (image, class) fits, {values.dtype} {values.shape} came")
        return values.argmax(1)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"{what}: (image,), (image, 1) or one-hot (image, class) fits, {values.dtype} {values.shape} came")
    if values.dtype.kind not in "iu":
        raise InputError(f"{what} are whole numbers, {values.dtype} came")
    return values


def _by_name(train: np.ndarray | None, test: np.ndarray | None, class_names: Sequence[str], name: str) -> Labels:
    given = {side: values for side, values in (("train", train), ("test", test)) if values is not None and len(values)}
    highest = max((int(values.max()) for values in given.values()), default=-1)
    counts_from_1 = highest == len(class_names) and not any((values == 0).any() for values in given.values())
    if highest >= len(class_names) and not counts_from_1:
        side = next(side for side, values in given.items() if int(values.max()) == highest)
        raise InputError(f"{name}: {side} label {highest} is not one of the {len(class_names)} classes")
    if not counts_from_1:
        lowest = min((int(values[values >= 0].min(initial=highest)) for values in given.values()), default=0)
        notes = (
            (f"labels {lowest} to {highest} count the class names from 0: none is '{class_names[0]}'",) if lowest > 0 else ()
        )
        return Labels(train=train, test=test, class_names=class_names, notes=notes)
    note = f"labels 1 to {highest} are the {highest} class names in order"
    shifted = [None if values is None else np.where(values > 0, values.astype(np.int64) - 1, -1) for values in (train, test)]
    return Labels(train=shifted[0], test=shifted[1], class_names=class_names, notes=(note,))


def _by_number(train: np.ndarray | None, test: np.ndarray | None, name: str) -> Labels:
    numbers = np.unique(train[train >= 0]) if train is not None else np.zeros(0, int)
    if not len(numbers):
        return Labels(train=train, test=test, class_names=())
    if train is not None and len(numbers) == 1 and (train == -1).any():
        raise InputError(
            f"{name}: train labels -1 and {numbers[0]}; -1 means that an image has no label, which leaves one class. Number "
            "the classes from 0 (or give class_names, if there is one class)"
        )
    strangers = np.setdiff1d(test, numbers) if test is not None else np.zeros(0, int)
    if len(strangers):
        raise InputError(
            f"{name}: test label {strangers[0]} is none of the training labels, {_listed(numbers)}; give class_names if a "
            "class has no training image"
        )
    if numbers[-1] == len(numbers) - 1:
        return Labels(train=train, test=test, class_names=())
    kept = [None if values is None else np.where(values >= 0, np.searchsorted(numbers, values), -1) for values in (train, test)]
    note = f"labels {_listed(numbers)} are {len(numbers)} classes, named by these numbers"
    return Labels(train=kept[0], test=kept[1], class_names=tuple(str(number) for number in numbers), notes=(note,))


def _listed(numbers: np.ndarray) -> str:
    shown = [str(number) for number in numbers]
    return ", ".join(shown if len(shown) < 7 else [*shown[:3], "…", shown[-1]])
