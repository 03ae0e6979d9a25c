"""From uint8 pictures to what a network takes: resize, scale to 0..1, subtract the mean, divide by the spread."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from pulvinar.core.errors import InputError
from pulvinar.data.pixels import AXES, require_pixels

Resize = Literal["squash", "crop"]
Images = Tensor | np.ndarray | Sequence[Any]  # what stands in a list is checked when it is used
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Networks of TensorFlow (1001 classes, class 0 is background) take (pixel - 128) / 128.
TENSORFLOW_MEAN = TENSORFLOW_STD = (128 / 255,) * 3


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """y = (resized / 255 - mean) / std, per channel (red, green, blue).

    image_size: side in pixels. resize: 'squash' scales height and width to the square, so that nothing is lost; 'crop' scales
    the short side to image_size / crop_share and cuts the square from the middle, as classification scores are measured.
    interpolation: bilinear or bicubic, with antialiasing always (what torchvision does by default depends on its version).
    """

    image_size: int = 224
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    resize: str = "squash"
    crop_share: float = 0.875
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise InputError(f"image_size: a number of pixels above 0 is needed, {self.image_size} came")
        if self.resize not in get_args(Resize):
            raise InputError(f"resize: one of {', '.join(get_args(Resize))} fits, '{self.resize}' came")
        if self.interpolation not in ("bilinear", "bicubic"):
            raise InputError(f"interpolation: bilinear or bicubic fits, '{self.interpolation}' came")
        if not 0 < self.crop_share <= 1:
            raise InputError(f"crop_share: a share in (0, 1] is needed, {self.crop_share} came")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) != 3 or not all(math.isfinite(value) for value in values):
                raise InputError(f"{name}: three finite numbers (red, green, blue; pixels in 0..1) are needed, {values} came")
        if min(self.std) <= 0:
            raise InputError(f"std: three numbers above 0 are needed, {self.std} came")

    def changed(self, **settings: Any) -> "Preprocessing":
        """A copy with the settings that are not None replaced."""
        given = {name: value for name, value in settings.items() if value is not None}
        for name in ("mean", "std"):
            if name in given:
                given[name] = tuple(float(value) for value in given[name])
        return replace(self, **given)

    def settings(self) -> dict[str, Any]:
        """Everything that changes the pixels, for keys and run folders."""
        return {**asdict(self), "interpolation": f"{self.interpolation}, antialias"}

    def __call__(self, images: Images, *, device: torch.device | None = None) -> Float[Tensor, "image 3 side side"]:
        """Pictures uint8 (image, height, width, 3), or a list of (height, width, 3) of mixed sizes, ready for the network."""
        if isinstance(images, Tensor | np.ndarray):
            batches = [images]
        else:
            batches = [_check(image, 3, row)[None] for row, image in enumerate(images)]
        if not batches or not len(batches[0]):
            raise InputError("images: one or more are needed, none came")
        pixels = torch.cat([self._to_square(_as_tensor(_check(batch, 4)).to(device)) for batch in batches])
        mean, std = (torch.tensor(values, device=pixels.device).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std

    def _to_square(self, images: Tensor) -> Tensor:
        """Channels first, 0..1, image_size x image_size."""
        maps, side = images.permute(0, 3, 1, 2).float() / 255, self.image_size
        height, width = maps.shape[2:]
        if self.resize == "squash":
            return self._scale(maps, side, side)
        short = round(side / self.crop_share)
        if height <= width:
            maps = self._scale(maps, short, int(short * width / height))
        else:
            maps = self._scale(maps, int(short * height / width), short)
        top, left = (round((length - side) / 2) for length in maps.shape[2:])
        return maps[:, :, top : top + side, left : left + side]

    def _scale(self, maps: Tensor, height: int, width: int) -> Tensor:
        if maps.shape[2:] == (height, width):
            return maps
        scaled = functional.interpolate(maps, (height, width), mode=self.interpolation, antialias=True, align_corners=False)
        return scaled.clamp(0, 1) if self.interpolation == "bicubic" else scaled


def _as_tensor(images: Tensor | np.ndarray) -> Tensor:
    return images if isinstance(images, Tensor) else torch.from_numpy(np.array(images))  # a copy: torch wants writable memory


def _check(images: Any, ndim: int, row: int | None = None) -> Any:
    which = "images" if row is None else f"image {row}"
    if not isinstance(images, Tensor | np.ndarray):
        raise InputError(f"{which}: uint8 {AXES[ndim]} is needed, a {type(images).__name__} came")
    require_pixels(images, which, n_axes=ndim)
    return images
