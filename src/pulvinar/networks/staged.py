"""Image networks with named stages: any of torchvision or timm, with weights from a file, the library or a hub.

    network = load_network("squeezenet1_0", weights="squeezenet1_0_imagenet.npz", stages=5)
    features = extract(network, images, pool=4)        # stage -> float32 (image, channel, 4, 4)

Where a network can be tapped is in `stages`, what pictures go through first in `preprocessing`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, NotFoundError
from pulvinar.core.progress import track, warn
from pulvinar.data.stimuli import Stimuli
from pulvinar.networks import network_library
from pulvinar.networks.network_library import Entry
from pulvinar.networks.packaged_weights import PACKAGED, packaged_state
from pulvinar.networks.preprocessing import TENSORFLOW_MEAN, TENSORFLOW_STD, Images, Preprocessing
from pulvinar.networks.stages import Output, Point, channels_first, choose_stages, find_points, outputs, prefix_tokens, taking
from pulvinar.networks.weights import checksum_of, fit_weights, is_file_name, read_sidecar, read_weights

TENSORFLOW_CLASSES = 1001


class StagedNetwork(nn.Module):
    """A network, the modules of it that are tapped, and the preprocessing that its weights want.

    stages: names of the tapped modules. shapes: stage -> (channel, height, width) at `image_size`.
    """

    def __init__(self, network: nn.Module, *, name: str, stages: tuple[str, ...], preprocessing: Preprocessing) -> None:
        super().__init__()
        self.module, self.name, self.stages, self.preprocessing = network, name, stages, preprocessing
        self.frozen, self.n_prefix = False, prefix_tokens(network)
        with self.evaluating(), torch.no_grad(), taking(preprocessing.image_size):
            maps = self.features(torch.zeros(1, 3, self.image_size, self.image_size, device=self.device))
        self.shapes = {stage: tuple(values.shape[1:]) for stage, values in maps.items()}

    @property
    def image_size(self) -> int:
        """Side of the square that the network takes, in pixels."""
        return self.preprocessing.image_size

    @property
    def mean(self) -> tuple[float, ...]:
        """Subtracted from red, green, blue (pixels in 0..1)."""
        return self.preprocessing.mean

    @property
    def std(self) -> tuple[float, ...]:
        """What red, green, blue are divided by."""
        return self.preprocessing.std

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    def preprocess(self, images: Images) -> Float[Tensor, "image 3 side side"]:
        """uint8 (image, height, width, 3), or a list of (height, width, 3) of mixed sizes, resized and normalised."""
        return self.preprocessing(images, device=self.device)

    def forward(self, images: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image class"]:
        """Logits of preprocessed images."""
        return self.module(images)

    def features(
        self, images: Float[Tensor, "image 3 height width"], *, stages: Sequence[str] | None = None, pool: int | None = None
    ) -> dict[str, Float[Tensor, "image _ _ _"]]:
        """Stage -> (image, channel, height, width) of preprocessed images, with gradients unless the caller stops them.

        Tokens of transformers become maps, without the class token; vectors have height and width 1. pool: average every map
        to pool x pool places (adaptive; a smaller map is not enlarged). stages: some of `self.stages`, all for None.
        """
        wanted = self.known_stages(stages)
        taken: dict[str, Tensor] = {}
        with ExitStack() as hooks:
            for name in wanted:

                def take(_module: nn.Module, _inputs: Any, output: Tensor, name: str = name) -> None:
                    taken[name] = self._as_maps(output, pool)

                hooks.callback(self.module.get_submodule(name).register_forward_hook(take).remove)
            self.module(images)
        return {name: taken[name] for name in wanted}

    def _as_maps(self, output: Tensor, pool: int | None) -> Tensor:
        maps = channels_first(output, n_prefix=self.n_prefix)
        if pool is None:
            return maps.clone()  # layers after it may work in place
        return functional.adaptive_avg_pool2d(maps, (min(pool, maps.shape[2]), min(pool, maps.shape[3])))

    def known_stages(self, stages: Sequence[str] | None) -> tuple[str, ...]:
        """The stages, all of this network's for None; `NotFoundError` for names that it does not tap."""
        wanted = self.stages if stages is None else (stages,) if isinstance(stages, str) else tuple(stages)
        for name in wanted:
            if name not in self.stages:
                raise NotFoundError(f"stages: network {self.name} does not tap '{name}'{suggest(name, self.stages)}")
        if not wanted:
            raise InputError("stages: one or more are needed, none came")
        return wanted

    def freeze(self) -> "StagedNetwork":
        """No gradients, and evaluation mode that `train()` does not change."""
        self.frozen = True
        self.requires_grad_(False)
        return self.eval()

    def unfreeze(self) -> "StagedNetwork":
        """Gradients for all weights again; the mode is left as it is."""
        self.frozen = False
        self.requires_grad_(True)
        return self

    def train(self, mode: bool = True) -> "StagedNetwork":
        """As in torch, except that a frozen network stays in evaluation mode."""
        return super().train(mode and not self.frozen)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Evaluation mode inside the block; afterwards every module is in the mode it had."""
        modes = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    def checksum(self) -> str:
        """SHA-256 of the weights as they are now: names, types, shapes and values."""
        return checksum_of(self.module)

    def settings(self) -> dict[str, Any]:
        """What describes this network beside its weights, as plain values for run folders and keys."""
        return {"name": self.name, "stages": list(self.stages), **self.preprocessing.settings()}


def load_network(
    name: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    stages: Sequence[str] | int | None = None,
    image_size: int | None = None,
    mean: Sequence[float | int] | None = None,
    std: Sequence[float | int] | None = None,
    resize: str = "squash",
    seed: int = 0,
) -> StagedNetwork:
    """A network in evaluation mode, with weights, stages and preprocessing.

    name: a torchvision or timm image network; 'torchvision:...' or 'timm:...' says which, a bare name asks torchvision first.
    weights: None for random ones (from `seed`; a warning says so); a local file; 'packaged' for those of an installed package
    (timm:tf_efficientnet_lite0, `packaged_weights`); 'default' or a name of the library's weights
    ('IMAGENET1K_V2', for timm a tag such as 'a1_in1k', or 'hf-hub:OWNER/MODEL'), which may need the internet.
    A file with another number of classes is met by a network with that number.
    stages: None, a number or names, see `stages.choose_stages`; the same for every image_size.
    image_size, mean, std: by default those of the weights' own configuration; for a file FILE.json beside it, else those of the
    network's default weights, except that 1001 classes mean TensorFlow's input (mean and std 128/255), with a warning.

    Raises `NotFoundError` for unknown names, `InputError` for weights that do not fit (the first misfit is named) and a size
    that the network does not take, `FileError` for files that cannot be read and downloads that fail (with the command that
    fetches them).
    """
    entry = network_library.find(name)
    is_file = weights is not None and is_file_name(weights)
    sidecar = read_sidecar(weights) if weights is not None and is_file else {}
    asked_size = image_size or sidecar.get("image_size")
    if weights is None:
        warn(f"network {entry.full_name}: random weights (seed {seed}); name a file or 'default' as weights for trained ones")
        network = network_library.build(entry, seed=seed, image_size=asked_size)
    elif is_file:
        network = _from_file(entry, weights, image_size=asked_size)
    elif weights == PACKAGED:
        network = network_library.build(entry, seed=0, image_size=asked_size)
        fit_weights(network, packaged_state(entry.full_name, network), source=PACKAGED)
    else:
        network = network_library.download(entry, str(weights), image_size=asked_size)
    own_weights = None if is_file or weights is None or weights == PACKAGED else str(weights)
    own = network_library.own_preprocessing(entry, network, own_weights)
    if is_file and mean is None and std is None and not {"mean", "std"} & set(sidecar) and n_classes(entry, network) == 1001:
        warn(
            f"{weights}: {TENSORFLOW_CLASSES} classes, so input as TensorFlow's, mean and std 128/255; give mean and std if not"
        )
        own = own.changed(mean=TENSORFLOW_MEAN, std=TENSORFLOW_STD)
    own = own.changed(resize=resize).changed(**sidecar).changed(image_size=image_size, mean=mean, std=std)
    points, found = _points(entry, network, own.image_size)
    tapped = choose_stages(points, found, stages, network=entry.full_name)
    return StagedNetwork(network, name=entry.full_name, stages=tapped, preprocessing=own).eval()


def _from_file(entry: Entry, path: str | os.PathLike[str], *, image_size: int | None) -> nn.Module:
    """The network with the classes of the file, and the file's weights in it."""
    state = read_weights(path)
    network = network_library.build(entry, seed=0, image_size=image_size)
    head = f"{network_library.head_name(entry, network)}.weight"
    own = network.state_dict()
    if head in own and head in state and state[head].ndim == own[head].ndim and len(state[head]) != len(own[head]):
        network = network_library.build(entry, seed=0, n_classes=len(state[head]), image_size=image_size)
    fit_weights(network, state, source=str(path))
    return network


