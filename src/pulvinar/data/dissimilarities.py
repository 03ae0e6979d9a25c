"""Representational dissimilarity matrices (RDMs) of subjects, and of time points, over one list of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pulvinar.core.config import suggest
from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.core.notebook import Shown, counted, listed
from pulvinar.core.storage import fingerprint
from pulvinar.data.stimuli import Stimuli

LARGEST_SHARE_BELOW_0 = 0.2  # of the entries of an RDM that does not say that it is cross-validated; ours
MAY_BE_NEGATIVE = ("cross", "signed")  # in what a file calls its measure
TOLERANCE = 1e-5  # of symmetry and of the zero diagonal, in units of the largest entry (float32 files)


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectRDMs:
    """What was measured at one place (an ROI, or a time window of MEG), in every subject.

    rdms: (subject, image, image), or (subject, time, image, image), symmetric, zero diagonal, not negative on the whole
    (1 - Pearson r lies in [0, 2]; crossnobis may be negative), missing pairs NaN (`tidy_rdm`). times: of MEG, in milliseconds
    from stimulus onset.
    """

    name: str
    rdms: np.ndarray
    subjects: Sequence[str] = ()
    times: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.rdms.ndim not in (3, 4):
            raise InputError(f"RDMs '{self.name}': (subject, image, image) is needed, {self.rdms.shape} came")
        if not self.subjects:
            object.__setattr__(self, "subjects", tuple(f"subj{number:02d}" for number in range(1, len(self.rdms) + 1)))
        if len(self.subjects) != len(self.rdms):
            raise InputError(f"RDMs '{self.name}': {len(self.rdms)} subjects in the array, {len(self.subjects)} names")
        n_times = self.rdms.shape[1] if self.rdms.ndim == 4 else None
        if self.times is not None and len(self.times) != n_times:
            raise InputError(f"RDMs '{self.name}': {len(self.times)} times for {n_times} time points")
        _check_stack(self.rdms, f"RDMs '{self.name}'")
        tidy = [
            tidy_rdm(rdms, f"RDMs '{self.name}' of {subject}") for subject, rdms in zip(self.subjects, self.rdms, strict=True)
        ]
        if any(now is not before for now, before in zip(tidy, self.rdms, strict=True)):
            object.__setattr__(self, "rdms", np.stack(tidy))

    def __repr__(self) -> str:
        times = f", {counted(len(self.rdms[0]), 'time point')}" if self.rdms.ndim == 4 else ""
        return f"RDMs '{self.name}': {counted(len(self.subjects), 'subject')}{times}, {counted(self.n_images, 'image')}"

    @property
    def n_images(self) -> int:
        """How many images the RDMs are over."""
        return self.rdms.shape[-1]

    @property
    def n_missing_pairs(self) -> int:
        """How many pairs are missing, over subjects and time points."""
        return int(np.isnan(self.rdms).sum()) // 2 if self.rdms.dtype.kind == "f" else 0


def require_all_pairs(target: SubjectRDMs) -> None:
    """Raise `InputError` where pairs are missing: what is fitted or submitted needs all of them."""
    if target.n_missing_pairs:
        raise InputError(
            f"RDMs '{target.name}': {target.n_missing_pairs} pairs are missing (NaN); a fit needs all of them. Leave out the "
            "images or subjects that lack them (`pulvinar rsa` compares RDMs with missing pairs)"
        )


def _check_stack(rdms: np.ndarray, name: str) -> None:
    if hint := _axes_hint(_square_numbers(rdms, name)):
        first = np.nan_to_num(rdms[0].astype(np.float64))
        if not np.allclose(first, np.swapaxes(first, -1, -2)):
            raise InputError(f"{name}: {rdms.shape} came, not symmetric in the last two axes{hint}")


def check_rdm(rdm: np.ndarray, name: str) -> None:
    """Raise `InputError` or `DegenerateError`, naming the RDM (..., image, image) and the entry, if it cannot be one."""
    values = _square_numbers(rdm, name)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise InputError(f"{name}: {len(bad)} entries are not finite, the first at {tuple(map(int, bad[0]))}")
    _check_values(values, name)


def tidy_rdm(rdm: np.ndarray, name: str) -> np.ndarray:
    """The RDM (..., image, image) as it is meant: NaN on the diagonal is 0, an empty triangle mirrors the filled one.

    Missing pairs stay NaN, on both sides. Comes back unchanged where nothing is to be done. Raises as `check_rdm`, and for an
    RDM without any pair.
    """
    values = _square_numbers(rdm, name)
    n_images = values.shape[-1]
    diagonal = np.arange(n_images)
    if np.isnan(values[..., diagonal, diagonal]).any():
        values[..., diagonal, diagonal] = np.nan_to_num(values[..., diagonal, diagonal], nan=0.0)
    upper, lower = np.triu_indices(n_images, 1), np.tril_indices(n_images, -1)
    for empty, filled in ((upper, lower), (lower, upper)):
        if _is_empty(values[(..., *empty)]) and not _is_empty(values[(..., *filled)]):
            values[(..., *empty)] = np.swapaxes(values, -1, -2)[(..., *empty)]
    if np.isinf(values).any():
        raise InputError(f"{name}: {int(np.isinf(values).sum())} entries are infinite")
    missing = np.isnan(values)
    odd = missing != np.swapaxes(missing, -1, -2)
    if odd.any():
        raise InputError(f"{name}: not symmetric; the pair at {_largest_at(odd)} is missing (NaN) on one side only")
    if missing[(..., *upper)].all(-1).any():
        raise InputError(f"{name}: every pair is missing (NaN)")
    _check_values(values, name)
    return rdm if np.array_equal(values, rdm, equal_nan=rdm.dtype.kind == "f") else values


def _is_empty(entries: np.ndarray) -> bool:
    return bool((np.isnan(entries) | (entries == 0)).all())


def _square_numbers(rdm: np.ndarray, name: str) -> np.ndarray:
    """A float64 copy of what could be RDMs by its shape and type."""
    if rdm.ndim < 2 or rdm.shape[-1] != rdm.shape[-2]:
        turned = rdm.ndim > 2 and rdm.shape[0] == rdm.shape[1]
        hint = "; are the subjects on the last axis? numpy.moveaxis(array, -1, 0) puts them first" if turned else ""
        raise InputError(f"{name}: a square matrix is needed, {rdm.shape} came{hint}")
    if rdm.shape[-1] < 3:
        raise InputError(f"{name}: 3 images or more are needed, {rdm.shape[-1]} came")
    if rdm.dtype.kind not in "biuf" or 0 in rdm.shape:
        raise InputError(f"{name}: numbers are needed, {rdm.dtype} of shape {rdm.shape} came")
    return np.array(rdm, dtype=np.float64)


def _check_values(values: np.ndarray, name: str) -> None:
    """Symmetric, zero diagonal, pairs that differ; missing pairs (NaN) are not looked at."""
    known = np.nan_to_num(values, nan=0.0)
    allowed = TOLERANCE * np.abs(known).max()
    gap = np.abs(known - np.swapaxes(known, -1, -2))
    if gap.max() > allowed:
        raise InputError(f"{name}: not symmetric; entries differ by {gap.max():.3g} at {_largest_at(gap)}{_axes_hint(values)}")
    diagonal = np.abs(np.diagonal(known, axis1=-2, axis2=-1))
    if diagonal.max() > allowed:
        raise InputError(
            f"{name}: the diagonal must be zero, its largest entry is {diagonal.max():.3g} (a similarity matrix? take 1 - r)"
        )
    upper = values[(..., *np.triu_indices(values.shape[-1], 1))]
    flat = np.argwhere(np.nanstd(upper, axis=-1) <= TOLERANCE * np.nanmax(np.abs(upper), axis=-1))
    if len(flat):
        place = f" at {tuple(map(int, flat[0]))}" if flat.shape[1] else ""
        raise DegenerateError(f"{name}{place}: all pairs have the same dissimilarity; nothing can be correlated with it")


def _axes_hint(values: np.ndarray) -> str:
    """Where a stack (image, image, image) is symmetric in its first two axes, its subjects stand on the last one."""
    stack = np.nan_to_num(values, nan=0.0)
    symmetric = stack.ndim > 2 and stack.shape[0] == stack.shape[-1] and np.allclose(stack, np.swapaxes(stack, 0, 1))
    return "; subjects on the last axis? numpy.moveaxis(array, -1, 0) puts them first" if symmetric else ""


def refuse_similarities(rdms: np.ndarray, name: str, measure: str | None = None) -> None:
    """Raise `InputError` where so many entries are below 0 that these look like similarities (their diagonal set to 0).

    measure: what the file says it holds; a cross-validated distance (crossnobis) may be below 0 as often as it likes.
    """
    pairs = rdms[(..., *np.triu_indices(rdms.shape[-1], 1))].astype(np.float64)
    known = np.isfinite(pairs)
    share = float((pairs[known] < -TOLERANCE * np.abs(pairs[known]).max()).mean())
    if share > LARGEST_SHARE_BELOW_0 and not any(word in (measure or "").lower() for word in MAY_BE_NEGATIVE):
        raise InputError(
            f"{name}: {share:.0%} of the entries are below 0: similarities, not dissimilarities? Take 1 - r. Cross-validated "
            "distances may be below 0: say so in the file, measure = 'crossnobis' (an array of an .npz; dissimilarity_measure "
            "of rsatoolbox)"
        )


def look_like_similarities(rdms: np.ndarray) -> bool:
    """Whether (subject, ..., image, image), on average, has the signs of similarities, whose diagonal was set to 0.

    Of distances, the main axis of the doubly centred matrix (classical scaling, -J D J / 2) is real: its largest eigenvalue by
    size is positive. Similarities turn the signs around. Missing pairs count as the mean.
    """
    pairs = rdms.reshape(-1, *rdms.shape[-2:]).astype(np.float64)
    with np.errstate(invalid="ignore"):
        mean = np.nansum(pairs, axis=0) / np.maximum(np.isfinite(pairs).sum(0), 1)
    first, second = np.triu_indices(len(mean), 1)
    measured = np.isfinite(pairs).sum(axis=0) > 0
    known = measured[first, second]
    if known.any():
        mean[~measured] = mean[first, second][known].mean()
    np.fill_diagonal(mean, 0.0)
    centred = mean - mean.mean(0) - mean.mean(1)[:, None] + mean.mean()
    values = np.linalg.eigvalsh(-centred / 2)
    return bool(-values[0] > values[-1])


def from_condensed(values: np.ndarray) -> np.ndarray:
    """(..., image, image) from the upper triangle in row order (..., pair), as scipy's squareform and rsatoolbox have it."""
    n_images = images_of_pairs(values.shape[-1])
    if n_images is None:
        raise InputError(f"condensed RDMs: n (n - 1) / 2 pairs of n images are needed, {values.shape[-1]} came")
    square = np.zeros((*values.shape[:-1], n_images, n_images), values.dtype)
    first, second = np.triu_indices(n_images, 1)
    square[..., first, second] = square[..., second, first] = values
    return square


