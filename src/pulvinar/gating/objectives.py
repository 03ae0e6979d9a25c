"""Losses of two views' embeddings without labels: VICReg, Barlow Twins, SimSiam, SimCLR. All in float32 (or float64).

Weights are in the units of "Unifying synergies" and of solo-learn:

    VICReg        25 mean (a - b)^2  +  25 [v(a) + v(b)]  +  1 [c(a) + c(b)],
                  v(x) = mean_d relu(1 - sqrt(var_d x + 1e-4)),   c(x) = (1/D) sum_{i != j} cov_ij(x)^2   (Bardes et al. 2022).
                  The variance term is *summed* over the views. lightly and the authors' code halve it: a weight of 25 here
                  is mu_param = 50 there. (Equation 1 of "Unifying synergies" prints invariance 1 and covariance 25; its code
                  has them as here.)
    Barlow Twins  .024 [ sum_i (1 - C_ii)^2 + .0051 sum_{i != j} C_ij^2 ], C the cross-correlation of the standardised
                  embeddings (Zbontar et al. 2021; scale as in solo-learn).
    SimSiam       -1/2 [ cos(p_a, stop z_b) + cos(p_b, stop z_a) ]   (Chen and He 2021).
    SimCLR        NT-Xent: cross-entropy of each view against its partner among all 2n - 1 others (Chen et al. 2020).

With fewer images than dimensions the squared sums over matrices are taken from the n x n Gram matrices instead,
|X' X|^2 = |X X'|^2 and |A' B|^2 = <A A', B B'>: the same numbers at n / D of the cost.

An objective is its function, its settings in `ObjectiveSettings` and its entry in `OBJECTIVES`; the three methods of
methods/self_supervised.py have it then (CONTRIBUTING.md adds one).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulvinar.core.config import setting
from pulvinar.core.errors import DegenerateError
from pulvinar.learning.precision import precise

ObjectiveName = Literal["vicreg", "barlow_twins", "simsiam", "simclr"]
Rows = Float[Tensor, "image dim"]
Scalar = Float[Tensor, ""]

VARIANCE_EPSILON = 1e-4
CORRELATION_EPSILON = 1e-5


def _require_images(rows: Tensor) -> None:
    if len(rows) < 2:
        raise DegenerateError(f"batch: {len(rows)} image(s); variances and covariances need 2 or more")


def invariance_term(first: Rows, second: Rows) -> Scalar:
    """Mean squared difference of the two views' embeddings."""
    return functional.mse_loss(precise(first), precise(second))


def variance_term(rows: Rows) -> Scalar:
    """v(x): mean over dimensions of relu(1 - standard deviation), unbiased variance, 1e-4 inside the root."""
    _require_images(rows)
    return torch.relu(1 - torch.sqrt(precise(rows).var(0) + VARIANCE_EPSILON)).mean()


def covariance_term(rows: Rows) -> Scalar:
    """c(x): sum of the squared off-diagonal covariances over the number of dimensions."""
    _require_images(rows)
    rows = precise(rows)
    n_images, n_dims = rows.shape
    centred = rows - rows.mean(0)
    gram = centred @ centred.T if n_images < n_dims else centred.T @ centred
    variances = centred.square().sum(0)
    return (gram.square().sum() - variances.square().sum()) / (n_images - 1) ** 2 / n_dims


def vicreg_terms(
    first: Rows, second: Rows, *, invariance_weight: float = 25.0, variance_weight: float = 25.0, covariance_weight: float = 1.0
) -> dict[str, Tensor]:
    """The three weighted terms of VICReg; the loss is their sum. An invariance weight of 0 leaves that term out."""
    return {
        "invariance": invariance_weight * invariance_term(first, second),
        "variance": variance_weight * (variance_term(first) + variance_term(second)),
        "covariance": covariance_weight * (covariance_term(first) + covariance_term(second)),
    }


