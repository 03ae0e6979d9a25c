"""Gates of a network put on their budget: one shift of all logits, gates that are fixed, statistics of batch-norms.

Everything here looks at plain training images with the gates of inference, in evaluation mode.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from pulvinar.core.progress import log, warn
from pulvinar.core.sampling import evenly_spaced
from pulvinar.gating.settings import GatedConfig
from pulvinar.learning.processes import is_first
from pulvinar.learning.views import ViewSettings, plain_view
from pulvinar.networks.batch_norm import BatchNorm, averaging
from pulvinar.networks.gated_resnet import GatedResNet
from pulvinar.networks.gates import Gate
from pulvinar.selection.budget import Shift, bisect_logit_shift
from pulvinar.selection.channel_gate import by_group
from pulvinar.selection.decisive_gates import decided, one_mask

N_SETTLING_IMAGES = 4000
N_FIXING_IMAGES = 1000  # for the shift in front of fixing, which need not be as near
SETTLING_TOLERANCE = 5e-4
WARN_OF_SHIFT = 0.5


def _pixels(images: np.ndarray, rows: np.ndarray, views: ViewSettings, device: torch.device) -> Iterator[Tensor]:
    for part in np.array_split(rows, max(1, len(rows) // 250)):
        pixels = plain_view(torch.from_numpy(np.ascontiguousarray(images[part])).to(device), views)
        yield pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def mac_share(encoder: GatedResNet, images: np.ndarray, views: ViewSettings, *, n_images: int | None = None) -> float:
    """Mean MAC share of the gated pass at inference over (evenly spread) images."""
    device = encoder.logit_shift.device
    rows = evenly_spaced(len(images), n_images or len(images))
    was_training = encoder.training
    encoder.eval()
    shares = [float(encoder(pixels, gated=True).hard_share) * len(pixels) for pixels in _pixels(images, rows, views, device)]
    encoder.train(was_training)
    return sum(shares) / len(rows)


@torch.no_grad()
def recalibrate_gated_norms(encoder: GatedResNet, images: np.ndarray, views: ViewSettings) -> None:
    """Running statistics of the gated pass's own batch-norms from plain images with the gates of inference.

    In training the gates were noisy and the images augmented. Shared batch-norms, and those inside the gates, stay as they are.
    """
    norms = [
        module for name, module in encoder.named_modules() if isinstance(module, BatchNorm) and name.split(".")[-1] == "gated"
    ]
    with averaging(norms):
        for pixels in _pixels(images, evenly_spaced(len(images), N_SETTLING_IMAGES), views, encoder.logit_shift.device):
            encoder(pixels, gated=True)


def settle(encoder: GatedResNet, images: np.ndarray, config: GatedConfig, views: ViewSettings) -> dict[str, float]:
    """Put the gated pass on its budget after training: statistics, then one shift of all logits, found on training images.

    Statistics and shift each move the other a little, so both are done twice, the shift last. With `fix_gates` set the gates
    that are decided by then are fixed between the two. Gives the share before, the shift, the share after, and the shares of
    fixed channels; prints them.
    """
    encoder.eval()
    before = mac_share(encoder, images, views, n_images=N_SETTLING_IMAGES)
    found, shifted = Shift(0.0, before), config.settle and config.budget_mode != "none"
    for number in range(2 if shifted else 1):
        if config.recalibrate:
            recalibrate_gated_norms(encoder, images, views)
        if shifted and (free_channels(encoder) or encoder.shape.gate_form != "subset"):
            found = _shift_onto(config.budget, encoder, images, views)
        elif config.recalibrate:
            found = Shift(0.0, mac_share(encoder, images, views, n_images=N_SETTLING_IMAGES))
        if not number and config.fix_gates is not None:
            fix_gates(encoder, images, views, budget=config.budget, margin=config.fix_margin)
            found = Shift(found.shift, mac_share(encoder, images, views, n_images=N_SETTLING_IMAGES))
    log(f"MAC share on training images {before:.4f}; logits shifted by {found.shift:+.4f}: {found.share:.4f}")
    if abs(found.shift) > WARN_OF_SHIFT:
        warn(f"the gates were moved by {found.shift:+.2f} to meet the budget; train longer, or raise gate_rate")
    facts = {"asked": config.budget, "share_before": before, "logit_shift": found.shift, "share_training": found.share}
    return facts | ({} if config.fix_gates is None else fixed_shares(encoder))


def _gates(encoder: GatedResNet) -> list[Gate]:
    return [module for module in encoder.modules() if isinstance(module, Gate)]


def free_channels(encoder: GatedResNet) -> int:
    """How many gated channels still depend on the image."""
    return sum(int((gate.fixed_channels() == 0).sum()) for gate in _gates(encoder))


def fixed_shares(encoder: GatedResNet) -> dict[str, float]:
    """The shares of gated channels that are fixed open and fixed shut."""
    signs = torch.cat([gate.fixed_channels() for gate in _gates(encoder)])
    return {"fixed_open": float((signs > 0).float().mean()), "fixed_shut": float((signs < 0).float().mean())}


@torch.no_grad()
def fix_gates(encoder: GatedResNet, images: np.ndarray, views: ViewSettings, *, budget: float, margin: float) -> None:
    """From now on the gates that are decided are constants; first all logits are shifted onto the budget.

    margin: a gate is decided if it is open for at most this share of the images, or shut for at most this share. With .5 every
    gate is, and the open ones are those of highest mean probability, as many as the budget allows (`one_mask`).
    """
    was_training = encoder.training
    encoder.eval()
    if free_channels(encoder):
        _shift_onto(budget, encoder, images, views, n_images=N_FIXING_IMAGES)
    gates = _gates(encoder)
    opened, chances = _opening(encoder, images, views)
    if margin < 0.5:
        signs = [decided(rates, margin) for rates in opened]
    else:
        sizes = [(gate.group, gate.n_channels) for gate in gates]

        def share(masks: list[Tensor]) -> float:
            wide = [by_group(mask[None].double(), group=g, n_channels=n) for mask, (g, n) in zip(masks, sizes, strict=True)]
            return float(encoder.macs.share([mask.mean(1) for mask in wide]))

        signs = [2.0 * mask - 1.0 for mask in one_mask(chances, share, budget)]
    for gate, sign in zip(gates, signs, strict=True):
        gate.fixed.copy_(torch.where(gate.fixed != 0, gate.fixed, sign))
    encoder.train(was_training)
    if is_first():
        shares = fixed_shares(encoder)
        log(f"gates fixed: {100 * shares['fixed_open']:.1f} % of channels open, {100 * shares['fixed_shut']:.1f} % shut")


def _opening(encoder: GatedResNet, images: np.ndarray, views: ViewSettings) -> tuple[list[Tensor], list[Tensor]]:
    """Of every gate, over images: how often each decision is to open, and its mean probability; (decision,) each."""
    rows = evenly_spaced(len(images), N_SETTLING_IMAGES)
    opened: list[Tensor] = []
    chances: list[Tensor] = []
    for pixels in _pixels(images, rows, views, encoder.logit_shift.device):
        every = zip(encoder(pixels, gated=True).logits, _gates(encoder), strict=True)
        logits = [channels[:, :: gate.group] for channels, gate in every]
        counts, sums = [(a >= 0).float().sum(0) for a in logits], [torch.sigmoid(a).sum(0) for a in logits]
        opened = counts if not opened else [a + b for a, b in zip(opened, counts, strict=True)]
        chances = sums if not chances else [a + b for a, b in zip(chances, sums, strict=True)]
    return [count / len(rows) for count in opened], [total / len(rows) for total in chances]


def _shift_onto(
    budget: float, encoder: GatedResNet, images: np.ndarray, views: ViewSettings, *, n_images: int = N_SETTLING_IMAGES
) -> Shift:
    return shift_onto(
        budget, encoder, lambda: mac_share(encoder, images, views, n_images=n_images), tolerance=SETTLING_TOLERANCE
    )


@torch.no_grad()
def shift_onto(
    budget: float, network: GatedResNet, share: Callable[[], float], *, tolerance: float, at_most: bool = False
) -> Shift:
    """Move `logit_shift` of a network from where it is to where `share()` meets the budget; its value then, and the share.

    tolerance, at_most: as in `bisect_logit_shift`, which raises `InputError` where no shift reaches the budget.
    """
    already = float(network.logit_shift)

    def share_at(shift: float) -> float:
        network.logit_shift.fill_(already + shift)
        return share()

    found = bisect_logit_shift(share_at, budget, tolerance=tolerance, at_most=at_most)
    network.logit_shift.fill_(already + found.shift)
    return Shift(already + found.shift, found.share)
