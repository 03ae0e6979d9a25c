"""Random views of images for self-supervised training, made for a whole batch at once on the device where the images are.

Order: random resized crop with flip, colour jitter, grey, blur, solarise, normalisation (Chen et al. 2020; Grill et al. 2020).
Defaults are the ones of the two channel-gating papers (CIFAR settings).

Differs from a chain of per-image transforms:
- The crop is resized by one product with a matrix per image and side, R_y X R_x. They hold the Pillow kernel (bicubic
  with a = -0.5, widened when the crop is larger than the view), confined to the crop; a flip reverses R_x. Equal to
  cropping and then resizing with antialias, borders too. Values stay real and are clamped to [0, 1]; Pillow rounds to 8 bits.
- Brightness, contrast, saturation and hue come in an order drawn once per group of images (`order_groups` a batch), not per
  image; their strengths are drawn per image.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

from pulvinar.core.errors import ConfigError
from pulvinar.data.pixels import require_pixels

Interpolation = Literal["bicubic", "bilinear"]
N_CROP_TRIES = 10  # as torchvision; then the largest centred crop of an allowed ratio
GREY = (0.2989, 0.587, 0.114)  # ITU-R 601-2 luma as torchvision rounds it
IMAGENET_MEAN, IMAGENET_SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """How views are drawn. Probabilities are per image; strengths are the half-widths of the factors' ranges.

    size: side of the (square) view in pixels; None: the image's height. crop_scale: share of the image's area. brightness,
    contrast, saturation: factor in [max(0, 1 - s), 1 + s]; hue: shift in turns, in [-hue, hue]. blur_sigma: pixels of the view.
    solarise_threshold: in [0, 1], values at or above it are inverted. mean, sd: per colour, of the normalisation.
    """

    size: int | None = None
    crop_scale: tuple[float, float] = (0.2, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: Interpolation = "bicubic"
    flip_probability: float = 0.5
    jitter_probability: float = 0.8
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_probability: float = 0.2
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise_probability: float = 0.1
    solarise_threshold: float = 128 / 255
    order_groups: int = 8
    mean: tuple[float, float, float] = IMAGENET_MEAN
    sd: tuple[float, float, float] = IMAGENET_SD

    def __post_init__(self) -> None:
        wrong = [
            f"{name} lies in [0, 1], not {getattr(self, name)}"
            for name in (
                "flip_probability",
                "jitter_probability",
                "grey_probability",
                "blur_probability",
                "solarise_probability",
            )
            if not 0 <= getattr(self, name) <= 1
        ]
        strengths = ("brightness", "contrast", "saturation")
        wrong += [f"{name} is 0 or more, not {getattr(self, name)}" for name in strengths if not getattr(self, name) >= 0]
        if not 0 <= self.hue <= 0.5:
            wrong.append(f"hue lies in [0, 0.5] (turns), not {self.hue}")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            wrong.append(f"crop_scale is a range within (0, 1], not {self.crop_scale}")
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1]:
            wrong.append(f"crop_ratio is a range above 0, not {self.crop_ratio}")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            wrong.append(f"blur_sigma is a range above 0, not {self.blur_sigma}")
        if self.order_groups < 1 or (self.size is not None and self.size < 1):
            wrong.append(f"order_groups and size are 1 or more, not {self.order_groups} and {self.size}")
        if wrong:
            raise ConfigError("views: " + "; ".join(wrong))


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewParameters:
    """What was drawn for each image of a batch.

    crops: (image, 4) top, left, height, width in whole pixels. flipped, jittered, grey, blurred, solarised: (image,) bool.
    factors: (image, 3) of brightness, contrast, saturation. hue: (image,) turns. sigma: (image,) pixels. orders: of each image,
    that of brightness 0, contrast 1, saturation 2, hue 3; neighbours share one.
    """

    crops: Tensor
    flipped: Tensor
    jittered: Tensor
    factors: Tensor
    hue: Tensor
    grey: Tensor
    blurred: Tensor
    sigma: Tensor
    solarised: Tensor
    orders: list[list[int]] = field(default_factory=list)

    def to(self, device: torch.device) -> "ViewParameters":
        """The same on another device."""
        moved: dict[str, Any] = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)

    def of(self, images: slice) -> "ViewParameters":
        """Those of some of the images."""
        return ViewParameters(**{name: value[images] for name, value in vars(self).items()})


def draw(settings: ViewSettings, n_images: int, height: int, width: int, generator: torch.Generator) -> ViewParameters:
    """Parameters of one view of each image, on the generator's device."""
    device = generator.device

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator, device=device)

    def order_of_four() -> list[int]:
        return torch.randperm(4, generator=generator, device=device).tolist()

    strengths = torch.tensor([settings.brightness, settings.contrast, settings.saturation], device=device)
    factors = 1 + strengths * uniform(n_images, 3, low=-1, high=1)
    groups = torch.arange(n_images).tensor_split(min(settings.order_groups, n_images))
    return ViewParameters(
        crops=_draw_crops(settings, n_images, height, width, generator),
        flipped=uniform(n_images) < settings.flip_probability,
        jittered=uniform(n_images) < settings.jitter_probability,
        factors=factors.clamp_min(0),
        hue=uniform(n_images, low=-settings.hue, high=settings.hue),
        grey=uniform(n_images) < settings.grey_probability,
        blurred=uniform(n_images) < settings.blur_probability,
        sigma=uniform(n_images, low=settings.blur_sigma[0], high=settings.blur_sigma[1]),
        solarised=uniform(n_images) < settings.solarise_probability,
        orders=[order for group in groups for order in [order_of_four()] * len(group)],
    )


