"""The training loop of siamese networks: batches, views, steps, budget, checkpoints, collapse watch."""

import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulvinar.core import devices
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.gating.collapse import Watch, health
from pulvinar.gating.settings import SelfSupervisedConfig
from pulvinar.gating.settling import fix_gates
from pulvinar.gating.siamese import (
    GENERATORS,
    Branch,
    SiameseLoss,
    SiameseNetwork,
    cached_backward,
    generator_of,
    hard_share,
    total,
)
from pulvinar.learning.checkpoints import State, optimizer_state, restore_optimizer
from pulvinar.learning.loop import Record, require_finite
from pulvinar.learning.optimizers import make_optimizer, parameter_groups, set_rates, warm_up_cosine
from pulvinar.learning.precision import autocast
from pulvinar.learning.processes import gather_rows, n_processes, own_rows, rank, sum_gradients
from pulvinar.learning.views import make_view
from pulvinar.selection.budget import BudgetConstraint, tightness

N_HEALTH_IMAGES = 256
STEPS_BETWEEN_LOOKS = 20  # at the clock, for checkpoints
STEPS_OF_RATE = 1000  # a constraint's rate is given for a run of so many steps


def require_batch(n_images: int, config: SelfSupervisedConfig) -> None:
    """`InputError` where a batch cannot be filled, or not be divided."""
    if n_images < config.batch_size:
        raise InputError(
            f"batch_size: {config.batch_size} is more than the {n_images} training images; give {n_images} or less"
        )
    parts = n_processes() * config.micro_batches
    if config.batch_size % parts or config.batch_size // parts < 2:
        raise InputError(
            f"batch_size: {config.batch_size} cannot be divided over {n_processes()} processes x {config.micro_batches} "
            "micro-batches of 2 or more images each"
        )


