"""Linear classification of frozen features: the solved logistic regression (default), and the papers' SGD recipe.

exact     features standardised by the training images, multinomial logistic regression with L2 on the weights, solved by LBFGS
          (convex: no seed, no schedule). The L2 weight is chosen on an inner validation part of the training images; each seed
          draws another inner part.
faithful  the papers' optimiser: SGD, momentum .9, rate .3, times .1 after epochs 60 and 80, 100 epochs, batches of 512, plain
          features; each seed is another initialisation and order. On cached features, or on those of random crops, as the
          papers have it: `features_of_epoch` gives the training features of each epoch, the same to all seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.core.progress import bar, track
from pulvinar.learning.image_features import require_pair
from pulvinar.learning.optimizers import SGD

Recipe = Literal["exact", "faithful"]
L2_WEIGHTS = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)  # of the mean cross-entropy; strong first, each starts where the last ended
INNER_SHARE = 0.2
RATE, MOMENTUM, EPOCHS, BATCH_SIZE, DROPS, DROP_FACTOR = 0.3, 0.9, 100, 512, (60, 80), 0.1  # the papers' recipe


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearScore:
    """Test scores of a linear probe.

    accuracy: mean over seeds. accuracies: (seed,). correct: (seed, image) bool, for paired intervals. recipe: exact | faithful.
    l2_weights: (seed,), what the inner validation chose; empty for the faithful recipe.
    """

    accuracy: float
    accuracies: np.ndarray
    correct: np.ndarray
    recipe: Recipe
    l2_weights: tuple[float, ...] = ()


def linear_probe(
    train: Tensor,
    train_labels: np.ndarray | Tensor,
    test: Tensor,
    test_labels: np.ndarray | Tensor,
    *,
    recipe: Recipe = "exact",
    n_seeds: int = 5,
    seed: int = 0,
    l2_weights: Sequence[float] = L2_WEIGHTS,
    features_of_epoch: Callable[[int], Tensor] | None = None,
) -> LinearScore:
    """Train on training features (image, feature), score on test features; see the module for the two recipes."""
    train, train_labels = require_pair(train, train_labels, "linear probe, training images")
    test, test_labels = require_pair(test, test_labels, "linear probe, test images")
    if train.shape[1] != test.shape[1]:
        raise InputError(f"linear probe: {train.shape[1]} training and {test.shape[1]} test features; the same are needed")
    if n_seeds < 1:
        raise InputError(f"n_seeds: 1 or more, {n_seeds} came")
    n_classes = 1 + int(torch.maximum(train_labels.max(), test_labels.max()))
    generators = [torch.Generator().manual_seed(1000 * seed + number) for number in range(n_seeds)]
    chosen: tuple[float, ...] = ()
    if recipe == "exact":
        train, test = standardised(train, test)
        with bar("linear probe, solving", n_seeds * len(l2_weights)) as shown:
            chosen = tuple(
                choose_l2(train, train_labels, n_classes, l2_weights, generator, each=shown.advance) for generator in generators
            )
            fits = {weight: solve_logistic(train, train_labels, n_classes, weight) for weight in dict.fromkeys(chosen)}
        right = [_right(test, test_labels, *fits[weight]) for weight in chosen]
    else:
        train, test = train.float(), test.float()
        trained = train_by_sgd(train, train_labels, n_classes, generators, features_of_epoch)
        right = [_right(test, test_labels, *layer) for layer in trained]
    correct = torch.stack(right).cpu().numpy()
    accuracies = correct.mean(1)
    return LinearScore(
        accuracy=float(accuracies.mean()), accuracies=accuracies, correct=correct, recipe=recipe, l2_weights=chosen
    )


def standardised(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Both with the training images' mean 0 and standard deviation 1; a feature that does not vary is only centred."""
    mean, sd = train.mean(0), train.std(0)
    sd = torch.where(sd > 1e-6 * train.abs().amax().clamp_min(1e-30), sd, torch.ones_like(sd))
    return (train - mean) / sd, (test - mean) / sd


