"""Reads sets of the challenge, says what is in them, and scores predicted RDMs as the challenge does."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from pulvinar.core.errors import FileError, InputError, NotFoundError
from pulvinar.core.storage import reads
from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.dissimilarity_files import read_npz
from pulvinar.datasets.algonauts2019.facts import FACTS
from pulvinar.datasets.algonauts2019.layout import (
    TRUTH,
    find_sets,
    find_truth,
    read_set,
    target_files,
)
from pulvinar.datasets.algonauts2019.submission import check_predictions
from pulvinar.scores.rdm import condense
from pulvinar.scores.rdm_ceiling import ALGONAUTS2019_CEILINGS, algonauts2019_score, noise_ceiling, subject_scores

N_SUBJECTS = 15

# Upper noise ceiling: mean over subjects of the squared Spearman correlation of a subject's RDM with the mean of all.
CEILINGS = ALGONAUTS2019_CEILINGS
# fMRI: recomputed from the released files; MEG: constants of the challenge's scoring scripts, not recomputed.
CEILING_IS_RECOMPUTED = {"evc": True, "it": True, "meg_early": False, "meg_late": False}
# The same with the subject left out of the mean; of the fMRI sets, recomputed.
LOWER_CEILINGS = {
    92: {"evc": 0.0686, "it": 0.2264},
    118: {"evc": 0.0245, "it": 0.0038},
    78: {"evc": 0.0068, "it": 0.0028},
}


def load(path: str | os.PathLike[str]) -> Dissimilarities:
    """The RDMs of the one set that is there, over its images; targets evc, it, meg_early, meg_late as far as there are files.

    path: a folder of one set, a folder above it, one target file (.mat of either MATLAB version), or an .npz file as
    `data.dissimilarity_files.read_npz` reads it. The times of MEG (milliseconds from onset) are spread evenly over the
    challenge's windows, both ends included (ours: the files hold no times). With several sets below, `InputError` names them;
    `load_all` takes them together.

    Raises `FileError`, `InputError`, `DegenerateError` or `NotFoundError` naming the file and what is wrong in it.
    """
    path = Path(path)
    if path.is_file():
        return read_npz(path) if path.suffix.lower() != ".mat" else read_set(path.parent, [path])
    folders = _sets(path)
    if len(folders) > 1:
        choices = ", ".join(f"algonauts2019:{folder}" for folder in folders)
        raise InputError(f"{path}: {len(folders)} sets of images are there; name one: {choices}")
    return read_set(folders[0], target_files(folders[0]))


@reads("an Algonauts 2019 folder")
def load_all(path: str | os.PathLike[str]) -> dict[int, Dissimilarities]:
    """Every set below a folder: number of images -> its RDMs, as `load` gives them."""
    opened = [read_set(folder, target_files(folder)) for folder in _sets(Path(path))]
    sizes = [len(data.stimuli) for data in opened]
    if len(set(sizes)) != len(sizes):
        raise InputError(f"{path}: two sets have the same number of images: {sizes}; load them one by one")
    return dict(zip(sizes, opened, strict=True))


def _sets(path: Path) -> list[Path]:
    if not path.is_dir():
        raise FileError(f"{path}: no such file or folder")
    folders = find_sets(path)
    if not folders:
        raise FileError(f"{path}: no target_fmri or target_meg (.mat, .npz) in this folder, nor two levels below it")
    return folders


def inspect(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What is there, in numbers: per set its images and targets (people, times, both ceilings of r squared), and the facts."""
    path = Path(path)
    opened = [load(path)] if path.is_file() else list(load_all(path).values())
    return {
        "name": "algonauts2019",
        "sets": [_describe(data) for data in opened],
        "truth": find_truth(path) is not None,
        "facts": FACTS.kept,
    }


def _describe(data: Dissimilarities) -> dict[str, Any]:
    targets: dict[str, Any] = {}
    for name, target in data.targets.items():
        ceiling = noise_ceiling(condense(torch.from_numpy(np.asarray(target.rdms, np.float64))))
        published = CEILINGS.get(len(data.stimuli), {}).get(name)
        targets[name] = {
            "subjects": len(target.subjects),
            "times_ms": None if target.times is None else list(target.times),
            "upper": ceiling.upper,
            "lower": ceiling.lower,
            "published_upper": published,
        }
    stimuli = data.stimuli
    return {
        "name": data.name,
        "images": len(stimuli),
        "sources": len(set(stimuli.sources)),
        "pixels": stimuli.read_image is not None,
        "features": {name: list(values.shape) for name, values in stimuli.features.items()},
        "targets": targets,
    }


def score(
    predictions: Mapping[str, np.ndarray], data: Dissimilarities, *, ceilings: Literal["recomputed", "published"] = "recomputed"
) -> dict[str, dict[str, Any]]:
    """The challenge's score of predicted RDMs (target -> (image, image); `read_submission` gives them) on one set.

    Per target: `r2` = mean over subjects of squared rho (Spearman over pairs; MEG: rho averaged over time first), `percent` =
    100 r2 / `ceiling`, the upper ceiling with the subject included; beside it `lower_ceiling` (subject left out), `r` (signed
    mean of rho: squares hide that a model is anti-correlated) and `rho` of each subject. Per track (fmri, meg), where both
    targets are predicted: `percent` = 100 mean(r2) / mean(ceiling). Cichy et al. 2019.

    ceilings: 'recomputed' from these data, or the 'published' constants for this number of images.
    Raises `InputError` or `DegenerateError` for an RDM that is not one or over another number of images, `NotFoundError` for a
    target that was not measured, or ceilings that were not published.
    """
    rdms = check_predictions(predictions, len(data.stimuli))
    measured = {target: _condensed(data.target(target).rdms) for target in rdms}
    predicted = {target: _condensed(rdm) for target, rdm in rdms.items()}
    chosen = None if ceilings == "recomputed" else _published(len(data.stimuli))
    scores: dict[str, dict[str, Any]] = dict(algonauts2019_score(predicted, measured, ceilings=chosen))
    for target, rdm in predicted.items():
        rho = subject_scores(rdm, measured[target]).tolist()
        scores[target] = {**scores[target], "rho": dict(zip(data.target(target).subjects, rho, strict=True))}
    return scores


def _condensed(rdms: np.ndarray) -> torch.Tensor:
    return condense(torch.from_numpy(np.asarray(rdms, np.float64)))


def _published(n_images: int) -> Mapping[str, float]:
    if n_images not in CEILINGS:
        raise NotFoundError(f"ceilings were published for sets of {', '.join(map(str, CEILINGS))} images, not of {n_images}")
    return CEILINGS[n_images]


@reads("the truth of a planted world")
def load_truth(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What `generate` planted: its truth.json, from the top folder or from one of its sets; `FileError` where there is none."""
    truth = find_truth(Path(path))
    if truth is None:
        raise FileError(f"{path}: no {TRUTH} of a planted world here, nor in the two folders above")
    return truth
