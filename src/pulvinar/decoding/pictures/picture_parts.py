"""The trained parts that make pictures, opened from a run, and the pictures they make of the test brains."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core import devices
from pulvinar.core.errors import InputError
from pulvinar.core.progress import track
from pulvinar.data.experiment import Experiment
from pulvinar.decoding.decoder_runs import OpenedDecoder, averaged, open_decoder
from pulvinar.decoding.pictures.image_autoencoder import Autoencoder, PixelComponents, open_autoencoder
from pulvinar.decoding.pictures.picture_decoder import LowLevelBranch, PictureDecoder
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.diffusion_prior import DiffusionPrior

ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True)
class PartsShape:
    """What the networks are built from. low_level_hidden, prior_tokens: 0 for a part that is not there."""

    dim: int
    n_voxels: int
    picture_size: int
    width: int
    autoencoder: str | None
    low_level_hidden: int
    low_level_dropout: float
    prior_tokens: int
    prior_layers: int
    prior_heads: int
    prior_head_dim: int

    def plain(self) -> dict[str, Any]:
        """As plain values, for a checkpoint."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True, eq=False)
class Parts:
    """Image decoder (embedding -> picture), autoencoder with its low-level branch, prior; the last two may be absent."""

    components: PixelComponents
    image_decoder: PictureDecoder
    autoencoder: Autoencoder
    low_level: LowLevelBranch | None
    prior: DiffusionPrior | None

    @classmethod
    def build(cls, shape: PartsShape, pictures: Tensor, *, n_components: int, seed: int) -> "Parts":
        """New networks; the components are fitted to these training pictures (image, 3, side, side)."""
        side = shape.picture_size // 2
        return cls.around(PixelComponents.fit(pictures, n_components=n_components, side=side, seed=seed), shape)

    @classmethod
    def around(cls, components: PixelComponents, shape: PartsShape) -> "Parts":
        """Networks of this shape, without weights, around components."""
        autoencoder: Autoencoder = components
        if shape.autoencoder is not None:
            autoencoder = open_autoencoder(shape.autoencoder, side=shape.picture_size)
        low_level = prior = None
        if shape.low_level_hidden:
            options = {"hidden": shape.low_level_hidden, "dropout": shape.low_level_dropout}
            low_level = LowLevelBranch(shape.n_voxels, shape=autoencoder.latent_shape, **options)  # type: ignore[arg-type]
        if shape.prior_tokens:
            prior = DiffusionPrior(
                dim=shape.dim,
                n_tokens=shape.prior_tokens,
                n_layers=shape.prior_layers,
                n_heads=shape.prior_heads,
                head_dim=shape.prior_head_dim,
            )
        decoder = PictureDecoder(components, dim=shape.dim, side=shape.picture_size, width=shape.width)
        return cls(components=components, image_decoder=decoder, autoencoder=autoencoder, low_level=low_level, prior=prior)

    def to(self, device: torch.device) -> "Parts":
        """The same networks, moved."""
        for part in (self.components, self.image_decoder, self.autoencoder, self.low_level, self.prior):
            if isinstance(part, nn.Module):
                part.to(device)
        return self

    def require(self, name: str) -> Any:
        """The part of this name; `InputError` if it is not there."""
        part = getattr(self, name)
        if part is None:
            raise InputError(f"this run has no {name.replace('_', ' ')}")
        return part


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """What the brain gave for test images: ids, embedding for pictures and for retrieval (image, dim), low-level pictures.

    embedding: standardised as the decoder's target; regressed: the same by the decoder's own head, without a
    prior. true: of the images themselves. n_trials: presentations averaged (image,).
    low_level: (image, 3, side, side) in [0, 1], or None.
    """

    ids: list[str]
    embedding: Tensor
    regressed: Tensor
    projected: Tensor
    true: Tensor
    low_level: Tensor | None
    n_trials: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedPictures:
    """A finished picture_decoder run with the decoder it was made for."""

    decoder: OpenedDecoder
    parts: Parts
    trained_on: list[str]
    blend: float
    prior_samples: int

    @property
    def device(self) -> torch.device:
        """Where the parts are."""
        return self.parts.components.mean.device

    @torch.no_grad()
    def decode(self, experiment: Experiment, *, seed: int) -> Decoded:
        """All test images of the target, the outputs of their trials averaged; a prior samples from that average."""
        test = self.decoder.test(experiment)
        ids, outputs = test.stimulus_ids, self.decoder.outputs(test.responses)
        shown, device = list(dict.fromkeys(ids)), self.device
        embedding = regressed = averaged(outputs["regressed"], ids)
        if self.parts.prior is not None:
            generator = torch.Generator().manual_seed(seed * 16 + 14)
            condition = averaged(outputs["output"], ids)
            condition = condition.to(device)
            samples = [self.parts.prior.sample(condition, generator) for _ in range(self.prior_samples)]
            embedding = torch.stack(samples).mean(0).cpu()
        low_level = None
        if self.parts.low_level is not None:
            latents = averaged(self.parts.low_level(test.responses.to(device)), ids).to(device)
            low_level = torch.cat([self.parts.autoencoder.decode(rows).cpu() for rows in latents.split(ROWS_AT_ONCE)]).clamp(
                0, 1
            )
        return Decoded(
            ids=shown,
            embedding=embedding,
            regressed=regressed,
            projected=averaged(outputs["projected"], ids),
            true=self.decoder.embedding.of(experiment, shown),
            low_level=low_level,
            n_trials=np.array([ids.count(name) for name in shown]),
        )

    @torch.no_grad()
    def embedded_pictures(self, embedding: Tensor) -> Tensor:
        """Pictures (image, 3, side, side) in [0, 1] of standardised embeddings, by the small image decoder, on the CPU."""
        parts = embedding.split(ROWS_AT_ONCE)
        return torch.cat([self.parts.image_decoder(rows.to(self.device)).cpu() for rows in parts]).clamp(0, 1)


