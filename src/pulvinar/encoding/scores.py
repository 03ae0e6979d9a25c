"""How well an encoding model predicts the outer test images, per region, beside what says whether that is much.

Per region and hemisphere: mean r (`r_nested`) with a bootstrap interval over images and a permutation null, the optimistic r,
the noise-normalised score, the share of voxels that beat a baseline of low-level or category features (of a tuned network: the
same network untuned, `metrics.encoding_gain`), the unique variance beyond the baseline, and the share of voxels significant at
a false discovery rate of 5 %. What cannot be said is None, with the reason.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pulvinar.core import memory
from pulvinar.core.errors import InputError
from pulvinar.core.sampling import blocks_of
from pulvinar.data.responses import Responses
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.image_responses import ImageResponses, regions, warn_if_few
from pulvinar.scores import encoding as scores
from pulvinar.scores.encoding import Ceiling
from pulvinar.scores.encoding_gain import gain
from pulvinar.scores.table import Column, Table

DISCOVERY_RATE = 0.05
VOXELS_PER_BLOCK = 4096
CEILING_COPIES = 10  # float32 of all trials: as read, in float64, deviations from the means of their images
COLUMNS = (
    Column("subject", "subject", lead=True),
    Column("roi", "ROI", lead=True),
    Column("hemisphere", "side", lead=True),
    Column("n_voxels", "voxels", form=",.0f", note="n_voxels_without_r", note_form="{:,} left out", definition="voxels of the "
        "region; those whose measured responses do not vary have no r and are left out"),
    Column("r_nested", "r, nested", "", ".3f", "mean over voxels, on test images that nothing was chosen on"),
    Column("r_optimistic", "r, optimistic", "", ".3f", "optimistic: alpha and layer are chosen on the very test images that it "
        "is reported on"),
    Column("noise_normalised", "noise-normalised, %", "", ".3f", "Algonauts 2023: mean over voxels of "
        "min(100, 100 max(r, 0)^2 / NC), NC = 0 as 1e-14"),
    Column("share_improved", "share improved", "", ".3f", "share of voxels with a higher r than the baseline's features give"),
    Column("unique_variance", "unique variance", "", ".3f", "R^2 with the baseline's features less that of the baseline alone"),
    Column("share_significant", "share significant", "", ".3f", "share of voxels with an r above that of permuted images, at a "
        "false discovery rate of 5 %"),
)  # fmt: skip
OF_TUNED = (
    Column("share_improved", "share improved", "", ".3f", "share of voxels with a higher r than the same ridge on the untuned "
        "network; chance: predictions of the two swapped image by image"),
    Column("r_untuned", "r, untuned", "", ".3f", "the same ridge on the network before tuning, layers and alphas by folds "
        "over all training images"),
    Column("difference", "minus untuned", "", "+.3f", "mean r of the run less that of the untuned network, same images"),
    Column("r_tuned", "r, tuned (not taken)", "", ".3f", "of the tuned network, where the folds chose the untuned one"),
)  # fmt: skip
PUBLISHED = (  # of papers
    *COLUMNS[4:6],
    *OF_TUNED[1:3],
    *(
        Column(f"voxels_improved_over_{other}", f"voxels improved over {name}", definition="share of voxels with a higher r "
            f"than the same ridge on the {name} network gives")
        for other, name in (
            ("untuned", "untuned"),
            ("regression_tuned", "regression-tuned"),
            ("contrastive_tuned", "contrastive-tuned"),
        )
    ),
)  # fmt: skip
DEFINITIONS = {column.key: column.definition for column in COLUMNS}


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """Everything about one subject's test images: (image, voxel) arrays on the encoded voxels, and scores per voxel.

    optimistic: r with layer and penalty chosen on these images. baseline: predictions from other features; joint: from both.
    untuned: predictions from the network before it was tuned; tuned: from the tuned one, where the untuned one encodes. Each
    None where there is none; `reasons` has why, by name.
    """

    predicted: np.ndarray
    measured: np.ndarray
    ceiling: Ceiling
    optimistic: np.ndarray | None = None
    baseline: np.ndarray | None = None
    joint: np.ndarray | None = None
    untuned: np.ndarray | None = None
    tuned: np.ndarray | None = None
    reasons: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tested:
    """The scored images of one subject: ids in the order of the predictions' rows, and all its responses (for regions)."""

    ids: list[str]
    responses: Responses


def tested_together(folds: Sequence[EncodedSubject]) -> Tested:
    """The test images of all outer folds, fold after fold."""
    return Tested(ids=[name for one in folds for name in one.test.ids], responses=folds[0].responses)


