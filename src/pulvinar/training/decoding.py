"""Training of input layers, alone or with the shared decoder: batches, MixCo, the loss, the schedule.

Loss (TROI equations 2-4): contrastive, BiMixCo for the first `mixed_share` of the epochs and SoftCLIP afterwards, plus
`prior_weight` times the mean squared error of the regression head against the (mixed, eq. 3) image embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pulvinar.errors import DegenerateError
from pulvinar.models.decoder import Decoded, SharedDecoder, decayed_and_not
from pulvinar.objectives.contrastive import mixco_targets, similarity, soft_clip_targets, soft_cross_entropy
from pulvinar.training.checkpoints import State, optimizer_state, restore_optimizer

VOXELS_AT_FULL_RATE = 8000


@dataclass(frozen=True, kw_only=True)
class DecodingSettings:
    """What training of a decoder needs to know; methods fill it from their Config."""

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    mixed_share: float
    mixing_beta: float
    temperature: float
    soft_temperature: float
    prior_weight: float
    warm_share: float = 0.3
    clip_norm: float = 1.0
    schedule: str = "one_cycle"


@dataclass(frozen=True)
class Mixing:
    """How rows were mixed: weight_i x_i + (1 - weight_i) x_partner_i."""

    weight: Tensor
    partner: Tensor

    def apply(self, rows: Tensor) -> Tensor:
        """Rows (row, ...) mixed."""
        weight = self.weight.reshape(-1, *[1] * (rows.ndim - 1))
        return weight * rows + (1 - weight) * rows[self.partner]


def draw_mixing(n_rows: int, generator: torch.Generator, *, beta: float, mixed_rows: float = 0.5) -> Mixing:
    """Weights from Beta(beta, beta) for a share of the rows (half, as in MindEye2), else 1; partners are a permutation."""
    concentration = torch.full((2, n_rows), beta)
    gamma = torch._standard_gamma(concentration, generator=generator)
    weight = gamma[0] / gamma.sum(0).clamp_min(torch.finfo(gamma.dtype).tiny)
    mixed = torch.rand(n_rows, generator=generator) < mixed_rows
    return Mixing(torch.where(mixed, weight, 1.0), torch.randperm(n_rows, generator=generator))


def join_mixings(mixings: Sequence[Mixing]) -> Mixing:
    """One mixing over the stacked rows of several subjects; partners are moved by each subject's offset."""
    offsets = torch.tensor([0, *[len(m.weight) for m in mixings[:-1]]]).cumsum(0)
    return Mixing(
        torch.cat([m.weight for m in mixings]),
        torch.cat([m.partner + offset for m, offset in zip(mixings, offsets, strict=True)]),
    )


def decoding_loss(decoded: Decoded, target: Tensor, mixing: Mixing | None, settings: DecodingSettings) -> Tensor:
    """L = contrastive + prior_weight * mean squared error. BiMixCo where the rows were mixed, SoftCLIP where not."""
    if mixing is None:
        targets = soft_clip_targets(target, temperature=settings.soft_temperature)
        logits = similarity(decoded.projected, target, temperature=settings.soft_temperature)
        aim = target
    else:
        targets = mixco_targets(mixing.weight, mixing.partner)
        logits = similarity(decoded.projected, target, temperature=settings.temperature)
        aim = mixing.apply(target)
    error = (decoded.regressed.float() - aim).square().mean()
    return soft_cross_entropy(logits, targets) + settings.prior_weight * error


def learning_rate_share(step: int, n_steps: int, *, warm_share: float, schedule: str) -> float:
    """One-cycle with cosine arms: 1/25 -> 1 over `warm_share` of the steps, then -> 0. 'constant': 1."""
    if schedule == "constant":
        return 1.0
    done, warm = step / max(1, n_steps), max(1e-9, warm_share)
    if done < warm:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * done / warm)) / 2
    return max(1e-5, (1 + math.cos(math.pi * (done - warm) / (1 - warm))) / 2)


def input_rate_share(n_voxels: int) -> float:
    """By how much the rate of an input layer is lowered above 8,000 voxels: min(1, 8000 / n_voxels). Ours.

    Adam moves every weight by about its rate a step, so one step moves the layer's outputs in proportion to the voxels.
    (Measured at 96,000: stage 1 at rate 1e-3 diverged, at 1e-4 it selected with precision .985; docs/methods/troi_at_size.md.)
    """
    return min(1.0, VOXELS_AT_FULL_RATE / max(1, n_voxels))


