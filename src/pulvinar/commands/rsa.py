"""`pulvinar rsa`: noise ceilings of measured RDMs, and how a model's RDM compares with them."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.config import parse_assignments, suggest
from pulvinar.data.array_files import read_array
from pulvinar.data.dissimilarities import check_rdm
from pulvinar.data.dissimilarity_files import read_npz_parts
from pulvinar.data.rdm_submission import write_submission
from pulvinar.errors import DegenerateError, InputError, NotFoundError
from pulvinar.metrics.resampling import LEVEL, interval_text
from pulvinar.rsa.compare import check_method, partial_spearman
from pulvinar.rsa.inference import ScoreOfRDM, score_rdms
from pulvinar.rsa.noise_ceiling import Ceiling, noise_ceiling
from pulvinar.rsa.rdm import condense
from pulvinar.rsa.rsatoolbox_files import PICKLES, SUFFIXES, read_rdm_file

Row = dict[str, Any]
RDMArrays = dict[str, np.ndarray]  # name -> (subject, [time,] image, image), or (image, image) for a model


def ceiling(file: str, *, target: str | None = None, method: str = "spearman") -> dict[str, Row]:
    """Target -> upper and lower ceiling of r squared (`upper`, `lower`) and of r (`upper_r`, `lower_r`), subjects, images."""
    check_method(method)
    measured = _measured(file, target)
    result = {}
    for name, rdms in measured.items():
        try:
            found = dataclasses.asdict(noise_ceiling(_condensed(rdms), method=method))
        except InputError as error:
            raise type(error)(f"{file}: '{name}': {error}") from error
        del found["n_pairs"]
        result[name] = found | {"n_images": rdms.shape[-1]}
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

    beyond: a file of confound models; adds `partial_r`, the Spearman correlation beyond them (None: they explain it all).
    """
    check_method(method)
    if min(n_permutations, n_bootstrap) < 1:
        raise InputError(f"resamples: 1 or more are needed, {n_permutations} permutations and {n_bootstrap} bootstrap came")
    models, targets = _models(predicted), _measured(measured, target)
    confounds = _models(beyond) if beyond else {}
    rows = []
    for target_name, rdms in targets.items():
        for name, model in [*models.items(), *confounds.items()]:
            if model.shape[-1] != rdms.shape[-1]:
                raise InputError(f"'{name}' is over {model.shape[-1]} images, but '{target_name}' over {rdms.shape[-1]}")
        measured_pairs = _condensed(rdms)
        scores = score_rdms(
            torch.stack([_condensed(model) for model in models.values()]),
            measured_pairs,
            generator=np.random.default_rng(seed),
            method=method,
            n_permutations=n_permutations,
            n_bootstrap=n_bootstrap,
        )
        top = noise_ceiling(measured_pairs, method=method) if len(rdms) > 1 else None
        for (name, model), score in zip(models.items(), scores, strict=True):
            row = {"predicted": name, "target": target_name, **dataclasses.asdict(score), **_of_ceiling(score, top)}
            if confounds:
                row["partial_r"] = _partial(model, rdms, confounds)
            rows.append(row)
    return {
        "method": method,
        "beyond": list(confounds),
        "n_permutations": n_permutations,
        "n_bootstrap": n_bootstrap,
        "interval_level": LEVEL,
        "rows": rows,
    }


def _of_ceiling(score: ScoreOfRDM, top: Ceiling | None) -> Row:
    """r squared in percent of the upper ceiling; null where there is one subject."""
    if top is None:
        return {"ceiling": None, "percent": None, "percent_above_null": None}
    return {
        "ceiling": {"upper": top.upper, "lower": top.lower, "upper_r": top.upper_r, "lower_r": top.lower_r},
        "percent": 100 * score.r2 / top.upper,
        "percent_above_null": 100 * score.null_r2.above_null / top.upper,
    }


def _partial(model: np.ndarray, rdms: np.ndarray, confounds: RDMArrays) -> float | None:
    """Mean partial correlation over subjects; None where the confounds explain the model altogether."""
    stacked = torch.stack([_condensed(confound) for confound in confounds.values()])
    try:
        return float(partial_spearman(_condensed(model), _condensed(rdms), stacked).mean())
    except DegenerateError:
        return None


def score(submission: str, data: str, *, published: bool = False) -> dict[str, Row]:
    """`datasets.algonauts2019.score` of a submission's RDMs on one set."""
    from pulvinar.datasets import algonauts2019

    measured = algonauts2019.load(data.removeprefix("algonauts2019:"))
    predicted = algonauts2019.read_submission(submission)
    return algonauts2019.score(predicted, measured, ceilings="published" if published else "recomputed")


