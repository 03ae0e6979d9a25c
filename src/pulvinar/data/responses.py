"""What the voxels of one subject did on each trial, and how trials relate to stimuli."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.notebook import counted, listed
from pulvinar.core.sampling import blocks_of
from pulvinar.data.geometry import Geometry
from pulvinar.data.rois import ROIs
from pulvinar.data.session_values import SessionValues

VALUE_TYPES = (np.float32, np.int16)


@dataclass(frozen=True, kw_only=True, eq=False)
class Responses:
    """Responses (trial, voxel) of one subject, often a read-only memory map.

    values: float32, or int16 to be multiplied by `scale` (NSD: 1/300). stimulus_ids: one id per trial; a repeated id is a
    repeat. sessions, runs: integers per trial. noise_ceiling: released r^2 ceiling per voxel in [0, 1], if there is one.
    """

    subject: str
    values: np.ndarray
    stimulus_ids: Sequence[str]
    geometry: Geometry
    scale: float = 1.0
    sessions: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    runs: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    rois: ROIs = field(default_factory=lambda: ROIs({}, n_voxels=0))
    noise_ceiling: np.ndarray | None = None

    def __post_init__(self) -> None:
        who = f"responses of {self.subject}"
        if self.values.ndim != 2 or self.values.dtype not in VALUE_TYPES:
            raise InputError(f"{who}: (trial, voxel) float32 or int16 is needed, {self.values.dtype} {self.values.shape} came")
        if 0 in self.values.shape:
            raise InputError(f"{who}: one trial and one voxel or more are needed, shape {self.values.shape} came")
        n_trials, n_voxels = self.values.shape
        if len(self.stimulus_ids) != n_trials:
            raise InputError(
                f"responses and stimuli do not match: {n_trials} trials but {len(self.stimulus_ids)} stimulus ids "
                f"({self.subject}). Each trial needs one id."
            )
        if self.geometry.n_voxels != n_voxels:
            raise InputError(f"{who}: {n_voxels} voxels, but the geometry has {self.geometry.n_voxels}")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"{who}: scale must be a positive number, {self.scale} came")
        for name in ("sessions", "runs"):
            object.__setattr__(self, name, self._whole_numbers(name, n_trials))
        for name, mask in self.rois.items():
            if len(mask) != n_voxels:
                raise InputError(f"{who}: ROI '{name}' has {len(mask)} entries for {n_voxels} voxels")
        if self.noise_ceiling is not None and np.shape(self.noise_ceiling) != (n_voxels,):
            raise InputError(f"{who}: noise_ceiling has shape {np.shape(self.noise_ceiling)} for {n_voxels} voxels")

    def _whole_numbers(self, name: str, n_trials: int) -> np.ndarray:
        """Sessions or runs as int64 (trial,); zeros if none came."""
        given = np.asarray(getattr(self, name))
        if given.size == 0:
            return np.zeros(n_trials, np.int64)
        if given.shape != (n_trials,):
            raise InputError(f"responses of {self.subject}: {name} of shape {given.shape} for {n_trials} trials")
        if given.dtype.kind not in "iuf" or (given != np.floor(given)).any():
            raise InputError(f"responses of {self.subject}: {name} must be whole numbers, {given[:3].tolist()} came")
        return given.astype(np.int64)

    def __repr__(self) -> str:
        size = f"{counted(self.n_trials, 'trial')} x {counted(self.n_voxels, 'voxel')}"
        rois = f"; ROIs {listed(self.rois)}" if len(self.rois) else ""
        return f"Responses of {self.subject}: {size}, {self.values.dtype}, {self.geometry.kind}{rois}"

    @property
    def n_trials(self) -> int:
        """How many presentations."""
        return self.values.shape[0]

    @property
    def n_voxels(self) -> int:
        """How many voxels."""
        return self.values.shape[1]

    def read(self, trials: np.ndarray, voxels: np.ndarray | None = None) -> np.ndarray:
        """Responses of some trials (and voxels) in memory: float32 (trial, voxel), scale applied."""
        mapped = isinstance(self.values, np.ndarray)  # else sessions, which are read whole
        if voxels is None:
            block = self.values[trials]
        else:
            block = self.values[np.ix_(trials, voxels)] if mapped else self.values[trials][:, voxels]
        memory.release(self.values)
        block = np.asarray(block).astype(np.float32)
        return np.multiply(block, np.float32(self.scale), out=block) if self.scale != 1.0 else block

    def bad_voxels(self, trials: np.ndarray) -> np.ndarray:
        """Voxels (indices) that are constant, NaN or infinite over these trials."""
        if not len(trials):
            raise InputError(f"responses of {self.subject}: no trials to look for bad voxels in")
        check = VoxelCheck(self.n_voxels)
        for block in blocks_of(len(trials), self.trials_at_once()):
            check.see(self.read(trials[block]))
        return check.bad

    def trials_at_once(self, most: int = 64, *, copies: int = 2) -> int:
        """How many trials of all voxels are read at a time: as many as memory allows, with so many float32 copies of each."""
        each = self.n_voxels * (self.values.dtype.itemsize + 4 * copies)
        return memory.block_size(each, most=most, what=f"a trial of {self.subject}")

    def require_good_voxels(self, trials: np.ndarray) -> None:
        """Raise `DegenerateError` that names the bad voxels, if there are any."""
        bad = self.bad_voxels(trials)
        if len(bad):
            more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
            raise DegenerateError(
                f"responses of {self.subject}: {len(bad)} voxels are constant, NaN or infinite over the {len(trials)} "
                f"trials in use: {bad[:5].tolist()}{more}. Drop them with drop_bad_voxels=true."
            )

    def not_finite_voxels(self, trials: np.ndarray, voxels: np.ndarray | None = None) -> np.ndarray:
        """Voxels (indices; of `voxels`, where they are given) that are NaN or infinite in any of these trials."""
        finite = np.ones(self.n_voxels if voxels is None else len(voxels), bool)
        for block in blocks_of(len(trials), self.trials_at_once()):
            finite &= np.isfinite(self.read(trials[block], voxels)).all(0)
        return np.flatnonzero(~finite)

    def require_finite_voxels(self, trials: np.ndarray, voxels: np.ndarray | None = None) -> None:
        """Raise `DegenerateError` that names the voxels that are NaN or infinite in these trials, if there are any."""
        bad = self.not_finite_voxels(trials, voxels)
        if len(bad):
            raise DegenerateError(
                f"responses of {self.subject}: {len(bad)} voxels are NaN or infinite in the {len(trials)} test trials: "
                f"{bad[:5].tolist()}. Drop them with drop_bad_voxels=true."
            )

    def take_voxels(self, voxels: np.ndarray) -> "Responses":
        """The same trials on some voxels (indices), in memory or, where that is short, in a scratch file."""
        mapped = isinstance(self.values, np.ndarray)
        values = memory.take_columns(self.values, voxels) if mapped else np.ascontiguousarray(self.values[:, voxels])
        return replace(self, values=values, **self._about(voxels))

    def take_trials(self, trials: np.ndarray, voxels: np.ndarray | None = None) -> "Responses":
        """These trials (indices, in their order), on some voxels (indices), as float32, each read once; in memory or, where
        that is short, in a scratch file."""
        size = self.n_voxels if voxels is None else len(voxels)
        values = memory.empty((len(trials), size), np.float32)
        for block in self._blocks(trials):
            values[block] = self.read(trials[block], voxels)
            memory.release(values)
        return replace(
            self,
            values=values,
            scale=1.0,
            stimulus_ids=[self.stimulus_ids[trial] for trial in trials],
            sessions=self.sessions[trials],
            runs=self.runs[trials],
            **({} if voxels is None else self._about(voxels)),
        )

    def _about(self, voxels: np.ndarray) -> dict[str, Any]:
        """What is known of these voxels."""
        return {
            "geometry": self.geometry.take(voxels),
            "rois": ROIs({name: mask[voxels] for name, mask in self.rois.items()}, n_voxels=len(voxels)),
            "noise_ceiling": None if self.noise_ceiling is None else self.noise_ceiling[voxels],
        }

    def _blocks(self, trials: np.ndarray) -> list[slice]:
        """Some of these trials at a time; those of a session together where a session can only be read whole."""
        if not isinstance(self.values, SessionValues):
            return blocks_of(len(trials), self.trials_at_once())
        ends = [*np.flatnonzero(np.diff(self.sessions[trials])) + 1, len(trials)]
        return [slice(start, end) for start, end in zip([0, *ends], ends, strict=False) if end > start]

    def trials_of(self, stimulus_ids: Sequence[str]) -> np.ndarray:
        """Indices of the trials that showed any of these stimuli, in order."""
        wanted = set(stimulus_ids)
        return np.array([trial for trial, name in enumerate(self.stimulus_ids) if name in wanted], dtype=np.int64)


class VoxelCheck:
    """Which voxels are constant, NaN or infinite over all trials that are shown to it, some at a time."""

    def __init__(self, n_voxels: int) -> None:
        self._first: np.ndarray | None = None
        self._constant, self._finite = np.ones(n_voxels, bool), np.ones(n_voxels, bool)

    def see(self, block: np.ndarray) -> None:
        """More trials (trial, voxel)."""
        self._first = block[0].copy() if self._first is None else self._first
        self._finite &= np.isfinite(block).all(0)
        self._constant &= (block == self._first).all(0)

    @property
    def bad(self) -> np.ndarray:
        """These voxels (indices)."""
        return np.flatnonzero(self._constant | ~self._finite)


def mean_over_repeats(values: np.ndarray, stimulus_ids: Sequence[str]) -> tuple[np.ndarray, list[str], np.ndarray]:
    """Average the trials of each stimulus: values (stimulus, ...), ids in order of first appearance, counts (stimulus,).

    Means of whole numbers are float64; of floating numbers they keep the type.
    """
    if len(values) != len(stimulus_ids) or not len(values):
        raise InputError(
            f"values and stimulus_ids do not match: {len(values)} and {len(stimulus_ids)} trials; each needs an id"
        )
    order = {name: row for row, name in enumerate(dict.fromkeys(stimulus_ids))}
    row = np.array([order[name] for name in stimulus_ids], dtype=np.int64)
    count = np.bincount(row, minlength=len(order))
    total = np.zeros((len(order), *values.shape[1:]), dtype=np.float64)
    np.add.at(total, row, values)
    mean = total / count.reshape(-1, *[1] * (values.ndim - 1))
    return mean.astype(values.dtype if values.dtype.kind == "f" else np.float64), list(order), count
