"""Classification by the nearest training images in feature space."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.core.progress import track
from pulvinar.learning.image_features import require_pair

Metric = Literal["euclidean", "cosine"]
Weighting = Literal["uniform", "distance", "exponential"]
N_QUERIES_AT_ONCE = 512


@dataclass(frozen=True, kw_only=True, eq=False)
class NeighbourScore:
    """accuracy: share of queries classified rightly. correct: (query,) bool, for paired intervals. predicted: (query,)."""

    accuracy: float
    correct: np.ndarray
    predicted: np.ndarray


def knn_accuracy(
    bank: Tensor,
    bank_labels: np.ndarray | Tensor,
    queries: Tensor,
    query_labels: np.ndarray | Tensor,
    *,
    k: int = 1,
    metric: Metric = "euclidean",
    normalised: bool = False,
    weighting: Weighting = "uniform",
    temperature: float = 0.1,
) -> NeighbourScore:
    """Accuracy of a vote of the k nearest of the bank; the papers: k = 1, Euclidean, plain features, all training images.

    bank, queries: (image, feature). metric: euclidean distance, or 1 - cosine. normalised: features scaled to length 1 first
    (the papers' distillation table; then both metrics give the same order). weighting: of votes, uniform, 1 / distance (a
    neighbour at distance 0 decides alone, as in scikit-learn), or exp(cosine / temperature) (Wu et al. 2018).
    Of equal votes the smallest label wins; of equal distances the first of the bank.
    """
    bank, bank_labels = require_pair(bank, bank_labels, "bank")
    queries, query_labels = require_pair(queries, query_labels, "queries")
    if bank.shape[1] != queries.shape[1]:
        raise InputError(f"bank and queries: {bank.shape[1]} and {queries.shape[1]} features; the same are needed")
    if not 1 <= k <= len(bank):
        raise InputError(f"k: 1 to {len(bank)} neighbours (the bank), {k} came")
    if weighting == "exponential" and metric != "cosine":
        raise InputError("weighting 'exponential' is defined on the cosine; set metric='cosine'")
    if normalised or metric == "cosine":
        bank, queries = functional.normalize(bank, dim=1), functional.normalize(queries, dim=1)
    n_classes = 1 + max(int(bank_labels.max()), int(query_labels.max()))
    predicted = []
    parts = queries.split(N_QUERIES_AT_ONCE)
    for part in track(parts, "nearest neighbours", len(parts)):
        distance, rows = _nearest(part, bank, k, metric)
        votes = torch.zeros(len(part), n_classes, dtype=torch.float64, device=part.device)
        votes.scatter_add_(1, bank_labels[rows], _weights(distance, weighting, temperature))
        predicted.append(votes.argmax(1))
    every = torch.cat(predicted).cpu()
    correct = every == query_labels.cpu()
    return NeighbourScore(accuracy=float(correct.double().mean()), correct=correct.numpy(), predicted=every.numpy())


def _nearest(queries: Tensor, bank: Tensor, k: int, metric: Metric) -> tuple[Tensor, Tensor]:
    """Distances (query, k) in float64, ascending, and rows of the bank.

    Candidates come from one matrix product; their distances are then computed anew from differences, because
    |x|^2 - 2xy + |y|^2 cancels where distances are small against lengths.
    """
    if metric == "cosine":
        similarity, rows = (queries @ bank.T).topk(k, dim=1)
        return (1 - similarity).double(), rows
    squared = (bank * bank).sum(1) - 2 * queries @ bank.T
    rows = squared.topk(min(len(bank), k + 4), dim=1, largest=False).indices.sort(dim=1).values
    exact = (queries[:, None].double() - bank[rows].double()).square().sum(2).sqrt()
    order = exact.sort(dim=1, stable=True)
    return order.values[:, :k], rows.gather(1, order.indices)[:, :k]


def _weights(distance: Tensor, weighting: Weighting, temperature: float) -> Tensor:
    if weighting == "uniform":
        return torch.ones_like(distance)
    if weighting == "exponential":
        return torch.exp((1 - distance) / temperature)
    zero = distance == 0
    return torch.where(zero.any(1, keepdim=True), zero.double(), 1 / distance.clamp_min(1e-300))
