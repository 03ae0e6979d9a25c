"""Single-trial betas of one run by nilearn's general linear model.

    Y = X b + e,   X = [trial | other trials | other events | confounds | drift, constant]

`lss` (least squares separate, Mumford et al. 2012): a model for each trial, with one column for it alone and one for all other
trials; the beta of a trial is that of its own column. With others=by_type the other trials have a column for each of their
types, as in nilearn's example of beta series; with others=together a single one. `lsa` (least squares all): one model with a
column for every trial.

Columns come from nilearn (`compute_regressor`, `make_first_level_design_matrix`), projections from its `OLSModel`, and with
noise=ar1 the fit from its `run_glm`: betas are those of `FirstLevelModel(...).fit(design_matrices=...)`. By ordinary least
squares a beta is one row of the design's pseudoinverse times the series, so that a run costs one small decomposition for each
trial and a single product with the data.

nilearn samples regressors on a grid of the mean step of its frame times, which stretches the haemodynamic response where a run
paused. Designs are therefore made for a run without pauses, and the rows of the volumes that were acquired are taken.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar, warn
from pulvinar.core.sampling import blocks_of
from pulvinar.data.volume_times import VolumeTimes

if TYPE_CHECKING:  # loaded when a design is made
    import pandas as pd

Estimate = Literal["lss", "lsa"]
Hrf = Literal["glover", "spm", "glover + derivative", "spm + derivative"]
Drift = Literal["cosine", "polynomial", "none"]
VOXELS_AT_ONCE = 20_000  # float64 copies: 300 volumes of this many voxels are 48 MB
LEAST_SHARE = 0.1  # of a trial's regressor: where no volume sees more of its peak, the trial was not measured
OFF_GRID = 0.05  # shares of a step by which a volume may miss the grid of a run without pauses
LEAST_MEAN = 1.0  # nilearn divides by max(mean, 1): percent of a smaller mean is none


@dataclass(frozen=True, kw_only=True)
class TrialModel:
    """How betas are estimated; the names and values are nilearn's where it has them.

    high_pass_hz: of drift=cosine. drift_order: of drift=polynomial. percent: series in percent of each voxel's mean (nilearn's
    `signal_scaling=0`), else as they are.
    """

    estimate: Estimate = "lss"
    others: Literal["by_type", "together"] = "by_type"
    hrf: Hrf = "glover"
    drift: Drift = "cosine"
    high_pass_hz: float = 0.01
    drift_order: int = 1
    noise: Literal["ols", "ar1"] = "ols"
    percent: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class RunEvents:
    """The trials of a run: onsets and durations in s (trial,), types (trial,); and other events, type -> onsets, durations."""

    origin: str
    onsets: np.ndarray
    durations: np.ndarray
    types: Sequence[str]
    others: Mapping[str, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Design:
    """A model of a run: matrix (volume, column), and the columns that are trials, (trial, column)."""

    matrix: np.ndarray
    trials: Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class RunModel:
    """Everything that models of one run are made of. Rows are the volumes that are used.

    trials: a column or more for each trial [(volume, column), ...]; rest: other events, confounds, drift and constant
    (volume, column).
    """

    model: TrialModel
    events: RunEvents
    frame_times: np.ndarray
    rows: np.ndarray
    trials: Sequence[np.ndarray]
    rest: np.ndarray

    @property
    def n_trials(self) -> int:
        """How many trials the run has."""
        return len(self.trials)

    def designs(self) -> Iterator[Design]:
        """The designs of the run: one for each trial (`lss`), or one for all (`lsa`)."""
        if self.model.estimate == "lsa":
            widths = [own.shape[1] for own in self.trials]
            first = np.concatenate([[0], np.cumsum(widths)[:-1]]).tolist()
            yield Design(matrix=np.hstack([*self.trials, self.rest]), trials=list(enumerate(first)))
            return
        names = self.events.types if self.model.others == "by_type" else ["trial"] * self.n_trials
        members = {name: [trial for trial, own in enumerate(names) if own == name] for name in dict.fromkeys(names)}
        whole = {name: self._together(trials) for name, trials in members.items()}
        for trial, name in enumerate(names):
            left = [other for other in members[name] if other != trial]
            parts = [self._without(whole[name], trial, left), *(columns for key, columns in whole.items() if key != name)]
            matrix = np.hstack([self.trials[trial], *(part for part in parts if part is not None), self.rest])
            yield Design(matrix=matrix, trials=[(trial, 0)])

    def _without(self, whole: np.ndarray, trial: int, left: Sequence[int]) -> np.ndarray | None:
        """The columns of a type without one of its trials; None where no other is left."""
        if not left:
            return None
        if " + " not in self.model.hrf:
            return whole - self.trials[trial]  # one column, linear in the events
        return self._together(left)

    def _together(self, trials: Sequence[int]) -> np.ndarray:
        onsets, durations = self.events.onsets[list(trials)], self.events.durations[list(trials)]
        return regressors(onsets, durations, self.frame_times, self.model.hrf)[self.rows]


def regressors(onsets: np.ndarray, durations: np.ndarray, frame_times: np.ndarray, hrf: Hrf) -> np.ndarray:
    """nilearn's columns (volume, column) of events in s: convolved with the haemodynamic response, then its derivative if
    asked."""
    from nilearn.glm.first_level import compute_regressor

    values, _ = compute_regressor((onsets, durations, np.ones(len(onsets))), hrf, frame_times)
    return values


def run_model(
    model: TrialModel,
    events: RunEvents,
    times: VolumeTimes,
    *,
    confounds: "pd.DataFrame | None" = None,
    kept: np.ndarray | None = None,
) -> RunModel:
    """The models of a run's trials.

    confounds: a row for each volume. kept: volumes (indices) that are used; all without it.

    Raises `InputError` where volumes do not lie on a grid of one step.
    """
    from nilearn.glm.first_level import make_first_level_design_matrix

    frame_times, places = _grid(times, events.origin)
    used = np.arange(len(places)) if kept is None else np.asarray(kept)
    rows = places[used]
    trials = [
        regressors(events.onsets[[trial]], events.durations[[trial]], frame_times, model.hrf)[rows]
        for trial in range(len(events.onsets))
    ]
    drift = make_first_level_design_matrix(
        frame_times,
        drift_model=None if model.drift == "none" else model.drift,
        high_pass=model.high_pass_hz,
        drift_order=model.drift_order,
    )
    rest = [regressors(*given, frame_times, model.hrf)[rows] for given in events.others.values()]
    rest += [] if confounds is None else [confounds.to_numpy(float)[used]]
    return RunModel(
        model=model,
        events=events,
        frame_times=frame_times,
        rows=rows,
        trials=trials,
        rest=np.hstack([*rest, drift.to_numpy()[rows]]),
    )


def _grid(times: VolumeTimes, origin: str) -> tuple[np.ndarray, np.ndarray]:
    """Times of a run without pauses, s, and the place in it of every volume that was acquired."""
    start, step = float(times.times[0]), times.step
    if len(times.times) < 2 or step <= 0:
        raise InputError(f"{origin}: a run of {len(times.times)} volumes has no model; two or more are needed")
    exact = (times.times - start) / step
    places = np.rint(exact).astype(int)
    if np.abs(exact - places).max() > OFF_GRID:
        worst = int(np.abs(exact - places).argmax())
        raise InputError(
            f"{origin}: volume {worst} was acquired at {times.times[worst]:g} s, which is no multiple of {step:g} s after the "
            f"first: "
            "a model needs one step; estimate=window averages the volumes of a window instead"
        )
    return np.linspace(start, start + step * places[-1], int(places[-1]) + 1), places


def unmeasured_trials(run: RunModel) -> np.ndarray:
    """Trials (indices) of whose expected response no volume that is used has seen a tenth of the peak."""
    seen = np.array([np.abs(own[:, 0]).max(initial=0.0) for own in run.trials])
    duration = np.maximum(run.events.durations, run.frame_times[1] - run.frame_times[0])
    step = float(run.frame_times[1] - run.frame_times[0])
    peaks = {}
    for own in set(run.events.durations.tolist()):
        long = np.arange(0, own + 40 + step, step)
        peaks[own] = np.abs(regressors(np.zeros(1), np.array([own]), long, run.model.hrf)[:, 0]).max()
    peak = np.array([peaks[own] for own in run.events.durations.tolist()])
    return np.flatnonzero((seen < LEAST_SHARE * peak) | (duration <= 0))


def projections(run: RunModel) -> np.ndarray:
    """What a series is multiplied with to give its betas by ordinary least squares: (trial, volume).

    Row i is the row of the own column of trial i in the pseudoinverse of its design, nilearn's `OLSModel.calc_beta`. Raises
    `InputError` naming a trial whose response cannot be told from the other columns.
    """
    from nilearn.glm.regression import OLSModel

    out = np.empty((run.n_trials, len(run.rows)))
    for design in run.designs():
        solved = OLSModel(design.matrix).calc_beta
        for trial, column in design.trials:
            _require_estimable(run, design, trial, column, solved[column])
            out[trial] = solved[column]
    return out


def _require_estimable(run: RunModel, design: Design, trial: int, column: int, weights: np.ndarray) -> None:
    wanted = np.zeros(design.matrix.shape[1])
    wanted[column] = 1
    if np.abs(weights @ design.matrix - wanted).max() > 1e-4:
        n_volumes, n_columns = design.matrix.shape
        raise InputError(
            f"{run.events.origin}: the response to the trial at {run.events.onsets[trial]:g} s cannot be told from the rest "
            f"of the "
            f"model ({n_columns} columns for {n_volumes} volumes): "
            + ("estimate=lss, " if run.model.estimate == "lsa" else "")
            + "fewer confounds, a slower drift (high_pass_hz), or fewer other events"
        )


def betas(series: np.ndarray, run: RunModel, *, say: str = "betas") -> np.ndarray:
    """Betas float32 (trial, voxel) of series (volume, voxel) of the volumes that are used.

    A voxel that is constant or not finite, or whose mean is too small for percent, is NaN. say: what the progress is called.

    Raises `InputError` where the series have no mean to be percent of.
    """
    out = np.full((run.n_trials, series.shape[1]), np.nan, np.float32)
    good = _good_voxels(series, run)
    weights = projections(run) if run.model.noise == "ols" else None
    parts = list(blocks_of(len(good), VOXELS_AT_ONCE))
    steps = len(parts) * (1 if weights is not None else run.n_trials if run.model.estimate == "lss" else 1)
    with bar(say, steps) as shown:
        for part in parts:
            voxels = good[part]
            block = _scaled(series[:, voxels], run.model.percent)
            if weights is not None:
                out[:, voxels] = weights @ block
                shown.advance()
                continue
            for design in run.designs():
                own = np.array([trial for trial, _ in design.trials])
                out[np.ix_(own, voxels)] = _whitened(block, design, run.model.noise)
                shown.advance()
    return out


def _good_voxels(series: np.ndarray, run: RunModel) -> np.ndarray:
    finite = np.isfinite(series).all(0)
    good = finite & (series != series[0]).any(0)
    if run.model.percent:
        with np.errstate(invalid="ignore"):
            small = good & (np.mean(series, axis=0, dtype=np.float64) < LEAST_MEAN)
        if small.sum() > good.sum() / 2:
            raise InputError(
                f"{run.events.origin}: {int(small.sum())} of {int(good.sum())} voxels have a mean below {LEAST_MEAN:g}: the "
                f"series "
                "were centred or z-scored, and percent of the mean is none; scale=none takes them as they are"
            )
        good &= ~small
        if small.any():
            warn(f"{run.events.origin}: {int(small.sum())} voxels have a mean below {LEAST_MEAN:g}; their betas are NaN")
    return np.flatnonzero(good)


def _scaled(block: np.ndarray, percent: bool) -> np.ndarray:
    from nilearn.glm.first_level import mean_scaling

    block = block.astype(np.float64)
    return mean_scaling(block)[0] if percent else block


def _whitened(block: np.ndarray, design: Design, noise: str) -> np.ndarray:
    """Betas (trial, voxel) with nilearn's noise model."""
    from nilearn.glm.first_level import run_glm

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", category=RuntimeWarning)
        labels, results = run_glm(block, design.matrix, noise_model=noise)
    out = np.empty((len(design.trials), block.shape[1]))
    columns = [column for _, column in design.trials]
    for label, result in results.items():
        out[:, labels == label] = np.asarray(result.theta)[columns]
    return out
