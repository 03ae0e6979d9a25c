"""The networks by which reconstructions are compared with what was seen, each where its weights are to be had.

Names, layers and sides in pixels are those of MindEye2 (Scotti et al. 2024) and the papers that it compares itself with;
pictures are scaled to the square, nothing cut, bilinear with antialiasing. Any other torchvision or timm network may be
named, as 'NETWORK' or 'NETWORK:LAYER' (without a layer, its last stage averaged over places). Nothing is downloaded: weights
are a file in a folder that the caller names, or lie where torchvision, torch.hub or open_clip keep theirs. `energy` and
`colour` need none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from pulvinar.core import devices
from pulvinar.core.errors import FileError, MissingDependencyError, NotFoundError
from pulvinar.core.storage import reading
from pulvinar.networks import network_library
from pulvinar.networks.fixed_networks import colour, oriented_energy
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.staged import StagedNetwork, load_network
from pulvinar.networks.weights import SUFFIXES, fit_weights, read_weights

Score = Literal["two_way", "distance"]
Features = Callable[[np.ndarray], np.ndarray]
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # Radford et al. 2021
FIXED_SIDE = 64  # pixels at which the networks without weights look


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A network, the layer whose output is compared, the side of its input in pixels, and which score is made of it.

    stem: how a file with its weights begins. command: how to fetch them.
    """

    name: str
    network: str
    layer: str | None
    side: int | None
    score: Score = "two_way"
    stem: str = ""
    command: str = ""


def _library(name: str, network: str, layer: str, side: int, score: Score = "two_way") -> Measure:
    return Measure(name=name, network=network, layer=layer, side=side, score=score, stem=network)


_SWAV_FILE = "swav_800ep_pretrain.pth.tar"
_SWAV_URL = f"https://dl.fbaipublicfiles.com/deepcluster/{_SWAV_FILE}"
_CLIP_REPOSITORY = "timm/vit_large_patch14_clip_224.openai"
_CLIP_FETCH = "python -c \"import open_clip; open_clip.create_model('ViT-L-14-quickgelu', pretrained='openai')\""
PUBLISHED_MEASURES = (
    _library("alexnet2", "alexnet", "features.4", 256),
    _library("alexnet5", "alexnet", "features.11", 256),
    _library("inception", "inception_v3", "avgpool", 342),
    Measure(name="clip", network="ViT-L-14-quickgelu", layer=None, side=224, stem="ViT-L-14", command=_CLIP_FETCH),
    _library("efficientnet", "efficientnet_b1", "avgpool", 255, "distance"),
    Measure(name="swav", network="resnet50", layer="avgpool", side=224, score="distance", stem="swav_800ep_pretrain"),
)
FIXED_MEASURES = tuple(Measure(name=name, network=name, layer=None, side=FIXED_SIDE) for name in ("colour", "energy"))


def measure_named(name: str) -> Measure:
    """One of the measures above by its name, or any torchvision or timm network as NETWORK or NETWORK:LAYER."""
    known = {measure.name: measure for measure in (*PUBLISHED_MEASURES, *FIXED_MEASURES)}
    if name in known:
        return known[name]
    network, _, layer = name.partition(":")
    try:
        network_library.find(network)
    except NotFoundError as error:
        raise NotFoundError(f"measures: {', '.join(known)}, or a network; {error}") from error
    return Measure(name=name, network=network, layer=layer or None, side=None, stem=network)


def open_measure(measure: Measure, folder: Path | None = None) -> Features:
    """Pictures uint8 (image, height, width, 3) -> features float32 (image, value).

    folder: where files of weights lie, found by the beginning of their name. Raises `FileError` with what is missing and the
    command that fetches it.
    """
    if measure.network in ("energy", "colour"):
        return _fixed(measure.network)
    if measure.name == "clip":
        return _clip(measure, folder)
    weights = _weights(measure, folder)
    if measure.name == "swav":
        network = _swav(weights)
    else:
        stages = 1 if measure.layer is None else [measure.layer]
        network = load_network(measure.network, weights=weights, stages=stages, image_size=measure.side)
    network.freeze().to(devices.current())

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        pool = 1 if measure.layer is None else None
        maps = network.features(network.preprocess(images), pool=pool)[network.stages[-1]]
        return maps.flatten(1).float().cpu().numpy()

    return features


def _fixed(name: str) -> Features:
    look = {"energy": oriented_energy, "colour": colour}[name]
    scaled, device = Preprocessing(image_size=FIXED_SIDE, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)), devices.current()

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        pixels = (255 * scaled(images, device=device)).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
        return look(pixels).cpu().numpy()

    return features


def _in_folder(measure: Measure, folder: Path | None) -> Path | None:
    if folder is None:
        return None
    if not folder.is_dir():
        raise FileError(f"{folder}: no such folder of weights")
    found = sorted(path for path in folder.iterdir() if path.name.startswith(measure.stem) and path.suffix.lower() in SUFFIXES)
    return found[0] if found else None


def _weights(measure: Measure, folder: Path | None) -> Path:
    """The file of weights: in the folder, else where torchvision and torch.hub keep what they have fetched."""
    if found := _in_folder(measure, folder):
        return found
    url = _SWAV_URL if measure.name == "swav" else _url(measure.network)
    looked = f"in {folder} (a file whose name begins with '{measure.stem}')" if folder else "in a folder of weights"
    if url is None:
        raise FileError(f"{measure.name}: no weights {looked}")
    cached = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if not cached.is_file():
        raise FileError(f"{measure.name}: no weights {looked} nor in {cached.parent}; curl -L --create-dirs -o {cached} {url}")
    return cached


def _url(network: str) -> str | None:
    entry = network_library.find(network)
    return network_library.library_weights(entry, "default").url if entry.library == "torchvision" else None


def _swav(path: Path) -> StagedNetwork:
    """ResNet-50 as SwAV's authors trained it: their file has projections and prototypes of its own, and no classes."""
    entry = network_library.find("torchvision:resnet50")
    network = network_library.build(entry, seed=0)
    own = network.state_dict()
    state = {
        name: values for name, values in read_weights(path).items() if not name.startswith(("projection_head", "prototypes"))
    }
    classes = {name: values for name, values in own.items() if name.startswith("fc.")}
    fit_weights(network, {**classes, **state}, source=str(path))
    return StagedNetwork(network, name="swav", stages=("avgpool",), preprocessing=Preprocessing(image_size=224)).eval()


def _clip_in_cache() -> object:
    """The file that open_clip has fetched, if there is one."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    return try_to_load_from_cache(_CLIP_REPOSITORY, "open_clip_model.safetensors")


def _clip(measure: Measure, folder: Path | None) -> Features:
    """The image tower of an open_clip model, its projection included."""
    path = _in_folder(measure, folder) or _clip_in_cache()
    if not isinstance(path, str | Path):
        looked = f"in {folder} (a file whose name begins with '{measure.stem}') nor " if folder else ""
        raise FileError(f"{measure.name}: no weights {looked}where open_clip keeps its own; {measure.command}")
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError("open_clip is not installed; run: pip install 'pulvinar[pictures]'") from error
    with reading(path, f"weights of {measure.network}"):
        model = open_clip.create_model(measure.network, pretrained=str(path)).eval().to(devices.current())
    scaled, device = Preprocessing(image_size=measure.side or 224, mean=CLIP_MEAN, std=CLIP_STD), devices.current()

    @torch.no_grad()
    def features(images: np.ndarray) -> np.ndarray:
        return model.encode_image(scaled(images, device=device)).float().cpu().numpy()

    return features
