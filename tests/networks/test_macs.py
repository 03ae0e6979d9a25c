"""Oracles: the papers' totals, torch's FlopCounterMode / 2 on networks that are really narrow, finite differences."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.macs import count_macs
from pulvinar.networks.resnet_shape import resnet_shape

NETWORKS = [
    ("resnet18", 32, "cifar", 0.25, "conv2"),
    ("resnet18", 64, "papers", 0.5, "conv2"),
    ("resnet34", 96, "auto", 0.125, "conv2"),
    ("resnet50", 32, "auto", 0.125, "both"),
    ("resnet50", 96, "imagenet", 0.125, "conv1"),
    ("resnet50", 33, "papers", 0.125, "conv2"),
]


def counted(network: torch.nn.Module, size: int, **options) -> int:
    """Multiply-adds of convolutions and matrix products by torch's counter, one image."""
    network.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, size, size), **options)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(("size", "expected"), [(32, 703_560_448), (96, 333_103_104), (224, 1_813_561_344)])
def test_dense_totals_are_the_papers(size, expected):
    macs = count_macs(resnet_shape("resnet18", size=size, stem="papers"), size)
    assert macs.dense == expected
    assert macs.gates == 240_640


def test_padding_one_gives_the_usual_count_of_resnet18_at_32_pixels():
    assert count_macs(resnet_shape("resnet18", size=32, stem="cifar"), 32).dense == 555_417_600


@pytest.mark.long
@pytest.mark.parametrize(("name", "size", "stem", "width", "gated_convs"), NETWORKS)
def test_dense_and_gates_are_what_torch_counts(name, size, stem, width, gated_convs):
    shape = resnet_shape(name, size=size, stem=stem, width=width, gated_convs=gated_convs)
    macs = count_macs(shape, size)
    network = GatedResNet(shape, size=size)
    assert macs.dense == counted(network, size)
    assert macs.dense + macs.gates == counted(network, size, gated=True)  # masks save nothing by themselves


@pytest.mark.long
@pytest.mark.parametrize("group", [3, 16])
def test_gates_that_decide_on_groups_are_what_torch_counts(group):
    shape = resnet_shape("resnet50", size=32, width=0.125, gated_convs="both", gate_group=group)
    macs = count_macs(shape, 32)
    assert macs.dense + macs.gates == counted(GatedResNet(shape, size=32), 32, gated=True)
    assert macs.gates < count_macs(resnet_shape("resnet50", size=32, width=0.125, gated_convs="both"), 32).gates


@pytest.mark.parametrize(("name", "size", "stem", "width", "gated_convs"), NETWORKS)
def test_open_channels_cost_what_a_really_narrow_network_costs(name, size, stem, width, gated_convs):
    shape = resnet_shape(name, size=size, stem=stem, width=width, gated_convs=gated_convs)
    generator = torch.Generator().manual_seed(0)
    counts = [int(torch.randint(0, n + 1, (), generator=generator)) for n in shape.gate_channels]
    remaining = list(counts)
    inner = [[remaining.pop(0) if n in block.gated else width for n, width in enumerate(block.inner)] for block in shape.blocks]
    narrow = GatedResNet(shape.with_inner(inner), size=size, passes=("dense",))
    macs = count_macs(shape, size)
    ours = macs.per_image([torch.tensor([float(count)]) for count in counts])
    assert int(ours.item()) - macs.gates == counted(narrow, size)


def test_floor_is_the_cost_with_every_gate_shut():
    shape = resnet_shape("resnet18", size=224, stem="papers")
    macs = count_macs(shape, 224)
    assert macs.per_image([torch.zeros(2) for _ in shape.gate_channels]).tolist() == [macs.floor, macs.floor]
    assert macs.floor_share == pytest.approx(0.076, abs=5e-4)
    assert macs.density_for(0.10) == pytest.approx(0.026, abs=5e-4)


def test_gradient_of_the_share_by_finite_differences():
    shape = resnet_shape("resnet50", size=32, width=0.125, gated_convs="both")
    macs = count_macs(shape, 32)
    generator = torch.Generator().manual_seed(1)
    densities = [torch.rand(3, generator=generator, dtype=torch.float64).requires_grad_() for _ in shape.gate_channels]
    assert torch.autograd.gradcheck(lambda *values: macs.share(values), densities)


def test_share_is_the_mean_over_images_not_the_share_at_the_mean_density():
    shape = resnet_shape("resnet50", size=32, width=0.125, gated_convs="both")
    macs = count_macs(shape, 32)
    apart = [torch.tensor([0.0, 1.0]) for _ in shape.gate_channels]
    expected = (macs.floor + macs.dense + macs.gates) / 2 / macs.dense
    assert macs.share(apart).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("budget", [0.0, 0.07, 1.5])
def test_budget_that_cannot_be_met_is_refused_with_the_reason(budget):
    with pytest.raises(InputError, match="stem, the downsamples and the gates"):
        count_macs(resnet_shape("resnet18", size=224), 224).require_budget(budget)


def test_unknown_networks_and_widths_without_channels_are_refused():
    with pytest.raises(NotFoundError, match="did you mean 'resnet18'"):
        resnet_shape("resnet8", size=32)
    with pytest.raises(InputError, match="width"):
        resnet_shape("resnet18", size=32, width=0.001)
