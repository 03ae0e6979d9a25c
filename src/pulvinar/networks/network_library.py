"""Networks of torchvision and timm by name, with the input that their weights want, and weights from the net when asked."""

import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from pickle import UnpicklingError
from types import ModuleType
from typing import Any

import torch
from torch import nn

from pulvinar.core.errors import FileError, InputError, MissingDependencyError, NotFoundError
from pulvinar.networks.preprocessing import Preprocessing
from pulvinar.networks.weights import fit_weights, plain_names

LIBRARIES = ("torchvision", "timm")
HUB = "hf-hub:"


@dataclass(frozen=True)
class Entry:
    """A network that a library can build: which library, and its name there."""

    library: str
    name: str

    @property
    def full_name(self) -> str:
        """Name with its library, as `load_network` takes it."""
        return f"{self.library}:{self.name}"


def _module(library: str) -> ModuleType:
    try:
        if library == "timm":
            import timm

            return timm
        import torchvision

        return torchvision
    except ImportError as error:
        raise MissingDependencyError(f"{library} is not installed; run: pip install 'pulvinar[vision]'") from error


def _names(library: str) -> list[str]:
    module = _module(library)
    return module.list_models() if library == "timm" else module.models.list_models(module=module.models)


def _has(library: str, name: str) -> bool:
    module = _module(library)
    if library == "timm":
        base = name.partition(".")[0]
        return name.startswith(HUB) or (module.is_model(base) and (base == name or name in module.list_pretrained(f"{base}.*")))
    return name in _names(library)


def find(name: str) -> Entry:
    """The network of this name; without 'torchvision:' or 'timm:' in front torchvision is asked first. `NotFoundError` else."""
    library, colon, rest = name.partition(":")
    wanted: Sequence[str] = (library,) if colon and library in LIBRARIES else LIBRARIES
    rest = rest if colon and library in LIBRARIES else name
    for candidate in wanted:
        if _has(candidate, rest):
            return Entry(candidate, rest)
    known = [known for candidate in wanted for known in _names(candidate)]
    close = get_close_matches(rest, known, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(repr(match) for match in close)}?" if close else ""
    raise NotFoundError(f"network '{name}' is none of the {len(known)} image networks of {' and '.join(wanted)}{hint}")


def build(entry: Entry, *, seed: int, n_classes: int | None = None, image_size: int | None = None) -> nn.Module:
    """The network with random weights that depend on the seed alone; torch's global generator is left as it was."""
    options: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if entry.library == "torchvision":
        # as with its own weights, which want the ImageNet-normalised input turned into theirs
        options |= {"init_weights": True, "transform_input": True} if entry.name in ("googlenet", "inception_v3") else {}
    if image_size and has_fixed_size(entry):
        options["image_size" if entry.library == "torchvision" else "img_size"] = image_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            if entry.library == "timm":
                return _module("timm").create_model(entry.name, pretrained=False, **options).eval()
            return _module("torchvision").models.get_model(entry.name, weights=None, **options).eval()
        except (AssertionError, ValueError) as error:  # a transformer whose patches do not fill the image
            raise InputError(f"image_size: {entry.full_name} cannot be built for {image_size} pixels: {error}") from error


def _timm_config(entry: Entry) -> Any:
    return _module("timm").get_pretrained_cfg(entry.name) if not entry.name.startswith(HUB) else None


def has_fixed_size(entry: Entry) -> bool:
    """Whether the network is built for one image size (transformers with a position for each patch)."""
    if entry.library == "torchvision":
        return entry.name.startswith("vit_")
    return bool(getattr(_timm_config(entry), "fixed_input_size", False))


def head_name(entry: Entry, network: nn.Module) -> str:
    """The module that gives the logits: the library's word (timm), else the last linear layer or convolution."""
    if entry.library == "timm":
        named = getattr(network, "pretrained_cfg", {}).get("classifier") or ""
        return named if isinstance(named, str) else named[0]
    last = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return last[-1] if last else ""


