"""What training a decoder will need: parameters, memory and time, from shapes alone, before anything is trained.

Memory of a phase, in bytes, everything in float32:

    weights 4 P + gradients 4 T + AdamW's moments 8 T + activations + batch + data + process

P parameters in memory, T those that are trained; with bfloat16 each matrix has a copy of 2 bytes a number beside. Activations
are counted tensor by tensor as autograd keeps them (`_activations`); with micro-batches only targets are there for all rows.
Data are the trials: in memory (with a GPU in the computer's), or in scratch files (`core/memory.py`). Time is counted in
multiply-adds, in bytes that the optimizer moves and in steps, at the speed that this machine has in a test of a second.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import nn

from pulvinar.core import devices
from pulvinar.decoding.data import LARGEST_IN_MEMORY
from pulvinar.decoding.decoder_training import DecoderTrainer
from pulvinar.decoding.mask_training import MaskSettings, rows_at_once
from pulvinar.decoding.settings import DecodingSettings
from pulvinar.learning.optimizers import AdamW
from pulvinar.learning.precision import uses_bfloat16
from pulvinar.networks.decoder import DecoderShape, SharedDecoder, input_layer
from pulvinar.selection.voxel_mask import voxel_budget

FLOAT = 4


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One part of a fit: parameters (all in memory, those trained), bytes by kind, steps, and work and passes per step."""

    name: str
    n_parameters: int
    n_trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    batch: int
    data: int
    n_steps: int
    multiply_adds: float
    updated_bytes: float
    responses: tuple[int, ...] = ()  # of the data, those of each subject
    n_passes: int = 1

    @property
    def in_fit(self) -> int:
        """Bytes in this machine's memory beside the data; a resumed fit holds the weights of its checkpoint too."""
        on_cpu = devices.current().type == "cpu"
        return self.weights + (self.on_device if on_cpu else self.optimizer + self.batch)

    @property
    def on_device(self) -> int:
        """Bytes where the network computes: all but the data."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.batch

    @property
    def total(self) -> int:
        """Bytes in a process that computes on the CPU, without those of the process itself."""
        return self.on_device + self.data


@dataclass(frozen=True)
class Speed:
    """Multiply-adds a second in matrix products, bytes a second that an optimizer moves, and seconds of a step of nothing."""

    multiply_adds: float
    bytes: float
    step: float


@cache
def shared_parameters(shape: DecoderShape) -> tuple[int, int]:
    """Parameters of the shared decoder, and how many multiply-adds a row takes (tokens counted); nothing is allocated."""
    with torch.device("meta"):
        network = SharedDecoder(shape)
    n_parameters = sum(p.numel() for p in network.parameters())
    per_token = sum(p.numel() for part in (network.projector, network.regression) for p in part.parameters() if p.ndim > 1)
    once = sum(p.numel() for part in (network.blocks, network.output) for p in part.parameters() if p.ndim > 1)
    if shape.mixer == "compat":  # its layers over the sequence are 1 x 1 and act on every hidden unit
        once += 2 * shape.n_blocks * (shape.hidden - 1)
    return n_parameters, once + shape.n_tokens * per_token + _prior_multiply_adds(network)


def _prior_multiply_adds(network: SharedDecoder) -> int:
    """Of the diffusion prior for a row: its matrices for the condition's and the noisy tokens and the step, and attention."""
    shape = network.shape
    if network.prior is None:
        return 0
    tokens, width = 2 * shape.n_tokens + 1, shape.prior_heads * shape.prior_head_dim
    matrices = {
        name: p.numel()
        for name, p in network.prior.transformer.named_parameters()
        if p.ndim == 2 and not name.startswith("clip_")
    }
    once = sum(size for name, size in matrices.items() if name.startswith("time_"))
    inside = sum(size for name, size in matrices.items() if name.startswith("transformer_blocks"))
    outside = sum(matrices.values()) - once - inside  # into the width and out of it
    return once + tokens * inside + shape.n_tokens * outside + 2 * shape.prior_layers * tokens**2 * width