def n_classes(entry: Entry, network: nn.Module) -> int:
    """Classes that a network's head tells apart; 0 where it has no head with weights."""
    weight = network.state_dict().get(f"{network_library.head_name(entry, network)}.weight")
    return 0 if weight is None else len(weight)


def _points(entry: Entry, network: nn.Module, image_size: int) -> tuple[list[Point], dict[str, Output]]:
    """Found at the network's usual size, so that the stages of a network do not depend on the size that is asked for."""
    fixed = network_library.has_fixed_size(entry)
    side = image_size if fixed else network_library.own_preprocessing(entry, network, None).image_size
    found = outputs(network, side)
    return find_points(network, found, head=network_library.head_name(entry, network)), found


def stage_names(name: str) -> tuple[str, ...]:
    """All points of a network at which it can be tapped, in order of execution (17 for SE-ResNeXt-50). Needs no weights.

    Any other module that runs once may be named as a stage too.
    """
    entry = network_library.find(name)
    network = network_library.build(entry, seed=0)
    points, _ = _points(entry, network, network_library.own_preprocessing(entry, network, None).image_size)
    return tuple(point.name for point in points)


def image_rows(images: Images | Stimuli, start: int, stop: int) -> Images:
    """Pictures start to stop, read when asked for."""
    if isinstance(images, Stimuli):
        return [images.image(row) for row in range(start, min(stop, len(images)))]
    return images[start:stop]


