"""`pulvinar export-weights`, and `pulvinar.load_backbone`: a trained backbone for other people's code."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
import torch
from torch import nn

from pulvinar.app.data import open_data
from pulvinar.app.deploy import calibration_batches
from pulvinar.app.model_card import model_card
from pulvinar.core.config import suggest
from pulvinar.core.errors import InputError, MissingDependencyError
from pulvinar.core.places import place_of
from pulvinar.core.progress import warn
from pulvinar.core.storage import atomic_path, refuse_existing
from pulvinar.data.image_set import ImageSet
from pulvinar.deploy.calibration import calibrate as calibrate_gates
from pulvinar.learning import backbone_runs
from pulvinar.learning.backbone_runs import Backbone
from pulvinar.learning.runs import RunFolder
from pulvinar.networks.gated_resnet import Pass
from pulvinar.networks.plain_resnet import PlainResNet, plain_resnet
from pulvinar.networks.pretrained import is_pretrained, library_stem
from pulvinar.networks.resnet_shape import has_standard_blocks, is_standard

Mode = Literal["dense", "gated", "compact"]
Library = Literal["torchvision", "timm"]
TOLERANCE = 1e-5  # of features, relative to the largest


def load_backbone(
    run: str | os.PathLike[str],
    mode: Mode | None = None,
    *,
    num_classes: int | None = None,
    calibrate: str | ImageSet | np.ndarray | None = None,
    rare: float = 0.0,
    seed: int = 0,
) -> PlainResNet:
    """The network of a finished run as an `nn.Module` to train or to use: plain keys, timm's manners, every parameter trains.

    It takes normalised images and refuses pixels; `.from_pixels` takes pixels. It comes in training mode, as modules do:
    `.eval()` before it is used. run: also a folder of `save_pretrained`, or hf-hub:OWNER/NAME, each in its own mode.

    mode: dense (the default: all channels), gated (channels chosen by image), compact (the gated pass without the channels that
    no image of `calibrate` opens: smaller, but an image that would open one of them gets other features; `pulvinar deploy
    compact` has the exact form). calibrate: images as `pulvinar fit` takes them, or uint8 (image, height, width, 3). rare: also
    drop channels that at most this share of them opens. num_classes: of a fresh linear head, 0 for none. seed: of the noise
    that gates are drawn with in training.
    """
    if is_pretrained(place := place_of("run", run, "the folder of a run")):
        return _stored(place, mode, num_classes, calibrate)
    mode = mode or "dense"
    if mode not in get_args(Mode):
        raise InputError(f"mode: '{mode}' came{suggest(str(mode), get_args(Mode))}")
    if (calibrate is not None) != (mode == "compact"):
        lacks = "images are needed to see which channels open: calibrate=" if mode == "compact" else "leave out calibrate"
        raise InputError(f"mode {mode}: {lacks}")
    folder = RunFolder.reopen(place)
    backbone = backbone_runs.load_backbone(folder)
    facts: dict[str, Any] = {"method": folder.method, "data": (folder.facts.get("data") or {}).get("name"), "mode": mode}
    kept = None
    if calibrate is not None:
        found = calibrate_gates(backbone.network, calibration_batches(_pixels(calibrate, backbone), backbone.views), rare=rare)
        kept, facts["calibration"] = found.kept, {key: value for key, value in found.facts().items() if key != "fingerprint"}
        if found.miss_rate:
            warn(f"{place}: {found.statement()}. Here such an image gets other features than in the gated pass")
    made = plain_resnet(
        backbone.network,
        source=cast(Pass, "dense" if mode == "dense" else "gated"),
        kept=kept,
        mean=backbone.views.mean,
        std=backbone.views.sd,
        num_classes=num_classes or 0,
        seed=seed,
    )
    made.facts, made.card = facts, model_card(folder, made, facts)
    return made


def _stored(place: str, mode: str | None, num_classes: int | None, calibrate: object) -> PlainResNet:
    """The network of a folder or a place on the hub, which has its mode already."""
    made = PlainResNet.from_pretrained(place, num_classes=num_classes)
    if (mode is not None and mode != made.mode) or calibrate is not None:
        raise InputError(f"{place}: holds a network of mode {made.mode}; leave out mode and calibrate, or give the run")
    return made


def _pixels(given: str | ImageSet | np.ndarray, backbone: Backbone) -> np.ndarray:
    """uint8 (image, size, size, 3)."""
    pixels = given if isinstance(given, np.ndarray) else open_data("images", given).train
    size = backbone.network.size
    if pixels.dtype != np.uint8 or pixels.shape[1:] != (size, size, 3):
        raise InputError(
            f"calibrate: uint8 (image, {size}, {size}, 3) fits this network, {pixels.dtype} {tuple(pixels.shape)} came"
        )
    return pixels


def export_weights(run: str, *, to: Library, out: str) -> dict[str, Any]:
    """Write the dense pass as weights that torchvision's or timm's ResNet loads, strict but for the head, and try that out."""
    from safetensors.torch import save_file

    refuse_existing(out)
    if Path(out).suffix != ".safetensors":
        raise InputError(f"{out}: a name that ends in .safetensors is needed; nothing is pickled")
    network = load_backbone(run, "dense").eval()
    if not has_standard_blocks(network.shape):
        raise InputError(
            f"{run}: its {network.shape.network} has other widths than that of {to} (width of the settings), which so cannot "
            "load it; pulvinar.load_backbone and its save_pretrained keep such a network"
        )
    difference = _difference(network, to)
    own = {name: value.contiguous() for name, value in network.state_dict().items()}
    metadata = {"format": "pt", "architecture": network.shape.network, "mean": str(network.mean), "std": str(network.std)}
    with atomic_path(out) as temporary:
        save_file(own, temporary, metadata=metadata)
    return {
        "run": run,
        "file": out,
        "library": to,
        "network": network.shape.network,
        "largest_difference": difference,
        "mean": list(network.mean),
        "std": list(network.std),
        "size": network.size,
        "stem": "as it is" if is_standard(network.shape) else "of small images",
        "stem_lines": _stem_lines(network),
    }


def library_network(network: PlainResNet, library: Library) -> nn.Module:
    """The library's network with these weights, without a head, in evaluation mode."""
    if find_spec(library) is None:
        raise MissingDependencyError(f"to {library}: it is not installed: pip install 'pulvinar[vision]'")
    if library == "timm":
        import timm

        made = timm.create_model(network.shape.network, num_classes=0)
    else:
        import torchvision

        made = getattr(torchvision.models, network.shape.network)(weights=None)
        made.fc = nn.Identity()
    made = library_stem(made, network.shape.stem)
    made.load_state_dict({name: value for name, value in network.state_dict().items() if not name.startswith("fc.")})
    return made.eval()