class SiameseTrainer:
    """Trains a siamese network on images (image, height, width, 3) uint8, epoch by epoch; resumes bit for bit."""

    def __init__(
        self,
        network: SiameseNetwork,
        images: np.ndarray,
        config: SelfSupervisedConfig,
        *,
        device: torch.device | None = None,
    ) -> None:
        require_batch(len(images), config)
        self.device = device or devices.current()
        self.network = network.to(self.device).to(memory_format=torch.channels_last)
        self.images, self.config, self.views = images, config, config.views()
        self.loss = SiameseLoss(config, network.encoder(gated=True).macs)
        self.generators = {name: generator_of(name, config.seed) for name in GENERATORS}  # all processes draw the same
        gating = config.gating if network.gate_parameters() else None
        groups = parameter_groups(
            network,
            network.gate_parameters(),
            network.predictor,
            weight_decay=config.weight_decay,
            gate_rate=gating.gate_rate if gating else 1.0,
            vector_rate=config.vector_rate,
        )
        self.optimizer = make_optimizer(
            config.optimizer,
            groups,
            learning_rate=config.peak_rate,
            momentum=config.momentum,
            trust_coefficient=config.trust_coefficient,
        )
        self.steps_per_epoch = len(images) // config.batch_size
        self.n_steps = config.epochs * self.steps_per_epoch
        self.gating = gating
        self.constraint = self._constraint()
        fix_after = gating.fix_gates if gating else None
        self.fixing_step = None if fix_after is None else math.ceil(fix_after * self.n_steps)
        self.step_number = 0
        self.order = torch.empty(0, dtype=torch.long)
        self.sums: dict[str, float] = {}
        self.last_loss = math.nan
        self.watch = Watch()
        self.seconds, self.n_timed_steps, self.rate = 0.0, 0, 0.0
        self._run = torch.compile(network) if config.compiled else network

    def _constraint(self) -> BudgetConstraint | None:
        if self.gating is None or self.gating.budget_mode != "constraint":
            return None
        tight = tightness(self.gating.budget)
        return BudgetConstraint(
            budget=self.gating.budget,
            rate=self.gating.constraint_rate * tight**2 * STEPS_OF_RATE / self.n_steps,
            stiffness=self.gating.constraint_stiffness * tight,
            descent_share=self.gating.descent_share,
        )

    @property
    def epoch(self) -> int:
        """Whole epochs done."""
        return self.step_number // self.steps_per_epoch

    @property
    def done(self) -> bool:
        """Whether all steps are behind us."""
        return self.step_number >= self.n_steps

    @property
    def position(self) -> tuple[int, int]:
        """Steps that are behind us, and all of them."""
        return self.step_number, self.n_steps

    @property
    def done_share(self) -> float:
        """Share of the run that is behind us."""
        return self.step_number / self.n_steps

    def run(self) -> Iterator[Record | None]:
        """The steps that are left, a few at every turn; the record of an epoch that ended."""
        while not self.done:
            yield self.run_steps(STEPS_BETWEEN_LOOKS)

    def run_steps(self, n_steps: int | None = None) -> Record | None:
        """So many steps, or to the end of the epoch if that comes first; the epoch's record if it ended."""
        started, n_done, ended = time.monotonic(), 0, False
        self.network.train()
        while not ended and (n_steps is None or n_done < n_steps):
            self._one_step()
            n_done += 1
            ended = self.step_number % self.steps_per_epoch == 0
        took = time.monotonic() - started
        self.n_timed_steps, self.seconds = self.n_timed_steps + n_done, self.seconds + took
        self.rate = n_done * self.config.batch_size / max(1e-9, took)
        return self._record() if ended else None

    def _one_step(self) -> None:
        if self.gating is not None and self.step_number == self.fixing_step:
            encoder, margin = self.network.encoder(gated=True), self.gating.fix_margin
            fix_gates(encoder, self.images, self.views[0], budget=self.gating.budget, margin=margin)
        place = self.step_number % self.steps_per_epoch
        if place == 0:
            self.order = torch.randperm(len(self.images), generator=self.generators["order"])
        rows = own_rows(self.order[place * self.config.batch_size : (place + 1) * self.config.batch_size])
        views = self.draw_views(rows)
        terms, branches = self.step(views)
        self.last_loss = terms["loss"]
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        if place == self.steps_per_epoch - 1:
            self._look(branches)

    def draw_views(self, rows: Tensor) -> list[Tensor]:
        """The views of these images, this process's of a batch, on the device, channels last."""
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows.numpy()])).to(self.device, non_blocking=True)
        part = (rank(), n_processes())
        drawn = [make_view(images, view, self.generators["views"], part=part) for view in self.views]
        return [view.contiguous(memory_format=torch.channels_last) for view in drawn]

    def step(self, views: Sequence[Tensor]) -> tuple[dict[str, float], tuple[Branch, Branch]]:
        """One update from these views; the terms of the loss with `loss` and `mac_share`, and the branches.

        Raises `DegenerateError` that names the step where the loss is not finite; the weights are then still those before it.
        """
        config, done = self.config, self.done_share
        all_open = self.gating is not None and done < self.gating.gates_open_share
        swapped = config.swap_views and bool(torch.rand((), generator=self.generators["gates"]) < 0.5)
        options = {"all_open": all_open, "swapped": swapped}
        self.optimizer.zero_grad()

        def terms_of(branches: tuple[Branch, Branch]) -> dict[str, Tensor]:
            return self.loss.terms(branches, done=done, constraint=self.constraint, with_budget=not all_open)

        def forward(parts: Sequence[Tensor], generator: torch.Generator | None, **given: Any) -> tuple[Branch, Branch]:
            with autocast(self.device, self.config.precision):
                return self._run(parts, generator, **given)

        if config.micro_batches > 1:
            branches, terms = cached_backward(
                self.network,
                views,
                self.generators["gates"],
                terms_of,
                n_micro_batches=config.micro_batches,
                forward=forward,
                **options,
            )
            value = total(terms)
        else:
            branches = forward(views, self.generators["gates"], **options)
            terms = terms_of(branches)
            value = total(terms)
            value.backward()
        require_finite(value, f"step {self.step_number + 1} (epoch {self.epoch + 1})")
        sum_gradients(self.network.parameters())
        self._update(done)
        share = hard_share(branches)
        if self.constraint is not None and share is not None and not all_open:
            self.constraint.update(share, done)
        self.step_number += 1
        numbers = {name: float(term.detach()) for name, term in terms.items()} | {"loss": float(value.detach())}
        return numbers | ({"mac_share": share} if share is not None else {}), branches

    def _update(self, done: float) -> None:
        config = self.config
        set_rates(self.optimizer, config.peak_rate, warm_up_cosine(done, warm_share=config.warm_share))
        if config.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        self.optimizer.step()

    def _look(self, branches: tuple[Branch, Branch]) -> None:
        """Take the collapse watch's numbers from this batch."""
        parts = (branches[0].projected, branches[1].projected, branches[1].features)
        first, second, features = (gather_rows(part.detach())[:N_HEALTH_IMAGES] for part in parts)
        self.watch.see(health(features, first, second), epoch=self.epoch, n_images=len(first))

    def _record(self) -> Record:
        """Means over the epoch, and what the watch saw last."""
        record: Record = {"epoch": self.epoch, **{name: value / self.steps_per_epoch for name, value in self.sums.items()}}
        self.sums = {}
        if self.constraint is not None:
            record["multiplier"] = self.constraint.multiplier
        return record | self.watch.record()

    def images_per_second(self) -> float:
        """Images of this process's steps since it began, views included."""
        return self.config.batch_size * self.n_timed_steps / max(1e-9, self.seconds)

    def note(self, record: Record | None) -> str:
        """Loss and, under a budget, multiply-adds of the last step; images per second of the last steps."""
        average = None if self.constraint is None else self.constraint.average
        share = "" if average is None else f", MAC share {average:.3f}"
        return f"loss {self.last_loss:.3f}{share}, {self.rate:.0f} images/s"

    def state(self) -> State:
        """All that a bit-identical continuation needs. `DegenerateError` rather than weights that are not finite."""
        if not all(bool(torch.isfinite(value).all()) for value in self.network.state_dict().values()):
            raise DegenerateError(
                f"after step {self.step_number} some weights are not finite; the last checkpoint is kept. Lower learning_rate, "
                "or set clip_norm or precision=float32"
            )
        return {
            "step": self.step_number,
            "network": dict(self.network.state_dict()),
            "optimizer": optimizer_state(self.optimizer),
            "constraint": self.constraint.state() if self.constraint is not None else None,
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "order": self.order,
            "sums": self.sums,
            "watch": self.watch.state(),
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        self.step_number = state["step"]
        self.network.load_state_dict(state["network"])
        restore_optimizer(self.optimizer, [_moved(part, self.device) for part in state["optimizer"]])
        if self.constraint is not None:
            self.constraint.restore(state["constraint"])
        for name, drawn in state["generators"].items():
            if isinstance(drawn, list) and len(drawn) > 1:
                raise InputError("this run was begun by an earlier version on several processes; fit it anew")
            self.generators[name].set_state(drawn[0] if isinstance(drawn, list) else drawn)
        self.order, self.sums = state["order"], dict(state["sums"])
        self.watch.restore(state["watch"])


def _moved(state: State, device: torch.device) -> State:
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in state.items()}
