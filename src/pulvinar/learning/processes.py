"""Several processes that train one network (torchrun): start, gather, sum. Every function does nothing on a single process.

Gradients. Every process computes the loss of the *whole* batch, from embeddings gathered over the processes, and keeps the
gradient of its own rows; summed over the processes (`sum_gradients`) this is the gradient of the whole batch. Batch-norm is
over the whole batch too (networks/batch_norm.py). Nothing is averaged.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor
from torch import distributed as processes

from pulvinar.core import devices
from pulvinar.core.errors import InputError
from pulvinar.core.progress import REPORTER
from pulvinar.networks.batch_norm import alone, n_processes

__all__ = [
    "agreed",
    "first_alone",
    "gather_rows",
    "is_first",
    "mean_over_processes",
    "n_processes",
    "own_rows",
    "rank",
    "require_rows",
    "send_from",
    "start",
    "sum_gradients",
    "summed",
    "wait",
]

LONGEST_WAIT = timedelta(days=7)  # for the first process, while it does alone what cannot be shared


def start() -> None:
    """Join the processes that torchrun started, if it did and they have not been joined yet (gloo on CPU, nccl on GPU)."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not processes.is_initialized():
        on_gpu = devices.current().type == "cuda"
        if on_gpu:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        processes.init_process_group("nccl" if on_gpu else "gloo", timeout=LONGEST_WAIT)
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


def first_alone(work: Callable[[], None]) -> None:
    """Work that cannot be shared: the first process does it as if there were no others, which wait for it."""
    if is_first():
        with alone():
            work()
    wait()


def _device() -> str:
    """Where small messages lie."""
    return "cuda" if processes.get_backend() == "nccl" else "cpu"


def agreed(decision: bool) -> bool:
    """What the first process decides, in every process."""
    return bool(summed([float(decision and is_first())])[0])


def summed(values: Sequence[float]) -> list[float]:
    """Each number added up over the processes."""
    if n_processes() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64, device=_device())
    processes.all_reduce(total)
    return total.tolist()


def send_from(sender: int, tensors: Iterable[Tensor]) -> None:
    """Overwrite these tensors, in every process, with those of one process."""
    if n_processes() > 1:
        for tensor in tensors:
            processes.broadcast(tensor, sender)


def require_rows(n_rows: int, what: str = "batch_size", *, equally: bool = False) -> None:
    """`InputError` where a batch has fewer rows than there are processes, or (`equally`) cannot be divided among them."""
    if n_rows < n_processes() or (equally and n_rows % n_processes()):
        how = "divided equally among" if equally else "shared by"
        raise InputError(f"{what}: {n_rows} rows of a batch cannot be {how} {n_processes()} processes")


def own_rows(rows: Tensor) -> Tensor:
    """This process's rows of a batch: consecutive, as many in each process as in the others, or one more."""
    return rows.tensor_split(n_processes())[rank()]


class _Gather(torch.autograd.Function):
    """Rows of all processes, in their order; the gradient is that of the own rows."""

    @staticmethod
    def forward(context: Any, rows: Tensor, sizes: Sequence[int]) -> Tensor:
        context.sizes = sizes
        padded = torch.cat([rows, rows.new_zeros(max(sizes) - len(rows), *rows.shape[1:])]).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        processes.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient.split(context.sizes)[rank()], None


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


def gather_rows(rows: Tensor, sizes: Sequence[int] | None = None) -> Tensor:
    """The rows of all processes (process x row, dim), for a loss that every process computes in the same way.

    sizes: how many rows each process has; None: equally many.
    """
    return _Gather.apply(rows, sizes or [len(rows)] * n_processes()) if n_processes() > 1 else rows


def mean_over_processes(value: Tensor) -> Tensor:
    """The mean over the processes of what each of them averaged over its own rows."""
    return _Mean.apply(value) if n_processes() > 1 else value


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all processes, in one message; a parameter without gradient in any of them stays without."""
    if n_processes() == 1:
        return
    parameters = [p for p in parameters if p.requires_grad]
    parts = [(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters]
    found = parts[0].new_tensor([p.grad is not None for p in parameters])
    flat = torch.cat([*parts, found])
    processes.all_reduce(flat)
    *summed_parts, found = flat.split([*(p.numel() for p in parameters), len(parameters)])
    for parameter, part, n_found in zip(parameters, summed_parts, found.tolist(), strict=True):
        parameter.grad = part.view_as(parameter).clone() if n_found else None
