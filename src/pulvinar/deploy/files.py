"""A network for use as a folder: everything that another program needs to build it, nothing pickled.

network.safetensors   the weights; of a compact network cut into kept and dropped parts, no weight twice
config.json           kind, what its class is built from, multiply-adds, calibration, versions, where it came from

The folder appears whole or not at all, and is never overwritten. Both files carry a checksum of their content, which is
compared when they are read.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from pulvinar.core.errors import FileError
from pulvinar.core.storage import atomic_folder, read_json, reads, require_file, require_folder, write_json
from pulvinar.deploy.choices import ChoiceNetwork
from pulvinar.deploy.compact import Colours, CompactNetwork, Form
from pulvinar.deploy.voxel_decoder import VoxelDecoder
from pulvinar.learning.checkpoints import read_tensors, write_tensors
from pulvinar.learning.runs import environment
from pulvinar.networks.decoder import DecoderShape
from pulvinar.networks.resnet_shape import shape_of

FORMAT = 1
WEIGHTS, CONFIG = "network.safetensors", "config.json"
COMPACT, DECODER, CHOICES = "compact network", "voxel decoder", "network in pieces"
KINDS = (COMPACT, DECODER, CHOICES)
Kept = CompactNetwork | ChoiceNetwork | VoxelDecoder


def save(path: str | os.PathLike[str], network: Kept, *, facts: dict[str, Any] | None = None) -> None:
    """Write the folder; `FileError` where something stands under this name. facts: what else to keep (`load_config`)."""
    config = _described(network)
    with atomic_folder(path) as temporary:
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        write_tensors(temporary / WEIGHTS, weights, {})
        content = {"format": FORMAT, **config, "facts": facts or {}, "environment": environment()}
        write_json(temporary / CONFIG, content, sealed=True)


def _described(network: Kept) -> dict[str, Any]:
    if isinstance(network, ChoiceNetwork):
        return _describe_choices(network)
    return _describe(network) if isinstance(network, CompactNetwork) else _describe_decoder(network)


def _describe_choices(network: ChoiceNetwork) -> dict[str, Any]:
    return {
        "kind": CHOICES,
        "form": network.form,
        "size": network.size,
        "shape": asdict(network.shape),
        "options": [[kept.tolist() for kept in options] for options in network.options],
        "mean": list(network.mean),
        "sd": list(network.sd),
        "dtype": _dtype(network),
        "macs": asdict(network.macs),
    }


def _describe(network: CompactNetwork) -> dict[str, Any]:
    return {
        "kind": COMPACT,
        "form": network.form,
        "size": network.size,
        "shape": asdict(network.shape),
        "kept": None if network.kept is None else [kept.tolist() for kept in network.kept],
        "fallback": network.fallback,
        "mean": list(network.mean),
        "sd": list(network.sd),
        "dtype": _dtype(network),
        "macs": asdict(network.macs),
        "calibration": network.calibration,
    }


def _describe_decoder(decoder: VoxelDecoder) -> dict[str, Any]:
    return {
        "kind": DECODER,
        "n_voxels": decoder.n_voxels,
        "n_kept": len(decoder.kept),
        "architecture": asdict(decoder.shape),
        "dtype": _dtype(decoder),
        "macs": decoder.macs,
    }


def _dtype(network: nn.Module) -> str:
    return str(next(network.parameters()).dtype).removeprefix("torch.")


@reads("a network for use")
def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """config.json of the folder; `FileError` where it is missing or of another kind."""
    folder = require_folder(path, hint="; `pulvinar deploy compact` writes one")
    if (folder / "run.json").is_file() and not (folder / CONFIG).is_file():
        raise FileError(f"{folder}: is a run; make a network for use of it with `pulvinar deploy compact {folder} …`")
    config = read_json(require_file(folder / CONFIG), check_seal=False)
    if not isinstance(config, dict) or config.get("kind") not in KINDS:
        raise FileError(f"{folder}/{CONFIG}: describes no network for use")
    if config.get("format") != FORMAT:
        raise FileError(f"{folder}/{CONFIG}: format {config.get('format')}; this version reads format {FORMAT}")
    return read_json(folder / CONFIG)


@contextmanager
def _parts(path: str | os.PathLike[str], kind: str) -> Iterator[tuple[dict[str, Any], dict[str, Tensor]]]:
    """Description and weights of a folder of this kind; what fails inside the block says that they do not fit each other."""
    config, weights = _require_kind(path, kind), _weights(path)
    try:
        yield config, weights
    except (KeyError, TypeError, RuntimeError, AttributeError, ValueError, IndexError) as error:
        raise FileError(f"{path}: {WEIGHTS} and {CONFIG} do not fit each other: {error}") from error


@reads("a network for use")
def load(path: str | os.PathLike[str]) -> CompactNetwork:
    """The compact network of a folder, in inference mode on the CPU; `FileError` where it is damaged or of another kind."""
    with _parts(path, COMPACT) as (config, weights):
        kept = None if config["kept"] is None else [torch.tensor(part, dtype=torch.long) for part in config["kept"]]
        network = CompactNetwork(shape_of(config["shape"]), size=config["size"], kept=kept, form=cast(Form, config["form"]))
        network.to(dtype=getattr(torch, config["dtype"])).load_state_dict(weights)
        network.fallback = config["fallback"]
        network.mean, network.sd = (cast(Colours, tuple(config[name])) for name in ("mean", "sd"))
        network.calibration = config["calibration"]
    return network


@reads("a network for use")
def load_choices(path: str | os.PathLike[str]) -> ChoiceNetwork:
    """The network of levels or routes of a folder, in inference mode; `FileError` where it is damaged or of another kind."""
    with _parts(path, CHOICES) as (config, weights):
        options = tuple(tuple(torch.tensor(kept, dtype=torch.long) for kept in each) for each in config["options"])
        network = ChoiceNetwork(shape_of(config["shape"]), size=config["size"], options=options)
        network.to(dtype=getattr(torch, config["dtype"])).load_state_dict(weights)
        network.mean, network.sd = (cast(Colours, tuple(config[name])) for name in ("mean", "sd"))
        network.computes_all = config["form"] == "masked"
    return network


@reads("a network for use")
def load_decoder(path: str | os.PathLike[str]) -> VoxelDecoder:
    """The voxel decoder of a folder; `FileError` where it is damaged or of another kind."""
    with _parts(path, DECODER) as (config, weights):
        selected = torch.zeros(config["n_voxels"], dtype=torch.bool).index_fill(0, weights["kept"], True)
        decoder = VoxelDecoder(selected, DecoderShape(**config["architecture"])).to(dtype=getattr(torch, config["dtype"]))
        decoder.load_state_dict(weights)
    return decoder


def _require_kind(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    config = load_config(path)
    if config["kind"] != kind:
        raise FileError(f"{path}: a {kind} is needed, this is a {config['kind']}")
    return config


def _weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    return read_tensors(require_file(Path(path) / WEIGHTS), "safetensors")[0]
