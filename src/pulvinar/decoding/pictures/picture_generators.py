"""Large pretrained generators that turn an image embedding into a picture, from a local folder or the hub's local cache.

    unclip:PLACE          StableUnCLIPImg2ImgPipeline of diffusers (Stable Diffusion 2.1 unCLIP); pooled CLIP embedding
    sdxl_ip_adapter:PLACE StableDiffusionXLPipeline with an IP-Adapter; pooled CLIP embedding
    kandinsky:PLACE       KandinskyV22Pipeline; pooled CLIP embedding, no text tower

PLACE is a local folder that `from_pretrained` reads, or a name on the hub whose files are in the local cache; for the
IP-Adapter FOLDER,FILE names the adapter's file too (by default the first .safetensors in FOLDER/ip_adapter). Nothing is
downloaded: what is missing is an error with the command that fetches it.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core import devices
from pulvinar.core.config import suggest
from pulvinar.core.errors import FileError, InputError, MissingDependencyError
from pulvinar.core.storage import require_file

Generator = Callable[[Float[Tensor, " dim"], int], Tensor]
DEFAULT_PLACES = {
    "unclip": "sd2-community/stable-diffusion-2-1-unclip-small",
    "sdxl_ip_adapter": "stabilityai/stable-diffusion-xl-base-1.0",
    "kandinsky": "kandinsky-community/kandinsky-2-2-decoder",
}
# what diffusers raises on folders that are not whole
PACKAGE_ERRORS = (OSError, ValueError, TypeError, KeyError, RuntimeError, AttributeError)
_ADAPTER = "hf download h94/IP-Adapter sdxl_models/ip-adapter_sdxl_vit-h.safetensors --local-dir"


class PictureGenerator:
    """One picture (3, height, width) in [0, 1] from one embedding (dim,), in the embedding's own units; the seed fixes it.

    dim: length of the embeddings that the weights take. n_steps: denoising steps. guidance: scale of classifier-free guidance.
    """

    def __init__(self, kind: str, pipeline: Any, dim: int, *, n_steps: int, guidance: float, side: int | None) -> None:
        self.kind, self.pipeline, self.dim = kind, pipeline, dim
        self.options: dict[str, Any] = {
            "num_inference_steps": n_steps,
            "guidance_scale": guidance,
            "output_type": "np",
            **({} if side is None else {"height": side, "width": side}),
        }

    @torch.no_grad()
    def __call__(self, embedding: Float[Tensor, " dim"], seed: int) -> Float[Tensor, "3 height width"]:
        """The picture of this embedding."""
        if len(embedding) != self.dim:
            raise InputError(f"generator {self.kind}: its weights take embeddings of {self.dim} numbers, {len(embedding)} came")
        device = self.pipeline.device
        row = embedding[None].to(device, self.pipeline.unet.dtype)
        generator = torch.Generator(device="cpu").manual_seed(seed)
        given = self._conditions(row)
        picture = np.asarray(self.pipeline(**given, generator=generator, **self.options).images[0])
        return torch.from_numpy(picture).float().permute(2, 0, 1).clamp(0, 1)

    def _conditions(self, row: Tensor) -> dict[str, Any]:
        if self.kind == "kandinsky":
            return {"image_embeds": row, "negative_image_embeds": torch.zeros_like(row)}
        if self.kind == "unclip":
            return {"image_embeds": row, "prompt": ""}
        guided = self.options["guidance_scale"] > 1
        embeds = row[:, None]  # (1, one picture, dim)
        return {"prompt": "", "ip_adapter_image_embeds": [torch.cat([torch.zeros_like(embeds), embeds]) if guided else embeds]}


def parse(text: str) -> tuple[str, str | None]:
    """'embedded' or KIND:PLACE as (kind, place)."""
    kind, _, place = text.partition(":")
    kinds = ("embedded", *DEFAULT_PLACES)
    if kind not in kinds:
        raise InputError(f"generator: '{kind}' is none{suggest(kind, kinds)}")
    if kind == "embedded" and place:
        raise InputError(f"generator: embedded takes no folder, '{place}' came; its weights are trained by pulvinar")
    return kind, place or DEFAULT_PLACES.get(kind)


def open_generator(
    kind: str, place: str, *, n_steps: int = 20, guidance: float = 7.5, side: int | None = None, device: str | None = None
) -> PictureGenerator:
    """The pipeline with its weights, on the current device. `FileError` has the command that fetches what is missing."""
    try:
        import diffusers
    except ImportError as error:
        raise MissingDependencyError("diffusers is not installed; run: pip install 'pulvinar[pictures]'") from error
    names = {
        "unclip": "StableUnCLIPImg2ImgPipeline",
        "sdxl_ip_adapter": "StableDiffusionXLPipeline",
        "kandinsky": "KandinskyV22Pipeline",
    }
    base, _, adapter = place.partition(",")
    _require_weights(kind, base)
    where = devices.current() if device is None else torch.device(device)
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    try:
        pipeline = getattr(diffusers, names[kind]).from_pretrained(base, local_files_only=True, use_safetensors=True)
    except PACKAGE_ERRORS as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{base}: cannot be read as {names[kind]} ({reason}); to fetch it: {_fetch(kind, base)}") from error
    if kind == "sdxl_ip_adapter":
        _load_adapter(pipeline, base, adapter)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(where, dtype)
    return PictureGenerator(kind, pipeline, _dim(kind, pipeline), n_steps=n_steps, guidance=guidance, side=side)


PACKAGE_ERRORS = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    RuntimeError,
    AttributeError,
)  # what diffusers raises on bad folders


def _fetch(kind: str, base: str) -> str:
    repository = DEFAULT_PLACES[kind] if _is_local(base) else base
    into = f" --local-dir {base}" if _is_local(base) else ""
    return f"hf download {repository}{into}"


def _is_local(base: str) -> bool:
    """Whether PLACE means a folder: it is there, or is written as a path."""
    return Path(base).exists() or base.startswith((".", "/", "~")) or base.count("/") != 1


def _require_weights(kind: str, base: str) -> None:
    if _is_local(base):
        if not (Path(base) / "model_index.json").is_file():
            reason = "model_index.json is missing" if Path(base).is_dir() else "no such folder"
            raise FileError(f"generator {kind}: {base}: {reason}; to get the weights: {_fetch(kind, base)}")
        return
    from huggingface_hub import try_to_load_from_cache

    if not isinstance(try_to_load_from_cache(base, "model_index.json"), str):
        raise FileError(f"generator {kind}: {base} is not in the hub's cache on this machine; to get it: {_fetch(kind, base)}")


def _load_adapter(pipeline: Any, base: str, adapter: str) -> None:
    folder = Path(base) / "ip_adapter"
    found = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not adapter and not found:
        raise FileError(
            f"generator sdxl_ip_adapter: no adapter in {folder}, and none named after a comma (FOLDER,FILE); to get one: "
            f"{_ADAPTER} {folder}"
        )
    path = require_file(adapter or found[0], "file of an IP-Adapter")
    try:
        pipeline.load_ip_adapter(
            str(path.parent), subfolder="", weight_name=os.fspath(path.name), image_encoder_folder=None, local_files_only=True
        )
    except PACKAGE_ERRORS as error:
        raise FileError(f"{path}: cannot be read as an IP-Adapter for {base} ({' '.join(str(error).split())[:200]})") from error


def _dim(kind: str, pipeline: Any) -> int:
    """Length of the embeddings that the pipeline's weights take."""
    if kind == "unclip":
        return int(pipeline.image_normalizer.config.embedding_dim)
    layers = pipeline.unet.encoder_hid_proj
    if kind == "kandinsky":
        return int(layers.image_embeds.in_features)
    return int(layers.image_projection_layers[0].image_embeds.in_features)
