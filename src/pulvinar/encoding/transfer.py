"""Does a network that was tuned on one subject serve another? Share of voxels improved over untuned, as a matrix.

For every network A and subject B an encoding model is fitted to B's training images on A's features, and one on the untuned
features; both are scored on B's outer test images. Anything that gives features can stand for a network: `LayerSource`, a run
(`evaluation.encoding_files.layer_source`), or any object with `of(stimuli, rows)`. With the subjects of another data set it is
the transfer to that set; with a network that was tuned on several subjects at once, pooled against own.

Backbones must not have seen B's test images: within one experiment they have not (the split is that of all subjects), between
two experiments that is for you to know.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import bar
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import EncoderSettings, Folds, predict
from pulvinar.encoding.layer_features import FeatureSource, LayerFeatures
from pulvinar.scores.encoding import scored_correlations, varying
from pulvinar.scores.encoding_gain import Gain, gain
from pulvinar.scores.resampling import interval_text, sign_flip_p_value
from pulvinar.scores.table import Column, Table

FoldsOf = Callable[[str, EncodedSubject], Folds | None]  # name of a model, subject -> inner folds; None for the usual ones


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """One cell: network `model` on subject `subject`; is_own: it was tuned on that subject.

    r, r_untuned: mean over voxels but the n_voxels_without_r that do not vary over the test images. gain: of the two, paired
    over test images (`metrics.encoding_gain`): difference with interval and p, share improved with interval and chance.
    """

    model: str
    subject: str
    is_own: bool
    n_voxels: int
    n_images: int
    r: float
    r_untuned: float
    gain: Gain
    n_voxels_without_r: int = 0

    @property
    def share_improved(self) -> float:
        """Share of voxels with a higher r than untuned; the same network scores 0."""
        return self.gain.share_improved


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """A difference over subjects: its mean, each subject's, and the two-sided sign-flip p over subjects (2 / 2^n at least)."""

    name: str
    mean: float
    by_subject: tuple[float, ...]
    p_value: float


