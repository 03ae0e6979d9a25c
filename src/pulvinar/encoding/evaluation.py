"""From fitted encoders of a run to evaluation.json: test predictions, controls, rows, voxel maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pulvinar.core import memory
from pulvinar.core.progress import bar
from pulvinar.core.sampling import blocks_of
from pulvinar.data.nearness import Nearest, NearOptions, nearest_in_training
from pulvinar.data.splits import Split
from pulvinar.encoding import baseline as baselines
from pulvinar.encoding import scores as scoring
from pulvinar.encoding.data import EncodedSubject
from pulvinar.encoding.encoder import Folds, Layers, predict
from pulvinar.encoding.files import write_predictions, write_voxel_maps
from pulvinar.encoding.fit import TUNED, UNTUNED
from pulvinar.encoding.image_responses import ImageResponses
from pulvinar.encoding.settings import EncodingConfig
from pulvinar.learning.checkpoints import State
from pulvinar.learning.runs import RunFolder
from pulvinar.scores.encoding import mean_or_none, mean_r_interval, scored_correlations
from pulvinar.scores.resampling import LEVEL, interval_text

FEWEST_IMAGES = 3  # that have an r
ARRAYS_AT_ONCE = 8  # of all test images and voxels, float32: measured, predicted, two of the baseline, and copies of them
NEED_CONTROLS = ("r_optimistic", "r_baseline", "unique_variance")


@dataclass(frozen=True, kw_only=True, eq=False)
class Encoded:
    """A subject, its fitted encoder, and the layers of its training and test images that the encoder reads.

    untuned: test predictions (image, voxel) of the same ridge on the network before tuning, where there was a tuning. tuned:
    on the tuned network, where the untuned one encodes.
    """

    given: EncodedSubject
    encoder: State
    layers: Layers
    test_layers: Layers
    folds: Folds | None = None
    untuned: np.ndarray | None = None
    tuned: np.ndarray | None = None


def score_subject(
    config: EncodingConfig, run: RunFolder, encoded: Encoded, *, controls: bool, near: NearOptions
) -> tuple[list[dict[str, Any]], str]:
    """Rows of a subject per ROI and hemisphere, and where its noise ceiling is from; writes its maps and predictions."""
    return score_folds(config, run, [encoded], controls=controls, near=near)


def score_folds(
    config: EncodingConfig, run: RunFolder, folds: Sequence[Encoded], *, controls: bool, near: NearOptions
) -> tuple[list[dict[str, Any]], str]:
    """`score_subject` of a subject's outer folds together, each with its own encoder; the voxels are the same in all."""
    given = folds[0].given
    found = scoring.joined([_predictions(config, encoded, controls=controls) for encoded in folds])
    tested = scoring.tested_together([encoded.given for encoded in folds])
    generator = np.random.default_rng([config.seed, 0x9E2])
    by_voxel = scoring.score_voxels(found, generator=generator, n_permutations=config.n_permutations)
    rows = scoring.score_regions(found, by_voxel, tested, given.voxels, seed=config.seed, n_permutations=config.n_permutations)
    nearest = [_nearest(encoded.given, near) for encoded in folds]
    rows = _with_apart(rows, found, [one for one in nearest if one is not None], seed=config.seed)
    write_voxel_maps(run, given, by_voxel, [encoded.encoder for encoded in folds])
    write_predictions(run, given.name, tested.ids, found)
    return [{"name": run.method, **row} for row in rows], found.ceiling.source or found.ceiling.reason


def _nearest(given: EncodedSubject, near: NearOptions) -> Nearest | None:
    """The nearest training image of every test image; None where there is nothing to compare by."""
    return nearest_in_training(given.stimuli, Split(train=tuple(given.train.ids), test=tuple(given.test.ids)), near)


def _with_apart(
    rows: Sequence[dict[str, Any]], found: scoring.Predictions, nearest: Sequence[Nearest], *, seed: int
) -> list[dict[str, Any]]:
    """The first row, of all voxels, with `n_images_near`, and `r_apart`: mean r over test images without a near training image.

    None where fewer than three are left; rows as they came where nothing was compared.
    """
    if not nearest:
        return list(rows)
    is_near = np.concatenate([one.is_near for one in nearest])
    added = {"n_images_near": int(is_near.sum()), "near_from_cosine": nearest[0].near, "near_by": list(nearest[0].by)}
    predicted, measured = found.predicted[~is_near], found.measured[~is_near]
    if len(predicted) < FEWEST_IMAGES:
        return [{**rows[0], **added, "r_apart": None}, *rows[1:]]
    generator = np.random.default_rng([seed, 0xA9A])
    low, high = mean_r_interval(predicted, measured, generator=generator)
    r = mean_or_none(scored_correlations(predicted, measured))
    return [{**rows[0], **added, "r_apart": r, "r_apart_low": low, "r_apart_high": high}, *rows[1:]]