def feature_batches(
    network: StagedNetwork,
    images: Images | Stimuli,
    *,
    batch_size: int = 32,
    pool: int | None = None,
    stages: Sequence[str] | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Stage -> float32 (image, channel, height, width) of one batch of images after the other, with progress.

    Evaluation mode and no gradients; every module is in the mode it had afterwards.
    """
    total = len(images)
    for argument, value in (("images", total), ("batch_size", batch_size), ("pool", pool)):
        if value is not None and value < 1:
            raise InputError(f"{argument}: 1 or more are needed, {value} came")
    wanted = network.known_stages(stages)
    starts = range(0, total, batch_size)
    with network.evaluating():
        for start in track(starts, f"features of {network.name}", len(starts)):
            with torch.no_grad():
                pixels = network.preprocess(image_rows(images, start, start + batch_size))
                maps = network.features(pixels, stages=wanted, pool=pool)
            yield {stage: values.float().cpu().numpy() for stage, values in maps.items()}


def extract(
    network: StagedNetwork,
    images: Images | Stimuli,
    *,
    batch_size: int = 32,
    pool: int | None = None,
    stages: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """Stage -> float32 (image, channel, height, width) of all images, in memory.

    images: uint8 (image, height, width, 3), a list of pictures of mixed sizes, or `Stimuli`, read a batch at a time.
    pool: average every map to pool x pool places (maps smaller than that stay). For more images than fit into memory, and to
    keep features over runs, see `encoding.feature_cache`.
    """
    wanted = network.known_stages(stages)
    parts: dict[str, list[np.ndarray]] = {stage: [] for stage in wanted}
    for batch in feature_batches(network, images, batch_size=batch_size, pool=pool, stages=wanted):
        for stage, values in batch.items():
            parts[stage].append(values)
    return {stage: np.concatenate(parts.pop(stage)) for stage in wanted}
