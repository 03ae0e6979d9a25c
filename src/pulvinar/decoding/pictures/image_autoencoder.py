"""Image autoencoders: pictures -> latents -> pictures, for the low-level branch.

`PixelComponents` is the embedded one, fitted to the user's own training images: principal components, the best linear
autoencoder in squared error. `open_autoencoder` reads AutoencoderKL or AutoencoderTiny (TAESD) of diffusers from a local
folder. Pictures are float (image, 3, height, width) in [0, 1].
"""

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.errors import FileError, InputError, MissingDependencyError
from pulvinar.core.storage import read_json, reading

Pictures = Float[Tensor, "image 3 height width"]


class Autoencoder(Protocol):
    """What a low-level branch needs: the side of the pictures in pixels, the shape of a picture's latents, both directions."""

    side: int
    latent_shape: tuple[int, ...]

    def encode(self, pictures: Pictures) -> Tensor:
        """Latents (image, *latent_shape)."""

    def decode(self, latents: Tensor) -> Pictures:
        """Pictures (image, 3, side, side), not clamped."""


class PixelComponents(nn.Module):
    """Principal components of training pixels at `side` x `side`: latents (image, component) of unit mean square.

    z = (x - mean) axes' / spread; x = mean + spread z axes. One spread for all: an error in any latent weighs as in pixels.
    """

    mean: Tensor
    axes: Tensor
    spread: Tensor

    def __init__(self, n_components: int, side: int) -> None:
        super().__init__()
        self.n_components, self.side = n_components, side
        self.latent_shape: tuple[int, ...] = (n_components,)
        self.register_buffer("mean", torch.zeros(3 * side * side))
        self.register_buffer("axes", torch.zeros(n_components, 3 * side * side))
        self.register_buffer("spread", torch.ones(()))

    @classmethod
    def fit(cls, pictures: Pictures, *, n_components: int, side: int, seed: int) -> "PixelComponents":
        """Components of these pictures, at most as many as there are pictures less one."""
        from sklearn.utils.extmath import randomized_svd

        small = _scaled(pictures, side).flatten(1)
        n_components = min(n_components, len(small) - 1, small.shape[1])
        if n_components < 1:
            raise InputError(f"pictures: two or more are needed for components of their pixels, {len(small)} came")
        mean = small.mean(0)
        _, singular, axes = randomized_svd((small - mean).numpy(), n_components=n_components, n_iter=2, random_state=seed)
        made = cls(n_components, side)
        made.mean.copy_(mean)
        made.axes.copy_(torch.from_numpy(np.ascontiguousarray(axes)))
        made.spread.fill_(max(float((singular**2).mean() / len(small)) ** 0.5, 1e-6))
        return made

    def encode(self, pictures: Pictures) -> Tensor:
        """z of the formula, (image, component)."""
        return (_scaled(pictures, self.side).flatten(1) - self.mean) @ self.axes.T / self.spread

    def decode(self, latents: Tensor) -> Pictures:
        """x of the formula, (image, 3, side, side)."""
        return (self.mean + self.spread * latents @ self.axes).reshape(len(latents), 3, self.side, self.side)


def _scaled(pictures: Tensor, side: int) -> Tensor:
    if pictures.shape[2:] == (side, side):
        return pictures
    return functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True)


class DiffusersAutoencoder(nn.Module):
    """An AutoencoderKL or AutoencoderTiny: latents (image, channel, height, width), scaled as diffusion models take them.

    AutoencoderKL gives a distribution; its mode is taken, times the model's scaling factor.
    """

    def __init__(self, network: nn.Module, *, side: int) -> None:
        super().__init__()
        self.network, self.side = network.eval().requires_grad_(False), side
        self.is_tiny = type(network).__name__ == "AutoencoderTiny"
        self.scaling = 1.0 if self.is_tiny else float(network.config.scaling_factor)  # type: ignore[union-attr, arg-type]
        self.latent_shape = tuple(self.encode(torch.zeros(1, 3, side, side)).shape[1:])

    @torch.no_grad()
    def encode(self, pictures: Pictures) -> Tensor:
        """Latents (image, channel, height, width)."""
        encoded = self.network.encode(2 * _scaled(pictures, self.side) - 1)  # type: ignore[operator]
        return encoded.latents if self.is_tiny else encoded.latent_dist.mode() * self.scaling

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Pictures:
        """Pictures (image, 3, side, side), not clamped."""
        return (self.network.decode(latents / self.scaling).sample + 1) / 2  # type: ignore[operator]


def open_autoencoder(folder: str, *, side: int) -> DiffusersAutoencoder:
    """The autoencoder in a local folder of diffusers, or in the `vae` folder inside it; nothing is downloaded.

    Raises `FileError` for a folder that is none, with the command that fetches one.
    """
    path = Path(folder)
    path = path / "vae" if (path / "vae" / "config.json").is_file() else path
    if not (path / "config.json").is_file():
        fetch = "hf download madebyollin/taesd --local-dir taesd"
        raise FileError(f"autoencoder: {folder} is no folder of diffusers (config.json is missing); to get one: {fetch}")
    try:
        from diffusers import AutoencoderKL, AutoencoderTiny
    except ImportError as error:
        raise MissingDependencyError("diffusers is not installed; run: pip install 'pulvinar[pictures]'") from error
    kinds = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
    name = read_json(path / "config.json").get("_class_name")
    if name not in kinds:
        raise InputError(f"autoencoder: {path} holds a {name}; {' or '.join(kinds)} fits")
    with reading(path, f"weights of {name}"):
        network = kinds[name].from_pretrained(path, local_files_only=True, use_safetensors=True)
    return DiffusersAutoencoder(network, side=side)
