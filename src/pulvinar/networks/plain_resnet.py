"""One pass of a trained ResNet as other people's code expects a backbone: plain modules, plain keys, trainable.

Keys are those of torchvision's and timm's ResNets (`layer1.0.conv1.weight`), so that the weights of a dense pass load into them
with `strict=True` but for the head. A gated pass has its gates beside (`layer1.0.gate1.reduce.weight`). Manners are timm's:
`forward_features` gives maps, `forward_head` pools them, `num_classes` puts a linear head on top.

Normalised images go into the module, as in timm; `from_pixels` takes pixels. Each refuses what the other takes.
"""

import copy
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.data.pixels import require_normalised, require_unit_range
from pulvinar.networks.gated_resnet import Block, GatedResNet, Pass, StridedPointwise, norm_of, spatial_mean
from pulvinar.networks.gates import Gate, GateRecord, GateSetting
from pulvinar.networks.macs import count_macs
from pulvinar.networks.narrow import narrowed
from pulvinar.networks.resnet_shape import STAGES, BlockShape, ResNetShape
from pulvinar.selection.channel_gate import TEMPERATURE, by_group, open_gates

Colours = tuple[float, float, float]


class PlainBlock(nn.Module):
    """BasicBlock (conv1, conv2) or Bottleneck (conv1 to conv3), each with its batch-norm (bn1 …), and `downsample`.

    gate1, gate2: of the inner convolution of that number, where there is one.
    """

    def __init__(self, shape: BlockShape, *, gated: bool, bias: float | None) -> None:
        super().__init__()
        if 0 in shape.inner:
            raise InputError("network: a block has no inner channel left; there is no plain convolution without channels")
        self.shape, self.n_convolutions = shape, len(shape.inner) + 1
        widths = (shape.inputs, *shape.inner, shape.outputs)
        sizes = ((1, 1), (3, shape.stride), (1, 1)) if shape.is_bottleneck else ((3, shape.stride), (3, 1))
        for n, (kernel, stride) in enumerate(sizes, 1):
            made = nn.Conv2d(widths[n - 1], widths[n], kernel, stride=stride, padding=kernel // 2, bias=False)
            setattr(self, f"conv{n}", made)
            setattr(self, f"bn{n}", nn.BatchNorm2d(widths[n]))
        self.relu = nn.ReLU()
        self.downsample: nn.Sequential | None = None
        if shape.has_downsample:
            kind = StridedPointwise if shape.stride > 1 else nn.Conv2d
            shortcut = kind(shape.inputs, shape.outputs, 1, stride=shape.stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(shape.outputs))
        for n in shape.gated if gated else ():
            setattr(self, f"gate{n + 1}", Gate(shape.inputs, shape.gate_hidden, shape.inner[n], bias, shape.gate_group))

    def forward(self, maps: Tensor, setting: GateSetting | None, record: GateRecord) -> Tensor:
        """relu(residual + shortcut). setting: how gates are drawn; None: there are none."""
        pooled = None if setting is None else spatial_mean(maps)
        residual = maps
        for n in range(1, self.n_convolutions + 1):
            residual = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(residual))
            if n == self.n_convolutions:
                break
            residual = self.relu(residual)
            gate = getattr(self, f"gate{n}", None)
            if gate is not None and setting is not None and pooled is not None:
                logits = gate(pooled)
                opened = setting.draw(logits, self.shape.gate_group)
                record.logits.append(logits + setting.shift)
                record.gates.append(opened)
                residual = residual * opened.to(residual.dtype)[:, :, None, None]
        return self.relu(residual + (maps if self.downsample is None else self.downsample(maps)))


