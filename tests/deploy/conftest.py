"""Small networks whose gates depend on the image, and images for them."""

import pytest
import torch

from pulvinar.networks.batch_norm import BatchNorm
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.preprocessing import IMAGENET_MEAN, IMAGENET_STD
from pulvinar.networks.resnet_shape import resnet_shape

SIZE = 16


def lively(
    network: str, *, gated_convs="conv2", seed=2, width=0.125, size=SIZE, stem="auto", passes=("dense", "gated"), group=1
) -> GatedResNet:
    """An untrained network whose gates depend on the image, with batch-norms that do something; float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = resnet_shape(network, size=size, width=width, stem=stem, gated_convs=gated_convs, gate_group=group)
    made = GatedResNet(shape, size=size, passes=passes, gate_bias=None).initialise(generator).double()
    for module in made.modules():
        if isinstance(module, BatchNorm):
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
            module.bias.data.normal_(0, 0.3, generator=generator)
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    made.logit_shift.fill_(-0.05)
    return made.eval()


def images(n: int, seed: int = 1, size: int = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(n, 3, 2, 2, generator=generator, dtype=torch.float64)
    fine = torch.randn(n, 3, size, size, generator=generator, dtype=torch.float64)
    made = 2 * torch.nn.functional.interpolate(coarse, size=size, mode="bilinear") + 0.5 * fine
    mean, sd = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return made.clamp(-mean / sd, (1 - mean) / sd)  # normalised images are of pixels in [0, 1]


@pytest.fixture
def make_network():
    """A function that makes an untrained network whose gates depend on the image; float64."""
    return lively


@pytest.fixture
def make_images():
    """A function that makes so many images."""
    return images
