"""Responses of a run's trials: betas by nilearn, or the mean of a window; computed when asked for, and kept in the cache."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import log, warn
from pulvinar.data.beta_cache import cached_values
from pulvinar.data.brain_files import Mask, Volume, read_grid, read_mask, read_volume, require_same_grid
from pulvinar.data.confounds import read_confounds
from pulvinar.data.fmriprep import MARGIN_S, detrended_zscores
from pulvinar.data.trial_glm import RunEvents, RunModel, betas, run_model, unmeasured_trials
from pulvinar.datasets.bids.runs import BidsRun
from pulvinar.datasets.bids.settings import Options


def common_mask(runs: Sequence[BidsRun], options: Options) -> Mask:
    """The voxels inside the brain masks of all runs, and inside the mask that is given; `InputError` where grids differ."""
    tolerance = options.affine_tolerance
    first = runs[0]
    masks = [
        read_mask(run.mask, tolerance=tolerance) if run.mask is not None else _computed_mask(run.bold, tolerance)
        for run in runs
    ]
    masks += [read_mask(options.mask, tolerance=tolerance)] if options.mask is not None else []
    for other in masks[1:]:
        require_same_grid(masks[0], other.path, other.inside.shape, other.affine)
    inside = np.logical_and.reduce([own.inside for own in masks])
    if not inside.any():
        raise InputError(f"{first.bold.parent}: no voxel is inside all of its {len(masks)} masks")
    for run in runs:
        require_same_grid(masks[0], run.bold, *read_grid(run.bold))
    return Mask(path=masks[0].path, inside=inside, affine=masks[0].affine, tolerance=tolerance)


def _computed_mask(bold: Path, tolerance: float) -> Mask:
    """nilearn's mask of a raw series: `compute_epi_mask` of its mean."""
    grid, affine = read_grid(bold)

    def compute() -> np.ndarray:
        from nilearn.masking import compute_epi_mask

        volume = read_volume(bold)
        stored = volume.stored if volume.stored.ndim == 4 else volume.stored[..., None]
        mean = sum(volume.scaled(stored[..., number]) for number in range(stored.shape[3])) / stored.shape[3]
        try:
            found: Any = compute_epi_mask(nibabel.Nifti1Image(np.asarray(mean, np.float32), volume.affine))
        except ValueError as error:
            raise InputError(
                f"{bold}: nilearn finds no brain in its mean: {' '.join(str(error).split())}; give mask=FILE"
            ) from error
        return np.asarray(found.dataobj).reshape(1, -1)

    shape = (1, int(np.prod(grid)))
    values = cached_values(compute, shape=shape, files=[bold], settings={"what": "compute_epi_mask"}, arrays=[])
    inside = np.asarray(values).reshape(grid) > 0
    if not inside.any():
        raise InputError(f"{bold}: nilearn finds no brain in its mean; give mask=FILE")
    return Mask(path=bold, inside=inside, affine=affine, tolerance=tolerance)


