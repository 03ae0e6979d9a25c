"""Where in a picture an encoding model looks: Grad-CAM at the last convolution (captum), for pictures and their mirror images.

    a_k = mean over places of d y / d A_k,      salience = max(0, sum_k a_k A_k)            (Selvaraju et al. 2017)

A_k the maps of the last convolution up to the stage that half of the voxels read, or a later one: where the layer is chosen per
voxel, the network's very last convolution may serve a few of them only (ours). y is one number per picture: half the squared
length of the predicted pattern over the voxels in question, less its mean pattern (ours; the paper does not say): what makes
this picture's pattern differ from the mean one. Voxels whose layer lies before the convolution add nothing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core import devices
from pulvinar.core.errors import DegenerateError, InputError
from pulvinar.core.progress import track
from pulvinar.encoding.encoder import on_device, readout
from pulvinar.learning.checkpoints import State
from pulvinar.networks.preprocessing import Images
from pulvinar.networks.staged import StagedNetwork, image_rows
from pulvinar.networks.stages import outputs
from pulvinar.scores.lateralisation import Lateralisation, corrected_left_share, lateralisation

Score = Callable[[dict[str, Tensor]], Tensor]  # stage -> maps (image, channel, height, width)  ->  one number per image


def last_convolution(network: StagedNetwork, stages: Sequence[str] | None = None) -> str:
    """Name of the last convolution that has run when the last of these stages is done; `InputError` if there is none."""
    wanted = network.known_stages(stages)
    found = outputs(network.module, network.image_size)
    latest = max(found[stage].order for stage in wanted)
    maps = [
        (output.order, name)
        for name, output in found.items()
        if isinstance(network.module.get_submodule(name), nn.Conv2d)
        and output.calls == 1
        and output.order <= latest
        and output.shape is not None
        and output.shape[-1] > 1
    ]
    if not maps:
        raise InputError(f"salience: {network.name} has no convolution with maps up to stage {wanted[-1]}")
    return max(maps)[1]


class PatternScore:
    """y of the module's formula for some encoded voxels (places in the encoder), and which layer each of them reads."""

    def __init__(self, encoder: State, voxels: np.ndarray) -> None:
        self.encoder = encoder = on_device(encoder, devices.current())
        self.places = torch.from_numpy(np.asarray(voxels, np.int64))
        self.centre = encoder["centre"][self.places]
        names = list(encoder["names"])
        single = names == ["all"]
        self.reads = [] if single else [names[int(number)] for number in encoder["layers"][self.places]]

    def __call__(self, maps: dict[str, Tensor]) -> Tensor:
        """y of each image, from the maps of the encoder's stages."""
        pattern = readout(self.encoder, maps)[:, self.places] - self.centre
        return pattern.square().sum(1) / 2


def read_by_most(network: StagedNetwork, scores: Sequence[Score]) -> str:
    """The latest stage that at least half of the voxels of every score read, or a later one (ours)."""
    places = []
    for score in scores:
        reads = getattr(score, "reads", None) or [network.stages[-1]]
        places.append(int(np.sort([network.stages.index(name) for name in reads])[len(reads) // 2]))
    return network.stages[min(places)]


@contextmanager
def _out_of_place(network: nn.Module) -> Iterator[None]:
    """No module works in place, which would change the maps that the gradient is taken to."""
    changed = [module for module in network.modules() if getattr(module, "inplace", False) is True]
    try:
        for module in changed:
            module.inplace = False  # type: ignore[assignment]
        yield
    finally:
        for module in changed:
            module.inplace = True  # type: ignore[assignment]


def salience_maps(
    network: StagedNetwork,
    score: Score,
    images: Images,
    *,
    convolution: str | None = None,
    pool: int | None = None,
    mirrored: bool = False,
    batch_size: int = 16,
) -> np.ndarray:
    """Salience float32 (image, height, width), 0 or more, at the places of the convolution's maps.

    mirrored: of the pictures flipped left to right, as they lie there. pool: as the encoder's features were pooled.
    """
    from captum.attr import LayerGradCam

    name = convolution or last_convolution(network)
    module = network.module.get_submodule(name)

    def one_number(pixels: Tensor) -> Tensor:
        return score(network.features(pixels, pool=pool))

    parts, starts = [], range(0, len(images), batch_size)
    with network.evaluating(), _out_of_place(network.module):
        attribute = LayerGradCam(one_number, module).attribute
        for start in track(starts, "salience, mirrored" if mirrored else "salience", len(starts)):
            pixels = network.preprocess(image_rows(images, start, start + batch_size))
            pixels = (pixels.flip(3) if mirrored else pixels).requires_grad_()
            found = attribute(pixels, relu_attributions=True)
            parts.append(found.detach()[:, 0].float().cpu().numpy())
    maps = np.concatenate(parts)
    if not np.isfinite(maps).all():
        raise DegenerateError("salience: NaN or infinite values")
    return maps


@dataclass(frozen=True, kw_only=True, eq=False)
class HemisphereSalience:
    """Salience of the left and the right hemisphere's model: 'lh', 'rh' -> (image, height, width), also on mirror images.

    index: `metrics.lateralisation`, over images.
    """

    maps: dict[str, np.ndarray]
    mirrored: dict[str, np.ndarray]
    index: Lateralisation
    convolution: str


def hemisphere_salience(
    models: Mapping[str, tuple[StagedNetwork, Score, int | None]],
    images: Images,
    *,
    generator: np.random.Generator,
    n_permutations: int = 10_000,
) -> HemisphereSalience:
    """Left against right: salience of both models on the same pictures and mirror images, and the lateralisation index.

    models: 'lh' and 'rh' -> (network, score, pool); they may share a network, and have the same stages.
    """
    if set(models) != {"lh", "rh"}:
        raise InputError(f"salience: models of 'lh' and 'rh' are needed, {', '.join(models) or 'none'} came")
    maps, mirrored, shares, names = {}, {}, {}, {}
    every = [score for _, score, _ in models.values()]
    for side, (network, score, pool) in models.items():
        names[side] = last_convolution(network, [read_by_most(network, every)])
        given: dict[str, Any] = {"convolution": names[side], "pool": pool}
        maps[side] = salience_maps(network, score, images, **given)
        mirrored[side] = salience_maps(network, score, images, mirrored=True, **given)
        shares[side] = corrected_left_share(maps[side], mirrored[side])
    return HemisphereSalience(
        maps=maps,
        mirrored=mirrored,
        index=lateralisation(shares["lh"], shares["rh"], generator=generator, n_permutations=n_permutations),
        convolution=names["lh"] if names["lh"] == names["rh"] else f"lh: {names['lh']}, rh: {names['rh']}",
    )
