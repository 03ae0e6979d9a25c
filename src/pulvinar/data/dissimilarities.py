"""Representational dissimilarity matrices (RDMs) of subjects, and of time points, over one list of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pulvinar.config import suggest
from pulvinar.data.stimuli import Stimuli
from pulvinar.errors import DegenerateError, InputError, NotFoundError
from pulvinar.storage import fingerprint

TOLERANCE = 1e-5  # of symmetry and of the zero diagonal, in units of the largest entry (float32 files)


@dataclass(frozen=True, kw_only=True, eq=False)
class SubjectRDMs:
    """What was measured at one place (an ROI, or a time window of MEG), in every subject.

    rdms: (subject, image, image), or (subject, time, image, image), symmetric, zero diagonal, finite, not negative on the
    whole (1 - Pearson r lies in [0, 2]; crossnobis may be negative). times: of MEG, in milliseconds from stimulus onset.
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
        for subject, rdms in zip(self.subjects, self.rdms, strict=True):
            check_rdm(rdms, f"RDMs '{self.name}' of {subject}")

    @property
    def n_images(self) -> int:
        """How many images the RDMs are over."""
        return self.rdms.shape[-1]


def check_rdm(rdm: np.ndarray, name: str) -> None:
    """Raise `InputError` or `DegenerateError`, naming the RDM (..., image, image) and the entry, if it cannot be one."""
    if rdm.ndim < 2 or rdm.shape[-1] != rdm.shape[-2]:
        raise InputError(f"{name}: a square matrix is needed, {rdm.shape} came")
    if rdm.shape[-1] < 3:
        raise InputError(f"{name}: 3 images or more are needed, {rdm.shape[-1]} came")
    if rdm.dtype.kind not in "biuf" or 0 in rdm.shape:
        raise InputError(f"{name}: numbers are needed, {rdm.dtype} of shape {rdm.shape} came")
    values = rdm.astype(np.float64)
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise InputError(f"{name}: {len(bad)} entries are not finite, the first at {tuple(map(int, bad[0]))}")
    allowed = TOLERANCE * np.abs(values).max()
    gap = np.abs(values - np.swapaxes(values, -1, -2))
    if gap.max() > allowed:
        raise InputError(f"{name}: not symmetric; entries differ by {gap.max():.3g} at {_largest_at(gap)}")
    diagonal = np.abs(np.diagonal(values, axis1=-2, axis2=-1))
    if diagonal.max() > allowed:
        raise InputError(
            f"{name}: the diagonal must be zero, its largest entry is {diagonal.max():.3g} (a similarity matrix? take 1 - r)"
        )
    upper = values[(..., *np.triu_indices(rdm.shape[-1], 1))]
    flat = np.argwhere(upper.std(axis=-1) <= TOLERANCE * np.abs(upper).max(axis=-1))
    if len(flat):
        place = f" at {tuple(map(int, flat[0]))}" if flat.shape[1] else ""
        raise DegenerateError(f"{name}{place}: all pairs have the same dissimilarity; nothing can be correlated with it")


def _largest_at(values: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.unravel_index(values.argmax(), values.shape)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Dissimilarities:
    """RDMs of one or more measurements (targets) over the same images, with model RDMs to compare beside.

    targets: name -> SubjectRDMs, over the rows of `stimuli`. models: name -> (image, image), for confound rows.
    simulated: the RDMs were planted, not measured.
    """

    name: str
    stimuli: Stimuli
    targets: Mapping[str, SubjectRDMs]
    models: Mapping[str, np.ndarray] = field(default_factory=dict)
    simulated: bool = False

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError(f"{self.name}: no RDMs of any subject")
        for target in self.targets.values():
            if target.n_images != len(self.stimuli):
                raise InputError(
                    f"RDMs '{target.name}' are over {target.n_images} images, but there are {len(self.stimuli)} images"
                )
        for name, rdm in self.models.items():
            check_rdm(rdm, f"model RDM '{name}'")
            if len(rdm) != len(self.stimuli):
                raise InputError(f"model RDM '{name}' is over {len(rdm)} images, but there are {len(self.stimuli)} images")

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
