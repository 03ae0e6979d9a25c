"""Scores of predicted RDMs on images that no model was trained on, beside baselines and confounds.

Repeated image-wise folds. In each, every model is trained on the training images (all choices in inner folds) and predicts all
pairs. A pair's *unseen* prediction is the mean over the splits in which both of its images were held out, its *mixed* one over
those in which one was. Predictions of different splits are brought to one gain by the mean and spread of their training pairs.
`Splits.of_pairs` is the paper's protocol beside it: a tenth of the *pairs* is held out, whose images are trained on elsewhere.
Headline: Spearman rho with each subject over the unseen pairs, squared, averaged over subjects, in percent of the upper noise
ceiling of exactly those pairs (the Algonauts 2019 definition), beside signed rho, the null and the interval over images and
subjects. Crops of one source picture share a fold.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.errors import DegenerateError
from pulvinar.core.progress import bar
from pulvinar.data.background import background_mask
from pulvinar.data.stimuli import Stimuli
from pulvinar.rsa.aggregation import folds_of_images
from pulvinar.rsa.inference import ModelDifference, ScoreOfRDM, score_and_compare
from pulvinar.scores.rdm import condense, correlation_rdm, pairs_among
from pulvinar.scores.rdm_ceiling import Ceiling, noise_ceiling, subject_scores
from pulvinar.scores.rdm_comparison import compare, name_of, partial_spearman
from pulvinar.scores.table import Column, Table

N_PAIR_FOLDS = 10  # the paper's 90:10
CONFOUND_SIDE = 32  # pixels of the pixel and silhouette models (ours)


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Training images of each split: (image, split); held_out_pairs: (pair, split), where pairs and not images are held out."""

    training: Tensor
    held_out_pairs: Tensor | None = None

    @classmethod
    def repeated(cls, groups: Sequence[str], *, n_repeats: int, n_folds: int, seed: int) -> "Splits":
        """n_repeats x n_folds splits; images of one group (source picture) stay together."""
        columns = []
        for repeat in range(n_repeats):
            generator = torch.Generator().manual_seed(seed * 1000 + repeat)
            fold = folds_of_images(groups, n_folds, generator)
            columns += [fold != number for number in range(n_folds)]
        return cls(training=torch.stack(columns, dim=1))

    @classmethod
    def of_pairs(cls, n_images: int, *, n_folds: int = N_PAIR_FOLDS, seed: int) -> "Splits":
        """The paper's protocol: a tenth of all pairs at random is held out, each once. Their images are trained on too."""
        n_pairs = n_images * (n_images - 1) // 2
        fold = torch.randperm(n_pairs, generator=torch.Generator().manual_seed(seed)) % n_folds
        held_out = torch.stack([fold == number for number in range(n_folds)], dim=1)
        return cls(training=torch.ones(n_images, n_folds, dtype=torch.bool), held_out_pairs=held_out)

    def among(self, images: Tensor) -> "Splits":
        """The same splits of some images (rows)."""
        held_out = self.held_out_pairs
        if held_out is not None:
            held_out = held_out[pairs_among(images, len(self.training))]
        return Splits(training=self.training[images], held_out_pairs=held_out)

    def pairs(self, n_unseen: int) -> Tensor:
        """(pair, split): whether that many of the pair's two images are held out; of held-out pairs: 2 for held out, else 0."""
        if self.held_out_pairs is not None:
            nothing = torch.zeros_like(self.held_out_pairs)
            return {0: ~self.held_out_pairs, 2: self.held_out_pairs}.get(n_unseen, nothing)
        first, second = torch.triu_indices(len(self.training), len(self.training), offset=1)
        held_out = (~self.training).int()
        return held_out[first] + held_out[second] == n_unseen

    def assemble(self, predicted: Tensor, n_unseen: int) -> Tensor:
        """(pair,) mean over the splits in which that many images are held out; NaN for pairs of no such split."""
        trained = self.pairs(0).double()
        values = predicted.double()
        mean = (values * trained).sum(0) / trained.sum(0)
        spread = (((values - mean) ** 2 * trained).sum(0) / trained.sum(0)).sqrt()
        wanted = self.pairs(n_unseen)
        standard = torch.where(wanted, (values - mean) / spread.clamp_min(1e-12), 0.0)
        return standard.sum(1) / wanted.sum(1)


