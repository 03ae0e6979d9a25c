"""Oracles: the layer with the other channels set to zero; the gated pass with a constant mask."""

import pytest
import torch
from torch import nn

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import Gate
from pulvinar.networks.narrow import cut_batch_norm, cut_convolution, cut_linear, narrowed
from pulvinar.networks.resnet_shape import resnet_shape


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_cut_convolution_computes_the_kept_outputs_from_the_kept_inputs():
    convolution = nn.Conv2d(5, 7, 3, stride=2, padding=1).double()
    outputs, inputs = torch.tensor([6, 0, 3]), torch.tensor([1, 4])
    maps = torch.randn((2, 5, 9, 9), generator=generator(), dtype=torch.float64)
    masked = torch.zeros_like(maps)
    masked[:, inputs] = maps[:, inputs]
    cut = cut_convolution(convolution, outputs=outputs, inputs=inputs)
    assert cut.weight.shape == (3, 2, 3, 3)
    torch.testing.assert_close(cut(maps[:, inputs]), convolution(masked)[:, outputs])


def test_cut_linear_computes_the_kept_outputs_from_the_kept_inputs():
    linear, rows = nn.Linear(5, 4).double(), torch.randn((3, 5), generator=generator(), dtype=torch.float64)
    masked = rows.clone()
    masked[:, [0, 2]] = 0
    cut = cut_linear(linear, outputs=torch.tensor([2, 1]), inputs=torch.tensor([1, 3, 4]))
    torch.testing.assert_close(cut(rows[:, [1, 3, 4]]), linear(masked)[:, [2, 1]])


@pytest.mark.parametrize("training", [True, False])
def test_cut_batch_norm_does_the_same_to_the_kept_channels(training):
    norm = BatchNorm(4)
    norm(torch.randn((8, 4), generator=generator()) * 3 + 1)
    norm.train(training)
    rows = torch.randn((6, 4), generator=generator(1))
    cut = cut_batch_norm(norm, torch.tensor([3, 1]))
    torch.testing.assert_close(cut(rows[:, [3, 1]]), norm(rows)[:, [3, 1]])


@pytest.mark.long
@pytest.mark.parametrize(("name", "gated_convs"), [("resnet18", "conv2"), ("resnet50", "both"), ("resnet50", "conv2")])
@pytest.mark.parametrize("empty", [False, True])
def test_narrowed_network_is_the_gated_pass_with_a_constant_mask(name, gated_convs, empty):
    shape = resnet_shape(name, size=32, width=0.125, gated_convs=gated_convs)
    network = GatedResNet(shape, size=32, gate_bias=0.0).initialise(generator())
    images = torch.randn((8, 3, 32, 32), generator=generator(1))
    network.train()(images, gated=True, generator=generator(2))  # running statistics
    network.double().eval()
    kept = []
    for module in network.modules():
        if isinstance(module, Gate):  # logits that do not depend on the image
            open_channels = torch.rand(module.expand.out_features, generator=generator(len(kept))) < 0.6
            if empty and len(kept) == 1:
                open_channels[:] = False
            nn.init.zeros_(module.expand.weight)
            module.expand.bias.data.copy_(torch.where(open_channels, 1.0, -1.0))
            kept.append(torch.nonzero(open_channels)[:, 0])
    gated = network(images.double(), gated=True)
    small = narrowed(network, kept).double()
    torch.testing.assert_close(small(images.double()).features, gated.features, rtol=1e-10, atol=1e-12)
    share = small.macs.dense + network.macs.gates
    assert gated.mac_share.item() == pytest.approx(share / network.macs.dense, rel=1e-9)
    assert not small.training


def test_narrowed_dense_pass_keeps_its_own_norms():
    shape = resnet_shape("resnet18", size=32, width=0.125)
    network = GatedResNet(shape, size=32).initialise(generator())
    images = torch.randn((8, 3, 32, 32), generator=generator(1))
    network.train()(images)
    network.eval()
    whole = narrowed(network, [torch.arange(n) for n in shape.gate_channels], source="dense")
    torch.testing.assert_close(whole(images).features, network(images).features)


def test_bad_indices_are_refused():
    convolution = nn.Conv2d(3, 4, 1)
    with pytest.raises(InputError, match="lie outside"):
        cut_convolution(convolution, outputs=torch.tensor([0, 4]))
    with pytest.raises(InputError, match="twice"):
        cut_linear(nn.Linear(3, 3), inputs=torch.tensor([1, 1]))
    with pytest.raises(InputError, match="groups"):
        cut_convolution(nn.Conv2d(4, 4, 3, groups=4))
    with pytest.raises(InputError, match="nothing would be left"):
        cut_convolution(convolution, outputs=torch.tensor([], dtype=torch.long))
    network = GatedResNet(resnet_shape("resnet18", size=32, width=0.125), size=32)
    with pytest.raises(InputError, match="8 gates"):
        narrowed(network, [torch.tensor([0])])
