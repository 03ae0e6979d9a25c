"""A perturbed copy of a network: the same network with changed gains and biases, for worlds whose voxels it drives.

Each output channel of every convolution has its weights multiplied by exp(strength n), n standard normal, and its bias moved by
strength times the spread of its outputs times another n (measured on calibration images, block by block): what plasticity or
attention might change. Features of the copy are close to the network's, not linear in them; tuning can find the change.
Subjects may share the changes in part: n is then the sum of a common and an own draw, weighted by the roots of their shares.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pulvinar.core.errors import InputError
from pulvinar.networks.staged import StagedNetwork, feature_batches, load_network

N_CALIBRATION_IMAGES = 64
DRIVER = "perturbed:"


def driver_name(text: str) -> str:
    """The network's name in 'perturbed:NAME'; `InputError` for anything else."""
    if not text.startswith(DRIVER) or text == DRIVER:
        raise InputError(f"'fixed' or '{DRIVER}NAME' of a torchvision or timm network is needed, '{text}' came")
    return text.removeprefix(DRIVER)


def perturbed_features(
    images: np.ndarray,
    *,
    name: str,
    weights: str | None,
    strength: float,
    seed: int,
    fit_rows: np.ndarray,
    places: int = 1,
    own: float = 0.0,
    number: int = 0,
) -> dict[str, Tensor]:
    """Stage -> features (image, dim) of the perturbed copy, for images uint8 (image, size, size, 3); stages in order.

    fit_rows: training images, the only ones that the spread of channels is measured on. places: along an edge, that maps are
    averaged over; with many of them a ridge on early layers predicts any stage, and tuning has nothing to find. own: share of
    the changes' variance that is this subject's own; number: which subject it is.
    """
    network = load_network(name, weights=weights, image_size=images.shape[1], seed=seed)
    chosen = fit_rows[:: max(1, len(fit_rows) // N_CALIBRATION_IMAGES)][:N_CALIBRATION_IMAGES]
    perturb(network, network.preprocess(images[chosen]), strength=strength, seed=seed, own=own, number=number)
    parts: dict[str, list[np.ndarray]] = {stage: [] for stage in network.stages}
    for batch in feature_batches(network, images, batch_size=64, pool=places):
        for stage, values in batch.items():
            parts[stage].append(values.reshape(len(values), -1))
    return {stage: torch.from_numpy(np.concatenate(values)) for stage, values in parts.items()}


@torch.no_grad()
def perturb(network: StagedNetwork, images: Tensor, *, strength: float, seed: int, own: float = 0.0, number: int = 0) -> None:
    """Change gains and biases of all convolutions in place, in the order in which they run."""
    common, apart = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(10_007 * (number + 1) + seed)
    order = _convolutions_in_order(network, images[:2])
    for module in order:
        spread = _output_spread(network, module, images)
        draws = [torch.randn(2, module.out_channels, generator=generator) for generator in (common, apart)]
        gain, shift = (1 - own) ** 0.5 * draws[0] + own**0.5 * draws[1]
        module.weight.mul_(torch.exp(strength * gain).reshape(-1, *[1] * (module.weight.ndim - 1)))
        moved = strength * shift * spread
        bias = torch.zeros(module.out_channels) if module.bias is None else module.bias
        module.bias = nn.Parameter(bias + moved)


def _convolutions_in_order(network: StagedNetwork, images: Tensor) -> Sequence[nn.Conv2d]:
    met: list[nn.Conv2d] = []
    hooks = [
        module.register_forward_hook(lambda module, _inputs, _output: met.append(module))
        for module in network.modules()
        if isinstance(module, nn.Conv2d)
    ]
    with network.evaluating():
        network(images)
    for hook in hooks:
        hook.remove()
    return list(dict.fromkeys(met))


def _output_spread(network: StagedNetwork, module: nn.Conv2d, images: Tensor) -> Tensor:
    """Standard deviation of each output channel over images and places."""
    found: list[Tensor] = []
    hook = module.register_forward_hook(lambda _module, _inputs, output: found.append(output.std((0, 2, 3))))
    with network.evaluating():
        network(images)
    hook.remove()
    return found[0]