def submit(out: str, rdms: Sequence[str], *, file_format: str = "mat") -> dict[str, list[str]]:
    """Write a submission from `target=file` pairs, each file one RDM (image, image); the names of its files."""
    predicted = {target: np.asarray(read_array(Path(file))) for target, file in parse_assignments(rdms).items()}
    return {"files": [str(path) for path in write_submission(out, predicted, file_format=file_format)]}


def score_as_text(result: Mapping[str, Row]) -> str:
    """Table of `score`."""
    lines = [f"{'target':10} {'r':>8} {'r2':>8} {'lower r2':>9} {'upper r2':>9} {'% of upper':>11}"]
    for name, row in result.items():
        numbers = " " * 38
        if "r2" in row:
            numbers = f" {row['r']:+8.4f} {row['r2']:8.4f} {row['lower_ceiling']:9.4f} {row['ceiling']:9.4f}"
        lines.append(f"{name:10}{numbers} {row['percent']:11.2f}")
    return "\n".join(lines)


def as_text(result: Mapping[str, Any]) -> str:
    """Table of `compare`."""
    lines = [f"{result['method']}; null: images permuted; r [95 % interval, images and subjects drawn again]"]
    for row in result["rows"]:
        between = interval_text(row["r_interval"], "{:+.4f}".format) or "[none]"
        line = (
            f"{row['predicted']} -> {row['target']}: r {row['r']:+.4f} {between}, "
            f"null 95th percentile {row['null_r']['percentile_95']:+.4f}, p {row['null_r']['p_value']:.4f}"
        )
        if row["percent"] is not None:
            line += f"; r2 {row['r2']:.4f}, {row['percent']:.1f} % of the ceiling ({row['percent_above_null']:.1f} above null)"
        if "partial_r" in row:
            left = "explained by them" if row["partial_r"] is None else f"{row['partial_r']:+.4f}"
            line += f"; beyond {', '.join(result['beyond'])}: {left}"
        lines.append(line)
    return "\n".join(lines)


def ceiling_as_text(result: Mapping[str, Row]) -> str:
    """Table of `ceiling`."""
    lines = [f"{'target':16} {'lower r2':>9} {'upper r2':>9} {'lower r':>9} {'upper r':>9}  subjects  images"]
    for name, row in result.items():
        numbers = " ".join(f"{row[key]:9.4f}" for key in ("lower", "upper", "lower_r", "upper_r"))
        lines.append(f"{name:16} {numbers}  {row['n_subjects']:8d}  {row['n_images']:6d}")
    return "\n".join(lines)


def _condensed(rdms: np.ndarray) -> Tensor:
    return condense(torch.from_numpy(np.array(rdms, dtype=np.float64)))


def _measured(path: str, target: str | None) -> RDMArrays:
    """RDMs of subjects; a file with models only counts each as one subject's."""
    targets, models = _read(path)
    found = targets or {name: rdm[None] for name, rdm in models.items()}
    if target is None:
        return found
    if target not in found:
        raise NotFoundError(f"{path}: no RDMs '{target}'{suggest(target, list(found))}")
    return {target: found[target]}


def _models(path: str) -> RDMArrays:
    """Model RDMs (image, image); a file with subjects only gives their mean RDM, by target (over time points too)."""
    targets, models = _read(path)
    return models or {name: rdms.mean(axis=tuple(range(rdms.ndim - 2))) for name, rdms in targets.items()}


def _read(path: str) -> tuple[RDMArrays, RDMArrays]:
    """RDMs of subjects by target, and models, of an .npz, .npy or rsatoolbox file."""
    suffix, name = Path(path).suffix.lower(), Path(path).stem
    if suffix == ".npz":
        _, targets, models = read_npz_parts(path)
        return {key: target.rdms for key, target in targets.items()}, models
    if suffix in (*SUFFIXES, *PICKLES):
        stored = read_rdm_file(path)
        rdms = stored.matrices()
        labels = stored.rdm_descriptors.get("name", [f"{name}_{row}" for row in range(1, len(rdms) + 1)])
        found: tuple[RDMArrays, RDMArrays] = ({name: rdms}, dict(zip(map(str, labels), rdms, strict=True)))
    else:
        array = np.asarray(read_array(path))
        if array.ndim not in (2, 3, 4):
            raise InputError(
                f"{path}: (image, image), (subject, image, image) or (subject, time, ...) is needed, {array.shape} came"
            )
        found = ({}, {name: array}) if array.ndim == 2 else ({name: array}, {})
    for key, rdms in [*found[0].items(), *found[1].items()]:
        check_rdm(rdms, f"{path}: '{key}'")
    return found
