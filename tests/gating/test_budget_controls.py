"""Controls at equal multiply-adds. Oracles: torch's counter on the narrowed network, the masked pass, a loop over channels."""

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pulvinar.core.errors import InputError
from pulvinar.gating.budget_controls import (
    filter_norms,
    fixed_mask,
    keep_highest,
    narrow_shape,
    random_gates,
    random_mask,
    recalibrate,
    share_of_counts,
)
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.macs import count_macs
from pulvinar.networks.narrow import narrowed
from pulvinar.networks.resnet_shape import resnet_shape

VIEWS = ViewSettings()


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)


@pytest.fixture
def network(images) -> GatedResNet:
    """A small network whose gated pass has seen images."""
    shape = resnet_shape("resnet18", size=16, width=0.25)
    made = GatedResNet(shape, size=16).initialise(torch.Generator().manual_seed(0))
    made.train()
    with torch.no_grad():
        for _ in range(5):
            pixels = plain_view(torch.from_numpy(images), VIEWS)
            made(pixels)
            made(pixels, gated=True)
    return made.eval()


@pytest.fixture
def policies(network) -> list[np.ndarray]:
    generator = np.random.default_rng(1)
    return [generator.random(size) ** (1 + gate % 3) for gate, size in enumerate(network.shape.gate_channels)]


def counted(model: torch.nn.Module, size: int = 16) -> int:
    """Multiply-adds of convolutions, by torch."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    return counter.get_total_flops() // 2


@pytest.mark.long
@pytest.mark.parametrize("scope", ["blocks", "network"])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.77])
def test_highest_channels_meet_the_share_from_below(network, policies, scope, share):
    densities = [policy.mean() for policy in policies]
    kept = keep_highest(policies, network.macs, share, scope=scope, densities=densities)
    reached = share_of_counts(network.macs, [len(part) for part in kept])
    assert share - 0.004 < reached <= share
    assert reached == pytest.approx(counted(narrowed(network, kept)) / network.macs.dense)
    for part, policy in zip(kept, policies, strict=True):
        left = np.setdiff1d(np.arange(len(policy)), part)
        if len(part) and len(left):
            assert policy[part].min() >= policy[left].max()


def test_over_the_network_a_gate_that_never_opens_keeps_nothing(network, policies):
    policies[2] = np.zeros_like(policies[2])
    densities = [policy.mean() for policy in policies]
    kept = keep_highest(policies, network.macs, 0.2, scope="network", densities=densities)
    assert len(kept[2]) == 0
    with pytest.raises(InputError, match="below what remains"):
        keep_highest(policies, network.macs, 0.001, scope="network", densities=densities)


def test_static_control_is_the_masked_pass_when_not_recalibrated(network, policies, images):
    given = {"policies": policies, "images": images, "views": VIEWS, "generator": np.random.default_rng(0)}
    control = fixed_mask("static", network, 0.4, recalibrated=False, **given)
    kept = keep_highest(policies, network.macs, 0.4, scope="blocks", densities=[policy.mean() for policy in policies])
    masks = [torch.zeros(size).index_fill(0, part, 1.0) for size, part in zip(network.shape.gate_channels, kept, strict=True)]
    pixels = plain_view(torch.from_numpy(images[:6]), VIEWS)
    with torch.no_grad():
        expected = network(pixels, gated=True, masks=masks).features
        torch.testing.assert_close(control.forward(pixels), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["static", "static_random", "pruned"])
def test_fixed_masks_come_close_to_the_share_and_keep_the_network(network, policies, images, kind):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    given = {"policies": policies, "images": images, "views": VIEWS, "generator": np.random.default_rng(0)}
    control = fixed_mask(kind, network, 0.3, **given)
    assert 0.29 < control.mac_share <= 0.3
    with torch.no_grad():
        features = control.forward(plain_view(torch.from_numpy(images[:5]), VIEWS))
    assert features.shape == (5, network.shape.n_features)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


def test_filter_norms_equal_a_loop(network):
    norms = filter_norms(network)
    for block, norm in zip(network.blocks, norms, strict=True):
        filters = block.convolutions[0].weight.detach()
        np.testing.assert_allclose(norm, [float(filters[c].abs().sum()) for c in range(len(filters))], rtol=1e-5)


def test_recalibrated_statistics_are_the_means_over_batches(network, images):
    """Oracle for the first batch-norm: mean and unbiased variance of the stem's maps, averaged over batches of 16."""
    made = narrowed(network, [torch.arange(size) for size in network.shape.gate_channels])
    recalibrate(made, images, views=VIEWS, batch_size=16)
    with torch.no_grad():
        maps = made.stem.convolution(plain_view(torch.from_numpy(images), VIEWS))
    parts = [maps[start : start + 16] for start in (0, 16, 32)]
    norm = made.stem.norms["dense"]
    torch.testing.assert_close(norm.running_mean, torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0))
    assert all(module.momentum == 0.1 for module in made.modules() if isinstance(module, BatchNorm))


def test_random_masks_have_the_density_and_are_uniform():
    masks = random_mask(4000, 10, 0.37, torch.Generator().manual_seed(0))
    assert set(masks.sum(1).tolist()) == {3.0, 4.0}
    assert masks.mean() == pytest.approx(0.37, abs=0.004)
    np.testing.assert_allclose(masks.mean(0), 0.37, atol=4 * (0.37 * 0.63 / 4000) ** 0.5)


def test_random_gates_differ_between_images_and_repeat_with_the_generator(network, images):
    pixels = plain_view(torch.from_numpy(np.repeat(images[:1], 3, 0)), VIEWS)
    with torch.no_grad():
        one, two = (random_gates(network, [0.5] * 8, torch.Generator().manual_seed(2)).forward(pixels) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.allclose(one[0], one[1])
    control = random_gates(network, [1.0] * 8, torch.Generator())
    assert control.mac_share == pytest.approx(1.0)


@pytest.mark.long
@pytest.mark.parametrize("uniform", ["all", "inner"])
@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_narrow_networks_have_the_share_of_multiply_adds(uniform, name):
    shape = resnet_shape(name, size=32, width=0.5)
    dense = count_macs(shape, 32).dense
    for share in (0.3, 0.5):
        if uniform == "inner" and name == "resnet50" and share < 0.4:
            continue  # ungated convolutions alone cost more
        made = narrow_shape(shape, size=32, share=share, uniform=uniform)
        network = GatedResNet(made, size=32, passes=("dense",))
        reached = counted(network, 32) / dense
        assert share - 0.02 < reached <= share
        assert (made.n_features == shape.n_features) == (uniform == "inner")


def test_masks_are_refused_where_they_do_not_fit(network, images):
    pixels = plain_view(torch.from_numpy(images[:2]), VIEWS)
    with pytest.raises(InputError, match="3 came"):
        network(pixels, gated=True, masks=[torch.ones(16)] * 3)
    with pytest.raises(InputError, match="this pass is dense"):
        network(pixels, masks=[torch.ones(16)] * 8)