def low_rank_parameters(shape: DecoderShape, rank: int) -> int:
    """Parameters of updates of this rank beside every linear layer."""
    with torch.device("meta"):
        layers = [part for part in SharedDecoder(shape).modules() if isinstance(part, nn.Linear)]
    return sum(rank * (layer.in_features + layer.out_features) for layer in layers)


def training_phase(
    name: str,
    shape: DecoderShape,
    settings: DecodingSettings,
    *,
    n_voxels: Sequence[int],
    n_trials: Sequence[int],
    train_shared: bool,
) -> Phase:
    """Training of input layers (n_voxels and n_trials per subject), alone or with the shared decoder."""
    shared, per_row = shared_parameters(shape)
    layers = sum(n * shape.hidden + shape.hidden for n in n_voxels)
    updates = low_rank_parameters(shape, settings.lora_rank) if settings.lora_rank and not train_shared else 0
    trained = layers + updates + (shared if train_shared else 0)
    rows = len(n_voxels) * min(settings.batch_size, *n_trials)
    steps = settings.epochs * max(1, min(n_trials) // settings.batch_size)
    forwards = (2 if settings.micro_batches > 1 else 1) * per_row + (2 if train_shared else 1) * per_row
    half = uses_bfloat16(devices.current(), settings.precision)
    return Phase(
        name=name,
        n_parameters=shared + layers + updates,
        n_trained=trained,
        weights=FLOAT * (shared + layers + updates),
        gradients=FLOAT * trained,
        optimizer=2 * FLOAT * trained,
        activations=_activations(shape, rows, settings.micro_batches, half=half) + (2 * (shared + layers) if half else 0),
        batch=FLOAT * (sum(n_voxels) + 3 * max(n_voxels)) * (rows // len(n_voxels)),  # those of a subject while they are mixed
        data=_data(shape, n_voxels, n_trials),
        responses=_responses(n_voxels, n_trials),
        n_steps=steps,
        multiply_adds=rows * forwards + rows / len(n_voxels) * 2 * layers,
        updated_bytes=7 * FLOAT * trained,
        n_passes=settings.micro_batches,
    )


def mask_phase(shape: DecoderShape, settings: MaskSettings, *, n_voxels: int, n_trials: int) -> Phase:
    """Stage 1 of TROI: an input layer a fold in front of the frozen decoder. Memory is that of the first round, the largest."""
    n_folds, n_rounds = settings.n_folds, settings.n_rounds
    shared, per_row = shared_parameters(shape)
    layers = n_folds * (n_voxels * shape.hidden + shape.hidden) + n_voxels
    smallest = n_trials // n_folds
    part = min(settings.mask_batch_size, smallest)
    rows = part * max(1, n_folds - 1)
    passes = 2 if n_folds > 1 else 1
    together = min(n_folds, max(1, rows_at_once(shape) // (part * n_folds)))  # folds that go through the decoder at once
    per_epoch = max(1, smallest // part)
    alive = sum(
        (voxel_budget(settings.n_voxels, n_voxels) / n_voxels) ** (number / n_rounds) for number in range(n_rounds)
    )  # of the columns, in rounds
    work = per_row * 2 * (rows + (passes - 1) * part) * n_folds
    columns = n_voxels * shape.hidden * (2 * rows + passes * part) * n_folds
    half = uses_bfloat16(devices.current(), settings.precision)
    return Phase(
        name="stage 1",
        n_parameters=shared + layers,
        n_trained=layers,
        weights=FLOAT * (shared + layers),
        gradients=FLOAT * (n_voxels * shape.hidden),  # one buffer for all layers
        optimizer=2 * FLOAT * layers,
        activations=_activations(shape, together * part * n_folds, 1, half=half) + (2 * shared if half else 0),
        batch=(2 * together + 3) * FLOAT * n_voxels * part * n_folds,
        data=_data(shape, [n_voxels], [n_trials]),
        responses=_responses([n_voxels], [n_trials]),
        n_steps=n_rounds * settings.epochs_per_round * per_epoch,
        multiply_adds=work + columns * alive / n_rounds,
        updated_bytes=7 * FLOAT * layers * alive / n_rounds,
        n_passes=-(-n_folds // together),
    )


def _activations(shape: DecoderShape, rows: int, n_parts: int, *, half: bool) -> int:
    """Bytes that a step keeps from forward to backward, and the gradients that are there with them at the most."""
    width = shape.projector_width or (shape.hidden if shape.n_tokens == 1 else shape.dim)
    size = shape.n_tokens * shape.dim
    inside = 4 * size + 7 * shape.n_tokens * width + (6 * shape.n_blocks + 3) * shape.hidden
    if shape.prior_layers:
        tokens, wide = 2 * shape.n_tokens + 1, shape.prior_heads * shape.prior_head_dim
        inside += shape.prior_layers * tokens * (16 * wide + shape.prior_heads * tokens)  # maps of a layer, attention
    together = -(-rows // n_parts)
    of_all = 4 * size * rows if n_parts > 1 else 0  # targets, aims, and both of unit length
    number = 2 if half else FLOAT
    return number * inside * together + FLOAT * 9 * size * together + FLOAT * of_all


def _data(shape: DecoderShape, n_voxels: Sequence[int], n_trials: Sequence[int]) -> int:
    size = shape.n_tokens * shape.dim
    targets = [FLOAT * n * size for n in n_trials]
    return sum(_responses(n_voxels, n_trials)) + sum(target for target in targets if target <= LARGEST_IN_MEMORY)


def _responses(n_voxels: Sequence[int], n_trials: Sequence[int]) -> tuple[int, ...]:
    return tuple(FLOAT * n * v for n, v in zip(n_trials, n_voxels, strict=True))


def measure_speed(seconds: float = 0.25) -> Speed:
    """How fast this machine is, on the device that a fit would use."""
    device = devices.current()
    rows, size = 64, 1024
    left, right = torch.ones(rows, size, device=device), torch.ones(size, size, device=device)
    products = _repeats(lambda: left @ right, seconds, device)
    parameter = nn.Parameter(torch.ones(4_000_000, device=device))
    parameter.grad = torch.ones_like(parameter)
    optimizer = AdamW([parameter], lr=1e-6, fused=True)
    updates = _repeats(optimizer.step, seconds, device)
    return Speed(products * rows * size * size, updates * parameter.numel() * 7 * FLOAT, _seconds_of_a_small_step(seconds))


def _seconds_of_a_small_step(at_least: float) -> float:
    """What a step takes whose network is next to nothing: what Python and torch need by themselves."""
    generator = torch.Generator().manual_seed(0)
    shared = SharedDecoder(DecoderShape(hidden=16, dim=8, n_blocks=2, dropout=0.15))
    shared.initialise(generator)
    layer = input_layer(16, 16, generator, scale=0.1)
    settings = DecodingSettings(epochs=10**6, learning_rate=1e-6, mixed_share=1.0)
    data = [(torch.zeros(240, 16), torch.ones(240, 8))]
    trainer = DecoderTrainer(shared, [layer], data, settings, generator, train_shared=True)
    return 1 / (trainer.steps_per_epoch * _repeats(trainer.run_epoch, at_least, trainer.device))


def _repeats(work: Any, seconds: float, device: torch.device) -> float:
    """How often a second the work is done."""
    work()
    n_done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        n_done += 1
    return n_done / (time.perf_counter() - started)


def seconds(phase: Phase, speed: Speed) -> float:
    """Time of the phase's steps."""
    work = phase.multiply_adds / speed.multiply_adds + phase.updated_bytes / speed.bytes
    return phase.n_steps * (phase.n_passes * speed.step + work)


def as_dict(phase: Phase, speed: Speed) -> dict[str, Any]:
    """The phase as plain values, with its sums and its time."""
    return {**asdict(phase), "on_device": phase.on_device, "total": phase.total, "seconds": seconds(phase, speed)}
