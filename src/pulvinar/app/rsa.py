"""`pulvinar rsa`: RDMs of responses, noise ceilings of measured RDMs, and how a model's RDM compares with them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.app.data import open_data
from pulvinar.core import terminal
from pulvinar.core.config import parse_assignments, suggest
from pulvinar.core.errors import DegenerateError, InputError, NotFoundError
from pulvinar.core.progress import warn
from pulvinar.core.storage import refuse_existing
from pulvinar.data.dissimilarities import look_like_similarities
from pulvinar.data.dissimilarity_files import image_ids, write_npz
from pulvinar.data.experiment import Experiment
from pulvinar.data.image_ids import ImageNames
from pulvinar.datasets.algonauts2019.submission import in_order, read_named_submission, write_submission
from pulvinar.rsa.inference import ScoreOfRDM, score_rdms
from pulvinar.rsa.rdm_files import RDMFile, align, read_rdms
from pulvinar.rsa.response_rdms import RDMSettings, build_rdms
from pulvinar.scores.rdm import condense
from pulvinar.scores.rdm_ceiling import Ceiling, noise_ceiling
from pulvinar.scores.rdm_comparison import check_method, name_of, partial_spearman
from pulvinar.scores.resampling import LEVEL
from pulvinar.scores.table import Column, Table

Row = dict[str, Any]
RDMArrays = dict[str, np.ndarray]  # name -> (subject, [time,] image, image), or (image, image) for a model
FEWEST_PAIRS = 3


def build(
    source: str | Experiment,
    out: str,
    *,
    roi: Sequence[str] | None = None,
    subjects: Sequence[str] | None = None,
    image_size: int | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write the RDMs of an experiment's responses, a target for each ROI and an RDM for each subject, as `.npz`.

    settings: those of `RDMSettings`. What they were made from comes back, and stands in the file; cautions are warned of.
    """
    chosen = RDMSettings(**settings)
    refuse_existing(out)
    experiment: Experiment = open_data("experiment", source)
    built = build_rdms(experiment, roi=roi, subjects=subjects, settings=chosen)
    for caution in built.cautions:
        warn(caution)
    made_from = {**built.made_from, "source": experiment.source, "cautions": built.cautions}
    written = write_npz(
        out,
        built.targets,
        experiment.stimuli.take(built.ids),
        measure=chosen.measure,
        made_from=made_from,
        image_size=image_size,
        simulated=experiment.simulated,
    )
    return {"out": str(written), "targets": list(built.targets), "n_images": len(built.ids), **made_from}


def built_as_text(result: Mapping[str, Any]) -> str:
    """What `build` wrote."""
    columns = [
        Column("subject", "subject", lead=True),
        Column("n_trials", "trials", form="d"),
        Column("repeats", "repeats", "of an image"),
        Column("folds", "folds"),
        Column("n_voxels", "voxels", form="d"),
    ]
    rows = []
    for name, facts in result["subjects"].items():
        fewest, most = facts["repeats"]
        folds = f"{facts['n_folds']} {facts['folds']}" if facts["folds"] else None
        rows.append(
            {"subject": name, **facts, "repeats": f"{fewest} to {most}" if most > fewest else f"{most}", "folds": folds}
        )
    head = (
        f"wrote {result['out']}: {result['distance']} RDMs of {', '.join(result['targets'])} over {result['n_images']:,} images"
    )
    return "\n".join([head, Table(columns, rows).text()])


def ceiling(file: str, *, target: str | None = None, method: str = "spearman") -> dict[str, Row]:
    """Target -> upper and lower ceiling of r squared (`upper`, `lower`) and of r (`upper_r`, `lower_r`), subjects, images."""
    method = check_method(method)
    result = {}
    for name, rdms in _measured(read_rdms(file), target).items():
        if look_like_similarities(rdms):
            warn(f"{file}: '{name}' has the signs of similarities, not of dissimilarities; if it holds r, take 1 - r")
        try:
            kept = known_pairs([rdms], file)
            _refuse_gaps(kept, method)
            found = dataclasses.asdict(noise_ceiling(kept.of(rdms)[..., kept.scored], method=method))
        except InputError as error:
            raise type(error)(f"{file}: '{name}': {error}") from error
        result[name] = found | {"method": method, "n_images": len(kept.images), "n_missing_pairs": kept.n_missing}
    return result


