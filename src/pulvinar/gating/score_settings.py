"""How a self-supervised backbone is scored: `pulvinar evaluate RUN --set …`."""

from dataclasses import dataclass, fields
from typing import Any

from pulvinar.core.config import setting
from pulvinar.linear.linear_probe import Recipe
from pulvinar.linear.neighbours import Metric, Weighting


@dataclass(frozen=True, kw_only=True)
class ScoreSettings:
    """How features are scored; the defaults are the papers' neighbours and the solved linear probe.

    Pixels and controls get one probe seed with the exact recipe, which has no chance in it but the choice of the L2 weight.
    """

    k: int = setting(1, "nearest training images that vote (papers: 1)", at_least=1)
    metric: Metric = setting("euclidean", "between features: euclidean (papers) or cosine")
    normalised: bool = setting(
        False,
        "features at length 1 before the neighbours (papers: in the table of distillation alone)",
        counts="metric=euclidean",
    )
    weighting: Weighting = setting(
        "uniform", "of votes: uniform, distance (1 / distance) or exponential (exp(cosine / temperature))"
    )
    temperature: float = setting(0.1, "of exponential votes", above=0, counts="weighting=exponential")
    linear: Recipe = setting("exact", "linear probe: exact (solved) or faithful (the papers' SGD)")
    crops: bool = setting(False, "faithful probe: random crops and flips, new in each of its 100 epochs (papers)")
    probe_seeds: int = setting(5, "seeds of the linear probe (papers: 5)", at_least=1)
    batch_size: int = setting(256, "images that go through the network at once", at_least=1)

    def problems(self) -> list[str]:
        """What does not go together."""
        wrong = []
        if self.weighting == "exponential" and self.metric != "cosine":
            wrong.append("weighting=exponential is defined on the cosine; set metric=cosine too")
        if self.crops and self.linear != "faithful":
            wrong.append("crops=true is of the faithful linear probe; set linear=faithful too")
        return wrong

    def changed(self, usual: "ScoreSettings") -> dict[str, Any]:
        """What differs from the usual settings and may change a score."""
        names = [field.name for field in fields(self) if field.name != "batch_size"]
        return {name: getattr(self, name) for name in names if getattr(self, name) != getattr(usual, name)}