def near_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """r over all test images and over those without a near training image, of every subject (its first row: all voxels)."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        firsts.setdefault(row["subject"], row)
    notes = []
    for name, row in firsts.items():
        if not row.get("n_images_near") or row["r_nested"] is None:
            continue
        others = "too few others" if row["r_apart"] is None else f"{row['r_apart']:.3f} of the others"
        notes.append(
            f"{name}: {row['n_images_near']} of {row['n_images']} test images have a near training image (cosine of "
            f"{', '.join(row['near_by'])} at {row['near_from_cosine']:g} or more); r, nested: {row['r_nested']:.3f} of all, "
            f"{others} {_between(row, 'r_apart', '{:.3f}') if row['r_apart'] is not None else ''}".rstrip()
        )
    return notes


def describe(config: EncodingConfig, rows: Sequence[Mapping[str, Any]], ceilings: Mapping[str, str]) -> dict[str, Any]:
    """The rows with what is needed to read them."""
    return {
        "rows": list(rows),
        "interval_level": LEVEL,
        "scaling": config.scaling,
        "layer_choice": config.layer_choice,
        "regression": config.regression,
        "baseline": config.baseline,
        "ceilings": dict(ceilings),
        **{f"{key}_is": scoring.DEFINITIONS[key] for key in ("r_optimistic", "noise_normalised")},
        "n_permutations": config.n_permutations,
    }


def _predictions(config: EncodingConfig, encoded: Encoded, *, controls: bool) -> scoring.Predictions:
    given = encoded.given
    shape = f"{len(given.test.ids)} test images x {len(given.voxels)} voxels"
    memory.require(4.0 * len(given.test.ids) * len(given.voxels) * ARRAYS_AT_ONCE, f"scoring {given.name} ({shape})")
    measured = _read(given.test, given.voxels)
    ceiling = scoring.find_ceiling(given.every(), given.test, given.voxels)
    reasons = {"noise_normalised": ceiling.reason} if ceiling.r2 is None else {}
    optimistic = baseline = joint = None
    if controls:
        optimistic = given.trainer(encoded.layers, config, folds=encoded.folds).best_on(encoded.test_layers, measured)
        if optimistic is None:
            reasons["r_optimistic"] = "a banded search has no list of penalties to choose from on the test images"
        reason = baselines.missing_reason(config.baseline, given.stimuli)
        if not reason:
            baseline, joint = _with_baseline(config, encoded)
        reasons |= {key: reason for key in ("share_improved", "r_baseline", "unique_variance") if reason}
    else:
        reasons |= dict.fromkeys((*NEED_CONTROLS, "share_improved"), "controls were left out")
    return scoring.Predictions(
        predicted=predict(encoded.encoder, encoded.test_layers),
        measured=measured,
        ceiling=ceiling,
        optimistic=optimistic,
        baseline=baseline,
        joint=joint,
        untuned=encoded.untuned,
        tuned=encoded.tuned,
        reasons=reasons,
    )


def _read(test: ImageResponses, voxels: np.ndarray) -> np.ndarray:
    """Mean z-scored responses float32 (image, voxel) of all these voxels, read in blocks."""
    if memory.limit() is None:
        return test.read(voxels)
    out = np.empty((len(test.ids), len(voxels)), np.float32)
    size = memory.block_size(test.bytes_per_voxel(), most=len(voxels), what="reading a voxel", fixed=out.nbytes)
    for block in blocks_of(len(voxels), size):
        out[:, block] = test.read(voxels[block])
    return out


def _with_baseline(config: EncodingConfig, encoded: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Test predictions of a ridge on the baseline's features alone, and of one on each layer with them."""
    given = encoded.given
    own = baselines.baseline_features(config.baseline, given.stimuli, given.train.ids)
    new = baselines.baseline_features(config.baseline, given.stimuli, given.test.ids)
    alone = ({"baseline": baselines.side_by_side(own, own)}, {"baseline": baselines.side_by_side(new, own)})
    both = (
        baselines.with_baseline(encoded.layers, own, encoded.layers, own),
        baselines.with_baseline(encoded.test_layers, new, encoded.layers, own),
    )
    predicted = []
    for (train, test), folds in ((alone, None), (both, encoded.folds)):
        trainer = given.trainer(train, config, folds=folds)
        with bar(f"baseline of {given.name}", trainer.n_units) as progress:
            for _ in trainer.run():
                progress.advance()
        predicted.append(predict(trainer.fit(), test))
    return predicted[0], predicted[1]