@dataclass(frozen=True, kw_only=True)
class Scored:
    """What all rows share: measured RDMs (subject, time, pair), scored pairs, settings of null and interval."""

    measured: Tensor
    splits: Splits
    confounds: Mapping[str, Tensor]
    n_permutations: int
    n_bootstrap: int
    seed: int
    comparisons: Sequence[str] = ()

    @cached_property
    def unseen(self) -> Tensor:
        """Places of the pairs that some split held out altogether."""
        return torch.nonzero(self.splits.pairs(2).any(1))[:, 0]

    @cached_property
    def mixed(self) -> Tensor:
        """Places of the pairs of which some split held out one image."""
        return torch.nonzero(self.splits.pairs(1).any(1))[:, 0]

    @cached_property
    def ceiling(self) -> Ceiling:
        """Of the unseen pairs."""
        return noise_ceiling(self.measured[..., self.unseen])

    @cached_property
    def mixed_ceiling(self) -> Ceiling:
        """Of the mixed pairs."""
        return noise_ceiling(self.measured[..., self.mixed])


def full_rdm(predicted: Tensor, splits: Splits, n_unseen: int) -> Tensor:
    """A row's RDM (pair,): assembled where it was trained by split (pair, split), as it is where it was not (pair,)."""
    if predicted.ndim == 1:
        return predicted.double()
    return splits.assemble(predicted, n_unseen).nan_to_num(0.0)


def score_rows(models: Mapping[str, Tensor], scored: Scored) -> list[dict[str, Any]]:
    """A row for each model: rho, R2, percent of both ceilings, null, interval, mixed pairs, partial rho, per-subject rho; and
    the lead of the first one. All from the same permutations and resamples."""
    rdms = torch.stack([full_rdm(predicted, scored.splits, 2) for predicted in models.values()])
    found, leads = score_and_compare(
        rdms,
        scored.measured,
        generator=np.random.default_rng(scored.seed),
        pairs=scored.unseen,
        n_permutations=scored.n_permutations,
        n_bootstrap=scored.n_bootstrap,
    )
    rows = []
    with bar("scores", len(models)) as shown:
        for (name, predicted), rdm, score in zip(models.items(), rdms, found, strict=True):
            rows.append(_row(name, predicted, rdm, score, scored))
            shown.advance()
    for row, lead in zip(rows[1:], leads, strict=True):
        row["ours_minus_this"] = _lead(lead)
    return rows


def _row(name: str, predicted: Tensor, rdm: Tensor, found: ScoreOfRDM, scored: Scored) -> dict[str, Any]:
    pairs, ceiling = scored.unseen, scored.ceiling
    percent = 100 / ceiling.upper
    row = {
        "name": name,
        "rho": found.r,
        "rho_interval": found.r_interval,
        "r2": found.r2,
        "percent": found.r2 * percent,
        "percent_interval": [bound * percent for bound in found.r2_interval or ()],
        "null_percent": found.null_r2.mean * percent,
        "null_percent_95": found.null_r2.percentile_95 * percent,
        "above_null_percent": found.null_r2.above_null * percent,
        "p_value": found.null_r.p_value,
        "percent_of_lower_ceiling": 100 * found.r2 / ceiling.lower,
        "subject_rho": found.subject_r,
        "n_pairs": found.n_pairs,
    }
    row["comparisons"] = {
        name_of(name): float(subject_scores(rdm[pairs], scored.measured[..., pairs], method=name).mean())
        for name in scored.comparisons
    }
    if len(scored.mixed):
        row["mixed_pairs"] = _mixed(predicted, scored)
    row["rho_beyond_confounds"] = _partial(rdm, scored, exclude=name)
    return row


