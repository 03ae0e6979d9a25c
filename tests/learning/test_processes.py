"""Losses that span the batch, on two processes that gather their rows: values and gradients of one process, in float64.

Run as a script it prints the table: `uv run python tests/learning/test_processes.py`.
"""

import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from pulvinar.gating.objectives import barlow_twins_terms, simclr_terms, vicreg_terms
from pulvinar.learning.contrastive import info_nce, mixco_targets, similarity, soft_clip_targets, soft_cross_entropy
from pulvinar.learning.processes import gather_rows, own_rows, sum_gradients

N_ROWS, DIM, TOLERANCE = 12, 5, 1e-6


def _info_nce(first: Tensor, second: Tensor) -> Tensor:
    return info_nce(first, second, temperature=0.2, symmetric=True)


def _bimixco(first: Tensor, second: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    weight = torch.rand(len(first), generator=generator, dtype=first.dtype)
    targets = mixco_targets(weight, torch.randperm(len(first), generator=generator))
    return soft_cross_entropy(similarity(first, second, temperature=0.2), targets)


def _soft_clip(first: Tensor, second: Tensor) -> Tensor:
    targets = soft_clip_targets(second.detach(), temperature=0.2)
    return soft_cross_entropy(similarity(first, second, temperature=0.2), targets)


def _summed(terms: Callable[[Tensor, Tensor], dict[str, Tensor]]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda first, second: torch.stack(list(terms(first, second).values())).sum()


LOSSES = {
    "VICReg": _summed(vicreg_terms),
    "Barlow Twins": _summed(barlow_twins_terms),
    "SimCLR": _summed(simclr_terms),
    "InfoNCE": _info_nce,
    "BiMixCo": _bimixco,
    "SoftCLIP": _soft_clip,
}


def _of(name: str) -> Tensor:
    """Loss and gradient of a linear map that both views go through, from this process's rows: (1 + dim x dim,)."""
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, N_ROWS, DIM, dtype=torch.float64, generator=generator)
    weight = torch.randn(DIM, DIM, dtype=torch.float64, generator=generator).requires_grad_()
    loss = LOSSES[name](*(gather_rows(own_rows(view) @ weight) for view in (first, second)))
    loss.backward()
    sum_gradients([weight])
    assert weight.grad is not None
    return torch.cat([loss.detach()[None], weight.grad.flatten()])


def _process(rank: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    torch.save({name: _of(name) for name in LOSSES}, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def _on_two_processes() -> list[dict[str, Tensor]]:
    with tempfile.TemporaryDirectory() as folder, socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
        found.close()
        started = [subprocess.Popen([sys.executable, __file__, str(rank), port, folder]) for rank in range(2)]
        assert [process.wait(200) for process in started] == [0, 0]
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
def test_two_processes_have_losses_and_gradients_of_one():
    found = _on_two_processes()
    for name in LOSSES:
        expected = _of(name)
        assert expected[1:].abs().max() > 1e-3, name  # there is something to compare
        for of_rank in found:
            torch.testing.assert_close(of_rank[name], expected, rtol=TOLERANCE, atol=TOLERANCE, msg=name)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        _process(int(sys.argv[1]), sys.argv[2], sys.argv[3])
        sys.exit()
    sys.stdout.write(f"{'loss':14} {'one process':>14} {'two':>14} {'gradient, largest':>18} {'difference':>11}\n")
    of_first, of_second = _on_two_processes()
    for name in LOSSES:
        one, two = _of(name), of_first[name]
        apart = max(float((part[name] - one).abs().max()) for part in (of_first, of_second))
        sys.stdout.write(f"{name:14} {one[0]:14.9f} {two[0]:14.9f} {one[1:].abs().max():18.9f} {apart:11.1e}\n")
