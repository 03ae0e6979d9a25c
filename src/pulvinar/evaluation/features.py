"""Features of a network for whole image sets, and raw pixels as the features that any network has to beat."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pulvinar.errors import DegenerateError, InputError
from pulvinar.progress import track
from pulvinar.training.views import ViewSettings, as_pixels, plain_view

Forward = Callable[[Tensor], Tensor]  # normalised images (image, 3, height, width) -> (image, feature)


def batches(images: np.ndarray, batch_size: int) -> list[slice]:
    """Consecutive rows, `batch_size` at a time."""
    return [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]


@torch.no_grad()
def collect(
    forward: Forward,
    images: np.ndarray,
    *,
    views: ViewSettings | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    description: str = "features",
) -> Tensor:
    """`forward` of every image, normalised as in training but not augmented: float32 on the CPU.

    images: uint8 (image, height, width, 3). The caller sets the network to evaluation. `DegenerateError` where a feature is
    not finite.
    """
    settings = views or ViewSettings()
    parts = batches(images, batch_size)
    if not parts:
        raise InputError(f"{description}: no images")
    found = [
        forward(plain_view(torch.from_numpy(np.ascontiguousarray(images[part])).to(device), settings)).float().cpu()
        for part in track(parts, description, len(parts))
    ]
    features = torch.cat(found)
    if not torch.isfinite(features).all():
        raise DegenerateError(f"{description}: NaN or infinite values; the network has diverged")
    return features


def pixel_features(images: np.ndarray, *, side: int = 32) -> Tensor:
    """Pixels in [0, 1], flattened: float32 (image, 3 x side x side); larger images are averaged down to `side` first."""
    parts = []
    for part in batches(images, 4096):
        pixels = as_pixels(torch.from_numpy(np.ascontiguousarray(images[part])))
        parts.append((adaptive_avg_pool2d(pixels, side) if max(pixels.shape[2:]) > side else pixels).flatten(1))
    return torch.cat(parts)


def require_pair(features: Tensor, labels: np.ndarray | Tensor | Sequence[int], what: str) -> tuple[Tensor, Tensor]:
    """Features (image, feature) as float32 and their labels as int64; `InputError` where they do not fit each other."""
    labels = torch.as_tensor(np.asarray(labels)).long()
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise InputError(
            f"{what}: features (image, feature) and as many labels; {tuple(features.shape)} and {len(labels)} came"
        )
    if int(labels.min()) < 0:
        raise InputError(f"{what}: {int((labels < 0).sum())} images have no label (-1); leave them out")
    if not torch.isfinite(features).all():
        raise DegenerateError(f"{what}: features hold NaN or infinite values")
    return features.float() if features.dtype != torch.float64 else features, labels
