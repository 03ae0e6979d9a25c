"""What a selector is: voxels of one subject, chosen from training trials. Each file of selectors/ exports one, SELECTOR.

It is at once a row in the table of every decoding run, a method (`pulvinar fit NAME`: its voxels, and a decoder on them) and a
`method` of `estimators.VoxelSelector`. Those that see an answer are rows only.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.sparse comes when it is used
from jaxtyping import Bool, Float, Float32, Int, Shaped

from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.geometry import Geometry
from pulvinar.data.responses import Responses
from pulvinar.selection.univariate import top_voxels

VOXELS_PER_BLOCK = 4096
LARGEST = 1e12  # stands for an infinite score


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What no selection may see: all trials of the subject, the candidates among its voxels (indices), a planted truth."""

    responses: Responses
    candidates: Int[np.ndarray, " voxel"]
    truth: Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Training trials of one subject on the voxels to choose from, and how many may be kept.

    responses: z-scored. targets: what was shown, an embedding or indicators of classes (`class_targets`); trials of equal
    `stimuli` have equal ones. labels: the class of a trial, where classes were shown. groups: trials of one are never on both
    sides of an inner split. sigma: width of the low-pass over neighbours, in voxel spacings; None: as the selector has it.
    rois, roi: the subject's ROIs on these voxels, and the one that is asked for. answers: for oracles.
    """

    responses: Float32[np.ndarray, "trial voxel"]
    targets: Float[np.ndarray, "trial target"]
    stimuli: Sequence[str] | Shaped[np.ndarray, " trial"]
    n_voxels: int
    seed: int
    groups: Sequence[str] | Shaped[np.ndarray, " trial"] | None = None
    labels: Shaped[np.ndarray, " trial"] | None = None
    geometry: Geometry | None = None
    sigma: float | None = None
    subject: str = "the subject"
    rois: Mapping[str, np.ndarray] = field(default_factory=dict)
    roi: str = "annotated"
    answers: Answers | None = None
    _made: dict[Callable[..., Any], Any] = field(default_factory=dict, repr=False)

    def low_pass(self, sigma: float) -> "scipy.sparse.csr_array":
        """Weights (voxel, voxel) of the average over neighbours; the identity where nobody knows where voxels are."""
        if self.geometry is None:
            return scipy.sparse.eye_array(self.responses.shape[1], format="csr")
        return self.geometry.low_pass(sigma)

    def once(self, make: "Callable[[Evidence], Any]") -> Any:
        """What `make` makes of this evidence, computed once for all selectors that ask."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]

    @property
    def known(self) -> Answers:
        """The answers, for oracles; `InputError` where none may be known."""
        if self.answers is None:
            raise InputError("an oracle: it sees answers, which a fit has not")
        return self.answers

    @cached_property
    def varying(self) -> Int[np.ndarray, " varying"]:
        """Voxels (indices) that are not constant over the trials."""
        varies = np.empty(self.responses.shape[1], bool)
        for columns in blocks_of(len(varies), VOXELS_PER_BLOCK):
            varies[columns] = (self.responses[:, columns] != self.responses[0, columns]).any(0)
        return np.flatnonzero(varies)

    def on_trials(self, trials: Int[np.ndarray, " taken"]) -> "Evidence":
        """Some of the trials (indices), for an inner split; without answers."""
        return replace(
            self,
            responses=self.responses[trials],
            targets=self.targets[trials],
            stimuli=np.asarray(self.stimuli)[trials],
            groups=None if self.groups is None else np.asarray(self.groups)[trials],
            labels=None if self.labels is None else self.labels[trials],
            answers=None,
            _made={},
        )

    def take(self, voxels: Int[np.ndarray, " taken"]) -> "Evidence":
        """The same on some voxels (indices), with no larger a budget than there are voxels."""
        if len(voxels) == self.responses.shape[1]:
            return self
        return replace(
            self,
            responses=self.responses[:, voxels],
            n_voxels=min(self.n_voxels, len(voxels)),
            geometry=None if self.geometry is None else self.geometry.take(voxels),
            rois={name: inside[voxels] for name, inside in self.rois.items()},
            answers=None if self.answers is None else replace(self.answers, candidates=self.answers.candidates[voxels]),
            _made={},
        )


class VoxelScores(NamedTuple):
    """Scores (voxel,) of which the largest are kept, and beside them, of a learned mask, weights, path and low-pass."""

    values: np.ndarray
    mask: np.ndarray | None = None
    path: tuple[Any, ...] = ()
    sigma: float = 0.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """The voxels that stay (voxel,) bool, and what they were chosen by, 0 where a voxel is constant."""

    kept: Bool[np.ndarray, " voxel"]
    scores: VoxelScores


def _nothing_missing(_: Evidence) -> str | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Selector:
    """A way to choose voxels. label, description: of its row in tables; the description may depend on the evidence.

    score(evidence): a score per voxel (an array, or `VoxelScores`), or of a selector `without_budget` the voxels themselves
    (bool); raises `InputError` or `DegenerateError` where there is none. missing(evidence): why there cannot be one, as far as
    it costs nothing to know. oracle: it sees the answers. planted: a row only where the truth is known. place: in tables;
    without one it stands behind those that have one, by its name, and adding it changes no number of theirs.
    """

    name: str
    label: str
    description: str | Callable[[Evidence], str]
    score: Callable[..., Any]
    missing: Callable[[Evidence], str | None] = _nothing_missing
    oracle: bool = False
    planted: bool = False
    without_budget: bool = False
    low_pass: bool = False
    place: int | None = None

    def select(self, evidence: Evidence, **options: Any) -> Selection:
        """The `n_voxels` voxels of the highest score, of equal ones the first; constant ones only when no other is left.

        options: of this selector's `score`.
        """
        n_voxels = evidence.responses.shape[1]
        if self.without_budget:
            kept = self.score(evidence, **options)
            return Selection(kept=kept, scores=VoxelScores(kept.astype(np.float64)))
        if not 1 <= evidence.n_voxels <= n_voxels:
            raise InputError(f"n_voxels: 1 to {n_voxels} can be selected, {evidence.n_voxels} came")
        varying, kept = evidence.varying, np.zeros(n_voxels, bool)
        found = VoxelScores(np.zeros(n_voxels))
        if len(varying):
            inside = evidence.take(varying)
            given = self.score(inside, **options)
            given = given if isinstance(given, VoxelScores) else VoxelScores(given)
            values = np.nan_to_num(given.values, posinf=LARGEST)
            kept[varying[top_voxels(values, inside.n_voxels)]] = True
            mask = None if given.mask is None else _spread(given.mask, varying, n_voxels)
            found = given._replace(values=_spread(values, varying, n_voxels), mask=mask)
        kept[np.flatnonzero(~kept)[: evidence.n_voxels - kept.sum()]] = True
        return Selection(kept=kept, scores=found)

    def described(self, evidence: Evidence) -> str:
        """The description of its row."""
        return self.description if isinstance(self.description, str) else self.description(evidence)


def _spread(values: np.ndarray, voxels: np.ndarray, n_voxels: int) -> np.ndarray:
    whole = np.zeros(n_voxels)
    whole[voxels] = values
    return whole
