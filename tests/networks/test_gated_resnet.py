"""Oracles: torchvision's ResNets, the dense pass, a loop over open channels only."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import batch_norm, conv2d

from pulvinar.core.errors import InputError
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet, StridedPointwise, copy_norms
from pulvinar.networks.gates import GateRecord
from pulvinar.networks.resnet_shape import resnet_shape


def made(name: str = "resnet18", *, size: int = 32, seed: int = 0, **options) -> GatedResNet:
    """A small network whose running statistics and affine weights are not their initial ones."""
    keys = ("stem", "gated_convs", "gate_group")
    shape = resnet_shape(name, size=size, width=0.125, **{key: options.pop(key) for key in keys if key in options})
    generator = torch.Generator().manual_seed(seed)
    network = GatedResNet(shape, size=size, **options).initialise(generator)
    for module in network.modules():
        if isinstance(module, BatchNorm):
            for value in (module.weight, module.running_var):
                value.data.copy_(0.5 + torch.rand(value.shape, generator=generator))
            for value in (module.bias, module.running_mean):
                value.data.copy_(0.3 * torch.randn(value.shape, generator=generator))
    return network


def images(n: int = 4, size: int = 32, seed: int = 1, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn((n, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def open_all(network: GatedResNet) -> None:
    network.logit_shift.fill_(1e6)


@pytest.mark.long
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("separate_norms", ["blocks", "all"])
def test_all_gates_open_with_the_dense_norms_is_the_dense_network_bit_for_bit(name, training, separate_norms):
    network = made(name, separate_norms=separate_norms).train(training)
    copy_norms(network)
    open_all(network)
    x = images()
    gated = network(x, gated=True, generator=torch.Generator().manual_seed(0))
    assert torch.equal(gated.features, network(x).features)
    assert gated.mac_share.item() == pytest.approx((network.macs.dense + network.macs.gates) / network.macs.dense)


@pytest.mark.long
@pytest.mark.parametrize(("name", "bottleneck"), [("resnet18", False), ("resnet34", False), ("resnet50", True)])
def test_dense_pass_is_torchvisions_network(name, bottleneck):
    network = made(name, size=96, stem="imagenet", passes=("dense",)).eval()
    block = torchvision.models.resnet.Bottleneck if bottleneck else torchvision.models.resnet.BasicBlock
    layers = [3, 4, 6, 3] if name != "resnet18" else [2, 2, 2, 2]
    theirs = torchvision.models.ResNet(block, layers)
    narrow(theirs)
    theirs.fc = nn.Identity()
    theirs.eval()
    ours = [value for key, value in network.state_dict().items() if key != "logit_shift"]
    names = [key for key in theirs.state_dict() if not key.startswith("fc")]
    order = in_our_order(names)
    theirs.load_state_dict(dict(zip(order, ours, strict=True)))
    x = images(2, 96)
    torch.testing.assert_close(network(x).features, theirs(x), rtol=1e-4, atol=1e-5)


def narrow(network: nn.Module) -> None:
    """torchvision's network with an eighth of the channels."""
    for parent in list(network.modules()):
        for key, module in list(parent.named_children()):
            if isinstance(module, nn.Conv2d):
                inputs = module.in_channels if module.in_channels == 3 else module.in_channels // 8
                shape = {"stride": module.stride, "padding": module.padding, "bias": False}
                setattr(parent, key, nn.Conv2d(inputs, module.out_channels // 8, module.kernel_size, **shape))
            elif isinstance(module, nn.BatchNorm2d):
                setattr(parent, key, nn.BatchNorm2d(module.num_features // 8))


def in_our_order(names: list[str]) -> list[str]:
    """torchvision's parameter names in the order of ours: of each block convolutions, norms, shortcut, its norm."""

    def key(name: str) -> tuple:
        parts = name.split(".")
        if not parts[0].startswith("layer"):
            return (0, parts[0] == "bn1", names.index(name))
        kind = 2 if "downsample.0" in name else 3 if "downsample.1" in name else int(parts[2].startswith("bn"))
        return (1, int(parts[0][5:]), int(parts[1]), kind, names.index(name))

    return sorted(names, key=key)


@pytest.mark.parametrize(("name", "gated_convs"), [("resnet18", "conv2"), ("resnet50", "both"), ("resnet50", "conv1")])
def test_gated_pass_is_a_loop_over_the_open_channels_only(name, gated_convs):
    network = made(name, gated_convs=gated_convs, gate_bias=0.0).double().eval()
    x = images(3, dtype=torch.float64)
    output = network(x, gated=True)
    density = output.densities.mean().item()
    assert 0.2 < density < 0.8
    expected = torch.stack([features_of_open_channels(network, image) for image in x])
    torch.testing.assert_close(output.features, expected, rtol=1e-10, atol=1e-12)


def norm_of(norms: nn.ModuleDict, maps: torch.Tensor, channels: torch.Tensor | slice = slice(None)) -> torch.Tensor:
    norm = norms["gated"] if "gated" in norms else norms["shared"]
    parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    return batch_norm(maps, *[part[channels] for part in parts], eps=norm.eps)


def features_of_open_channels(network: GatedResNet, image: torch.Tensor) -> torch.Tensor:
    """One image through convolutions that are cut to the channels its own gates open."""
    stem = network.stem
    maps = norm_of(
        stem.norms, conv2d(image[None], stem.convolution.weight, None, stem.convolution.stride, stem.convolution.padding)
    )
    maps = maps.relu()
    for block in network.blocks:
        pooled = maps.mean((2, 3))
        kept: torch.Tensor = torch.arange(block.shape.inputs)
        residual = maps
        for number, convolution in enumerate(block.convolutions):
            outputs = torch.arange(convolution.out_channels)
            if str(number) in block.gates:
                gate = block.gates[str(number)]
                hidden = pooled @ gate.reduce.weight.T
                hidden = (hidden - gate.norm.running_mean) / (gate.norm.running_var + gate.norm.eps).sqrt()
                logits = (hidden * gate.norm.weight + gate.norm.bias).relu() @ gate.expand.weight.T + gate.expand.bias
                outputs = torch.nonzero(logits[0] >= 0)[:, 0]
            weight = convolution.weight[outputs][:, kept]
            residual = norm_of(
                block.norms[number], conv2d(residual, weight, None, convolution.stride, convolution.padding), outputs
            )
            if number + 1 < len(block.convolutions):
                residual = residual.relu()
            kept = outputs
        shortcut = maps
        if block.shortcut is not None:
            shortcut = norm_of(block.shortcut_norms, conv2d(maps, block.shortcut.weight, None, block.shortcut.stride))
        maps = (residual + shortcut).relu()
    return maps.mean((2, 3))[0]


def test_mac_share_and_densities_are_those_of_the_gates():
    network = made(gate_bias=0.0).train()
    output = network(images(6), gated=True, generator=torch.Generator().manual_seed(3))
    counts = [gate.sum(1) for gate in output.gates]
    expected = network.macs.per_image(counts).mean() / network.macs.dense
    torch.testing.assert_close(output.mac_share, expected)
    assert [gate.shape[1] for gate in output.gates] == list(network.shape.gate_channels)
    hard = network.macs.per_image([(logits >= 0).sum(1).float() for logits in output.logits]).mean() / network.macs.dense
    torch.testing.assert_close(output.hard_share, hard)
    assert output.hard_share != output.mac_share
    output.mac_share.backward()
    assert all(parameter.grad is not None for parameter in network.gate_parameters())


def test_same_generator_same_gates_and_other_noise_other_gates():
    network = made().train()
    first, again, other = (
        network(images(), gated=True, generator=torch.Generator().manual_seed(seed)).gates[0] for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_passes_share_convolutions_and_not_the_norms_of_blocks():
    network = made()
    names = [name for name, _ in network.named_parameters()]
    assert any("blocks.0.norms.0.dense" in name for name in names)
    assert any("blocks.0.norms.0.gated" in name for name in names)
    assert any("stem.norms.shared" in name for name in names)
    both = [name for name, _ in made(separate_norms="all").named_parameters()]
    assert any("stem.norms.gated" in name for name in both)
    assert any("blocks.2.shortcut_norms.dense" in name for name in both)


def test_initial_bias_opens_the_share_it_implies():
    network = made(gate_bias=2.0).initialise(torch.Generator().manual_seed(0)).train()
    output = network(images(64), gated=True, generator=torch.Generator().manual_seed(1))
    assert output.densities.mean().item() == pytest.approx(0.88, abs=0.05)


def test_zero_residual_starts_blocks_as_their_shortcut():
    network = made().initialise(torch.Generator().manual_seed(0), zero_residual=True).train()
    maps = torch.rand((2, 8, 8, 8), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network.blocks[0](maps, "dense", None, GateRecord([], [])), maps)


@pytest.mark.parametrize(("name", "gated_convs"), [("resnet18", "conv2"), ("resnet50", "both")])
def test_groups_of_channels_open_and_shut_together_with_and_without_noise(name, gated_convs):
    network = made(name, gated_convs=gated_convs, gate_bias=0.0, gate_group=3).eval()
    for generator in (None, torch.Generator().manual_seed(0)):
        output = network(images(6), gated=True, generator=generator)
        for gate in output.gates:
            for group in gate.split(3, dim=1):
                assert torch.equal(group, group[:, :1].expand_as(group))
    assert [len(part.expand.bias) for part in network.blocks[0].gates.values()] == [3] * (2 if gated_convs == "both" else 1)
    assert output.rates.shape == (sum(network.shape.gate_channels),)
    assert 0.2 < output.densities.mean().item() < 0.8


def test_a_group_larger_than_the_layer_is_the_layer_and_an_empty_one_is_refused():
    network = made(gate_bias=0.0, gate_group=1000).eval()
    assert {tuple(gate.unique(dim=1).shape) for gate in network(images(2), gated=True).gates} == {(2, 1)}
    with pytest.raises(InputError, match="gate_group: 0"):
        resnet_shape("resnet18", size=32, gate_group=0)


def test_a_pass_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no gated pass"):
        made(passes=("dense",))(images(1), gated=True)


def test_channels_last_and_bfloat16_run_and_agree_roughly():
    network = made(gate_bias=0.0).eval()
    x = images(8)
    exact = network(x, gated=False).features
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fast = network.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)).features
        gated = network(x.to(memory_format=torch.channels_last), gated=True)
    assert torch.corrcoef(torch.stack([exact.flatten(), fast.float().flatten()]))[0, 1] > 0.99
    assert gated.logits[0].dtype == torch.float32


def test_weights_from_before_gates_could_be_fixed_load_with_none_fixed():
    network = made()
    state = {name: value for name, value in network.state_dict().items() if not name.endswith(".fixed")}
    assert len(state) < len(network.state_dict())
    other = made(seed=3)
    other.blocks[0].gates["0"].fixed.fill_(1)
    other.load_state_dict(state)
    batch = images()
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(batch, gated=True).features, network.eval()(batch, gated=True).features)


@pytest.mark.parametrize("inputs", [1, 4, 7, 8, 16])
@pytest.mark.parametrize("order", [torch.channels_last, torch.contiguous_format])
def test_gradients_of_strided_pointwise_convolutions(inputs, order):
    """Oracle: the sums spelled out. On processors without AVX-512 torch's own weight gradient of 4 inputs is wrong."""
    generator = torch.Generator().manual_seed(0)
    layer = StridedPointwise(inputs, 4, 1, stride=2, bias=False).to(memory_format=order)
    maps = torch.randn(4, inputs, 9, 8, generator=generator).contiguous(memory_format=order).requires_grad_()
    made = layer(maps)
    picked = maps.detach()[:, :, ::2, ::2]
    torch.testing.assert_close(made, torch.einsum("oi,nihw->nohw", layer.weight[:, :, 0, 0], picked), rtol=1e-5, atol=1e-5)
    given = torch.randn(made.shape, generator=generator)
    made.backward(given)
    expected = torch.einsum("nohw,nihw->oi", given, picked)
    torch.testing.assert_close(layer.weight.grad[:, :, 0, 0], expected, rtol=1e-4, atol=1e-4)
    back = torch.zeros_like(maps)
    back[:, :, ::2, ::2] = torch.einsum("oi,nohw->nihw", layer.weight.detach()[:, :, 0, 0], given)
    torch.testing.assert_close(maps.grad, back, rtol=1e-5, atol=1e-5)