def _right(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return (features @ weight.T + bias).argmax(1) == labels


def solve_logistic(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    l2_weight: float,
    *,
    start: tuple[Tensor, Tensor] | None = None,
    n_steps: int = 100,
) -> tuple[Tensor, Tensor]:
    """Weights (class, feature) and bias (class,) that minimise mean cross-entropy + l2_weight / 2 sum weight^2, by LBFGS.

    scikit-learn's LogisticRegression has C = 1 / (l2_weight x images).
    """
    shape = (n_classes, features.shape[1])
    weight = (features.new_zeros(shape) if start is None else start[0].clone()).requires_grad_()
    bias = (features.new_zeros(n_classes) if start is None else start[1].clone()).requires_grad_()
    double = features.dtype == torch.float64
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=n_steps,
        history_size=10,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-9 if double else 1e-5,
        tolerance_change=1e-13 if double else 1e-7,
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(features @ weight.T + bias, labels) + l2_weight / 2 * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return weight.detach(), bias.detach()


def choose_l2(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    l2_weights: Sequence[float],
    generator: torch.Generator,
    *,
    each: Callable[[], None] = lambda: None,
) -> float:
    """The L2 weight with the best accuracy on an inner fifth of the training images, by class; of equals the stronger.

    each: called after every weight that was tried.
    """
    inner = inner_rows(labels, generator)
    outer = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    outer[inner] = False
    if not len(inner) or not outer.any() or len(l2_weights) == 1:
        return float(sorted(l2_weights)[len(l2_weights) // 2])
    best, chosen, start = -1.0, l2_weights[0], None
    for weight in sorted(l2_weights, reverse=True):
        start = solve_logistic(features[outer], labels[outer], n_classes, weight, start=start, n_steps=30)
        accuracy = float(_right(features[inner], labels[inner], *start).double().mean())
        if accuracy > best:
            best, chosen = accuracy, weight
        each()
    return float(chosen)


def inner_rows(labels: Tensor, generator: torch.Generator) -> Tensor:
    """A fifth of the images of each class, drawn at random; classes of fewer than five images give none."""
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    kept = []
    for label in labels.unique():
        rows = order[labels[order] == label]
        kept.append(rows[: int(INNER_SHARE * len(rows))])
    return torch.cat(kept)


def train_by_sgd(
    features: Tensor,
    labels: Tensor,
    n_classes: int,
    generators: Sequence[torch.Generator],
    features_of_epoch: Callable[[int], Tensor] | None = None,
) -> list[tuple[Tensor, Tensor]]:
    """The papers' recipe, once for each generator: weights (class, feature) and bias (class,).

    They start uniform in +-1/sqrt(features).
    """
    bound = features.shape[1] ** -0.5
    layers = [nn.utils.skip_init(nn.Linear, features.shape[1], n_classes) for _ in generators]
    for layer, generator in zip(layers, generators, strict=True):
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layer.to(features.device)
    optimizers = [SGD(layer.parameters(), lr=RATE, momentum=MOMENTUM) for layer in layers]
    for epoch in track(range(EPOCHS), "linear probe by SGD", EPOCHS):
        seen = features if features_of_epoch is None else features_of_epoch(epoch).to(features)
        rate = RATE * DROP_FACTOR ** sum(epoch >= drop for drop in DROPS)
        for layer, optimizer, generator in zip(layers, optimizers, generators, strict=True):
            optimizer.param_groups[0]["lr"] = rate
            for rows in torch.randperm(len(labels), generator=generator).split(BATCH_SIZE):
                optimizer.zero_grad()
                functional.cross_entropy(layer(seen[rows]), labels[rows]).backward()
                optimizer.step()
    return [(layer.weight.detach(), layer.bias.detach()) for layer in layers]
