"""Several decoders with one frozen shared part, trained side by side: what each has in common is computed once for all.

Each keeps its own data, generator, input layer and optimizer, so that it becomes what it would alone (but for the rounding of
sums over more rows). With 24 rows a step much of the time goes into calls, not numbers: the eight controls of the planted world
took 51 ms of processor time a step one after the other, 27 together (docs/log.md). Small products leave the other cores idle,
so the decoders are trained in halves, each in a thread of its own.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from pulvinar.decoding.decoder_training import DecoderTrainer, DecodingLoss, stack_mixings
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.precision import autocast
from pulvinar.learning.threads import WORTH_THREADS, threads_for
from pulvinar.networks.decoder import DecoderShape

NUMBERS_AT_ONCE = 2**24  # weights of input layers, and outputs in a step; those of a group are in memory together


def groups(
    n_voxels: Sequence[int], shape: DecoderShape, settings: DecodingSettings, *, train_shared: bool
) -> list[list[int]]:  # fmt: skip
    """Which decoders, by their place among these input layers, are trained side by side: each alone where the shared part
    changes, otherwise as many as fit."""
    changes = train_shared or settings.lora_rank > 0 or settings.micro_batches > 1
    outputs = settings.batch_size * shape.n_tokens * shape.dim
    found: list[list[int]] = []
    for place in range(len(n_voxels)):
        group = [*found[-1], place] if found else [place]
        layers = sum(n_voxels[one] for one in group) * shape.hidden
        if not found or changes or max(layers, outputs * len(group)) > NUMBERS_AT_ONCE:
            found.append([place])
        else:
            found[-1] = group
    return found


def train(trainers: Sequence[DecoderTrainer]) -> Iterator[None]:
    """Train one group to the end, an epoch of each at every turn of the iterator. They have one subject each, the same
    settings and number of trials, and the same shared part."""
    largest = max(trainer.largest_product for trainer in trainers)
    parts = _halves(trainers) if largest < WORTH_THREADS and trainers[0].device.type == "cpu" else [trainers]
    with ThreadPoolExecutor(len(parts)) as pool:
        run = pool.map if len(parts) > 1 else map
        while not trainers[0].done:
            with threads_for(largest):
                list(run(_run_epoch, parts))
            yield
    for trainer in trainers:
        trainer.merge_updates()


def _halves(trainers: Sequence[DecoderTrainer]) -> list[Sequence[DecoderTrainer]]:
    """Two parts that go through about as many voxels a step, whatever the machine; what a decoder is trained beside decides
    the rounding of its sums."""
    if len(trainers) == 1:
        return [trainers]
    parts: tuple[list[DecoderTrainer], list[DecoderTrainer]] = ([], [])
    for trainer in sorted(trainers, key=lambda trainer: -trainer.layers[0].in_features):
        min(parts, key=lambda part: sum(one.layers[0].in_features + one.shared.hidden for one in part)).append(trainer)
    return list(parts)


def _run_epoch(trainers: Sequence[DecoderTrainer]) -> None:
    if len(trainers) == 1:
        trainers[0].run_epoch()
        return
    orders = [trainer.draw_orders() for trainer in trainers]
    for step in range(trainers[0].steps_per_epoch):
        _run_step(trainers, orders, step)
    for trainer in trainers:
        trainer.epoch += 1


def _run_step(trainers: Sequence[DecoderTrainer], orders: Sequence[Sequence[Tensor]], step: int) -> None:
    shared, settings = trainers[0].shared, trainers[0].settings
    batches = []
    for trainer, order in zip(trainers, orders, strict=True):
        batches.append(trainer.draw_batch(step, order))
        trainer.optimizer.zero_grad()
    mixings = [batch.mixing for batch in batches if batch.mixing is not None]
    targets = torch.stack([batch.target for batch in batches])
    objective = DecodingLoss.of(
        targets,
        stack_mixings(mixings) if mixings else None,
        settings,
        settings.soft_temperature_at(trainers[0].epoch),
        prior=shared.prior,
        generators=[trainer.generator for trainer in trainers],
    )
    drawn = [shared.draw_dropout(len(t.target), trainer.generator) for t, trainer in zip(batches, trainers, strict=True)]
    dropout = [factors for factors in drawn if factors is not None]
    with autocast(targets.device, settings.precision):
        hidden = torch.cat([t.into_hidden(batch.inputs) for t, batch in zip(trainers, batches, strict=True)])
        decoded = shared(hidden, torch.cat(dropout, dim=1) if dropout else None)
    losses = objective.loss(*objective.compare(decoded))
    losses.sum().backward()
    for trainer, loss in zip(trainers, losses.detach(), strict=True):
        trainer.update(loss, step)
