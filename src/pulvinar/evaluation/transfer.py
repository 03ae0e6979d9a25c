"""Features learnt on one image set, scored on another (table 2 of the dual-gating paper)."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from pulvinar.data.image_set import ImageSet
from pulvinar.evaluation.backbone_scores import ScoreSettings, score_backbone
from pulvinar.evaluation.features import batches
from pulvinar.models.gated_resnet import GatedResNet
from pulvinar.training.views import ViewSettings, as_pixels, resized_crop


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images as uint8 (image, size, size, 3): antialiased bicubic of the central square. Themselves where they fit."""
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images
    side = min(height, width)
    crop = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]])
    made = np.empty((len(images), size, size, 3), np.uint8)
    for part in batches(images, 512):
        pixels = as_pixels(torch.from_numpy(np.ascontiguousarray(images[part])))
        values = resized_crop(pixels, crop.expand(len(pixels), 4), size, "bicubic")
        made[part] = (values.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return made


def score_transfer(
    network: GatedResNet,
    target: ImageSet,
    *,
    views: ViewSettings | None = None,
    settings: ScoreSettings | None = None,
    seed: int = 0,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """`score_backbone` without controls on another image set, whose images are resized to the network's size.

    Gates are those learnt on the first set: the MAC share reached on the second is reported, it may differ. The paper does not
    say at which size it transfers; ours is the network's own, so that the multiply-adds compare.
    """
    size = network.size
    fitted = replace(target, train=resized(target.train, size), test=resized(target.test, size))
    result, arrays = score_backbone(network, fitted, views=views, settings=settings, seed=seed, controls=False)
    return {**result, "target": target.name}, arrays
