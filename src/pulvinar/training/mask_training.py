"""Stage 1 of TROI: learn a voxel mask in front of a frozen network, and shrink the input layer as the mask empties.

Two ways, by `n_folds`:

- 1: mask M and input layer w are trained on the same trials (equation 6 of the paper).
- 2 or more (default 2): cross-fitting, ours. The trials are split by stimulus into folds; fold k has its own input layer
  w_k, trained on the other folds; M gets its gradient from fold k through w_k. A voxel that only helps to memorise the
  training trials then lowers no loss that M sees. (Planted world, 8,000 voxels, 600 trials: precision of the top 280 by the
  unsmoothed mask .52 with one fold, .92 with two; docs/log.md.)

Voxels at zero are cut out of w, of M, of their optimizer states and of the responses once per round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from pulvinar.errors import InputError
from pulvinar.models.decoder import SharedDecoder
from pulvinar.selection.voxel_mask import Combine, Round, Schedule, close_round
from pulvinar.training.checkpoints import State, optimizer_state, restore_optimizer
from pulvinar.training.decoding import Mixing, Rows, decoding_loss, draw_mixing, input_rate_share, require_finite
from pulvinar.training.decoding_settings import TrainingSettings
from pulvinar.training.precision import autocast, default_device


class MaskObjective(Protocol):
    """What comes behind the input layer."""

    n_outputs: int

    def loss(self, outputs: Tensor, trials: Tensor, mixing: Mixing, generator: torch.Generator | None) -> Tensor:
        """Scalar loss of input-layer outputs (row, n_outputs) for these trials, mixed so; with a generator, dropout is on."""
        ...


class FrozenDecoder:
    """The objective of TROI's stage 1: hidden activities through the frozen decoder against the target embedding."""

    def __init__(self, shared: SharedDecoder, target: Rows, settings: TrainingSettings) -> None:
        for parameter in shared.parameters():
            parameter.requires_grad_(False)
        self.shared, self.target, self.settings = shared, target, settings
        self.n_outputs = shared.hidden

    def loss(self, outputs: Tensor, trials: Tensor, mixing: Mixing, generator: torch.Generator | None) -> Tensor:
        """Equation 4 on these trials."""
        with autocast(outputs.device, self.settings.precision):
            decoded = self.shared.to(outputs.device)(outputs, generator)
        target = self.target[trials].to(outputs.device)
        return decoding_loss(decoded, target, mixing.to(outputs.device), self.settings)


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """Settings of stage 1; methods fill it from their Config."""

    budget: int
    n_rounds: int
    epochs_per_round: int
    batch_size: int
    learning_rate: float
    mask_learning_rate: float
    l1_weight: float
    threshold: float
    weight_decay: float
    input_scale: float
    mixing_beta: float
    n_folds: int = 2
    combine: Combine = "geometric"
    schedule: Schedule = "geometric"
    shrink: bool = True


def folds_by_stimulus(stimulus_ids: Sequence[str], n_folds: int, generator: torch.Generator) -> Tensor:
    """A fold number per trial; all trials of a stimulus share it."""
    unique = {name: number for number, name in enumerate(dict.fromkeys(stimulus_ids))}
    fold_of = torch.randperm(len(unique), generator=generator) % n_folds
    return fold_of[torch.tensor([unique[name] for name in stimulus_ids])]


def require_full_folds(folds: Tensor, n_folds: int) -> int:
    """Trials in the smallest fold; `InputError` if there are fewer than two."""
    smallest = int(torch.bincount(folds, minlength=n_folds).min())
    if smallest < 2:
        raise InputError(f"n_folds: {len(folds)} trials in {n_folds} folds leave a fold with {smallest}; 2 or more are needed")
    return smallest


@dataclass(frozen=True)
class _Pass:
    """Loss, mixed responses (row, voxel) before the mask, and the loss's gradient at the layer's outputs (row, output)."""

    loss: float
    responses: Tensor
    gradient: Tensor