@torch.no_grad()
def _difference(network: PlainResNet, library: Library) -> float:
    """Largest difference of the features over their largest, on two images; `InputError` above 1e-5."""
    size = network.size
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    ours, theirs = network.eval()(images), library_network(network, library)(images)
    found = float((ours - theirs).abs().max() / ours.abs().max().clamp(min=1e-12))
    if not found <= TOLERANCE:
        raise InputError(f"{library}: its features differ by {found:.2g} of the largest; its network is another one now")
    return found


def _stem_lines(network: PlainResNet) -> list[str]:
    """What to do to the library's network before the weights fit, where its stem is that of large images."""
    if is_standard(network.shape):
        return []
    stem = network.shape.stem
    size = f"{stem.channels}, {stem.kernel}, {stem.stride}, {stem.padding}"
    return [f"net.conv1 = torch.nn.Conv2d(3, {size}, bias=False)", "net.maxpool = torch.nn.Identity()"]


def export_weights_as_text(result: dict[str, Any]) -> str:
    """What the command line prints of `export_weights`."""
    mean, std = (", ".join(f"{value:.4g}" for value in result[name]) for name in ("mean", "std"))
    lines = [
        f"{result['file']}: {result['network']} for {result['library']}, which loaded it; its features differ by at most "
        f"{result['largest_difference']:.1g} of the largest",
        f"images: {result['size']} pixels a side, in [0, 1], less mean ({mean}), over std ({std})",
    ]
    if result["stem_lines"]:
        lines += ["its stem is that of small images; before the weights are loaded:", *(f"  {x}" for x in result["stem_lines"])]
    return "\n".join(lines)
