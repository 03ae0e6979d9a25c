"""Image features from networks that are never trained: an oriented-energy and colour bank, and random convolutional nets.

They need no download, so planted worlds and the embedded default stand on them. For real work name a trained embedding.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.progress import track
from pulvinar.core.sampling import blocks_of
from pulvinar.data.pixels import require_pixels

Images = UInt8[Tensor, "image height width 3"]


def to_unit_range(images: Images) -> Float[Tensor, "image 3 height width"]:
    """Pixels 0..255, channels last, as float 0..1, channels first."""
    require_pixels(images, "images")
    return images.permute(0, 3, 1, 2).float() / 255


def gabor_filters(size: int, wavelength: float, n_orientations: int) -> Float[Tensor, "filter 1 size size"]:
    """Even and odd Gabor filters (zero mean, unit norm) of one wavelength in pixels: the two phases of each orientation."""
    axis = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    envelope = torch.exp(-(x**2 + y**2) / (2 * (0.4 * wavelength) ** 2))
    filters = []
    for orientation in range(n_orientations):
        angle = torch.tensor(torch.pi * orientation / n_orientations)
        phase = 2 * torch.pi * (x * torch.cos(angle) + y * torch.sin(angle)) / wavelength
        for wave in (torch.cos(phase), torch.sin(phase)):
            wave_filter = envelope * wave
            wave_filter = wave_filter - envelope * wave_filter.sum() / envelope.sum()
            filters.append(wave_filter / wave_filter.norm())
    return torch.stack(filters)[:, None]


def oriented_energy(
    images: Images, *, n_octaves: int = 3, wavelength: float = 4.0, n_orientations: int = 4, grid: int = 4
) -> Float[Tensor, "image dim"]:
    """Log contrast energy of Gabor pairs, averaged over a `grid` x `grid` of places (Adelson and Bergen 1985).

    The finest wavelength is in pixels; each octave halves the image.
    """
    luminance = to_unit_range(images).mean(1, keepdim=True)
    size = int(2 * wavelength) // 2 * 2 + 1
    filters, maps = gabor_filters(size, wavelength, n_orientations).to(luminance.device), []
    for _ in range(n_octaves):
        response = functional.conv2d(luminance, filters, padding=size // 2)
        energy = response[:, 0::2] ** 2 + response[:, 1::2] ** 2
        maps.append(torch.log1p(100 * functional.adaptive_avg_pool2d(energy, grid)).flatten(1))
        luminance = functional.avg_pool2d(luminance, 2)
    return torch.cat(maps, dim=1)


def colour(images: Images, *, grid: int = 4) -> Float[Tensor, "image dim"]:
    """Luminance, red-green and blue-yellow, averaged over a `grid` x `grid` of places."""
    red, green, blue = to_unit_range(images).unbind(1)
    opponent = torch.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], dim=1)
    return functional.adaptive_avg_pool2d(opponent, grid).flatten(1)


class RandomConvolutionNetwork(nn.Module):
    """A convolutional network with fixed random filters of unit norm: image -> pooled features of its last stages.

    Every stage is a convolution of stride 2, standardised by the channel's mean and spread over the calibration images,
    and a nonlinearity. Call `calibrate` once with typical images. Weights depend on the seed alone.
    """

    def __init__(self, *, seed: int, widths: Sequence[int], kernel: int, nonlinearity: str, grid: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.grid, self.kernel = grid, kernel
        nonlinearities: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}
        self.nonlinearity = nonlinearities[nonlinearity]
        weights, channels = [], 3
        for width in widths:
            flat = torch.randn(width, channels * kernel * kernel, generator=generator)
            weights.append((flat / flat.norm(dim=1, keepdim=True)).reshape(width, channels, kernel, kernel))
            channels = width
        self.weights = nn.ParameterList([nn.Parameter(weight, requires_grad=False) for weight in weights])
        self.shifts = [torch.zeros(width) for width in widths]
        self.spreads = [torch.ones(width) for width in widths]

    @torch.no_grad()
    def calibrate(self, images: Images) -> None:
        """Set each channel's mean and spread from typical images."""
        maps = to_unit_range(images) - 0.5
        for stage in range(len(self.weights)):
            raw = self._convolve(maps, stage)
            self.shifts[stage], self.spreads[stage] = raw.mean((0, 2, 3)), raw.std((0, 2, 3)) + 1e-6
            maps = self._stage(maps, stage)

    def _convolve(self, maps: Tensor, stage: int) -> Tensor:
        return functional.conv2d(maps, self.weights[stage], stride=2, padding=self.kernel // 2)

    def _stage(self, maps: Tensor, stage: int) -> Tensor:
        raw = self._convolve(maps, stage)
        return self.nonlinearity(raw.sub_(self.shifts[stage][:, None, None]).div_(self.spreads[stage][:, None, None]))

    @torch.no_grad()
    def stages(self, images: Images, *, grids: Sequence[int] | None = None) -> list[Float[Tensor, "image _ _ _"]]:
        """Every stage's maps (image, channel, grid, grid), averaged over `grid` x `grid` places (or a grid per stage)."""
        maps, taken = to_unit_range(images) - 0.5, []
        for stage, grid in enumerate(grids or [self.grid] * len(self.weights)):
            maps = self._stage(maps, stage)
            taken.append(functional.adaptive_avg_pool2d(maps, grid))
        return taken

    def forward(self, images: Images) -> Float[Tensor, "image dim"]:
        """The last two stages, each averaged over a `grid` x `grid` of places."""
        return torch.cat([maps.flatten(1) for maps in self.stages(images)[-2:]], dim=1)


def in_batches(network: Callable[[Tensor], Tensor], images: Images, *, batch_size: int = 128) -> Float[Tensor, "image dim"]:
    """Features of many images, a batch at a time."""
    batches = list(blocks_of(len(images), batch_size))
    return torch.cat([network(images[batch]) for batch in track(batches, "features of the images", len(batches))])


def principal_components(
    features: Float[Tensor, "image dim"],
    *,
    fit_rows: Tensor,
    n_components: int,
    whitening: float,
) -> Float[Tensor, "image component"]:
    """Scores on the leading components of standardised features; component k is scaled by (spread_k) ** -whitening.

    Everything is estimated on `fit_rows` alone. whitening 1 gives unit variance, 0 leaves variances as they are.
    There are no more components than fit rows.
    """
    chosen = features[fit_rows].double()
    mean, spread = chosen.mean(0), chosen.std(0).clamp_min(1e-6)
    centred = (chosen - mean) / spread
    if len(chosen) < chosen.shape[1]:  # the same components from the smaller of the two matrices
        variances, rows = torch.linalg.eigh(centred @ centred.T / len(chosen))
        directions = centred.T @ rows / (variances * len(chosen)).clamp_min(1e-12).sqrt()
    else:
        variances, directions = torch.linalg.eigh(centred.T @ centred / len(chosen))
    leading = variances.flip(0)[:n_components].clamp_min(1e-12).sqrt()
    scores = ((features.double() - mean) / spread) @ directions.flip(1)[:, :n_components]
    return (scores * leading**-whitening).float()
