"""Which levels or routes images take: how they are spread, and how many images do not take the most frequent one.

A network of levels has a choice in every block, one of routes has one altogether. An image changes at a choice if it does not
take the option that most images take there; a share of 0 means that the gate does not look at the image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.networks.gated_resnet import GatedOutput, GatedResNet
from pulvinar.networks.gates import chosen_levels


def choices_of(network: GatedResNet, output: GatedOutput) -> Int[Tensor, "image choice"] | None:
    """The options of inference that images take, from 0: a level in every block, or a route; None of gates of channels."""
    form = network.shape.gate_form
    if form == "subset":
        return None
    if form == "routes":
        if output.chances is None:
            raise InputError("output: a gated pass is needed, this one is dense")
        return output.chances.argmax(1, keepdim=True)
    widths = [block.level_widths(convolution) for block in network.shape.blocks for convolution in block.gated]
    found = [chosen_levels(logits, options) for logits, options in zip(output.logits, widths, strict=True)]
    return torch.stack(found, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class ChoiceStatistics:
    """form: levels or routes. shares: of every choice the share of images (option,) that takes each option.

    options: what the options are, per choice: numbers of channels of levels, numbers of routes. changed_anywhere: share of the
    images that do not take the most frequent option at one choice or more.
    """

    form: str
    n_images: int
    shares: tuple[np.ndarray, ...]
    options: tuple[tuple[int, ...], ...]
    changed_anywhere: float

    @property
    def changed(self) -> tuple[float, ...]:
        """1 - the share of the most frequent option, of every choice."""
        return tuple(1 - float(share.max()) for share in self.shares)

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "form": self.form,
            "n_images": self.n_images,
            "changed": float(np.mean(self.changed)),
            "changed_anywhere": self.changed_anywhere,
            "choices": [
                {"options": list(options), "shares": share.tolist(), "changed": changed}
                for options, share, changed in zip(self.options, self.shares, self.changed, strict=True)
            ],
        }


def choice_statistics(network: GatedResNet, choices: Int[Tensor, "image choice"]) -> ChoiceStatistics:
    """Statistics of the choices of all images (`choices_of`)."""
    shape = network.shape
    if shape.gate_form == "routes":
        options = [tuple(range(shape.routes))]
    else:
        options = [block.level_widths(convolution) for block in shape.blocks for convolution in block.gated]
    if not len(choices):
        raise InputError("choices: no image came")
    counts = [torch.bincount(column, minlength=len(each)).double() for column, each in zip(choices.T, options, strict=True)]
    usual = torch.stack([count.argmax() for count in counts]).to(choices)
    return ChoiceStatistics(
        form=shape.gate_form,
        n_images=len(choices),
        shares=tuple((count / len(choices)).numpy() for count in counts),
        options=tuple(options),
        changed_anywhere=float((choices != usual).any(1).double().mean()),
    )


def masks_of(network: GatedResNet, choices: Int[Tensor, "image choice"]) -> list[Tensor]:
    """The gates (image, channel) of every gate that these choices mean."""
    if network.router is not None:
        opened = [(part >= 0).float() for part in network.router.by_gate(network.router.masks.detach() + network.logit_shift)]
        return [part[choices[:, 0].to(part.device)] for part in opened]
    widths = [block.level_widths(convolution) for block in network.shape.blocks for convolution in block.gated]
    return [
        (torch.arange(options[-1]) < torch.tensor(options)[column][:, None]).float()
        for column, options in zip(choices.T.cpu(), widths, strict=True)
    ]


def drawn_choices(shares: Sequence[np.ndarray], n_images: int, generator: torch.Generator) -> Int[Tensor, "image choice"]:
    """Choices drawn at random for each image, each by its own shares."""
    return torch.stack(
        [torch.multinomial(torch.as_tensor(share), n_images, replacement=True, generator=generator) for share in shares], 1
    )


def in_words(found: Mapping[str, Any]) -> str:
    """One line, or one for every block: the shares of the options, and of the images that change."""
    changed = f"{100 * found['changed']:.0f} % of the images do not take the most frequent one"
    if found["form"] == "routes":
        (only,) = found["choices"]
        return f"routes: {', '.join(f'{100 * share:.0f} %' for share in only['shares'])} of the images; {changed}"
    lines = [f"levels: {changed}, mean over blocks ({100 * found['changed_anywhere']:.0f} % in one block or more)"]
    for number, choice in enumerate(found["choices"], 1):
        pairs = zip(choice["options"], choice["shares"], strict=True)
        lines.append(f"  block {number}: " + ", ".join(f"{width} channels {100 * share:.0f} %" for width, share in pairs))
    return "\n".join(lines)
