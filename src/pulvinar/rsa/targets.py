"""The targets of learning to aggregate, as tensors: over one set of images, or over several that were joined."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pulvinar.data.dissimilarities import Dissimilarities
from pulvinar.data.joined_dissimilarities import set_labels
from pulvinar.rsa.aggregation import MeasuredRDMs
from pulvinar.rsa.aggregation_settings import AggregationConfig
from pulvinar.scores.rdm import condense, pairs_among


def target_names(config: AggregationConfig, data: Dissimilarities) -> tuple[str, ...]:
    """The targets to fit; `NotFoundError` names those that are there."""
    names = config.roi or (next(iter(data.targets)),)
    return tuple(data.target(name).name for name in names)


def measured_rdms(data: Dissimilarities, names: Sequence[str], config: AggregationConfig) -> list[MeasuredRDMs]:
    """The targets for training; where several sets of images were joined, each of those that have it, NaN for other pairs."""
    return [
        MeasuredRDMs(
            on_all_pairs(subject_rdms(part, name), rows, len(data.stimuli)),
            time_sampling=config.time_sampling,
            use_reliability=config.use_reliability,
            image_set=place,
        )
        for name in names
        for place, (_, part, rows) in enumerate(image_sets(data))
        if name in part.targets
    ]


def image_sets(data: Dissimilarities) -> list[tuple[str, Dissimilarities, Tensor]]:
    """The sets that were joined, by name, with the rows of their images; the data themselves, unnamed, where none were."""
    if not data.parts:
        return [("", data, torch.arange(len(data.stimuli)))]
    labels = set_labels([part.name for part in data.parts])
    rows = torch.arange(len(data.stimuli)).split([len(part.stimuli) for part in data.parts])
    return list(zip(labels, data.parts, rows, strict=True))


def on_all_pairs(rdms: Tensor, rows: Tensor, n_images: int) -> Tensor:
    """(..., pair) among these images, with NaN for all other pairs of n_images."""
    if len(rows) == n_images:
        return rdms
    spread = rdms.new_full((*rdms.shape[:-1], n_images * (n_images - 1) // 2), torch.nan)
    spread[..., pairs_among(rows, n_images)] = rdms
    return spread


def subject_rdms(data: Dissimilarities, name: str) -> Tensor:
    """(subject, time, pair) of a target; fMRI has one time point."""
    square = torch.from_numpy(np.asarray(data.target(name).rdms, np.float64))
    return condense(square if square.ndim == 4 else square[:, None])
