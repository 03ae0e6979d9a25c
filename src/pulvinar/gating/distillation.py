"""Training of a student network towards a frozen teacher's features (SimReg, SEED), epoch by epoch, resumable bit for bit."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.core.config import LARGEST_SEED, setting
from pulvinar.core.devices import DeviceSetting
from pulvinar.gating.distillation_objective import seed_loss, simreg_loss
from pulvinar.learning.checkpoints import State
from pulvinar.learning.loop import EpochTrainer, Record, require_finite
from pulvinar.learning.optimizers import SGD, set_rates, warm_up_cosine
from pulvinar.learning.precision import Precision, autocast, precise
from pulvinar.learning.processes import gather_rows, n_processes, own_rows, rank, sum_gradients
from pulvinar.learning.views import ViewSettings, make_view
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.heads import Head

Objective = Literal["simreg", "seed"]
EPOCHS = {"simreg": 130, "seed": 200}
RATES = {"simreg": 10.0, "seed": 1.0}  # the papers' own leave a run of 30 epochs far behind: docs/log.md


@dataclass(frozen=True, kw_only=True)
class DistillationSettings(DeviceSetting):
    """Settings of the training of a student."""

    seed: int = setting(
        0, "initial weights, order of images, views", at_least=0, below=LARGEST_SEED, heading="Training of the student"
    )
    objective: Objective = setting("simreg", "simreg (regression on features) or seed (similarities to a queue)")
    epochs: int | None = setting(None, "passes over the images; none: 130 for simreg, 200 for seed (papers)", at_least=1)
    batch_size: int = setting(256, "images in a step (both papers, as we remember)", above=0)
    learning_rate: float | None = setting(
        None,
        "peak of SGD, falling on a cosine; none: 10 for simreg, 1 for seed (SimReg .05, SEED .03, as we remember)",
        above=0,
    )
    warm_share: float = setting(0.1, "share of the run in which the rate rises (SimReg: 0)", at_least=0, below=1)
    momentum: float = setting(0.9, "of SGD (both papers)", at_least=0, below=1)
    weight_decay: float = setting(1e-4, "of SGD, on all weights (both papers)", at_least=0)
    student_temperature: float = setting(0.2, "of SEED's student similarities (paper)", above=0, counts="objective=seed")
    teacher_temperature: float = setting(0.01, "of SEED's teacher similarities (paper)", above=0, counts="objective=seed")
    queue: int = setting(
        65_536,
        "teacher embeddings that SEED compares with (paper); at most the training images",
        above=0,
        counts="objective=seed",
    )
    precision: Precision = setting("auto", "float32, bfloat16, or auto: bfloat16 where the machine computes in it")

    @property
    def n_epochs(self) -> int:
        """Passes over the images, the papers' where none are given."""
        return EPOCHS[self.objective] if self.epochs is None else self.epochs

    @property
    def peak_rate(self) -> float:
        """The learning rate at the top of its schedule."""
        return self.learning_rate or RATES[self.objective]


def student_head(objective: Objective, n_features: int, n_teacher: int, generator: torch.Generator) -> Head:
    """From the student's features to the teacher's. SimReg: four linear layers; SEED: two."""
    hidden = [2 * n_features, n_features, 2 * n_features] if objective == "simreg" else [n_teacher]
    return Head([n_features, *hidden, n_teacher]).initialise(generator)


class DistillationTrainer(EpochTrainer):
    """Trains a student and its head on images (image, height, width, 3) uint8; the teacher stays as it is.

    Teacher and student see the same view of an image. SGD with momentum; the rate rises over `warm_share` of the run and falls
    on a cosine. The queue (SEED) starts with the teacher's embeddings of views of training images, and each batch replaces the
    oldest. Of several processes each takes its share of a batch; all draw the same numbers, so that the weights are those of
    one process.
    """

    def __init__(
        self,
        student: GatedResNet,
        teacher: nn.Module,
        images: np.ndarray,
        settings: DistillationSettings,
        views: ViewSettings,
        generator: torch.Generator,
        *,
        n_teacher: int,
    ) -> None:
        self.device = devices.current()
        self.settings, self.views, self.generator, self.images = settings, views, generator, images
        self.student = student.to(self.device).to(memory_format=torch.channels_last)
        self.teacher = teacher.to(self.device).eval()
        self.head = student_head(settings.objective, student.shape.n_features, n_teacher, generator).to(self.device)
        self.network = nn.ModuleDict({"student": self.student, "head": self.head})
        every = {"params": list(self.network.parameters()), "weight_decay": settings.weight_decay, "rate_share": 1.0}
        self.optimizer = SGD([every], lr=settings.peak_rate, momentum=settings.momentum)
        self.n_epochs = settings.n_epochs
        self.steps_per_epoch = max(1, len(images) // settings.batch_size)
        self.queue = torch.zeros(0, n_teacher, device=self.device)

    def run_epoch(self) -> Record:
        """One pass over the images. `DegenerateError` names the step where the loss is not finite."""
        if self.settings.objective == "seed" and not len(self.queue):
            self._fill_queue()
        self.network.train()
        order = torch.randperm(len(self.images), generator=self.generator)
        total = 0.0
        for step in range(self.steps_per_epoch):
            total += self._step(step, order[step * self.settings.batch_size :][: self.settings.batch_size])
        return self.end_epoch(total)

    def _step(self, step: int, rows: Tensor) -> float:
        settings = self.settings
        done = (self.epoch * self.steps_per_epoch + step) / (settings.n_epochs * self.steps_per_epoch)
        set_rates(self.optimizer, settings.peak_rate, warm_up_cosine(done, warm_share=settings.warm_share))
        view = self._view(own_rows(rows), part=(rank(), n_processes()))
        target = gather_rows(self._taught(view))
        with autocast(self.device, settings.precision):
            embedded = gather_rows(self.head(self.student(view).features))
        if settings.objective == "simreg":
            loss = simreg_loss(embedded, target)
        else:
            loss = seed_loss(
                embedded,
                target,
                self.queue,
                student_temperature=settings.student_temperature,
                teacher_temperature=settings.teacher_temperature,
            )
        require_finite(loss, f"epoch {self.epoch + 1}, step {step + 1} of {self.steps_per_epoch}")
        self.optimizer.zero_grad()
        loss.backward()
        sum_gradients(self.network.parameters())
        self.optimizer.step()
        if settings.objective == "seed":
            self.queue = torch.cat([self.queue[len(target) :], target])
        return loss.item()

    def _view(self, rows: Tensor, part: tuple[int, int] = (0, 1)) -> Tensor:
        images = torch.from_numpy(np.ascontiguousarray(self.images[rows.numpy()])).to(self.device)
        return make_view(images, self.views, self.generator, part=part).contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def _taught(self, view: Tensor) -> Tensor:
        with autocast(self.device, self.settings.precision):
            return precise(self.teacher(view))

    def _fill_queue(self) -> None:
        order = torch.randperm(len(self.images), generator=self.generator)[: self.settings.queue]
        self.queue = torch.cat([self._taught(self._view(rows)) for rows in order.split(self.settings.batch_size)])

    def state(self) -> State:
        """All that a bit-identical continuation needs."""
        return {**super().state(), "network": dict(self.network.state_dict()), "queue": self.queue}

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        super().restore(state)
        self.network.load_state_dict(state["network"])
        self.queue = state["queue"].to(self.device)
