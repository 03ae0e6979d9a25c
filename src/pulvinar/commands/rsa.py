"""`pulvinar rsa`: noise ceilings of measured RDMs, and how a model's RDM compares with them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.config import suggest
from pulvinar.data.array_files import read_array
from pulvinar.data.dissimilarities import check_rdm
from pulvinar.data.dissimilarity_files import read_npz_parts
from pulvinar.errors import DegenerateError, InputError, NotFoundError
from pulvinar.rsa.compare import check_method, partial_spearman
from pulvinar.rsa.inference import score_rdm
from pulvinar.rsa.noise_ceiling import noise_ceiling
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
        for name, model in models.items():
            scores = _scores(model, rdms, method, n_permutations, n_bootstrap, np.random.default_rng(seed))
            row = {"predicted": name, "target": target_name, **scores}
            if confounds:
                row["partial_r"] = _partial(model, rdms, confounds)
            rows.append(row)
    return {
        "method": method,
        "beyond": list(confounds),
        "n_permutations": n_permutations,
        "n_bootstrap": n_bootstrap,
        "rows": rows,
    }


def _scores(
    model: np.ndarray, rdms: np.ndarray, method: str, n_permutations: int, n_bootstrap: int, generator: np.random.Generator
) -> Row:
    measured = _condensed(rdms)
    score = score_rdm(
        _condensed(model),
        measured,
        generator=generator,
        method=method,
        n_permutations=n_permutations,
        n_bootstrap=n_bootstrap,
    )
    row = dataclasses.asdict(score) | {"ceiling": None, "percent": None, "percent_above_null": None}
    if score.n_subjects > 1:
        top = noise_ceiling(measured, method=method)
        row["ceiling"] = {"upper": top.upper, "lower": top.lower, "upper_r": top.upper_r, "lower_r": top.lower_r}
        row["percent"], row["percent_above_null"] = 100 * score.r2 / top.upper, 100 * score.null_r2.above_null / top.upper
    return row


def _partial(model: np.ndarray, rdms: np.ndarray, confounds: RDMArrays) -> float | None:
    """Mean partial correlation over subjects; None where the confounds explain the model altogether."""
    stacked = torch.stack([_condensed(confound) for confound in confounds.values()])
    try:
        return float(partial_spearman(_condensed(model), _condensed(rdms), stacked).mean())
    except DegenerateError:
        return None


def as_text(result: Mapping[str, Any]) -> str:
    """Table of `compare`."""
    lines = [f"{result['method']}; null: images permuted; interval: 95 %, images and subjects drawn again"]
    for row in result["rows"]:
        low, high = row["r_interval"] or (float("nan"), float("nan"))
        line = (
            f"{row['predicted']} -> {row['target']}: r {row['r']:+.4f} [{low:+.4f}, {high:+.4f}], "
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
    return condense(torch.from_numpy(np.asarray(rdms, dtype=np.float64)))


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