def _mixed(predicted: Tensor, scored: Scored) -> dict[str, float]:
    """Scores on the pairs of one seen and one unseen image, apart from the headline."""
    pairs = scored.mixed
    rho = subject_rho(full_rdm(predicted, scored.splits, 1)[pairs], scored.measured[..., pairs])
    percent = 100 * float(rho.square().mean()) / scored.mixed_ceiling.upper
    return {"rho": float(rho.mean()), "percent": percent, "n_pairs": len(pairs)}


def subject_rho(rdm: Tensor, measured: Tensor) -> Tensor:
    """(subject,) Spearman rho of one RDM with every subject, averaged over time."""
    return compare(rdm, measured).flatten(1).mean(1)


def _partial(rdm: Tensor, scored: Scored, *, exclude: str) -> dict[str, float | None]:
    """Signed rho beyond each confound, and beyond all; None where a confound is the row itself or explains it."""
    pairs = scored.unseen
    measured = scored.measured.mean(1)[:, pairs]  # over time
    result: dict[str, float | None] = {}
    sets = {name: [values] for name, values in scored.confounds.items()} | {"all": list(scored.confounds.values())}
    for name, confounds in sets.items():
        if not confounds:
            continue
        try:
            rho = partial_spearman(rdm[pairs], measured, torch.stack([values[pairs] for values in confounds]))
            result[name] = None if exclude in (name, f"confound: {name}") else float(rho.mean())
        except DegenerateError:
            result[name] = None
    return result


def differences(ours: Tensor, others: Sequence[Tensor], scored: Scored) -> list[dict[str, Any]]:
    """Signed rho of ours less each other row's, on the same pairs, images, subjects and resamples."""
    found = score_and_compare(
        torch.stack([full_rdm(rdm, scored.splits, 2) for rdm in (ours, *others)]),
        scored.measured,
        generator=np.random.default_rng(scored.seed),
        pairs=scored.unseen,
        n_permutations=1,
        n_bootstrap=scored.n_bootstrap,
    )[1]
    return [_lead(one) for one in found]


def difference(ours: Tensor, other: Tensor, scored: Scored) -> dict[str, Any]:
    """`differences` from one other row."""
    return differences(ours, [other], scored)[0]


def _lead(found: ModelDifference) -> dict[str, Any]:
    return {
        "rho": found.difference,
        "interval": (found.low, found.high),
        "p_value": found.p_value,
        "p_value_subjects": found.p_value_subjects,
    }


def ceilings(scored: Scored) -> dict[str, Any]:
    """Both ceilings of R2 on the scored pairs, and on all pairs."""
    result = {}
    for name, found in (("scored", scored.ceiling), ("all", noise_ceiling(scored.measured))):
        result[name] = {"upper": found.upper, "lower": found.lower, "n_pairs": found.n_pairs, "n_subjects": found.n_subjects}
    return result


def table(models: Mapping[str, Tensor], scored: Scored) -> list[dict[str, Any]]:
    """Rows of all models, the first one's first, then of the confounds; each with the first model's difference to it."""
    return score_rows({**models, **{f"confound: {name}": rdm for name, rdm in scored.confounds.items()}}, scored)


