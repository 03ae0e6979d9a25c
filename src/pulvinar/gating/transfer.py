"""Another image set at a network's own size, for features learnt on one set and scored on another (table 2 of dual gating)."""

from dataclasses import replace

import numpy as np
import torch

from pulvinar.core.sampling import blocks_of
from pulvinar.data.image_set import ImageSet
from pulvinar.learning.views import as_pixels, resized_crop


def resized(images: np.ndarray, size: int) -> np.ndarray:
    """Images as uint8 (image, size, size, 3): antialiased bicubic of the central square. Themselves where they fit."""
    height, width = images.shape[1:3]
    if (height, width) == (size, size):
        return images
    side = min(height, width)
    crop = torch.tensor([[(height - side) // 2, (width - side) // 2, side, side]])
    made = np.empty((len(images), size, size, 3), np.uint8)
    for part in blocks_of(len(images), 512):
        pixels = as_pixels(torch.from_numpy(np.ascontiguousarray(images[part])))
        values = resized_crop(pixels, crop.expand(len(pixels), 4), size, "bicubic")
        made[part] = (values.permute(0, 2, 3, 1) * 255).round().to(torch.uint8).numpy()
    return made


def resized_set(data: ImageSet, size: int) -> ImageSet:
    """The set with its images resized. The paper does not say at which size it transfers; so the multiply-adds compare."""
    return replace(data, train=resized(data.train, size), test=resized(data.test, size))