def blended(generated: Tensor, low_level: Tensor | None, share: float) -> Tensor:
    """(1 - share) generated + share low_level, in pixels at the generated pictures' size."""
    if low_level is None or share == 0:
        return generated
    return (1 - share) * generated + share * resized(low_level, generated.shape[-1])


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures (image, 3, height, width) at side x side: bilinear with antialiasing, nothing cut."""
    if pictures.shape[2:] == (side, side):
        return pictures
    return functional.interpolate(pictures, (side, side), mode="bilinear", antialias=True, align_corners=False)


def as_uint8(pictures: Tensor) -> np.ndarray:
    """Pictures (image, 3, height, width) in [0, 1] as uint8 (image, height, width, 3)."""
    return (255 * pictures.clamp(0, 1)).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def pixels_of(experiment: Experiment, ids: list[str], side: int, what: str) -> Tensor:
    """The images of these stimuli at side x side, uint8 (image, side, side, 3)."""
    made = torch.empty(len(ids), side, side, 3, dtype=torch.uint8)
    rows = experiment.stimuli.rows(ids)
    for place, row in enumerate(track(rows, what, len(rows))):
        picture = torch.from_numpy(np.array(experiment.stimuli.image(int(row)))).permute(2, 0, 1)[None].float() / 255
        made[place] = (255 * resized(picture, side)).round().to(torch.uint8)[0].permute(1, 2, 0)
    return made


def decoder_run_of(run: RunFolder) -> RunFolder:
    """The run whose decoder the pictures were made for: inside the run, or where it was."""
    return RunFolder.reopen(run.path / Path(run.facts["decoder_run"]))


def open_parts(run: RunFolder, experiment: Experiment) -> OpenedPictures:
    """A finished picture_decoder run, ready; `InputError` where it and the experiment do not fit."""
    result = run.require(method="picture_decoder").read("pictures")
    if result is None:
        raise InputError(f"{run.path}: has no checkpoint of pictures")
    shape = PartsShape(**result["shape"])
    parts = Parts.around(PixelComponents(result["n_components"], shape.picture_size // 2), shape)
    parts.components.load_state_dict(result["components"])
    for name, weights in result["parts"].items():
        part = parts.require(name)
        part.load_state_dict(weights)
        part.eval().requires_grad_(False)
    return OpenedPictures(
        decoder=open_decoder(decoder_run_of(run), experiment, adapted=result["adapted"]),
        parts=parts.to(devices.current()),
        trained_on=result["trained_on"],
        blend=result["blend"],
        prior_samples=result["prior_samples"],
    )