def require_finite(loss: Tensor, where: str) -> None:
    """Raise `DegenerateError` if the loss is NaN or infinite."""
    if not torch.isfinite(loss):
        raise DegenerateError(f"{where}: the loss is {loss.item()}; lower the learning rate, or look at the responses' scale")


class DecoderTrainer:
    """Trains input layers (one per subject) and, where `train_shared`, what they share.

    data: per subject responses (trial, voxel) and target embedding (trial, dim). One step takes a batch of every subject.
    """

    def __init__(
        self,
        shared: SharedDecoder,
        layers: Sequence[nn.Linear],
        data: Sequence[tuple[Tensor, Tensor]],
        settings: DecodingSettings,
        generator: torch.Generator,
        *,
        train_shared: bool,
    ) -> None:
        self.shared, self.layers, self.data, self.settings = shared, list(layers), list(data), settings
        self.generator, self.train_shared = generator, train_shared
        for parameter in shared.parameters():
            parameter.requires_grad_(train_shared)
        matrices, vectors = decayed_and_not(shared.parameters() if train_shared else ())
        vectors += [layer.bias for layer in self.layers]
        groups = [
            {"params": [layer.weight], "weight_decay": settings.weight_decay, "rate_share": input_rate_share(layer.in_features)}
            for layer in self.layers
        ]
        groups += [
            {"params": part, "weight_decay": decay, "rate_share": 1.0}
            for part, decay in ((matrices, settings.weight_decay), (vectors, 0.0))
            if part
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)
        self.epoch = 0
        self.steps_per_epoch = max(1, min(len(x) for x, _ in self.data) // settings.batch_size)

    @property
    def done(self) -> bool:
        """Whether all epochs are behind us."""
        return self.epoch >= self.settings.epochs

    def run_epoch(self) -> float:
        """One pass over the smallest subject's trials; the mean loss."""
        orders = [torch.randperm(len(x), generator=self.generator) for x, _ in self.data]
        mixed = self.epoch < self.settings.mixed_share * self.settings.epochs
        total = 0.0
        for step in range(self.steps_per_epoch):
            total += self._step(step, orders, mixed=mixed)
        self.epoch += 1
        return total / self.steps_per_epoch

    def _step(self, step: int, orders: Sequence[Tensor], *, mixed: bool) -> float:
        size, settings = self.settings.batch_size, self.settings
        hidden, targets, mixings = [], [], []
        for (responses, target), layer, order in zip(self.data, self.layers, orders, strict=True):
            rows = order[step * size : (step + 1) * size]
            mixing = draw_mixing(len(rows), self.generator, beta=settings.mixing_beta) if mixed else None
            x = responses[rows] if mixing is None else mixing.apply(responses[rows])
            hidden.append(layer(x))
            targets.append(target[rows])
            mixings += [mixing] if mixing is not None else []
        decoded = self.shared(torch.cat(hidden), self.generator)
        loss = decoding_loss(decoded, torch.cat(targets), join_mixings(mixings) if mixed else None, settings)
        require_finite(loss, f"epoch {self.epoch + 1}")
        n_steps, now = settings.epochs * self.steps_per_epoch, self.epoch * self.steps_per_epoch + step
        share = learning_rate_share(now, n_steps, warm_share=settings.warm_share, schedule=settings.schedule)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.learning_rate * share * group["rate_share"]
        self.optimizer.zero_grad()
        loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, settings.clip_norm)
        self.optimizer.step()
        return loss.item()

    def state(self) -> State:
        """All that a bit-identical continuation needs."""
        return {
            "epoch": self.epoch,
            "shared": dict(self.shared.state_dict()),
            "layers": [dict(layer.state_dict()) for layer in self.layers],
            "optimizer": optimizer_state(self.optimizer),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        self.epoch = state["epoch"]
        self.shared.load_state_dict(state["shared"])
        for layer, weights in zip(self.layers, state["layers"], strict=True):
            layer.load_state_dict(weights)
        restore_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])


@torch.no_grad()
def decode(shared: SharedDecoder, layer: nn.Linear, responses: Tensor, *, rows_at_once: int = 1024) -> dict[str, Any]:
    """Projected and regressed embeddings (trial, dim) of single trials, without dropout."""
    parts = [shared(layer(responses[start : start + rows_at_once])) for start in range(0, len(responses), rows_at_once)]
    return {
        "projected": torch.cat([part.projected for part in parts]),
        "regressed": torch.cat([part.regressed for part in parts]),
    }
