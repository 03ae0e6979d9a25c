"""Is a self-supervised network collapsing? Three numbers about one batch, and what to do.

- spread: standard deviation of the unit-length features around their mean, over all dimensions together: near 1 for directions
  spread over the sphere, 0 where every image has the same features (Chen and He 2021, figure 2, draw its like).
- rank: effective rank of the centred features, exp(entropy of their covariance's eigenvalue shares) (Roy and Vetterli 2007).
- agreement: share of images whose second view lies nearer (cosine of centred embeddings) to their own first view than to any
  other image's; chance is 1 / n. Variance and covariance terms alone can keep spread and rank up while the views drift apart.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Health:
    """The three numbers."""

    spread: float
    rank: float
    agreement: float

    def record(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return {"feature_spread": self.spread, "feature_rank": self.rank, "view_agreement": self.agreement}


@torch.no_grad()
def health(features: Tensor, first: Tensor, second: Tensor) -> Health:
    """The three numbers from features (image, feature) and the two views' embeddings (image, dim)."""
    unit = functional.normalize(features.float(), dim=1)
    spread = unit.var(0).sum().sqrt()
    a, b = (functional.normalize(rows.float() - rows.float().mean(0), dim=1) for rows in (first, second))
    nearest = (b @ a.T).argmax(1)
    agreement = (nearest == torch.arange(len(a), device=a.device)).float().mean()
    return Health(float(spread), effective_rank(features), float(agreement))


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the covariance's eigenvalue shares; 0 for features without variance."""
    centred = features.double() - features.double().mean(0)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    values = torch.linalg.eigvalsh(gram).clamp_min(0)
    whole = float(values.sum())
    if whole <= 1e-20:
        return 0.0
    shares = values / whole
    return math.exp(float(-(shares * shares.clamp_min(1e-300).log()).sum()))


class Watch:
    """Looks at the health of a run and warns once when it is bad."""

    def __init__(self) -> None:
        self.last: Health | None = None
        self.warned = False

    def see(self, seen: Health, epoch: int) -> None:
        """Take in the health of a batch."""
        self.last = seen

    def record(self) -> dict[str, float]:
        """For metrics.jsonl."""
        return self.last.record() if self.last is not None else {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"last": None if self.last is None else asdict(self.last), "warned": self.warned}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.last = None if state["last"] is None else Health(**state["last"])
        self.warned = state["warned"]
