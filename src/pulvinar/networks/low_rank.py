"""Low-rank adapters (LoRA, Hu et al. 2022) in a network, by peft: few weights are trained, and join the others after."""

from typing import Any

import torch
from torch import nn

from pulvinar.core.errors import InputError, MissingDependencyError


def add_adapters(network: nn.Module, *, rank: int, seed: int) -> Any:
    """Adapters of this rank beside every linear layer and every convolution without groups; only they have gradients.

    Returns peft's wrapper, for `merge`; the network itself is changed in place.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingDependencyError(
            "low-rank adapters: peft is not installed; run: pip install 'pulvinar[encoding]'"
        ) from error
    targets = [name for name, module in network.named_modules() if _fits(module)]
    if not targets:
        raise InputError("low-rank adapters: the network has no linear layer or convolution that an adapter fits")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return peft.get_peft_model(network, peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=targets))


def _fits(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1)


def merge(adapted: Any) -> nn.Module:
    """The network with its adapters added into the weights, modules and names as they were before."""
    return adapted.merge_and_unload()