class MaskTrainer:
    """Rounds of training of mask and input layers. `mask` (candidate voxel,) is over all voxels; cut ones are 0."""

    def __init__(
        self,
        responses: Tensor,
        folds: Tensor,
        objective: MaskObjective,
        low_pass: scipy.sparse.csr_array,
        settings: MaskSettings,
        generator: torch.Generator,
        *,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or default_device()
        self.responses, self.folds, self.objective = responses, folds, objective
        self.low_pass, self.settings, self.generator = low_pass, settings, generator
        self.n_candidates = responses.shape[1]
        self.kept = torch.ones(self.n_candidates, dtype=torch.bool)
        smallest = require_full_folds(folds, settings.n_folds)
        self.part_size = min(settings.batch_size, smallest)
        self.steps_per_epoch = max(1, smallest // self.part_size)
        scale = settings.input_scale * self.n_candidates**-0.5
        shape = (self.n_candidates, objective.n_outputs)
        self.weights = [
            nn.Parameter(torch.empty(shape).normal_(0, scale, generator=generator).to(self.device))
            for _ in range(settings.n_folds)
        ]
        self.biases = [nn.Parameter(torch.zeros(objective.n_outputs, device=self.device)) for _ in range(settings.n_folds)]
        self.mask = nn.Parameter(torch.ones(self.n_candidates, device=self.device))
        self._make_optimizer()
        self.round, self.epoch = 1, 0
        self.outcome: Round | None = None
        self.last_mask = np.ones(self.n_candidates, np.float32)

    def _make_optimizer(self) -> None:
        settings = self.settings
        groups = [
            {"params": self.weights, "lr": settings.learning_rate, "weight_decay": settings.weight_decay},
            {"params": self.biases, "lr": settings.learning_rate, "weight_decay": 0.0},
            {"params": [self.mask], "lr": settings.mask_learning_rate, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, fused=True)
        self.gradient = torch.empty_like(self.weights[0])

    @property
    def done(self) -> bool:
        """Whether the budget has been reached."""
        return self.outcome is not None

    @property
    def n_alive(self) -> int:
        """Voxels that are still in the running."""
        return int(self.kept.sum())

    @property
    def alive(self) -> Tensor:
        """Voxels that still have a column (indices): those in the running, or all of them without `shrink`."""
        return torch.nonzero(self.kept)[:, 0] if self.settings.shrink else torch.arange(self.n_candidates)

    def run_epoch(self) -> dict[str, float]:
        """One pass over the trials; the round is closed after its last epoch. Mean losses and counts."""
        pools = [torch.nonzero(self.folds == fold)[:, 0] for fold in range(self.settings.n_folds)]
        pools = [pool[torch.randperm(len(pool), generator=self.generator)] for pool in pools]
        totals = np.zeros(2)
        for step in range(self.steps_per_epoch):
            parts = [pool[step * self.part_size : (step + 1) * self.part_size] for pool in pools]
            totals += self._step(parts)
        self.epoch += 1
        record = {
            "round": self.round,
            "epoch": self.epoch,
            "loss": float(totals[0] / self.steps_per_epoch),
            "mask_loss": float(totals[1] / self.steps_per_epoch),
            "n_alive": self.n_alive,
            "density": self.n_alive / self.n_candidates,
            "mask_mean": float(self.mask.detach().mean()),
        }
        if self.epoch % self.settings.epochs_per_round == 0:
            self._close_round()
        return record

    def _step(self, parts: Sequence[Tensor]) -> np.ndarray:
        """One update of every input layer and of the mask; training loss and the loss that the mask saw.

        A layer is updated as soon as the mask has its gradient through it, so that one gradient exists at a time.
        """
        n_folds, losses = self.settings.n_folds, np.zeros(2)
        share = input_rate_share(self.n_alive)  # a voxel's weights, and with them its gradient, are as much smaller
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * share
        mask_gradient = torch.full_like(self.mask.detach(), self.settings.l1_weight * share)  # d/dM of psi sum M, M >= 0
        for fold in range(n_folds):
            others = [parts[other] for other in range(n_folds) if other != fold]
            training = self._pass(torch.cat(others or [parts[fold]]), fold, train=True)
            judging = self._pass(parts[fold], fold, train=False) if others else training
            to_responses = judging.gradient @ self.weights[fold].detach().T  # (row, voxel)
            mask_gradient += (judging.responses * to_responses).sum(0) / n_folds
            self._update_layer(fold, training)
            losses += [training.loss / n_folds, judging.loss / n_folds]
        self.mask.grad = mask_gradient
        self.optimizer.step()
        self.mask.grad = None
        with torch.no_grad():
            self.mask.clamp_(min=0)
            if not self.settings.shrink:  # momentum would lift cut voxels off zero again
                self.mask.mul_(self.kept.to(self.device))
        return losses

    def _pass(self, trials: Tensor, fold: int, *, train: bool) -> "_Pass":
        """Loss of these trials through a fold's layer, and its gradient at the layer's outputs."""
        mixing = draw_mixing(len(trials), self.generator, beta=self.settings.mixing_beta)
        responses = mixing.apply(self.responses[trials]).to(self.device)
        with torch.no_grad():
            outputs = (responses * self.mask) @ self.weights[fold] + self.biases[fold]
        outputs.requires_grad_()
        loss = self.objective.loss(outputs, trials, mixing, self.generator if train else None)
        require_finite(loss, f"stage 1, round {self.round}, epoch {self.epoch + 1}")
        return _Pass(loss.item(), responses, torch.autograd.grad(loss, outputs)[0])

    @torch.no_grad()
    def _update_layer(self, fold: int, training: "_Pass") -> None:
        """One optimizer step of a fold's layer. Its gradient is written into a buffer that all steps share: at 96,000
        voxels x 1,024 outputs, memory fresh from the system for every gradient took longer than its matrix product."""
        weight, bias = self.weights[fold], self.biases[fold]
        masked = training.responses * self.mask
        weight.grad = torch.mm(masked.T, training.gradient, out=self.gradient)
        bias.grad = training.gradient.sum(0)
        self.optimizer.step()
        weight.grad = bias.grad = None

    def full_mask(self) -> np.ndarray:
        """The mask over all candidates: float32 (candidate voxel,), cut voxels 0."""
        full = np.zeros(self.n_candidates, np.float32)
        full[self.alive.numpy()] = self.mask.detach().cpu().numpy()
        return full

    def _close_round(self) -> None:
        settings, self.last_mask = self.settings, self.full_mask()
        outcome = close_round(
            self.last_mask,
            self.low_pass,
            budget=settings.budget,
            threshold=settings.threshold,
            round_number=self.round,
            n_rounds=settings.n_rounds,
            combine=settings.combine,
            schedule=settings.schedule,
        )
        if outcome.path is not None:
            self.outcome = outcome
            return
        self._cut(torch.from_numpy(outcome.kept))
        self.round += 1

    def _cut(self, kept: Tensor) -> None:
        """Go on with these voxels only: slice weights, mask, optimizer states and responses once."""
        inside, self.kept = kept[self.alive], self.kept & kept
        if not self.settings.shrink:  # the same algorithm at full size, for comparison: cut voxels are held at zero
            with torch.no_grad():
                self.mask.mul_(inside.to(self.device))
            self.responses = self.responses * inside
            return
        self.responses = self.responses[:, inside].contiguous()
        self.gradient = torch.empty(int(inside.sum()), self.objective.n_outputs, device=self.device)
        inside = inside.to(self.device)
        for parameter in (*self.weights, self.mask):  # one tensor at a time, the old one freed before the next is cut
            parameter.data = parameter.data[inside]
            state = self.optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                state[name] = state[name][inside]

    def state(self) -> State:
        """All that a bit-identical continuation needs, the current shapes among it."""
        return {
            "round": self.round,
            "epoch": self.epoch,
            "kept": self.kept,
            "weights": [weight.detach() for weight in self.weights],
            "biases": [bias.detach() for bias in self.biases],
            "mask": self.mask.detach(),
            "last_mask": torch.from_numpy(self.last_mask),
            "optimizer": optimizer_state(self.optimizer),
            "generator": self.generator.get_state(),
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave (of a trainer that was not done)."""
        self.round, self.epoch, self.kept = state["round"], state["epoch"], state["kept"]
        shrink = self.settings.shrink
        self.responses = self.responses[:, self.kept].contiguous() if shrink else self.responses * self.kept
        self.weights = [nn.Parameter(weight.to(self.device)) for weight in state["weights"]]
        self.biases = [nn.Parameter(bias.to(self.device)) for bias in state["biases"]]
        self.mask, self.last_mask = nn.Parameter(state["mask"].to(self.device)), state["last_mask"].numpy()
        self._make_optimizer()
        restore_optimizer(self.optimizer, state["optimizer"])
        self.generator.set_state(state["generator"])

    def mean_input_weights(self) -> tuple[np.ndarray, Tensor, Tensor]:
        """Voxels still alive (indices), and the folds' mean weight (alive voxel, output), mask folded in, and bias."""
        weight = torch.zeros_like(self.weights[0])
        for own in self.weights:  # not stacked: at full size one copy of all layers is gigabytes
            weight += own.detach() / len(self.weights)
        weight *= self.mask.detach()[:, None]
        bias = torch.stack([b.detach() for b in self.biases]).mean(0)
        return self.alive.numpy(), weight.cpu(), bias.cpu()
