"""Mean response of each voxel to each image, z-scored, read in blocks of voxels: what an encoding model is fitted to."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import warn
from pulvinar.core.sampling import blocks_of
from pulvinar.data.responses import Responses, VoxelCheck
from pulvinar.data.rois import missing_roi
from pulvinar.data.scaling import Mode, mean_and_sd, require_trials_per_session

TRIALS_PER_BLOCK = 512
HEMISPHERES = {"lh": "lh.", "rh": "rh."}  # prefixes of ROI names that say the hemisphere
FEW_VOXELS = 20


class ImageResponses:
    """Responses of one subject to some images: `read(voxels)` gives float32 (image, voxel), averaged over repeats.

    Trials are z-scored per voxel with the statistics of the training trials (`train_stats`) or of their session's non-test
    trials (`per_session`). ids: the images in order of first appearance. counts: trials averaged (image,).
    """

    def __init__(
        self,
        responses: Responses,
        stimulus_ids: Sequence[str],
        *,
        fit_trials: np.ndarray,
        scaling: Mode,
        statistics: dict[int, tuple[np.ndarray, np.ndarray]] | None = None,
    ) -> None:
        self.responses, self.scaling, self.fit_trials = responses, scaling, fit_trials
        self.trials = responses.trials_of(stimulus_ids)
        if not len(self.trials):
            raise InputError(
                f"responses of {responses.subject}: no trial shows one of the {len(stimulus_ids)} images asked for"
            )
        shown = [responses.stimulus_ids[trial] for trial in self.trials]
        self.ids = list(dict.fromkeys(shown))
        row_of = {name: row for row, name in enumerate(self.ids)}
        rows = np.array([row_of[name] for name in shown])
        self._rows, self.counts = rows, np.bincount(rows)
        places = (rows, np.arange(len(rows)))
        self._averaging = scipy.sparse.csc_array((1 / self.counts[rows], places), shape=(len(self.ids), len(rows)))
        if scaling == "per_session":
            require_trials_per_session(responses, self.trials, fit_trials=fit_trials)
        self.statistics = statistics_of(responses, fit_trials, scaling) if statistics is None else statistics

    def other(self, stimulus_ids: Sequence[str]) -> "ImageResponses":
        """Responses to other images (the test images), z-scored with the same statistics."""
        return ImageResponses(
            self.responses,
            stimulus_ids,
            fit_trials=self.fit_trials,
            scaling=self.scaling,
            statistics=self.statistics,
        )

    def read(self, voxels: np.ndarray) -> np.ndarray:
        """Mean z-scored responses float32 (image, voxel) of these voxels (indices)."""
        total = np.zeros((len(self.ids), len(voxels)), np.float32)
        for block in blocks_of(len(self.trials), TRIALS_PER_BLOCK):
            shown = np.unique(self._rows[block])  # the images of these trials; to others they add nothing
            total[shown] += self._averaging[:, block][shown] @ self.read_trials(voxels, block)
        return total

    def bytes_per_voxel(self) -> float:
        """What `read` needs of memory for a voxel, at most."""
        return 4 * len(self.ids) + 40 * min(TRIALS_PER_BLOCK, len(self.trials))

    def read_trials(self, voxels: np.ndarray, block: slice = slice(None)) -> np.ndarray:
        """z-scored single trials float32 (trial, voxel) of these voxels; `block` of `self.trials`."""
        trials = self.trials[block]
        values = self.responses.read(trials, voxels)
        sessions = self.responses.sessions[trials] if self.scaling == "per_session" else np.full(len(trials), -1)
        for session in np.unique(sessions):
            mean, sd = self.statistics[int(session)]
            spread = np.where(sd[voxels] > 0, sd[voxels], 1.0)
            rows = sessions == session
            values[rows] = (values[rows] - mean[voxels]) / spread
        return values


def statistics_of(
    responses: Responses, fit_trials: np.ndarray, scaling: Mode, *, check: VoxelCheck | None = None
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Session (-1 for all) -> mean and standard deviation of every voxel; one read of these trials, which `check` is shown."""
    if scaling == "train_stats":
        return {-1: mean_and_sd(responses, fit_trials, check=check)}
    sessions = responses.sessions[fit_trials]
    return {int(name): mean_and_sd(responses, fit_trials[sessions == name], check=check) for name in np.unique(sessions)}