@dataclass(frozen=True, kw_only=True)
class TransferMatrix:
    """All cells, network by network, and what they say over subjects."""

    models: tuple[str, ...]
    subjects: tuple[str, ...]
    cells: tuple[Transfer, ...]
    comparisons: tuple[Comparison, ...]

    def matrix(self, value: str = "share_improved") -> np.ndarray:
        """A value of the cells as (model, subject)."""
        found = {(cell.model, cell.subject): getattr(cell, value) for cell in self.cells}
        return np.array([[found[model, subject] for subject in self.subjects] for model in self.models])

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a result file."""
        return asdict(self)


def transfer_matrix(
    models: Mapping[str, FeatureSource],
    subjects: Mapping[str, EncodedSubject],
    *,
    untuned: FeatureSource,
    settings: EncoderSettings | None = None,
    owners: Mapping[str, str] | None = None,
    folds: FoldsOf | None = None,
    seed: int = 0,
    n_bootstrap: int = 500,
    n_permutations: int = 500,
) -> TransferMatrix:
    """Every network on every subject, against the untuned one (see the module).

    owners: model -> the subject it was tuned on; by default the subject of the same name. A model without one (pooled, or of
    another data set) owns none. Comparisons of the share over subjects: own less the mean of the others' models ('own - other
    subjects'), every model without an owner less own ('pooled - own'); without any owner every model less chance.
    folds: which inner folds choose layer and penalty of a model on a subject, where those by source will not do (a network
    that was tuned on the very responses needs images that it was not tuned on).
    """
    if not models or not subjects:
        raise InputError(f"transfer: {len(models)} models and {len(subjects)} subjects; one or more of both are needed")
    owners = {name: name for name in models if name in subjects} if owners is None else dict(owners)
    unknown = [name for name in owners if name not in models]
    if unknown:
        raise InputError(f"owners: {', '.join(unknown)} are not among the models {', '.join(models)}")
    settings, cells = settings or EncoderSettings(seed=seed), {}
    measured = {name: given.test.read(given.voxels) for name, given in subjects.items()}
    with bar("transfer", (len(models) + 1) * len(subjects)) as progress:
        before = _predictions(untuned, subjects, settings, progress)
        for model, source in models.items():
            own_folds = {name: folds(model, given) for name, given in subjects.items()} if folds is not None else {}
            after = _predictions(source, subjects, settings, progress, own_folds)
            for name, given in subjects.items():
                generator, triple = np.random.default_rng([seed, 0x7A]), (after[name], before[name], measured[name])
                found = gain(*triple, generator=generator, n_bootstrap=n_bootstrap, n_permutations=n_permutations)
                if found is None:
                    raise DegenerateError(f"responses of {name}: no encoded voxel varies over the test images")
                cells[model, name] = Transfer(
                    model=model,
                    subject=name,
                    is_own=owners.get(model) == name,
                    n_voxels=len(given.voxels),
                    n_images=len(given.test.ids),
                    r=_mean_r(after[name], measured[name]),
                    r_untuned=_mean_r(before[name], measured[name]),
                    gain=found,
                    n_voxels_without_r=int((~varying(measured[name])).sum()),
                )
    return TransferMatrix(
        models=tuple(models),
        subjects=tuple(subjects),
        cells=tuple(cells.values()),
        comparisons=tuple(_comparisons(cells, owners, tuple(models), tuple(subjects), seed)),
    )


def _predictions(
    source: FeatureSource,
    subjects: Mapping[str, EncodedSubject],
    settings: EncoderSettings,
    progress: Any,
    folds: Mapping[str, Folds | None] | None = None,
) -> dict[str, np.ndarray]:
    """Subject -> predictions (image, voxel) of its outer test images by a model fitted on its training images."""
    features: dict[int, LayerFeatures] = {}
    found = {}
    for name, given in subjects.items():
        key = id(given.stimuli)
        if key not in features:
            sharing = [one for one in subjects.values() if one.stimuli is given.stimuli]
            shown = [image for one in sharing for image in (*one.train.ids, *one.test.ids)]
            features[key] = LayerFeatures(source, given.stimuli, shown)
        trainer = given.trainer(features[key].of(given.train.ids), settings, folds=(folds or {}).get(name))
        for _ in trainer.run():
            pass
        found[name] = predict(trainer.fit(), features[key].of(given.test.ids))
        progress.advance(note=name)
    return found


def _mean_r(predicted: np.ndarray, measured: np.ndarray) -> float:
    """Mean over the voxels that vary; a prediction that does not vary counts 0."""
    return float(np.nanmean(scored_correlations(predicted, measured)))


def _comparisons(
    cells: Mapping[tuple[str, str], Transfer],
    owners: Mapping[str, str],
    models: tuple[str, ...],
    subjects: tuple[str, ...],
    seed: int,
) -> list[Comparison]:
    own = {subject: model for model, subject in owners.items() if subject in subjects}
    shared = [model for model in models if model not in owners]
    owned = [subject for subject in subjects if subject in own]
    pairs = []
    if len(own) > 1:
        gains = []
        for subject in owned:
            others = [cells[own[other], subject].share_improved for other in owned if other != subject]
            gains.append(cells[own[subject], subject].share_improved - float(np.mean(others)))
        pairs.append(("own - other subjects", gains))
    for model in shared if owned else []:
        gains = [cells[model, name].share_improved - cells[own[name], name].share_improved for name in owned]
        pairs.append((f"{model} - own", gains))
    for model in models if not owned else []:
        chance = [cells[model, name].gain.share_improved_chance for name in subjects]
        gains = [cells[model, name].share_improved - at for name, at in zip(subjects, chance, strict=True)]
        pairs.append((f"{model} - chance", gains))
    return [
        Comparison(
            name=name,
            mean=float(np.mean(gains)),
            by_subject=tuple(gains),
            p_value=sign_flip_p_value(np.array(gains), generator=np.random.default_rng(seed)),
        )
        for name, gains in pairs
    ]


def left_out(n_voxels: int) -> str:
    """How many voxels a mean over voxels is without, as a remark; nothing where none is left out."""
    return f" ({n_voxels} that do not vary over the test images left out)" if n_voxels else ""


def as_text(found: TransferMatrix) -> str:
    """The matrix for a terminal: percent of voxels improved, own in brackets; then the comparisons."""
    rows: dict[str, dict[str, str]] = {model: {"model": model} for model in found.models}
    for cell in found.cells:
        share = f"{100 * cell.share_improved:.1f}"
        rows[cell.model][cell.subject] = f"({share})" if cell.is_own else share
    columns = [Column("model", "model", lead=True), *(Column(name, name) for name in found.subjects)]
    lines = ["share of voxels improved over untuned, %, (own)", Table(columns, list(rows.values())).text()]
    lines += [
        f"{cell.model} on {cell.subject}: r {cell.r:.3f}, untuned {cell.r_untuned:.3f}, difference "
        f"{cell.gain.difference:+.4f} "
        f"{interval_text((cell.gain.difference_low, cell.gain.difference_high), '{:+.4f}'.format)} (95 %), "
        f"p {cell.gain.difference_p_value:.3f}; {cell.n_voxels} voxels{left_out(cell.n_voxels_without_r)}, "
        f"{cell.n_images} images"
        for cell in found.cells
    ]
    lines += [
        f"{one.name}: {100 * one.mean:+.1f} points over {len(one.by_subject)} subjects, sign-flip p {one.p_value:.3f}"
        for one in found.comparisons
    ]
    return "\n".join(lines)
