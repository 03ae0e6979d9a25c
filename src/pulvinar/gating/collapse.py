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

from pulvinar.core.progress import warn

SMALLEST_SPREAD, SMALLEST_RANK, TIMES_CHANCE, FIRST_EPOCH_OF_AGREEMENT = 0.05, 2.0, 5.0, 3
FEW_DIRECTIONS = 8.0  # rank of views that drift apart; measured without the invariance term 3 to 5, with it 12 and more


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
    """Looks at the health of a run once an epoch and warns once, with what to do, when it is bad. The rule is ours:

    - at any epoch: spread below .05 (one point), or rank below 2 (a line);
    - from the third epoch on: agreement at most five times chance while the spread is smaller than after the first epoch or the
      rank is below 8. (VICReg without its invariance term does one or the other; runs that learn slowly have low agreement too,
      but their spread grows and their rank is larger.)
    """

    def __init__(self) -> None:
        self.last: Health | None = None
        self.first: Health | None = None
        self.collapsing = False

    def see(self, seen: Health, *, epoch: int, n_images: int) -> None:
        """Take in the health of a batch of so many images at the end of this epoch (from 1)."""
        self.first, self.last = self.first or seen, seen
        reason = self._reason(seen, epoch, n_images)
        if reason and not self.collapsing:
            warn(f"epoch {epoch}: the network is collapsing: {reason}")
        self.collapsing = bool(reason)

    def _reason(self, seen: Health, epoch: int, n_images: int) -> str:
        """What is wrong and what to do; empty where nothing is."""
        if seen.spread < SMALLEST_SPREAD or seen.rank < SMALLEST_RANK:
            return (
                f"features have a spread of {seen.spread:.3f} and a rank of {seen.rank:.1f}. Raise variance_weight (VICReg) or "
                "batch_size, or lower learning_rate"
            )
        if epoch < FIRST_EPOCH_OF_AGREEMENT or seen.agreement > TIMES_CHANCE / n_images or self.first is None:
            return ""
        drift = f"two views of an image find each other in {seen.agreement:.3f} of cases (chance {1 / n_images:.3f}), and "
        advice = ". Keep invariance=true and raise its weight, or lower learning_rate"
        if seen.spread < self.first.spread:
            return f"{drift}features draw together (spread {seen.spread:.3f}, was {self.first.spread:.3f}){advice}"
        if seen.rank < FEW_DIRECTIONS:
            return f"{drift}features lie in few directions (rank {seen.rank:.1f}){advice}"
        return ""

    def record(self) -> dict[str, float | bool]:
        """For metrics.jsonl."""
        return self.last.record() | {"collapsing": self.collapsing} if self.last is not None else {}

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        healths = {name: None if seen is None else asdict(seen) for name, seen in (("first", self.first), ("last", self.last))}
        return {**healths, "collapsing": self.collapsing}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` gave."""
        self.first, self.last = (None if state[name] is None else Health(**state[name]) for name in ("first", "last"))
        self.collapsing = state["collapsing"]
