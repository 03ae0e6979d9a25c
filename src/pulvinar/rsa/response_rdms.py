"""RDMs of measured responses: one for each subject and ROI, over the images that all of these subjects saw.

An image is the mean over its trials (correlation, euclidean), or its trials in different folds are multiplied (crossnobis), so
that the noise of a trial is never multiplied with itself. Folds are runs, sessions or single trials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch

from pulvinar.core.config import suggest
from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.core.progress import log, track
from pulvinar.data.dissimilarities import SubjectRDMs
from pulvinar.data.experiment import Experiment
from pulvinar.data.responses import Responses, VoxelCheck
from pulvinar.data.rois import missing_roi
from pulvinar.scores.noise_covariance import condition_means, noise_precision, noise_variance, residuals_of
from pulvinar.scores.rdm import correlation_rdm, crossnobis_rdm, euclidean_rdm, expand

Distance = Literal["crossnobis", "correlation", "euclidean"]
Folds = Literal["runs", "sessions", "trials"]
Noise = Literal["shrinkage_diag", "shrinkage_eye", "diag", "none"]
Scaling = Literal["none", "runs", "sessions"]
Images = Literal["all", "train", "test"]
DISTANCES, FOLDS, NOISE, SCALINGS, IMAGES = map(get_args, (Distance, Folds, Noise, Scaling, Images))
ALL_VOXELS = "all"  # the name of the RDMs of every voxel
FEWEST_IMAGES = 3
FEW_TRIALS = 20  # of a fold, whose mean then holds much of its own images (ours)
MOST_VOXELS = 10_000  # of a noise covariance: 5 GB, and a minute or two
TRIALS_PER_READ = 64


@dataclass(frozen=True, kw_only=True)
class RDMSettings:
    """How responses become RDMs; `InputError` for a choice that is none, or for two that do not go together.

    distance: crossnobis (cross-validated, weighed by the noise), correlation (1 - r of mean patterns), euclidean (root mean
    square difference of mean patterns). folds: None takes runs, or sessions, or trials, the first of which there are two or
    more. noise: `noise_precision`'s method, diag (variances alone) or none (voxels count alike). zscore: of each voxel over the
    trials of a run or session, before anything else. images: all, or those for training or test.
    """

    distance: str = "crossnobis"
    folds: str | None = None
    noise: str | None = None
    zscore: str = "none"
    images: str = "all"
    drop_bad_voxels: bool = False

    def __post_init__(self) -> None:
        choices = {"distance": DISTANCES, "folds": FOLDS, "noise": NOISE, "zscore": SCALINGS, "images": IMAGES}
        for name, fitting in choices.items():
            given = getattr(self, name)
            if given is not None and given not in fitting:
                raise InputError(f"{name}: one of {', '.join(fitting)} fits, '{given}' came{suggest(given, list(fitting))}")
        if not self.crossed and (self.folds is not None or self.noise is not None):
            raise InputError(f"folds and noise are of crossnobis; {self.distance} is neither cross-validated nor weighed")

    @property
    def crossed(self) -> bool:
        """Whether the distance is cross-validated."""
        return self.distance == "crossnobis"

    @property
    def measure(self) -> str:
        """What the distances are, as a file of RDMs says it."""
        return {"correlation": "correlation", "euclidean": "euclidean (root mean square)"}.get(self.distance, self.distance)


@dataclass(frozen=True, kw_only=True, eq=False)
class BuiltRDMs:
    """RDMs by ROI over the images `ids`. made_from: settings, and for each subject trials, folds and voxels.

    cautions: what a reader of these RDMs should know.
    """

    ids: tuple[str, ...]
    targets: Mapping[str, SubjectRDMs]
    made_from: Mapping[str, Any]
    cautions: tuple[str, ...]


def build_rdms(
    experiment: Experiment,
    *,
    roi: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    settings: RDMSettings | None = None,
) -> BuiltRDMs:
    """RDMs of some subjects (None: all) in some ROIs (None: all voxels, as 'all'), over the images that each of them can give.

    Raises `NotFoundError` naming what there is for an unknown subject or ROI, `InputError` where fewer than three images are
    left (crossnobis: shown in two folds) with the number that each subject has, `DegenerateError` for bad voxels.
    """
    settings = settings or RDMSettings()
    chosen = [_subject(experiment, name) for name in subjects or experiment.subjects]
    regions = {responses.subject: _regions(responses, roi) for responses in chosen}
    folds = {responses.subject: _Folds.of(responses, settings) for responses in chosen}
    ids = _common_images(experiment, folds, settings)
    found: dict[str, list[np.ndarray]] = {name: [] for name in regions[chosen[0].subject]}
    about: dict[str, dict[str, Any]] = {}
    for responses in chosen:
        own = folds[responses.subject]
        patterns = _Patterns.read(responses, own, ids, regions[responses.subject], settings)
        about[responses.subject] = {**own.facts(patterns.trials), **patterns.facts()}
        for name, mask in regions[responses.subject].items():
            found[name].append(patterns.rdm(mask, settings, f"{responses.subject}, '{name}'"))
    names = tuple(responses.subject for responses in chosen)
    targets = {name: SubjectRDMs(name=name, rdms=np.stack(rdms), subjects=names) for name, rdms in found.items()}
    made_from = {"data": experiment.name, **settings.__dict__, "subjects": about}
    return BuiltRDMs(ids=tuple(ids), targets=targets, made_from=made_from, cautions=tuple(_cautions(settings, about)))


def _subject(experiment: Experiment, name: str) -> Responses:
    if name not in experiment.subjects:
        raise NotFoundError(f"subject: no subject named '{name}'{suggest(name, list(experiment.subjects))}")
    return experiment.subjects[name]


def _regions(responses: Responses, roi: Sequence[str] | None) -> dict[str, np.ndarray]:
    """Name -> mask (voxel,) of the ROIs asked for, none of them empty; every voxel where none is asked for."""
    if not roi:
        return {ALL_VOXELS: np.ones(responses.n_voxels, bool)}
    found = {}
    for name in roi:
        if name not in responses.rois:
            present = missing_roi(responses.rois, name, responses.subject).partition("; choose one")[0]
            raise NotFoundError(f"{present}. Name one of them with --roi, or leave it out for all voxels")
        found[name] = responses.rois[name]
        if not found[name].any():
            raise InputError(f"roi: '{name}' of {responses.subject} has no voxel")
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class _Folds:
    """What the trials of a subject are cross-validated over: fold (trial,), from 0; none where the distance needs none."""

    subject: str
    kind: str | None
    fold: np.ndarray
    run: np.ndarray
    session: np.ndarray
    stimulus_ids: Sequence[str]

    @classmethod
    def of(cls, responses: Responses, settings: RDMSettings) -> "_Folds":
        session = np.unique(responses.sessions, return_inverse=True)[1].reshape(-1)
        run = np.unique(np.stack([session, responses.runs]), axis=1, return_inverse=True)[1].reshape(-1)
        kinds = {"runs": run, "sessions": session, "trials": np.arange(responses.n_trials)}
        several = [kind for kind, fold in kinds.items() if fold.max() > 0]
        if not several:
            raise InputError(f"responses of {responses.subject}: a single trial; there is nothing to compare")
        if settings.folds is not None and settings.folds not in several:
            raise InputError(
                f"folds: {responses.subject} has one of {settings.folds}; there are several {' and '.join(several)}"
            )
        kind = (settings.folds or several[0]) if settings.crossed else None
        fold = kinds[kind] if kind else np.zeros(responses.n_trials, np.int64)
        return cls(
            subject=responses.subject, kind=kind, fold=fold, run=run, session=session, stimulus_ids=responses.stimulus_ids
        )

    def usable(self) -> set[str]:
        """Images that have a distance: shown, or where folds count, in two of them or more."""
        if self.kind is None:
            return set(self.stimulus_ids)
        seen: dict[str, int] = {}
        return {name for name, fold in zip(self.stimulus_ids, self.fold, strict=True) if seen.setdefault(name, fold) != fold}

    def centre(self) -> np.ndarray | None:
        """Groups of trials (trial,) whose mean pattern is taken off; of single trials as folds, their sessions."""
        return None if self.kind is None else self.session if self.kind == "trials" else self.fold

    def facts(self, trials: np.ndarray) -> dict[str, Any]:
        """How many trials, repeats and folds, and whether every fold has every image as often."""
        names = np.unique(np.array([self.stimulus_ids[trial] for trial in trials]), return_inverse=True)[1].reshape(-1)
        repeats = np.bincount(names)
        facts: dict[str, Any] = {
            "n_trials": len(trials),
            "repeats": [int(repeats.min()), int(repeats.max())],
            "folds": self.kind,
        }
        group = self.centre()
        if group is not None:
            present, own = np.unique(self.fold[trials], return_inverse=True)
            often = np.unique(own.reshape(-1) * len(repeats) + names, return_counts=True)[1]
            every = len(often) == len(present) * len(repeats)
            facts |= {"n_folds": len(present), "balanced": bool(every and (often == often[0]).all())}
            facts["smallest_fold"] = int(np.bincount(group)[np.unique(group[trials])].min())
        return facts


def _common_images(experiment: Experiment, folds: Mapping[str, _Folds], settings: RDMSettings) -> list[str]:
    """The images of every subject that are asked for and have a distance, in the order of the stimuli."""
    split = experiment.split
    asked = {"all": set(experiment.stimuli.ids), "train": set(split.train), "test": set(split.test)}[settings.images]
    usable = {name: own.usable() & asked for name, own in folds.items()}
    common = set.intersection(*usable.values())
    shown = set.union(*[set(own.stimulus_ids) for own in folds.values()]) & asked
    if len(common) < FEWEST_IMAGES:
        kinds = sorted({own.kind for own in folds.values() if own.kind})
        why = f"images shown in two {' or '.join(kinds)} or more" if settings.crossed else "images"
        each = ", ".join(f"{name} {len(ids)}" for name, ids in usable.items())
        hints = ["fewer subjects (--subject)"] if len(folds) > 1 and max(map(len, usable.values())) >= FEWEST_IMAGES else []
        again = any(len(set(own.stimulus_ids)) < len(own.stimulus_ids) for own in folds.values())
        hints += ["--folds trials"] if settings.crossed and again and "trials" not in kinds else []
        hints += ["--distance correlation, which needs no repeats"] if settings.crossed else []
        raise InputError(
            f"RDMs: {FEWEST_IMAGES} {why} in every subject are needed, {len(common)} are there ({each}; of {len(shown)} images"
            f" asked for)" + (f". Try {', or '.join(hints)}" if hints else "")
        )
    if len(common) < len(shown):
        what = "are not shown to every subject in two folds or more" if settings.crossed else "are not shown to every subject"
        log(f"RDMs of {len(common):,} images; {len(shown) - len(common):,} others {what}")
    return [name for name in experiment.stimuli.ids if name in common]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Patterns:
    """Single trials of a subject, float32 (trial, voxel), of the voxels (indices) of all ROIs; code: the image of each."""

    values: np.ndarray
    voxels: np.ndarray
    code: np.ndarray
    fold: np.ndarray
    trials: np.ndarray
    n_dropped: int

    @classmethod
    def read(
        cls,
        responses: Responses,
        folds: _Folds,
        ids: Sequence[str],
        regions: Mapping[str, np.ndarray],
        settings: RDMSettings,
    ) -> "_Patterns":
        """Trials of these images, z-scored and less the mean of their fold, as the settings ask."""
        voxels = np.flatnonzero(np.any(list(regions.values()), axis=0))
        trials, place = responses.trials_of(ids), {name: row for row, name in enumerate(ids)}
        values, bad = _read_scaled(responses, trials, voxels, folds, settings)
        if len(bad) and not settings.drop_bad_voxels:
            raise DegenerateError(
                f"responses of {responses.subject}: {len(bad)} of {len(voxels)} voxels are constant, NaN or infinite: "
                f"{voxels[bad][:5].tolist()}. Leave them out with --drop-bad-voxels"
            )
        if len(bad):
            log(f"{responses.subject}: {len(bad)} of {len(voxels)} voxels are constant, NaN or infinite and left out")
            values, voxels = np.delete(values, bad, axis=1), np.delete(voxels, bad)
        code = np.array([place[responses.stimulus_ids[trial]] for trial in trials])
        return cls(
            values=values, voxels=voxels, code=code, fold=folds.fold[trials], trials=trials, n_dropped=len(bad)
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """How many voxels, and how many were left out."""
        return {"n_voxels": len(self.voxels), "n_bad_voxels_dropped": self.n_dropped}

    def rdm(self, mask: np.ndarray, settings: RDMSettings, who: str) -> np.ndarray:
        """float32 (image, image) of the voxels of one ROI; errors name it."""
        values = self.values[:, mask[self.voxels]]
        if not values.shape[1]:
            raise DegenerateError(f"{who}: no voxel is left")
        try:
            condensed = self._crossnobis(values, settings) if settings.crossed else _of_means(values, self.code, settings)
        except (InputError, DegenerateError) as error:
            raise type(error)(f"{who}: {error}") from error
        return expand(condensed).float().numpy()

    def _crossnobis(self, values: np.ndarray, settings: RDMSettings) -> torch.Tensor:
        noise, precision = settings.noise or "shrinkage_diag", None
        if noise.startswith("shrinkage") and values.shape[1] > MOST_VOXELS:
            raise InputError(
                f"noise: {values.shape[1]:,} voxels; a noise covariance of up to {MOST_VOXELS:,} is estimated. Choose an ROI "
                "with --roi, or --noise diag"
            )
        if noise != "none":
            residuals, n_free = residuals_of(values, self.code)
            if noise == "diag":
                values = values / np.sqrt(noise_variance(residuals, n_free=n_free))
            else:
                precision = torch.from_numpy(noise_precision(residuals, n_free=n_free, method=noise))
        return crossnobis_rdm(torch.from_numpy(values.astype(np.float64)), self.code, self.fold, precision)


def _of_means(values: np.ndarray, code: np.ndarray, settings: RDMSettings) -> torch.Tensor:
    means = torch.from_numpy(condition_means(values, code)[0])
    return correlation_rdm(means) if settings.distance == "correlation" else euclidean_rdm(means)


def _read_scaled(
    responses: Responses, trials: np.ndarray, voxels: np.ndarray, folds: _Folds, settings: RDMSettings
) -> tuple[np.ndarray, np.ndarray]:
    """float32 (trial, voxel) of these trials and voxels, scaled; and which of the voxels (places) are bad.

    Means and spreads are over all trials of a group, also of images that are not asked for; one pass over the file. Where a
    z-scored session is centred on its runs too, the mean is that of the run.
    """
    centre, spread = folds.centre(), {"runs": folds.run, "sessions": folds.session}.get(settings.zscore)
    finest = max((group for group in (centre, spread) if group is not None), key=lambda group: int(group.max()), default=None)
    needed = trials if finest is None else np.arange(responses.n_trials)
    row_of = np.full(responses.n_trials, -1)
    row_of[trials] = np.arange(len(trials))
    values: np.ndarray = np.empty((len(trials), len(voxels)), np.float32)
    check = VoxelCheck(len(voxels))
    means = None if finest is None else _Moments(finest, len(voxels))
    spreads = None if spread is None else _Moments(spread, len(voxels))
    starts = range(0, len(needed), TRIALS_PER_READ)
    for start in track(starts, f"responses of {responses.subject}", len(starts)):
        some = needed[start : start + TRIALS_PER_READ]
        block, kept = responses.read(some, voxels), row_of[some] >= 0
        values[row_of[some[kept]]] = block[kept]
        if kept.any():
            check.see(block[kept])
        for found in (means, spreads):
            if found is not None:
                found.see(block, some)
    with np.errstate(invalid="ignore", divide="ignore"):  # what comes of it is not finite, and said
        if means is not None:
            values -= means.mean()[means.group[trials]]
        if spreads is not None:
            values /= spreads.sd()[spreads.group[trials]]
    return values, np.union1d(check.bad, np.flatnonzero(~np.isfinite(values).all(0))).astype(np.int64)


class _Moments:
    """Mean and standard deviation (group, voxel) of the trials of each group, shown in blocks."""

    def __init__(self, group: np.ndarray, n_voxels: int) -> None:
        self.group, shape = group, (int(group.max()) + 1, n_voxels)
        self._count, self._sum, self._square = np.bincount(group)[:, None], np.zeros(shape), np.zeros(shape)

    def see(self, block: np.ndarray, trials: np.ndarray) -> None:
        """Some trials (numbers) and their values."""
        np.add.at(self._sum, self.group[trials], block)
        np.add.at(self._square, self.group[trials], np.square(block, dtype=np.float64))

    def mean(self) -> np.ndarray:
        """float32 (group, voxel)."""
        return (self._sum / self._count).astype(np.float32)

    def sd(self) -> np.ndarray:
        """float32 (group, voxel), of the population."""
        variance = self._square / self._count - np.square(self._sum / self._count)
        return np.sqrt(np.maximum(variance, 0)).astype(np.float32)


def _cautions(settings: RDMSettings, about: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes these distances mean less than they seem to."""
    found = []
    uneven = [name for name, facts in about.items() if facts["repeats"][0] != facts["repeats"][1]]
    if not settings.crossed:
        found.append(f"{settings.distance} is not cross-validated: noise adds to every distance")
        if uneven:
            found.append(
                f"repeats differ between images ({_spans(about, uneven)}): distances of images shown less often are larger by "
                "noise"
            )
        return found
    for name, facts in about.items():
        if facts["folds"] == "trials":
            found.append(f"{name}: single trials are the folds; noise that trials of one run share is not taken out")
        elif not facts["balanced"] and facts["smallest_fold"] < FEW_TRIALS:
            found.append(
                f"{name}: not every one of the {facts['folds']} shows every image, and the smallest has "
                f"{facts['smallest_fold']} trials; its mean pattern, which is taken off, holds much of its own images "
                "(--folds sessions?)"
            )
    return found


def _spans(about: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {about[name]['repeats'][0]} to {about[name]['repeats'][1]}" for name in names[:3])