def library_weights(entry: Entry, weights: str) -> Any:
    """torchvision's entry for a name of weights ('default', 'IMAGENET1K_V1'); `NotFoundError` lists those that exist."""
    choices = _module("torchvision").models.get_model_weights(entry.name)
    if weights.lower() == "default":
        return choices.DEFAULT
    if weights in choices.__members__:
        return choices[weights]
    raise NotFoundError(f"weights: torchvision has {', '.join(choices.__members__)} for {entry.name}, '{weights}' came")


def own_preprocessing(entry: Entry, network: nn.Module, weights: str | None) -> Preprocessing:
    """Input side, mean and spread: of these weights, or for None and files of the library's default weights."""
    if entry.library == "timm":
        config = getattr(network, "pretrained_cfg", {})
        side, mean, std = config.get("input_size", (3, 224, 224))[-1], config.get("mean"), config.get("std")
        return Preprocessing().changed(image_size=side, mean=mean, std=std, crop_share=config.get("crop_pct"))
    transform = library_weights(entry, weights or "default").transforms()
    side, resized = transform.crop_size[0], transform.resize_size[0]
    return Preprocessing().changed(image_size=side, mean=transform.mean, std=transform.std, crop_share=min(1.0, side / resized))


def download(entry: Entry, weights: str, *, image_size: int | None) -> nn.Module:
    """The network with weights by the library's own way: its cache, else the internet.

    Raises `FileError` with the command that fetches them when they cannot be had.
    """
    if entry.library == "torchvision":
        return _download_torchvision(entry, weights, image_size)
    return _download_timm(entry, weights, image_size)


def _download_torchvision(entry: Entry, weights: str, image_size: int | None) -> nn.Module:
    chosen = library_weights(entry, weights)
    target = f"{torch.hub.get_dir()}/checkpoints/{chosen.url.rpartition('/')[2]}"
    try:
        with redirect_stdout(sys.stderr):  # torch says there what it fetches
            state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError, UnpicklingError) as error:
        command = f"curl -L --create-dirs -o {shlex.quote(target)} {chosen.url}"
        raise _not_fetched(entry, weights, command, error) from error
    side = image_size or chosen.transforms().crop_size[0]
    network = build(entry, seed=0, n_classes=len(chosen.meta["categories"]), image_size=side)
    fit_weights(network, plain_names(state), source=f"'{weights}' of {entry.full_name}")
    return network


def _download_timm(entry: Entry, weights: str, image_size: int | None) -> nn.Module:
    timm = _module("timm")
    name, options = entry.name, dict[str, Any]()
    if weights.startswith(HUB):
        options["pretrained_cfg_overlay"] = {"hf_hub_id": weights.removeprefix(HUB)}
    elif weights.lower() != "default":
        name = f"{entry.name.partition('.')[0]}.{weights}"
        known = timm.list_pretrained(f"{entry.name.partition('.')[0]}.*")
        if name not in known:
            tags = ", ".join(full.partition(".")[2] for full in known) or "none"
            raise NotFoundError(f"weights: timm has {tags} for {entry.name}, '{weights}' came; or a name as {HUB}OWNER/MODEL")
    config = _timm_config(Entry("timm", name))
    if config is not None and not weights.startswith(HUB) and not config.has_weights:
        raise InputError(f"weights: timm has no weights for {entry.name}; give a local file, or none for random ones")
    if image_size and has_fixed_size(entry):
        options["img_size"] = image_size
    repository = weights.removeprefix(HUB) if weights.startswith(HUB) else getattr(config, "hf_hub_id", None) or name
    try:
        return timm.create_model(name, pretrained=True, **options).eval()
    except Exception as error:  # the hub's client raises classes of several libraries
        raise _not_fetched(entry, weights, f"hf download {shlex.quote(str(repository))}", error) from error


def _not_fetched(entry: Entry, weights: str, command: str, error: Exception) -> FileError:
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    return FileError(
        f"weights '{weights}' of {entry.full_name} are not on this machine and could not be fetched ({reason}). Where the "
        f"internet can be reached, run: {command}   or give a local file as weights"
    )