def confound_rdms(stimuli: Stimuli, models: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Name -> (pair,) RDMs that need no network: pixels, silhouettes (where backgrounds are uniform), category, models."""
    found: dict[str, Tensor] = {}
    if stimuli.read_image is not None:
        images = [stimuli.image(row) for row in range(len(stimuli))]
        found["pixels"] = _pattern_rdm([_small(image.astype(np.float64)) for image in images])
        masks = [background_mask(image) for image in images]
        if np.mean([mask.any() for mask in masks]) > 0.5:
            found["silhouette"] = _pattern_rdm([_small((~mask).astype(np.float64)[..., None]) for mask in masks])
    if stimuli.labels is not None and len(set(stimuli.labels)) > 1:
        labels = np.unique(list(stimuli.labels), return_inverse=True)[1]
        found["category"] = condense(torch.from_numpy((labels[:, None] != labels[None]).astype(np.float64)))
    for name, rdm in models.items():
        key = name.lower()
        if key not in found:
            found[key] = condense(torch.from_numpy(np.asarray(rdm, np.float64)))
    return {name: values for name, values in found.items() if float(values.std()) > 0}


def _small(image: np.ndarray) -> np.ndarray:
    """(height, width, channel) averaged to CONFOUND_SIDE squared, flat."""
    maps = torch.from_numpy(image).permute(2, 0, 1)[None]
    return torch.nn.functional.adaptive_avg_pool2d(maps, CONFOUND_SIDE).flatten().numpy()


def _pattern_rdm(patterns: Sequence[np.ndarray]) -> Tensor:
    values = np.stack(patterns)
    flat = values.std(1) < 1e-9
    values[flat, 0] += 1e-3 * max(1.0, float(np.abs(values).max()))  # a picture of one colour has no correlation; nearly none
    return correlation_rdm(torch.from_numpy(values))


SCORES = (
    Column("rho", "rho", "", "+.3f", "Rank correlation with the measured RDM, mean over subjects, with its sign."),
    Column("percent", "% of ceiling", form=".1f", definition="Squared correlation in percent of the upper noise ceiling."),
    Column("null_percent", "null, mean", form=".1f", definition="Percent of the ceiling when images are permuted."),
    Column("null_percent_95", "null, 95th", form=".1f", definition="95th percentile of that null."),
    Column("above_null_percent", "above null", form="+.1f", definition="Percent of the ceiling less the mean of the null."),
    Column("ours_minus_this", "this run minus it", "rho", "+.3f", "rho of the run less that of this row, on the same pairs."),
    Column("p", "p", form=".3f", definition="Of that difference, two-sided: a t-test on its spread over images and subjects "
        "drawn anew."),
)  # fmt: skip


PUBLISHED = (SCORES[1],)


def similarities(names: Iterable[str]) -> list[Column]:
    """A column for each other way to compare RDMs."""
    definition = "Similarity with the measured RDM by {}, mean over subjects, with its sign."
    return [Column(name, name, form="+.3f", definition=definition.format(name)) for name in names]


def score_table(evaluation: Mapping[str, Any], target: str, *, words: Callable[[str], str] = str) -> Table:
    """The rows of one measurement: signed rho, percent of the upper ceiling, null, our lead; `words` writes their names."""
    columns = [
        Column("name", "model", words=words, lead=True),
        *SCORES,
    ]
    rows = []
    for row in evaluation["rows"]:
        if row["target"] == target:
            lead = row.get("ours_minus_this") or {}
            own = {
                "ours_minus_this": lead.get("rho"),
                "ours_minus_this_interval": lead.get("interval"),
                "p": lead.get("p_value"),
            }
            rows.append({**row, **own, **row.get("comparisons", {})})
    names = dict.fromkeys(name for row in rows for name in row.get("comparisons", {}))
    return Table([*columns, *similarities(names)], rows, ours=(0,))


def table_text(evaluation: Mapping[str, Any]) -> str:
    """The table of every measurement for a terminal, below its ceilings."""
    lines = []
    for target, ceiling in evaluation["ceilings"].items():
        found = ceiling["scored"]
        lines.append(
            f"{target}: pairs of two unseen images, {found['n_pairs']} of {ceiling['all']['n_pairs']}, "
            f"{found['n_subjects']} subjects; ceilings of R2 {found['upper']:.4f} (upper) {found['lower']:.4f} (lower)"
        )
        lines.append(score_table(evaluation, target).text())
    return "\n".join(lines)
