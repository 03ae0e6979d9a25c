"""Features of a network for whole image sets, and raw pixels as the features that any network has to beat."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import track
from pulvinar.core.sampling import blocks_of
from pulvinar.learning.views import ViewSettings, make_view, plain_view

Forward = Callable[[Tensor], Tensor]  # normalised images (image, 3, height, width) -> (image, feature)
PIXELS = ViewSettings(mean=(0.0, 0.0, 0.0), sd=(1.0, 1.0, 1.0))  # images as values in [0, 1]
CROP_SCALE = (0.08, 1.0)  # share of the image in a crop of the linear probe, as in solo-learn, which the papers used


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
    parts = blocks_of(len(images), batch_size)
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


def crops_of_epoch(
    forward: Forward,
    images: np.ndarray,
    *,
    views: ViewSettings | None = None,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> Callable[[int], Tensor]:
    """Epoch -> `forward` of a random crop, flipped or not, of every image: float32 on the CPU. The seed and epoch decide."""
    off = {f"{name}_probability": 0.0 for name in ("jitter", "grey", "blur", "solarise")}
    settings = replace(views or ViewSettings(), crop_scale=CROP_SCALE, **off)  # type: ignore[arg-type]

    @torch.no_grad()
    def features_of_epoch(epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed(1000 * seed + epoch)
        parts = (torch.from_numpy(np.ascontiguousarray(images[part])).to(device) for part in blocks_of(len(images), batch_size))
        return torch.cat([forward(make_view(part, settings, generator)).float().cpu() for part in parts])

    return features_of_epoch


def pixels(images: Tensor, *, side: int = 32) -> Tensor:
    """Pixels (image, 3, height, width), flattened; larger images are averaged down to `side` first."""
    return (adaptive_avg_pool2d(images, side) if max(images.shape[2:]) > side else images).flatten(1)


def require_pair(features: Tensor, labels: np.ndarray | Tensor | Sequence[int], what: str) -> tuple[Tensor, Tensor]:
    """Features (image, feature) as float32 and, beside them, their labels as int64; `InputError` where they do not fit."""
    labels = torch.as_tensor(np.asarray(labels)).long()
    if features.ndim != 2 or len(features) != len(labels) or not len(labels):
        raise InputError(
            f"{what}: features (image, feature) and as many labels; {tuple(features.shape)} and {len(labels)} came"
        )
    if int(labels.min()) < 0:
        raise InputError(f"{what}: {int((labels < 0).sum())} images have no label (-1); leave them out")
    if not torch.isfinite(features).all():
        raise DegenerateError(f"{what}: features hold NaN or infinite values")
    return features.float() if features.dtype != torch.float64 else features, labels.to(features.device)
