"""Score reconstructions of test images beside what they have to beat: the mean image, gallery matches, shuffled brains.

Every row is scored on the same images. PixCorr and SSIM at 425 pixels, two-way identification by each measure; intervals are
percentile bootstraps over images, differences are paired, nulls permute images. Rows that have seen the answer say so.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.errors import InputError, PulvinarError
from pulvinar.core.progress import bar
from pulvinar.core.sampling import blocks_of
from pulvinar.core.storage import write_json
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.pictures.picture_measures import (
    FIXED_MEASURES,
    PUBLISHED_MEASURES,
    Features,
    Measure,
    measure_named,
    open_measure,
)
from pulvinar.decoding.pictures.picture_parts import (
    Decoded,
    OpenedPictures,
    as_uint8,
    blended,
    pixels_of,
    resized,
)
from pulvinar.decoding.pictures.picture_training import as_pictures
from pulvinar.learning.runs import RunFolder
from pulvinar.scores import reconstruction as metrics
from pulvinar.scores.resampling import (
    LEVEL,
    bootstrap_shares,
    paired_difference,
    percentile_interval,
    permutation_null,
    share_interval,
)
from pulvinar.scores.table import Column, Table

N_BOOTSTRAP, N_PERMUTATIONS = 2000, 1000
IMAGES_AT_ONCE = 16
EIGHT_BITS = np.float32(255)  # float32 is enough for three digits, and twice as fast
BLUR = 1 / 16  # share of the height
HIGHER_IS_BETTER = {"pixcorr": True, "ssim": True, "two_way": True, "distance": False}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One row of the table: pictures uint8 (image, height, width, 3) of the test images, and what they are."""

    name: str
    description: str
    pictures: np.ndarray
    sees_answer: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """A candidate's scores: metric -> per image (image,), and metric -> the null of its mean."""

    per_image: dict[str, np.ndarray]
    null: dict[str, dict[str, float]] = field(default_factory=dict)


class Judge:
    """Holds the seen images and their features, and scores pictures against them.

    seen: uint8 (image, 425, 425, 3). Pictures of any size are brought to that size and to 8 bits, as they are written.
    """

    def __init__(self, seen: np.ndarray, measures: Mapping[str, tuple[Measure, Features]], *, seed: int) -> None:
        if len(seen) < 2:
            raise InputError(f"pictures: two or more are needed, to tell them apart; {len(seen)} came")
        self.seen, self.measures = seen, measures
        self.features = {name: _in_blocks(look, seen) for name, (_, look) in measures.items()}
        generator = np.random.default_rng([seed, 0x91C5])
        self.permutations = generator.permuted(np.tile(np.arange(len(seen)), (N_PERMUTATIONS, 1)), axis=1)

    def score(self, pictures: np.ndarray) -> Scored:
        """All metrics of one candidate's pictures, uint8 (image, height, width, 3)."""
        made = at_full_size(pictures)
        pairs = zip(_blocks(made), _blocks(self.seen), strict=True)
        similar = [metrics.structural_similarity(ours / EIGHT_BITS, theirs / EIGHT_BITS) for ours, theirs in pairs]
        table = metrics.correlation_table(self.seen, made)
        per_image, null = {"pixcorr": np.diag(table).copy(), "ssim": np.concatenate(similar)}, {"pixcorr": self._null(table)}
        for name, (measure, look) in self.measures.items():
            table = metrics.correlation_table(self.features[name], _in_blocks(look, made))
            if measure.score == "distance":
                per_image[name] = 1 - np.diag(table)
                continue
            identified = metrics.identification_table(table)
            per_image[name] = np.diag(identified).copy()
            null[name] = self._null(identified)
        return Scored(per_image=per_image, null=null)

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics, in the order of the table."""
        return ["pixcorr", "ssim", *self.measures]

    def kind(self, metric: str) -> str:
        """pixcorr, ssim, two_way or distance."""
        return self.measures[metric][0].score if metric in self.measures else metric

    def _null(self, table: np.ndarray) -> dict[str, float]:
        permuted = metrics.mismatched_means(table, self.permutations)
        null = permutation_null(float(np.diag(table).mean()), permuted)
        return {"mean": null.mean, "percentile_95": null.percentile_95, "p_value": null.p_value}


def at_full_size(pictures: np.ndarray) -> np.ndarray:
    """uint8 (image, height, width, 3) at 425 x 425."""
    return np.concatenate([as_uint8(resized(as_pictures(torch.from_numpy(rows)), metrics.SIDE)) for rows in _blocks(pictures)])


def _blocks(values: np.ndarray) -> list[np.ndarray]:
    return [values[block] for block in blocks_of(len(values), IMAGES_AT_ONCE)]


def _in_blocks(look: Features, pictures: np.ndarray) -> np.ndarray:
    return np.concatenate([look(block) for block in _blocks(pictures)])


def open_measures(names: Sequence[str], weights: str | None) -> tuple[dict[str, tuple[Measure, Features]], dict[str, str]]:
    """The measures that can be had, and why the others cannot. names: measures beside those that need no weights.

    Measures that were named must be there: `FileError` otherwise. Without names, the published ones are taken where their
    weights are.
    """
    folder = None if weights is None else Path(weights)
    optional = [measure for measure in PUBLISHED_MEASURES if measure.name not in names]
    opened = {measure.name: (measure, open_measure(measure)) for measure in FIXED_MEASURES}
    opened |= {name: (measure_named(name), open_measure(measure_named(name), folder)) for name in names}
    skipped = {}
    for measure in optional:
        try:
            opened[measure.name] = (measure, open_measure(measure, folder))
        except PulvinarError as error:
            skipped[measure.name] = str(error)
    return opened, skipped


def gallery_match(queries: Tensor, gallery: Tensor, *, n_matches: int = 1) -> np.ndarray:
    """Rows of the gallery whose embedding (row, dim) has the largest cosine with each query's: (query, match), best first."""
    unit = [torch.nn.functional.normalize(values, dim=1) for values in (queries, gallery)]
    return (unit[0] @ unit[1].T).topk(min(n_matches, len(gallery)), dim=1).indices.numpy()


