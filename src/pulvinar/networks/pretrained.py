"""A plain network as files that others open: config.json, model.safetensors, README.md; on disk and on the Hugging Face hub.

config.json has what timm reads (`architecture`, `num_classes`, `num_features`, `pretrained_cfg`) and, under `pulvinar`, all
that the network is built from. Nothing is pickled. The hub is only asked by `push`, and by `load` of an OWNER/NAME.
"""

import os
import re
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from pulvinar.core.errors import FileError, InputError, MissingDependencyError
from pulvinar.core.storage import atomic_folder, read_json, reading, require_file, write_json, write_text
from pulvinar.networks.plain_resnet import PlainResNet
from pulvinar.networks.resnet_shape import StemShape, is_standard, shape_of

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
FORMAT = 1
ON_THE_HUB = re.compile(r"(?:hf-hub:)?([\w.-]+/[\w.-]+)")
INSTALL = "pip install huggingface_hub"


def save(network: PlainResNet, folder: str | os.PathLike[str]) -> Path:
    """Write the folder, whole or not at all; an existing one is refused."""
    from safetensors.torch import save_file

    with atomic_folder(folder) as temporary:
        weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
        save_file(weights, temporary / WEIGHTS, metadata={"format": "pt"})
        write_json(temporary / CONFIG, config_of(network))
        write_text(temporary / CARD, network.card or f"# {network.shape.network}\n")
    return Path(folder)


def config_of(network: PlainResNet) -> dict[str, Any]:
    """What config.json holds. A network that timm has not under this name gets one that timm does not know."""
    known = is_standard(network.shape) and network.mode == "dense"
    architecture = network.shape.network if known else f"pulvinar_{network.shape.network}"
    return {
        "architecture": architecture,
        "num_classes": network.num_classes,
        "num_features": network.num_features,
        "global_pool": "avg",
        "pretrained_cfg": {**network.default_cfg, "architecture": architecture},
        "pulvinar": {
            "format": FORMAT,
            "version": version("pulvinar"),
            "mode": network.mode,
            "shape": asdict(network.shape),
            "size": network.size,
            "mean": list(network.mean),
            "std": list(network.std),
            "gate_bias": network.gate_bias,
            "temperature": network.temperature,
            "facts": network.facts,
        },
    }


def load(place: str | os.PathLike[str], *, num_classes: int | None = None) -> PlainResNet:
    """The network of a folder, or of OWNER/NAME on the hub; in training mode.

    num_classes: of a fresh head, in the place of the stored one. `FileError` where the files are missing, damaged or of another
    kind.
    """
    from safetensors.torch import load_file

    folder = _folder(os.fspath(place))
    config = read_json(require_file(folder / CONFIG, "configuration of a network"))
    own = config.get("pulvinar") if isinstance(config, dict) else None
    if not isinstance(own, dict) or own.get("format") != FORMAT:
        raise FileError(f"{folder / CONFIG}: was not written by save_pretrained of this version")
    with reading(folder / WEIGHTS, "weights"):
        weights = load_file(require_file(folder / WEIGHTS, "weights"))
    try:
        made = PlainResNet(
            shape_of(own["shape"]),
            size=own["size"],
            mode=own["mode"],
            mean=own["mean"],
            std=own["std"],
            num_classes=config["num_classes"],
            gate_bias=own["gate_bias"],
            temperature=own["temperature"],
        )
        made.load_state_dict(weights)
    except (KeyError, TypeError, RuntimeError) as error:
        raise FileError(f"{folder}: {CONFIG} and {WEIGHTS} do not fit each other: {error}") from error
    made.facts = dict(own.get("facts") or {})
    made.card = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    if num_classes is not None:
        made.reset_classifier(num_classes)
    return made.train()


def is_pretrained(place: str) -> bool:
    """Whether it is a folder that `save` wrote, or hf-hub:OWNER/NAME."""
    return (place.startswith("hf-hub:") and not Path(place).exists()) or (
        (Path(place) / WEIGHTS).is_file() and not (Path(place) / "run.json").exists()
    )


def _hub() -> Any:
    if find_spec("huggingface_hub") is None:
        raise MissingDependencyError(f"the Hugging Face hub needs the package huggingface_hub: {INSTALL}")
    import huggingface_hub

    return huggingface_hub


def _folder(place: str) -> Path:
    """Where the files are; those of the hub are fetched."""
    if Path(place).is_dir():
        return Path(place)
    found = ON_THE_HUB.fullmatch(place)
    if found is None:
        raise FileError(f"{place}: no such folder, and no OWNER/NAME of the hub")
    try:
        return Path(_hub().snapshot_download(found[1], allow_patterns=[CONFIG, WEIGHTS, CARD]))
    except (OSError, ValueError) as error:  # what the hub raises for missing repositories and without a network
        raise FileError(f"{place}: no such folder, and not to be had from the hub: {str(error).splitlines()[0]}") from error


def push(network: PlainResNet, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
    """Put the files of `save` on the hub; the address of what was written."""
    import tempfile

    if ON_THE_HUB.fullmatch(repo_id) is None or repo_id.startswith("hf-hub:"):
        raise InputError(f"repo_id: OWNER/NAME is needed, '{repo_id}' came")
    api = _hub().HfApi(token=token)
    with tempfile.TemporaryDirectory() as place:
        folder = save(network, Path(place) / "network")
        api.create_repo(repo_id, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repo_id, folder_path=str(folder)))


def library_stem(network: nn.Module, stem: StemShape) -> nn.Module:
    """A ResNet of torchvision or timm with a stem of this shape, where its own is that of large images."""
    if (stem.kernel, stem.pooled) != (7, True):
        network.conv1 = nn.Conv2d(3, stem.channels, stem.kernel, stem.stride, stem.padding, bias=False)
        network.maxpool = nn.Identity()
    return network