class PlainResNet(nn.Module):
    """A ResNet for normalised images (image, 3, height, width) -> features (image, feature), or logits with a head.

    mode: dense, gated or compact. mean, std: per colour, of pixels in [0, 1]; the normalisation that it was trained with.
    In training gates are drawn with noise from `generator`, on the CPU; in evaluation an image has the gates of inference.
    mac_share: multiply-adds of the last batch as a share of this network's with every gate open, with a gradient for the gates;
    hard_share: the same of the gates of inference. card: what a README of its files says.
    """

    logit_shift: Tensor

    def __init__(
        self,
        shape: ResNetShape,
        *,
        size: int,
        mode: str = "dense",
        mean: Sequence[float],
        std: Sequence[float],
        num_classes: int = 0,
        gate_bias: float | None = None,
        temperature: float = TEMPERATURE,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.shape, self.size, self.mode, self.gate_bias, self.temperature = shape, size, mode, gate_bias, temperature
        self.mean, self.std = cast(Colours, tuple(map(float, mean))), cast(Colours, tuple(map(float, std)))
        self.macs, self.gated = count_macs(shape, size), mode != "dense"
        self.generator = torch.Generator().manual_seed(seed)
        self.mac_share = self.hard_share = torch.ones(())
        self.card, self.facts = "", cast(dict[str, Any], {})
        stem = shape.stem
        self.conv1 = nn.Conv2d(3, stem.channels, stem.kernel, stem.stride, stem.padding, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(stem.channels), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if stem.pooled else nn.Identity()
        blocks = [PlainBlock(block, gated=self.gated, bias=gate_bias) for block in shape.blocks]
        for number, depth in enumerate(STAGES[shape.network], 1):
            setattr(self, f"layer{number}", nn.ModuleList(blocks[:depth]))
            blocks = blocks[depth:]
        if self.gated:
            self.register_buffer("logit_shift", torch.zeros(()))
        self.num_features = self.head_hidden_size = shape.n_features
        self.num_classes = 0
        self.fc: nn.Module = nn.Identity()
        self.reset_classifier(num_classes)

    @property
    def blocks(self) -> list[PlainBlock]:
        """The blocks of all four layers in order."""
        return [block for number in range(1, 5) for block in getattr(self, f"layer{number}")]

    @property
    def default_cfg(self) -> dict[str, Any]:
        """What goes in and which modules are first and last, under timm's names."""
        return {
            "architecture": self.shape.network,
            "input_size": (3, self.size, self.size),
            "fixed_input_size": False,
            "pool_size": None,
            "crop_pct": 1.0,
            "crop_mode": "center",
            "interpolation": "bicubic",
            "mean": self.mean,
            "std": self.std,
            "num_classes": self.num_classes,
            "first_conv": "conv1",
            "classifier": "fc",
        }

    pretrained_cfg = default_cfg  # timm's newer name

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that get no weight decay: those of the gates."""
        return {name for name, _ in self.named_parameters() if ".gate" in name}

    def get_classifier(self) -> nn.Module:
        """The head: a linear layer, or nothing (`nn.Identity`)."""
        return self.fc

    def reset_classifier(self, num_classes: int, global_pool: str = "avg") -> None:
        """A new head for so many classes; 0: none."""
        if num_classes < 0 or global_pool != "avg":
            raise InputError(f"num_classes: 0 or more with average pooling is needed, {num_classes} and '{global_pool}' came")
        self.num_classes = num_classes
        like = self.conv1.weight
        made = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.fc = made.to(device=like.device, dtype=like.dtype)

    def forward_features(
        self, normalised: Float[Tensor, "image 3 height width"]
    ) -> Float[Tensor, "image channel rows columns"]:
        """The maps of the last block. `InputError` for pixels, in [0, 1] or from 0 to 255."""
        if not torch.compiler.is_compiling() and not torch.jit.is_tracing():  # numbers are not known while a graph is made
            require_normalised(normalised.detach(), "images", mean=self.mean, way="model.from_pixels(x) takes pixels")
        maps = self.maxpool(self.relu(self.bn1(self.conv1(normalised))))
        record = GateRecord([], [])
        setting = None
        if self.gated:
            setting = GateSetting(self.generator if self.training else None, self.temperature, self.logit_shift)
        for block in self.blocks:
            maps = block(maps, setting, record)
        if record.gates:
            self.mac_share = self.macs.share([gate.mean(1) for gate in record.gates])
            self.hard_share = self.macs.share([open_gates(logits).mean(1) for logits in record.logits]).detach()
        return maps

    def forward_head(
        self, maps: Float[Tensor, "image channel rows columns"], pre_logits: bool = False
    ) -> Float[Tensor, "image output"]:
        """Averaged over places, and through the head unless `pre_logits`."""
        pooled = spatial_mean(maps)
        return pooled if pre_logits else self.fc(pooled)

    def forward(self, normalised: Float[Tensor, "image 3 height width"]) -> Float[Tensor, "image output"]:
        """Features, or logits where there is a head, of normalised images: (pixel / 255 - mean) / std."""
        return self.forward_head(self.forward_features(normalised))

    def from_pixels(self, pixels: Tensor | np.ndarray) -> Float[Tensor, "image output"]:
        """The same of pixels: uint8, (image, height, width, 3) or (image, 3, height, width), or floating in [0, 1].

        They may be a numpy array.
        """
        return self(self.normalise(pixels))

    def normalise(self, pixels: Tensor | np.ndarray) -> Float[Tensor, "image 3 height width"]:
        """Pixels as `forward` takes them; `InputError` for numbers outside of [0, 1] (floating) and other shapes."""
        pixels = torch.as_tensor(pixels)
        if pixels.ndim != 4 or (pixels.shape[1] != 3 and pixels.shape[-1] != 3):
            raise InputError(f"pixels: (image, 3, height, width) is needed, {tuple(pixels.shape)} came")
        first = pixels if pixels.shape[1] == 3 else pixels.permute(0, 3, 1, 2)
        if pixels.dtype != torch.uint8:
            if not pixels.dtype.is_floating_point:
                raise InputError(f"pixels: uint8, or floating in [0, 1], is needed, {pixels.dtype} came")
            require_unit_range(pixels.detach(), "pixels")
        like = self.conv1.weight
        unit = first.to(like) / 255 if pixels.dtype == torch.uint8 else first.to(like)
        mean, std = (torch.tensor(values).to(like)[:, None, None] for values in (self.mean, self.std))
        return (unit - mean) / std

    def __deepcopy__(self, memo: dict[int, Any]) -> "PlainResNet":
        """A copy whose last shares carry no graph (averages of weights copy the module in the middle of training)."""
        made = self.__class__.__new__(self.__class__)
        memo[id(self)] = made
        state = {**self.__dict__, "mac_share": self.mac_share.detach(), "hard_share": self.hard_share.detach()}
        made.__dict__.update({name: copy.deepcopy(value, memo) for name, value in state.items()})
        return made

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write config.json, model.safetensors and README.md (the model card) as a new folder."""
        from pulvinar.networks import pretrained

        return pretrained.save(self, folder)

    @classmethod
    def from_pretrained(cls, place: str | os.PathLike[str], *, num_classes: int | None = None) -> "PlainResNet":
        """The network of such a folder, or of OWNER/NAME on the Hugging Face hub (needs huggingface_hub, and the network)."""
        from pulvinar.networks import pretrained

        return pretrained.load(place, num_classes=num_classes)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Put the files of `save_pretrained` on the Hugging Face hub as OWNER/NAME; the address of what was written."""
        from pulvinar.networks import pretrained

        return pretrained.push(self, repo_id, private=private, token=token)


def plain_resnet(
    network: GatedResNet,
    *,
    source: Pass,
    mean: Sequence[float],
    std: Sequence[float],
    kept: Sequence[Tensor] | None = None,
    num_classes: int = 0,
    seed: int = 0,
) -> PlainResNet:
    """One pass of a network with plain keys, in training mode, every parameter with a gradient.

    kept: of the gated pass, channels that stay of every gate; the others are cut out ("compact"), and an image that would open
    one of them gets other features. A gate that would keep none keeps its first channel.
    """
    if source not in network.passes:
        raise InputError(f"mode: this network has no {source} pass; it has: {', '.join(network.passes)}")
    if source == "gated" and (form := network.shape.gate_form) != "subset":
        raise InputError(
            f"mode: gates of form {form} have no plain modules; the dense pass has (mode dense, of a run of dual_gating), and "
            f"`pulvinar deploy compact` makes a network for use of the gated one"
        )
    mode: str = source if kept is None else "compact"
    base, from_pass = network, source
    if kept is not None:
        kept = [part if len(part) else torch.zeros(1, dtype=torch.long) for part in kept]
        base, from_pass = narrowed(network, kept, source=source), "dense"
    shape = base.shape if kept is None else _ungrouped(base.shape)
    bias = next((gate.initial_bias for gate in network.modules() if isinstance(gate, Gate)), None)
    made = PlainResNet(
        shape, size=network.size, mode=mode, mean=mean, std=std, gate_bias=bias, temperature=network.temperature, seed=seed
    )
    weights = _stem_weights(base, from_pass)
    lists = None if kept is None else list(kept)
    old = cast(list[Block], list(network.blocks))
    for (name, _), block, whole in zip(_named_blocks(made), cast(list[Block], list(base.blocks)), old, strict=True):
        weights |= {f"{name}.{key}": value for key, value in _block_weights(block, from_pass).items()}
        for number in whole.shape.gated if source == "gated" else ():
            gate = cast(Gate, whole.gates[str(number)])
            values = gate.state_dict() if lists is None else _cut_gate(gate, lists.pop(0))
            weights |= {f"{name}.gate{number + 1}.{key}": value for key, value in values.items()}
    if source == "gated":
        weights["logit_shift"] = network.logit_shift
    made.load_state_dict(weights)
    made.reset_classifier(num_classes)
    return made.train()


def _ungrouped(shape: ResNetShape) -> ResNetShape:
    """Every channel with a decision of its own: what is left of a group need not lie side by side."""
    return replace(shape, blocks=tuple(replace(block, gate_group=1) for block in shape.blocks))


def _named_blocks(network: PlainResNet) -> list[tuple[str, PlainBlock]]:
    return [(name, module) for name, module in network.named_modules() if isinstance(module, PlainBlock)]


def _prefixed(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}.{key}": value for key, value in module.state_dict().items()}


def _stem_weights(network: GatedResNet, source: Pass) -> dict[str, Tensor]:
    return _prefixed("conv1", network.stem.convolution) | _prefixed("bn1", norm_of(network.stem.norms, source))


def _block_weights(block: Block, source: Pass) -> dict[str, Tensor]:
    """The weights of a block but its gates, under the plain names."""
    found: dict[str, Tensor] = {}
    for n, (convolution, norms) in enumerate(zip(block.convolutions, block.norms, strict=True), 1):
        found |= _prefixed(f"conv{n}", convolution) | _prefixed(f"bn{n}", norm_of(cast(nn.ModuleDict, norms), source))
    if block.shortcut is not None and block.shortcut_norms is not None:
        found |= _prefixed("downsample.0", block.shortcut)
        found |= _prefixed("downsample.1", norm_of(block.shortcut_norms, source))
    return found


def _cut_gate(gate: Gate, kept: Tensor) -> dict[str, Tensor]:
    """The weights of a gate that decides for these channels alone, each by itself."""

    def rows(values: Tensor) -> Tensor:
        return by_group(values.T, group=gate.group, n_channels=gate.n_channels).T[kept]

    cut = {"expand.weight": rows(gate.expand.weight.detach()), "fixed": gate.fixed_channels()[kept]}
    if gate.expand.bias is not None:
        cut["expand.bias"] = rows(gate.expand.bias.detach()[:, None])[:, 0]
    return {**gate.state_dict(), **cut}