def derangement(n: int, generator: np.random.Generator) -> np.ndarray:
    """A random order of n rows in which none stays at its place (a random cycle)."""
    order = generator.permutation(n)
    shuffled = np.empty(n, np.int64)
    shuffled[order] = np.roll(order, 1)
    return shuffled


def blur(pictures: np.ndarray, share: float) -> np.ndarray:
    """uint8 pictures after a Gaussian of `share` of their height (edges reflected)."""
    from scipy.ndimage import gaussian_filter

    sigma = share * pictures.shape[1]
    return gaussian_filter(pictures.astype(np.float32), (0, sigma, sigma, 0), mode="reflect").round().astype(np.uint8)


def candidates(
    experiment: Experiment,
    opened: OpenedPictures,
    decoded: Decoded,
    rows: np.ndarray,
    ours: Candidate,
    generated: Tensor,
    *,
    controls: bool,
    seed: int,
) -> list[Candidate]:
    """Our pictures first, then its parts and controls; `rows`: which test images; generated: ours before the blend."""
    made = [ours]
    if decoded.low_level is not None and opened.blend:
        low_level = as_uint8(decoded.low_level[torch.from_numpy(rows)])
        made.append(Candidate(name="embedding alone", description="without the low-level branch", pictures=as_uint8(generated)))
        made.append(Candidate(name="low-level alone", description="the low-level branch alone", pictures=low_level))
    return made + (_controls(experiment, opened, decoded, rows, ours.pictures, seed) if controls else [])


