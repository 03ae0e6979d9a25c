"""Which channels the gates open on calibration images, and how often new images will ask for one that was dropped.

A channel is dropped where it opens for at most `rare` of the calibration images (0: never). An image that opens a dropped
channel misses. How often, the calibration images tell by leaving one out: image i misses at a gate if it opens a channel that
would have been dropped without it; with rare = 0 that is a channel which i alone opens (the count that Good 1953 takes for the
share of what has not been seen). Where none of n images does, at most 3 / n miss with 95 % confidence (the rule of three);
in general the Clopper-Pearson bound is given. The rate falls about as 1 / n: each channel that opens for a share p of images is
overlooked with probability (1 - p)^n.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pulvinar.core.errors import InputError
from pulvinar.core.storage import fingerprint
from pulvinar.data.pixels import require_normalised
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import FIXED_LOGIT
from pulvinar.selection.channel_gate import open_gates

FEWEST = 100  # images; 3 / n is then a miss rate of 3 %


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """What the calibration images said.

    kept: channels that stay, gate by gate, ascending; multiple: to which their number was filled up. counts: for how many
    images each channel opens. own_misses: for how many calibration images a dropped channel opens (0 where rare is 0).
    left_out_misses: the same with each image left out in turn. any_left_out: images that, left out, miss at one gate or more.
    fingerprint: of the images.
    """

    n_images: int
    rare: float
    multiple: int
    kept: tuple[Tensor, ...]
    counts: tuple[Tensor, ...]
    own_misses: tuple[int, ...]
    left_out_misses: tuple[int, ...]
    any_left_out: int
    fingerprint: str

    @property
    def miss_rates(self) -> tuple[float, ...]:
        """Share of new images that will miss at each gate, estimated by leaving one out."""
        return tuple(count / self.n_images for count in self.left_out_misses)

    @property
    def miss_rate(self) -> float:
        """Share of new images that will miss at one gate or more, estimated by leaving one out."""
        return self.any_left_out / self.n_images

    def statement(self) -> str:
        """In words: the rate expected of new images, its upper bound, and what more images would do."""
        bound = upper_bound(self.any_left_out, self.n_images)
        return (
            f"{self.n_images} calibration images: about {100 * self.miss_rate:.2f} % of new images like them will ask for a "
            f"dropped channel somewhere (left out one by one, {self.any_left_out} did; with 95 % confidence at most "
            f"{100 * bound:.2f} %); twice as many images about halve it"
        )

    def facts(self) -> dict[str, Any]:
        """Plain values for a file."""
        return {
            "n_images": self.n_images,
            "rare": self.rare,
            "multiple": self.multiple,
            "kept": [len(kept) for kept in self.kept],
            "channels": [len(counts) for counts in self.counts],
            "own_misses": list(self.own_misses),
            "left_out_misses": list(self.left_out_misses),
            "any_left_out": self.any_left_out,
            "miss_rate": self.miss_rate,
            "miss_rate_upper_95": upper_bound(self.any_left_out, self.n_images),
            "fingerprint": self.fingerprint,
            "statement": self.statement(),
        }


def upper_bound(count: int, n: int, *, confidence: float = 0.95) -> float:
    """One-sided Clopper-Pearson upper bound of a share of which `count` of n were seen; for 0 it is about 3 / n."""
    from scipy.stats import beta

    return 1.0 if count >= n else float(beta.ppf(confidence, count + 1, n - count))


def batches_of(images: Tensor | Iterable[Tensor], batch_size: int) -> Iterable[Tensor]:
    """Batches of images that come as one tensor, or as batches already."""
    return images.split(batch_size) if isinstance(images, Tensor) else images


@torch.no_grad()
def calibrate(
    network: GatedResNet,
    images: Float[Tensor, "image 3 height width"] | Iterable[Tensor],
    *,
    rare: float = 0.0,
    multiple: int = 1,
    batch_size: int = 250,
) -> Calibration:
    """The channels to keep, and the miss rate to expect. images: normalised; see `Calibration`.

    multiple: keep so many more of the channels that come nearest to opening that every gate keeps a multiple of this (16 costs
    nothing where 16 numbers are computed at once, AVX-512).

    `InputError` for images of another size than the network's, and for fewer than 100.
    """
    if multiple < 1:
        raise InputError(f"multiple: 1 or more is needed, {multiple} came")
    if not 0 <= rare < 1:
        raise InputError(f"rare: a share of the calibration images in [0, 1) is needed, {rare} came")
    found: list[list[Tensor]] = []
    highest: list[Tensor] = []
    samples, n_images = [], 0
    was_training = network.training
    network.eval()
    for batch in batches_of(images, batch_size):
        require_images(batch, network.size)
        every = network(batch, gated=True).logits
        found.append([open_gates(logits).bool() for logits in every])
        peaks = [logits.amax(0) for logits in every]
        highest = peaks if not highest else [torch.maximum(old, new) for old, new in zip(highest, peaks, strict=True)]
        samples.append(batch[:: max(1, len(batch) // 8)].double().sum((2, 3)).numpy(force=True))
        n_images += len(batch)
    network.train(was_training)
    require_enough(n_images)
    opened = [torch.cat(part) for part in zip(*found, strict=True)]
    return _calibration(opened, highest, rare, multiple, fingerprint(n_images, *samples))


def require_images(images: Tensor, size: int, what: str = "calibration") -> None:
    """`InputError` unless these are normalised images (image, 3, size, size)."""
    if images.ndim != 4 or tuple(images.shape[1:]) != (3, size, size):
        raise InputError(f"{what}: images (image, 3, {size}, {size}) fit this network, {tuple(images.shape)} came")
    require_normalised(images, what)


def require_enough(n_images: int) -> None:
    """`InputError` for too few calibration images; it says how the miss rate depends on their number."""
    if n_images < FEWEST:
        raise InputError(
            f"calibration: {n_images} images came, {FEWEST} or more are needed. A channel that opens for a share p of images "
            f"is overlooked by n of them with probability (1 - p)^n, so even where no image disagrees a share of up to 3 / n "
            f"({'all' if n_images < 3 else f'{3 / n_images:.0%}'} with {n_images}) of new images may miss at a gate; "
            "1,000 images or more are a good number"
        )


def _filled_up(dropped: Tensor, counts: Tensor, highest: Tensor, multiple: int) -> Tensor:
    """`dropped` less the channels that fill the kept ones up to a multiple: most often open first, then of highest logit.

    Channels that are fixed shut stay out: with one of them the gate would have to be computed again.
    """
    fills = dropped & (highest > -FIXED_LOGIT / 2)
    missing = -int((~dropped).sum()) % multiple
    order = highest.argsort(descending=True, stable=True)
    order = order[counts[order].argsort(descending=True, stable=True)]
    return dropped.index_fill(0, order[fills[order]][:missing], False)


def _calibration(
    opened: Sequence[Tensor], highest: Sequence[Tensor], rare: float, multiple: int, of_images: str
) -> Calibration:
    """From gates (image, channel) and highest logits (channel,) of every gate."""
    n = len(opened[0])
    counts = [gates.sum(0) for gates in opened]
    rarely = [count <= rare * n for count in counts]
    dropped = [_filled_up(*parts, multiple) for parts in zip(rarely, counts, highest, strict=True)]
    own = [(gates & drop).any(1) for gates, drop in zip(opened, dropped, strict=True)]
    filled = [few & ~drop for few, drop in zip(rarely, dropped, strict=True)]
    left_out = [  # without image i a channel that it opens has one count less
        (gates & (count - 1 <= rare * (n - 1)) & ~more).any(1)
        for gates, count, more in zip(opened, counts, filled, strict=True)
    ]
    return Calibration(
        n_images=n,
        rare=rare,
        multiple=multiple,
        kept=tuple((~drop).nonzero()[:, 0].cpu() for drop in dropped),
        counts=tuple(count.cpu() for count in counts),
        own_misses=tuple(int(missed.sum()) for missed in own),
        left_out_misses=tuple(int(missed.sum()) for missed in left_out),
        any_left_out=int(torch.stack(left_out).any(0).sum()),
        fingerprint=of_images,
    )
