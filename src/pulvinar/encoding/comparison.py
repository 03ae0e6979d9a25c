"""Scores of encoding runs over subjects: is a run better than chance, and is one better than another.

A row of evaluation.json is a subject, ROI and hemisphere. Here subjects are the units: signs of whole subjects are flipped
(two-sided, exact where that is feasible; n subjects cannot give less than 2 / 2^n), and the interval of a difference resamples
test images and subjects where the predictions of both runs are of the same images and voxels. Runs of different subjects or
test images are not paired: that is an error that names them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulvinar.core.errors import InputError
from pulvinar.core.progress import warn
from pulvinar.encoding.transfer import left_out
from pulvinar.scores.encoding import standardised, varying
from pulvinar.scores.resampling import interval_text, paired_difference, sign_flip_p_value
from pulvinar.scores.table import Column, Table

Row = Mapping[str, Any]
Region = tuple[str, str]
SCORE = "r_nested"
FEW_SUBJECTS = 6  # 2 / 2^5 = .06: below it no test over subjects can reach .05


@dataclass(frozen=True, kw_only=True)
class OverSubjects:
    """A region of a run over its subjects. p_value: against a score of the null's mean; difference...: to the first run.

    difference_p_value: two-sided, over subjects. by_subject: the scores, in the order of `subjects`.
    """

    run: str
    roi: str
    hemisphere: str
    subjects: tuple[str, ...]
    by_subject: tuple[float, ...]
    mean: float
    p_value: float
    difference: float | None = None
    difference_p_value: float | None = None


def over_subjects(tables: Mapping[str, Sequence[Row]], *, score: str = SCORE, seed: int = 0) -> list[OverSubjects]:
    """Every region that all runs have, of every run, over subjects; the first run is what the others are compared with.

    tables: run -> rows of its evaluation. Raises `InputError` where runs are of different subjects, or nothing is shared.
    """
    if not tables:
        raise InputError("comparison: one run or more is needed, none came")
    subjects = {name: sorted({row["subject"] for row in rows}) for name, rows in tables.items()}
    first = next(iter(tables))
    for name, found in subjects.items():
        if found != subjects[first]:
            raise InputError(f"{name}: subjects {', '.join(found)}, but {first} has {', '.join(subjects[first])}; not paired")
    n_images = {name: {row["n_images"] for row in rows} for name, rows in tables.items()}
    for name, counts in n_images.items():
        if counts != n_images[first]:
            raise InputError(f"{name}: scored on {sorted(counts)} test images, but {first} on {sorted(n_images[first])}")
    names = tuple(subjects[first])
    if len(names) < FEW_SUBJECTS:
        warn(f"{len(names)} subjects: no test over them can give p below {2 / 2 ** len(names):.3g}")
    shared = [region for region in _regions(tables[first]) if all(region in _regions(rows) for rows in tables.values())]
    if not shared:
        raise InputError("comparison: the runs share no ROI")
    found_rows = []
    for region in shared:
        reference = _values(tables[first], region, names, score)
        for name, rows in tables.items():
            values, null = _values(rows, region, names, score), _values(rows, region, names, "null_mean")
            generator = np.random.default_rng([seed, 0x50B])
            known = np.isfinite(values)
            difference = (values - reference)[known & np.isfinite(reference)]
            compared = name != first and len(difference) > 0
            found_rows.append(
                OverSubjects(
                    run=name,
                    roi=region[0],
                    hemisphere=region[1],
                    subjects=names,
                    by_subject=tuple(values.tolist()),
                    mean=float(values[known].mean()) if known.any() else float("nan"),
                    p_value=sign_flip_p_value((values - null)[known], generator=generator),
                    difference=float(difference.mean()) if compared else None,
                    difference_p_value=sign_flip_p_value(difference, generator=generator) if compared else None,
                )
            )
    return found_rows


def require_same_images(predictions: Mapping[str, Mapping[str, Row]]) -> None:
    """Raise `InputError` where runs were scored on other test images of a subject; the first three ids are named.

    predictions: run -> subject -> arrays with `id`. The order of the images does not matter.
    """
    first, *others = predictions.items()
    for name, own in others:
        for subject in sorted(set(own) & set(first[1])):
            ids, wanted = (set(map(str, run[subject]["id"])) for run in (own, first[1]))
            if ids != wanted:
                odd = sorted(ids ^ wanted)
                raise InputError(
                    f"{name}: other test images of {subject} than {first[0]}: {len(odd)} stand in one of them only, e.g. "
                    f"{odd[:3]}"
                )


def _regions(rows: Sequence[Row]) -> list[Region]:
    return list(dict.fromkeys((row["roi"], row["hemisphere"]) for row in rows))


def _values(rows: Sequence[Row], region: Region, subjects: Sequence[str], key: str) -> np.ndarray:
    """A score of each subject in a region; NaN where it is not there."""
    found = {row["subject"]: row.get(key) for row in rows if (row["roi"], row["hemisphere"]) == region}
    return np.array([np.nan if (value := found.get(name)) is None else float(value) for name in subjects])


def crossed_interval(ours: Mapping[str, Row], others: Mapping[str, Row], *, seed: int = 0) -> dict[str, float] | None:
    """Difference of mean r of two runs with an interval over images and subjects, from their predictions; None if not paired.

    ours, others: subject -> arrays id, predicted, measured. All subjects must have been shown the same test images. The score
    of an image is its part of the correlations: the mean over voxels of the product of standardised responses. Voxels that do
    not vary over the test images are left out and counted (n_voxels_without_r); where a run predicts a constant, r is 0.
    """
    ids = [tuple(arrays["id"].tolist()) for run in (ours, others) for arrays in run.values()]
    if set(ours) != set(others) or len({tuple(sorted(one)) for one in ids}) != 1:
        return None
    if any(ours[name]["measured"].shape != others[name]["measured"].shape for name in ours):
        return None
    parts = [np.stack([_by_image(run[name]) for name in sorted(run)]) for run in (ours, others)]
    found = paired_difference(parts[0], parts[1], generator=np.random.default_rng([seed, 0xC05]))
    return {
        "difference": found.difference,
        "low": found.low,
        "high": found.high,
        "n_voxels_without_r": sum(int((~varying(arrays["measured"])).sum()) for arrays in ours.values()),
        "p_value_images": found.p_value_images,
        "p_value_subjects": float(found.p_value_groups if found.p_value_groups is not None else np.nan),
    }


SCORES = (
    Column("mean", "r", "", ".4f", "Mean over subjects of r of the region, on test images that nothing was chosen on."),
    Column("p_value", "p", "", ".3f", "Of the mean less that of the null: signs of whole subjects flipped, two-sided."),
    Column("difference", "minus first", "", "+.4f", "Mean over subjects of r less that of the first run."),
    Column(
        "difference_p_value", "p", "of minus first", ".3f", "Of that difference: signs of whole subjects flipped, two-sided."
    ),
)


def score_table(rows: Sequence[Row]) -> Table:
    """Every region of every run over subjects: mean r, and its difference from the first run's."""
    columns = [
        Column("run", "run", lead=True),
        Column("roi", "ROI", lead=True),
        Column("hemisphere", "side", lead=True),
        *SCORES,
    ]
    return Table(columns, rows)


def whole_text(name: str, found: Mapping[str, float] | None) -> str:
    """What `crossed_interval` found of a run and the first one, in a line."""
    if found is None:
        return f"{name} minus first, all voxels: not of the same images and voxels, no interval"
    between = interval_text((found["low"], found["high"]), "{:+.4f}".format)
    return (
        f"{name} minus first, all voxels{left_out(int(found['n_voxels_without_r']))}: {found['difference']:+.4f} {between} "
        f"(95 %, over images and subjects), p over images {found['p_value_images']:.4f}"
    )


def _by_image(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """n x (part of image i in the mean r over voxels), images sorted by id; its mean over images is the mean r."""
    order = np.argsort(arrays["id"])
    predicted, measured = arrays["predicted"][order].astype(float), arrays["measured"][order].astype(float)
    varies = varying(measured)
    ours, theirs = (np.nan_to_num(standardised(values[:, varies])) for values in (predicted, measured))
    return len(order) * (ours * theirs).mean(1)
