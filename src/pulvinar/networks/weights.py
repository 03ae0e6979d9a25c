"""Weights from a local file into a network, whole or not at all. Nothing is unpickled.

Read: .safetensors; .npz of arrays under the names of the network's `state_dict` (allow_pickle=False); .pt, .pth, .th, .ckpt,
.bin, .tar written by torch.save (weights_only=True), the state dict itself or under 'state_dict' or 'model'.
"""

import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, nn

from pulvinar.core import checksums
from pulvinar.core.errors import InputError
from pulvinar.core.storage import open_npz, read_json, reading, reads, require_file
from pulvinar.networks.preprocessing import Preprocessing

TORCH_SUFFIXES = (".pt", ".pth", ".th", ".ckpt", ".bin", ".tar")
SUFFIXES = (".safetensors", ".npz", *TORCH_SUFFIXES)
WRAPPERS = ("module.", "network.")
OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])(?=\.)")  # torchvision's files say norm.1 for norm1
COUNTER = "num_batches_tracked"  # how often batch norm was updated; evaluation does not use it
SIDECAR_FIELDS = ("mean", "std", "image_size", "crop_share", "resize")


def checksum_of(network: nn.Module) -> str:
    """SHA-256 of the weights as they are now: names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def is_file_name(weights: str | os.PathLike[str]) -> bool:
    """Whether `weights` means a local file: by its suffix, or because there is one."""
    return Path(weights).suffix.lower() in SUFFIXES or Path(weights).is_file()


@reads("weights")
def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Name -> tensor, on the CPU; a 'module.' or 'network.' in front of all names (a wrapper's) is dropped.

    Raises `FileError` if the file is missing, damaged or would need unpickling, `InputError` if it holds something else.
    """
    path = require_file(path, "file of weights")
    content = _content(path, path.suffix.lower())
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"weights: {path}: a state dict (names -> tensors), or one under 'state_dict' or 'model', is needed")
    return plain_names(content)


def plain_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that the network itself uses: without a wrapper's, and with DenseNet's of today."""
    names = [str(name) for name in state]
    for wrapper in WRAPPERS:
        if all(name.startswith(wrapper) for name in names):
            names = [name.removeprefix(wrapper) for name in names]
    names = [OLD_DENSENET.sub(r"\1\2", name) for name in names]
    return dict(zip(names, state.values(), strict=True))


def _content(path: Path, suffix: str) -> Any:
    if suffix == ".safetensors":
        from safetensors.torch import load_file

        with reading(path, "safetensors"):
            return load_file(path)
    if suffix == ".npz":
        with open_npz(path) as archive:
            return {name: torch.from_numpy(values) for name, values in archive.items()}
    if suffix in TORCH_SUFFIXES:
        checksums.once(path, "zip", lambda: _require_whole_archive(path))
        with reading(path, "weights of torch.save, read with weights_only=True"):
            return torch.load(path, map_location="cpu", weights_only=True)
    raise InputError(f"weights: {path}: files with {', '.join(SUFFIXES)} are read, '{path.suffix}' came")


def _require_whole_archive(path: Path) -> None:
    """torch leaves out the checksums (CRC-32) that are in the zip archive torch.save writes."""
    if not is_zipfile(path):
        return  # the format of torch before 1.6, without any
    with reading(path, "weights of torch.save"), ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(f"'{damaged}' in it is damaged, its checksum does not fit")


@reads("a description of weights")
def read_sidecar(path: str | os.PathLike[str]) -> dict[str, Any]:
    """What FILE.json beside a file of weights (net.npz -> net.json) says of the input it wants; empty where there is none."""
    sidecar = Path(path).with_suffix(".json")
    if not sidecar.is_file():
        return {}
    content = read_json(sidecar)
    if not isinstance(content, dict) or set(content) - set(SIDECAR_FIELDS):
        raise InputError(f"{sidecar}: an object with any of {', '.join(SIDECAR_FIELDS)} is needed; {str(content)[:80]} came")
    try:
        Preprocessing().changed(**content)
    except (TypeError, ValueError) as error:
        raise InputError(f"{sidecar}: {error}") from error
    return content


def fit_weights(network: nn.Module, weights: Mapping[str, Tensor], *, source: str) -> None:
    """Load every tensor into the network. Raises `InputError` with the first misfit before anything is changed.

    Batch norm's counter `num_batches_tracked` may be absent. Values become the network's type (float32).
    """
    own = network.state_dict()
    complete = {**{name: value for name, value in own.items() if name.endswith(COUNTER)}, **weights}
    _refuse_misfits(own, complete, source)
    network.load_state_dict({name: complete[name].to(value.dtype) for name, value in own.items()})


def _refuse_misfits(own: Mapping[str, Tensor], came: Mapping[str, Tensor], source: str) -> None:
    shapes = [name for name in own if name in came and came[name].shape != own[name].shape]
    missing, unexpected = [name for name in own if name not in came], [name for name in came if name not in own]
    counts = f"({len(missing)} missing, {len(unexpected)} unexpected, {len(shapes)} of another shape); nothing was loaded"
    for name, value in own.items():
        if name not in came:
            near = f"; the file's first unexpected key is '{unexpected[0]}'" if unexpected else ""
            raise InputError(f"weights: {source} do not fit the network: key '{name}' is missing{near} {counts}")
        if came[name].shape != value.shape:
            had, wanted = tuple(came[name].shape), tuple(value.shape)
            raise InputError(f"weights: {source} do not fit the network: '{name}' is {had}, the network has {wanted} {counts}")
        if not torch.isfinite(came[name]).all():
            raise InputError(f"weights: {source}: '{name}' holds values that are not finite; nothing was loaded")
    if unexpected:
        raise InputError(f"weights: {source} do not fit the network: key '{unexpected[0]}' is unexpected {counts}")
