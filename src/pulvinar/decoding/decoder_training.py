"""Training of input layers, alone or with the shared decoder: batches, MixCo, the loss, the schedule.

Loss (TROI equations 2-4): contrastive, BiMixCo for the first `mixed_share` of the epochs and SoftCLIP afterwards, plus
`prior_weight` times the mean squared error of the regression head against the (mixed, eq. 3) image embedding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pulvinar.core import devices, memory
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.checkpoints import State
from pulvinar.learning.contrastive import Targets, mixco_targets, similarities, soft_clip_targets, soft_cross_entropy
from pulvinar.learning.gradient_caching import cached_gradients
from pulvinar.learning.loop import EpochTrainer, Record, require_finite
from pulvinar.learning.optimizers import AdamW
from pulvinar.learning.precision import Precision, autocast, precise
from pulvinar.learning.processes import gather_rows, n_processes, rank, sum_gradients
from pulvinar.learning.threads import threads_for
from pulvinar.networks import low_rank
from pulvinar.networks.decoder import Decoded, SharedDecoder, decayed_and_not
from pulvinar.networks.diffusion_prior import CONDITION_DROPOUT, DiffusionPrior

VOXELS_AT_FULL_RATE = 8000


class Rows(Protocol):
    """Something with a row per trial that gives float32 tensors (row, ...) of the rows that are asked for."""

    def __getitem__(self, rows: Tensor) -> Tensor: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Mixing:
    """How rows were mixed: weight_i x_i + (1 - weight_i) x_partner_i. Of several batches each its own: (batch, row)."""

    weight: Tensor
    partner: Tensor

    def apply(self, rows: Tensor) -> Tensor:
        """Rows (row, ...), or (batch, row, ...), mixed."""
        weight = self.weight.reshape(*self.weight.shape, *[1] * (rows.ndim - self.weight.ndim))
        batches = [torch.arange(len(rows), device=rows.device)[:, None]] if self.weight.ndim == 2 else []
        return torch.lerp(rows[(*batches, self.partner)], rows, weight.to(rows.dtype))

    def to(self, device: torch.device) -> "Mixing":
        """The same on another device."""
        return Mixing(self.weight.to(device), self.partner.to(device))


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


def stack_mixings(mixings: Sequence[Mixing]) -> Mixing:
    """One mixing over batches of equally many rows."""
    return Mixing(torch.stack([m.weight for m in mixings]), torch.stack([m.partner for m in mixings]))


@dataclass(frozen=True)
class DecodingLoss:
    """The loss of a batch: candidates (row, dim), the targets over them of each row and of each candidate (row, row), and what
    the regression head should give (row, dim). Parts of a batch may be compared one after the other.

    All may have one more axis in front, of batches of equally many rows with a loss each.
    """

    candidates: Tensor
    targets: Targets
    regression_target: Tensor
    temperature: float
    prior_weight: float
    denoising: "Denoising | None" = None

    @classmethod
    def of(
        cls,
        target: Tensor,
        mixing: Mixing | None,
        settings: DecodingSettings,
        soft_temperature: float | None,
        *,
        prior: DiffusionPrior | None = None,
        generators: Sequence[torch.Generator] = (),
    ) -> "DecodingLoss":
        """BiMixCo where the rows were mixed, SoftCLIP where not (soft_temperature: where it is not the settings' first one).

        prior: one that stands instead of the regression head; its noise is drawn here, from a generator for each batch.
        """
        if mixing is None:
            temperature, wanted = settings.soft_temperature if soft_temperature is None else soft_temperature, target
            targets = soft_clip_targets(target, temperature=temperature)
        else:
            temperature = settings.temperature
            targets, wanted = mixco_targets(mixing.weight, mixing.partner), mixing.apply(target)
        denoising = None if prior is None else Denoising.draw(prior, wanted, generators)
        return cls(target, targets, wanted, temperature, settings.prior_weight, denoising)

    def compare(self, decoded: Decoded, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (row, candidate) and mean squared error, in float32, of the outputs of these rows of the batch (None: all)."""
        with torch.autocast(self.regression_target.device.type, enabled=False):
            wanted = self.regression_target if rows is None else self.regression_target[rows]
            projected, regressed = (precise(part).view(wanted.shape) for part in (decoded.projected, decoded.regressed))
            logits = similarities(projected, self.candidates.to(projected.dtype), temperature=self.temperature)
            if self.denoising is not None:
                regressed = self.denoising.predict(precise(decoded.output).view(wanted.shape), rows)
            return logits, (regressed - wanted).square().mean((-2, -1))

    def loss(self, logits: Tensor, error: Tensor) -> Tensor:
        """Contrastive loss of all rows + prior_weight x their mean squared error."""
        return soft_cross_entropy(logits, self.targets) + self.prior_weight * error


@dataclass(frozen=True)
class Denoising:
    """What a diffusion prior is given beside its condition: noisy targets (row, dim), their steps, which rows see a condition.

    All may have one more axis in front, of batches.
    """

    prior: DiffusionPrior
    noisy: Tensor
    step: Tensor
    kept: Tensor

    @classmethod
    def draw(cls, prior: DiffusionPrior, target: Tensor, generators: Sequence[torch.Generator]) -> "Denoising":
        """Noise of each batch from its own generator."""
        batches = target.flatten(0, -3) if target.ndim > 2 else target[None]
        drawn = [
            prior.noised(batch, generator, condition_dropout=CONDITION_DROPOUT)
            for batch, generator in zip(batches, generators, strict=True)
        ]
        noisy, step, kept = (torch.stack(part).reshape(*target.shape[:-1], -1) for part in zip(*drawn, strict=True))
        return cls(prior, noisy, step[..., 0], kept)

    def predict(self, condition: Tensor, rows: Tensor | None = None) -> Tensor:
        """The clean targets, in the shape of the condition; rows: those of the batch that it is of."""
        noisy, step, kept = (part if rows is None else part[rows] for part in (self.noisy, self.step, self.kept))
        size = condition.shape[-1]
        made = self.prior(noisy.reshape(-1, size), step.reshape(-1), (condition * kept).reshape(-1, size))
        return made.view(condition.shape)


def decoding_loss(
    decoded: Decoded,
    target: Tensor,
    mixing: Mixing | None,
    settings: DecodingSettings,
    *,
    soft_temperature: float | None = None,
    prior: DiffusionPrior | None = None,
    generators: Sequence[torch.Generator] = (),
) -> Tensor:
    """L = contrastive + prior_weight * mean squared error, in float32, of a whole batch."""
    objective = DecodingLoss.of(target, mixing, settings, soft_temperature, prior=prior, generators=generators)
    return objective.loss(*objective.compare(decoded))


def input_rate_share(n_voxels: int) -> float:
    """By how much the rate of an input layer is lowered above 8,000 voxels: min(1, 8000 / n_voxels). Ours.

    Adam moves every weight by about its rate a step, so one step moves the layer's outputs in proportion to the voxels.
    (Measured at 96,000: stage 1 at rate 1e-3 diverged, at 1e-4 it selected with precision .985; docs/methods/troi_at_size.md.)
    """
    return min(1.0, VOXELS_AT_FULL_RATE / max(1, n_voxels))


class Batch(NamedTuple):
    """Rows of a step: responses (row, voxel) of every subject, target (row, token x dim) of all, and how rows were mixed."""

    inputs: list[Tensor]
    target: Tensor
    mixing: Mixing | None


class DecoderTrainer(EpochTrainer):
    """Trains input layers (one per subject) and, where `train_shared`, what they share.

    data: per subject responses (trial, voxel) and target embedding (trial, token x dim), the target in memory or read when
    asked for. One step takes a batch of every subject and has one loss over all of them; of several processes each takes its
    share of every subject's rows, and all draw the same numbers, so that the weights are those of one process. With
    `lora_rank` above 0, low-rank updates of a frozen shared decoder are trained too; `merge_updates` adds them in at the end.
    """

    def __init__(
        self,
        shared: SharedDecoder,
        layers: Sequence[nn.Linear],
        data: Sequence[tuple[Tensor, Rows]],
        settings: DecodingSettings,
        generator: torch.Generator,
        *,
        train_shared: bool,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or devices.current()
        self.shared, self.layers = shared.to(self.device), [layer.to(self.device) for layer in layers]
        self.data, self.settings = list(data), settings
        self.generator, self.train_shared = generator, train_shared
        for parameter in shared.parameters():
            parameter.requires_grad_(train_shared)
        trained = list(shared.parameters()) if train_shared else []
        self._adapted: Any = None
        if settings.lora_rank and not train_shared:
            seed = int(torch.randint(2**31, (), generator=generator))
            self._adapted = low_rank.add_adapters(shared, rank=settings.lora_rank, seed=seed)
            trained = [parameter for parameter in shared.parameters() if parameter.requires_grad]
        matrices, vectors = decayed_and_not(trained)
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
        self.optimizer = AdamW(groups, lr=settings.learning_rate, fused=True)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.n_epochs = settings.epochs
        self.steps_per_epoch = max(1, min(len(x) for x, _ in self.data) // settings.batch_size)

    def run_epoch(self) -> Record:
        """One pass over the smallest subject's trials."""
        orders, total = self.draw_orders(), 0.0
        with threads_for(self.largest_product):
            for step in range(self.steps_per_epoch):
                self.optimizer.zero_grad()
                total += self.update(self._backward(*self.draw_batch(step, orders)), step)
        return self.end_epoch(total)

    @property
    def largest_product(self) -> int:
        """Multiply-adds of the largest matrix product of a step."""
        rows = self.settings.batch_size
        return max(*(rows * layer.weight.numel() for layer in self.layers), self.shared.largest_product(rows * len(self.data)))

    def draw_orders(self) -> list[Tensor]:
        """Every subject's trials (indices), in the order of the coming epoch."""
        return [torch.randperm(len(x), generator=self.generator) for x, _ in self.data]

    def draw_batch(self, step: int, orders: Sequence[Tensor]) -> Batch:
        """The rows of a step."""
        size, settings = self.settings.batch_size, self.settings
        mixed = self.epoch < settings.n_mixed_epochs
        inputs, targets, mixings = [], [], []
        for (responses, target), order in zip(self.data, orders, strict=True):
            rows = order[step * size : (step + 1) * size]
            mixing = draw_mixing(len(rows), self.generator, beta=settings.mixing_beta) if mixed else None
            seen = rows_of(responses, rows)
            inputs.append((seen if mixing is None else mixing.apply(seen)).to(self.device))
            targets.append(target[rows])
            mixings += [mixing] if mixing is not None else []
        joined = join_mixings(mixings).to(self.device) if mixed else None
        return Batch(inputs, torch.cat(targets).to(self.device), joined)

    def update(self, loss: Tensor, step: int) -> float:
        """One step of the optimizer from the gradients there are of this loss; the loss."""
        self._set_rates(self.epoch * self.steps_per_epoch + step)
        where = f"epoch {self.epoch + 1}, step {step + 1} of {self.steps_per_epoch}"
        require_finite(loss, where)
        length = nn.utils.clip_grad_norm_(self.parameters, self.settings.clip_norm or math.inf)
        require_finite(length, where, what="length of the gradient")
        self.optimizer.step()
        return loss.item()

    def _set_rates(self, step: int) -> None:
        settings, n_steps = self.settings, self.settings.epochs * self.steps_per_epoch
        rate = settings.learning_rate_at(step / max(1, n_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_share"]

    def _backward(self, inputs: Sequence[Tensor], target: Tensor, mixing: Mixing | None) -> Tensor:
        """The loss over the rows of all subjects, with its gradients in the parameters.

        Every process goes through its own rows, with the dropout that they have in the whole batch.
        """
        settings, n_rows = self.settings, len(target)
        soft_temperature, prior = settings.soft_temperature_at(self.epoch), self.shared.prior
        objective = DecodingLoss.of(target, mixing, settings, soft_temperature, prior=prior, generators=[self.generator])
        dropout = self.shared.draw_dropout(n_rows, self.generator)
        shared_out, places_of = micro_batches(inputs, n_processes())
        own, places = shared_out[rank()], places_of[rank()]

        def compare(part: Sequence[Tensor], inside: Tensor) -> tuple[Tensor, Tensor]:
            rows = places[inside]
            decoded = self._forward(part, None if dropout is None else dropout[:, rows])
            return objective.compare(decoded, None if len(rows) == n_rows else rows.to(self.device))

        def loss_of(logits: Tensor, error: Tensor) -> Tensor:
            errors = gather_rows((len(places) / n_rows * error)[None])
            sizes, back = [len(part) for part in places_of], torch.cat(places_of).argsort().to(self.device)
            return objective.loss(gather_rows(logits, sizes)[back], errors.sum())

        if settings.micro_batches == 1:
            loss = loss_of(*compare(own, torch.arange(len(places))))
            loss.backward()
        else:
            parts, inside = micro_batches(own, settings.micro_batches)
            back = torch.cat(inside).argsort().to(self.device)
            shares = [len(part) / len(places) for part in inside]

            def loss_of_parts(outputs: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
                logits, errors = zip(*outputs, strict=True)
                return loss_of(torch.cat(logits)[back], sum(share * error for share, error in zip(shares, errors, strict=True)))

            loss = cached_gradients(
                list(zip(parts, inside, strict=True)),
                lambda part: compare(*part),
                loss_of_parts,
                detached=lambda out: (leaf(out[0]), leaf(out[1])),
                tensors=lambda out: out,
            )
        sum_gradients(self.parameters)
        return loss.detach()

    def _forward(self, inputs: Sequence[Tensor], dropout: Tensor | None) -> Decoded:
        """Rows of all subjects, stacked, through their layers and the shared decoder, with the factors of dropout."""
        with autocast(self.device, self.settings.precision):
            return self.shared(self.into_hidden(inputs), dropout)

    def into_hidden(self, inputs: Sequence[Tensor]) -> Tensor:
        """Rows of all subjects, stacked, through their layers."""
        return torch.cat([layer(x) for layer, x in zip(self.layers, inputs, strict=True)])

    def merge_updates(self) -> None:
        """Put low-rank updates, if there are any, into the weights of the shared decoder; for after the last epoch."""
        if self._adapted is not None:
            low_rank.merge(self._adapted)  # in place
            self._adapted = None

    def state(self) -> State:
        """All that a bit-identical continuation needs."""
        changes = self.train_shared or self.settings.lora_rank
        return {
            **super().state(),
            **({"shared": dict(self.shared.state_dict())} if changes else {}),  # a frozen one may be gigabytes
            "layers": [dict(layer.state_dict()) for layer in self.layers],
        }

    def restore(self, state: State) -> None:
        """Continue from what `state` gave."""
        super().restore(state)
        if "shared" in state:
            self.shared.load_state_dict(state["shared"])
        for layer, weights in zip(self.layers, state["layers"], strict=True):
            layer.load_state_dict(weights)


def rows_of(responses: Tensor, trials: Tensor) -> Tensor:
    """Responses of these trials (indices), in memory; from a scratch file some at a time."""
    if memory.limit() is None:
        return responses[trials]
    made = responses.new_empty(len(trials), responses.shape[1])  # of torch, whose rows begin where its products want them
    memory.take_rows(responses.numpy(), trials.numpy(), made.numpy())
    return made


def on_voxels(responses: Tensor, voxels: Tensor) -> Tensor:
    """Responses (trial, voxel) on some voxels, (voxel,) bool: a copy in memory or, where that is short, in a scratch file."""
    return torch.from_numpy(memory.take_columns(responses.numpy(), torch.nonzero(voxels)[:, 0].numpy()))


def leaf(values: Tensor) -> Tensor:
    """The same numbers as a leaf of a new graph."""
    return values.detach().requires_grad_()


def micro_batches(inputs: Sequence[Tensor], n_parts: int) -> tuple[list[list[Tensor]], list[Tensor]]:
    """Parts with about equally many rows of every subject (no more than the smallest one has), and the places of each part's
    rows in the whole batch."""
    n_parts = min(n_parts, *(len(x) for x in inputs))
    offsets = torch.tensor([0, *[len(x) for x in inputs[:-1]]]).cumsum(0)
    places = [torch.arange(len(x)) + offset for x, offset in zip(inputs, offsets, strict=True)]
    parts = [list(part) for part in zip(*[x.tensor_split(n_parts) for x in inputs], strict=True)]
    return parts, [torch.cat(part) for part in zip(*[place.tensor_split(n_parts) for place in places], strict=True)]


@torch.no_grad()
def decode(
    shared: SharedDecoder, layer: nn.Linear, responses: Tensor, *, rows_at_once: int = 1024, precision: Precision = "float32"
) -> dict[str, Any]:
    """Projected and regressed embeddings (trial, token x dim) of single trials, float32, without dropout.

    With a diffusion prior there is no regressed one: it is sampled (`SharedDecoder.reconstructed`), where it is asked for.
    """
    device = layer.weight.device
    projected, regressed = [], []
    for rows in responses.split(rows_at_once):
        with autocast(device, precision):
            decoded = shared(layer(rows.to(device)))
        projected.append(precise(decoded.projected).cpu())
        regressed.append(precise(decoded.regressed).cpu())
    found = {"projected": torch.cat(projected)}
    return found if shared.prior is not None else {**found, "regressed": torch.cat(regressed)}
