"""Several processes that train one network (torchrun): start, gather, sum. Every function does nothing on a single process.

Gradients. Every process computes the loss of the *whole* batch, from embeddings gathered over the processes, and keeps the
gradient of its own rows; summed over the processes (`sum_gradients`) this is the gradient of the whole batch. Batch-norm is
over the whole batch too (networks/batch_norm.py). Nothing is averaged.
"""

import os
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch import distributed as processes

from pulvinar.core import devices
from pulvinar.core.progress import REPORTER
from pulvinar.networks.batch_norm import n_processes

__all__ = [
    "agreed",
    "gather_rows",
    "is_first",
    "mean_over_processes",
    "n_processes",
    "own_rows",
    "rank",
    "start",
    "sum_gradients",
    "wait",
]


def start() -> None:
    """Join the processes that torchrun started, if it did and they have not been joined yet (gloo on CPU, nccl on GPU)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not processes.is_initialized():
        on_gpu = devices.current().type == "cuda"
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        processes.init_process_group("nccl" if on_gpu else "gloo")
        REPORTER.quiet = REPORTER.quiet or not is_first()


def rank() -> int:
    """Number of this process, from 0."""
    return processes.get_rank() if n_processes() > 1 else 0


def is_first() -> bool:
    """Whether this process writes files and shows progress."""
    return rank() == 0


def wait() -> None:
    """Until every process is here."""
    if n_processes() > 1:
        processes.barrier()


def agreed(decision: bool) -> bool:
    """What the first process decides, in every process."""
    if n_processes() == 1:
        return decision
    told = torch.tensor(float(decision and is_first()), device="cuda" if processes.get_backend() == "nccl" else "cpu")
    processes.all_reduce(told)
    return bool(told > 0)


def own_rows(rows: Tensor) -> Tensor:
    """This process's rows of a batch: consecutive, equally many in each process (what does not divide is left out)."""
    size = len(rows) // n_processes()
    return rows[rank() * size : (rank() + 1) * size]


class _Gather(torch.autograd.Function):
    """Rows of all processes, in their order; the gradient is that of the own rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(n_processes())]
        processes.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return own_rows(gradient)


class _Mean(torch.autograd.Function):
    """Mean over the processes; the gradient is divided by their number."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        total = value.clone()
        processes.all_reduce(total)
        return total / n_processes()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient / n_processes()


def gather_rows(rows: Tensor) -> Tensor:
    """The rows of all processes (process x row, dim), for a loss that every process computes in the same way."""
    return _Gather.apply(rows) if n_processes() > 1 else rows


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean over the processes of what each of them averaged over its own rows."""
    return _Mean.apply(value) if n_processes() > 1 else value


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in one message; a parameter without gradient counts as zero."""
    if n_processes() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    flat = torch.cat(parts)
    processes.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()


def gather_states(state: Tensor) -> list[Tensor]:
    """One tensor of equal shape from every process (generator states, for a checkpoint)."""
    if n_processes() == 1:
        return [state]
    parts = [torch.empty_like(state) for _ in range(n_processes())]
    processes.all_gather(parts, state)
    return parts
