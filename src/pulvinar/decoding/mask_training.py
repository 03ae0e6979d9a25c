"""Stage 1 of TROI: learn a voxel mask in front of a frozen network, and shrink the input layer as the mask empties.

Two ways, by `n_folds`:

- 1: mask M and input layer w are trained on the same trials (equation 6 of the paper).
- 2 or more (default 2): cross-fitting, ours. The trials are split by stimulus into folds; fold k has its own input layer
  w_k, trained on the other folds; M gets its gradient from fold k through w_k. A voxel that only helps to memorise the
  training trials then lowers no loss that M sees. (Planted world, 8,000 voxels, 600 trials: precision of the top 280 by the
  unsmoothed mask .52 with one fold, .92 with two; docs/log.md.)

Of several processes each trains the layers of its folds (at most as many processes as folds have work); the mask's gradient is
added up over them, so that a step sends one number a voxel. All draw the same numbers: the mask is that of one process.

Voxels at zero are cut out of w, of M, of their optimizer states and of the responses once per round.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.core.config import setting
from pulvinar.core.errors import InputError
from pulvinar.core.sampling import dealt_folds
from pulvinar.decoding.decoder_training import (
    Mixing,
    Rows,
    decoding_loss,
    draw_mixing,
    input_rate_share,
    on_voxels,
    rows_of,
    stack_mixings,
)
from pulvinar.decoding.settings import AdaptationSettings, DecodingSettings
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import EpochTrainer, Record, require_finite
from pulvinar.learning.optimizers import AdamW
from pulvinar.learning.precision import autocast
from pulvinar.learning.processes import is_first, n_processes, rank, send_from, summed
from pulvinar.learning.threads import threads_for
from pulvinar.networks.batch_norm import sum_over_processes
from pulvinar.networks.decoder import Decoded, DecoderShape, SharedDecoder
from pulvinar.selection.voxel_mask import Combine, Round, Schedule, close_round, voxel_budget

INPUT_SCALE = 0.3  # of `input_scale`, with which stage 2 starts (ours)
SEEDS_APART = 1009  # between the seeds of two batches of trials
NUMBERS_AT_ONCE = 2**20  # of the embedding, in what goes through the decoder together


@dataclass(frozen=True)
class LossRows:
    """Rows whose loss is asked for: outputs (row, n_outputs) of an input layer, their trials, how these were mixed, and the
    random numbers of a training pass (None: there are none, as in evaluation)."""

    outputs: Tensor
    trials: Tensor
    mixing: Mixing
    noise: Tensor | None


class MaskObjective(Protocol):
    """What comes behind the input layer."""

    n_outputs: int
    rows_at_once: int  # so many fit into memory

    def noise(self, n_rows: int, generator: torch.Generator) -> Tensor | None:
        """The random numbers (dropout) of a training pass over so many rows, (place, row, n_outputs)."""
        ...

    def losses(self, parts: Sequence[LossRows]) -> Tensor:
        """The loss of each part (part,)."""
        ...

    def largest_product(self, n_rows: int) -> int:
        """Multiply-adds of the largest matrix product that so many rows go through."""
        ...


class FrozenDecoder:
    """The objective of TROI's stage 1: hidden activities through the frozen decoder against the target embedding.

    All parts go through the decoder together; parts of equally many rows are compared with their targets together.
    """

    def __init__(self, shared: SharedDecoder, target: Rows, settings: DecodingSettings) -> None:
        for parameter in shared.parameters():
            parameter.requires_grad_(False)
        self.shared, self.target, self.settings = shared, target, settings
        self.n_outputs = shared.hidden
        self.rows_at_once = rows_at_once(shared.shape)

    def noise(self, n_rows: int, generator: torch.Generator) -> Tensor | None:
        """The factors of dropout."""
        return self.shared.draw_dropout(n_rows, generator)

    def largest_product(self, n_rows: int) -> int:
        """That of the decoder."""
        return self.shared.largest_product(n_rows)

    def losses(self, parts: Sequence[LossRows]) -> Tensor:
        """Equation 4 on each part."""
        order = sorted(range(len(parts)), key=lambda place: len(parts[place].outputs))
        placed = [parts[place] for place in order]
        outputs = torch.cat([part.outputs for part in placed])
        given = next((part.noise for part in placed if part.noise is not None), None)
        if given is not None:
            kept = given.new_ones(len(given), *max(part.outputs.shape for part in placed))
            noise = [kept[:, : len(part.outputs)] if part.noise is None else part.noise for part in placed]
            given = torch.cat(noise, dim=1)
        with autocast(outputs.device, self.settings.precision):
            decoded = self.shared.to(outputs.device)(outputs, given)
        losses, start = [], 0
        for n_rows, alike in itertools.groupby(placed, key=lambda part: len(part.outputs)):
            batch = list(alike)
            rows = slice(start, start := start + n_rows * len(batch))
            target = torch.stack([self.target[part.trials] for part in batch]).to(outputs.device)
            mixing = stack_mixings([part.mixing for part in batch]).to(outputs.device)
            own = Decoded(decoded.output[rows], decoded.projected[rows], decoded.regressed[rows])
            generators = [self._generator(part.trials) for part in batch]
            prior = self.shared.prior
            losses.append(decoding_loss(own, target, mixing, self.settings, prior=prior, generators=generators))
        return torch.cat(losses)[torch.tensor(order).argsort()]

    def _generator(self, trials: Tensor) -> torch.Generator:
        """Of a prior's noise: from the trials and the seed alone, so that a resumed run needs no state of it."""
        places = torch.arange(1, len(trials) + 1)
        return torch.Generator().manual_seed(int((trials * places).sum()) * SEEDS_APART + self.settings.seed)


