"""Batch-norm over the batches of all processes. On one process it is torch's own.

torch's SyncBatchNorm refuses CPU tensors; this one needs nothing but an all-reduce. Means and variances are those of the rows
of all processes together, and so are the gradients. Every process must hold the same number of rows.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch import distributed as processes
from torch.nn.modules.batchnorm import _BatchNorm

_ALONE: ContextVar[bool] = ContextVar("alone", default=False)


def n_processes() -> int:
    """Processes that train together; 1 without torch.distributed, and in a block that is done `alone`."""
    together = processes.is_available() and processes.is_initialized() and not _ALONE.get()
    return processes.get_world_size() if together else 1


@contextmanager
def alone() -> Iterator[None]:
    """A block that this process does as if there were no others."""
    token = _ALONE.set(True)
    try:
        yield
    finally:
        _ALONE.reset(token)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over all processes. Each process goes on from it by itself, so gradients are summed as well."""

    @staticmethod
    def forward(context, value):
        total = value.clone()
        processes.all_reduce(total)
        return total

    @staticmethod
    def backward(context, gradient):
        total = gradient.clone()
        processes.all_reduce(total)
        return total


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum over all processes, differentiable: what each of them does with it counts."""
    return _SumOverProcesses.apply(value) if n_processes() > 1 else value


class BatchNorm(_BatchNorm):
    """Batch-norm of (row, channel) or (image, channel, height, width)."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() not in (2, 4):
            raise ValueError(f"batch-norm takes 2 or 4 axes, {input.dim()} came")

    def forward(self, input: Float[Tensor, "row channel *place"]) -> Float[Tensor, "row channel *place"]:
        """(x - mean) / sqrt(variance + eps) weight + bias; in training with the statistics of all processes."""
        if not self.training or n_processes() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [axis for axis in range(input.dim()) if axis != 1]
        shape = [1, -1] + [1] * (input.dim() - 2)
        values = input if input.dtype == torch.float64 else input.float()
        n = values.numel() // values.shape[1] * n_processes()
        mean = sum_over_processes(values.sum(axes)) / n
        centred = values - mean.view(shape)
        variance = sum_over_processes(centred.square().sum(axes)) / n
        self._remember(mean.detach(), variance.detach() * n / max(1, n - 1))
        scaled = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)

    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        """Running statistics, as torch keeps them (unbiased variance)."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), rate)
        self.running_var.lerp_(variance.to(self.running_var.dtype), rate)


@contextmanager
def averaging(norms: Sequence[BatchNorm]) -> Iterator[None]:
    """Running statistics start anew and become the mean over all batches within; after it the norms are in evaluation mode."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch: the mean over all batches
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