def barlow_twins_terms(
    first: Rows, second: Rows, *, redundancy_weight: float = 0.0051, scale: float = 0.024
) -> dict[str, Tensor]:
    """The two weighted terms of Barlow Twins; the loss is their sum."""
    _require_images(first)
    a, b = (_standardised(precise(rows)) for rows in (first, second))
    n_images, n_dims = a.shape
    diagonal = (a * b).mean(0)
    squares = ((a @ a.T) * (b @ b.T)).sum() if n_images < n_dims else (a.T @ b).square().sum()
    return {
        "invariance": scale * (1 - diagonal).square().sum(),
        "redundancy": scale * redundancy_weight * (squares / n_images**2 - diagonal.square().sum()),
    }


def _standardised(rows: Tensor) -> Tensor:
    """Mean 0 and variance 1 (biased, 1e-5 inside the root) of every dimension, as batch-norm without weights."""
    return (rows - rows.mean(0)) * torch.rsqrt(rows.var(0, correction=0) + CORRELATION_EPSILON)


def simsiam_terms(first: Rows, second: Rows, *, predicted_first: Rows, predicted_second: Rows) -> dict[str, Tensor]:
    """Negative cosine of each prediction and the other view's embedding, whose gradient is stopped here."""
    cosine = functional.cosine_similarity(precise(predicted_first), precise(second).detach()).mean()
    other = functional.cosine_similarity(precise(predicted_second), precise(first).detach()).mean()
    return {"invariance": -(cosine + other) / 2}


def simclr_terms(first: Rows, second: Rows, *, temperature: float = 0.5) -> dict[str, Tensor]:
    """NT-Xent over both views of a batch."""
    _require_images(first)
    rows = functional.normalize(torch.cat([precise(first), precise(second)]))
    n_images = len(first)
    logits = rows @ rows.T / temperature
    itself = torch.eye(2 * n_images, dtype=torch.bool, device=rows.device)
    partner = torch.arange(2 * n_images, device=rows.device).roll(n_images)
    return {"contrast": functional.cross_entropy(logits.masked_fill(itself, -torch.inf), partner)}


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings:
    """Which objective, and what each has to set."""

    objective: ObjectiveName = setting("vicreg", "vicreg, barlow_twins, simsiam or simclr", heading="Objective")
    invariance: bool = setting(True, "VICReg's invariance term; without it the network collapses", counts="objective=vicreg")
    invariance_weight: float = setting(
        25.0,
        "of VICReg (paper: 25; its equation 1 mislabels the weights)",
        at_least=0,
        counts="objective=vicreg and invariance=true",
    )
    variance_weight: float = setting(
        25.0, "of VICReg, summed over the views (paper: 25; lightly's mu_param = 50)", at_least=0, counts="objective=vicreg"
    )
    covariance_weight: float = setting(1.0, "of VICReg (paper: 1)", at_least=0, counts="objective=vicreg")
    redundancy_weight: float = setting(0.0051, "of Barlow Twins (paper: 0.0051)", at_least=0, counts="objective=barlow_twins")
    barlow_scale: float = setting(
        0.024, "of Barlow Twins' whole loss (paper: 0.024)", at_least=0, counts="objective=barlow_twins"
    )
    temperature: float = setting(0.5, "of SimCLR", above=0, counts="objective=simclr")


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A loss of the two views' embeddings.

    terms: (settings, first, second) -> its terms by name, whose sum it is; with has_predictor also what the predictor makes of
    either view, and the network has a predictor, unscaled last norms and residual branches that start at zero (SimSiam's).
    """

    terms: Callable[..., dict[str, Tensor]]
    has_predictor: bool = False


OBJECTIVES: Mapping[ObjectiveName, Objective] = {
    "vicreg": Objective(
        terms=lambda settings, first, second: vicreg_terms(
            first,
            second,
            invariance_weight=settings.invariance_weight if settings.invariance else 0.0,
            variance_weight=settings.variance_weight,
            covariance_weight=settings.covariance_weight,
        )
    ),
    "barlow_twins": Objective(
        terms=lambda settings, first, second: barlow_twins_terms(
            first, second, redundancy_weight=settings.redundancy_weight, scale=settings.barlow_scale
        )
    ),
    "simsiam": Objective(
        terms=lambda settings, first, second, predicted_first, predicted_second: simsiam_terms(
            first, second, predicted_first=predicted_first, predicted_second=predicted_second
        ),
        has_predictor=True,
    ),
    "simclr": Objective(terms=lambda settings, first, second: simclr_terms(first, second, temperature=settings.temperature)),
}