def choose_voxels(responses: Responses, rois: Sequence[str] | None) -> np.ndarray:
    """Voxels (indices) in any of these ROIs; all for None. A name stands for itself, or for its lh. and rh. parts.

    Raises `NotFoundError` for a name that is not there and `InputError` for an empty choice; warns where an ROI is small.
    """
    if rois is None:
        return np.arange(responses.n_voxels)
    chosen = np.zeros(responses.n_voxels, bool)
    for name in rois:
        parts = (
            [name]
            if name in responses.rois
            else [mark + name for mark in HEMISPHERES.values() if mark + name in responses.rois]
        )
        if not parts:
            raise NotFoundError(missing_roi(responses.rois, name, responses.subject))
        mask = np.any([responses.rois[part] for part in parts], axis=0)
        warn_if_few(name, int(mask.sum()), responses.subject)
        chosen |= mask
    if not chosen.any():
        raise InputError(f"roi: {', '.join(rois)} of {responses.subject} have no voxel")
    return np.flatnonzero(chosen)


def warn_if_few(name: str, count: int, subject: str) -> None:
    """Say so where a mean over voxels rests on fewer than 20 (ours)."""
    if 0 < count < FEW_VOXELS:
        warn(f"ROI '{name}' of {subject} has {count} voxels; a mean over fewer than {FEW_VOXELS} says little")


def regions(responses: Responses, voxels: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """(ROI, hemisphere) -> which of these voxels are in it (bool), all of them as ('all', 'both') first; empty ones left out.

    The hemisphere is the prefix of the ROI's name (lh., rh.) or, where voxels have a place in a volume or on a mesh, the sign
    of x (left is negative); 'both' stands for the two together.
    """
    sides = _sides(responses, voxels)
    found = {("all", "both"): np.ones(len(voxels), bool)}
    found |= {("all", side): inside for side, inside in sides.items()}
    for name, mask in responses.rois.items():
        side = name[:2] if name[:3] in HEMISPHERES.values() else "both"
        plain, inside = (name if side == "both" else name[3:]), mask[voxels]
        found[plain, side] = inside
        if side == "both":
            found |= {(plain, half): inside & of_half for half, of_half in sides.items()}
        else:
            found[plain, "both"] = found.get((plain, "both"), False) | inside
    ordered = sorted(found, key=lambda key: (key[0] != "all", key[0], ("both", "lh", "rh").index(key[1])))
    return {key: found[key] for key in ordered if found[key].any()}


def _sides(responses: Responses, voxels: np.ndarray) -> dict[str, np.ndarray]:
    """Which voxels are left and right, if that can be told."""
    known = responses.geometry.side
    if known is not None:  # of every vertex, in an ROI or not
        return {side: known[voxels] == side for side in ("lh", "rh")}
    marked = {
        side: [mask for name, mask in responses.rois.items() if name.startswith(mark)] for side, mark in HEMISPHERES.items()
    }
    if all(marked.values()):
        return {side: np.any(masks, axis=0)[voxels] for side, masks in marked.items()}
    if responses.geometry.kind == "points":
        return {}
    x = responses.geometry.coordinates[voxels, 0]
    sides = {"lh": x < 0, "rh": x > 0}
    return sides if all(inside.any() for inside in sides.values()) else {}


def roi_groups(responses: Responses, voxels: np.ndarray) -> np.ndarray:
    """A number per voxel: voxels of the same ROIs share it (for a layer per ROI)."""
    masks = [mask[voxels] for mask in responses.rois.values()]
    if not masks:
        raise InputError(f"layer_choice=roi: {responses.subject} has no ROIs; choose voxel or single")
    return np.unique(np.stack(masks), axis=1, return_inverse=True)[1].reshape(-1)