def compare(
    predicted: str,
    measured: str,
    *,
    method: str = "spearman",
    target: str | None = None,
    beyond: str | None = None,
    n_permutations: int = 1000,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Each RDM of one file against the subjects of another: signed r, r squared, nulls, intervals, ceiling, percent of it.

    Images are joined by the names in the files; `joined` says how, and a warning where a file holds none. Pairs that any of the
    RDMs lacks (NaN) are left out of all, and counted.
    beyond: a file of confound models; adds `partial_r`, the Spearman correlation beyond them (None: they explain it all).
    """
    method = check_method(method)
    if min(n_permutations, n_bootstrap) < 1:
        raise InputError(f"resamples: 1 or more are needed, {n_permutations} permutations and {n_bootstrap} bootstrap came")
    reference = read_rdms(measured)
    targets, joined = _measured(reference, target), {}
    models, joined["predicted"] = _aligned_models(predicted, reference)
    confounds: RDMArrays = {}
    if beyond:
        confounds, joined["beyond"] = _aligned_models(beyond, reference)
    rows = []
    for target_name, rdms in targets.items():
        kept = known_pairs([rdms, *models.values(), *confounds.values()], f"{measured}: '{target_name}'")
        _refuse_gaps(kept, method)
        measured_pairs = kept.of(rdms)
        scores = score_rdms(
            torch.stack([kept.of(model) for model in models.values()]),
            measured_pairs,
            generator=np.random.default_rng(seed),
            method=method,
            pairs=kept.pairs,
            n_permutations=n_permutations,
            n_bootstrap=n_bootstrap,
        )
        top = noise_ceiling(measured_pairs[..., kept.scored], method=method) if len(rdms) > 1 else None
        for (name, model), score in zip(models.items(), scores, strict=True):
            row = {"predicted": name, "target": target_name, **dataclasses.asdict(score), **_of_ceiling(score, top)}
            row["n_missing_pairs"] = kept.n_missing
            if confounds:
                row["partial_r"] = _partial(kept, model, rdms, confounds)
            rows.append(row)
    return {
        "method": method,
        "joined": joined,
        "beyond": list(confounds),
        "n_permutations": n_permutations,
        "n_bootstrap": n_bootstrap,
        "interval_level": LEVEL,
        "rows": rows,
        "cautions": [*_trusted(joined), *_cautions(rows)],
    }


def _aligned_models(path: str, reference: RDMFile) -> tuple[RDMArrays, str]:
    """Model RDMs of a file over the images of the reference, and how the two were joined (said where not by name)."""
    file, how = align(read_rdms(path), reference)
    if how != "by name":
        warn(f"{path}: joined with {reference.path} {how}")
    return _models(file), how


def _trusted(joined: Mapping[str, str]) -> list[str]:
    """Which files were joined otherwise than by the names of their images."""
    return [f"images of {which} were joined {how}" for which, how in joined.items() if how != "by name"]


def _cautions(rows: Sequence[Row]) -> list[str]:
    """What the reader should doubt: models further below 0 than images in any order are."""
    below = [row for row in rows if row["r"] < 0 and abs(row["r"]) > row["null_r"]["percentile_95"] and row["r"] < -0.1]
    return [
        f"{row['predicted']} -> {row['target']}: r is far below 0; does one of the files hold similarities (take 1 - them)?"
        for row in below
    ]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class KnownPairs:
    """Images that have a pair in all RDMs (rows), and which of their pairs all RDMs have (places; None for every pair).

    n_missing: pairs of the files' images that are left out because one RDM or more lack them.
    """

    images: np.ndarray
    pairs: Tensor | None
    n_missing: int

    @property
    def scored(self) -> Any:
        """An index of the pairs that are scored."""
        return slice(None) if self.pairs is None else self.pairs

    def of(self, rdms: np.ndarray) -> Tensor:
        """The RDMs over these images, condensed."""
        return _condensed(np.asarray(rdms)[..., self.images[:, None], self.images])


def known_pairs(rdms: Sequence[np.ndarray], name: str) -> KnownPairs:
    """Which images and pairs all RDMs (..., image, image) of some stacks have; `InputError` if hardly any are left."""
    n_images = rdms[0].shape[-1]
    missing = np.zeros((n_images, n_images), bool)
    for stack in rdms:
        missing |= np.isnan(np.asarray(stack, np.float64)).any(axis=tuple(range(np.ndim(stack) - 2)))
    measured = ~missing & ~np.eye(n_images, dtype=bool)
    images = np.flatnonzero(measured.any(1))
    first, second = np.triu_indices(len(images), 1)
    known = measured[images[first], images[second]]
    if known.sum() < FEWEST_PAIRS:
        raise InputError(f"{name}: {int(known.sum())} pairs are known in all RDMs; {FEWEST_PAIRS} or more are needed")
    n_missing = n_images * (n_images - 1) // 2 - int(known.sum())
    pairs = None if known.all() else torch.from_numpy(np.flatnonzero(known))
    return KnownPairs(images=images, pairs=pairs, n_missing=n_missing)


def _refuse_gaps(kept: KnownPairs, method: str) -> None:
    if kept.pairs is not None and method.startswith("whitened"):
        raise InputError(
            f"{method}: needs every pair of its images; {kept.n_missing} are missing (NaN). Take spearman, or cosine"
        )


def _of_ceiling(score: ScoreOfRDM, top: Ceiling | None) -> Row:
    """r squared in percent of the upper ceiling; null where there is one subject."""
    if top is None:
        return {"ceiling": None, "percent": None, "percent_above_null": None}
    return {
        "ceiling": {"upper": top.upper, "lower": top.lower, "upper_r": top.upper_r, "lower_r": top.lower_r},
        "percent": 100 * score.r2 / top.upper,
        "percent_above_null": 100 * score.null_r2.above_null / top.upper,
    }


def _partial(kept: KnownPairs, model: np.ndarray, rdms: np.ndarray, confounds: RDMArrays) -> float | None:
    """Mean partial correlation over subjects; None where the confounds explain the model altogether."""
    stacked = torch.stack([kept.of(confound)[kept.scored] for confound in confounds.values()])
    try:
        return float(partial_spearman(kept.of(model)[kept.scored], kept.of(rdms)[..., kept.scored], stacked).mean())
    except DegenerateError:
        return None


def score(submission: str, data: str, *, published: bool = False) -> dict[str, Row]:
    """`datasets.algonauts2019.score` of a submission's RDMs on one set, joined by the names of the images.

    `joined` of each row says how; on trust, with a warning, where one of the two holds no names.
    """
    from pulvinar.datasets import algonauts2019

    measured = algonauts2019.load(data.removeprefix("algonauts2019:"))
    predicted, names = read_named_submission(submission)
    ids, how = list(measured.stimuli.ids), "by name"
    if names is None or ids == image_ids(len(ids)):
        unnamed = submission if names is None else data
        how = f"on trust, in the order of the rows: no names of the images in {unnamed}"
        warn(f"{submission}: joined with {data} {how}")
    else:
        predicted = in_order(predicted, names, ImageNames(ids, data))
    found = algonauts2019.score(predicted, measured, ceilings="published" if published else "recomputed")
    return {name: {**row, "joined": how} for name, row in found.items()}


def submit(out: str, rdms: Sequence[str], *, file_format: str = "mat") -> dict[str, list[str]]:
    """Write a submission from `target=file` pairs, each file one RDM (image, image); the names of its files.

    Files that name their images are put into the order of the first that does.
    """
    opened = {target: read_rdms(file) for target, file in parse_assignments(rdms, refuse_repeated=True).items()}
    reference = next((file for file in opened.values() if file.names is not None), next(iter(opened.values())))
    predicted = {}
    for target, file in opened.items():
        models, how = _models(align(file, reference)[0]), align(file, reference)[1]
        if len(models) != 1:
            raise InputError(f"{file.path}: one RDM (image, image) is needed, it holds {', '.join(models)}")
        if how != "by name" and reference.names is not None:
            raise InputError(f"{file.path}: holds no names of its images, but {reference.path} does; give them in both")
        predicted[target] = next(iter(models.values()))
    if reference.names is None:
        warn("no names of the images in these files: their rows are taken to be in the challenge's order, on trust")
    return {"files": [str(path) for path in write_submission(out, predicted, file_format=file_format)]}


LOWER, UPPER = (
    "Mean over subjects of the squared similarity with the mean RDM of the other subjects: too low.",
    "Mean over subjects of the squared similarity with the mean RDM of all subjects, their own among them: too high.",
)
CHALLENGE = (  # scores of `pulvinar rsa score`
    Column("r", "r", "", "+.4f", "Similarity with the measured RDM, mean over subjects, with its sign."),
    Column("r2", "r2", "", ".4f", "Mean over subjects of the squared similarity."),
    Column("lower_ceiling", "ceiling of r2", "lower", ".4f", LOWER),
    Column("ceiling", "ceiling of r2", "upper", ".4f", UPPER),
    Column("percent", "r2", "% of upper", ".2f", "r2 in percent of the upper ceiling: the score of Algonauts 2019."),
)
COMPARISON = (  # of `pulvinar rsa compare`
    Column("r", "r", "", "+.4f", "Similarity with the measured RDM, mean over subjects, with its sign."),
    Column("null", "null", "95th percentile", "+.4f", "Of r when images are permuted."),
    Column("p", "p", "", ".4f", "Share of permutations of the images whose r is as high, one-sided."),
    Column("r2", "r2", "", ".4f", "Mean over subjects of the squared similarity."),
    Column("percent", "r2", "% of ceiling", ".1f", "r2 in percent of the upper ceiling."),
    Column("percent_above_null", "above null", "% of ceiling", ".1f", "The same less the mean of the null."),
    Column("partial_r", "partial r", "beyond them", "+.4f", "Spearman correlation beyond the RDMs named with --beyond."),
    Column("n_pairs", "pairs", "scored", "d", "Pairs of images that were compared."),
    Column("n_missing", "pairs", "missing, left out", "d", "Pairs that one of the RDMs does not have."),
)
CEILING = (  # of `pulvinar rsa ceiling`
    Column("lower", "lower", "r2", ".4f", LOWER),
    Column("upper", "upper", "r2", ".4f", UPPER),
    Column("lower_r", "lower", "r", ".4f", "The same of r, with its sign."),
    Column("upper_r", "upper", "r", ".4f", "The same of r, with its sign."),
)


def score_as_text(result: Mapping[str, Row]) -> str:
    """Table of `score`."""
    columns = [
        Column("target", "target", lead=True),
        *CHALLENGE,
    ]
    return Table(columns, [{"target": name, **row} for name, row in result.items()]).text()


def as_text(result: Mapping[str, Any]) -> str:
    """Table of `compare`."""
    lines = [f"{name_of(result['method'])}; null: images permuted; r [95 % interval, images and subjects drawn again]"]
    lines += [f"images of {which} joined {how}" for which, how in result["joined"].items() if how == "by name"]
    lines += [f"beyond them: beyond {', '.join(result['beyond'])}"] if result["beyond"] else []
    columns = [
        Column("predicted", "model", lead=True),
        Column("target", "target", lead=True),
        *COMPARISON,
    ]
    rows = []
    for row in result["rows"]:
        more: dict[str, Any] = {"null": row["null_r"]["percentile_95"], "p": row["null_r"]["p_value"]}
        if "partial_r" in row and row["partial_r"] is None:
            more["partial_r"] = "explained by them"
        rows.append({**row, **more, "n_missing": row["n_missing_pairs"] or None})
    cautions = [f"caution: {caution}" for caution in result["cautions"]]
    return "\n".join([*map(terminal.filled, lines), Table(columns, rows).text(), *map(terminal.filled, cautions)])


def ceiling_as_text(result: Mapping[str, Row]) -> str:
    """Table of `ceiling`."""
    lines = [f"r: {name_of(next(iter(result.values()))['method'])}"] if result else []
    columns = [
        Column("target", "target", lead=True),
        *CEILING,
        Column("n_subjects", "subjects", form="d"),
        Column("n_images", "images", form="d"),
        Column("n_missing_pairs", "missing pairs", form="d"),
    ]
    return "\n".join([*lines, Table(columns, [{"target": name, **row} for name, row in result.items()]).text()])


def _condensed(rdms: np.ndarray) -> Tensor:
    return condense(torch.from_numpy(np.array(rdms, dtype=np.float64)))


def _measured(file: RDMFile, target: str | None) -> RDMArrays:
    """RDMs of subjects; a file with models only counts each as one subject's."""
    found = file.targets or {name: rdm[None] for name, rdm in file.models.items()}
    if target is None:
        return dict(found)
    if target not in found:
        raise NotFoundError(f"{file.path}: no RDMs '{target}'{suggest(target, list(found))}")
    return {target: found[target]}


def _models(file: RDMFile) -> RDMArrays:
    """Model RDMs (image, image); a file with subjects only gives their mean RDM, by target (over time points too)."""
    return dict(file.models) or {name: _mean_rdm(rdms) for name, rdms in file.targets.items()}


def _mean_rdm(rdms: np.ndarray) -> np.ndarray:
    """Mean over all but the images of the pairs that all have; the others are missing."""
    return rdms.mean(axis=tuple(range(rdms.ndim - 2)))