def _controls(
    experiment: Experiment, opened: OpenedPictures, decoded: Decoded, rows: np.ndarray, ours: np.ndarray, seed: int
) -> list[Candidate]:
    chosen, train = torch.from_numpy(rows), opened.trained_on
    queries = decoded.projected[chosen]
    nearest = gallery_match(queries, opened.decoder.embedding.of(experiment, train))[:, 0]
    gallery = images_of(experiment, [train[row] for row in nearest], "reading gallery matches")
    nearest = gallery_match(queries, decoded.true)[:, 0]
    test_gallery = images_of(experiment, [decoded.ids[row] for row in nearest], "reading test matches")
    side = opened.parts.components.side
    mean = as_uint8(opened.parts.components.mean.reshape(1, 3, side, side)).repeat(len(rows), axis=0)
    shuffled = ours[derangement(len(rows), np.random.default_rng([seed, 0xDE1]))]
    oracle = as_uint8(opened.embedded_pictures(decoded.true[chosen]))
    blurred = f"after a Gaussian of {BLUR:g} of the height"
    found = [
        ("ours, blurred", f"ours {blurred}", blur(ours, BLUR), False),
        ("best gallery match", "training image nearest to the decoded embedding", gallery, False),
        ("best gallery match, blurred", f"the same {blurred}", blur(gallery, BLUR), False),
        ("mean image", "mean of the training images", mean, False),
        ("shuffled brains", "ours, each from the brain of another test image", shuffled, False),
        ("best test match", "test image nearest to the decoded embedding; the seen one is among them", test_gallery, True),
        ("from the true embedding", "the image decoder given the seen image's own embedding", oracle, True),
    ]
    if opened.parts.prior is not None:
        low_level = None if decoded.low_level is None else decoded.low_level[chosen]
        made = as_uint8(blended(opened.embedded_pictures(decoded.regressed[chosen]), low_level, opened.blend))
        found.insert(0, ("regression head", "the image decoder on the decoder's own head, without the prior", made, False))
    return [Candidate(name=name, description=text, pictures=made, sees_answer=sees) for name, text, made, sees in found]


def images_of(experiment: Experiment, ids: Sequence[str], what: str) -> np.ndarray:
    """The images of these stimuli as they are compared: uint8 (image, 425, 425, 3)."""
    return pixels_of(experiment, list(ids), metrics.SIDE, what).numpy()


def table(judge: Judge, rows: Sequence[Candidate], *, seed: int) -> tuple[list[dict[str, Any]], dict[str, Scored]]:
    """Rows of the table (the first is ours) and what stands behind them; scored by name."""
    scored: dict[str, Scored] = {}
    made = []
    with bar("scoring pictures", len(rows)) as shown:
        for candidate in rows:
            scored[candidate.name] = judge.score(candidate.pictures)
            made.append(_row(judge, candidate, scored, rows[0].name, seed))
            shown.advance(note=f"{candidate.name}: PixCorr {made[-1]['pixcorr']:.3f}")
    return made, scored


def _row(judge: Judge, candidate: Candidate, scored: Mapping[str, Scored], first: str, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": candidate.name,
        "description": candidate.description,
        "sees_answer": candidate.sees_answer,
        "n_images": len(candidate.pictures),
    }
    shares = bootstrap_shares(len(candidate.pictures), N_BOOTSTRAP, np.random.default_rng([seed, 0xB007]))
    for metric, values in scored[candidate.name].per_image.items():
        row[metric] = float(values.mean())
        is_share = judge.kind(metric) == "two_way"
        resampled = shares @ values
        row[f"{metric}_interval"] = list(share_interval(values, resampled) if is_share else percentile_interval(resampled))
        if metric in scored[candidate.name].null:
            row[f"{metric}_null"] = scored[candidate.name].null[metric]
        if candidate.name != first:
            generator = np.random.default_rng([seed, 0xD1F])
            difference = paired_difference(
                values, scored[first].per_image[metric], generator=generator, n_permutations=2000, of_shares=is_share
            )
            row[f"{metric}_difference"] = difference.difference
            row[f"{metric}_difference_interval"] = [difference.low, difference.high]
            row[f"{metric}_difference_p_value"] = difference.p_value_images
    return row


def summary(judge: Judge, rows: list[dict[str, Any]], skipped: Mapping[str, str], opened: OpenedPictures) -> dict[str, Any]:
    """The evaluation as it is written: rows, metrics and what they are, chance, what was left out and why."""
    transductive = opened.decoder.scaling != "train_stats"
    rules = ["z-scored per session: sessions with test trials give their own statistics"] if transductive else []
    kinds = {name: judge.kind(name) for name in judge.metrics}
    return {
        "rows": rows,
        "interval_level": LEVEL,
        "metrics": {name: {"kind": kind, "higher_is_better": HIGHER_IS_BETTER[kind]} for name, kind in kinds.items()},
        "chance_two_way": 0.5,
        "n_images": len(judge.seen),
        "n_training_images": len(opened.trained_on),
        "blend": opened.blend,
        "prior": "linear" if opened.parts.prior is None else "diffusion",
        "scaling": opened.decoder.scaling,
        "skipped": dict(skipped),
        "rules_broken": rules,
    }