def _draw_crops(settings: ViewSettings, n_images: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Area uniform, ratio log-uniform, corner uniform over whole pixels; the first of ten tries that fits, as torchvision."""
    device, tries = generator.device, (n_images, N_CROP_TRIES)
    low, high = settings.crop_scale
    area = height * width * (low + (high - low) * torch.rand(tries, generator=generator, device=device))
    log_low, log_high = math.log(settings.crop_ratio[0]), math.log(settings.crop_ratio[1])
    ratio = torch.exp(log_low + (log_high - log_low) * torch.rand(tries, generator=generator, device=device))
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths >= 1) & (widths <= width) & (heights >= 1) & (heights <= height)
    first = fits.float().argmax(1, keepdim=True)
    fallback = _central_crop(settings.crop_ratio, height, width)
    found = fits.any(1)
    size = [
        torch.where(found, drawn.gather(1, first)[:, 0], torch.full_like(found, whole, dtype=drawn.dtype))
        for drawn, whole in ((heights, fallback[0]), (widths, fallback[1]))
    ]
    corner = []
    for side, extent in zip((height, width), size, strict=True):
        free = side - extent
        at = torch.floor(torch.rand(n_images, generator=generator, device=device) * (free + 1)).clamp(max=free)
        corner.append(torch.where(found, at, torch.floor(free / 2)))
    return torch.stack([*corner, *size], 1).long()


def _central_crop(ratios: tuple[float, float], height: int, width: int) -> tuple[int, int]:
    """Height and width of the largest crop whose ratio is allowed."""
    if width / height < ratios[0]:
        return round(width / ratios[0]), width
    if width / height > ratios[1]:
        return height, round(height * ratios[1])
    return height, width


def make_views(images: Tensor, settings: ViewSettings, generator: torch.Generator, *, n_views: int = 2) -> list[Tensor]:
    """`n_views` random views of each image: float32 (image, 3, size, size), normalised, on the images' device.

    images: uint8 (image, height, width, 3). The generator may be on another device than the images; its numbers alone decide.
    """
    return [make_view(images, settings, generator) for _ in range(n_views)]


def make_view(images: Tensor, settings: ViewSettings, generator: torch.Generator, *, part: tuple[int, int] = (0, 1)) -> Tensor:
    """One random view of each image; see `make_views`.

    part: (index, n_parts) where the images are a part of a batch, spread over processes that all draw for the whole batch.
    """
    pixels, (index, n_parts) = as_pixels(images), part
    n, height, width = len(pixels), *pixels.shape[2:]
    parameters = draw(settings, n * n_parts, height, width, generator).of(slice(index * n, (index + 1) * n))
    return normalise(apply(pixels, parameters, settings), settings)


def as_pixels(images: Tensor) -> Tensor:
    """uint8 (image, height, width, 3) as float32 (image, 3, height, width) in [0, 1]."""
    require_pixels(images, "images")
    return images.permute(0, 3, 1, 2).contiguous().float().div_(255)


def normalise(pixels: Tensor, settings: ViewSettings) -> Tensor:
    """(x - mean) / sd per colour."""
    mean, sd = (pixels.new_tensor(values).view(1, 3, 1, 1) for values in (settings.mean, settings.sd))
    return (pixels - mean) / sd


def plain_view(images: Tensor, settings: ViewSettings) -> Tensor:
    """The images as evaluation sees them: normalised alone, at their own size. float32 (image, 3, height, width)."""
    return normalise(as_pixels(images), settings)


def apply(pixels: Tensor, parameters: ViewParameters, settings: ViewSettings) -> Tensor:
    """The views that these parameters describe, before normalisation: (image, 3, size, size) in [0, 1]."""
    parameters = parameters.to(pixels.device)
    size = settings.size or pixels.shape[2]
    views = resized_crop(pixels, parameters.crops, size, settings.interpolation, flipped=parameters.flipped)
    if settings.jitter_probability > 0:
        views = _jitter(views, parameters)
    for chosen, operation in (
        (parameters.grey, lambda part, rows: grey(part).expand_as(part)),
        (parameters.blurred, lambda part, rows: blur(part, parameters.sigma[rows])),
        (parameters.solarised, lambda part, rows: solarise(part, settings.solarise_threshold)),
    ):
        rows = chosen.nonzero()[:, 0]
        if len(rows):
            views[rows] = operation(views[rows], rows)
    return views


def resized_crop(
    pixels: Tensor, crops: Tensor, size: int, interpolation: Interpolation, *, flipped: Tensor | None = None
) -> Tensor:
    """Each image's crop (top, left, height, width) resized to (size, size) with antialias, then mirrored where `flipped`."""
    top, left, crop_height, crop_width = crops.to(pixels.dtype).unbind(1)
    outputs = torch.arange(size, device=pixels.device, dtype=pixels.dtype).expand(len(pixels), size)
    across = outputs if flipped is None else torch.where(flipped[:, None], size - 1 - outputs, outputs)
    rows = _resampling(top, crop_height, pixels.shape[2], outputs, interpolation)
    columns = _resampling(left, crop_width, pixels.shape[3], across, interpolation)
    n_images, n_channels, _, width = pixels.shape
    wide = torch.bmm(pixels.reshape(n_images, -1, width), columns)  # (image, channel x height, size)
    tall = wide.view(n_images, n_channels, -1, size).transpose(1, 2).reshape(n_images, -1, n_channels * size)
    views = torch.bmm(rows.transpose(1, 2), tall)  # (image, size, channel x size)
    return views.view(n_images, size, n_channels, size).transpose(1, 2).clamp(0, 1)


def _resampling(start: Tensor, extent: Tensor, side: int, outputs: Tensor, interpolation: Interpolation) -> Tensor:
    """(image, side, size): column o weighs the pixels of [start, start + extent) for output pixel o; columns sum to 1.

    Output pixel o has its centre at start + (o + 1/2) extent / size; the kernel is widened by max(1, extent / size).
    outputs: (image, size), which output pixel stands in each column.
    """
    scale = (extent / outputs.shape[1]).view(-1, 1, 1)
    inputs = torch.arange(side, device=start.device, dtype=start.dtype).view(1, -1, 1) - start.view(-1, 1, 1)
    outside = (inputs < 0) | (inputs >= extent.view(-1, 1, 1))
    widened = scale.clamp_min(1)
    centres = (outputs[:, None] + 0.5) * (scale / widened)
    distance = ((inputs + 0.5) / widened).masked_fill_(outside, torch.inf) - centres
    weights = _cubic(distance.abs_()) if interpolation == "bicubic" else distance.abs_().neg_().add_(1).clamp_min_(0)
    return weights.div_(weights.sum(1, keepdim=True))


def _cubic(distance: Tensor, a: float = -0.5) -> Tensor:
    """Keys 1981, the cubic convolution kernel of Pillow and of torch's antialias; 0 from distance 2 on."""
    distance = distance.clamp_max_(2)
    near = distance.mul(a + 2).sub_(a + 3).mul_(distance).mul_(distance).add_(1)
    far = distance.sub(5).mul_(distance).add_(8).mul_(distance).sub_(4).mul_(a)
    return torch.where(distance <= 1, near, far)


def grey(pixels: Tensor) -> Tensor:
    """Luma of each pixel: (image, 1, height, width)."""
    weights = pixels.new_tensor(GREY).view(1, 3, 1, 1)
    return (pixels * weights).sum(1, keepdim=True)


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Pixels times the image's factor (image,), clamped to [0, 1]."""
    return (pixels * factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the mean luma of the image: f x + (1 - f) mean, clamped."""
    return _blend(pixels, grey(pixels).mean((1, 2, 3), keepdim=True), factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blend with the luma of each pixel: f x + (1 - f) grey, clamped."""
    return _blend(pixels, grey(pixels), factor)


def _blend(pixels: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(other.expand_as(pixels), pixels, factor.view(-1, 1, 1, 1)).clamp_(0, 1)


def hue(pixels: Tensor, turns: Tensor) -> Tensor:
    """The hue angle of each pixel moved by `turns` (image,), value and saturation kept.

    With D = max - min and h the hexagon's hue in [0, 6): channel = min + D w, w = |h - 3| - 1, 2 - |h - 2|, 2 - |h - 4| clamped
    to [0, 1] for red, green, blue (Smith 1978 in closed form).
    """
    largest, smallest = pixels.amax(1), pixels.amin(1)
    span = largest - smallest
    red, green, blue = pixels.unbind(1)
    inverse = span.clamp_min(1e-12).reciprocal_()
    angle = torch.where(
        red == largest,
        (green - blue) * inverse,
        torch.where(green == largest, (blue - red) * inverse + 2, (red - green) * inverse + 4),
    )
    angle = torch.remainder(angle.add_(6 * turns.view(-1, 1, 1)), 6)
    weights = (
        (angle - 3).abs_().sub_(1),
        (angle - 2).abs_().neg_().add_(2),
        (angle - 4).abs_().neg_().add_(2),
    )
    return torch.stack([weight.clamp_(0, 1).mul_(span).add_(smallest) for weight in weights], 1)


def blur(pixels: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur with the image's own sigma (image,); kernel of about a tenth of the side (Chen et al. 2020), 3 or more.

    Borders are mirrored without repeating the edge.
    """
    n_images, n_channels, height, width = pixels.shape
    radius = min(max(1, round(0.05 * max(height, width))), min(height, width) - 1)
    at = torch.arange(-radius, radius + 1, device=pixels.device)
    kernel = torch.exp(-0.5 * (at / sigma.view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(n_channels, 0)
    rows = functional.pad(pixels, (0, 0, radius, radius), "reflect").reshape(1, n_images * n_channels, -1, width)
    blurred = functional.conv2d(rows, kernel[:, None, :, None], groups=len(kernel)).view(pixels.shape)
    columns = functional.pad(blurred, (radius, radius, 0, 0), "reflect").view(1, len(kernel), height, -1)
    return functional.conv2d(columns, kernel[:, None, None, :], groups=len(kernel)).view(pixels.shape)


def solarise(pixels: Tensor, threshold: float) -> Tensor:
    """1 - x where x is at or above the threshold, x elsewhere."""
    return torch.where(pixels >= threshold, 1 - pixels, pixels)


def _jitter(views: Tensor, parameters: ViewParameters) -> Tensor:
    """Brightness, contrast, saturation and hue in each group's order; images that are not jittered get factor 1, shift 0."""
    factors = torch.where(parameters.jittered[:, None], parameters.factors, 1.0).to(views.dtype).unbind(1)
    turns = torch.where(parameters.jittered, parameters.hue, 0.0).to(views.dtype)
    operations: list[tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = [
        (brightness, factors[0]),
        (contrast, factors[1]),
        (saturation, factors[2]),
        (hue, turns),
    ]
    end = 0
    for order, alike in itertools.groupby(parameters.orders):
        part = slice(end, end := end + len(list(alike)))
        changed = views[part]
        for number in order:
            operation, strength = operations[number]
            changed = operation(changed, strength[part])
        views[part] = changed
    return views
