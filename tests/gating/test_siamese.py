"""Oracles: the single process for two of them, the whole graph for gradient caching, lightly's loss for a step's loss."""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from lightly.loss import VICRegLoss

from pulvinar.gating.settings import GatedConfig
from pulvinar.gating.siamese import SiameseLoss, SiameseNetwork, cached_backward, hard_share, joined, total
from pulvinar.learning.processes import own_rows, sum_gradients
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.selection.budget import BudgetConstraint

OBJECTIVES = ("vicreg", "simsiam")
PASSES = {"dense": [["dense"]], "gated": [["gated"]], "dual": [["dense", "gated"]], "two": [["gated"], ["dense"]]}


def made(branches: str = "dual", *, simsiam: bool = False, seed: int = 0) -> SiameseNetwork:
    shape = resnet_shape("resnet18", size=16, width=0.0625)
    encoders = [GatedResNet(shape, size=16, passes=passes, gate_bias=0.0) for passes in PASSES[branches]]
    network = SiameseNetwork(encoders, branches=branches, projector=[12, 12], predictor_hidden=6 if simsiam else None)
    return network.initialise(torch.Generator().manual_seed(seed)).double()


def views(n: int = 8) -> list[torch.Tensor]:
    return [torch.randn((n, 3, 16, 16), generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (1, 2)]


def loss_of(**settings) -> SiameseLoss:
    config = GatedConfig(width=0.0625, budget=0.3, **settings)
    return SiameseLoss(config, count_macs(config.shape(16), 16))


def loss(objective: str = "vicreg") -> SiameseLoss:
    return loss_of(objective=objective, decide_weight=2.0, descent_share=0.0)


def constraint() -> BudgetConstraint:
    made = BudgetConstraint(budget=0.3, rate=0.1, stiffness=3.0, multiplier=0.7)
    made.update(0.45, 0.0)
    return made


def gradients(network: SiameseNetwork) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("branches", list(PASSES))
def test_branches_go_through_their_passes(branches):
    network = made(branches).train()
    first, second = network(views(), torch.Generator().manual_seed(0))
    assert (first.share is not None) == (branches != "dense")
    assert (second.share is not None) == (branches == "gated")
    total(loss().terms((first, second), done=0.1, constraint=constraint())).backward()
    norms = {name for name in gradients(network) if "norms" in name and "shortcut" not in name}
    assert any(".gated." in name for name in norms) == (branches != "dense")
    assert any(".dense." in name for name in norms) == (branches != "gated")
    assert len(network.projectors) == (2 if branches == "two" else 1)


def test_loss_is_lightlys_plus_the_budget():
    network = made().train()
    pair = network(views(), torch.Generator().manual_seed(0))
    terms = loss().terms(pair, done=0.1, constraint=constraint())
    theirs = VICRegLoss(lambda_param=25, mu_param=50, nu_param=1)(pair[0].projected, pair[1].projected)
    torch.testing.assert_close(terms["invariance"] + terms["variance"] + terms["covariance"], theirs)
    assert terms["budget"].item() == pytest.approx((0.7 + 0.1 * 0.15 + 3 * 0.15) * pair[0].share.item())
    assert hard_share(pair) == pytest.approx(pair[0].hard_share.item())
    parts = pair[0].rates.split(loss().gate_channels)
    assert terms["decide"].item() == pytest.approx(0.1 * 2 * sum((4 * p * (1 - p)).mean().item() for p in parts) / len(parts))


def test_gated_branches_both_pay_for_their_budget():
    network = made("gated").train()
    pair = network(views(), torch.Generator().manual_seed(0))
    penalty = loss_of(budget_mode="penalty", bound_weight=0.0)
    terms = penalty.terms(pair, done=0.1, constraint=None)
    expected = sum(5 * (branch.share.item() - 0.3) ** 2 for branch in pair)
    assert terms["budget"].item() == pytest.approx(expected)


def test_swapped_views_change_their_passes():
    network = made().eval()
    plain, swapped = (network(views(), None, swapped=flag) for flag in (False, True))
    other = network(views()[::-1], None)
    torch.testing.assert_close(swapped[0].features, other[0].features)
    assert not torch.equal(plain[0].features, swapped[0].features)


@pytest.mark.long
@pytest.mark.parametrize(
    ("objective", "branches"), [("vicreg", "gated"), ("barlow_twins", "dual"), ("simsiam", "gated"), ("simclr", "two")]
)
def test_gradient_caching_is_exact(objective, branches):
    """Oracle: all micro-batches in one graph."""
    whole, cached = (made(branches, simsiam=objective == "simsiam").train() for _ in range(2))
    objective_loss = loss(objective)

    def terms_of(pair):
        return objective_loss.terms(pair, done=0.05, constraint=constraint())

    generator = torch.Generator().manual_seed(5)
    parts = list(zip(*[view.chunk(2) for view in views()], strict=True))
    pairs = [whole(part, generator) for part in parts]
    expected = terms_of(tuple(joined([pair[n] for pair in pairs]) for n in (0, 1)))
    total(expected).backward()
    _, terms = cached_backward(cached, views(), torch.Generator().manual_seed(5), terms_of, n_micro_batches=2)
    for name, term in expected.items():
        torch.testing.assert_close(terms[name], term)
    theirs, ours = gradients(whole), gradients(cached)
    assert set(theirs) == set(ours)
    for name, gradient in theirs.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-10, atol=1e-12, msg=name)
    for (name, a), b in zip(whole.named_buffers(), cached.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def _gradients_of(objective: str) -> dict[str, torch.Tensor]:
    """Gradients, running statistics and hard share of one step on this process's rows."""
    network = made(simsiam=objective == "simsiam").train()
    pair = network([own_rows(view) for view in views()], torch.Generator().manual_seed(5))
    total(loss(objective).terms(pair, done=0.05, constraint=constraint())).backward()
    sum_gradients(network.parameters())
    state = gradients(network) | {f"buffer {name}": value for name, value in network.named_buffers()}
    return state | {"share": torch.tensor(hard_share(pair))}


def _process(rank: int, world: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": str(world)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world)
    for objective in OBJECTIVES:
        torch.save(_gradients_of(objective), Path(folder) / f"{objective}{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_are_one():
    """Batch-norm, embeddings, noise of the gates, budget, bound: gradients are those of one process with the whole batch."""
    with tempfile.TemporaryDirectory() as folder:
        port = str(_free_port())
        started = [subprocess.Popen([sys.executable, __file__, str(rank), "2", port, folder]) for rank in range(2)]
        assert [process.wait(120) for process in started] == [0, 0]
        for objective in OBJECTIVES:
            expected = _gradients_of(objective)
            for rank in (0, 1):
                state = torch.load(Path(folder) / f"{objective}{rank}.pt", weights_only=True)
                assert set(state) == set(expected)
                for name, value in expected.items():
                    torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-9, msg=name)


if __name__ == "__main__":  # one of the two processes of the test above
    _process(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