def rows_at_once(shape: DecoderShape) -> int:
    """Rows that go through a decoder together in stage 1: their outputs are no more than NUMBERS_AT_ONCE numbers."""
    return max(1, NUMBERS_AT_ONCE // (shape.n_tokens * shape.dim))


@dataclass(frozen=True, kw_only=True)
class MaskSettings(AdaptationSettings):
    """Settings of stage 1, beside those of stage 2; the learning rate is that of the input layers too."""

    n_folds: int = setting(
        4,
        "cross-fitting folds of stage 1 (ours); 1 trains mask and layer on the same trials (paper)",
        above=0,
        heading="Stage 1: the mask",
    )
    n_rounds: int = setting(5, "rounds of stage 1 (paper: about 15 epochs in all)", above=0)
    epochs_per_round: int = setting(12, "passes over the trials in a round (ours)", above=0)
    mask_batch_size: int = setting(
        12, "trials of each fold in a step of stage 1 (ours; with one fold the paper has 24)", above=0
    )
    mask_learning_rate: float = setting(3e-3, "Adam rate of the mask (ours)", above=0)
    l1_weight: float = setting(
        1e-3, "psi, times the sum of the mask; above 8,000 voxels times 8000 / voxels (ours)", at_least=0
    )
    threshold: float = setting(0.1, "th: voxels at or below it are cut (ours)", at_least=0)
    low_pass: Combine = setting("geometric", "geometric (ours), smooth (paper), or none")
    schedule: Schedule = setting("geometric", "survivors per round: geometric path to the budget (ours) or threshold (paper)")
    shrink: bool = setting(True, "cut columns of empty voxels (false computes them all, for comparison)")


def folds_by_stimulus(stimulus_ids: Sequence[str], n_folds: int, generator: torch.Generator) -> Tensor:
    """A fold number per trial; all trials of a stimulus share it.

    Drawn as place % n_folds of a permutation of the stimuli as they first appear: the draw that published masks rest on.
    """
    unique = {name: number for number, name in enumerate(dict.fromkeys(stimulus_ids))}
    order = torch.randperm(len(unique), generator=generator).argsort().numpy()
    return torch.from_numpy(dealt_folds([unique[name] for name in stimulus_ids], order, n_folds))


def require_full_folds(folds: Tensor, n_folds: int) -> int:
    """Trials in the smallest fold; `InputError` if there are fewer than two."""
    smallest = int(torch.bincount(folds, minlength=n_folds).min())
    if smallest < 2:
        raise InputError(f"n_folds: {len(folds)} trials in {n_folds} folds leave a fold with {smallest}; 2 or more are needed")
    return smallest


class _Drawn(NamedTuple):
    """Trials of a fold, how they are mixed, and their noise, as `LossRows` has them."""

    trials: Tensor
    mixing: Mixing
    noise: Tensor | None


@dataclass(frozen=True)
class _Fold:
    """What a fold does in a step: rows that its layer learns from (the first `n_learning`) and that the mask is judged by,
    mixed responses (row, voxel) before the mask, and each of the two parts for the objective."""

    number: int
    n_learning: int
    responses: Tensor
    masked: Tensor
    parts: list[LossRows]


class MaskTrainer(EpochTrainer):
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
        self.device = device or devices.current()
        self.responses, self.folds, self.objective = responses, folds, objective
        self.low_pass, self.settings, self.generator = low_pass, settings, generator
        self.n_candidates = responses.shape[1]
        self.budget = voxel_budget(settings.n_voxels, self.n_candidates)
        self.kept = torch.ones(self.n_candidates, dtype=torch.bool)
        smallest = require_full_folds(folds, settings.n_folds)
        self.part_size = min(settings.mask_batch_size, smallest)
        self.steps_per_epoch = max(1, smallest // self.part_size)
        scale = INPUT_SCALE * settings.input_scale * self.n_candidates**-0.5
        shape = (self.n_candidates, objective.n_outputs)
        self.weights = [
            nn.Parameter(torch.empty(shape).normal_(0, scale, generator=generator).to(self.device))
            for _ in range(settings.n_folds)
        ]
        self.biases = [nn.Parameter(torch.zeros(objective.n_outputs, device=self.device)) for _ in range(settings.n_folds)]
        self.mask = nn.Parameter(torch.ones(self.n_candidates, device=self.device))
        self._make_optimizer()
        self.round, self.n_epochs = 1, settings.n_rounds * settings.epochs_per_round
        self.outcome: Round | None = None
        self.last_mask = np.ones(self.n_candidates, np.float32)

    def _make_optimizer(self) -> None:
        settings = self.settings
        groups = [
            {"params": self.weights, "lr": settings.learning_rate, "weight_decay": 0.0},
            {"params": self.biases, "lr": settings.learning_rate, "weight_decay": 0.0},
            {"params": [self.mask], "lr": settings.mask_learning_rate, "weight_decay": 0.0},
        ]
        self.optimizer = AdamW(groups, fused=True)
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
        with threads_for(self.part_size * self.settings.n_folds * self.weights[0].numel()):
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

    def note(self, record: Record | None) -> str:
        """Round, voxels and loss of the epoch."""
        return f"round {record['round']}, {record['n_alive']} voxels, {super().note(record)}" if record else ""

    def _step(self, parts: Sequence[Tensor]) -> np.ndarray:
        """One update of every input layer and of the mask; training loss and the loss that the mask saw.

        A layer is updated as soon as the mask has its gradient through it, so that one gradient exists at a time.
        """
        n_folds, losses = self.settings.n_folds, np.zeros(2)
        share = input_rate_share(self.n_alive)  # a voxel's weights, and with them its gradient, are as much smaller
        self.optimizer.param_groups[0]["lr"] = self.settings.learning_rate * share
        once = self.settings.l1_weight * share if is_first() else 0.0
        mask_gradient = torch.full_like(self.mask.detach(), once)  # d/dM of psi sum M, M >= 0
        at_once = max(1, self.objective.rows_at_once // (self.part_size * n_folds)) * n_processes()
        for start in range(0, n_folds, at_once):
            drawn = {number: self._draw(number, parts) for number in range(n_folds)[start : start + at_once]}
            folds = [self._fold(number, rows) for number, rows in drawn.items() if self._owner(number) == rank()]
            if not folds:
                continue
            rated = [part for fold in folds for part in fold.parts]
            with threads_for(self.objective.largest_product(sum(len(part.trials) for part in rated))):
                values = self.objective.losses(rated)
                require_finite(values.sum(), f"stage 1, round {self.round}, epoch {self.epoch + 1}")
                gradients = iter(torch.autograd.grad(values.sum(), [part.outputs for part in rated]))
            found = iter(values.tolist())
            for fold in folds:
                own = [next(gradients) for _ in fold.parts]
                judging = fold.responses[-len(own[-1]) :]
                to_responses = own[-1] @ self.weights[fold.number].detach().T  # (row, voxel)
                mask_gradient += (judging * to_responses).sum(0) / n_folds
                self._update_layer(fold, own[0])
                own_losses = [next(found) for _ in fold.parts]
                losses += [own_losses[0] / n_folds, own_losses[-1] / n_folds]
        self.mask.grad = sum_over_processes(mask_gradient)
        self.optimizer.step()
        self.mask.grad = None
        with torch.no_grad():
            self.mask.clamp_(min=0)
            if not self.settings.shrink:  # momentum would lift cut voxels off zero again
                self.mask.mul_(self.kept.to(self.device))
        return np.array(summed(losses.tolist()))

    def _owner(self, fold: int) -> int:
        """The process that trains the layer of a fold."""
        return fold % n_processes()

    def _draw(self, number: int, parts: Sequence[Tensor]) -> "list[_Drawn]":
        """The rows of a fold, those that its layer learns from first. With one fold the layer and the mask have the same."""
        others = [parts[other] for other in range(len(parts)) if other != number]
        drawn = []
        for place, trials in enumerate([torch.cat(others), parts[number]] if others else [parts[number]]):
            mixing = draw_mixing(len(trials), self.generator, beta=self.settings.mixing_beta)
            noise = self.objective.noise(len(trials), self.generator) if place == 0 else None
            drawn.append(_Drawn(trials, mixing, noise))
        return drawn

    @torch.no_grad()
    def _fold(self, number: int, drawn: "Sequence[_Drawn]") -> "_Fold":
        """The rows of a fold, through its layer."""
        sizes = [len(rows.trials) for rows in drawn]
        stacked = torch.cat([rows.mixing.apply(rows_of(self.responses, rows.trials)) for rows in drawn]).to(self.device)
        if not self.settings.shrink:
            stacked *= self.kept.to(self.device)
        masked = stacked * self.mask
        outputs = (masked @ self.weights[number] + self.biases[number]).split(sizes)
        rated = [LossRows(out.clone().requires_grad_(), *rows) for out, rows in zip(outputs, drawn, strict=True)]
        return _Fold(number, sizes[0], stacked, masked, rated)

    @torch.no_grad()
    def _update_layer(self, fold: _Fold, gradient: Tensor) -> None:
        """One optimizer step of a fold's layer. Its gradient is written into a buffer that all steps share: at 96,000
        voxels x 1,024 outputs, memory fresh from the system for every gradient took longer than its matrix product."""
        weight, bias = self.weights[fold.number], self.biases[fold.number]
        weight.grad = torch.mm(fold.masked[: fold.n_learning].T, gradient, out=self.gradient)
        bias.grad = gradient.sum(0)
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
            budget=self.budget,
            threshold=settings.threshold,
            round_number=self.round,
            n_rounds=settings.n_rounds,
            combine=settings.low_pass,
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
            return
        self.responses = on_voxels(self.responses, inside)
        self.gradient = torch.empty(int(inside.sum()), self.objective.n_outputs, device=self.device)
        inside = inside.to(self.device)
        for parameter in (*self.weights, self.mask):  # one tensor at a time, the old one freed before the next is cut
            parameter.data = parameter.data[inside]
            state = self.optimizer.state[parameter]
            for name in ("exp_avg", "exp_avg_sq"):
                if name in state:  # a fold of another process has none here
                    state[name] = state[name][inside]

    def _share_layers(self) -> None:
        """Every process has the layers of all folds, and what the optimizer knows of them, as their owners have them."""
        if n_processes() == 1:
            return
        for number, layer in enumerate(zip(self.weights, self.biases, strict=True)):
            for parameter in layer:
                state = self.optimizer.state[parameter]
                if not state:  # as AdamW begins
                    state |= {"step": torch.zeros((), device=self.device)}
                    state |= {name: torch.zeros_like(parameter.data) for name in ("exp_avg", "exp_avg_sq")}
                send_from(self._owner(number), [parameter.data, *(state[name] for name in ("step", "exp_avg", "exp_avg_sq"))])

    def state(self) -> State:
        """All that a bit-identical continuation needs, the current shapes among it."""
        self._share_layers()
        return {
            **super().state(),
            "round": self.round,
            "kept": self.kept,
            "weights": [weight.detach() for weight in self.weights],
            "biases": [bias.detach() for bias in self.biases],
            "mask": self.mask.detach(),
            "last_mask": torch.from_numpy(self.last_mask),
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave (of a trainer that was not done)."""
        self.round, self.kept = state["round"], state["kept"]
        if self.settings.shrink:
            self.responses = on_voxels(self.responses, self.kept)
        self.weights = [nn.Parameter(weight.to(self.device)) for weight in state["weights"]]
        self.biases = [nn.Parameter(bias.to(self.device)) for bias in state["biases"]]
        self.mask, self.last_mask = nn.Parameter(state["mask"].to(self.device)), state["last_mask"].numpy()
        self._make_optimizer()
        super().restore(state)

    def mean_input_weights(self) -> tuple[np.ndarray, Tensor, Tensor]:
        """Voxels still alive (indices), and the folds' mean weight (alive voxel, output), mask folded in, and bias."""
        self._share_layers()
        weight = torch.zeros_like(self.weights[0])
        for own in self.weights:  # not stacked: at full size one copy of all layers is gigabytes
            weight += own.detach() / len(self.weights)
        weight *= self.mask.detach()[:, None]
        bias = torch.stack([b.detach() for b in self.biases]).mean(0)
        return self.alive.numpy(), weight.cpu(), bias.cpu()