class RunEstimate:
    """The responses (trial, voxel) of one run; its model is made, and refused, when this is made."""

    def __init__(self, run: BidsRun, mask: Mask, options: Options, estimate: str) -> None:
        self.run, self.mask, self.options, self.estimate = run, mask, options, estimate
        self.model: RunModel | None = None
        self.windows: list[np.ndarray] = []
        self.kept = np.arange(len(run.times.times))
        if estimate == "window":
            self._open_windows()
        else:
            self._make_model()
        if not self.run.shown.names:
            raise InputError(f"{run.shown.path}: no trial is left that {run.bold.name} has measured")

    def _make_model(self) -> None:
        self.kept, confounds = self._confounds()
        self.model = run_model(self.options.model, self._events(), self.run.times, confounds=confounds, kept=self.kept)
        unmeasured = unmeasured_trials(self.model)
        if len(unmeasured):
            self._leave_out(
                unmeasured, "of their response no volume that is used has seen a tenth (a pause, or scrubbed volumes)"
            )
            self.model = run_model(self.options.model, self._events(), self.run.times, confounds=confounds, kept=self.kept)

    def _confounds(self) -> tuple[np.ndarray, Any]:
        found = read_confounds(self.run.bold, self.options.confounds_of, len(self.run.times.times))
        if not len(found.kept):
            raise InputError(f"{self.run.bold}: all volumes are scrubbed; raise fd_threshold_mm and std_dvars_threshold")
        return found.kept, found.table

    def _events(self) -> RunEvents:
        shown = self.run.shown
        return RunEvents(
            origin=str(shown.path),
            onsets=shown.onsets,
            durations=self.run.durations,
            types=[kind or "trial" for kind in (shown.names if self.run.labels_shown else shown.types)],
            others=self.run.others,
        )

    def _open_windows(self) -> None:
        shown, times = self.run.shown, self.run.times.times
        first, last = shown.onsets + self.options.window_from_s, shown.onsets + self.options.window_to_s
        within = (times >= first[:, None] - MARGIN_S) & (times <= last[:, None] + MARGIN_S)  # (trial, volume)
        if not within.any(1).all():
            self._leave_out(np.flatnonzero(~within.any(1)), "no volume was acquired in their window")
            within = within[within.any(1)]
        self.windows = [np.flatnonzero(own) for own in within]

    def _leave_out(self, trials: np.ndarray, why: str) -> None:
        run = self.run
        onsets = ", ".join(f"{onset:g}" for onset in run.shown.onsets[trials][:3])
        said = f"{run.shown.path}: {len(trials)} of {len(run.shown.names)} trials (onsets {onsets} s): {why}"
        if not self.options.drop_unmeasured_trials:
            raise InputError(f"{said}; drop_unmeasured_trials=true leaves them out")
        warn(f"{said}; they are left out")
        kept = np.setdiff1d(np.arange(len(run.shown.names)), trials)
        self.run = replace(run, shown=run.shown.take(kept), durations=run.durations[kept])

    def values(self) -> np.ndarray:
        """Responses float32 (trial, voxel), read-only, from the cache or computed now."""
        run, events = self.run, self._events()
        settings = {
            "subject_and_run": f"{run.bold.name}",
            "estimate": self.estimate,
            "model": asdict(self.options.model) if self.model else [self.options.window_from_s, self.options.window_to_s],
            "confounds": asdict(self.options.confounds_of),
            "smoothing_mm": self.options.smoothing_mm,
            "types": list(events.types),
            "nuisance": sorted(events.others),
        }
        others = [array for kind in sorted(events.others) for array in events.others[kind]]
        arrays = [events.onsets, run.durations, run.times.times, self.kept, np.packbits(self.mask.inside), *others]
        arrays += [] if self.model is None else [self.model.rest]
        return cached_values(
            self._compute,
            shape=(len(run.shown.names), self.mask.n_voxels),
            files=[run.bold],
            settings=settings,
            arrays=[*arrays, np.array(self.mask.inside.shape)],
        )

    def _compute(self) -> np.ndarray:
        run = self.run
        what = "mean of a window" if self.estimate == "window" else f"betas ({self.estimate})"
        log(f"{run.bold.name}: {what} of {len(run.shown.names)} trials, {self.mask.n_voxels} voxels")
        series = self._series()
        if self.model is not None:
            return betas(series[self.kept], self.model, say=f"betas of {run.bold.name}")
        cleaned = detrended_zscores(series)
        return np.stack([cleaned[volumes].mean(0) for volumes in self.windows])

    def _series(self) -> np.ndarray:
        """Series (volume, voxel) in the file's unit and precision, smoothed where that is asked for."""
        volume, fwhm_mm = read_volume(self.run.bold), self.options.smoothing_mm
        require_same_grid(self.mask, volume.path, volume.grid, volume.affine)
        stored = volume.stored if volume.stored.ndim == 4 else volume.stored[..., None]
        if fwhm_mm is not None:
            return np.stack(
                [_smoothed(volume, stored[..., number], fwhm_mm)[self.mask.inside] for number in range(stored.shape[3])]
            )
        return _in_unit(volume, np.ascontiguousarray(stored[self.mask.inside].T))  # (voxel, volume) -> (volume, voxel)


def _in_unit(volume: Volume, stored: np.ndarray) -> np.ndarray:
    """Stored values as nilearn has them: as they are without slope and intercept, else float64."""
    return (
        stored
        if (volume.slope, volume.intercept) == (1.0, 0.0)
        else stored.astype(np.float64) * volume.slope + volume.intercept
    )


def _smoothed(volume: Volume, stored: np.ndarray, fwhm_mm: float) -> np.ndarray:
    """nilearn's `smooth_img` of one volume, as its maskers smooth before they mask."""
    from nilearn.image import smooth_img

    values = _in_unit(volume, stored)
    values = values.astype(np.float32) if values.dtype.kind in "biu" else values
    return np.asarray(smooth_img(nibabel.Nifti1Image(values, volume.affine), fwhm_mm).dataobj)