def refuse_turned_pairs(shape: tuple[int, ...], name: str) -> None:
    """Raise `InputError` where condensed RDMs (subject, pair) look turned: more subjects than pairs, and as many as pairs."""
    turned = images_of_pairs(shape[0]) if len(shape) == 2 and shape[0] > shape[1] else None
    if turned is not None:
        raise InputError(
            f"{name}: {shape} came: {shape[0]} RDMs of {images_of_pairs(shape[1])} images, or {shape[1]} RDMs of {turned} "
            "images with the pairs on the first axis? Pairs stand on the last one; save square RDMs, (subject, image, image)"
        )


def images_of_pairs(n_pairs: int) -> int | None:
    """Of how many images (3 or more) these are all pairs; None where it is no such number.

    >>> images_of_pairs(91), images_of_pairs(90)
    (14, None)
    """
    n_images = (1 + math.isqrt(1 + 8 * n_pairs)) // 2
    return n_images if n_images >= 3 and n_images * (n_images - 1) // 2 == n_pairs else None


def _largest_at(values: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(values.argmax(), values.shape)))


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Dissimilarities(Shown):
    """RDMs of one or more measurements (targets) over the same images, with model RDMs to compare beside.

    targets: name -> SubjectRDMs, over the rows of `stimuli`. models: name -> (image, image), for confound rows. Without missing
    pairs. on_trust: what was joined by its order alone, because it holds no names -> how. parts: the sets of images that these
    were joined from (`joined_dissimilarities.join`), in the order of their images, whose pairs across sets are NaN; empty: one.
    simulated: the RDMs were planted, not measured. source: where they were opened from, as `--data` names it; empty for what
    was made in memory.
    """

    name: str
    stimuli: Stimuli
    targets: Mapping[str, SubjectRDMs]
    models: Mapping[str, np.ndarray] = field(default_factory=dict)
    simulated: bool = False
    on_trust: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    parts: Sequence["Dissimilarities"] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError(f"{self.name}: no RDMs of any subject")
        for target in self.targets.values():
            if not self.parts:
                require_all_pairs(target)
            if target.n_images != len(self.stimuli):
                raise InputError(
                    f"RDMs '{target.name}' are over {target.n_images} images, but there are {len(self.stimuli)} images"
                )
        for name, rdm in self.models.items():
            check_rdm(rdm, f"model RDM '{name}'")
            if len(rdm) != len(self.stimuli):
                raise InputError(f"model RDM '{name}' is over {len(rdm)} images, but there are {len(self.stimuli)} images")

    def _shown(self) -> tuple[str, dict[str, str]]:
        """A title and a few facts."""
        shown = {
            "RDMs": listed(f"{name} ({counted(len(target.subjects), 'subject')})" for name, target in self.targets.items()),
            "images": repr(self.stimuli),
            "sets": listed(part.name for part in self.parts),
            "model RDMs": listed(self.models),
            "on trust": listed(self.on_trust),
        }
        return f"Dissimilarities '{self.name}'{', SIMULATED' if self.simulated else ''}", shown

    def target(self, name: str) -> SubjectRDMs:
        """The RDMs of one measurement; `NotFoundError` names those that are there."""
        if name not in self.targets:
            raise NotFoundError(f"'{name}' is not one of the RDMs{suggest(name, list(self.targets))}")
        return self.targets[name]

    def fingerprint(self) -> str:
        """Changes when the images, their features or any RDM change."""
        parts: list[Any] = [self.name, tuple(self.stimuli.ids), tuple(self.stimuli.sources)]
        if self.stimuli.read_image is not None:
            parts += [self.stimuli.image(row) for row in range(len(self.stimuli))]
        for name, target in self.targets.items():
            parts += [name, tuple(target.subjects), np.asarray(target.rdms)]
        return fingerprint(*parts, *[values for _, values in sorted(self.stimuli.features.items())])
