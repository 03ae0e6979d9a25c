"""Networks that give embeddings to decode: pooled (image, dim) or tokens (image, token, dim).

    tower = load_tower("open_clip:ViT-bigG-14", weights="laion2b_s39b_b160k")      # 256 tokens of 1,664, or 1,280 pooled
    tower = load_tower("transformers:openai/clip-vit-large-patch14")               # or the path of a folder
    tower = load_tower("timm:tf_efficientnet_lite0", weights="packaged")           # any of timm or torchvision

Tokens are those of the image's patches after the last normalisation, without the class token (and registers): open_clip's
`output_tokens`, as MindEye2 takes them. Of an image network of timm or torchvision they are the places of a layer's map, and
pooled is their mean. Of open_clip and transformers nothing is downloaded: weights come from a file, a folder, or what the hub's
client has already fetched; where they are missing the error has the command that fetches them. Named weights of timm and
torchvision are had as `load_network` has them.
"""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, MissingDependencyError, NotFoundError, PulvinarError
from pulvinar.core.progress import warn
from pulvinar.core.storage import read_json, require_file
from pulvinar.networks import network_library
from pulvinar.networks.preprocessing import Images, Preprocessing
from pulvinar.networks.staged import load_network, stage_names
from pulvinar.networks.weights import checksum_of, is_file_name

LIBRARIES = ("open_clip", "transformers", *network_library.LIBRARIES)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
INSTALL = "is not installed; run: pip install 'pulvinar[pictures]'"
Embed = Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]


class VisionTower(nn.Module):
    """A network in evaluation mode, with the preprocessing that its weights want.

    layer: of an image network, the module whose maps are taken; None where the output is.
    """

    def __init__(
        self, network: nn.Module, embed: Embed, *, name: str, preprocessing: Preprocessing, layer: str | None = None
    ) -> None:
        super().__init__()
        self.network, self.name, self.preprocessing = network.eval().requires_grad_(False), name, preprocessing
        self.layer = layer
        self._embed = embed

    @torch.no_grad()
    def embed(self, images: Images, *, tokens: bool) -> Float[np.ndarray, "image ..."]:
        """float32 (image, dim), or with `tokens` (image, token, dim), of uint8 pictures (height, width, 3)."""
        device = next(self.network.parameters()).device
        pooled, patches = self._embed(self.network, self.preprocessing(images, device=device))
        if not tokens:
            return pooled.float().cpu().numpy()
        if patches is None:
            raise InputError(f"tokens: {self.name} gives none; leave tokens out for its pooled embedding")
        return patches.float().cpu().numpy()

    def made_from(self) -> dict[str, Any]:
        """What tells its embeddings from those of another tower: name, layer, weights, preprocessing."""
        facts: dict[str, Any] = {"network": self.name, "weights": checksum_of(self.network)}
        return facts | {"layer": self.layer or "output", "preprocessing": self.preprocessing.settings()}


def load_tower(name: str, *, weights: str | None = None, layer: str | None = None, seed: int = 0) -> VisionTower:
    """A tower: open_clip:MODEL with `weights` (a file, or a name such as laion2b_s39b_b160k), transformers:FOLDER_OR_NAME, or
    timm:MODEL and torchvision:MODEL with `weights` as `load_network` takes them.

    weights: None gives random ones (from `seed`; a warning says so). layer: of timm's and torchvision's, any of
    `staged.stage_names`; None: the last one before the classes. Raises `NotFoundError` for unknown names,
    `FileError` with a command where weights are not on this machine, `InputError` where they do not fit.
    """
    library, colon, rest = name.partition(":")
    if not colon or library not in LIBRARIES:
        forms = "timm:MODEL, torchvision:MODEL, open_clip:MODEL or transformers:FOLDER_OR_NAME"
        raise NotFoundError(f"network: {forms} is needed, '{name}' came")
    if library in network_library.LIBRARIES:
        return _from_image_network(name, weights, layer, seed)
    if layer is not None:
        raise InputError(f"layer: of timm's and torchvision's networks; {name} gives its output, or with tokens its patches")
    if library == "transformers":
        if weights is not None:
            raise InputError("weights: a transformers tower has its weights in its folder; leave them out")
        return _from_transformers(rest)
    return _from_open_clip(rest, weights, seed)


