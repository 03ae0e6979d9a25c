"""A ResNet of ours (dense, or with channel gates) as a staged network: pooled features as its output, its blocks as stages."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.networks.batch_norm import BatchNorm, averaging
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.resnet_shape import resnet_shape
from pulvinar.networks.staged import StagedNetwork
from pulvinar.networks.stages import choose_stages, find_points, outputs

EMBEDDED_WIDTH, EMBEDDED_SIZE = 0.25, 64


class ResNetPass(nn.Module):
    """One pass of a ResNet: images -> pooled features (image, feature), with the MAC share of the last batch beside.

    generator: noise of the gates, for training; None: the gates of inference. share, hard_share: of the last batch.
    """

    def __init__(self, network: GatedResNet, *, gated: bool) -> None:
        super().__init__()
        self.network, self.gated = network, gated
        self.generator: torch.Generator | None = None
        self.share = self.hard_share = torch.ones(())

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image feature"]:
        """Average-pooled features."""
        found = self.network(images, self.gated, self.generator)
        self.share, self.hard_share = found.mac_share, found.hard_share
        return found.features


def staged_resnet(
    network: GatedResNet,
    *,
    gated: bool,
    name: str,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    stages: tuple[str, ...] | int | None = None,
) -> StagedNetwork:
    """The network as a `StagedNetwork`. stages: by default the last block at each resolution; see `stages.choose_stages`."""
    taken = ResNetPass(network, gated=gated)
    if not isinstance(stages, tuple):
        found = {key: output for key, output in outputs(taken, network.size).items() if ".gates." not in key}
        points = find_points(taken, found, head="none")
        stages = choose_stages(points, found, stages, network=name)
    return StagedNetwork(
        taken, name=name, stages=stages, preprocessing=Preprocessing(image_size=network.size, mean=mean, std=std)
    ).eval()


def embedded_network(*, size: int, seed: int) -> GatedResNet:
    """The small ResNet that needs no download: ResNet-18 of a quarter of the width, stem of large images, random weights."""
    shape = resnet_shape("resnet18", size=size, stem="imagenet", width=EMBEDDED_WIDTH)
    network = GatedResNet(shape, size=size, passes=("dense",))
    return network.initialise(torch.Generator().manual_seed(seed)).eval()


@torch.no_grad()
def calibrate(network: StagedNetwork, batches: list[Tensor]) -> None:
    """Running statistics of all batch-norms from batches of preprocessed images; what random weights need to be of any use."""
    with averaging([module for module in network.modules() if isinstance(module, BatchNorm)]):
        for batch in batches:
            network(batch)
