"""Whether two forms of one network are the same, image by image, and where rounding decided a gate.

A gate is open where its logit is 0 or more. Two forms sum in different orders, so a logit within rounding of zero may come out
on either side: a flip. It changes the image's maps, and gates behind it may follow. So the images are told apart:

- without a flip, the features must agree: relative difference max |a - b| / max |a| of an image;
- with one, the gates that differ first (those of one block have the same input) must have a float64 logit close to zero,
  in units of the root mean square of that gate's logits for that image. The float64 pass is given the reference's gates, so
  that it follows the same path up to there.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.deploy.compact import CompactNetwork

CLOSE_TO_ZERO = 1e-4  # of the root mean square of a gate's logits; a flip above it is no rounding
TOLERANCE = 1e-5  # of the relative difference of features


@dataclass(frozen=True, kw_only=True, eq=False)
class Outputs:
    """Of one form: features (image, feature), logits (image, channel of all gates), misses (image, gate)."""

    features: np.ndarray
    logits: np.ndarray
    misses: np.ndarray


Form = Callable[[Tensor], Outputs]  # normalised images -> what a form makes of them


@dataclass(frozen=True, kw_only=True)
class Equality:
    """How far two forms agree over n images.

    misses: images that asked for dropped channels, gate by gate. flipped: images with a rounding flip; flips: their first
    differing gates; largest_flip: of those, the largest |float64 logit| over its scale. max_relative_difference and
    n_above_tolerance (1e-5): over images without a flip. not_rounding: flips too far from zero to be rounding.
    """

    n_images: int
    misses: tuple[int, ...]
    missed_images: int
    flipped: int
    flips: int
    largest_flip: float
    not_rounding: int
    max_relative_difference: float
    n_above_tolerance: int

    @property
    def holds(self) -> bool:
        """Whether every difference is explained."""
        return not self.n_above_tolerance and not self.not_rounding

    def __add__(self, other: "Equality") -> "Equality":
        """Both sets of images together."""
        mine, others = asdict(self), asdict(other)
        made: dict[str, Any] = {name: mine[name] + others[name] for name in mine}
        made["misses"] = tuple(a + b for a, b in zip(self.misses, other.misses, strict=True))
        for name in ("largest_flip", "max_relative_difference"):
            made[name] = max(mine[name], others[name])
        return Equality(**made)


def torch_form(network: CompactNetwork) -> Form:
    """What the network itself makes of images."""

    @torch.no_grad()
    def run(images: Tensor) -> Outputs:
        found = network.inspect(images.to(network.stem.weight))
        return Outputs(
            features=found.features.numpy(force=True),
            logits=torch.cat(found.logits, 1).numpy(force=True),
            misses=torch.stack(found.misses, 1).numpy(force=True),
        )

    return run


def onnx_form(run: Callable[[np.ndarray], dict[str, np.ndarray]], network: CompactNetwork) -> Form:
    """What an ONNX file makes of them. run: of `run_with` (deploy/onnx_files.py); network: for the normalisation to undo."""
    mean, sd = (np.array(values, np.float32)[:, None, None] for values in (network.mean, network.sd))

    def outputs(images: Tensor) -> Outputs:
        found = run((images.numpy(force=True).astype(np.float32) * sd + mean).astype(np.float32))
        return Outputs(features=found["features"], logits=found["logits"], misses=found["misses"])

    return outputs


def relative_differences(
    reference: Float[np.ndarray, "image feature"], found: Float[np.ndarray, "image feature"]
) -> np.ndarray:
    """max |a - b| / max |a| of every image, in float64; where a is zero the difference itself."""
    a, b = reference.astype(np.float64), found.astype(np.float64)
    largest = np.abs(a).max(1)
    return np.abs(a - b).max(1) / np.where(largest > 0, largest, 1.0)


def first_flips(
    reference: Float[np.ndarray, "image channel"], found: Float[np.ndarray, "image channel"], blocks: Sequence[tuple[int, int]]
) -> Bool[np.ndarray, "image channel"]:
    """Gates that differ in sign in the first block in which an image has any. blocks: first and last column + 1 of each."""
    differ = (reference >= 0) != (found >= 0)
    first = np.zeros_like(differ)
    open_rows = np.ones(len(differ), bool)
    for start, stop in blocks:
        here = differ[:, start:stop] & open_rows[:, None]
        first[:, start:stop] = here
        open_rows &= ~here.any(1)
    return first


def columns_of_blocks(network: CompactNetwork) -> list[tuple[int, int]]:
    """Where the logits of every block stand among those of all gates."""
    widths = [sum(block.inner[number] for number in block.gated) for block in network.shape.blocks]
    ends = np.cumsum(widths).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def compare(network: CompactNetwork, reference: Form, found: Form, batches: Iterable[Tensor]) -> Equality:
    """`found` against `reference` on batches of normalised images. network: whose forms they are; judges flips in float64."""
    blocks = columns_of_blocks(network)
    judge = network.masked().double()
    total: Equality | None = None
    for images in batches:
        part = _compare(judge, blocks, reference(images), found(images), images)
        total = part if total is None else total + part
    if total is None:
        raise InputError("images: none came")
    return total


def _compare(
    judge: CompactNetwork, blocks: Sequence[tuple[int, int]], reference: Outputs, found: Outputs, images: Tensor
) -> Equality:
    flips = first_flips(reference.logits, found.logits, blocks)
    flipped = flips.any(1)
    sizes = scaled_logits(judge, images[torch.from_numpy(flipped)], reference.logits[flipped])[flips[flipped]]
    differences = relative_differences(reference.features, found.features)[~flipped]
    return Equality(
        n_images=len(images),
        misses=tuple(found.misses.sum(0).tolist()),
        missed_images=int(found.misses.any(1).sum()),
        flipped=int(flipped.sum()),
        flips=int(flips.sum()),
        largest_flip=float(sizes.max(initial=0.0)),
        not_rounding=int((sizes >= CLOSE_TO_ZERO).sum()),
        max_relative_difference=float(differences.max(initial=0.0)),
        n_above_tolerance=int((~(differences <= TOLERANCE)).sum()),
    )


@torch.no_grad()
def scaled_logits(
    judge: CompactNetwork, images: Tensor, logits: Float[np.ndarray, "image channel"]
) -> Float[np.ndarray, "image channel"]:
    """|float64 logit| over the root mean square of its gate's, on the path that these logits' gates take."""
    if not len(images):
        return np.zeros((0, logits.shape[1]))
    widths = list(judge.shape.gate_channels)
    gates = torch.from_numpy(logits >= 0).split(widths, dim=1)
    exact = judge.inspect(images.double(), gates=gates).logits
    scaled = [part.abs() / part.square().mean(1, keepdim=True).sqrt().clamp_min(1e-300) for part in exact]
    return torch.cat(scaled, 1).numpy(force=True)