# --- timm and torchvision -------------------------------------------------------------------------------------------


def _from_image_network(name: str, weights: str | None, layer: str | None, seed: int) -> VisionTower:
    last = layer or stage_names(name)[-1]
    network = load_network(name, weights=weights, stages=(last,), seed=seed).freeze()

    def embed(_network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor]:
        maps = network.features(pixels)[last].flatten(2)
        return maps.mean(-1), maps.mT

    return VisionTower(network.module, embed, name=network.name, preprocessing=network.preprocessing, layer=last)


# --- open_clip --------------------------------------------------------------------------------------------------------


def _from_open_clip(name: str, weights: str | None, seed: int) -> VisionTower:
    try:
        import open_clip
    except ImportError as error:
        raise MissingDependencyError(f"open_clip {INSTALL}") from error
    if name not in open_clip.list_models():
        raise NotFoundError(f"network: open_clip has no model '{name}'{suggest(name, open_clip.list_models())}")
    options: dict[str, Any] = {}
    if weights is None:
        warn(f"open_clip:{name}: random weights (seed {seed}); name a file or weights for trained ones")
    else:
        path, options = _open_clip_weights(name, weights)
        options["pretrained"] = str(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model = open_clip.create_model(name, weights_only=True, **options)
        except PulvinarError:
            raise
        except Exception as error:  # open_clip raises whatever its parsers do
            raise InputError(f"weights: {weights} do not fit open_clip:{name}: {' '.join(str(error).split())[:300]}") from error
    tower = model.visual
    wanted = open_clip.get_model_preprocess_cfg(model)
    size = wanted["size"][0] if isinstance(wanted["size"], tuple | list) else wanted["size"]
    resize = "squash" if wanted["resize_mode"] == "squash" else "crop"
    own = Preprocessing(resize=resize, crop_share=1.0, interpolation=wanted["interpolation"])
    return VisionTower(
        tower,
        _embed_open_clip,
        name=f"open_clip:{name}",
        preprocessing=own.changed(image_size=size, mean=wanted["mean"], std=wanted["std"]),
    )


def _embed_open_clip(tower: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    if not hasattr(tower, "output_tokens"):
        return tower(pixels), None
    tower.output_tokens = True  # type: ignore[assignment]
    pooled, tokens = tower(pixels)
    return pooled, tokens


def _open_clip_weights(name: str, weights: str) -> tuple[Path, dict[str, Any]]:
    """A file, and what else `create_model` must know of it."""
    import open_clip

    if is_file_name(weights):
        return require_file(weights, "file of weights"), {}
    known = open_clip.list_pretrained_tags_by_model(name)
    if weights not in known:
        raise NotFoundError(
            f"weights: for {name} there are {', '.join(known) or 'no named ones'}, '{weights}' came; or give a file"
        )
    entry = open_clip.get_pretrained_cfg(name, weights)
    options = {"force_quick_gelu": True} if entry.get("quick_gelu") else {}
    repository, url = entry.get("hf_hub", "").rstrip("/"), entry.get("url", "")
    if repository and (path := _cached(repository, HUB_FILES)):
        return path, options
    command, then = f"hf download {shlex.quote(repository)} --include 'open_clip_*'", ""
    if not repository:
        command, then = f"curl -L -O {shlex.quote(url)}", "   and give the file as weights"
    raise FileError(
        f"weights '{weights}' of open_clip:{name} are not on this machine, and nothing is downloaded unasked. Where the "
        f"internet can be reached, run: {command}{then}"
    )


def _cached(repository: str, files: tuple[str, ...]) -> Path | None:
    """A file of a hub's repository, where the hub's client has fetched it already."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            return Path(found)
    return None


def fetched_repositories() -> list[str]:
    """Names of the repositories of models that the hub's client has fetched to this machine."""
    try:
        from huggingface_hub import scan_cache_dir
        from huggingface_hub.errors import CacheNotFound
    except ImportError:
        return []
    try:
        return sorted(repository.repo_id for repository in scan_cache_dir().repos if repository.repo_type == "model")
    except CacheNotFound:
        return []


# --- transformers -----------------------------------------------------------------------------------------------------


def _from_transformers(place: str) -> VisionTower:
    try:
        import transformers
    except ImportError as error:
        raise MissingDependencyError(f"transformers {INSTALL}") from error
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True)
        chosen, embed = _TOWERS.get(config.model_type, (None, None))
        if chosen is None or embed is None:
            raise InputError(f"network: towers of type {', '.join(_TOWERS)} are read, {place} is '{config.model_type}'")
        if config.model_type == "clip_vision_model" and "CLIPVisionModel" in (config.architectures or ()):
            chosen = "CLIPVisionModel"
        network = getattr(transformers, chosen).from_pretrained(place, local_files_only=True, use_safetensors=None)
    except PulvinarError:
        raise
    except Exception as error:
        if Path(place).is_dir():
            raise FileError(
                f"{place}: cannot be read as a transformers network: {' '.join(str(error).split())[:300]}"
            ) from error
        raise FileError(
            f"transformers:{place} is not on this machine, and nothing is downloaded unasked. Where the internet can be "
            f"reached, run: hf download {shlex.quote(place)}   or give the path of a folder"
        ) from error
    return VisionTower(network, embed, name=f"transformers:{place}", preprocessing=_transformers_preprocessing(place, config))


def _embed_clip(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """CLIP: its last hidden state is before the last normalisation, and holds the class token."""
    output = network(pixel_values=pixels)
    inner: Any = getattr(network, "vision_model", network)
    pooled = output.image_embeds if hasattr(output, "image_embeds") else output.pooler_output
    return pooled, inner.post_layernorm(output.last_hidden_state)[:, 1:]


def _embed_siglip(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """SigLIP: normalised patches, no class token."""
    output = network(pixel_values=pixels)
    return output.pooler_output, output.last_hidden_state


def _embed_vit(network: nn.Module, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
    """ViT and DINOv2: normalised tokens, the class token (and registers) in front; pooled is the class token."""
    hidden = network(pixel_values=pixels).last_hidden_state
    n_front = 1 + int(getattr(network.config, "num_register_tokens", 0) or 0)
    return hidden[:, 0], hidden[:, n_front:]


_TOWERS: dict[str, tuple[str, Embed]] = {
    "clip": ("CLIPVisionModelWithProjection", _embed_clip),
    "clip_vision_model": ("CLIPVisionModelWithProjection", _embed_clip),
    "siglip": ("SiglipVisionModel", _embed_siglip),
    "siglip_vision_model": ("SiglipVisionModel", _embed_siglip),
    "dinov2": ("Dinov2Model", _embed_vit),
    "dinov2_with_registers": ("Dinov2WithRegistersModel", _embed_vit),
    "vit": ("ViTModel", _embed_vit),
}


def _transformers_preprocessing(place: str, config: Any) -> Preprocessing:
    """From preprocessor_config.json where there is one, else CLIP's mean and std at the network's own size."""
    from transformers.utils import cached_file

    found: dict[str, Any] = {}
    try:
        path = cached_file(place, "preprocessor_config.json", local_files_only=True)
        found = read_json(path) if path else {}
    except Exception:  # a folder without one; the hub's client has classes of its own for this
        found = {}
    own = getattr(config, "vision_config", config)
    crop, size = found.get("crop_size"), found.get("size", {})
    side = crop["height"] if isinstance(crop, dict) else crop or own.image_size
    if isinstance(size, int):
        size = {"shortest_edge": size}
    squash = "height" in size and not found.get("do_center_crop", False)
    side = size["height"] if squash else side
    share = 1.0 if squash else min(1.0, side / size.get("shortest_edge", side))
    own_preprocessing = Preprocessing(
        resize="squash" if squash else "crop",
        crop_share=share,
        interpolation="bicubic" if found.get("resample", 3) == 3 else "bilinear",
    )
    mean, std = found.get("image_mean", CLIP_MEAN), found.get("image_std", CLIP_STD)
    return own_preprocessing.changed(image_size=side, mean=mean, std=std)