def evaluate_pictures(
    run: RunFolder,
    experiment: Experiment,
    opened: OpenedPictures,
    *,
    measures: Sequence[str],
    weights: str | None,
    controls: bool,
    seed: int,
) -> dict[str, Any]:
    """All test images by the embedded image decoder, with controls; written as evaluation.json."""
    measured, skipped = open_measures(measures, weights)
    decoded = opened.decode(experiment, seed=seed)
    rows = np.arange(len(decoded.ids))
    generated = opened.embedded_pictures(decoded.embedding)
    ours = Candidate(
        name=run.method,
        description="embedding and low-level branch",
        pictures=as_uint8(blended(generated, decoded.low_level, opened.blend)),
    )
    judge = Judge(images_of(experiment, decoded.ids, "reading test images"), measured, seed=seed)
    every = candidates(experiment, opened, decoded, rows, ours, generated, controls=controls, seed=seed)
    scores, _ = table(judge, every, seed=seed)
    evaluation = summary(judge, scores, skipped, opened)
    write_json(run.path / "evaluation.json", evaluation, sealed=True)
    return evaluation


LABELS = {  # metric -> how a reader would write it; a network that the user named stays as it was named
    "pixcorr": "PixCorr",
    "ssim": "SSIM",
    "colour": "Colour",
    "energy": "Energy",
    "alexnet2": "AlexNet 2",
    "alexnet5": "AlexNet 5",
    "inception": "Inception",
    "efficientnet": "EfficientNet",
    "clip": "CLIP",
    "swav": "SwAV",
}
SCORES = (  # one for each kind of metric
    Column("two_way", "two-way identification", "two-way", ".3f", "Share of the other images that are less like the made "
        "picture than the seen one is; chance .5."),
    Column("distance", "feature distance", "distance", ".3f", "1 - correlation of the features of the seen and the made "
        "picture; lower is better."),
    Column("pixcorr", "PixCorr", "r, 425 px", ".3f", "Correlation of the pixels of the seen and the made picture."),
    Column("ssim", "SSIM", "425 px", ".3f", "Structural similarity of the seen and the made picture, in grey."),
)  # fmt: skip


_KIND = {column.key: column for column in SCORES}
PUBLISHED = (  # of papers, under our names
    *(replace(_KIND[name], unit="") for name in ("pixcorr", "ssim")),
    *(
        replace(_KIND["two_way"], key=name, label=f"{LABELS[name]}, two-way", unit="")
        for name in ("alexnet2", "alexnet5", "inception", "clip")
    ),
    *(replace(_KIND["distance"], key=name, label=f"{LABELS[name]} distance", unit="") for name in ("efficientnet", "swav")),
)


def score_table(evaluation: Mapping[str, Any], *, words: Callable[[str], str] = str) -> Table:
    """A row for each set of pictures, a column for each metric; * marks rows that have seen the answer."""
    columns = [Column("name", "pictures", note="description", lead=True)]
    for name, facts in evaluation["metrics"].items():
        columns.append(replace(_KIND[facts["kind"]], key=name, label=LABELS.get(name, name)))
    rows = [{**row, "name": words(row["name"]) + "*" * bool(row["sees_answer"])} for row in evaluation["rows"]]
    return Table(columns, rows, ours=(0,))


def as_text(evaluation: Mapping[str, Any]) -> str:
    """The table for a reader, and what its marks are."""
    lines = [score_table(evaluation).text(), ""]
    kinds = ", ".join(name for name, facts in evaluation["metrics"].items() if facts["kind"] == "two_way")
    lines.append(
        f"{evaluation['n_images']} images; 95 % intervals over images; two-way identification ({kinds}): chance .5; "
        "* has seen the answer"
    )
    if evaluation["skipped"]:
        names = ", ".join(evaluation["skipped"])
        lines.append(f"left out for want of weights: {names} (what is missing and how to get it: 'skipped' of --json)")
    return "\n".join(lines)
