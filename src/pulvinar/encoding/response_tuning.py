"""Tuning a network towards responses: one loop for the contrastive and the regression objective, one or several subjects.

Every step takes a batch of one subject, subjects in turn; its images go through the network, its responses through the head,
and the loss compares the two. After each epoch the loss on the validation images (training images that were held out) is taken;
the weights of the best epoch are what remains. Randomness of a step depends on the seed and the step alone, so that a resumed
run has the weights of an uninterrupted one. Batch-norms of the network keep their statistics (ours: batches are small, and
weights with batch-norm folded in have none to renew). Of several processes each takes its share of a batch, and the loss is
that of the whole; the weights are those of one process, but for dropout in the network, which each draws for itself.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from pulvinar.core import devices
from pulvinar.core.errors import DegenerateError
from pulvinar.core.progress import warn
from pulvinar.encoding.response_heads import ContrastiveHead, RegressionHead
from pulvinar.encoding.settings import TuningConfig
from pulvinar.learning.checkpoints import State, optimizer_state, restore_optimizer
from pulvinar.learning.loop import Record, require_finite
from pulvinar.learning.optimizers import Adam
from pulvinar.learning.precision import precise
from pulvinar.learning.processes import agreed, gather_rows, mean_over_processes, own_rows, rank, sum_gradients
from pulvinar.networks.staged_resnet import ResNetPass
from pulvinar.selection.budget import BudgetConstraint

SMALLEST_SPREAD = 0.05  # of unit-length embeddings, as gating.collapse has it
VALIDATION_BATCH = 256
STREAMS = 1_000_003  # seeds of steps lie apart by this
PROCESSES_APART = 2**48  # and those of processes by this


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedSubject:
    """Images (rows of the inputs) and responses (image, voxel) of one subject: those trained on, and those held out."""

    rows: np.ndarray
    responses: Tensor
    held_out_rows: np.ndarray
    held_out_responses: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedPart:
    """What is trained: `network` maps inputs to features (image, feature); `read` gives inputs of some rows (0 to n_images).

    parameters: those of the network that have gradients, by name. gates: the network's gated pass, if it has one.
    """

    network: nn.Module
    read: Callable[[np.ndarray], Tensor]
    n_images: int
    parameters: Mapping[str, nn.Parameter]
    gates: ResNetPass | None = None


class ResponseTuner:
    """Trains the part and the head; `run_steps` until `done`, then `finish`."""

    def __init__(
        self,
        part: TunedPart,
        head: ContrastiveHead | RegressionHead,
        subjects: Mapping[str, TunedSubject],
        settings: TuningConfig,
        *,
        constraint: BudgetConstraint | None = None,
    ) -> None:
        self.device = devices.current()
        self.part, self.head, self.subjects, self.settings = part, head.to(self.device), subjects, settings
        part.network.to(self.device)
        self.constraint = constraint
        groups = [
            {"params": list(part.parameters.values()), "lr": settings.learning_rate},
            {
                "params": [p for p in head.parameters() if p.requires_grad],
                "lr": settings.head_learning_rate or settings.learning_rate,
            },
        ]
        self.optimizer = Adam([group for group in groups if group["params"]])
        self.batch = {name: min(settings.batch_size, len(one.rows)) for name, one in subjects.items()}
        counts = {name: len(one.rows) // self.batch[name] for name, one in subjects.items()}
        self.turns = [name for turn in range(max(counts.values())) for name in subjects if turn < counts[name]]
        self.n_steps = settings.epochs * len(self.turns)
        self.step_number, self.stopped = 0, False
        self.sums = {"loss": 0.0, "spread": 0.0, "mac_share": 0.0}
        self.best: dict[str, Any] = {"epoch": 0, "loss": math.inf, "network": {}, "head": {}}
        self.warned = False
        self._order: tuple[int, list[tuple[str, np.ndarray]]] = (-1, [])

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step_number // len(self.turns)

    @property
    def done(self) -> bool:
        """Whether all epochs are behind us, or the validation loss has not fallen for `patience` epochs."""
        return self.stopped or self.step_number >= self.n_steps

    @property
    def chance(self) -> float:
        """The loss of a model that knows nothing: log(batch), or the mean square of the responses; mean over batches."""
        return float(np.mean([self.head.chance(self.batch[name], self.subjects[name].responses) for name in self.turns]))

    def _batches(self) -> list[tuple[str, np.ndarray]]:
        """(subject, its rows) of every step of this epoch."""
        if self._order[0] != self.epoch:
            generator = np.random.default_rng([self.settings.seed, 0x7E4E, self.epoch])
            parts = {
                name: iter(generator.permutation(len(one.rows))[: len(one.rows) // self.batch[name] * self.batch[name]].reshape(
                    -1, self.batch[name]
                ))
                for name, one in self.subjects.items()
            }  # fmt: skip
            self._order = (self.epoch, [(name, next(parts[name])) for name in self.turns])
        return self._order[1]

    @property
    def position(self) -> tuple[int, int]:
        """Steps that are behind us, and all of them."""
        return self.step_number, self.n_steps

    def run(self) -> Iterator[Record | None]:
        """The steps that are left, some seconds of them at every turn; the record of an epoch that ended."""
        while not self.done:
            yield self.run_steps()

    def run_steps(self, seconds: float = 2.0) -> Record | None:
        """Steps for about so long, or to the end of the epoch if that comes first; the epoch's record if it ended."""
        started = time.monotonic()
        while True:
            self._one_step(*self._batches()[self.step_number % len(self.turns)])
            self.step_number += 1
            if self.step_number % len(self.turns) == 0:
                return self._record()
            if agreed(time.monotonic() - started > seconds):
                return None

    def _train_mode(self) -> None:
        self.part.network.train()
        self.head.train()
        for module in self.part.network.modules():
            if isinstance(module, _BatchNorm):
                module.eval()

    def _one_step(self, subject: str, places: np.ndarray) -> None:
        one, devices = self.subjects[subject], [] if self.device.type == "cpu" else [self.device]
        self._train_mode()
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed * STREAMS + self.step_number + rank() * PROCESSES_APART)
            if self.part.gates is not None:
                seed = (self.settings.seed + 1) * STREAMS + self.step_number
                self.part.gates.generator = torch.Generator(self.device).manual_seed(seed)
            own = own_rows(torch.from_numpy(places)).numpy()
            ours, theirs = (gather_rows(side) for side in self._sides(one.rows[own], one.responses[own], subject))
            loss = self.head.loss(ours, theirs)
            budget = None if self.constraint is None else self.constraint.term(mean_over_processes(self._gates().share))
            total = loss if budget is None else loss + budget
            step, n_steps = self.step_number % len(self.turns) + 1, len(self.turns)
            require_finite(total, f"epoch {self.epoch + 1}, step {step} of {n_steps}")
            self.optimizer.zero_grad()
            total.backward()
            sum_gradients(parameter for group in self.optimizer.param_groups for parameter in group["params"])
            self.optimizer.step()
        if self.constraint is not None:
            share = float(mean_over_processes(self._gates().hard_share))
            self.constraint.update(share, self.step_number / self.n_steps)
            self.sums["mac_share"] += share
        self.sums["loss"] += float(loss.detach())
        self.sums["spread"] += spread(ours)

    def _gates(self) -> ResNetPass:
        if self.part.gates is None:
            raise DegenerateError("a budget of multiply-adds needs a network with gates")
        return self.part.gates

    def _sides(self, rows: np.ndarray, responses: Tensor, subject: str) -> tuple[Tensor, Tensor]:
        """The two sides to compare, float32; the network in bfloat16 where that is asked for."""
        inputs = self.part.read(rows).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            features = self.part.network(inputs)
        return self.head(precise(features), responses.to(self.device), subject)

    @torch.no_grad()
    def validation_loss(self) -> tuple[float, float] | None:
        """Mean loss over subjects and batches of their held-out images, and chance for these batches; None without any."""
        self.part.network.eval()
        self.head.eval()
        if self.part.gates is not None:
            self.part.gates.generator = None
        losses, chances = [], []
        for name, one in self.subjects.items():
            n_parts = -(-len(one.held_out_rows) // VALIDATION_BATCH)
            for places in np.array_split(np.arange(len(one.held_out_rows)), n_parts) if n_parts else ():
                sides = self._sides(one.held_out_rows[places], one.held_out_responses[places], name)
                losses.append(float(self.head.loss(*sides)))
                chances.append(self.head.chance(len(places), one.held_out_responses))
        return (float(np.mean(losses)), float(np.mean(chances))) if losses else None

    def _record(self) -> Record:
        """What metrics.jsonl says of the epoch that ended; keeps the weights if they are the best so far."""
        n, held_out = len(self.turns), self.validation_loss()
        record: dict[str, Any] = {"epoch": self.epoch, "loss": self.sums["loss"] / n, "chance": self.chance}
        if held_out is not None:
            record |= {"validation_loss": held_out[0], "validation_chance": held_out[1]}
        record["spread"] = self.sums["spread"] / n
        if isinstance(self.head, ContrastiveHead):
            record["temperature"] = float(self.head.temperature.detach())
        if self.constraint is not None:
            record["mac_share"] = self.sums["mac_share"] / n
        self.sums = dict.fromkeys(self.sums, 0.0)
        if record["spread"] < SMALLEST_SPREAD and not self.warned:
            self.warned = True
            warn(f"epoch {self.epoch}: embeddings draw together (spread {record['spread']:.3f}); lower learning_rate")
        score = record.get("validation_loss", -math.inf)  # without held-out images the last epoch counts
        if score < self.best["loss"] or held_out is None:
            self.best = {"epoch": self.epoch, "loss": score, **self._weights(copy=True)}
        patience = self.settings.patience
        self.stopped = held_out is not None and patience is not None and self.epoch - self.best["epoch"] >= patience
        return record

    def note(self, record: Record | None) -> str:
        """What the progress line says."""
        if record is None:
            return ""
        text = f"loss {record['loss']:.3f} (uninformative: {self.head.chance_is} {self.chance:.3f})"
        if "validation_loss" in record:
            text += f", held out {record['validation_loss']:.3f} of {record['validation_chance']:.3f}"
        return text + f", spread {record['spread']:.2f}"

    def _weights(self, *, copy: bool = False) -> dict[str, dict[str, Tensor]]:
        network = {name: value.detach() for name, value in self.part.parameters.items()}
        head = dict(self.head.state_dict())
        found = {"network": network, "head": head}
        return (
            {side: {name: value.clone() for name, value in values.items()} for side, values in found.items()} if copy else found
        )

    @torch.no_grad()
    def _load(self, weights: Mapping[str, Mapping[str, Tensor]]) -> None:
        for name, value in weights["network"].items():
            self.part.parameters[name].copy_(value)
        self.head.load_state_dict(weights["head"])

    def finish(self) -> dict[str, Any]:
        """The best epoch's weights in network and head, in evaluation mode; which epoch that was and its loss."""
        if self.best["epoch"]:
            self._load(self.best)
        self.part.network.eval()
        self.head.eval()
        if self.part.gates is not None:
            self.part.gates.generator = None
            self.part.gates.share = self.part.gates.hard_share = torch.ones(())
        loss = self.best["loss"]
        return {"best_epoch": self.best["epoch"], "validation_loss": loss if math.isfinite(loss) else None}

    def state(self) -> State:
        """All that a bit-identical continuation needs."""
        return {
            "step": self.step_number,
            "stopped": self.stopped,
            "sums": self.sums,
            "warned": self.warned,
            "now": self._weights(),
            "best": {**self.best, "loss": self.best["loss"] if math.isfinite(self.best["loss"]) else None},
            "optimizer": optimizer_state(self.optimizer),
            "constraint": None if self.constraint is None else self.constraint.state(),
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        self.step_number, self.stopped, self.warned = int(state["step"]), state["stopped"], state["warned"]
        self.sums = dict(state["sums"])
        self._load(state["now"])
        self.best = dict(state["best"])
        if self.best["loss"] is None:
            self.best["loss"] = math.inf if self.best["epoch"] == 0 else -math.inf
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.constraint is not None and state["constraint"] is not None:
            self.constraint.restore(state["constraint"])


@torch.no_grad()
def spread(embeddings: Tensor) -> float:
    """Standard deviation of unit-length rows around their mean, over all dimensions together: near 1, or 0 when collapsed."""
    return float(functional.normalize(embeddings.detach().float(), dim=1).var(0).sum().sqrt())
