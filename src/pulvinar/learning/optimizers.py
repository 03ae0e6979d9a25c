"""LARS with clipping and exclusions, SGD and AdamW over the same parameter groups, and the warm-up cosine schedule.

LARS (You et al. 2017), with gradient g, weight decay d, trust coefficient c, rate r:

    trust = c |w| / (|g| + d |w| + 1e-8)   (1 where |w| or |g| is 0);   with clipping: trust <- min(trust / r, 1);
    v <- momentum v + trust (g + d w);     w <- w - r v.

Clipped, a step is no longer than c |w| and no longer than a plain one. Differs from lightly's LARS: it clips, and whether a
group is scaled is its own setting, so that gate parameters (no weight decay) are scaled as the papers' code does.

Groups: `weights` (matrices and convolutions: decayed, scaled), `gates` (their matrices: scaled, not decayed), `vectors` (biases
and batch-norms: neither), `predictor` (SimSiam's: as weights, at a constant rate).
"""

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

OptimizerName = Literal["lars", "sgd", "adamw"]
TINY = 1e-8


class _Uncompiled(Optimizer):
    """Torch's optimizers less the wrappers that import its compiler at their first call: 1.3 s of a start (docs/log.md)."""

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)


class Adam(_Uncompiled, torch.optim.Adam):
    """Torch's Adam."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.Adam.step))


class AdamW(_Uncompiled, torch.optim.AdamW):
    """Torch's AdamW."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))


class SGD(_Uncompiled, torch.optim.SGD):
    """Torch's SGD."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.SGD.step))


class LARS(_Uncompiled):
    """The rule above. Groups may set lr, weight_decay and `scaled` (whether the trust ratio is used; default true)."""

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.02,
        clip: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "clip": clip,
            "scaled": True,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients there are; parameters without one stay."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step_group(group, parameters)

    def _step_group(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        decay = group["weight_decay"]
        updates = torch._foreach_add(gradients, parameters, alpha=decay) if decay else [g.clone() for g in gradients]
        if group["scaled"]:
            torch._foreach_mul_(updates, list(self._trust(group, parameters, gradients).unbind()))
        velocities = []
        for parameter, update in zip(parameters, updates, strict=True):
            state = self.state[parameter]
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(update)
            velocities.append(state["velocity"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(parameters, velocities, alpha=-group["lr"])

    def _trust(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> Tensor:
        """Trust ratio of every parameter."""
        weights = torch.stack(torch._foreach_norm(parameters))
        slopes = torch.stack(torch._foreach_norm(gradients))
        trust = group["trust_coefficient"] * weights / (slopes + group["weight_decay"] * weights + TINY)
        if group["clip"]:
            trust = (trust / max(group["lr"], 1e-12)).clamp(max=1)
        return torch.where((weights > 0) & (slopes > 0), trust, torch.ones_like(trust))


def parameter_groups(
    network: nn.Module,
    gates: Iterable[nn.Parameter],
    predictor: nn.Module | None,
    *,
    weight_decay: float,
    gate_rate: float,
    vector_rate: float,
) -> list[dict[str, Any]]:
    """The groups above; empty ones are left out. gate_rate multiplies the rate of the gates, vector_rate that of vectors."""
    of_gates = {id(p) for p in gates}
    of_predictor = {id(p) for p in predictor.parameters()} if predictor is not None else set()
    groups: dict[str, dict[str, Any]] = {
        "weights": {"weight_decay": weight_decay, "scaled": True, "rate_share": 1.0},
        "vectors": {"weight_decay": 0.0, "scaled": False, "rate_share": vector_rate},
        "gates": {"weight_decay": 0.0, "scaled": True, "rate_share": gate_rate},
        "gate_vectors": {"weight_decay": 0.0, "scaled": False, "rate_share": gate_rate * vector_rate},
        "predictor": {"weight_decay": weight_decay, "scaled": True, "rate_share": 1.0, "constant": True},
        "predictor_vectors": {"weight_decay": 0.0, "scaled": False, "rate_share": vector_rate, "constant": True},
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for parameter in network.parameters():
        matrix = parameter.ndim > 1
        if id(parameter) in of_gates:
            name = "gates" if matrix else "gate_vectors"
        elif id(parameter) in of_predictor:
            name = "predictor" if matrix else "predictor_vectors"
        else:
            name = "weights" if matrix else "vectors"
        members[name].append(parameter)
    return [{"params": members[name], **options} for name, options in groups.items() if members[name]]


def make_optimizer(
    name: OptimizerName, groups: list[dict[str, Any]], *, learning_rate: float, momentum: float, trust_coefficient: float
) -> Optimizer:
    """The optimizer over these groups; `learning_rate` is the peak of the schedule."""
    if name == "lars":
        return LARS(groups, learning_rate, momentum=momentum, trust_coefficient=trust_coefficient)
    if name == "sgd":
        return SGD(groups, lr=learning_rate, momentum=momentum)
    return AdamW(groups, lr=learning_rate)


def warm_up_cosine(done: float, *, warm_share: float) -> float:
    """Share of the peak rate after this share of the run: linear from 0 over `warm_share`, then a cosine to 0."""
    if done < warm_share:
        return done / warm_share
    return (1 + math.cos(math.pi * min(1.0, (done - warm_share) / max(1e-9, 1 - warm_share)))) / 2


def one_cycle(done: float, *, warm_share: float) -> float:
    """Share of the peak rate after this share of the run, with cosine arms: 1/25 -> 1 over `warm_share`, then -> 0."""
    warm = max(1e-9, warm_share)
    if done < warm:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / warm)) / 2
    return max(1e-5, (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2)


def set_rates(optimizer: Optimizer, peak: float, share: float) -> None:
    """The rate of every group: peak x share of the schedule x the group's own share; a constant group ignores the schedule."""
    for group in optimizer.param_groups:
        group["lr"] = peak * group["rate_share"] * (1.0 if group.get("constant") else share)