def left_out_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """How many voxels do not vary over the test images, or are predicted as a constant (counted as r = 0), of every subject
    that has such (its first row: all voxels)."""
    firsts: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        firsts.setdefault(row["subject"], row)
    notes = [
        f"{subject}: {row['n_voxels_without_r']} of {row['n_voxels']} voxels do not vary over the test images, left out of "
        "all means"
        for subject, row in firsts.items()
        if row.get("n_voxels_without_r")
    ]
    return notes + [
        f"{subject}: {row['n_voxels_predicted_constant']} of {row['n_voxels']} voxels are predicted as a constant, counted as "
        "r = 0"
        for subject, row in firsts.items()
        if row.get("n_voxels_predicted_constant")
    ]


def as_text(evaluation: Mapping[str, Any]) -> str:
    """The table that `pulvinar evaluate` prints."""
    lines = [scoring.score_table(evaluation).text(), ""]
    first = evaluation["rows"][0]
    lines += left_out_lines(evaluation["rows"])
    lines += [f"{key.removesuffix('_reason')}: none: {first[key]}" for key in first if key.endswith("_reason")]
    lines.append(
        f"r_nested: {first['n_images']} test images that nothing was chosen on; its null (images permuted) in the first row: "
        f"mean {first['null_mean']:.3f}, 95th percentile {first['null_percentile_95']:.3f}"
    )
    lines += near_lines(evaluation["rows"])
    lines.append(evaluation["r_optimistic_is"])
    return "\n".join(lines)


def tuned_text(evaluation: Mapping[str, Any]) -> str:
    """The same of tuned networks, with what was gained over the untuned ones."""
    first = evaluation["rows"][0]
    lines = [as_text(evaluation), f"r, untuned: {evaluation['r_untuned_is']}", *warnings_of(evaluation)]
    if first.get("share_improved") is not None and first["encoded_with"] == TUNED:
        lines.append(
            f"first row [95 % interval over images]: difference {first['difference']:+.3f} {_between(first, 'difference')}, "
            f"p {first['difference_p_value']:.3f}; share improved {first['share_improved']:.3f} "
            f"{_between(first, 'share_improved', '{:.3f}')}, "
            f"chance {first['share_improved_chance']:.3f}, its 95th percentile {first['share_improved_chance_95']:.3f}"
        )
    if first.get("mac_share") is not None:
        lines.append(f"multiply-adds: {first['mac_share']:.3f} of the dense network on the test images")
    return "\n".join(lines)


def _between(row: Mapping[str, Any], key: str, form: str = "{:+.3f}") -> str:
    """The interval of a value of a row."""
    return interval_text((row[f"{key}_low"], row[f"{key}_high"]), form.format)


def warnings_of(evaluation: Mapping[str, Any]) -> list[str]:
    """Where the untuned network encodes, and where the tuned one is worse than the untuned (interval below 0)."""
    lines = []
    for name, choice in evaluation["choices"].items():
        if choice["encoded_with"] != UNTUNED:
            continue
        tuned = next(row for row in evaluation["rows"] if row["subject"] == name).get("r_tuned")
        score = "" if tuned is None else f", r on the test images {tuned:.3f}"
        lines.append(
            f"{name}: tuning did not help, the untuned network encodes: R^2 on {choice['n_images']} training images held out "
            f"from tuning {choice[UNTUNED]:.4f}, tuned {choice[TUNED]:.4f}{score}; fall_back=false encodes with the tuned one"
        )
    worse = [row for row in evaluation["rows"] if row.get("share_improved") is not None and row["difference_high"] < 0]
    lines += [
        f"{row['subject']}, {row['roi']} ({row['hemisphere']}): worse than the untuned network, {row['r_nested']:.3f} against "
        f"{row['r_untuned']:.3f} (difference {row['difference']:+.3f} {_between(row, 'difference')}, 95 %)"
        for row in worse
    ]
    return lines