def joined(parts: Sequence[Predictions]) -> Predictions:
    """One set of predictions from those of the outer folds; of one fold, that fold's own.

    The mean of every voxel over a fold's test images is taken off what was predicted and measured (ours): a fold's intercept
    is the mean of the other images, and so runs against the held-out mean, which would lower r. Ceilings and optimistic r are
    means over folds.
    """
    if len(parts) == 1:
        return parts[0]

    def centred(name: str) -> np.ndarray | None:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.concatenate([values - values.mean(0) for values in found])

    def mean(values: Sequence[np.ndarray | None]) -> np.ndarray | None:
        known = [one for one in values if one is not None]
        return np.mean(known, axis=0) if len(known) == len(values) else None

    predicted, measured = centred("predicted"), centred("measured")
    if predicted is None or measured is None:
        raise InputError("predictions: predicted and measured responses are needed of every fold")
    return Predictions(
        predicted=predicted,
        measured=measured,
        ceiling=replace(parts[0].ceiling, r2=mean([part.ceiling.r2 for part in parts])),
        optimistic=mean([part.optimistic for part in parts]),
        baseline=centred("baseline"),
        joint=centred("joint"),
        untuned=centred("untuned"),
        tuned=centred("tuned"),
        reasons=parts[0].reasons,
    )


def find_ceiling(all_trials: ImageResponses, test: ImageResponses, voxels: np.ndarray) -> Ceiling:
    """The data set's own noise ceiling of these voxels, or one from repeats (of all images); None with the reason.

    Raises `InputError` for stated ceilings outside [0, 1].
    """
    stated = test.responses.noise_ceiling
    if stated is not None:
        values = np.asarray(stated)[voxels].astype(np.float64)
        known = np.isfinite(values)
        scores.algonauts_2023(np.zeros(int(known.sum())), values[known])  # refuses what is outside [0, 1]
        return Ceiling(r2=values, source="stated by the data set")
    shown = np.array([test.responses.stimulus_ids[trial] for trial in all_trials.trials])
    found, parts = Ceiling(r2=None), []
    each = 4.0 * len(all_trials.trials) * CEILING_COPIES
    size = memory.block_size(each, most=VOXELS_PER_BLOCK, what=f"the ceiling of a voxel from {len(all_trials.trials)} trials")
    for block in blocks_of(len(voxels), size):
        trials = all_trials.read_trials(voxels[block])
        found = scores.ceiling_from_repeats(trials, shown, test.counts)
        if found.r2 is None:
            return Ceiling(r2=None, reason=f"no noise ceiling is known: the data set states none, and {found.reason}")
        parts.append(found.r2)
    return Ceiling(r2=np.concatenate(parts), source=found.source)


def _noise_normalised(given: Predictions, r: np.ndarray) -> np.ndarray | None:
    if given.ceiling.r2 is None:
        return None
    known, normalised = np.isfinite(given.ceiling.r2), np.full(len(r), np.nan)
    normalised[known] = scores.algonauts_2023(r[known], given.ceiling.r2[known])
    return normalised


def _unique_variance(given: Predictions, r: np.ndarray) -> np.ndarray | None:
    if given.joint is None or given.baseline is None:
        return None
    alone = scores.explained_variance(given.baseline, given.measured)
    return scores.unique_variance(scores.explained_variance(given.joint, given.measured), alone)


def _r_of(given: Predictions, predicted: np.ndarray | None) -> np.ndarray | None:
    return None if predicted is None else scores.scored_correlations(predicted, given.measured)


# Scores of every voxel beside r, from the predictions and r; None where it cannot be had. Each is a map, and in the row of a
# region the mean over its voxels; a `Column` makes it one of the table.
VOXEL_SCORES: Mapping[str, Callable[[Predictions, np.ndarray], np.ndarray | None]] = {
    "r_optimistic": lambda given, r: None if given.optimistic is None else np.where(np.isfinite(r), given.optimistic, np.nan),
    "noise_normalised": _noise_normalised,
    "r_baseline": lambda given, r: _r_of(given, given.baseline),
    "unique_variance": _unique_variance,
}


def score_voxels(given: Predictions, *, generator: np.random.Generator, n_permutations: int) -> dict[str, np.ndarray]:
    """Scores per voxel by name: r, p_value, q_value, and where they can be had those of `VOXEL_SCORES`, r_untuned, ceiling."""
    test = scores.permutation_test(given.predicted, given.measured, generator=generator, n_permutations=n_permutations)
    r = scores.scored_correlations(given.predicted, given.measured)
    found = {"r": r, "p_value": test.p_values, "q_value": scores.false_discovery_rate(test.p_values)}
    others = {name: score(given, r) for name, score in VOXEL_SCORES.items()}
    others |= {"r_untuned": _r_of(given, given.untuned), "ceiling": given.ceiling.r2}
    return found | {name: values for name, values in others.items() if values is not None}


def score_regions(
    given: Predictions,
    voxel_scores: Mapping[str, np.ndarray],
    test: Tested,
    voxels: np.ndarray,
    *,
    seed: int,
    n_permutations: int,
    n_bootstrap: int = 500,
) -> list[dict[str, Any]]:
    """A row per ROI and hemisphere (see the module); 'all' first."""
    rows, reasons = [], dict(given.reasons or {})
    for (name, side), inside in regions(test.responses, voxels).items():
        if side == "both" and name != "all":
            warn_if_few(name, int(inside.sum()), test.responses.subject)
        row = {"subject": test.responses.subject, "roi": name, "hemisphere": side}
        row |= region_row(given, voxel_scores, inside, seed=seed, n_permutations=n_permutations, n_bootstrap=n_bootstrap)
        row |= {f"{key}_reason": reason for key, reason in reasons.items() if row.get(key) is None}
        rows.append(row)
    return rows


def region_row(
    given: Predictions,
    voxel_scores: Mapping[str, np.ndarray],
    inside: np.ndarray,
    *,
    seed: int,
    n_permutations: int,
    n_bootstrap: int = 500,
) -> dict[str, Any]:
    """The numbers of one region, `inside` (voxel,) bool."""
    generator = np.random.default_rng([seed, 0xE5C])
    predicted, measured = given.predicted[:, inside], given.measured[:, inside]
    low, high = scores.mean_r_interval(predicted, measured, generator=generator, n_bootstrap=n_bootstrap)
    null = scores.permutation_test(predicted, measured, generator=generator, n_permutations=n_permutations).mean_r
    r = scores.mean_or_none(voxel_scores["r"][inside])
    row = {
        "n_voxels": int(inside.sum()),
        "n_voxels_without_r": int((~np.isfinite(voxel_scores["r"][inside])).sum()),
        "n_voxels_predicted_constant": int((~np.isfinite(scores.standardised(predicted)[0])).sum()),
        "n_images": len(given.predicted),
        "r_nested": r,
        "r_nested_low": low,
        "r_nested_high": high,
        "null_mean": float(null.mean()),
        "null_percentile_95": float(np.percentile(null, 95)),
        "p_value": None if r is None else float((1 + (null >= r - 1e-12).sum()) / (1 + len(null))),
        "share_significant": _share_significant(voxel_scores["q_value"][inside]),
    }
    for key in VOXEL_SCORES:
        row[key] = scores.mean_or_none(voxel_scores[key][inside]) if key in voxel_scores else None
    baseline = voxel_scores.get("r_baseline")
    row["share_improved"] = None if baseline is None else scores.share_improved(voxel_scores["r"][inside], baseline[inside])
    return row | _over_untuned(given, inside, generator=generator, n_permutations=n_permutations, n_bootstrap=n_bootstrap)


def _share_significant(q_values: np.ndarray) -> float | None:
    """Of the voxels that can be tested (NaN: one that does not vary); None where there is none."""
    tested = q_values[np.isfinite(q_values)]
    return float((tested <= DISCOVERY_RATE).mean()) if len(tested) else None


def _over_untuned(
    given: Predictions, inside: np.ndarray, *, generator: np.random.Generator, n_permutations: int, n_bootstrap: int
) -> dict[str, Any]:
    """`r_untuned`, and how much better than it: then `share_improved` is over the untuned network, not over the baseline."""
    if given.untuned is None:
        return {}
    predicted, untuned, measured = (values[:, inside] for values in (given.predicted, given.untuned, given.measured))
    found = gain(predicted, untuned, measured, generator=generator, n_bootstrap=n_bootstrap, n_permutations=n_permutations)
    row: dict[str, Any] = {"r_untuned": scores.mean_or_none(scores.scored_correlations(untuned, measured))}
    if given.tuned is not None:
        row["r_tuned"] = scores.mean_or_none(scores.scored_correlations(given.tuned[:, inside], measured))
    return row | ({"share_improved": None} if found is None else found.row())


def score_table(evaluation: Mapping[str, Any]) -> Table:
    """The rows of an evaluation; of a tuned network beside those of the same network untuned."""
    columns = {column.key: column for column in (*COLUMNS, *(OF_TUNED if "choices" in evaluation else ()))}
    return Table(list(columns.values()), evaluation["rows"])
